//! Many openings over one connection: each message reaches the one that it is about, and what is
//! about none of them reaches the rest of the node, or is answered.

// Clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use common::here::Here;
use common::parts::CUSTOM_TYPES;
use common::raw_peer::{RawPeer, channel_id, made_up_outpoint, outpoint};
use common::{ask, signed};
use lightning::ln::msgs::{
    ChannelReady, ChannelReestablish, ErrorMessage, FundingCreated, FundingSigned, Ping, Pong,
    Shutdown,
};
use lightning::ln::types::ChannelId;
use opening_core::Role;
use opening_peer::message::{Message, encode};
use opening_peer::node::Entropy;
use opening_peer::{Ask, Event, Session};

const ID: ChannelId = ChannelId([0x1d; 32]);
const ALL: ChannelId = ChannelId([0; 32]);

/// Entropy that gives what a test wants: 32 times the same byte, from a list that begins anew.
struct Bytes(Vec<u8>, AtomicU8);

impl Entropy for Bytes {
    fn bytes(&self) -> [u8; 32] {
        let Self(bytes, next) = self;
        let next = next.fetch_add(1, Ordering::Relaxed);
        [bytes[usize::from(next) % bytes.len()]; 32]
    }
}

fn here_with_entropy(bytes: &[u8]) -> Here {
    let entropy = Bytes(bytes.into(), AtomicU8::new(0));
    Here::with(|node| node.entropy = Arc::new(entropy))
}

// req: B2-CID-B-03, B2-EST-B-06
#[tokio::test]
async fn a_peer_may_use_our_own_id_for_its_opening() {
    let here = Here::new();
    let (mut peer, session) = RawPeer::connect(&here.openings, 2).await;
    let opening = session.open(ask()).await.unwrap();
    let ours = peer.expect_open_channel().await;
    let id = ours.common_fields.temporary_channel_id;
    let theirs = peer.open_channel(id);
    peer.send(&theirs).await;
    let accepted = peer.expect_accept_channel(id).await;

    let accept = peer.accept_channel(&ours);
    peer.send(&accept).await;
    let pending = opening.accepted().await.unwrap();
    peer.send(&peer.funding_created(&theirs, &accepted, made_up_outpoint(1, 0))).await;
    let their_channel = peer.expect_funding_signed().await.channel_id;
    let funding = signed(&pending.needed().output);
    let mut signing = pending.complete(funding).await.unwrap();
    let created = peer.expect_funding_created().await;
    peer.send(&peer.funding_signed(&ours, &accept, &created)).await;
    let (opened, _permit) = signing.opened().await.unwrap();

    let mut saved = here.saved().await;
    let mut expected = vec![their_channel, opened.channel_id];
    saved.sort_by_key(|id| id.0);
    expected.sort_by_key(|id| id.0);
    assert_eq!(saved, expected);
    here.forgot_theirs(&mut peer, id).await;
}

// req: B2-CID-B-03, B1-ERR-R-02
#[tokio::test]
async fn two_peers_may_use_the_same_id() {
    let here = Here::new();
    let (mut one, _one) = RawPeer::connect(&here.openings, 2).await;
    let (mut other, _other) = RawPeer::connect(&here.openings, 3).await;
    let (open_one, open_other) = (one.open_channel(ID), other.open_channel(ID));
    one.send(&open_one).await;
    other.send(&open_other).await;
    let accept_one = one.expect_accept_channel(ID).await;
    let accept_other = other.expect_accept_channel(ID).await;
    assert_eq!(here.openings.pending(), 2);
    let keys = |accept: &lightning::ln::msgs::AcceptChannel| accept.common_fields.funding_pubkey;
    assert_ne!(keys(&accept_one), keys(&accept_other));

    // What one peer says about its opening is nothing to the other's.
    other.send_error(ID, "no").await;
    other.expect_silence().await;
    assert_eq!(here.failed().await.failure.code(), "peer-error");
    assert_eq!(here.openings.pending(), 1);
    one.send(&one.funding_created(&open_one, &accept_one, made_up_outpoint(1, 0))).await;
    one.expect_funding_signed().await;
    here.forgot_theirs(&mut one, ID).await;
    here.forgot_theirs(&mut other, ID).await;
}

