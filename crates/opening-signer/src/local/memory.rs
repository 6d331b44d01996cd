//! What a [`LocalHsm`](super::LocalHsm) remembers of a channel, blind or validating.

use bitcoin::secp256k1::{Message, Secp256k1, Verification};
use opening_core::{Commitment, GoodSignature, Side};

use super::record::Record;
use super::rule;
use crate::error::HsmResult;
use crate::memory::ChannelMemory;
use crate::request::{ChannelSetup, CommitmentRequest};

/// A channel that is set up.
pub(super) struct Memory {
    channel: ChannelMemory,
    /// Only a validating signer has it.
    rebuilt: Option<Rebuilt>,
}

/// What a validating signer made of the setup.
pub(super) struct Rebuilt {
    /// Ours, then the peer's.
    commitments: [Commitment; 2],
    pub(super) record: Record,
    /// Whether we made the record durable.
    recorded: bool,
}

/// What may be signed, once its record is durable.
pub(super) struct Signable {
    pub(super) sighash: Message,
    /// Only a validating signer keeps one.
    pub(super) record: Option<Unsigned>,
}

/// The record of a commitment that is about to be signed.
#[derive(Clone, Copy)]
pub(super) struct Unsigned {
    pub(super) record: Record,
    /// Whether we made it durable before.
    pub(super) recorded: bool,
}

impl Rebuilt {
    pub(super) fn from_setup<C: Verification>(
        secp: &Secp256k1<C>,
        setup: &ChannelSetup,
    ) -> HsmResult<Self> {
        let build =
            |owner| setup.parameters.first_commitment(secp, owner).map_err(rule::unbuildable);
        let commitments = [build(Side::Local)?, build(Side::Remote)?];
        let record = Record::of(setup, &commitments);
        Ok(Self { commitments, record, recorded: false })
    }
}

impl Memory {
    pub(super) fn new(channel: ChannelMemory, rebuilt: Option<Rebuilt>) -> Self {
        Self { channel, rebuilt }
    }

    pub(super) fn set_up_again(&self, setup: &ChannelSetup) -> HsmResult<()> {
        self.channel.set_up_again(setup)
    }

    /// The digest of the peer's commitment, if it may be signed.  From then on no other may.
    pub(super) fn sign_counterparty(
        &mut self,
        request: &CommitmentRequest<'_>,
    ) -> HsmResult<Signable> {
        let Some(rebuilt) = &self.rebuilt else {
            let sighash = self.channel.sign_counterparty(request)?;
            return Ok(Signable { sighash, record: None });
        };
        self.channel.is_of_channel(Side::Remote, request)?;
        rebuilt.equals(request.commitment)?;
        if self.channel.is_fundee() && !self.channel.is_validated() {
            return Err(rule::fundee_validates_first());
        }
        let record = Some(rebuilt.unsigned());
        Ok(Signable { sighash: self.channel.signed(request)?, record })
    }

    /// Whether our commitment is what the request is about.
    pub(super) fn is_ours(&self, request: &CommitmentRequest<'_>) -> HsmResult<()> {
        self.channel.is_of_channel(Side::Local, request)?;
        match &self.rebuilt {
            Some(rebuilt) => rebuilt.equals(request.commitment),
            None => self.channel.spends_the_funding(request.commitment),
        }
    }

    /// The peer's signature on our commitment was good.
    pub(super) fn validated(
        &mut self,
        request: &CommitmentRequest<'_>,
        proof: &GoodSignature,
    ) -> HsmResult<()> {
        self.is_ours(request)?;
        self.channel.validated(*proof.sighash())
    }

    /// The digest of our own commitment, if it may be signed.
    pub(super) fn sign_holder(&self, request: &CommitmentRequest<'_>) -> HsmResult<Signable> {
        self.is_ours(request)?;
        let sighash = self.channel.signed_by_holder(request)?;
        Ok(Signable { sighash, record: self.rebuilt.as_ref().map(Rebuilt::unsigned) })
    }

    /// The channel is still the one that `record` is of: it may have been forgotten, and its
    /// reference set up anew, while the store was awaited.
    pub(super) fn is_still(&mut self, record: &Record) -> HsmResult<&mut Rebuilt> {
        match &mut self.rebuilt {
            Some(rebuilt) if rebuilt.record == *record => Ok(rebuilt),
            _ => Err(rule::setup_differs()),
        }
    }
}

impl Rebuilt {
    fn unsigned(&self) -> Unsigned {
        Unsigned { record: self.record, recorded: self.recorded }
    }

    /// The record is durable.  Whether it was not before.
    pub(super) fn recorded(&mut self) -> bool {
        !core::mem::replace(&mut self.recorded, true)
    }

    fn equals(&self, commitment: &Commitment) -> HsmResult<()> {
        let rebuilt = match commitment.owner {
            Side::Local => &self.commitments[0],
            Side::Remote => &self.commitments[1],
        };
        if commitment == rebuilt {
            return Ok(());
        }
        let txid = |of: &Commitment| of.transaction.compute_txid();
        Err(rule::transaction_differs(txid(commitment), txid(rebuilt)))
    }
}
