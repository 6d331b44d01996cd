//! What a [`LocalHsm`](super::LocalHsm) refuses, each rule with its tag.

use bitcoin::Txid;

use crate::error::HsmError;

fn refused(tag: &str, detail: impl Into<String>) -> HsmError {
    HsmError::Refused { tag: tag.into(), detail: detail.into() }
}

/// Nothing is known of the channel yet.
pub(super) fn setup_missing() -> HsmError {
    refused("setup-missing", "setup comes before signing and validating")
}

/// A reference names one channel, for ever.
pub(super) fn setup_differs() -> HsmError {
    refused("setup-differs", "the channel was set up with other content before")
}

/// No commitment can be built, so that none can be signed.
pub(super) fn unbuildable(reason: opening_core::CommitmentError) -> HsmError {
    refused("commitment-unbuildable", reason.to_string())
}

/// Opening a channel takes commitment 0 and no other.
pub(super) fn commitment_number(number: u64) -> HsmError {
    refused("commitment-number", format!("asked for commitment {number}, opening takes only 0"))
}

/// What was asked for is not what the setup gives.
pub(super) fn transaction_differs(asked: Txid, rebuilt: Txid) -> HsmError {
    let detail = format!("asked for transaction {asked}, the setup gives {rebuilt}");
    refused("transaction-differs", detail)
}

/// Two commitments 0 would be two channels over one funding output.
pub(super) fn second_commitment() -> HsmError {
    refused("second-commitment", "another commitment 0 was asked for before")
}

/// Without a commitment of its own a fundee would depend on the funder's good will.
pub(super) fn fundee_validates_first() -> HsmError {
    refused("fundee-validates-first", "our commitment was not validated yet")
}

/// Without the peer's signature our own is of no use, and it might be for another channel.
pub(super) fn not_validated() -> HsmError {
    refused("not-validated", "our commitment was not validated since the signer started")
}
