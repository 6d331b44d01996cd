//! One connection carries our messages and the node's: neither keeps the other waiting, nor the
//! peer.

// Clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::here::Here;
use common::parts::CUSTOM_TYPES;
use common::raw_peer::RawPeer;
use common::{ask, signed};
use lightning::ln::msgs::{ErrorMessage, OpenChannel, Ping};
use lightning::ln::types::ChannelId;
use opening_peer::Session;
use opening_peer::message::{Message, decode, encode};
use tokio::task::JoinSet;
use tokio::time::timeout;

const ID: ChannelId = ChannelId([0x1d; 32]);

/// Bytes of the node's messages here, their framing included.
const LENGTH: usize = 1000;

/// Bytes that may be before a message when it is queued: what the session queues of the node's,
/// what the connection holds, and one message that was under way.
const BEFORE: usize = 128 * 1024 + 64 * 1024 + 65_535 + 4;

/// A message of the node's: who sent it and its number.
fn custom(sender: u32, number: u32) -> Vec<u8> {
    let type_number = CUSTOM_TYPES[0].to_be_bytes();
    let rest = vec![0xcc; LENGTH - 4 - 10];
    [&type_number[..], &sender.to_be_bytes(), &number.to_be_bytes(), &rest].concat()
}

/// Sender and number, where it is a message of the node's.
fn of_node(bytes: &[u8]) -> Option<(u32, u32)> {
    let is_custom = bytes.starts_with(&CUSTOM_TYPES[0].to_be_bytes());
    let number = |at| u32::from_be_bytes(*bytes[at..].first_chunk().unwrap());
    is_custom.then(|| (number(2), number(6)))
}

async fn connected() -> (Here, RawPeer, Session) {
    let here = Here::new();
    let (peer, session) = RawPeer::connect(&here.openings, 2).await;
    (here, peer, session)
}

/// Tasks that never stop sending.
fn flood(session: &Session, senders: u32) -> JoinSet<()> {
    let mut flood = JoinSet::new();
    for sender in 0..senders {
        let session = session.clone();
        flood.spawn(async move {
            for number in 0.. {
                session.send(custom(sender, number)).await.unwrap();
            }
        });
    }
    flood
}

/// Reads until something comes that is not the node's; that, and how many of the node's came.
async fn past_the_flood(peer: &mut RawPeer) -> (Message, usize) {
    let mut passed = 0;
    loop {
        let bytes = timeout(Duration::from_secs(20), peer.receive_bytes()).await.unwrap();
        peer.heard.clear();
        match of_node(&bytes) {
            Some(_) => passed += 1,
            None => return (decode(&bytes).unwrap(), passed),
        }
    }
}

/// The whole opening, as its fundee; each of our messages within its bound.
#[tokio::test]
async fn an_opening_gets_through_an_endless_flood_of_the_nodes_messages() {
    let (here, mut peer, session) = connected().await;
    let _flood = flood(&session, 5);
    // The peer takes its time: the flood fills what there is to fill.
    for _ in 0..5000 {
        tokio::task::yield_now().await;
    }
    let opening = tokio::spawn(async move {
        let pending = session.open(ask()).await.unwrap().accepted().await.unwrap();
        let funding = signed(&pending.needed().output);
        pending.complete(funding).await.unwrap().opened().await.unwrap()
    });
    let bound = BEFORE / LENGTH + 20;
    let (open, passed) = past_the_flood(&mut peer).await;
    let Message::OpenChannel(open) = open else { panic!("{open:?}") };
    assert!(passed <= bound, "{passed} before open_channel");
    let accept = peer.accept_channel(&open);
    peer.send(&accept).await;
    let (created, passed) = past_the_flood(&mut peer).await;
    let Message::FundingCreated(created) = created else { panic!("{created:?}") };
    assert!(passed <= bound, "{passed} before funding_created");
    peer.send(&peer.funding_signed(&open, &accept, &created)).await;
    // The rest needs the session to read.
    peer.send(&Ping { ponglen: 1, byteslen: 0 }).await;
    let (pong, passed) = past_the_flood(&mut peer).await;
    assert!(matches!(pong, Message::Pong(_)));
    assert!(passed <= bound, "{passed} before pong");
    let (opened, _permit) = opening.await.unwrap();
    assert_eq!(here.saved().await, [opened.channel_id]);
}

/// The same on several threads, where the senders are never done before the session looks again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_session_reads_whatever_the_node_sends() {
    let (_here, mut peer, session) = connected().await;
    let _flood = flood(&session, 16);
    for _ in 0..20 {
        peer.send(&Ping { ponglen: 1, byteslen: 0 }).await;
        assert!(matches!(past_the_flood(&mut peer).await.0, Message::Pong(_)));
    }
}

