//! Secrets, and how Core Lightning's hsmd derives one from another.
//!
//! Every secret at rest is in a wrapper that wipes it.  A [`SecretKey`] is `Copy` and wipes
//! nothing, so one lives only while [`with_key`] runs.

use bitcoin::secp256k1::SecretKey;
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::request::ChannelRef;

/// 32 random bytes from which all keys of a node follow, as in Core Lightning's `hsm_secret` file.
///
/// Whoever knows them owns the node's money: draw them from the system's entropy, once.
pub struct HsmSecret(Zeroizing<[u8; 32]>);

impl HsmSecret {
    /// The caller's own copy, if it was not in [`Zeroizing`], is the caller's to wipe.
    pub fn new(secret: impl Into<Zeroizing<[u8; 32]>>) -> Self {
        Self(secret.into())
    }

    /// The private key of the node's identity, for BOLT 8.
    pub fn node_key(&self) -> SecretKey {
        (0_u32..)
            .find_map(|salt| {
                let bytes = derive::<32>(&salt.to_le_bytes(), self.0.as_slice(), b"nodeid");
                SecretKey::from_slice(bytes.as_slice()).ok()
            })
            .expect("nearly every 32 bytes are a secret key")
    }

    /// All that a signer of channels needs to know of it.
    pub(super) fn channel_root(&self) -> ChannelRoot {
        ChannelRoot::Seed(derive(&[], self.0.as_slice(), b"peer seed"))
    }
}

/// Where the secrets of channels come from.
pub(super) enum ChannelRoot {
    /// Each channel has its own.
    Seed(Zeroizing<[u8; 32]>),
    /// All have the same.
    #[cfg(feature = "testing")]
    Fixed(Zeroizing<[u8; 192]>),
}

impl ChannelRoot {
    pub(super) fn channel(&self, reference: ChannelRef) -> ChannelSecretBytes {
        match self {
            Self::Seed(seed) => {
                let mut salt = [0; 33 + 8];
                salt[..33].copy_from_slice(&reference.peer.serialize());
                salt[33..].copy_from_slice(&reference.dbid.to_le_bytes());
                let channel = derive::<32>(&salt, seed.as_slice(), b"per-peer seed");
                ChannelSecretBytes(derive(&[], channel.as_slice(), b"c-lightning"))
            }
            #[cfg(feature = "testing")]
            Self::Fixed(bytes) => ChannelSecretBytes(bytes.clone()),
        }
    }

    /// Something that only this root gives, to blind the curve arithmetic with.
    pub(super) fn blinding(&self) -> Zeroizing<[u8; 32]> {
        let secret = match self {
            Self::Seed(seed) => seed.as_slice(),
            #[cfg(feature = "testing")]
            Self::Fixed(bytes) => bytes.as_slice(),
        };
        derive(&[], secret, b"opening-signer blinding")
    }
}

/// The five secret keys of a channel and the seed of its per-commitment secrets.
pub(super) struct ChannelSecretBytes(Zeroizing<[u8; 192]>);

impl ChannelSecretBytes {
    pub(super) fn funding(&self) -> &[u8; 32] {
        self.part(0)
    }

    pub(super) fn revocation(&self) -> &[u8; 32] {
        self.part(1)
    }

    pub(super) fn htlc(&self) -> &[u8; 32] {
        self.part(2)
    }

    pub(super) fn payment(&self) -> &[u8; 32] {
        self.part(3)
    }

    pub(super) fn delayed_payment(&self) -> &[u8; 32] {
        self.part(4)
    }

    pub(super) fn shachain_seed(&self) -> &[u8; 32] {
        self.part(5)
    }

    fn part(&self, index: usize) -> &[u8; 32] {
        &self.0.as_chunks().0[index]
    }
}

/// Lets `act` use a secret key, and wipes it.
pub(super) fn with_key<T>(secret: &[u8; 32], act: impl FnOnce(&SecretKey) -> T) -> T {
    let mut key = SecretKey::from_slice(secret)
        .expect("a hash that is no secret key has never been seen, and a given key is one");
    let result = act(&key);
    key.non_secure_erase();
    result
}

fn derive<const N: usize>(salt: &[u8], secret: &[u8], info: &[u8]) -> Zeroizing<[u8; N]> {
    let mut derived = Zeroizing::new([0; N]);
    Hkdf::<Sha256>::new(Some(salt), secret)
        .expand(info, derived.as_mut_slice())
        .expect("192 bytes are less than HKDF's limit of 8160");
    derived
}
