//! The node's handle on an opening that it asked for.

use std::sync::Arc;

use bitcoin::secp256k1::PublicKey;
use bitcoin::{OutPoint, ScriptBuf};
use lightning::ln::types::ChannelId;
use opening_core::FundingOutput;
use tokio::sync::{mpsc, oneshot};

use super::{Command, Key};
use crate::driver::seat::Seat;
use crate::event::Failed;
use crate::funding::{FundingError, FundingTransaction};
use crate::negotiation::{BroadcastPermit, Opened};

/// What becomes of an opening.  One of a batch has no permit of its own.
pub(crate) type Outcome = Result<(Arc<Opened>, Option<BroadcastPermit>), Failed>;

/// What the node's wallet brings for an opening.
pub(crate) struct FundingOffer {
    pub(crate) funding: FundingTransaction,
    /// Where the transaction funds other channels, too.
    pub(crate) seat: Option<Seat>,
    pub(crate) funded: oneshot::Sender<Result<(), FundingError>>,
}

impl FundingOffer {
    pub(crate) fn outpoint(&self, output: &FundingOutput) -> Result<OutPoint, FundingError> {
        match &self.seat {
            // Judged with the whole batch.
            Some(seat) => Ok(seat.outpoint),
            None => self.funding.outpoint(output),
        }
    }
}

/// What the peer's `accept_channel` makes known.
#[derive(Clone, Debug)]
pub struct FundingNeeded {
    /// What the funding transaction has to pay.
    pub output: FundingOutput,
    /// The script that the peer's closing output must pay, if it committed to one.
    pub remote_shutdown_script: Option<ScriptBuf>,
}

/// Cancels when dropped; the session ignores it once the opening has ended.
#[derive(Debug)]
struct CancelOnDrop {
    key: Key,
    commands: mpsc::UnboundedSender<Command>,
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Cancel { key: self.key, done: None });
    }
}

#[derive(Debug)]
pub(super) struct Rest {
    peer: PublicKey,
    temporary_channel_id: ChannelId,
    pub(super) funding: mpsc::Sender<FundingOffer>,
    /// Until it has answered.
    outcome: Option<oneshot::Receiver<Outcome>>,
    on_drop: CancelOnDrop,
}

impl Rest {
    async fn failed(&mut self) -> Failed {
        match self.outcome().await {
            Err(failed) => failed,
            Ok(_) => unreachable!("an opening without funding_created cannot succeed"),
        }
    }

    /// What becomes of the opening, told once.  Cancel safe.
    pub(super) async fn outcome(&mut self) -> Outcome {
        let gone = || Err(Failed::session_gone(self.temporary_channel_id));
        let Some(outcome) = &mut self.outcome else { return gone() };
        let outcome = outcome.await.unwrap_or_else(|_| gone());
        self.outcome = None;
        outcome
    }
}

/// An opening whose `open_channel` is out.  Dropping it cancels, and the peer is told.
#[derive(Debug)]
#[must_use = "dropping an opening cancels it"]
pub struct Opening {
    accepted: oneshot::Receiver<FundingNeeded>,
    rest: Rest,
}

impl Opening {
    pub(super) fn new(
        peer: PublicKey,
        key: Key,
        commands: mpsc::UnboundedSender<Command>,
        temporary_channel_id: ChannelId,
        channels: OpeningChannels,
    ) -> Self {
        let OpeningChannels { accepted, funding, outcome } = channels;
        let on_drop = CancelOnDrop { key, commands };
        let outcome = Some(outcome);
        Self { accepted, rest: Rest { peer, temporary_channel_id, funding, outcome, on_drop } }
    }

    /// The id by which both sides name the opening until the funding outpoint is known.
    pub fn temporary_channel_id(&self) -> ChannelId {
        self.rest.temporary_channel_id
    }

    /// Cancels while another task holds the opening.
    pub fn canceller(&self) -> Canceller {
        let CancelOnDrop { key, commands } = &self.rest.on_drop;
        Canceller { key: *key, commands: commands.clone() }
    }

