//! A node that goes down: peers are told, saves awaited, newcomers refused, and nobody is waited
//! for without end.

// Clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::here::Here;
use common::raw_peer::{RawPeer, channel_id, made_up_outpoint};
use common::{ask, node_id, signed};
use lightning::ln::msgs::Init;
use lightning::ln::types::ChannelId;
use opening_core::Role;
use opening_peer::message::Message;
use opening_peer::openings::Restored;
use opening_peer::session::{StartError, default_features};
use opening_peer::transport::in_memory_pair;
use opening_peer::{Event, Failed, Greeting, Node, Openings, Session};
use tokio::time::{Instant, sleep, timeout};

const ID: ChannelId = ChannelId([0x55; 32]);

/// What a second peer is asked for.
const PEER: u8 = 2;

fn node_of(here: impl FnOnce(&mut dyn FnMut(&mut Node)) -> Here) -> (Here, Node) {
    let mut kept = None;
    let here = here(&mut |node| kept = Some(node.clone()));
    (here, kept.unwrap())
}

fn here() -> (Here, Node) {
    node_of(|keep| Here::with(keep))
}

async fn start_again(node: Node) -> (Arc<Openings>, Vec<Restored>) {
    Openings::load(node).await.unwrap()
}

fn failed(event: &Event) -> Option<Failed> {
    match event {
        Event::Failed(failed) => Some(failed.clone()),
        _ => None,
    }
}

/// Starts to go down, and has begun to when this returns.
async fn going_down(openings: &Arc<Openings>) -> tokio::task::JoinHandle<Duration> {
    let openings = openings.clone();
    let (begun, begins) = tokio::sync::oneshot::channel();
    let going_down = tokio::spawn(async move {
        let began = Instant::now();
        let shutting_down = openings.shut_down();
        tokio::pin!(shutting_down);
        let _ = futures::poll!(&mut shutting_down);
        begun.send(()).unwrap();
        shutting_down.await;
        began.elapsed()
    });
    begins.await.unwrap();
    going_down
}

#[tokio::test(start_paused = true)]
async fn pending_openings_are_cancelled_and_their_peers_told() {
    let (here, node) = here();
    let mut peers = Vec::new();
    let mut handles = Vec::new();
    for secret in [2, 3, 4] {
        let (mut peer, session) = RawPeer::connect(&here.openings, secret).await;
        peer.send(&peer.open_channel(ID)).await;
        peer.expect_accept_channel(ID).await;
        let opening = session.open(ask()).await.unwrap();
        let our_id = peer.expect_open_channel().await.common_fields.temporary_channel_id;
        peers.push((peer, our_id));
        handles.push((opening, session));
    }
    let going_down = going_down(&here.openings).await;
    for (peer, our_id) in &mut peers {
        assert_eq!(peer.expect_error(*our_id).await, "channel opening cancelled");
        assert_eq!(peer.expect_error(ID).await, "channel opening cancelled");
        peer.expect_closed().await;
    }
    assert_eq!(going_down.await.unwrap(), Duration::ZERO);
    for (opening, session) in handles {
        assert_eq!(opening.accepted().await.unwrap_err().failure.code(), "cancelled");
        let gone = session.open(ask()).await.unwrap_err();
        assert_eq!(gone.failure.code(), "disconnected");
        assert!(session.is_closed());
    }
    assert_eq!(here.openings.pending(), 0);
    assert_eq!(here.seen.count(|event| failed(event).is_some()), 6);
    assert!(here.openings.status().await.under_way.is_empty());
    assert!(start_again(node).await.1.is_empty());
}

#[tokio::test(start_paused = true)]
async fn newcomers_are_refused_with_a_code() {
    let (here, _) = here();
    // One that is still exchanging init, and one that the node hands over.
    let (near, far) = in_memory_pair();
    let start = Session::start(here.openings.clone(), node_id(3), near, Greeting::default());
    let starting = tokio::spawn(start);
    sleep(Duration::from_secs(1)).await;
    here.openings.shut_down().await;

    let refused = |started: Result<Session, StartError>| match started {
        Err(error @ StartError::ShuttingDown) => assert_eq!(error.code(), "shutting-down"),
        other => panic!("{other:?}"),
    };
    let (_reader, mut writer) = far.split();
    let features = default_features();
    let init = Init { features, networks: None, remote_network_address: None };
    writer.queue(&opening_peer::message::encode(&init)).unwrap();
    writer.flush().await.unwrap();
    refused(starting.await.unwrap());

    let (near, _far) = in_memory_pair();
    let openings = here.openings.clone();
    refused(Session::start(openings, node_id(2), near, Greeting::default()).await);

    let (near, far) = in_memory_pair();
    let features =
        opening_core::NegotiatedFeatures { local: default_features(), remote: default_features() };
    let mut session = Session::adopt(here.openings.clone(), node_id(4), features, near);
    timeout(Duration::from_secs(1), session.closed()).await.expect("it is closed at once");
    assert!(far.split().0.read().await.unwrap().is_none(), "closed without a word");
}

