//! Channel establishment v1 as pure states: no `async`, socket, clock, randomness or log line.
//!
//! ```text
//! funder                                fundee
//! WaitForKeys                           
//!   | ---------- open_channel ----------> |  WaitForTerms, WaitForKeys
//! WaitForAcceptChannel                    |
//!   | <--------- accept_channel --------- |  WaitForFundingCreated
//! WaitForFunding, WaitForSignature        |
//!   | --------- funding_created --------> |  WaitForSignature
//! WaitForFundingSigned                    |
//!   | <--------- funding_signed --------- |  Held<FundingSigned>
//! WaitForValidation, Held<BroadcastPermit>
//! ```
//!
//! A state is a plain struct named for what it waits for; one consuming method is its only way
//! forward.  Signatures, outpoints and decisions of the node arrive as arguments; what a state
//! wants done is its return value.

use std::sync::{Arc, LazyLock};

use bitcoin::ScriptBuf;
use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::{All, PublicKey, Secp256k1};
use opening_core::{
    Answer, ChannelConfig, ChannelKeys, ChannelParameters, Commitment, Feature, FeerateRange,
    Limits, NegotiatedFeatures, Offer, Party, Proposal, Side,
};
use opening_signer::ChannelRef;

mod failure;
pub mod fundee;
pub mod funder;
mod held;
mod mapping;
mod opened;
pub mod ready;
pub mod reestablish;

pub use failure::NegotiationError;
pub use held::{BroadcastPermit, Held, Saved};
pub use opened::Opened;

/// By what one peer's messages, and ours to it, are judged.
#[derive(Clone, Debug)]
pub struct Context {
    /// The chain that this node is on.
    pub chain_hash: ChainHash,
    /// The features of both `init` messages, shared by all openings of a connection.
    pub features: Arc<NegotiatedFeatures>,
    /// This node's limits for this peer, already narrowed to what the signer will do.
    pub limits: Limits,
    /// Feerates acceptable now; `None` without an estimate.
    pub feerates: Option<FeerateRange>,
}

impl Context {
    fn proposal<'a>(&'a self, offer: Offer<'a>, answer: Option<Answer<'a>>) -> Proposal<'a> {
        Proposal {
            offer,
            answer,
            chain_hash: self.chain_hash,
            features: &self.features,
            limits: &self.limits,
            feerates: self.feerates,
        }
    }

    /// The script that binds a side's closing output: none if the feature was not negotiated
    /// (A-10) or the side opted out with an empty one.
    fn binding_script(&self, script: Option<&ScriptBuf>) -> Option<ScriptBuf> {
        self.features
            .negotiated(Feature::UpfrontShutdownScript)
            .then(|| script.filter(|script| !script.is_empty()).cloned())
            .flatten()
    }
}

/// What the signer gives for a new channel.
#[derive(Clone, Copy, Debug)]
pub struct LocalKeys {
    /// Under which name the signer knows the channel.
    pub reference: ChannelRef,
    /// The channel's public keys.
    pub keys: ChannelKeys,
    /// The per-commitment point of commitment 0 (B2-OPEN-S-07, B2-ACC-S-07).
    pub first_per_commitment_point: PublicKey,
}

impl LocalKeys {
    fn party(&self, config: ChannelConfig) -> Party {
        let Self { keys, first_per_commitment_point, .. } = *self;
        Party { config, keys, first_per_commitment_point }
    }
}

/// Both sides' first commitment transactions.
#[derive(Clone, Debug)]
struct FirstCommitments {
    local: Commitment,
    remote: Commitment,
}

impl FirstCommitments {
    fn build(parameters: &ChannelParameters) -> Result<Self, NegotiationError> {
        Ok(Self {
            local: parameters.first_commitment(secp(), Side::Local)?,
            remote: parameters.first_commitment(secp(), Side::Remote)?,
        })
    }
}

/// One context for the whole process: building it costs more than an opening.
pub(crate) fn secp() -> &'static Secp256k1<All> {
    static SECP: LazyLock<Secp256k1<All>> = LazyLock::new(Secp256k1::new);
    &SECP
}
