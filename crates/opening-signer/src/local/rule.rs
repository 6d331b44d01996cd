//! What a [`LocalHsm`](super::LocalHsm) refuses, each rule with its tag.
//!
//! What validating signers are known to refuse, and where it is refused here:
//!
//! | refusal | here |
//! |---|---|
//! | another channel type than static remote key and zero-fee anchors | no other can be expressed; narrower by [`Rule::ChannelTypeNotSigned`] |
//! | delays out of bounds, on either side | [`Rule::DelayOutOfBounds`] |
//! | a `dbid` used again | [`Rule::SetupDiffers`], also after a restart |
//! | an upfront script that is not ours | [`Rule::ShutdownScriptNotOurs`] |
//! | a channel too large | [`Rule::FundingTooLarge`] |
//! | a push of more than there is | [`Rule::CommitmentUnbuildable`] |
//! | a fundee's balance that is not the push; HTLCs, unknown or repeated outputs; wrong anchors; wrong version, locktime, sequence, input, key, delay, point | [`Rule::TransactionDiffers`]: the transaction is rebuilt and compared whole |
//! | a feerate out of bounds, without the anchors | [`Rule::FeerateOutOfBounds`] |
//! | a dust output | [`Rule::DustLimitTooSmall`]: what is below the limits is left out when it is rebuilt |
//! | other bytes than were signed before | [`Rule::SecondCommitment`] |
//! | a number that is skipped or repeated | [`Rule::CommitmentNumber`] |
//! | the peer's commitment before a fundee's own is validated | [`Rule::FundeeValidatesFirst`] |
//! | a wrong funding output | an invalid request: it is not that of the setup |
//! | another chain | [`Rule::WrongChain`] |
//!
//! Not applicable: a secret given too early, because no call gives one; a point outside of a window,
//! because a point tells nothing that the peer may not know; a funder's inputs, which are the
//! wallet's and guarded by the broadcast permit.

use bitcoin::Txid;

use crate::error::{HsmError, HsmResult};

/// A rule of [`LocalHsm`](crate::LocalHsm).  A call that breaks one is
/// [`HsmError::Refused`] with the rule's tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// Nothing is signed or validated before the setup.
    SetupMissing,
    /// A reference names one channel, for ever.
    SetupDiffers,
    /// Opening a channel takes commitment 0 and no other.
    CommitmentNumber,
    /// Two commitments 0 would be two channels over one funding output.
    SecondCommitment,
    /// Without the peer's signature our own is of no use, and it might be for another channel.
    NotValidated,
    /// Validating: without a commitment of its own a fundee would depend on the funder's good will.
    FundeeValidatesFirst,
    /// Validating: what is signed is what the setup gives, to the byte.
    TransactionDiffers,
    /// Validating: a channel of which no commitment can be built is not signed for.
    CommitmentUnbuildable,
    /// Validating: the signer is for one chain.
    WrongChain,
    /// Validating: [`Bounds::max_funding_satoshis`](crate::Bounds::max_funding_satoshis).
    FundingTooLarge,
    /// Validating: [`Bounds::channel_types`](crate::Bounds::channel_types).
    ChannelTypeNotSigned,
    /// Validating: [`Bounds::feerates`](crate::Bounds::feerates).
    FeerateOutOfBounds,
    /// Validating: [`Bounds::to_self_delay`](crate::Bounds::to_self_delay), on both sides.
    DelayOutOfBounds,
    /// Validating: an output that nobody relays would keep the commitment from being mined.
    DustLimitTooSmall,
    /// Validating: [`SigningPolicy::shutdown_scripts`](crate::SigningPolicy::shutdown_scripts).
    ShutdownScriptNotOurs,
}

impl Rule {
    /// Every rule.
    pub const ALL: [Self; 15] = [
        Self::SetupMissing,
        Self::SetupDiffers,
        Self::CommitmentNumber,
        Self::SecondCommitment,
        Self::NotValidated,
        Self::FundeeValidatesFirst,
        Self::TransactionDiffers,
        Self::CommitmentUnbuildable,
        Self::WrongChain,
        Self::FundingTooLarge,
        Self::ChannelTypeNotSigned,
        Self::FeerateOutOfBounds,
        Self::DelayOutOfBounds,
        Self::DustLimitTooSmall,
        Self::ShutdownScriptNotOurs,
    ];

    /// Stable, kebab-case.
    pub const fn tag(self) -> &'static str {
        match self {
            Self::SetupMissing => "setup-missing",
            Self::SetupDiffers => "setup-differs",
            Self::CommitmentNumber => "commitment-number",
            Self::SecondCommitment => "second-commitment",
            Self::NotValidated => "not-validated",
            Self::FundeeValidatesFirst => "fundee-validates-first",
            Self::TransactionDiffers => "transaction-differs",
            Self::CommitmentUnbuildable => "commitment-unbuildable",
            Self::WrongChain => "wrong-chain",
            Self::FundingTooLarge => "funding-too-large",
            Self::ChannelTypeNotSigned => "channel-type-not-signed",
            Self::FeerateOutOfBounds => "feerate-out-of-bounds",
            Self::DelayOutOfBounds => "delay-out-of-bounds",
            Self::DustLimitTooSmall => "dust-limit-too-small",
            Self::ShutdownScriptNotOurs => "shutdown-script-not-ours",
        }
    }

    pub(super) fn broken(self, detail: impl Into<String>) -> HsmError {
        HsmError::Refused { tag: self.tag().into(), detail: detail.into() }
    }

    pub(super) fn holds(self, holds: bool, detail: impl FnOnce() -> String) -> HsmResult<()> {
        if holds { Ok(()) } else { Err(self.broken(detail())) }
    }
}

pub(crate) fn setup_missing() -> HsmError {
    Rule::SetupMissing.broken("setup comes before signing and validating")
}

pub(crate) fn setup_differs() -> HsmError {
    Rule::SetupDiffers.broken("the channel was set up with other content before")
}

pub(crate) fn unbuildable(reason: opening_core::CommitmentError) -> HsmError {
    Rule::CommitmentUnbuildable.broken(reason.to_string())
}

pub(crate) fn commitment_number(number: u64) -> HsmError {
    Rule::CommitmentNumber.broken(format!("asked for commitment {number}, opening takes only 0"))
}

pub(crate) fn transaction_differs(asked: Txid, rebuilt: Txid) -> HsmError {
    let detail = format!("asked for transaction {asked}, the setup gives {rebuilt}");
    Rule::TransactionDiffers.broken(detail)
}

pub(crate) fn second_commitment() -> HsmError {
    Rule::SecondCommitment.broken("another commitment 0 was asked for before")
}

pub(super) fn fundee_validates_first() -> HsmError {
    Rule::FundeeValidatesFirst.broken("our commitment was not validated yet")
}

pub(crate) fn not_validated() -> HsmError {
    Rule::NotValidated.broken("our commitment was not validated since the signer started")
}
