//! Secrets given by a test, so that its keys are known beforehand.

use bitcoin::secp256k1::SecretKey;
use zeroize::{Zeroize, Zeroizing};

use super::secret::ChannelRoot;

/// The secrets of a channel, chosen by a test.
pub struct ChannelSecrets {
    /// Of `funding_pubkey`.
    pub funding: SecretKey,
    /// Of `revocation_basepoint`.
    pub revocation: SecretKey,
    /// Of `payment_basepoint`.
    pub payment: SecretKey,
    /// Of `delayed_payment_basepoint`.
    pub delayed_payment: SecretKey,
    /// Of `htlc_basepoint`.
    pub htlc: SecretKey,
    /// Gives the per-commitment secrets.
    pub shachain_seed: [u8; 32],
}

impl ChannelSecrets {
    pub(super) fn into_root(mut self) -> ChannelRoot {
        let keys = [self.funding, self.revocation, self.htlc, self.payment, self.delayed_payment];
        let mut bytes = Zeroizing::new([0; 192]);
        let (parts, _) = bytes.as_chunks_mut::<32>();
        for (part, mut key) in parts.iter_mut().zip(keys) {
            *part = key.secret_bytes();
            key.non_secure_erase();
        }
        parts[5] = self.shachain_seed;
        self.shachain_seed.zeroize();
        ChannelRoot::Fixed(bytes)
    }
}
