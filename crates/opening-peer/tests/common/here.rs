//! The node under test, with everything that a test may want to look at afterwards.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::Network;
use lightning::ln::types::ChannelId;
use opening_peer::message::Message;
use opening_peer::node::AcceptWithin;
use opening_peer::store::{ChannelStore, MemoryStore};
use opening_peer::{Capacity, Event, Failed, Failure, Node, Openings, Session};
use opening_signer::{HsmSecret, LocalHsm};

use super::parts::{Rest, ValveHsm, ValvePolicy, ValveStore, Valves};
use super::raw_peer::RawPeer;
use super::{Seen, ask, regtest_bounds};

pub struct Here {
    pub openings: Arc<Openings>,
    pub seen: Arc<Seen>,
    pub rest: Arc<Rest>,
    pub valves: Arc<Valves>,
    store: Arc<dyn ChannelStore>,
}

impl Here {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// With a node of which `change` makes something else.
    pub fn with(change: impl FnOnce(&mut Node)) -> Self {
        let (seen, rest) = (Arc::<Seen>::default(), Arc::<Rest>::default());
        let valves = Arc::<Valves>::default();
        let hsm = LocalHsm::blind(&HsmSecret::new([1; 32]));
        let mut node = Node {
            rest: rest.clone(),
            capacity: Capacity { opens_per_second: None, ..Capacity::default() },
            ..Node::new(
                Network::Regtest,
                Arc::new(ValveHsm(hsm, valves.clone())),
                Arc::new(ValvePolicy(AcceptWithin(regtest_bounds()), valves.clone())),
                Arc::new(ValveStore(MemoryStore::default(), valves.clone())),
                seen.clone(),
            )
        };
        change(&mut node);
        let store = node.store.clone();
        Self { openings: super::openings(node), seen, rest, valves, store }
    }

    /// Waits for the next failure that no one has asked for yet.
    pub async fn failed(&self) -> Failed {
        let is_failure = |event: &Event| matches!(event, Event::Failed(_));
        match self.seen.take(is_failure).await {
            Event::Failed(failed) => failed,
            other => panic!("{other:?}"),
        }
    }

    /// The ids of the channels that were saved.
    pub async fn saved(&self) -> Vec<ChannelId> {
        let channels = self.store.load_all().await.unwrap();
        channels.into_iter().map(|entry| entry.stored.unwrap().opened.channel_id).collect()
    }

    /// No opening of any peer's is pending, or will be in a moment.
    pub async fn nothing_pending(&self) {
        let emptying = async {
            while self.openings.pending() != 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), emptying).await.expect("still pending");
    }

    /// Nothing is left of the opening that the peer named `id`: it may name another one so, which
    /// is accepted or refused for its own sake, and the connection is alive.
    pub async fn forgot_theirs(&self, peer: &mut RawPeer, id: ChannelId) {
        self.nothing_pending().await;
        peer.send(&peer.open_channel(id)).await;
        let accepted = matches!(peer.receive().await, Message::AcceptChannel(_));
        if accepted {
            assert_eq!(self.openings.pending(), 1);
            peer.send_error(id, "enough").await;
        }
        let failed = self.failed().await;
        assert_eq!(failed.temporary_channel_id, id);
        match &*failed.failure {
            Failure::PeerError(_) => assert!(accepted),
            Failure::Negotiation(_) => assert!(!accepted),
            _ => panic!("{failed}"),
        }
        assert_eq!(self.openings.pending(), 0);
        peer.expect_silence().await;
    }

    /// The node can still open a channel over this connection.
    pub async fn can_open(&self, session: &Session, peer: &mut RawPeer) {
        let opening = session.open(ask()).await.unwrap();
        let id = peer.expect_open_channel().await.common_fields.temporary_channel_id;
        peer.send_error(id, "enough").await;
        assert_eq!(opening.accepted().await.unwrap_err().failure.code(), "peer-error");
        let failed = self.failed().await;
        assert_eq!((failed.failure.code(), failed.temporary_channel_id), ("peer-error", id));
        peer.expect_silence().await;
    }
}
