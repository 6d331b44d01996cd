//! How everything stands, for operators who come later than the events.

use std::collections::{HashMap, VecDeque};

use bitcoin::secp256k1::PublicKey;
use lightning::ln::types::ChannelId;
use opening_core::Role;
use opening_signer::HsmResult;
use tokio::sync::oneshot;

use super::{Life, Openings, lock};
use crate::event::{Ended, Failed};
use crate::failure::Stage;
use crate::negotiation::Opened;
use crate::session::Command;

/// Peers whose last failure is kept; the one that failed longest ago goes first.
const MOST_FAILURES: usize = 1000;

/// How the openings of a node stand.
#[derive(Clone, Debug)]
pub struct Status {
    /// Whether the signer can be reached ([`Hsm::health`]); while it cannot, every new opening is
    /// refused.
    ///
    /// [`Hsm::health`]: opening_signer::Hsm::health
    pub signer: HsmResult<()>,
    /// Every opening under way and every channel that is not the node's yet.
    pub under_way: Vec<Under>,
    /// The last failure with each peer, oldest first.
    pub failures: Vec<LastFailure>,
}

/// One opening or channel that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Under {
    /// With whom.
    pub peer: PublicKey,
    /// Our part.
    pub role: Role,
    /// The id by which it began.
    pub temporary_channel_id: ChannelId,
    /// The channel's id, once the funding outpoint is known.
    pub channel_id: Option<ChannelId>,
    /// What is awaited.
    pub stage: Stage,
}

impl Under {
    pub(super) fn of(opened: &Opened, stage: Stage) -> Self {
        Self {
            peer: opened.reference.peer,
            role: opened.role(),
            temporary_channel_id: opened.temporary_channel_id,
            channel_id: Some(opened.channel_id),
            stage,
        }
    }
}

/// The last thing that went wrong for good with a peer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum LastFailure {
    /// An opening that ended without a channel.
    Failed(PublicKey, Failed),
    /// A channel that ended before its use.
    Ended(Ended),
}

impl LastFailure {
    /// The peer with whom it happened.
    pub fn peer(&self) -> PublicKey {
        match self {
            Self::Failed(peer, _) => *peer,
            Self::Ended(ended) => ended.opened.reference.peer,
        }
    }
}

/// The last failure with each peer.
#[derive(Default)]
pub(super) struct Failures {
    of_peer: HashMap<PublicKey, (u64, LastFailure)>,
    /// Oldest first, with those that a later failure of the same peer has replaced.
    order: VecDeque<(u64, PublicKey)>,
    next: u64,
}

impl Failures {
    fn note(&mut self, failure: LastFailure) {
        let (peer, number) = (failure.peer(), self.next);
        self.next += 1;
        self.of_peer.insert(peer, (number, failure));
        self.order.push_back((number, peer));
        if self.order.len() > 2 * MOST_FAILURES {
            let is_last = |(number, peer): &(u64, PublicKey)| {
                self.of_peer.get(peer).is_some_and(|(last, _)| last == number)
            };
            self.order.retain(is_last);
        }
        while self.of_peer.len() > MOST_FAILURES {
            let Some((number, peer)) = self.order.pop_front() else { return };
            if self.of_peer.get(&peer).is_some_and(|(last, _)| *last == number) {
                self.of_peer.remove(&peer);
            }
        }
    }

    fn oldest_first(&self) -> Vec<LastFailure> {
        let mut failures: Vec<_> = self.of_peer.values().collect();
        failures.sort_by_key(|(number, _)| *number);
        failures.into_iter().map(|(_, failure)| failure.clone()).collect()
    }
}

impl Openings {
    pub(crate) fn note_failure(&self, peer: PublicKey, failed: &Failed) {
        lock(&self.failures).note(LastFailure::Failed(peer, failed.clone()));
    }

    pub(super) fn note_end(&self, ended: &Ended) {
        lock(&self.failures).note(LastFailure::Ended(ended.clone()));
    }

    /// How everything stands now.  Waits for nothing but the sessions' tasks, which wait for nobody.
    pub async fn status(&self) -> Status {
        let mut under_way = self.under_way_on_connections().await;
        // Saves outlive their connection, and a session hears last that its channel is saved.
        let mut saved = lock(&self.channels).saving.clone();
        self.each(|channel| {
            let under = Under::of(channel.wait.opened(), channel.stage());
            saved.insert(channel.wait.opened().channel_id, under);
        });
        under_way.retain(|under| {
            under.stage != Stage::Save
                || !under.channel_id.is_some_and(|id| saved.contains_key(&id))
        });
        under_way.extend(saved.into_values());
        let failures = lock(&self.failures).oldest_first();
        Status { signer: self.node.hsm.health(), under_way, failures }
    }

    async fn under_way_on_connections(&self) -> Vec<Under> {
        let mut answers = Vec::new();
        for (_, link) in self.links() {
            // One that waits for an earlier connection to end has begun nothing.
            let is_waiting = *link.life.borrow() == Life::Waiting;
            if let Some(commands) = link.commands.upgrade().filter(|_| !is_waiting) {
                let (done, answer) = oneshot::channel();
                let _ = commands.send(Command::Status { done });
                answers.push(answer);
            }
        }
        // A session that ends meanwhile has nothing under way but saves.
        let answers = futures::future::join_all(answers).await;
        answers.into_iter().flatten().flatten().collect()
    }
}
