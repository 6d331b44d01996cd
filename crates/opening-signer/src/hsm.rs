//! The boundary: what opening a channel asks of a signer, and nothing more.
//!
//! Two levels of authority.  An [`Hsm`] knows the node's root secret and opens channels by name;
//! a [`ChannelHsm`] can speak for one channel only.  Each method names the message of Core
//! Lightning's hsmd that does the same, so that the two can be compared line by line.
//!
//! ```text
//!            funder                                     fundee
//! channel, pubkeys, point 0                                              hsmd 30, 10, 9, 18
//!            | ------------- open_channel ------------> |
//!            |                  channel, pubkeys, point 0                hsmd 30, 10, 9, 18
//!            | <------------ accept_channel ----------- |
//! setup, sign_counterparty_commitment                                    hsmd 31, 19
//!            | ----------- funding_created -----------> |
//!            |                  setup, validate_holder_commitment,       hsmd 31, 35, 19
//!            |                  sign_counterparty_commitment
//!            | <----------- funding_signed ------------ |
//! validate_holder_commitment                                             hsmd 35
//!            | <----------- channel_ready ------------> |   point 1      hsmd 18
//! ```
//!
//! Rules for whoever implements it:
//!
//! * No method returns a secret, no error text contains one.
//! * A call may be dropped while it is awaited, and then made again with the same arguments.
//! * A call repeated with the same arguments gives the same answer.  After a restart that holds
//!   once `setup` is repeated, and for what needs it `validate_holder_commitment`.
//! * Calls for different channels may be under way at once, and so may `pubkeys` and
//!   `per_commitment_point` of one channel.  The others of one channel come one by one, unless the
//!   signer asks for more ([`Pipelining`](crate::Pipelining)).
//! * A signature is low-S, over the digest that [`Commitment::sighash`] describes, by the
//!   funding key that [`pubkeys`](ChannelHsm::pubkeys) gave.
//!
//! [`Commitment::sighash`]: opening_core::Commitment::sighash

use std::sync::Arc;

use async_trait::async_trait;
use bitcoin::secp256k1::PublicKey;
use bitcoin::secp256k1::ecdsa::Signature;
use opening_core::ChannelKeys;

use crate::error::HsmResult;
use crate::info::Info;
use crate::request::{ChannelRef, ChannelSetup, CommitmentRequest};

/// A signer for all channels of one node.
///
/// Errors: [`HsmError`](crate::HsmError) says what the driver does on each of them.
#[async_trait]
pub trait Hsm: Send + Sync + 'static {
    /// What this signer enforces and the bounds within which it signs, as known from connecting
    /// (hsmd has no such message).
    ///
    /// Asked before each offer and each answer.
    fn info(&self) -> Info;

    /// Whether it can be reached, as far as is known without asking it.
    ///
    /// Asked before each offer and each answer, which an error refuses at once: a channel is not
    /// begun that cannot be signed.  A signer in the same process is always there.
    fn health(&self) -> HsmResult<()> {
        Ok(())
    }

    /// The signer of one channel, which is created when first asked for (hsmd 30, `new_channel`,
    /// and 9, `client_hsmfd`).
    ///
    /// Called once for each opening, after the policy has accepted it, and again for a saved
    /// channel after a restart.  Asking again gives the same keys and the same memory.
    async fn channel(&self, reference: ChannelRef) -> HsmResult<Arc<dyn ChannelHsm>>;

    /// The channel never came to be, or is closed and spent: its memory may be freed (hsmd 34,
    /// `forget_channel`).
    ///
    /// A validating signer must still not sign differently what it signed: the reference stays
    /// used up.  A blind one relies on the node, which gives no reference twice.
    async fn forget_channel(&self, reference: ChannelRef) -> HsmResult<()>;
}

/// A signer for one channel.
///
/// Only commitment 0 is ever signed or validated here: a channel that is open belongs to the
/// node.  Errors: [`HsmError`](crate::HsmError) says what the driver does on each of them.
#[async_trait]
pub trait ChannelHsm: Send + Sync + 'static {
    /// Our public keys of this channel (hsmd 10, `get_channel_basepoints`).
    ///
    /// Called before `open_channel` or `accept_channel`, which announce them.
    async fn pubkeys(&self) -> HsmResult<ChannelKeys>;

    /// Our per-commitment point of commitment `number`, and never a secret (hsmd 18,
    /// `get_per_commitment_point`).
    ///
    /// Called with 0 before `open_channel` or `accept_channel`, with 1 before `channel_ready`.
    /// [`InvalidRequest`](crate::HsmError::InvalidRequest) beyond 2^48 − 1.
    async fn per_commitment_point(&self, number: u64) -> HsmResult<PublicKey>;

    /// Tells what the channel is made of, once the funding outpoint is known (hsmd 31,
    /// `setup_channel`).
    ///
    /// Called before anything is signed or validated.  The same again changes nothing; another
    /// one is [`Refused`](crate::HsmError::Refused), for as long as the reference exists.  What
    /// the signer will not sign for is refused here, not later.
    async fn setup(&self, setup: &ChannelSetup) -> HsmResult<()>;

    /// Signs the peer's commitment 0 (hsmd 19, `sign_remote_commitment_tx`, with no HTLCs).
    ///
    /// The funder calls it for `funding_created`.  The fundee calls it for `funding_signed`,
    /// after [`validate_holder_commitment`](Self::validate_holder_commitment): else it could be
    /// left without a commitment of its own.  The same again gives a signature again; a
    /// different commitment 0 is [`Refused`](crate::HsmError::Refused).
    async fn sign_counterparty_commitment(
        &self,
        request: &CommitmentRequest<'_>,
    ) -> HsmResult<Signature>;

    /// Checks the peer's signature on our commitment 0 and remembers that it is good (hsmd 35,
    /// `validate_commitment_tx`, with no HTLCs).
    ///
    /// The funder calls it on `funding_signed`, the fundee on `funding_created`.  Another
    /// signature is [`BadCounterpartySignature`](crate::HsmError::BadCounterpartySignature), also
    /// from a blind signer.  It may be called again with the same arguments.
    async fn validate_holder_commitment(
        &self,
        request: &CommitmentRequest<'_>,
        signature: &Signature,
    ) -> HsmResult<()>;

    /// Signs our own commitment 0, which is about to be broadcast (hsmd 5, `sign_commitment_tx`).
    ///
    /// Never called while opening: it is the way out of a channel whose peer is gone.
    /// [`Refused`](crate::HsmError::Refused) before
    /// [`validate_holder_commitment`](Self::validate_holder_commitment), which has to be repeated
    /// after a restart.
    async fn sign_holder_commitment(&self, request: &CommitmentRequest<'_>)
    -> HsmResult<Signature>;
}
