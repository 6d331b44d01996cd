//! What the node says before anything else but `init`.

// Clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use common::here::Here;
use common::node_id;
use common::parts::CUSTOM_TYPES;
use common::raw_peer::{RawPeer, made_up_outpoint};
use lightning::ln::msgs::{ErrorMessage, Init, WarningMessage};
use lightning::ln::types::ChannelId;
use opening_peer::message::{Message, decode, encode};
use opening_peer::session::{StartError, default_features};
use opening_peer::transport::{Transport, framed};
use opening_peer::{Event, Greeting, Openings, Session};
use tokio::task::JoinHandle;

const ID: ChannelId = ChannelId([0x1d; 32]);
const ALL: ChannelId = ChannelId([0; 32]);

type Starting = JoinHandle<Result<Session, StartError>>;

/// A session that begins with `message`, and the far end of its connection, which holds `capacity`
/// bytes.
fn begin(openings: &Arc<Openings>, message: Vec<u8>, capacity: usize) -> (Starting, Transport) {
    let (near, far) = tokio::io::duplex(capacity);
    let greeting = Greeting { first_message: Some(message), ..Greeting::default() };
    let session = Session::start(openings.clone(), node_id(2), framed(near), greeting);
    (tokio::spawn(session), framed(far))
}

async fn next(far: &mut Transport) -> Vec<u8> {
    far.reader.read().await.unwrap().unwrap()
}

/// Exchanges `init` as the far end.
async fn exchange_init(far: &mut Transport) {
    assert!(matches!(decode(&next(far).await), Ok(Message::Init(_))));
    say_init(far).await;
}

async fn say_init(far: &mut Transport) {
    let features = default_features();
    let init = Init { features, networks: None, remote_network_address: None };
    far.writer.queue(&encode(&init)).unwrap();
    far.writer.flush().await.unwrap();
}

/// A channel that the peer has opened on an earlier connection.
async fn with_a_channel(here: &Here) -> ChannelId {
    let (mut peer, session) = RawPeer::connect(&here.openings, 2).await;
    let id = peer.open(&peer.open_channel(ID), made_up_outpoint(1, 0)).await.channel_id;
    drop(session);
    peer.expect_closed().await;
    id
}

async fn disconnected(here: &Here) -> String {
    here.seen.take(|event| matches!(event, Event::Disconnected { .. })).await.to_string()
}

// req: B1-INIT-S-01, B2-RE-B-06
#[tokio::test]
async fn the_first_message_goes_out_behind_init_and_before_channel_reestablish() {
    let here = Here::new();
    let id = with_a_channel(&here).await;
    let warning = WarningMessage { channel_id: ALL, data: "busy".into() };
    let custom = [&CUSTOM_TYPES[0].to_be_bytes()[..], &[7; 1000]].concat();
    for message in [encode(&warning), custom, vec![]] {
        let (session, mut far) = begin(&here.openings, message.clone(), 1 << 16);
        assert!(matches!(decode(&next(&mut far).await), Ok(Message::Init(_))));
        // Not before the peer's.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(futures::poll!(Box::pin(far.reader.read())).is_pending());
        say_init(&mut far).await;
        let session = session.await.unwrap().unwrap();
        assert_eq!(next(&mut far).await, message);
        match decode(&next(&mut far).await) {
            Ok(Message::ChannelReestablish(message)) => assert_eq!(message.channel_id, id),
            other => panic!("{other:?}"),
        }
        assert!(!session.is_closed());
    }
}

// req: B1-ERR-S-06
#[tokio::test]
async fn an_error_for_all_channels_is_the_last_word_and_ends_what_it_names() {
    let here = Here::new();
    let id = with_a_channel(&here).await;
    disconnected(&here).await;
    let error = ErrorMessage { channel_id: ALL, data: "not with you ".repeat(100) };
    // Far less than the message: it is waited for.
    let (session, mut far) = begin(&here.openings, encode(&error), 16);
    exchange_init(&mut far).await;
    let mut session = session.await.unwrap().unwrap();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!session.is_closed());
    assert_eq!(next(&mut far).await, encode(&error));
    assert!(far.reader.read().await.unwrap().is_none());
    session.closed().await;
    assert_eq!(disconnected(&here).await, "disconnected: this node refuses the peer");
    let ended = here.seen.take(|event| matches!(event, Event::Ended(_))).await;
    assert!(ended.to_string().starts_with(&format!("fundee {id} ended: this node failed it: not")));
}

// req: B1-ERR-S-06
#[tokio::test]
async fn an_error_for_one_channel_fails_that_one_and_the_connection_goes_on() {
    let here = Here::new();
    let id = with_a_channel(&here).await;
    let error = ErrorMessage { channel_id: id, data: "not this one".into() };
    let (session, mut far) = begin(&here.openings, encode(&error), 1 << 16);
    exchange_init(&mut far).await;
    assert_eq!(next(&mut far).await, encode(&error));
    // What the peer hears of a failed channel on every connection.
    assert_eq!(next(&mut far).await, encode(&error));
    here.seen.take(|event| matches!(event, Event::Ended(_))).await;
    let session = session.await.unwrap().unwrap();
    let _opening = session.open(common::ask()).await.unwrap();
    assert!(matches!(decode(&next(&mut far).await), Ok(Message::OpenChannel(_))));
}

// req: B1-MSG-B-05
#[tokio::test]
async fn a_first_message_too_long_for_any_transport_fails_before_anything_is_said() {
    let here = Here::new();
    let id = with_a_channel(&here).await;
    here.seen.take(|event| matches!(event, Event::Connected)).await;
    let mut message = encode(&ErrorMessage { channel_id: ALL, data: String::new() });
    message.resize(65536, 0);
    let (session, mut far) = begin(&here.openings, message.clone(), 1 << 16);
    let error = session.await.unwrap().unwrap_err();
    assert_eq!(error.code(), "transport-message-too-long");
    assert_eq!(error.to_string(), "message of 65536 bytes, more than 65535");
    assert!(far.reader.read().await.unwrap().is_none());
    assert_eq!(here.seen.count(|event| matches!(event, Event::Connected | Event::Ended(_))), 0);

    // The same of any other message, which then ends nothing of what it names.
    let (mut peer, session) = RawPeer::connect(&here.openings, 2).await;
    peer.receive().await;
    let error = session.send(message.clone()).await.unwrap_err();
    assert_eq!(error.to_string(), "message of 65536 bytes, more than 65535");
    assert_eq!(here.seen.count(|event| matches!(event, Event::Ended(_))), 0);
    assert_eq!(here.saved().await, [id]);

    message.truncate(65535);
    message[0] = 0x80;
    message[1] = 1;
    let (session, mut far) = begin(&here.openings, message.clone(), 1 << 16);
    exchange_init(&mut far).await;
    assert_eq!(next(&mut far).await, message);
    assert!(session.await.unwrap().is_ok());
}
