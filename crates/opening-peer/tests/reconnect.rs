//! A peer that connects anew: its old connection's openings end first, and touch nothing after.

// Clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::ask;
use common::here::Here;
use common::raw_peer::{RawPeer, channel_id, made_up_outpoint};
use lightning::ln::msgs::ErrorMessage;
use lightning::ln::types::ChannelId;
use opening_core::Role;
use opening_peer::failure::Stage;
use opening_peer::message::Message;
use opening_peer::transport::in_memory_pair;
use opening_peer::{Event, Openings, Session};
use tokio::time::{Instant, sleep};

const ID: ChannelId = ChannelId([0x55; 32]);
const OTHER_ID: ChannelId = ChannelId([0x66; 32]);

/// The peer by whose secret the tests know it.
const PEER: u8 = 2;

fn is_connection(event: &Event) -> bool {
    matches!(event, Event::Connected | Event::Disconnected { .. })
}

fn error(channel_id: ChannelId) -> ErrorMessage {
    ErrorMessage { channel_id, data: "too late".into() }
}

async fn failure_codes(here: &Here, count: usize) -> Vec<(Role, &'static str)> {
    let mut codes = Vec::new();
    for _ in 0..count {
        let failed = here.failed().await;
        codes.push((failed.role, failed.failure.code()));
    }
    codes
}

async fn reconnect_and_open(new_id: ChannelId) {
    let here = Here::new();
    let (mut old, session) = RawPeer::connect(&here.openings, PEER).await;
    let offer = old.open_channel(ID);
    old.send(&offer).await;
    let accept = old.expect_accept_channel(ID).await;
    let ours = session.open(ask()).await.unwrap();
    old.expect_open_channel().await;

    let (mut new, new_session) = RawPeer::connect(&here.openings, PEER).await;
    let created = old.funding_created(&offer, &accept, made_up_outpoint(1, 0));
    if new_id != ID {
        new.send(&created).await;
        assert_eq!(new.expect_error(ID).await, "no such channel");
    }
    // Told to nobody but the node: a word about the id could be taken for the new connection's.
    old.expect_closed().await;
    let codes = failure_codes(&here, 2).await;
    assert_eq!(codes, [(Role::Funder, "disconnected"), (Role::Fundee, "disconnected")]);
    assert_eq!(ours.accepted().await.unwrap_err().failure.code(), "disconnected");

    let outpoint = made_up_outpoint(1, 0);
    let signed = new.open(&new.open_channel(new_id), outpoint).await;
    assert_eq!(signed.channel_id, channel_id(outpoint));
    here.can_open(&new_session, &mut new).await;
    let mut connections = Vec::new();
    for _ in 0..3 {
        connections.push(here.seen.take(is_connection).await.to_string());
    }
    assert_eq!(
        connections,
        ["connected", "disconnected: the peer has connected anew", "connected"]
    );
}

// req: B2-OPEN-R-03
#[tokio::test]
async fn the_same_id_is_accepted_on_the_new_connection() {
    reconnect_and_open(ID).await;
}

// req: B2-OPEN-R-03, B2-OPEN-R-04
#[tokio::test]
async fn another_id_is_accepted_on_the_new_connection_and_the_first_is_forgotten() {
    reconnect_and_open(OTHER_ID).await;
}

/// The old connection's transport may live: what comes over it is about nothing.
// req: B2-OPEN-R-04
#[tokio::test]
async fn what_the_old_connection_goes_on_saying_touches_nothing() {
    let here = Here::new();
    let (mut old, old_session) = RawPeer::connect(&here.openings, PEER).await;
    let ours = old_session.open(ask()).await.unwrap();
    let our_id = old.expect_open_channel().await.common_fields.temporary_channel_id;
    let canceller = ours.canceller();

    let (mut new, new_session) = RawPeer::connect(&here.openings, PEER).await;
    let opening = new_session.open(ask()).await.unwrap();
    let open = new.expect_open_channel().await;
    new.send(&new.open_channel(ID)).await;
    new.expect_accept_channel(ID).await;

    // The same names on the dead connection, and the old handles.
    old.expect_closed().await;
    old.try_send(&error(ID)).await;
    old.try_send(&error(our_id)).await;
    old.try_send(&error(ChannelId([0; 32]))).await;
    assert!(!canceller.cancel().await);
    drop((ours, old_session));
    assert_eq!(failure_codes(&here, 1).await, [(Role::Funder, "disconnected")]);

    new.send(&new.accept_channel(&open)).await;
    let _pending = opening.accepted().await.unwrap();
    assert_eq!(here.openings.pending(), 1);
    assert_eq!(here.seen.count(|event| matches!(event, Event::ErrorReceived { .. })), 0);
}

/// A node that keeps one handle for each peer drops the old one when it has the new one.
#[tokio::test]
async fn dropping_the_old_handle_next_says_nothing_on_the_old_connection() {
    let here = Here::new();
    let (mut old, old_session) = RawPeer::connect(&here.openings, PEER).await;
    old.send(&old.open_channel(ID)).await;
    old.expect_accept_channel(ID).await;
    let _new = begin_without_a_word(&here.openings);
    drop(old_session);
    old.expect_closed().await;
    assert_eq!(failure_codes(&here, 1).await, [(Role::Fundee, "disconnected")]);
}

