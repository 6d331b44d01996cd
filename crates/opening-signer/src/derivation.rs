//! Keys as Core Lightning derives them: the same `hsm_secret` gives the same channels.

use bitcoin::secp256k1::SecretKey;
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::hsm::ChannelRef;

/// The six secrets of one channel, wiped when dropped.
pub(crate) struct ChannelSecrets {
    pub(crate) funding: Secret,
    pub(crate) revocation: Secret,
    pub(crate) payment: Secret,
    pub(crate) delayed_payment: Secret,
    pub(crate) htlc: Secret,
    /// All per-commitment secrets follow from it.
    pub(crate) shachain_seed: Secret,
}

/// 32 bytes that nobody may see.
pub(crate) type Secret = Zeroizing<[u8; 32]>;

fn hkdf<const LENGTH: usize>(salt: &[u8], key: &[u8; 32], info: &str) -> Zeroizing<[u8; LENGTH]> {
    let mut output = Zeroizing::new([0; LENGTH]);
    Hkdf::<Sha256>::new(Some(salt), key)
        .expand(info.as_bytes(), &mut *output)
        .expect("at most 255 hashes are asked for");
    output
}

/// Everything that a channel signs with.
pub(crate) fn channel_secrets(hsm_secret: &Secret, reference: ChannelRef) -> ChannelSecrets {
    let base: Secret = hkdf(&[], hsm_secret, "peer seed");
    let mut name = [0; 41];
    name[..33].copy_from_slice(&reference.peer.serialize());
    name[33..].copy_from_slice(&reference.dbid.to_le_bytes());
    let seed: Secret = hkdf(&name, &base, "per-peer seed");
    let all: Zeroizing<[u8; 192]> = hkdf(&[], &seed, "c-lightning");
    let part = |index: usize| {
        let mut secret = Secret::default();
        secret.copy_from_slice(&all[index * 32..][..32]);
        secret
    };
    ChannelSecrets {
        funding: part(0),
        revocation: part(1),
        htlc: part(2),
        payment: part(3),
        delayed_payment: part(4),
        shachain_seed: part(5),
    }
}

/// The node's identity.
pub(crate) fn node_secret(hsm_secret: &Secret) -> SecretKey {
    (0_u32..)
        .find_map(|salt| {
            let candidate: Secret = hkdf(&salt.to_le_bytes(), hsm_secret, "nodeid");
            SecretKey::from_slice(&*candidate).ok()
        })
        .expect("a hash that is no secret key has never been seen, let alone 2^32")
}