// req: B2-EST-B-06, B2-EST-B-02, B1-CONN-01
#[tokio::test]
async fn three_interleaved_openings_in_both_directions_finish() {
    let here = Here::new();
    let (mut peer, session) = RawPeer::connect(&here.openings, 2).await;
    let ids = [ID, ChannelId([0x2d; 32])];
    let opens = ids.map(|id| peer.open_channel(id));
    let opening = session.open(ask()).await.unwrap();
    peer.send(&opens[0]).await;
    let ours = peer.expect_open_channel().await;
    let first = peer.expect_accept_channel(ids[0]).await;
    peer.send(&opens[1]).await;
    let accept = peer.accept_channel(&ours);
    let second = peer.expect_accept_channel(ids[1]).await;
    // The second is funded first.
    peer.send(&peer.funding_created(&opens[1], &second, made_up_outpoint(2, 1))).await;
    peer.send(&accept).await;
    let second = peer.expect_funding_signed().await.channel_id;
    let pending = opening.accepted().await.unwrap();
    let funding = signed(&pending.needed().output);
    let mut signing = pending.complete(funding).await.unwrap();
    let created = peer.expect_funding_created().await;
    peer.send(&peer.funding_created(&opens[0], &first, made_up_outpoint(1, 0))).await;
    let first = peer.expect_funding_signed().await.channel_id;
    peer.send(&peer.funding_signed(&ours, &accept, &created)).await;
    let (opened, _permit) = signing.opened().await.unwrap();

    assert_eq!(second, channel_id(made_up_outpoint(2, 1)));
    assert_eq!(first, channel_id(made_up_outpoint(1, 0)));
    assert_eq!(opened.channel_id, channel_id(outpoint(&created)));
    let mut saved = here.saved().await;
    saved.sort_by_key(|id| id.0);
    saved.dedup();
    assert_eq!(saved.len(), 3);
    for id in ids {
        here.forgot_theirs(&mut peer, id).await;
    }
    here.can_open(&session, &mut peer).await;
}

/// Two openings of the peer's and two of ours, all of them waiting for the peer.
async fn four_pending(
    here: &Here,
    peer: &mut RawPeer,
    session: &Session,
) -> ([ChannelId; 2], [opening_peer::session::Opening; 2]) {
    let theirs = [ID, ChannelId([0x2d; 32])];
    for id in theirs {
        peer.send(&peer.open_channel(id)).await;
        peer.expect_accept_channel(id).await;
    }
    let one = session.open(ask()).await.unwrap();
    let other = session.open(Ask { announce_channel: true, ..ask() }).await.unwrap();
    peer.expect_open_channel().await;
    peer.expect_open_channel().await;
    assert_eq!(here.openings.pending(), 2);
    (theirs, [one, other])
}

// req: B1-ERR-S-01, B1-ERR-R-02
#[tokio::test]
async fn an_error_for_one_ends_only_that_one() {
    let here = Here::new();
    let (mut peer, session) = RawPeer::connect(&here.openings, 2).await;
    let (theirs, [one, other]) = four_pending(&here, &mut peer, &session).await;
    peer.send_error(one.temporary_channel_id(), "not this one").await;
    peer.expect_silence().await;
    let failed = one.accepted().await.unwrap_err();
    assert_eq!(failed.to_string(), here.failed().await.to_string());
    assert_eq!((failed.failure.code(), failed.role), ("peer-error", Role::Funder));
    assert!(failed.to_string().contains("not this one"));

    peer.send_error(theirs[0], "nor this").await;
    peer.expect_silence().await;
    let failed = here.failed().await;
    assert_eq!((failed.temporary_channel_id, failed.role), (theirs[0], Role::Fundee));
    assert_eq!(here.openings.pending(), 1);

    // The other two are as they were.
    let open = peer.open_channel(theirs[1]);
    drop(other);
    peer.receive().await;
    here.failed().await;
    peer.send_error(theirs[1], "enough").await;
    here.failed().await;
    peer.open(&open, made_up_outpoint(1, 0)).await;
    here.forgot_theirs(&mut peer, theirs[0]).await;
}

// req: B1-ERR-S-01, B1-ERR-R-01
#[tokio::test]
async fn an_error_for_all_ends_both_directions_and_is_handed_on() {
    let here = Here::new();
    let (mut peer, session) = RawPeer::connect(&here.openings, 2).await;
    // One that is a channel already: it is the node's to fail.
    let saved = peer.open(&peer.open_channel(ID), made_up_outpoint(1, 0)).await.channel_id;
    let (theirs, ours) = four_pending(&here, &mut peer, &session).await;
    let error = ErrorMessage { channel_id: ALL, data: "all of it".into() };
    peer.send(&error).await;
    peer.expect_silence().await;
    for opening in ours {
        assert_eq!(opening.accepted().await.unwrap_err().failure.code(), "peer-error");
    }
    for _ in 0..4 {
        assert_eq!(here.failed().await.failure.code(), "peer-error");
    }
    assert_eq!(here.openings.pending(), 0);
    assert_eq!(here.rest.take_messages(), [encode(&error)]);
    assert_eq!(here.seen.error_received().await, (ALL, "all of it".into()));
    assert_eq!(here.saved().await, [saved]);
    for id in theirs {
        here.forgot_theirs(&mut peer, id).await;
    }
}

