//! The public side of a channel's secrets.

use bitcoin::secp256k1::{PublicKey, Secp256k1, Signing};
use opening_core::ChannelKeys;

use super::channel::per_commitment_secret;
use super::secret::{ChannelSecretBytes, with_key};

/// What all may know of a channel: six keys, which are most of what an opening asks of a signer.
pub(super) struct Public {
    pub(super) keys: ChannelKeys,
    pub(super) first_per_commitment_point: PublicKey,
}

impl Public {
    pub(super) fn derive<C: Signing>(secp: &Secp256k1<C>, secrets: &ChannelSecretBytes) -> Self {
        let public = |secret| with_key(secret, |key| key.public_key(secp));
        let first_secret = per_commitment_secret(secrets.shachain_seed(), 0)
            .expect("0 is below the last commitment number");
        Self {
            keys: ChannelKeys {
                funding_pubkey: public(secrets.funding()),
                revocation_basepoint: public(secrets.revocation()),
                payment_basepoint: public(secrets.payment()),
                delayed_payment_basepoint: public(secrets.delayed_payment()),
                htlc_basepoint: public(secrets.htlc()),
            },
            first_per_commitment_point: public(&first_secret),
        }
    }
}
