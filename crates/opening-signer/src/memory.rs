//! What a signer has to remember of a channel since its setup, and what follows from it.

use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{Message, PublicKey, Secp256k1, Verification};
use opening_core::{ChannelKeys, Commitment, Side};

use crate::error::{HsmError, HsmResult};
use crate::local::rule;
use crate::request::{ChannelSetup, CommitmentRequest};

/// What a signer has to remember of a channel: for whoever writes one.
///
/// It says what may be signed, and refuses the rest: what is not of the channel that was set up, a
/// second commitment 0, our own commitment before the peer's signature was good.  It looks at no
/// amount, and it ends with the process: what a signer is that keeps to it and to nothing else is
/// [`Enforcement::Blind`](crate::Enforcement::Blind).
#[derive(Clone, Debug)]
pub struct ChannelMemory {
    setup: ChannelSetup,
    /// The digest of our commitment, once the peer's signature on it was good.
    validated: Option<Message>,
    /// The digest of the peer's commitment, once we were asked to sign it.
    signed: Option<Message>,
}

impl ChannelMemory {
    /// Of a channel with these keys and this first point, which the setup must be about.
    pub fn set_up(
        setup: &ChannelSetup,
        keys: &ChannelKeys,
        first_per_commitment_point: &PublicKey,
    ) -> HsmResult<Self> {
        let local = &setup.parameters.local;
        if local.keys != *keys {
            return Err(invalid("the setup's local keys are not this channel's"));
        }
        if local.first_per_commitment_point != *first_per_commitment_point {
            return Err(invalid("the setup's local per-commitment point is not this channel's"));
        }
        Ok(Self { setup: setup.clone(), validated: None, signed: None })
    }

    /// The same setup again changes nothing; another one is refused.
    pub fn set_up_again(&self, setup: &ChannelSetup) -> HsmResult<()> {
        if self.setup == *setup { Ok(()) } else { Err(rule::setup_differs()) }
    }

    /// The digest of the peer's commitment, if it may be signed.  From then on no other may.
    pub fn sign_counterparty(&mut self, request: &CommitmentRequest<'_>) -> HsmResult<Message> {
        self.is_of_channel(Side::Remote, request)?;
        self.spends_the_funding(request.commitment)?;
        self.signed(request)
    }

    /// The peer's signature on our commitment is good, and remembered to be.
    pub fn validate_holder<C: Verification>(
        &mut self,
        secp: &Secp256k1<C>,
        request: &CommitmentRequest<'_>,
        signature: &Signature,
    ) -> HsmResult<()> {
        self.is_ours(request)?;
        self.validated(*request.signed_by_peer(secp, signature)?.sighash())
    }

    /// The digest of our own commitment, if it may be signed.
    pub fn sign_holder(&self, request: &CommitmentRequest<'_>) -> HsmResult<Message> {
        self.is_ours(request)?;
        self.signed_by_holder(request)
    }

    pub(crate) fn is_fundee(&self) -> bool {
        self.setup.parameters.opener == Side::Remote
    }

    /// The signer has said that it did not sign the peer's commitment, each time that it was asked.
    #[cfg(feature = "remote")]
    pub(crate) const fn was_refused(&mut self) {
        self.signed = None;
    }

    pub(crate) const fn is_validated(&self) -> bool {
        self.validated.is_some()
    }

    /// Holds the request's meaning against the setup.
    pub(crate) fn is_of_channel(
        &self,
        owner: Side,
        request: &CommitmentRequest<'_>,
    ) -> HsmResult<()> {
        let CommitmentRequest { parameters, commitment, per_commitment_point, .. } = request;
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
        Ok(())
    }

    /// All that a blind signer looks at in the transaction.
    pub(crate) fn spends_the_funding(&self, commitment: &Commitment) -> HsmResult<()> {
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

    /// Whether our commitment is what the request is about.
    pub(crate) fn is_ours(&self, request: &CommitmentRequest<'_>) -> HsmResult<()> {
        self.is_of_channel(Side::Local, request)?;
        self.spends_the_funding(request.commitment)
    }

    /// One commitment 0 for the peer, ever.
    pub(crate) fn signed(&mut self, request: &CommitmentRequest<'_>) -> HsmResult<Message> {
        remember(&mut self.signed, request.commitment.sighash())
    }

    /// One commitment 0 of our own, ever.
    pub(crate) fn validated(&mut self, sighash: Message) -> HsmResult<()> {
        remember(&mut self.validated, sighash).map(drop)
    }

    pub(crate) fn signed_by_holder(&self, request: &CommitmentRequest<'_>) -> HsmResult<Message> {
        let sighash = request.commitment.sighash();
        match self.validated {
            None => Err(rule::not_validated()),
            Some(validated) if validated != sighash => Err(rule::second_commitment()),
            Some(_) => Ok(sighash),
        }
    }
}

fn remember(place: &mut Option<Message>, sighash: Message) -> HsmResult<Message> {
    if *place.get_or_insert(sighash) == sighash {
        Ok(sighash)
    } else {
        Err(rule::second_commitment())
    }
}

pub(crate) fn invalid(reason: &str) -> HsmError {
    HsmError::InvalidRequest(reason.into())
}
