//! Secrets stay inside.

use std::fmt::Write;
use std::sync::Arc;

use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use hkdf::Hkdf;
use lightning::ln::chan_utils::build_commitment_secret;
use opening_core::{FeeratePerKw, Side};
use opening_signer::{ChannelRef, Enforcement, Hsm, HsmResult};
use sha2::Sha256;

use crate::pair::{Pair, node, node_id};

fn hkdf(salt: &[u8], secret: &[u8], info: &[u8], length: usize) -> Vec<u8> {
    let mut output = vec![0; length];
    Hkdf::<Sha256>::new(Some(salt), secret).expand(info, &mut output).unwrap();
    output
}

/// Every secret of node 7's channel 1 with node 8, from its root to its first per-commitment
/// secrets.
fn secrets() -> Vec<Vec<u8>> {
    let root = vec![7; 32];
    let base = hkdf(&[], &root, b"peer seed", 32);
    let mut salt = node_id(8).serialize().to_vec();
    salt.extend(1_u64.to_le_bytes());
    let channel = hkdf(&salt, &base, b"per-peer seed", 32);
    let all = hkdf(&[], &channel, b"c-lightning", 192);
    let mut secrets: Vec<_> = all.chunks(32).map(<[u8]>::to_vec).collect();
    let seed: [u8; 32] = secrets[5].clone().try_into().unwrap();
    let last = (1 << 48) - 1;
    secrets.extend([last, last - 1, 0].map(|index| build_commitment_secret(&seed, index).to_vec()));
    secrets.extend([root, base, channel, node(7).node_key().secret_bytes().to_vec()]);
    secrets
}

/// All that a signer lets out, one line each.
#[derive(Default)]
struct Seen(String);

impl Seen {
    fn answer<T: std::fmt::Debug>(&mut self, answer: HsmResult<T>) {
        match answer {
            Ok(value) => writeln!(self.0, "{value:?}"),
            Err(error) => writeln!(self.0, "{error} {error:?} {}", error.code()),
        }
        .unwrap();
    }

    fn signature(&mut self, answer: HsmResult<Signature>) {
        let answer = answer.map(|signature| hex::encode(signature.serialize_compact()));
        self.answer(answer);
    }
}

// req: B3-SEC-B-02
#[tokio::test]
async fn nothing_that_leaves_the_signer_contains_a_secret() {
    let secrets = secrets();
    let Pair { funder, fundee } = Pair::new(Enforcement::Validating).await;
    let funding = SecretKey::from_slice(&secrets[0]).unwrap();
    let funding_pubkey: PublicKey = funding.public_key(&Secp256k1::new());
    assert_eq!(funder.setup.parameters.local.keys.funding_pubkey, funding_pubkey);

    let mut seen = Seen::default();
    let (own, theirs) = (funder.commitment(Side::Local), funder.commitment(Side::Remote));
    seen.answer(Ok(&funder.hsm));
    seen.answer(Ok(funder.hsm.info()));
    seen.answer(funder.channel.pubkeys().await);
    for number in [0, 1, (1 << 48) - 1, 1 << 48] {
        seen.answer(funder.channel.per_commitment_point(number).await);
    }
    seen.signature(funder.sign(&theirs).await);
    seen.answer(funder.channel.setup(&fundee.setup).await);
    seen.answer(funder.channel.setup(&funder.setup).await);
    let mut changed = funder.setup.clone();
    changed.parameters.feerate_per_kw = FeeratePerKw::new(1251);
    seen.answer(funder.channel.setup(&changed).await);
    seen.signature(funder.sign(&own).await);
    let mut odd = theirs.clone();
    odd.transaction.output.clear();
    seen.signature(funder.sign(&odd).await);
    seen.signature(funder.sign(&theirs).await);
    seen.answer(funder.validate(&own, &Signature::from_compact(&[1; 64]).unwrap()).await);
    seen.signature(funder.sign_own(&own).await);
    fundee.channel.setup(&fundee.setup).await.unwrap();
    let created = funder.sign(&theirs).await.unwrap();
    fundee.validate(&fundee.commitment(Side::Local), &created).await.unwrap();
    let signed = fundee.sign(&fundee.commitment(Side::Remote)).await.unwrap();
    seen.answer(funder.validate(&own, &signed).await);
    seen.signature(funder.sign_own(&own).await);
    seen.answer(Ok(&funder.hsm));
    let nameless = ChannelRef { dbid: 0, ..funder.reference };
    seen.answer(funder.hsm.channel(nameless).await.map(|_| ()));
    for (key, value) in Arc::clone(&funder.store.entries).lock().unwrap().iter() {
        seen.answer(Ok((key, hex::encode(value))));
    }

    assert!(seen.0.lines().count() >= 20, "{}", seen.0);
    assert!(seen.0.contains(&hex::encode(created.serialize_compact())));
    for secret in secrets {
        let mut reversed = secret.clone();
        reversed.reverse();
        for bytes in [secret, reversed] {
            let (hex, list) = (hex::encode(&bytes), format!("{bytes:?}"));
            let list = list.trim_matches(['[', ']']);
            assert!(!seen.0.contains(&hex) && !seen.0.contains(list), "{hex} left the signer");
        }
    }
}
