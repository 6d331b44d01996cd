//! A channel goes on over a new connection: `channel_reestablish` for commitment 0.

// Clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

mod common;
mod faulty;

use std::sync::Arc;

use bitcoin::secp256k1::SecretKey;
use common::lasting::{Funded, Lasting, PEER};
use common::raw_peer::RawPeer;
use common::{ask, node_id};
use lightning::ln::msgs::{ChannelReady, ChannelReestablish};
use opening_core::ShortChannelId;
use opening_core::secrets::generate_from_seed;
use opening_peer::message::encode;
use opening_peer::negotiation::ready::Exit;
use opening_peer::openings::SignError;
use opening_peer::{Event, Node, Session};
use opening_signer::{ChannelSecrets, LocalHsm};

const SEED: [u8; 32] = [0x42; 32];

/// The secret of our commitment `number`, which a peer knows only if we revoked it.
fn our_secret(number: u64) -> [u8; 32] {
    generate_from_seed(&SEED, (1 << 48) - 1 - number)
}

fn known_secrets() -> LocalHsm {
    let secret = |byte| SecretKey::from_slice(&[byte; 32]).unwrap();
    LocalHsm::with_channel_secrets(ChannelSecrets {
        funding: secret(21),
        revocation: secret(22),
        payment: secret(23),
        delayed_payment: secret(24),
        htlc: secret(25),
        shachain_seed: SEED,
    })
}

fn with_known_secrets(node: &mut Node) {
    node.hsm = Arc::new(known_secrets());
}

/// A channel that the peer funds, both sides ready, and the peer back on a new connection, where
/// our `channel_reestablish` is out.
async fn back(node: &Lasting) -> (Funded, RawPeer, Session, ChannelReady) {
    let (mut peer, session) = node.connect().await;
    let channel = node.they_fund(&mut peer, |_| {}).await;
    node.confirm(&channel, 3).await.unwrap();
    let said = peer.expect_channel_ready(channel.id).await;
    peer.disconnect().await;
    drop(session);
    let (mut peer, session) = node.connect().await;
    peer.expect_reestablish(channel.id).await;
    (channel, peer, session, said)
}

// req: B2-RE-B-01, B2-RE-S-01, B2-RE-S-02, B2-RE-S-03, B2-RE-S-04, B2-RE-S-05, B2-RE-S-06
#[tokio::test]
async fn our_channel_reestablish_byte_by_byte() {
    for we_fund in [true, false] {
        let node = Lasting::new().await;
        let (mut peer, session) = node.connect().await;
        let channel = match we_fund {
            true => node.we_fund(&mut peer, &session, ask()).await.0,
            false => node.they_fund(&mut peer, |_| {}).await,
        };
        // On the connection where it was opened there is nothing to reestablish.
        peer.expect_silence().await;
        peer.disconnect().await;
        let (mut peer, _session) = node.connect().await;
        peer.expect_reestablish(channel.id).await;
        let bytes = peer.heard.last().unwrap();
        assert_eq!(bytes.len(), 2 + 113, "no next_funding");
        assert_eq!(bytes[..2], [0, 136]);
        assert_eq!(bytes[2..34], channel.id.0);
        assert_eq!(bytes[34..42], 1u64.to_be_bytes());
        assert_eq!(bytes[42..50], 0u64.to_be_bytes());
        assert_eq!(bytes[50..82], [0; 32]);
        let point = channel.opened.parameters.local.first_per_commitment_point;
        assert_eq!(bytes[82..], point.serialize());
    }
}

// req: B2-RE-R-02, B2-RE-R-10, B2-RE-B-09
#[tokio::test]
async fn after_both_messages_channel_ready_goes_out_again_whatever_the_peers_point() {
    for point in [6, 7, 99] {
        let node = Lasting::new().await;
        let (channel, mut peer, _session, said) = back(&node).await;
        peer.expect_silence().await;
        let message = ChannelReestablish {
            my_current_per_commitment_point: peer.point(point),
            ..peer.channel_reestablish(channel.id)
        };
        peer.send(&message).await;
        assert_eq!(peer.expect_channel_ready(channel.id).await, said);
        peer.send(&peer.channel_ready(channel.id)).await;
        node.ready(&channel).await;
        peer.expect_silence().await;
    }
}

