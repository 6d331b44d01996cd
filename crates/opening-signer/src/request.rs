//! What a signer is told: the name of a channel, what it is made of, a commitment to sign.

use std::fmt;

use bitcoin::ScriptBuf;
use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{PublicKey, Secp256k1, Verification};
use opening_core::{ChannelParameters, Commitment, GoodSignature};

use crate::error::{HsmError, HsmResult};

/// The name of a channel between node and signer, never used for two channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChannelRef {
    /// The peer's node id.
    pub peer: PublicKey,
    /// Counts up from 1 for the whole node.  0 names no channel.
    pub dbid: u64,
}

/// What a signer has to know of a channel before it signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelSetup {
    /// Who opens, the funding output, what is pushed, the feerate, the channel type, and both
    /// sides' keys, first points and configs.
    pub parameters: ChannelParameters,
    /// The chain.
    pub chain_hash: ChainHash,
    /// The script that our closing output must pay, if we committed to one.
    pub local_shutdown_script: Option<ScriptBuf>,
    /// The script that the peer's closing output must pay, if it committed to one.
    pub remote_shutdown_script: Option<ScriptBuf>,
}

/// A commitment transaction to sign or to validate: the meaning and the transaction.  A signer
/// can rebuild and compare; a signer behind a wire can forward.
#[derive(Clone, Copy)]
pub struct CommitmentRequest<'a> {
    /// What the commitment is made of: what [`ChannelSetup`] told before.
    pub parameters: &'a ChannelParameters,
    /// The transaction, its owner and its number.
    pub commitment: &'a Commitment,
    /// The owner's per-commitment point for that number.
    pub per_commitment_point: PublicKey,
    /// That the counterparty's signature is good, where whoever asks has verified it in this
    /// process.  It passes no wire.
    pub proof: Option<GoodSignature>,
}

/// What is asked for, without the proof: with it or not, it is the same request.
impl fmt::Debug for CommitmentRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { parameters, commitment, per_commitment_point, proof: _ } = self;
        f.debug_struct("CommitmentRequest")
            .field("parameters", parameters)
            .field("commitment", commitment)
            .field("per_commitment_point", per_commitment_point)
            .finish_non_exhaustive()
    }
}

impl<'a> CommitmentRequest<'a> {
    /// About the owner's first commitment.
    pub fn first(parameters: &'a ChannelParameters, commitment: &'a Commitment) -> Self {
        let owner = parameters.party(commitment.owner);
        let per_commitment_point = owner.first_per_commitment_point;
        Self { parameters, commitment, per_commitment_point, proof: None }
    }

    /// The proof that the peer's `signature` on our commitment is good: verified here, unless the
    /// request proves that it was.
    pub fn signed_by_peer<C: Verification>(
        &self,
        secp: &Secp256k1<C>,
        signature: &Signature,
    ) -> HsmResult<GoodSignature> {
        let funding_pubkey = &self.parameters.remote.keys.funding_pubkey;
        let is_for = |it: &GoodSignature| it.is_for(self.commitment, signature, funding_pubkey);
        let verify = || self.commitment.good_signature(secp, signature, funding_pubkey);
        let proof = self.proof.filter(is_for).or_else(verify);
        proof.ok_or(HsmError::BadCounterpartySignature)
    }
}