    /// Waits until the peer has accepted.
    pub async fn accepted(mut self) -> Result<PendingFunding, Failed> {
        match (&mut self.accepted).await {
            Ok(needed) => Ok(PendingFunding { needed, rest: self.rest }),
            Err(_) => Err(self.rest.failed().await),
        }
    }
}

/// Cancels one opening, whoever holds its handle.
#[derive(Clone, Debug)]
pub struct Canceller {
    key: Key,
    commands: mpsc::UnboundedSender<Command>,
}

impl Canceller {
    /// Ends the opening; returns when the peer's `error` is on its way.  `false` where there is
    /// nothing left to end: the opening has failed, or its channel is being saved or is.
    pub async fn cancel(&self) -> bool {
        let (done, told) = oneshot::channel();
        // A session that is gone has ended all of its openings.
        let _ = self.commands.send(Command::Cancel { key: self.key, done: Some(done) });
        told.await.unwrap_or(false)
    }
}

/// The ends of an opening's channels that its handle holds.
#[derive(Debug)]
pub(super) struct OpeningChannels {
    pub(super) accepted: oneshot::Receiver<FundingNeeded>,
    pub(super) funding: mpsc::Sender<FundingOffer>,
    pub(super) outcome: oneshot::Receiver<Outcome>,
}

/// An accepted opening that waits for its funding transaction.  Dropping it cancels, and the peer
/// is told.
#[derive(Debug)]
#[must_use = "dropping an opening cancels it"]
pub struct PendingFunding {
    needed: FundingNeeded,
    pub(super) rest: Rest,
}

/// Why [`PendingFunding::complete`] did not send `funding_created`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompleteError {
    /// The transaction does not fund the channel.  The opening still waits for one that does.
    #[error(transparent)]
    Funding(#[from] FundingError),
    /// The opening has ended.
    #[error(transparent)]
    Failed(#[from] Failed),
}

impl PendingFunding {
    /// The id by which both sides name the opening until the funding outpoint is known.
    pub fn temporary_channel_id(&self) -> ChannelId {
        self.rest.temporary_channel_id
    }

    /// With whom.
    pub fn peer(&self) -> PublicKey {
        self.rest.peer
    }

    /// What to build.
    pub fn needed(&self) -> &FundingNeeded {
        &self.needed
    }

    /// Waits until the opening ends without a funding transaction: for a deadline, by the peer, or
    /// with the connection.  There is nothing left to complete then.
    pub(crate) async fn ended(&mut self) -> Failed {
        self.rest.failed().await
    }

    /// Hands in the funding transaction, which must not be broadcast before the
    /// [`BroadcastPermit`].  Returns when `funding_created` has been sent.
    pub async fn complete(
        mut self,
        funding: FundingTransaction,
    ) -> Result<PendingSignature, (CompleteError, Option<Self>)> {
        let (funded, answer) = oneshot::channel();
        // A closed channel shows below: the answer never comes.
        let _ = self.rest.funding.send(FundingOffer { funding, seat: None, funded }).await;
        match answer.await {
            Ok(Ok(())) => Ok(PendingSignature { rest: self.rest }),
            Ok(Err(error)) => Err((error.into(), Some(self))),
            Err(_) => Err((self.rest.failed().await.into(), None)),
        }
    }
}

/// An opening whose `funding_created` is out.  Dropping it cancels, unless the channel is already
/// being saved.
#[derive(Debug)]
#[must_use = "dropping an opening cancels it"]
pub struct PendingSignature {
    rest: Rest,
}

impl PendingSignature {
    /// Waits until the peer's signature is verified and the channel saved: only then may the
    /// funding transaction be broadcast.  Cancel safe: dropped and called again, it goes on waiting.
    /// It answers once; whoever lost the answer asks
    /// [`Openings::broadcast_permit`](crate::Openings::broadcast_permit).
    pub async fn opened(&mut self) -> Result<(Arc<Opened>, BroadcastPermit), Failed> {
        let (opened, permit) = self.rest.outcome().await?;
        Ok((opened, permit.expect("an opening alone has a permit of its own")))
    }
}