// req: B1-ERR-S-06, B1-ERR-S-07
#[tokio::test]
async fn an_error_that_the_node_sends_ends_what_it_names() {
    let here = Here::new();
    let (mut peer, session) = RawPeer::connect(&here.openings, 2).await;
    let (theirs, [one, other]) = four_pending(&here, &mut peer, &session).await;
    let error = |channel_id| encode(&ErrorMessage { channel_id, data: "from the node".into() });
    session.send(error(theirs[0])).await.unwrap();
    assert_eq!(peer.expect_error(theirs[0]).await, "from the node");
    let failed = here.failed().await;
    assert_eq!((failed.failure.code(), failed.temporary_channel_id), ("node-error", theirs[0]));
    assert_eq!(here.openings.pending(), 1);

    session.send(error(ALL)).await.unwrap();
    // It says it for all of them.
    assert_eq!(peer.expect_error(ALL).await, "from the node");
    for opening in [one, other] {
        assert_eq!(opening.accepted().await.unwrap_err().failure.code(), "node-error");
    }
    for _ in 0..3 {
        assert_eq!(here.failed().await.failure.code(), "node-error");
    }
    here.forgot_theirs(&mut peer, theirs[1]).await;
}

/// A message of each type from 32 to 255 that anything is defined for, about a channel.
fn messages_about(peer: &RawPeer, id: ChannelId) -> Vec<Vec<u8>> {
    let open = peer.open_channel(id);
    let accept = peer.accept_channel(&open);
    let created = peer.funding_created(&open, &accept, made_up_outpoint(8, 0));
    let signed = peer.funding_signed(&open, &accept, &created);
    let mut messages = vec![
        encode(&accept),
        encode(&FundingCreated { temporary_channel_id: id, ..created }),
        encode(&FundingSigned { channel_id: id, ..signed }),
        encode(&ChannelReady {
            channel_id: id,
            next_per_commitment_point: peer.point(7),
            short_channel_id_alias: None,
        }),
        encode(&Shutdown { channel_id: id, scriptpubkey: p2wpkh() }),
        encode(&ChannelReestablish {
            channel_id: id,
            next_local_commitment_number: 1,
            next_remote_commitment_number: 0,
            your_last_per_commitment_secret: [0; 32],
            my_current_per_commitment_point: peer.point(8),
            next_funding: None,
            my_current_funding_locked: None,
        }),
    ];
    // closing_*, interactive transactions, splicing, update_*: their id comes first.
    let types = (39..=41u16).chain(65..=74).chain([77, 80, 81, 127, 128]).chain(130..=134);
    messages.extend(types.map(|type_number| {
        let rest = [0; 100];
        [&type_number.to_be_bytes()[..], &id.0, &rest].concat()
    }));
    // open_channel2 names the chain before.
    messages.push([&[0, 64][..], &[6; 32], &id.0, &[0; 300]].concat());
    messages
}

// req: B1-ERR-S-05
#[tokio::test]
async fn messages_about_unknown_channels_are_answered_under_their_id() {
    let here = Here::new();
    let (mut peer, session) = RawPeer::connect(&here.openings, 2).await;
    let opening = session.open(ask()).await.unwrap();
    let open = peer.expect_open_channel().await;
    for message in messages_about(&peer, ID) {
        peer.send_bytes(&message).await;
        assert_eq!(peer.expect_error(ID).await, "no such channel", "{message:?}");
    }
    peer.expect_silence().await;
    assert_eq!(here.openings.pending(), 0);
    assert_eq!(here.rest.take_messages(), [[0; 0]; 0]);
    // No state was made, none was lost.
    here.forgot_theirs(&mut peer, ID).await;
    let accept = peer.accept_channel(&open);
    peer.send(&accept).await;
    let _pending = opening.accepted().await.unwrap();
}

