//! The cost of the cryptography: what an opening would take if everything else were free.

use std::hint::black_box;

use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::{All, Message, PublicKey, Scalar, Secp256k1, SecretKey};

use crate::cpu;
use crate::figures::Microseconds;

/// An operation on the curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A public key from its secret.
    Create,
    /// A public key from its 33 bytes.
    Parse,
    /// A key times a scalar.
    MultiplyTweak,
    /// The sum of two keys.
    Combine,
    /// A key plus a scalar times the generator.
    AddTweak,
    /// A signature, low-R as Bitcoin Core and Core Lightning give it.
    SignLowR,
    /// The check of a signature.
    Verify,
}

use Operation::{AddTweak, Combine, Create, MultiplyTweak, Parse, SignLowR, Verify};

/// What one side needs up to `funding_signed` with a signer that gives no secret away.
///
/// Keys are made for five basepoints and the first point, and parsed as often from the peer; each
/// commitment takes a revocation key (two products and a sum) and a delayed key; the peer's
/// `to_remote` key is its payment basepoint.
pub const PER_SIDE: [(Operation, u32); 7] = [
    (Create, 6),
    (Parse, 6),
    (MultiplyTweak, 4),
    (Combine, 2),
    (AddTweak, 2),
    (SignLowR, 1),
    (Verify, 1),
];

impl Operation {
    /// For tables.
    pub fn name(self) -> &'static str {
        match self {
            Create => "create a public key",
            Parse => "parse a public key",
            MultiplyTweak => "multiply a key",
            Combine => "add two keys",
            AddTweak => "add to a key",
            SignLowR => "sign, low-R",
            Verify => "verify",
        }
    }
}

/// Keys and digests to work on, another one each time: a signature takes one attempt or several.
pub struct Curve {
    secp: Secp256k1<All>,
    secrets: Vec<SecretKey>,
    keys: Vec<PublicKey>,
    bytes: Vec<[u8; 33]>,
    scalars: Vec<Scalar>,
    digests: Vec<Message>,
}

const VARIETY: u32 = 64;

impl Default for Curve {
    /// Keys and digests made from numbers.
    fn default() -> Self {
        let secp = Secp256k1::new();
        let digest = |n: u32| sha256::Hash::hash(&n.to_be_bytes()).to_byte_array();
        let secrets: Vec<_> = (0..VARIETY)
            .map(|n| SecretKey::from_slice(&digest(n)).expect("nearly every digest is a key"))
            .collect();
        let keys: Vec<_> = secrets.iter().map(|secret| secret.public_key(&secp)).collect();
        Self {
            bytes: keys.iter().map(PublicKey::serialize).collect(),
            scalars: secrets.iter().map(|secret| Scalar::from(*secret)).collect(),
            digests: (VARIETY..2 * VARIETY).map(|n| Message::from_digest(digest(n))).collect(),
            secp,
            secrets,
            keys,
        }
    }
}

impl Curve {
    /// One operation's time, the mean over as many keys as there are.
    pub fn cost(&self, operation: Operation) -> Microseconds {
        let Self { secp, secrets, keys, bytes, scalars, digests } = self;
        let count = VARIETY as usize;
        let next = |i: usize| (i + 1) % count;
        let signatures: Vec<_> =
            (0..count).map(|i| secp.sign_ecdsa_low_r(&digests[i], &secrets[i])).collect();
        let ((), time) = cpu::of(|| {
            for i in 0..count {
                match operation {
                    Create => drop(black_box(secrets[i].public_key(secp))),
                    Parse => drop(black_box(PublicKey::from_slice(&bytes[i]))),
                    MultiplyTweak => drop(black_box(keys[i].mul_tweak(secp, &scalars[next(i)]))),
                    Combine => drop(black_box(keys[i].combine(&keys[next(i)]))),
                    AddTweak => drop(black_box(keys[i].add_exp_tweak(secp, &scalars[next(i)]))),
                    SignLowR => drop(black_box(secp.sign_ecdsa_low_r(&digests[i], &secrets[i]))),
                    Verify => {
                        let good = secp.verify_ecdsa(&digests[i], &signatures[i], &keys[i]);
                        assert_eq!(black_box(good), Ok(()));
                    }
                }
            }
        });
        Microseconds::of(time) / f64::from(VARIETY)
    }

    /// What one side's operations take together.
    pub fn per_side(&self) -> Microseconds {
        PER_SIDE.iter().map(|&(operation, count)| self.cost(operation) * f64::from(count)).sum()
    }
}
