//! A funder's place in a batch: one transaction funds several channels, all of them or none.
//!
//! ```text
//!   every peer has signed      before that nothing is saved
//!   every channel is saved     before that there is no permit; a failure removes what was saved
//! ```

use std::sync::Arc;

use bitcoin::OutPoint;
use bitcoin::secp256k1::PublicKey;
use lightning::ln::types::ChannelId;
use tokio::sync::watch;

use crate::failure::Failure;
use crate::negotiation::{BroadcastPermit, Held, Opened, Saved};
use crate::openings::Openings;

/// What the members of a batch know of each other.
#[derive(Default)]
struct Table {
    members: usize,
    signed: usize,
    saved: Vec<(Held<BroadcastPermit>, Saved)>,
    /// All are saved: nothing fails the batch any more.
    is_joined: bool,
    /// That all are saved is durable.
    is_committed: bool,
    permit: Option<BroadcastPermit>,
    /// The peer with whom it failed first.
    failed: Option<PublicKey>,
}

/// The whole batch, for whoever waits for its permit.
#[derive(Clone)]
pub(crate) struct Seats(Arc<watch::Sender<Table>>);

/// One member's place.  Dropped before all channels are saved, it fails the batch.
pub(crate) struct Seat {
    seats: Seats,
    peer: PublicKey,
    /// Where the transaction pays this member's channel.
    pub(crate) outpoint: OutPoint,
    /// The channels of the others.
    pub(crate) others: Vec<ChannelId>,
}

impl Seats {
    pub(crate) fn new(members: usize) -> Self {
        Self(Arc::new(watch::Sender::new(Table { members, ..Table::default() })))
    }

    pub(crate) fn seat(&self, peer: PublicKey, outpoint: OutPoint, others: Vec<ChannelId>) -> Seat {
        Seat { seats: self.clone(), peer, outpoint, others }
    }

    /// The permit, once, when all channels are saved.
    pub(crate) fn permit(&self) -> Option<BroadcastPermit> {
        let mut permit = None;
        self.0.send_if_modified(|table| {
            permit = table.permit.take();
            false
        });
        permit
    }

    /// Waits for what is to come of all members, or for the failure of one.
    async fn reach(&self, is_reached: impl Fn(&Table) -> bool) -> Result<(), Failure> {
        let mut table = self.0.subscribe();
        let reached = table.wait_for(|table| table.failed.is_some() || is_reached(table)).await;
        let failed = reached.expect("the sender is in `self`").failed;
        failed.map_or(Ok(()), |peer| Err(Failure::BatchFailed(peer)))
    }
}

impl Seat {
    /// Waits until a member fails.
    pub(crate) async fn failed(&self) -> Failure {
        match self.seats.reach(|_| false).await {
            Err(failure) => failure,
            Ok(()) => unreachable!("only a failure was awaited"),
        }
    }

    /// This member's peer has signed; returns when all have.
    pub(crate) async fn all_signed(&self) -> Result<(), Failure> {
        self.seats.0.send_modify(|table| table.signed += 1);
        self.seats.reach(|table| table.signed == table.members).await
    }

    /// This member's channel is saved; returns when all are, and that is durable.  On a failure
    /// the channel is removed again.
    pub(crate) async fn all_saved(
        &self,
        openings: &Arc<Openings>,
        held: Held<BroadcastPermit>,
        saved: Saved,
    ) -> Result<Arc<Opened>, Failure> {
        let opened = held.opened().clone();
        let mut all = None;
        self.seats.0.send_modify(|table| {
            table.saved.push((held, saved));
            if table.saved.len() == table.members && table.failed.is_none() {
                table.is_joined = true;
                all = Some(std::mem::take(&mut table.saved));
            }
        });
        if let Some(all) = all {
            let (channels, permit) = Held::join(all);
            openings.commit_batch(&channels).await;
            self.seats.0.send_modify(|table| {
                table.permit = Some(permit);
                table.is_committed = true;
            });
        }
        match self.seats.reach(|table| table.is_committed).await {
            Ok(()) => Ok(opened),
            Err(failure) => {
                openings.unsave(&opened).await;
                Err(failure)
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.0.send_if_modified(|table| {
            let fails = !table.is_joined && table.failed.is_none();
            if fails {
                table.failed = Some(self.peer);
            }
            fails
        });
    }
}