/// In both roles, and a restart finds both channels.
#[tokio::test(start_paused = true)]
async fn saves_under_way_are_awaited_and_found_after_a_restart() {
    let (here, node) = here();
    let (mut funder, _session) = RawPeer::connect(&here.openings, PEER).await;
    let (mut fundee, session) = RawPeer::connect(&here.openings, 3).await;
    let pending = {
        let opening = session.open(ask()).await.unwrap();
        let open = fundee.expect_open_channel().await;
        let accept = fundee.accept_channel(&open);
        fundee.send(&accept).await;
        let pending = opening.accepted().await.unwrap();
        let funding = signed(&pending.needed().output);
        let signing = pending.complete(funding).await.unwrap();
        let created = fundee.expect_funding_created().await;
        here.valves.save.shut();
        fundee.send(&fundee.funding_signed(&open, &accept, &created)).await;
        here.valves.save.reached().await;
        signing
    };
    let offer = funder.open_channel(ID);
    funder.send(&offer).await;
    let accept = funder.expect_accept_channel(ID).await;
    let outpoint = made_up_outpoint(1, 0);
    funder.send(&funder.funding_created(&offer, &accept, outpoint)).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(here.openings.status().await.under_way.len(), 2);

    let mut going_down = going_down(&here.openings).await;
    assert!(timeout(Duration::from_secs(20), &mut going_down).await.is_err(), "saves are awaited");
    here.valves.save.open();
    assert_eq!(going_down.await.unwrap(), Duration::from_secs(20));
    // The last words were still said.
    assert_eq!(funder.expect_funding_signed().await.channel_id, channel_id(outpoint));
    funder.expect_closed().await;
    fundee.expect_closed().await;
    let mut pending = pending;
    let (opened, _permit) = pending.opened().await.unwrap();
    assert_eq!(here.seen.count(|event| failed(event).is_some()), 0);

    let (_openings, restored) = start_again(node).await;
    assert_eq!(restored.len(), 2);
    for channel in restored {
        match channel {
            Restored::MayBroadcast { opened: again, .. } => assert_eq!(*again, *opened),
            Restored::AwaitDepth(again) => {
                assert_eq!(again.role(), Role::Fundee);
                assert_eq!(again.channel_id, channel_id(outpoint));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_is_awaited_for_its_deadline() {
    let (here, _) = here();
    let (mut peer, _session) = RawPeer::connect(&here.openings, PEER).await;
    let offer = peer.open_channel(ID);
    peer.send(&offer).await;
    let accept = peer.expect_accept_channel(ID).await;
    here.valves.save.shut();
    peer.send(&peer.funding_created(&offer, &accept, made_up_outpoint(1, 0))).await;
    here.valves.save.reached().await;
    let took = going_down(&here.openings).await.await.unwrap();
    assert_eq!(took, Duration::from_secs(30));
    // What nobody knows is neither told nor given up.
    peer.expect_closed().await;
    assert_eq!(here.seen.count(|event| failed(event).is_some()), 0);
}

#[tokio::test(start_paused = true)]
async fn a_signer_and_a_policy_that_hang_are_not_awaited() {
    let (here, _) = here();
    let (mut peer, _session) = RawPeer::connect(&here.openings, PEER).await;
    let offer = peer.open_channel(ID);
    peer.send(&offer).await;
    let accept = peer.expect_accept_channel(ID).await;
    here.valves.validate.shut();
    peer.send(&peer.funding_created(&offer, &accept, made_up_outpoint(1, 0))).await;
    here.valves.validate.reached().await;
    here.valves.decide.shut();
    let other = ChannelId([0x56; 32]);
    peer.send(&peer.open_channel(other)).await;
    here.valves.decide.reached().await;
    let took = going_down(&here.openings).await.await.unwrap();
    assert_eq!(took, Duration::ZERO);
    let mut told = Vec::new();
    for _ in 0..2 {
        match peer.receive().await {
            Message::Error(error) => told.push((error.channel_id, error.data)),
            other => panic!("{other:?}"),
        }
    }
    told.sort_by_key(|(id, _)| id.0);
    let text = || "channel opening cancelled".to_owned();
    assert_eq!(told, [(ID, text()), (other, text())]);
    peer.expect_closed().await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_is_awaited_for_its_deadline() {
    let (here, _) = here();
    let (mut peer, session) = RawPeer::connect(&here.openings, PEER).await;
    peer.send(&peer.open_channel(ID)).await;
    peer.expect_accept_channel(ID).await;
    // More than the wire holds; the peer does not read.
    for _ in 0..3 {
        session.send(vec![0x80; 60_000]).await.unwrap();
    }
    let took = going_down(&here.openings).await.await.unwrap();
    assert_eq!(took, Duration::from_secs(60));
    assert_eq!(here.seen.failure_code().await, "cancelled");
}
