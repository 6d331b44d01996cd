//! One transaction that funds channels with several peers: all of them, or none.
//!
//! ```text
//!   Opening::accepted, for each peer  -->  Batch: what the transaction has to pay
//!   Batch::complete                   -->  PendingBatch: funding_created is out to each
//!   PendingBatch::opened              -->  every channel saved, and one permit to broadcast
//! ```
//!
//! ```no_run
//! # use opening_peer::session::Batch;
//! # use opening_peer::wallet::Funding;
//! # use opening_peer::{Ask, Session};
//! # async fn fund(sessions: &[Session], ask: Ask, wallet: &dyn Funding)
//! #     -> Result<(), Box<dyn std::error::Error>> {
//! let mut accepted = Vec::new();
//! for session in sessions {
//!     accepted.push(session.open(ask.clone()).await?.accepted().await?);
//! }
//! let batch = Batch::new(accepted);
//! let built = wallet.build(&batch.outputs()).await?;
//! let mut pending = batch.complete(built.clone()).await.map_err(|(error, _batch)| error)?;
//! let (_channels, permit) = pending.opened().await?; // all verified and saved
//! wallet.sign_and_broadcast(&permit, &built).await?;
//! # Ok(())
//! # }
//! ```

use core::fmt;
use std::sync::Arc;

use bitcoin::secp256k1::PublicKey;
use lightning::ln::types::ChannelId;
use opening_core::FundingOutput;
use tokio::sync::oneshot;

use super::opening::{FundingOffer, PendingFunding, Rest};
use crate::driver::seat::Seats;
use crate::event::Failed;
use crate::funding::{FundingError, FundingTransaction};
use crate::negotiation::{BroadcastPermit, Opened};

/// Accepted openings that wait for one funding transaction.  Dropping it cancels all of them.
#[derive(Debug)]
#[must_use = "dropping a batch cancels its openings"]
pub struct Batch(Vec<PendingFunding>);

/// A batch whose `funding_created`s are out.  Dropping it cancels all of them, unless the channels
/// are already being saved.
#[must_use = "dropping a batch cancels its openings"]
pub struct PendingBatch {
    waiting: Vec<(PublicKey, Rest)>,
    results: Vec<(PublicKey, Result<Arc<Opened>, Failed>)>,
    seats: Seats,
}

impl fmt::Debug for PendingBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingBatch").field("waiting", &self.waiting).finish_non_exhaustive()
    }
}

/// Why a batch was not begun.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompleteBatchError {
    /// The transaction does not fund all channels.  The batch still waits for one that does.
    #[error(transparent)]
    Funding(#[from] FundingError),
    /// The batch has ended.
    #[error(transparent)]
    Failed(#[from] BatchFailed),
}

/// A batch that ended without channels.  Its transaction must never be signed: no channel is
/// saved any more, and every peer has been told.
#[derive(Clone, Debug)]
pub struct BatchFailed {
    /// What came of each opening.
    pub failures: Vec<(PublicKey, Failed)>,
}

impl std::error::Error for BatchFailed {}

impl fmt::Display for BatchFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the batch failed")?;
        for (peer, failed) in &self.failures {
            write!(f, "; {peer}: {failed}")?;
        }
        Ok(())
    }
}

impl Batch {
    /// These openings share their fate from now on.
    pub fn new(openings: Vec<PendingFunding>) -> Self {
        Self(openings)
    }

    /// The openings, in the order in which they were given.
    pub fn openings(&self) -> &[PendingFunding] {
        &self.0
    }

    /// What the transaction has to pay, in the same order; the outputs may stand anywhere in it.
    pub fn outputs(&self) -> Vec<FundingOutput> {
        self.0.iter().map(|opening| opening.needed().output.clone()).collect()
    }

    /// Hands in the one funding transaction, which must not be broadcast before the
    /// [`BroadcastPermit`].  Returns when `funding_created` has been sent to every peer.
    pub async fn complete(
        self,
        funding: FundingTransaction,
    ) -> Result<PendingBatch, (CompleteBatchError, Option<Self>)> {
        let outpoints = match funding.outpoints(&self.outputs()) {
            Ok(outpoints) => outpoints,
            Err(error) => return Err((error.into(), Some(self))),
        };
        let ids: Vec<ChannelId> = outpoints
            .iter()
            .filter_map(|it| opening_core::channel_id(*it))
            .map(ChannelId)
            .collect();
        let seats = Seats::new(self.0.len());
        let mut answers = Vec::with_capacity(self.0.len());
        let mut waiting = Vec::with_capacity(self.0.len());
        for (index, (opening, outpoint)) in self.0.into_iter().zip(outpoints).enumerate() {
            let (funded, answer) = oneshot::channel();
            let others = ids.iter().enumerate().filter(|(other, _)| *other != index);
            let others = others.map(|(_, id)| *id).collect();
            let seat = Some(seats.seat(opening.peer(), outpoint, others));
            let offer = FundingOffer { funding: funding.clone(), seat, funded };
            // One that has ended takes its seat along, and fails the batch.
            let _ = opening.rest.funding.send(offer).await;
            answers.push(answer);
            waiting.push((opening.peer(), opening.rest));
        }
        let mut batch = PendingBatch { waiting, results: Vec::new(), seats };
        for answer in answers {
            // Judged already: an error can only be that the opening has ended.
            if !matches!(answer.await, Ok(Ok(()))) {
                return Err((batch.failed().await.into(), None));
            }
        }
        Ok(batch)
    }
}

impl PendingBatch {
    /// Waits until every peer's signature is verified and every channel saved: only then may the
    /// funding transaction be signed and broadcast.  Cancel safe.  It answers once; whoever lost
    /// the answer asks [`Openings::broadcast_permit`](crate::Openings::broadcast_permit).
    pub async fn opened(&mut self) -> Result<(Vec<Arc<Opened>>, BroadcastPermit), BatchFailed> {
        self.await_results().await;
        let opened: Result<Vec<_>, _> =
            self.results.iter().map(|(_, result)| result.clone()).collect();
        match (opened, self.seats.permit()) {
            (Ok(opened), Some(permit)) => Ok((opened, permit)),
            _ => Err(self.failures()),
        }
    }

    async fn failed(&mut self) -> BatchFailed {
        self.await_results().await;
        self.failures()
    }

    fn failures(&self) -> BatchFailed {
        let failed = |(peer, result): &(PublicKey, Result<_, Failed>)| {
            Some((*peer, result.as_ref().err()?.clone()))
        };
        BatchFailed { failures: self.results.iter().filter_map(failed).collect() }
    }

    /// What comes of each opening, in order.
    async fn await_results(&mut self) {
        while let Some((peer, rest)) = self.waiting.get_mut(self.results.len()) {
            let result = rest.outcome().await.map(|(opened, _)| opened);
            self.results.push((*peer, result));
        }
    }
}