/// Whichever comes last stays, and it alone.
// req: B2-OPEN-R-03
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_connections_that_race_one_stays() {
    for _ in 0..20 {
        let here = Arc::new(Here::new());
        let racing = (0..8).map(|_| {
            let here = here.clone();
            tokio::spawn(async move {
                let (mut peer, session) = RawPeer::connect(&here.openings, PEER).await;
                // It may be over before this is read.
                peer.try_send(&peer.open_channel(ID)).await;
                (peer, session)
            })
        });
        let mut all = Vec::new();
        for one in racing.collect::<Vec<_>>() {
            all.push(one.await.unwrap());
        }
        let closing = async {
            while all.iter().filter(|(_, session)| !session.is_closed()).count() > 1 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), closing).await.expect("only one stays");
        let (mut peer, session) = all.into_iter().find(|(_, it)| !it.is_closed()).unwrap();
        peer.expect_accept_channel(ID).await;
        assert_eq!(here.openings.pending(), 1);
        peer.send_error(ID, "enough").await;
        while here.failed().await.failure.code() != "peer-error" {}
        here.can_open(&session, &mut peer).await;
    }
}

fn begin_without_a_word(openings: &Arc<Openings>) -> (Session, impl Sized) {
    let (near, far) = in_memory_pair();
    let features = opening_core::NegotiatedFeatures {
        local: opening_peer::session::default_features(),
        remote: opening_peer::session::default_features(),
    };
    (Session::adopt(openings.clone(), common::node_id(PEER), features, near), far)
}

/// A channel that is being saved becomes one, and goes on over the new connection, which says
/// nothing before.
// req: B2-OPEN-R-03, B2-RE-B-06
#[tokio::test(start_paused = true)]
async fn a_save_on_the_old_connection_is_awaited() {
    let here = Here::new();
    let (mut old, _old_session) = RawPeer::connect(&here.openings, PEER).await;
    let offer = old.open_channel(ID);
    old.send(&offer).await;
    let accept = old.expect_accept_channel(ID).await;
    here.valves.save.shut();
    let outpoint = made_up_outpoint(1, 0);
    old.send(&old.funding_created(&offer, &accept, outpoint)).await;
    here.valves.save.reached().await;

    // Several come and go meanwhile.
    for _ in 0..3 {
        drop(begin_without_a_word(&here.openings));
    }
    let (mut new, _new_session) = RawPeer::connect(&here.openings, PEER).await;
    new.send(&new.open_channel(ID)).await;
    sleep(Duration::from_secs(5)).await;
    let before = Instant::now();
    let status = here.openings.status().await;
    assert_eq!(before.elapsed(), Duration::ZERO, "nobody waits for the store");
    let [under] = &status.under_way[..] else { panic!("{status:?}") };
    assert_eq!((under.stage, under.channel_id), (Stage::Save, Some(channel_id(outpoint))));
    assert_eq!(new.heard.len(), 1, "init, and nothing before the save");

    here.valves.save.open();
    assert_eq!(old.expect_funding_signed().await.channel_id, channel_id(outpoint));
    old.expect_closed().await;
    match new.receive().await {
        Message::ChannelReestablish(it) => assert_eq!(it.channel_id, channel_id(outpoint)),
        other => panic!("{other:?}"),
    }
    new.expect_accept_channel(ID).await;
}

/// A store that hangs keeps a peer from opening for its deadline, and no longer; the channel is
/// taken up when it is saved.
// req: B2-OPEN-R-03, B2-RE-B-06
#[tokio::test(start_paused = true)]
async fn a_save_that_hangs_is_awaited_no_longer_than_the_store_may_take() {
    let here = Here::new();
    let (mut old, _old_session) = RawPeer::connect(&here.openings, PEER).await;
    let offer = old.open_channel(ID);
    old.send(&offer).await;
    let accept = old.expect_accept_channel(ID).await;
    here.valves.save.shut();
    let outpoint = made_up_outpoint(1, 0);
    old.send(&old.funding_created(&offer, &accept, outpoint)).await;
    here.valves.save.reached().await;

    let began = Instant::now();
    let (mut new, _new_session) = RawPeer::connect(&here.openings, PEER).await;
    new.send(&new.open_channel(ID)).await;
    // `receive` of this peer waits no longer than 20 s.
    sleep(Duration::from_secs(29)).await;
    new.expect_accept_channel(ID).await;
    assert_eq!(began.elapsed(), Duration::from_secs(30));
    let stages: Vec<_> =
        here.openings.status().await.under_way.iter().map(|under| under.stage).collect();
    assert_eq!(stages, [Stage::FundingCreated, Stage::Save]);

    here.valves.save.open();
    match new.receive().await {
        Message::ChannelReestablish(it) => assert_eq!(it.channel_id, channel_id(outpoint)),
        other => panic!("{other:?}"),
    }
    assert_eq!(here.saved().await, [channel_id(outpoint)]);
}

/// What the signer still does for the old connection comes to nothing.
// req: B2-OPEN-R-04
#[tokio::test(start_paused = true)]
async fn a_signature_on_the_old_connection_comes_to_nothing() {
    let here = Here::new();
    let (mut old, _old_session) = RawPeer::connect(&here.openings, PEER).await;
    let offer = old.open_channel(ID);
    old.send(&offer).await;
    let accept = old.expect_accept_channel(ID).await;
    here.valves.sign.shut();
    old.send(&old.funding_created(&offer, &accept, made_up_outpoint(1, 0))).await;
    here.valves.sign.reached().await;

    let (mut new, _new_session) = RawPeer::connect(&here.openings, PEER).await;
    let offer = new.open_channel(ID);
    new.send(&offer).await;
    let accept = new.expect_accept_channel(ID).await;
    assert_eq!(here.openings.pending(), 2, "the signer is still at work on the first");
    here.valves.sign.open();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(here.openings.pending(), 1);
    assert!(here.saved().await.is_empty());
    let outpoint = made_up_outpoint(2, 0);
    new.send(&new.funding_created(&offer, &accept, outpoint)).await;
    assert_eq!(new.expect_funding_signed().await.channel_id, channel_id(outpoint));
    assert_eq!(here.saved().await, [channel_id(outpoint)]);
}
