//! What is kept here of a channel behind hsmd's wire.

use crate::error::HsmResult;
use crate::info::Enforcement;
use crate::memory::ChannelMemory;
use crate::request::CommitmentRequest;

/// The channel's memory, and how many requests to sign the peer's commitment may have been carried
/// out.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) memory: ChannelMemory,
    /// Those that were not refused: signed, under way, or given up by whoever asked.
    may_be_signed: u64,
}

impl Kept {
    pub(super) const fn new(memory: ChannelMemory) -> Self {
        Self { memory, may_be_signed: 0 }
    }

    /// The peer's commitment is about to be asked for.
    pub(super) fn sign_counterparty(&mut self, request: &CommitmentRequest<'_>) -> HsmResult<()> {
        self.memory.sign_counterparty(request)?;
        self.may_be_signed += 1;
        Ok(())
    }

    /// That was refused, which hsmd's wire says by a closed connection.  A validating signer, which
    /// remembers what it signed, may be asked for other bytes once it has refused every request for
    /// these.  A blind one may have signed before it closed, and would sign others.
    pub(super) fn was_refused(&mut self, enforcement: Enforcement) {
        self.may_be_signed = self.may_be_signed.saturating_sub(1);
        if enforcement == Enforcement::Validating && self.may_be_signed == 0 {
            self.memory.was_refused();
        }
    }
}
