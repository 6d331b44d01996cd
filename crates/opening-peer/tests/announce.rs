//! When a channel may be announced, and what the peer says of that.

// Clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

mod common;

use bitcoin::ScriptBuf;
use common::confirmation;
use common::lasting::{Funded, Lasting};
use common::raw_peer::RawPeer;
use lightning::ln::msgs::{OpenChannel, Shutdown};
use opening_peer::Event;
use opening_peer::negotiation::ready::Confirmation;

const ANNOUNCEMENT_SIGNATURES: u16 = 259;

fn public(open: &mut OpenChannel) {
    open.common_fields.channel_flags = 1;
}

/// By which places the channel may be announced, in the order in which the node was told.
fn announceable(node: &Lasting) -> Vec<String> {
    node.seen.all(|event| match event {
        Event::Announceable(ready) => Some(ready.short_channel_id.unwrap().to_string()),
        _ => None,
    })
}

/// Both sides have it in use, at depth 3.
async fn in_use(node: &Lasting, peer: &mut RawPeer, change: fn(&mut OpenChannel)) -> Funded {
    let channel = node.they_fund(peer, change).await;
    node.both_ready(peer, &channel).await;
    channel
}

// req: B7-ANN-B-01
#[tokio::test]
async fn a_public_channel_in_use_may_be_announced_at_6_blocks_and_that_is_told_once() {
    let node = Lasting::new().await;
    let (mut peer, _session) = node.connect().await;
    let channel = in_use(&node, &mut peer, public).await;
    for depth in [4, 5] {
        node.confirm(&channel, depth).await.unwrap();
        assert_eq!(announceable(&node), [""; 0], "{depth}");
    }
    for depth in [6, 7, 8] {
        node.confirm(&channel, depth).await.unwrap();
        assert_eq!(announceable(&node), ["102x1x0"], "{depth}");
    }
    peer.expect_silence().await;
}

// req: B7-ANN-B-01
#[tokio::test]
async fn a_public_channel_that_is_deep_before_it_is_in_use_may_be_announced_then() {
    let node = Lasting::new().await;
    let (mut peer, _session) = node.connect().await;
    let channel = node.they_fund(&mut peer, public).await;
    node.confirm(&channel, 100).await.unwrap();
    peer.expect_channel_ready(channel.id).await;
    assert_eq!(announceable(&node), [""; 0]);
    peer.send(&peer.channel_ready(channel.id)).await;
    node.ready(&channel).await;
    peer.expect_silence().await;
    assert_eq!(announceable(&node), ["102x1x0"]);
}

/// The signatures are over the place: another one needs new ones.
// req: B7-ANN-B-01
#[tokio::test]
async fn a_channel_that_a_reorganisation_has_moved_may_be_announced_where_it_is_now() {
    let node = Lasting::new().await;
    let (mut peer, _session) = node.connect().await;
    let channel = in_use(&node, &mut peer, public).await;
    node.confirm(&channel, 6).await.unwrap();
    node.openings.unconfirmed(&channel.id).unwrap();
    let elsewhere =
        |depth| Confirmation { block_height: 104, ..confirmation(&channel.transaction, depth) };
    node.openings.confirmed(channel.id, elsewhere(5)).await.unwrap();
    assert_eq!(announceable(&node), ["102x1x0"]);
    for depth in [6, 7] {
        node.openings.confirmed(channel.id, elsewhere(depth)).await.unwrap();
        assert_eq!(announceable(&node), ["102x1x0", "104x1x0"]);
    }
}

// req: B7-ANN-B-02
#[tokio::test]
async fn a_private_channel_is_never_announced() {
    let node = Lasting::new().await;
    let (mut peer, _session) = node.connect().await;
    let channel = in_use(&node, &mut peer, |_| {}).await;
    for depth in [6, 144, 50_000] {
        node.confirm(&channel, depth).await.unwrap();
    }
    assert_eq!(announceable(&node), [""; 0]);
}

// req: B7-ANN-B-02
#[tokio::test]
async fn a_channel_that_either_side_shuts_down_is_not_announced() {
    let script = ScriptBuf::new_p2wsh(&ScriptBuf::new().wscript_hash());
    for we_do in [true, false] {
        let node = Lasting::new().await;
        let (mut peer, session) = node.connect().await;
        let channel = in_use(&node, &mut peer, public).await;
        if we_do {
            session.shut_down(channel.id, Some(script.clone())).await.unwrap();
            peer.expect_shutdown(channel.id).await;
        } else {
            let scriptpubkey = script.clone();
            peer.send(&Shutdown { channel_id: channel.id, scriptpubkey }).await;
            peer.expect_silence().await;
        }
        node.confirm(&channel, 6).await.unwrap();
        assert_eq!(announceable(&node), [""; 0], "{we_do}");
    }
}

/// The node gets it as it came, in every state of an opened channel; nothing else follows.
// req: B7-ANN-B-03
#[tokio::test]
async fn announcement_signatures_that_come_early_are_the_nodes_to_keep() {
    let node = Lasting::new().await;
    let (mut peer, _session) = node.connect().await;
    let channel = node.they_fund(&mut peer, public).await;
    let mut message = ANNOUNCEMENT_SIGNATURES.to_be_bytes().to_vec();
    message.extend_from_slice(&channel.id.0);
    message.extend_from_slice(&[7; 8 + 64 + 64]);
    peer.send_bytes(&message).await;
    peer.expect_silence().await;
    node.confirm(&channel, 6).await.unwrap();
    peer.expect_channel_ready(channel.id).await;
    peer.send_bytes(&message).await;
    peer.send(&peer.channel_ready(channel.id)).await;
    node.ready(&channel).await;
    peer.send_bytes(&message).await;
    peer.expect_silence().await;
    assert_eq!(node.rest.take_messages(), vec![message; 3]);
    assert_eq!((node.ends(), announceable(&node).len()), (vec![], 1));
}