// req: B2-RE-R-02
#[tokio::test]
async fn channel_ready_that_is_not_due_is_not_sent_because_of_a_new_connection() {
    let node = Lasting::new().await;
    let (mut peer, _session) = node.connect().await;
    let channel = node.they_fund(&mut peer, |_| {}).await;
    node.confirm(&channel, 2).await.unwrap();
    peer.disconnect().await;
    let (mut peer, _session) = node.connect().await;
    peer.reestablish(channel.id).await;
    peer.expect_silence().await;
    node.confirm(&channel, 3).await.unwrap();
    peer.expect_channel_ready(channel.id).await;
    peer.expect_silence().await;
}

// req: B2-RE-B-09
#[tokio::test]
async fn nothing_is_said_of_a_channel_before_the_peers_channel_reestablish() {
    let node = Lasting::new().await;
    let (mut peer, session) = node.connect().await;
    let channel = node.they_fund(&mut peer, |_| {}).await;
    peer.disconnect().await;
    drop(session);
    let (mut peer, session) = node.connect().await;
    peer.expect_reestablish(channel.id).await;
    node.confirm(&channel, 6).await.unwrap();
    let script = bitcoin::ScriptBuf::new_p2wsh(&bitcoin::ScriptBuf::new().wscript_hash());
    session.shut_down(channel.id, Some(script.clone())).await.unwrap();
    node.until_kept(&channel, |progress| progress.local_shutdown.is_some()).await;
    // The peer's own may come first, and says something of its side only.
    peer.send(&peer.channel_ready(channel.id)).await;
    peer.expect_silence().await;
    assert_eq!(node.readies(), 0);
    peer.send(&peer.channel_reestablish(channel.id)).await;
    peer.expect_channel_ready(channel.id).await;
    assert_eq!(peer.expect_shutdown(channel.id).await.scriptpubkey, script);
    node.ready(&channel).await;
    peer.expect_silence().await;
}

// req: B2-RE-R-05
#[tokio::test]
async fn a_redundant_channel_ready_changes_nothing() {
    let node = Lasting::new().await;
    let (channel, mut peer, _session, _) = back(&node).await;
    peer.send(&peer.channel_reestablish(channel.id)).await;
    peer.expect_channel_ready(channel.id).await;
    let message = peer.channel_ready(channel.id);
    peer.send(&message).await;
    let ready = node.ready(&channel).await;
    let other = ChannelReady { next_per_commitment_point: peer.point(8), ..message.clone() };
    for message in [&message, &other] {
        peer.send(message).await;
        peer.expect_silence().await;
    }
    assert_eq!((node.readies(), node.ends()), (1, vec![]));
    assert_eq!(ready.remote.second_per_commitment_point, peer.point(7));
    // The node may want to know of a new alias.
    assert_eq!(node.rest.take_messages(), [encode(&message), encode(&other)]);
}

/// A peer's message, how the channel ends, and what the node has to do.
struct Case {
    commitment: u64,
    revocation: u64,
    secret: [u8; 32],
    text: &'static str,
    code: &'static str,
    exit: Exit,
}

fn case(
    (commitment, revocation, secret): (u64, u64, [u8; 32]),
    (text, code): (&'static str, &'static str),
    exit: Exit,
) -> Case {
    Case { commitment, revocation, secret, text, code, exit }
}

fn cases() -> Vec<Case> {
    let zero = [0; 32];
    let nothing = ("next_commitment_number is 0", "reestablish-nothing-remembered");
    let secret = (
        "your_last_per_commitment_secret without a revocation",
        "reestablish-secret-without-revocation",
    );
    let old = "reestablish-our-state-is-old";
    let revoked = "reestablish-nothing-revoked";
    let other = "reestablish-other-commitment";
    let broadcast = Exit::Broadcast;
    vec![
        case((0, 0, zero), nothing, broadcast),
        case((0, 0, our_secret(0)), nothing, broadcast),
        case((2, 0, zero), ("next_commitment_number 2, not 1", other), broadcast),
        case((7, 0, zero), ("next_commitment_number 7, not 1", other), broadcast),
        case(
            (u64::MAX, 0, zero),
            ("next_commitment_number 18446744073709551615, not 1", other),
            broadcast,
        ),
        case((1, 0, our_secret(0)), secret, broadcast),
        case((1, 0, [0xff; 32]), secret, broadcast),
        case(
            (1, 1, zero),
            ("next_revocation_number 1, but nothing was revoked", revoked),
            broadcast,
        ),
        case(
            (1, 1, our_secret(1)),
            ("next_revocation_number 1, but nothing was revoked", revoked),
            broadcast,
        ),
        case(
            (2, 2, our_secret(0)),
            ("next_revocation_number 2, but nothing was revoked", revoked),
            broadcast,
        ),
        case(
            (1, u64::MAX, our_secret(0)),
            ("next_revocation_number 18446744073709551615, but nothing was revoked", revoked),
            broadcast,
        ),
        case(
            (1, 1, our_secret(0)),
            ("this node has lost its state at commitment 0: please fail the channel", old),
            Exit::AwaitPeer,
        ),
        case(
            (0, 1, our_secret(0)),
            ("this node has lost its state at commitment 0: please fail the channel", old),
            Exit::AwaitPeer,
        ),
        case(
            (44, 43, our_secret(42)),
            ("this node has lost its state at commitment 42: please fail the channel", old),
            Exit::AwaitPeer,
        ),
    ]
}