// req: B1-ERR-S-06, B1-ERR-S-08
#[tokio::test]
async fn no_channel_of_id_zero_is_refused_by_an_error_for_all() {
    let here = Here::new();
    let (mut peer, session) = RawPeer::connect(&here.openings, 2).await;
    let opening = session.open(ask()).await.unwrap();
    let open = peer.expect_open_channel().await;
    for message in messages_about(&peer, ALL) {
        peer.send_bytes(&message).await;
        assert_eq!(peer.expect_warning(ALL).await, "no such channel");
    }
    peer.send(&peer.open_channel(ALL)).await;
    let text = "temporary_channel_id names other channels";
    assert_eq!(peer.expect_warning(ALL).await, text);
    assert_eq!(here.failed().await.failure.code(), "temporary-channel-id-taken");
    assert_eq!(here.openings.pending(), 0);
    peer.send(&peer.accept_channel(&open)).await;
    let _pending = opening.accepted().await.unwrap();
}

// req: B1-ERR-S-06
#[tokio::test]
async fn channels_of_the_node_get_their_messages_untouched_and_no_error() {
    let here = Here::new();
    let (mut peer, session) = RawPeer::connect(&here.openings, 2).await;
    here.rest.own(ID);
    let mut messages = messages_about(&peer, ID);
    messages.extend([
        encode(&ErrorMessage { channel_id: ID, data: "no".into() }),
        encode(&lightning::ln::msgs::WarningMessage { channel_id: ID, data: "hm".into() }),
        // stfu and announcement_signatures.
        [&[0, 2][..], &ID.0, &[0]].concat(),
        [&[1, 3][..], &ID.0, &[0; 136]].concat(),
        // What cannot be read here may be of a feature that only the node knows.
        [&[0, 136][..], &ID.0, &[1, 2, 3]].concat(),
        [&[0, 38][..], &ID.0, &[0, 0, 2, 0]].concat(),
        [&[0, 35][..], &ID.0, &[0xff; 64]].concat(),
    ]);
    for message in messages {
        peer.send_bytes(&message).await;
        peer.expect_silence().await;
        assert_eq!(here.rest.take_messages(), [message]);
    }
    // An opening cannot have the name of a channel, which an `error` for it would fail.
    peer.send(&peer.open_channel(ID)).await;
    let text = "temporary_channel_id names other channels";
    assert_eq!(peer.expect_warning(ID).await, text);
    assert_eq!(here.failed().await.failure.code(), "temporary-channel-id-taken");
    assert_eq!(here.openings.pending(), 0);
    here.can_open(&session, &mut peer).await;
}

// req: B1-ERR-S-06
#[tokio::test]
async fn an_opened_channel_is_never_refused_by_error() {
    let here = Here::new();
    let (mut peer, session) = RawPeer::connect(&here.openings, 2).await;
    let id = peer.open(&peer.open_channel(ID), made_up_outpoint(1, 0)).await.channel_id;
    peer.send(&peer.open_channel(id)).await;
    peer.expect_warning(id).await;
    assert_eq!(here.failed().await.failure.code(), "temporary-channel-id-taken");
    // channel_ready and channel_reestablish are the session's; everything else is the node's.
    let is_ours = |message: &Vec<u8>| matches!(message[..2], [0, 36 | 136]);
    let messages = messages_about(&peer, id);
    for message in messages.into_iter().filter(|message| !is_ours(message)) {
        peer.send_bytes(&message).await;
        peer.expect_silence().await;
        assert_eq!(here.rest.take_messages(), [message]);
    }
    assert_eq!(here.saved().await, [id]);
    here.can_open(&session, &mut peer).await;
}

// req: B1-MSG-R-01, B1-MSG-S-01
#[tokio::test]
async fn gossip_and_custom_types_are_handed_on_untouched() {
    let here = Here::new();
    let (mut peer, _session) = RawPeer::connect(&here.openings, 2).await;
    let types = [256, 257, 258, 261, 262, 263, 264, 265].into_iter().chain(CUSTOM_TYPES);
    for type_number in types {
        let message = [&u16::to_be_bytes(type_number)[..], &[0xab; 50]].concat();
        peer.send_bytes(&message).await;
        peer.expect_silence().await;
        assert_eq!(here.rest.take_messages(), [message]);
    }
    // Another custom type is not the node's, and odd: nothing happens.
    peer.send_bytes(&[0x90, 1, 2, 3]).await;
    peer.expect_silence().await;
    assert_eq!(here.rest.take_messages(), [[0; 0]; 0]);
    here.forgot_theirs(&mut peer, ID).await;
}

// req: B1-MSG-R-04
#[tokio::test]
async fn a_message_too_short_for_the_channel_it_is_about_closes_the_connection() {
    // closing_signed and update_add_htlc.
    for type_number in [39, 128] {
        let here = Here::new();
        let (mut peer, _session) = RawPeer::connect(&here.openings, 2).await;
        peer.send_bytes(&[&[0, type_number][..], &[7; 31]].concat()).await;
        peer.expect_closed().await;
    }
}

