//! Connections: how they begin and end, what they offer, and what their queues hold.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bitcoin::Network;
use lightning::ln::msgs::{
    BaseMessageHandler, ChannelMessageHandler, ErrorAction, ErrorMessage, MessageSendEvent, Ping,
    TxComplete, UpdateFee,
};
use lightning::ln::types::ChannelId;
use lightning::types::features::InitFeatures;
use opening_core::Feature;
use opening_peer::Event;
use opening_peer::message::encode;
use opening_peer::session::default_features;
use tokio::time::timeout;

use crate::common::{ask, node_id};
use crate::inner::{Inner, NONE};
use crate::rig::{Rig, init};

const OWNED: ChannelId = ChannelId([0x0c; 32]);

async fn disconnected(rig: &Rig) -> String {
    match rig.here.seen.take(|event| matches!(event, Event::Disconnected { .. })).await {
        Event::Disconnected { reason } => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn init_offers_what_either_offers_and_requires_what_either_requires() {
    let mut features = InitFeatures::empty();
    features.set_channel_type_required();
    features.set_basic_mpp_optional();
    let rig = Rig::with(Inner::offering(features), |_| {});
    let both = rig.handler.provided_init_features(rig.peer);
    assert!(both.requires_channel_type() && both.supports_basic_mpp());
    assert!(both.supports_anchors_zero_fee_htlc_tx() && !both.requires_anchors_zero_fee_htlc_tx());
    // Never both bits of a pair: 44 is set, 45 is not.
    assert_eq!(both.le_flags()[5] & 0b0011_0000, 0b0001_0000);
    let node = rig.handler.provided_node_features();
    assert!(node.requires_channel_type() && node.supports_anchors_zero_fee_htlc_tx());
    // And this is what a session takes for said.
    rig.connect();
    assert_eq!(rig.session().features().local, both);
    assert_eq!(rig.session().features().remote, default_features());
    assert!(rig.session().features().negotiated(Feature::Anchors));
}

// req: B1-INIT-R-07, B1-INIT-R-06
#[tokio::test]
async fn a_peer_whose_init_does_not_go_with_ours_is_refused_before_the_inner_handler_sees_it() {
    let rig = Rig::with(Inner::offering(InitFeatures::empty()), |_| {});
    let mut features = InitFeatures::empty();
    features.set_zero_conf_optional();
    assert_eq!(rig.handler.peer_connected(rig.peer, &init(features), true), Err(()));
    let mut elsewhere = init(default_features());
    elsewhere.networks = Some(vec![Network::Bitcoin.chain_hash()]);
    assert_eq!(rig.handler.peer_connected(rig.peer, &elsewhere, true), Err(()));
    assert_eq!(rig.inner.take_calls(), []);
    assert!(rig.handler.session(&rig.peer).is_none());
}

#[tokio::test]
async fn a_disconnect_ends_what_is_pending_and_a_reconnect_begins_anew() {
    let mut rig = Rig::new();
    let mut session = rig.session();
    let opening = session.open(ask()).await.unwrap();
    // Said, and never fetched: it must not reach the next connection.
    rig.handler.output().await;
    rig.handler.peer_disconnected(rig.peer);
    assert_eq!(rig.inner.take_calls(), [("peer_disconnected", NONE)]);
    assert!(rig.handler.session(&rig.peer).is_none());
    assert!(rig.fetch().is_empty());
    assert_eq!(opening.accepted().await.unwrap_err().failure.code(), "disconnected");
    session.closed().await;
    rig.connect();
    assert!(rig.fetch().is_empty());
    assert!(!rig.session().is_closed());
    let _opening = rig.session().open(ask()).await.unwrap();
    rig.open_channel().await;
}

/// On a runtime of one thread nothing reads while this does not wait: as if the node were busy.
#[tokio::test]
async fn a_full_queue_disconnects_the_peer_and_nothing_grows() {
    let mut rig = Rig::new();
    let other = node_id(3);
    rig.handler.peer_connected(other, &init(default_features()), true).unwrap();
    rig.here.rest.own(OWNED);
    let complete = TxComplete { channel_id: OWNED };
    // With the frame's header.
    let fits = 256 * 1024 / (encode(&complete).len() + 4);
    for _ in 0..fits {
        rig.handler.handle_tx_complete(rig.peer, &complete);
    }
    assert!(rig.fetch().is_empty());
    for _ in 0..2 * fits {
        rig.handler.handle_tx_complete(rig.peer, &complete);
    }
    match rig.next().await {
        MessageSendEvent::HandleError {
            node_id,
            action: ErrorAction::DisconnectPeerWithWarning { msg },
        } => {
            assert_eq!((node_id, msg.channel_id), (rig.peer, ChannelId([0; 32])));
            assert_eq!(msg.data, "too many messages at once");
        }
        other => panic!("{other:?}"),
    }
    assert!(rig.fetch().is_empty(), "once");
    rig.handler.peer_disconnected(rig.peer);
    let reason = disconnected(&rig).await;
    assert!(reason.contains("[ldk-queue-full]"), "{reason}");
    // What was queued is gone with the connection, and nothing came through.
    assert_eq!(rig.here.rest.take_messages(), Vec::<Vec<u8>>::new());
    // The other peer has a queue of its own.
    let other = rig.handler.session(&other).unwrap();
    assert!(!other.is_closed());
    let _opening = other.open(ask()).await.unwrap();
}

/// A `PeerManager` that fetches nothing, with a node that says much: the node waits.
#[tokio::test]
async fn what_is_not_fetched_is_bounded() {
    let mut rig = Rig::new();
    rig.here.rest.own(OWNED);
    let session = rig.session();
    let fee = encode(&UpdateFee { channel_id: OWNED, feerate_per_kw: 253 });
    let sent = Arc::new(Mutex::new(0_usize));
    let sending = tokio::spawn({
        let (sent, fee) = (sent.clone(), fee.clone());
        async move {
            while session.send(fee.clone()).await.is_ok() {
                *sent.lock().unwrap() += 1;
            }
        }
    });
    // Our queue, the part of the session's that the node may fill, and a frame of each.
    let bound = (256 + 128 + 2 * 64) * 1024 / fee.len();
    // All that can be done without fetching, is.
    let mut before = 0;
    loop {
        for _ in 0..10_000 {
            tokio::task::yield_now().await;
        }
        let now = *sent.lock().unwrap();
        assert!(now <= bound, "{now}");
        if now == before {
            break;
        }
        before = now;
    }
    // Fetching makes room.
    assert!(!rig.fetch().is_empty());
    let more = async {
        while *sent.lock().unwrap() == before {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(20), more).await.unwrap();
    rig.handler.peer_disconnected(rig.peer);
    sending.await.unwrap();
}

/// Closing is the node's way to let go of the peer: LDK has to end the connection.
#[tokio::test]
async fn a_session_that_ends_disconnects_the_peer_behind_its_last_words() {
    let mut rig = Rig::new();
    let mut session = rig.session();
    let last = ErrorMessage { channel_id: OWNED, data: "bye".into() };
    session.send(encode(&last)).await.unwrap();
    session.close().await;
    // What the inner handler has to say goes out beside it.
    let action = ErrorAction::IgnoreError;
    rig.inner.say(MessageSendEvent::HandleError { node_id: rig.peer, action });
    assert!(matches!(
        rig.next().await,
        MessageSendEvent::HandleError { action: ErrorAction::IgnoreError, .. }
    ));
    assert_eq!(rig.error().await.channel_id, OWNED);
    match rig.next().await {
        MessageSendEvent::HandleError {
            node_id,
            action: ErrorAction::DisconnectPeer { msg: None },
        } => assert_eq!(node_id, rig.peer),
        other => panic!("{other:?}"),
    }
    rig.handler.peer_disconnected(rig.peer);
    assert!(rig.fetch().is_empty());
}

#[tokio::test]
async fn the_node_operates_a_channel_by_its_session() {
    let mut rig = Rig::new();
    let session = rig.session();
    // LDK pings by itself: it has no event for one.
    session.send(encode(&Ping { ponglen: 1, byteslen: 1 })).await.unwrap();
    session.send(encode(&UpdateFee { channel_id: OWNED, feerate_per_kw: 300 })).await.unwrap();
    match rig.next().await {
        MessageSendEvent::UpdateHTLCs { node_id, channel_id, updates } => {
            assert_eq!((node_id, channel_id), (rig.peer, OWNED));
            assert_eq!(updates.update_fee.unwrap().feerate_per_kw, 300);
            assert!(updates.commitment_signed.is_empty() && updates.update_add_htlcs.is_empty());
        }
        other => panic!("{other:?}"),
    }
    session.send(encode(&TxComplete { channel_id: OWNED })).await.unwrap();
    assert!(matches!(
        rig.next().await,
        MessageSendEvent::SendTxComplete { msg, .. } if msg.channel_id == OWNED
    ));
}
