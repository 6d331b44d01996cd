//! That a signature was verified, as a value: who has it need not verify again.

use bitcoin::secp256k1::{self, Message, PublicKey, Secp256k1, ecdsa::Signature};

use crate::commitment::Commitment;

/// Proof that in this process a signature was verified: over this digest, by this key.  Only
/// [`Commitment::good_signature`] makes one, and only of a good signature (B2-FC-R-01,
/// B2-FS-R-01).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GoodSignature {
    sighash: Message,
    funding_pubkey: PublicKey,
    signature: Signature,
}

impl GoodSignature {
    /// The signature.
    pub const fn signature(&self) -> &Signature {
        &self.signature
    }

    /// The digest that it signs.
    pub const fn sighash(&self) -> &Message {
        &self.sighash
    }

    /// Whether this is the proof for that signature, over that commitment as it is now, by that
    /// key.
    pub fn is_for(
        &self,
        commitment: &Commitment,
        signature: &Signature,
        funding_pubkey: &PublicKey,
    ) -> bool {
        self.signature == *signature
            && self.funding_pubkey == *funding_pubkey
            && self.sighash == commitment.sighash()
    }
}

impl Commitment {
    /// The proof that `signature` is one by `funding_pubkey` over this transaction, in its low-S
    /// form; `None` if it is not.
    pub fn good_signature<C: secp256k1::Verification>(
        &self,
        secp: &Secp256k1<C>,
        signature: &Signature,
        funding_pubkey: &PublicKey,
    ) -> Option<GoodSignature> {
        let sighash = self.sighash();
        // libsecp256k1 itself takes no signature with a high S for valid, well-formed or not; were
        // one accepted, Bitcoin nodes would not relay the transaction that carries it.
        secp.verify_ecdsa(&sighash, signature, funding_pubkey).ok()?;
        let (funding_pubkey, signature) = (*funding_pubkey, *signature);
        Some(GoodSignature { sighash, funding_pubkey, signature })
    }

    /// Whether `signature` is one by `funding_pubkey` over this transaction, in its low-S form
    /// (B2-FC-R-01, B2-FS-R-01).
    pub fn is_signed_by<C: secp256k1::Verification>(
        &self,
        secp: &Secp256k1<C>,
        signature: &Signature,
        funding_pubkey: &PublicKey,
    ) -> bool {
        self.good_signature(secp, signature, funding_pubkey).is_some()
    }
}