// req: B1-PING-R-01, B1-PING-R-02, B1-PING-R-03, B1-PING-S-05, B1-PING-S-06
#[tokio::test]
async fn a_ping_gets_the_pong_that_it_asks_for() {
    let here = Here::new();
    let (mut peer, session) = RawPeer::connect(&here.openings, 2).await;
    for ponglen in [0, 1, 5, 65531] {
        peer.send(&Ping { ponglen, byteslen: 3 }).await;
        assert!(matches!(peer.receive().await, Message::Pong(_)));
        let pong = peer.heard.last().unwrap();
        assert_eq!(pong[2..4], ponglen.to_be_bytes());
        assert_eq!(pong.len(), 4 + usize::from(ponglen));
        assert!(pong[4..].iter().all(|byte| *byte == 0));
    }
    for ponglen in [65532, 65535] {
        peer.send(&Ping { ponglen, byteslen: 0 }).await;
        peer.expect_silence().await;
    }
    // A pong that nobody asked for.
    peer.send(&Pong { byteslen: 9 }).await;
    peer.expect_silence().await;
    here.can_open(&session, &mut peer).await;
}

// req: B2-OPEN-S-02, B2-CID-B-02
#[tokio::test]
async fn entropy_that_repeats_gives_no_id_twice() {
    let here = here_with_entropy(&[5, 5, 5, 6, 0, 0x1d, 7]);
    let (mut peer, session) = RawPeer::connect(&here.openings, 2).await;
    peer.send(&peer.open_channel(ID)).await;
    peer.expect_accept_channel(ID).await;
    let mut openings = Vec::new();
    // Neither one in use, nor zero, nor the peer's.
    for byte in [5, 6, 7] {
        let opening = session.open(ask()).await.unwrap();
        assert_eq!(opening.temporary_channel_id(), ChannelId([byte; 32]));
        let open = peer.expect_open_channel().await;
        assert_eq!(open.common_fields.temporary_channel_id, ChannelId([byte; 32]));
        openings.push(opening);
    }
    drop(openings);
    for _ in 0..3 {
        peer.receive().await;
        here.failed().await;
    }
    peer.send_error(ID, "enough").await;
    here.failed().await;
    here.nothing_pending().await;
}

// req: B2-OPEN-S-02
#[tokio::test]
async fn broken_entropy_refuses_the_opening_and_harms_no_other() {
    let here = here_with_entropy(&[5]);
    let (mut peer, session) = RawPeer::connect(&here.openings, 2).await;
    let opening = session.open(ask()).await.unwrap();
    let open = peer.expect_open_channel().await;
    let failed = session.open(ask()).await.unwrap_err();
    assert_eq!(failed.failure.code(), "entropy-repeats");
    assert_eq!(here.failed().await.to_string(), failed.to_string());
    peer.expect_silence().await;
    peer.send(&peer.accept_channel(&open)).await;
    let _pending = opening.accepted().await.unwrap();
}

// req: B2-CID-B-02
#[tokio::test]
async fn temporary_ids_are_what_the_entropy_gives() {
    let here = Here::new();
    let (mut peer, session) = RawPeer::connect(&here.openings, 2).await;
    let mut ids = std::collections::HashSet::new();
    for _ in 0..20 {
        drop(session.open(ask()).await.unwrap());
        ids.insert(peer.expect_open_channel().await.common_fields.temporary_channel_id);
        peer.receive().await;
    }
    assert_eq!(ids.len(), 20);
}

// req: B1-MSG-R-02
#[tokio::test]
async fn a_connection_that_ends_says_why_to_the_node() {
    let here = Here::new();
    let (mut peer, mut session) = RawPeer::connect(&here.openings, 2).await;
    peer.send(&peer.open_channel(ID)).await;
    peer.expect_accept_channel(ID).await;
    peer.send_bytes(&[0x90, 0, 1, 2]).await;
    peer.expect_closed().await;
    session.closed().await;
    assert_eq!(here.failed().await.failure.code(), "disconnected");
    let ended = here.seen.take(|event| matches!(event, Event::Disconnected { .. })).await;
    let line = "disconnected: the peer sent a message of unknown even type 36864";
    assert_eq!(ended.to_string(), line);
    here.nothing_pending().await;
}

fn p2wpkh() -> bitcoin::ScriptBuf {
    bitcoin::ScriptBuf::from([&[0, 20][..], &[1; 20]].concat())
}
