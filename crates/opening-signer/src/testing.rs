//! What only tests may have.

use bitcoin::secp256k1::SecretKey;

use crate::derivation::{ChannelSecrets, Secret};

/// Secrets that serve for every channel.
pub struct FixedSecrets {
    /// Signs commitments.
    pub funding: SecretKey,
    /// Secret of `revocation_basepoint`.
    pub revocation: SecretKey,
    /// Secret of `payment_basepoint`.
    pub payment: SecretKey,
    /// Secret of `delayed_payment_basepoint`.
    pub delayed_payment: SecretKey,
    /// Secret of `htlc_basepoint`.
    pub htlc: SecretKey,
    /// All per-commitment secrets follow from it.
    pub shachain_seed: [u8; 32],
}

impl FixedSecrets {
    pub(crate) fn channel_secrets(&self) -> ChannelSecrets {
        let secret = |key: &SecretKey| Secret::new(key.secret_bytes());
        ChannelSecrets {
            funding: secret(&self.funding),
            revocation: secret(&self.revocation),
            payment: secret(&self.payment),
            delayed_payment: secret(&self.delayed_payment),
            htlc: secret(&self.htlc),
            shachain_seed: Secret::new(self.shachain_seed),
        }
    }
}
