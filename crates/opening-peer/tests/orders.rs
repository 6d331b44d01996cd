//! Depth, reorganisations, both `channel_ready`, connections and restarts come in every order.
//!
//! Random sequences are played against a node, and after each step what it said is held against
//! what may be said at all.  At the end every channel must still come into use.

// Clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use common::lasting::{Funded, Lasting};
use common::raw_peer::RawPeer;
use common::{ask, regtest_bounds};
use lightning::ln::msgs::ChannelReady;
use opening_core::ChannelType;
use opening_peer::message::Message;
use opening_peer::node::AcceptWithin;
use opening_peer::{Ask, Event, Session};
use proptest::prelude::*;

const ZEROCONF: ChannelType = ChannelType { zeroconf: true, ..ChannelType::ANCHORS };

#[derive(Clone, Copy, Debug)]
enum Step {
    Confirm(u32),
    Unconfirm,
    Block(u32),
    PeerReady,
    Disconnect,
    Connect,
    PeerReestablish,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0u32..6).prop_map(Step::Confirm),
        1 => Just(Step::Unconfirm),
        1 => (1u32..4000).prop_map(Step::Block),
        2 => Just(Step::PeerReady),
        2 => Just(Step::Disconnect),
        4 => Just(Step::Connect),
        4 => Just(Step::PeerReestablish),
        1 => Just(Step::Restart),
    ]
}

/// Whether the node has said what, on one connection.
struct Connection {
    peer: RawPeer,
    session: Session,
    /// It began with the channel in it, or both `channel_reestablish` have passed.
    is_live: bool,
    has_node_reestablished: bool,
    has_peer_reestablished: bool,
    channel_readies: u32,
}

impl Connection {
    fn new(peer: RawPeer, session: Session) -> Self {
        Self {
            peer,
            session,
            is_live: false,
            has_node_reestablished: false,
            has_peer_reestablished: false,
            channel_readies: 0,
        }
    }
}

/// A node with one channel, and what it may say.
struct World {
    node: Lasting,
    channel: Funded,
    connection: Option<Connection>,
    minimum_depth: u32,
    depth: u32,
    /// What our `channel_ready` says, once it has been said.
    said: Option<ChannelReady>,
    /// The peer has said its own, in this process.
    is_peer_ready: bool,
    /// Both have, in this process: the node was told.
    is_ready: bool,
}

impl World {
    async fn new(we_fund: bool, is_zeroconf: bool) -> Self {
        let node = Lasting::with(|node| {
            let mut bounds = regtest_bounds();
            bounds.limits.trust_zeroconf = true;
            node.policy = Arc::new(AcceptWithin(bounds));
        })
        .await;
        let channel_type = if is_zeroconf { ZEROCONF } else { ChannelType::ANCHORS };
        let (mut peer, session) = node.connect().await;
        let channel = if we_fund {
            let ask = Ask { channel_type: Some(channel_type), ..ask() };
            node.we_fund(&mut peer, &session, ask).await.0
        } else {
            let typed = |open: &mut lightning::ln::msgs::OpenChannel| {
                open.common_fields.channel_type = Some(channel_type.to_features());
            };
            node.they_fund(&mut peer, typed).await
        };
        let connection = Connection { is_live: true, ..Connection::new(peer, session) };
        Self {
            node,
            minimum_depth: channel.opened.minimum_depth,
            channel,
            connection: Some(connection),
            depth: 0,
            said: None,
            is_peer_ready: false,
            is_ready: false,
        }
    }

    async fn play(&mut self, step: Step) {
        match step {
            Step::Confirm(depth) => {
                self.depth = depth;
                self.node.confirm(&self.channel, depth).await.unwrap();
            }
            Step::Unconfirm => {
                self.depth = 0;
                self.node.openings.unconfirmed(&self.channel.id).unwrap();
            }
            Step::Block(height) => self.node.openings.block_connected(height).await,
            Step::PeerReady => {
                if let Some(Connection { peer, .. }) = &mut self.connection {
                    peer.send(&peer.channel_ready(self.channel.id)).await;
                    self.is_peer_ready = true;
                }
            }
            Step::Disconnect => {
                if let Some(Connection { peer, session, .. }) = self.connection.take() {
                    peer.disconnect().await;
                    drop(session);
                }
            }
            Step::Connect => {
                if self.connection.is_none() {
                    let (peer, session) = self.node.connect().await;
                    self.connection = Some(Connection::new(peer, session));
                }
            }
            Step::PeerReestablish => {
                if let Some(connection) = &mut self.connection
                    && !connection.is_live
                    && !connection.has_peer_reestablished
                {
                    connection.has_peer_reestablished = true;
                    let peer = &mut connection.peer;
                    peer.send(&peer.channel_reestablish(self.channel.id)).await;
                }
            }
            Step::Restart => {
                self.connection = None;
                self.node.restart_with_one().await;
                (self.depth, self.is_peer_ready, self.is_ready) = (0, false, false);
            }
        }
        self.settle().await;
        self.check().await;
    }