// req: B2-RE-R-01, B2-RE-R-03, B2-RE-R-07, B2-RE-R-08, B2-RE-R-09, B2-RE-R-12, B2-RE-R-13, B2-RE-R-14, B5-FAIL-B-04
#[tokio::test]
async fn what_does_not_go_with_commitment_0_fails_the_channel() {
    for Case { commitment, revocation, secret, text, code, exit } in cases() {
        let node = Lasting::with(with_known_secrets).await;
        let (channel, mut peer, _session, _) = back(&node).await;
        peer.send(&ChannelReestablish {
            next_local_commitment_number: commitment,
            next_remote_commitment_number: revocation,
            your_last_per_commitment_secret: secret,
            ..peer.channel_reestablish(channel.id)
        })
        .await;
        assert_eq!(peer.expect_error(channel.id).await, text);
        assert_eq!(node.ends(), [code], "{text}");
        // Nothing else is said of it, whatever the peer says now.
        peer.send(&peer.channel_reestablish(channel.id)).await;
        peer.send(&peer.channel_ready(channel.id)).await;
        peer.expect_silence().await;
        assert_eq!(node.readies(), 0);
        let Event::Ended(ended) = node.seen.take(|it| matches!(it, Event::Ended(_))).await else {
            unreachable!("taken for what it is");
        };
        assert_eq!(ended.exit, exit, "{text}");
        let signed = node.openings.signed_commitment(&channel.id).await;
        match exit {
            Exit::AwaitPeer => assert!(matches!(signed, Err(SignError::Outdated)), "{text}"),
            _ => assert!(signed.is_ok(), "{text}"),
        }
    }
}

/// An outdated node does not find its commitment safe because it was started again.
// req: B2-RE-R-12, B5-FAIL-B-04
#[tokio::test]
async fn what_is_outdated_stays_so_over_a_restart() {
    let mut node = Lasting::with(with_known_secrets).await;
    let (channel, mut peer, session, _) = back(&node).await;
    peer.send(&ChannelReestablish {
        next_remote_commitment_number: 1,
        your_last_per_commitment_secret: our_secret(0),
        ..peer.channel_reestablish(channel.id)
    })
    .await;
    peer.expect_error(channel.id).await;
    node.until_kept(&channel, |progress| progress.failed.is_some()).await;
    drop((peer, session));
    node.restart().await;
    let signed = node.openings.signed_commitment(&channel.id).await;
    assert!(matches!(signed, Err(SignError::Outdated)));
}

// req: B2-RE-R-11
#[tokio::test]
async fn an_invalid_point_is_no_message_and_harms_no_channel() {
    let node = Lasting::new().await;
    let (channel, mut peer, _session, said) = back(&node).await;
    let mut bytes = encode(&peer.channel_reestablish(channel.id));
    bytes[2 + 80] = 0x05;
    peer.send_bytes(&bytes).await;
    peer.expect_warning(channel.id).await;
    assert_eq!(node.ends(), [""; 0]);
    peer.send(&peer.channel_reestablish(channel.id)).await;
    assert_eq!(peer.expect_channel_ready(channel.id).await, said);
}

