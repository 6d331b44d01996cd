//! Who is connected.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bitcoin::secp256k1::PublicKey;
use tokio::sync::{mpsc, watch};

use super::{Openings, lock};
use crate::session::Command;

/// How far a session has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Life {
    /// For an earlier connection of the same peer to end its openings.
    Waiting,
    Running,
    /// Every opening on it has ended, or is known to be saved, or has been awaited for as long as
    /// a store may take.
    Ended,
    /// The connection is closed.
    Closed,
}

pub(super) type Peers = HashMap<PublicKey, Link>;

/// A session as the node sees it; it does not keep the session alive.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) commands: mpsc::WeakUnboundedSender<Command>,
    pub(crate) life: watch::Receiver<Life>,
}

impl Link {
    /// The peer has connected anew: the openings of the session are to end.
    pub(crate) fn replace(&self) {
        self.tell(Command::Replaced);
    }

    /// Waits until the openings of the session have ended.
    pub(crate) async fn ended(mut self) {
        // An error means that the session's task is gone.
        let _ = self.life.wait_for(|life| *life >= Life::Ended).await;
    }

    fn tell(&self, command: Command) {
        if let Some(commands) = self.commands.upgrade() {
            let _ = commands.send(command);
        }
    }
}

impl Openings {
    /// A new connection of a peer; gives its old one, which is to be ended before anything is done
    /// on the new one (B2-OPEN-R-03, B2-OPEN-R-04).
    pub(crate) fn connected(&self, peer: PublicKey, link: Link) -> Option<Link> {
        let old = lock(&self.peers).insert(peer, link.clone());
        // Else `shut_down` may have come between: it has ended only whom it found.
        if self.is_stopping() {
            link.tell(Command::Close);
        }
        old
    }

    /// A connection has ended, and may have been replaced already.
    pub(crate) fn disconnected(&self, peer: &PublicKey, life: &watch::Sender<Life>) {
        let mut peers = lock(&self.peers);
        if peers.get(peer).is_some_and(|link| life.subscribe().same_channel(&link.life)) {
            peers.remove(peer);
        }
    }

    /// Whether the node is going down: no new connection is taken.
    pub(crate) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }

    /// Tells the peer's session, if it is connected.
    pub(super) fn send_to(&self, peer: &PublicKey, command: Command) {
        // Without a session what waits for an answer hears that there is none.
        if let Some(link) = lock(&self.peers).get(peer) {
            link.tell(command);
        }
    }

    pub(super) fn links(&self) -> Vec<(PublicKey, Link)> {
        lock(&self.peers).iter().map(|(peer, link)| (*peer, link.clone())).collect()
    }

    /// Ends every session, and takes no new one ([`StartError::ShuttingDown`]).  Openings that are
    /// not being saved are cancelled and their peers told; saves under way are awaited, for as long
    /// as [`Deadlines::store`](super::Deadlines::store), and then a peer that does not read what it
    /// is told, for as long as [`Deadlines::peer`](super::Deadlines::peer).  What is saved is there
    /// after a restart.
    ///
    /// [`StartError::ShuttingDown`]: crate::session::StartError::ShuttingDown
    pub async fn shut_down(self: &Arc<Self>) {
        self.is_stopping.store(true, Ordering::Release);
        let closing = self.links().into_iter().map(|(_, mut link)| async move {
            link.tell(Command::Close);
            let _ = link.life.wait_for(|life| *life >= Life::Closed).await;
        });
        futures::future::join_all(closing).await;
    }
}