    /// Signer and store do what they have begun.
    async fn settle(&self) {
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    }

    /// Everything that the node has said since, and whether it might.
    async fn check(&mut self) {
        for message in self.heard().await {
            match message {
                Message::ChannelReestablish(_) => {
                    let connection = self.connection.as_mut().unwrap();
                    assert!(!connection.is_live && !connection.has_node_reestablished);
                    connection.has_node_reestablished = true;
                }
                Message::ChannelReady(message) => self.check_ready(message),
                other => panic!("{other:?}"),
            }
        }
        if let Some(connection) = &mut self.connection {
            connection.is_live |=
                connection.has_node_reestablished && connection.has_peer_reestablished;
            // A peer that says it before its channel_reestablish is in a hurry: we are not.
            self.is_ready |= self.is_peer_ready && connection.channel_readies == 1;
        }
        let readies = usize::from(self.is_ready);
        assert_eq!(self.node.readies(), readies, "once, when both have said it");
        let ends =
            self.node.seen.count(|event| matches!(event, Event::Ended(_) | Event::Failed(_)));
        assert_eq!(ends, 0);
    }

    async fn heard(&mut self) -> Vec<Message> {
        let mut heard = Vec::new();
        let Some(Connection { peer, .. }) = &mut self.connection else { return heard };
        peer.send(&lightning::ln::msgs::Ping { ponglen: 1, byteslen: 0 }).await;
        loop {
            match peer.receive().await {
                Message::Pong(_) => return heard,
                message => heard.push(message),
            }
        }
    }

    fn check_ready(&mut self, message: ChannelReady) {
        let connection = self.connection.as_mut().unwrap();
        connection.channel_readies += 1;
        assert_eq!(connection.channel_readies, 1, "once on each connection");
        let both = connection.has_node_reestablished && connection.has_peer_reestablished;
        assert!(connection.is_live || both, "after both channel_reestablish");
        match &self.said {
            Some(said) => assert_eq!(message, *said, "the same each time"),
            None => assert!(self.depth >= self.minimum_depth, "at depth {}", self.depth),
        }
        self.said = Some(message);
    }

    /// Whatever has happened, the channel can be used in the end.
    async fn finish(&mut self) {
        for step in [Step::Connect, Step::PeerReestablish, Step::Confirm(3), Step::PeerReady] {
            self.play(step).await;
        }
        assert_eq!(self.connection.as_ref().unwrap().channel_readies, 1);
        assert_eq!(self.node.readies(), 1);
        let ready = self.node.ready(&self.channel).await;
        let said = self.said.as_ref().unwrap();
        assert_eq!(ready.local.second_per_commitment_point, said.next_per_commitment_point);
    }
}

fn play(we_fund: bool, is_zeroconf: bool, steps: &[Step]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(we_fund, is_zeroconf).await;
        world.settle().await;
        world.check().await;
        for step in steps {
            world.play(*step).await;
        }
        world.finish().await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    // incident: LDK panics (second channel_ready)
    // req: B2-CR-S-02, B2-CR-S-03, B2-CR-B-02, B2-RE-B-06, B2-RE-B-09, B2-RE-B-10, B2-RE-R-02
    #[test]
    fn in_every_order_channel_ready_is_said_once_at_depth_and_the_same(
        we_fund in any::<bool>(),
        is_zeroconf in any::<bool>(),
        steps in prop::collection::vec(step(), 1..40),
    ) {
        // A fundee forgets what never confirms: its money is in it here, so it does not.
        play(we_fund, is_zeroconf, &steps);
    }
}

/// Depth reached, lost and reached again while nobody is there.
#[test]
fn a_depth_that_nobody_saw_and_a_reorganisation_took_back_is_none() {
    use Step::{Confirm, Connect, Disconnect, PeerReady, PeerReestablish, Restart, Unconfirm};
    for we_fund in [true, false] {
        let offline = [Disconnect, Confirm(5), Unconfirm, Connect, PeerReestablish];
        play(we_fund, false, &offline);
        let twice = [PeerReady, Disconnect, Confirm(3), Restart, Connect, PeerReady];
        play(we_fund, false, &twice);
    }
}