#[tokio::test]
async fn the_nodes_messages_get_through_an_endless_flood_of_openings() {
    let (_here, mut peer, session) = connected().await;
    let mut flood = JoinSet::new();
    for _ in 0..5 {
        let session = session.clone();
        flood.spawn(async move {
            loop {
                // open_channel, and error when it is dropped.
                drop(session.open(ask()).await.unwrap());
            }
        });
    }
    let next = async |peer: &mut RawPeer| {
        let mut passed = 0;
        loop {
            let bytes = timeout(Duration::from_secs(20), peer.receive_bytes()).await.unwrap();
            match of_node(&bytes) {
                Some((0, number)) => return (number, passed),
                _ => passed += bytes.len(),
            }
        }
    };
    let sending = tokio::spawn(async move {
        for number in 0..20 {
            session.send(custom(0, number)).await.unwrap();
        }
    });
    for expected in 0..20 {
        let (number, passed) = next(&mut peer).await;
        assert_eq!(number, expected);
        assert!(passed <= BEFORE, "{passed} bytes of ours before the node's");
    }
    sending.await.unwrap();
}

#[tokio::test]
async fn the_nodes_messages_get_through_whatever_the_peer_asks() {
    let (_here, mut peer, session) = connected().await;
    let sending = tokio::spawn(async move {
        for number in 0..20 {
            session.send(custom(0, number)).await.unwrap();
        }
        session
    });
    let (mut expected, mut passed) = (0, 0);
    while expected < 20 {
        // An answer of as many bytes as one can have.
        peer.send(&Ping { ponglen: 60_000, byteslen: 0 }).await;
        peer.send(&OpenChannel { push_msat: u64::MAX, ..peer.open_channel(ID) }).await;
        let bytes = peer.receive_bytes().await;
        match of_node(&bytes) {
            Some((_, number)) => {
                assert_eq!(number, expected);
                (expected, passed) = (expected + 1, 0);
            }
            None => passed += bytes.len(),
        }
        assert!(passed <= 2 * BEFORE, "{passed} bytes of ours before the node's");
    }
    drop(sending.await.unwrap());
}

#[tokio::test]
async fn callers_send_in_turn() {
    let (_here, mut peer, session) = connected().await;
    let _flood = flood(&session, 2);
    let mut counts = [0_i32; 2];
    for _ in 0..2000 {
        let (sender, _) = of_node(&peer.receive_bytes().await).unwrap();
        counts[sender as usize] += 1;
        assert!((counts[0] - counts[1]).abs() <= 1, "{counts:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_of_any_caller_is_lost_or_overtaken() {
    let (_here, mut peer, session) = connected().await;
    let mut sending = JoinSet::new();
    for sender in 0..8 {
        let session = session.clone();
        sending.spawn(async move {
            for number in 0..300 {
                session.send(custom(sender, number)).await.unwrap();
            }
        });
    }
    let mut next = [0; 8];
    while next != [300; 8] {
        let (sender, number) = of_node(&peer.receive_bytes().await).unwrap();
        assert_eq!(number, next[sender as usize]);
        next[sender as usize] += 1;
    }
    while let Some(sent) = sending.join_next().await {
        sent.unwrap();
    }
    peer.expect_silence().await;
}

/// The peer reads nothing, and the callers give up.
#[tokio::test(start_paused = true)]
async fn what_waits_is_with_the_caller_and_gone_with_him() {
    let (here, mut peer, session) = connected().await;
    let message = [&CUSTOM_TYPES[0].to_be_bytes()[..], &[0xcc; 60_000]].concat();
    let mut sent = 0;
    for _ in 0..1000 {
        let sending = session.send(message.clone());
        sent += usize::from(timeout(Duration::from_millis(1), sending).await.is_ok());
    }
    assert!(sent <= BEFORE / message.len(), "{sent} of 1000 taken");
    // Nor is anything of them sent later.
    let closing = tokio::spawn(async move {
        session.send(encode(&ErrorMessage { channel_id: ID, data: "last".into() })).await.unwrap();
        session
    });
    let mut received = 0;
    loop {
        match peer.receive().await {
            Message::Other { .. } => received += 1,
            Message::Error(error) => break assert_eq!(error.data, "last"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(received, sent);
    let session = closing.await.unwrap();
    here.can_open(&session, &mut peer).await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_waits_hears_of_the_end() {
    let (_here, peer, mut session) = connected().await;
    let mut waiting = flood_until_it_fails(&session, 20);
    // More than there is room for.
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
    let begin = tokio::time::Instant::now();
    let closing = tokio::spawn(async move { session.close().await });
    while let Some(error) = waiting.join_next().await {
        assert_eq!(error.unwrap(), "the connection ended");
    }
    // Before the peer has read anything, or was given up.
    assert_eq!(begin.elapsed(), Duration::ZERO);
    peer.disconnect().await;
    closing.await.unwrap();
}

fn flood_until_it_fails(session: &Session, senders: u32) -> JoinSet<String> {
    let mut flood = JoinSet::new();
    for sender in 0..senders {
        let session = session.clone();
        flood.spawn(async move {
            let mut number = 0;
            loop {
                if let Err(error) = session.send(custom(sender, number)).await {
                    return error.to_string();
                }
                number += 1;
            }
        });
    }
    flood
}