// req: B2-RE-R-04, B2-CR-S-11
#[tokio::test]
async fn a_new_alias_goes_out_with_the_same_point_also_after_a_reconnect() {
    let node = Lasting::new().await;
    let (channel, peer, session, said) = back(&node).await;
    drop((peer, session));
    let alias = node.openings.new_alias(channel.id).await.unwrap();
    let (mut peer, _session) = node.connect().await;
    peer.reestablish(channel.id).await;
    let again = peer.expect_channel_ready(channel.id).await;
    assert_eq!(again.next_per_commitment_point, said.next_per_commitment_point);
    assert_eq!(again.short_channel_id_alias, Some(alias.to_u64()));
    assert_ne!(again.short_channel_id_alias, said.short_channel_id_alias);
    for alias in [said.short_channel_id_alias, again.short_channel_id_alias] {
        let alias = ShortChannelId::from_u64(alias.unwrap());
        assert_eq!(node.openings.channel_known_as(alias), Some(channel.id));
    }
}

// req: B1-ERR-S-06
#[tokio::test]
async fn a_channel_that_the_node_operates_is_the_nodes_to_reestablish() {
    let node = Lasting::new().await;
    let (mut peer, session) = node.connect().await;
    let (ours, owned) =
        (node.they_fund(&mut peer, |_| {}).await, node.they_fund(&mut peer, |_| {}).await);
    node.both_ready(&mut peer, &owned).await;
    node.rest.own(owned.id);
    node.rest.take_messages();
    peer.disconnect().await;
    drop(session);
    let (mut peer, _session) = node.connect().await;
    peer.expect_reestablish(ours.id).await;
    // Of the node's, nothing is said here, and nothing of what the peer says is judged.
    let message = ChannelReestablish {
        next_local_commitment_number: 17,
        next_remote_commitment_number: 16,
        ..peer.channel_reestablish(owned.id)
    };
    peer.send(&message).await;
    peer.send(&peer.channel_ready(owned.id)).await;
    peer.expect_silence().await;
    let expected = [encode(&message), encode(&peer.channel_ready(owned.id))];
    assert_eq!(node.rest.take_messages(), expected);
    assert_eq!(node.ends(), [""; 0]);
    // Released, it is no business of ours at all.
    node.openings.release(&owned.id).await.unwrap();
    peer.send(&message).await;
    peer.expect_silence().await;
    assert_eq!(node.rest.take_messages(), [encode(&message)]);
}

/// Another peer cannot say anything of a channel that is not its own, nor learn that it exists.
// req: B1-ERR-S-05
#[tokio::test]
async fn a_strangers_channel_reestablish_is_about_no_channel() {
    let node = Lasting::new().await;
    let (mut peer, _session) = node.connect().await;
    let living = node.they_fund(&mut peer, |_| {}).await;
    let failed = node.they_fund(&mut peer, |_| {}).await;
    peer.send_error(failed.id, "").await;
    peer.expect_silence().await;
    let (mut stranger, _other) = RawPeer::connect(&node.openings, PEER + 1).await;
    for id in [living.id, failed.id, lightning::ln::types::ChannelId([0x33; 32])] {
        stranger.send(&stranger.channel_reestablish(id)).await;
        assert_eq!(stranger.expect_error(id).await, "no such channel");
        stranger.send(&stranger.channel_ready(id)).await;
        assert_eq!(stranger.expect_error(id).await, "no such channel");
        stranger.send_error(id, "mine").await;
    }
    stranger.expect_silence().await;
    assert_eq!(node.ends(), ["peer-error"]);
    assert_eq!(living.opened.reference.peer, node_id(PEER));
    node.confirm(&living, 3).await.unwrap();
    peer.expect_channel_ready(living.id).await;
}

// req: B2-RE-B-08
#[tokio::test]
async fn every_channel_of_the_peer_is_reestablished_and_no_other() {
    let node = Lasting::new().await;
    let (mut peer, session) = node.connect().await;
    let (mut other, other_session) = RawPeer::connect(&node.openings, PEER + 1).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(node.they_fund(&mut peer, |_| {}).await.id);
        node.they_fund(&mut other, |_| {}).await;
    }
    drop((peer, session, other, other_session));
    let (mut peer, _session) = node.connect().await;
    for id in &ids {
        peer.expect_reestablish(*id).await;
    }
    peer.expect_silence().await;
    // Each by itself: one that is reestablished does not wait for the others.
    peer.send(&peer.channel_reestablish(ids[2])).await;
    peer.expect_silence().await;
}
