//! What a signer remembers of a channel since its setup, and what follows from it.

use bitcoin::secp256k1::{Message, Secp256k1, Verification};
use opening_core::{Commitment, Side};

use super::record::Record;
use super::rule;
use crate::error::{HsmError, HsmResult};
use crate::request::{ChannelSetup, CommitmentRequest};

/// A channel that is set up.
pub(super) struct Memory {
    setup: ChannelSetup,
    /// Only a validating signer has it.
    rebuilt: Option<Rebuilt>,
    /// The digest of our commitment, once the peer's signature on it was good.
    validated: Option<Message>,
    /// The digest of the peer's commitment, once we were asked to sign it.
    signed: Option<Message>,
}

/// What a validating signer made of the setup.
pub(super) struct Rebuilt {
    /// Ours, then the peer's.
    commitments: [Commitment; 2],
    pub(super) record: Record,
    /// Whether the record is durable.
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
    pub(super) fn new(setup: ChannelSetup, rebuilt: Option<Rebuilt>) -> Self {
        Self { setup, rebuilt, validated: None, signed: None }
    }

    pub(super) fn set_up_again(&self, setup: &ChannelSetup) -> HsmResult<()> {
        if self.setup == *setup { Ok(()) } else { Err(rule::setup_differs()) }
    }

    /// The digest of the peer's commitment, if it may be signed.  From then on no other may.
    pub(super) fn sign_counterparty(
        &mut self,
        request: &CommitmentRequest<'_>,
    ) -> HsmResult<Message> {
        let sighash = self.sighash(Side::Remote, request)?;
        let is_fundee = self.setup.parameters.opener == Side::Remote;
        if self.rebuilt.is_some() && is_fundee && self.validated.is_none() {
            return Err(rule::fundee_validates_first());
        }
        remember(&mut self.signed, sighash)?;
        Ok(sighash)
    }

    /// The peer's signature on our commitment was good.
    pub(super) fn validated(&mut self, request: &CommitmentRequest<'_>) -> HsmResult<()> {
        let sighash = self.sighash(Side::Local, request)?;
        remember(&mut self.validated, sighash)
    }

    /// The digest of our own commitment, if it may be signed.
    pub(super) fn sign_holder(&self, request: &CommitmentRequest<'_>) -> HsmResult<Message> {
        let sighash = self.sighash(Side::Local, request)?;
        match self.validated {
            None => Err(rule::not_validated()),
            Some(validated) if validated != sighash => Err(rule::second_commitment()),
            Some(_) => Ok(sighash),
        }
    }

    /// The record that has to be durable before a signature leaves, unless it is.
    pub(super) fn unrecorded(&self) -> Option<Record> {
        self.rebuilt.as_ref().filter(|rebuilt| !rebuilt.recorded).map(|rebuilt| rebuilt.record)
    }

    /// The record is durable.
    pub(super) fn recorded(&mut self) {
        if let Some(rebuilt) = &mut self.rebuilt {
            rebuilt.recorded = true;
        }
    }

    /// Holds a request against the setup.
    pub(super) fn check(&self, owner: Side, request: &CommitmentRequest<'_>) -> HsmResult<()> {
        let CommitmentRequest { parameters, commitment, per_commitment_point } = request;
        if commitment.owner != owner {
            return Err(invalid("the commitment belongs to the other side"));
        }
        if **parameters != self.setup.parameters {
            return Err(invalid("its parameters are not those of the setup"));
        }
        if commitment.number != 0 {
            return Err(rule::commitment_number(commitment.number));
        }
        if *per_commitment_point != parameters.party(owner).first_per_commitment_point {
            return Err(invalid("its per-commitment point is not the owner's first"));
        }
        match &self.rebuilt {
            Some(rebuilt) => rebuilt.equals(owner, commitment),
            None => self.spends_the_funding(commitment),
        }
    }

    fn sighash(&self, owner: Side, request: &CommitmentRequest<'_>) -> HsmResult<Message> {
        self.check(owner, request)?;
        Ok(request.commitment.sighash())
    }

    /// All that a blind signer looks at.
    fn spends_the_funding(&self, commitment: &Commitment) -> HsmResult<()> {
        let parameters = &self.setup.parameters;
        let [input] = &commitment.transaction.input[..] else {
            return Err(invalid("a commitment has one input"));
        };
        if input.previous_output != parameters.funding_outpoint {
            return Err(invalid("the commitment does not spend the funding output"));
        }
        if commitment.funding_satoshis != parameters.funding_satoshis
            || commitment.funding_witness_script != parameters.funding_witness_script()
        {
            return Err(invalid("amount or script of the funding output are not the channel's"));
        }
        Ok(())
    }
}

impl Rebuilt {
    fn equals(&self, owner: Side, commitment: &Commitment) -> HsmResult<()> {
        let rebuilt = match owner {
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

/// One commitment 0 for each side, ever.
fn remember(place: &mut Option<Message>, sighash: Message) -> HsmResult<()> {
    if *place.get_or_insert(sighash) == sighash { Ok(()) } else { Err(rule::second_commitment()) }
}

pub(super) fn invalid(reason: &str) -> HsmError {
    HsmError::InvalidRequest(reason.into())
}
