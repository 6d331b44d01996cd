//! `shutdown` of a channel that is opened and not the node's yet.

// Clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use bitcoin::hashes::Hash;
use bitcoin::{PubkeyHash, ScriptBuf, WPubkeyHash};
use common::ask;
use common::lasting::{Funded, Lasting};
use common::raw_peer::RawPeer;
use lightning::ln::msgs::Shutdown;
use lightning::ln::types::ChannelId;
use opening_peer::message::encode;
use opening_peer::node::RestOfNode;
use opening_peer::openings::ReleaseError;
use opening_peer::session::ShutdownError;
use opening_peer::testing::{EVERY, Fault};
use opening_peer::{Ask, Opened, Session};

fn script(byte: u8) -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([byte; 20]))
}

/// Of a form that no closing script may have.
fn legacy() -> ScriptBuf {
    ScriptBuf::new_p2pkh(&PubkeyHash::from_byte_array([1; 20]))
}

fn shutdown(channel: &Funded, scriptpubkey: ScriptBuf) -> Shutdown {
    Shutdown { channel_id: channel.id, scriptpubkey }
}

/// A channel opened without a closing script of ours.
async fn opened(node: &Lasting) -> (Funded, RawPeer, Session) {
    let (mut peer, session) = node.connect().await;
    let channel = node.they_fund(&mut peer, |_| {}).await;
    (channel, peer, session)
}

// req: B2-SHUT-S-02, B2-SHUT-S-03
#[tokio::test]
async fn shutdown_goes_out_before_channel_ready_and_once() {
    let node = Lasting::new().await;
    let (channel, mut peer, session) = opened(&node).await;
    let sent = session.shut_down(channel.id, Some(script(1))).await;
    assert_eq!(sent, Ok(script(1)));
    assert_eq!(peer.expect_shutdown(channel.id).await.scriptpubkey, script(1));
    // Asked again, in whatever way, it tells what was sent.
    for again in [None, Some(script(1))] {
        assert_eq!(session.shut_down(channel.id, again).await, Ok(script(1)));
    }
    let other = session.shut_down(channel.id, Some(script(2))).await;
    assert_eq!(other, Err(ShutdownError::OtherScript(script(1))));
    assert_eq!(other.unwrap_err().code(), "shutdown-other-script");
    peer.send(&shutdown(&channel, script(9))).await;
    peer.expect_silence().await;
    // It does not keep the channel from coming into use: it may take long to close.
    node.both_ready(&mut peer, &channel).await;
    peer.expect_silence().await;
}

// req: B2-SHUT-S-04, B2-SHUT-S-05
#[tokio::test]
async fn the_script_is_the_upfront_one_or_else_a_valid_one_that_is_given() {
    for bound in [Some(script(5)), None] {
        let node = Lasting::new().await;
        let (mut peer, session) = node.connect().await;
        let ask = Ask { upfront_shutdown_script: bound.clone(), ..ask() };
        let (channel, _permit) = node.we_fund(&mut peer, &session, ask).await;
        assert_eq!(channel.opened.local_shutdown_script, bound);
        let id = channel.id;
        let expected = match &bound {
            Some(bound) => {
                let other = session.shut_down(id, Some(script(6))).await;
                assert_eq!(other, Err(ShutdownError::OtherScript(bound.clone())));
                assert_eq!(session.shut_down(id, None).await, Ok(bound.clone()));
                bound.clone()
            }
            None => {
                let none = session.shut_down(id, None).await;
                assert_eq!(none, Err(ShutdownError::NoScript));
                let invalid = session.shut_down(id, Some(legacy())).await;
                assert_eq!(invalid, Err(ShutdownError::InvalidScript(legacy())));
                peer.expect_silence().await;
                assert_eq!(session.shut_down(id, Some(script(6))).await, Ok(script(6)));
                script(6)
            }
        };
        assert_eq!(peer.expect_shutdown(id).await.scriptpubkey, expected);
        peer.expect_silence().await;
    }
}

// req: B2-SHUT-S-01
#[tokio::test]
async fn what_is_not_opened_here_cannot_be_shut_down() {
    let node = Lasting::new().await;
    let (channel, mut peer, session) = opened(&node).await;
    let open = peer.open_channel(ChannelId([0x44; 32]));
    peer.send(&open).await;
    let pending = open.common_fields.temporary_channel_id;
    peer.expect_accept_channel(pending).await;
    peer.send_error(channel.id, "gone").await;
    peer.expect_silence().await;
    for id in [pending, channel.id, ChannelId([9; 32])] {
        let refused = session.shut_down(id, Some(script(1))).await;
        assert_eq!(refused, Err(ShutdownError::UnknownChannel));
    }
    peer.expect_silence().await;
    peer.disconnect().await;
    let mut session = session;
    session.closed().await;
    let gone = session.shut_down(channel.id, Some(script(1))).await;
    assert_eq!(gone, Err(ShutdownError::Disconnected));
}

// req: B2-RE-S-07
#[tokio::test]
async fn shutdown_is_said_again_on_each_connection_with_the_same_script() {
    let mut node = Lasting::new().await;
    let (channel, mut peer, session) = opened(&node).await;
    session.shut_down(channel.id, Some(script(1))).await.unwrap();
    peer.expect_shutdown(channel.id).await;
    drop((peer, session));
    for is_restarted in [false, true, true] {
        if is_restarted {
            node.restart().await;
        }
        let (mut peer, session) = node.connect().await;
        peer.expect_reestablish(channel.id).await;
        let other = session.shut_down(channel.id, Some(script(2))).await;
        assert_eq!(other, Err(ShutdownError::OtherScript(script(1))));
        assert_eq!(session.shut_down(channel.id, None).await, Ok(script(1)));
        peer.expect_silence().await;
        peer.send(&peer.channel_reestablish(channel.id)).await;
        assert_eq!(peer.expect_shutdown(channel.id).await.scriptpubkey, script(1));
        peer.expect_silence().await;
        peer.disconnect().await;
    }
}

/// What was sent must be known after a crash; so it is kept first.
// req: B2-SHUT-S-03, B2-RE-S-07
#[tokio::test(start_paused = true)]
async fn shutdown_waits_for_the_store_on_whatever_connection_there_is_then() {
    for fault in [Fault::FailBefore, Fault::FailAfter, Fault::Panic, Fault::Hold] {
        for reconnects in [false, true] {
            let node = Lasting::new().await;
            let (channel, mut peer, mut session) = opened(&node).await;
            let faults = node.faults.clone().at("update", EVERY, fault);
            session.shut_down(channel.id, Some(script(1))).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_secs(100)).await;
            peer.expect_silence().await;
            if reconnects {
                peer.disconnect().await;
                (peer, session) = node.connect().await;
                peer.reestablish(channel.id).await;
                peer.expect_silence().await;
            }
            faults.repair();
            faults.release();
            assert_eq!(peer.expect_shutdown(channel.id).await.scriptpubkey, script(1));
            let kept = node.kept(&channel).await.unwrap();
            assert_eq!(kept.local_shutdown, Some(script(1)), "{fault:?}");
            peer.expect_silence().await;
            drop(session);
        }
    }
}

/// A rest of the node that knows where to close to.
struct Closes;

impl RestOfNode for Closes {
    fn closing_script(&self, _opened: &Opened) -> Option<ScriptBuf> {
        Some(script(3))
    }
}

// req: B2-SHUT-R-03, B2-SHUT-R-04
#[tokio::test]
async fn the_peers_shutdown_is_answered_by_ours_before_and_after_channel_ready() {
    for is_ready in [false, true] {
        let node = Lasting::with(|node| node.rest = Arc::new(Closes)).await;
        let (channel, mut peer, _session) = opened(&node).await;
        if is_ready {
            node.both_ready(&mut peer, &channel).await;
        }
        peer.send(&shutdown(&channel, script(9))).await;
        assert_eq!(peer.expect_shutdown(channel.id).await.scriptpubkey, script(3));
        // Once, however often the peer says it.
        peer.send(&shutdown(&channel, script(9))).await;
        peer.expect_silence().await;
        assert_eq!(node.ends(), [""; 0]);
    }
}

/// Where no script is known it is the node that answers: it gets the message as it came, and may
/// take the channel over.
// req: B2-SHUT-R-03, B2-SHUT-R-04
#[tokio::test]
async fn without_a_script_the_peers_shutdown_is_the_nodes_to_answer() {
    let mut node = Lasting::new().await;
    let (channel, mut peer, session) = opened(&node).await;
    let early = node.openings.release(&channel.id).await;
    assert!(matches!(early, Err(ReleaseError::NotInUse)));
    let message = shutdown(&channel, script(9));
    peer.send(&message).await;
    peer.expect_silence().await;
    assert_eq!(node.rest.take_messages(), [encode(&message)]);
    session.shut_down(channel.id, Some(script(4))).await.unwrap();
    peer.expect_shutdown(channel.id).await;
    node.rest.own(channel.id);
    node.openings.release(&channel.id).await.unwrap();
    peer.send(&message).await;
    peer.expect_silence().await;
    assert_eq!(node.rest.take_messages(), [encode(&message)]);
    assert_eq!(node.ends(), [""; 0]);
    drop((peer, session));
    assert!(node.restart().await.is_empty());
}

// req: B2-SHUT-R-02
#[tokio::test]
async fn a_script_of_no_valid_form_gets_a_warning_and_no_answer() {
    let node = Lasting::with(|node| node.rest = Arc::new(Closes)).await;
    let (channel, mut peer, _session) = opened(&node).await;
    for invalid in [legacy(), ScriptBuf::new()] {
        peer.send(&shutdown(&channel, invalid)).await;
        let text = peer.expect_warning(channel.id).await;
        assert_eq!(text, "shutdown with an invalid script");
    }
    peer.expect_silence().await;
    // It may do better.
    peer.send(&shutdown(&channel, script(9))).await;
    peer.expect_shutdown(channel.id).await;
}

// req: B2-SHUT-R-05, B2-SHUT-R-06
#[tokio::test]
async fn another_script_than_upfront_ends_the_connection() {
    let node = Lasting::with(|node| node.rest = Arc::new(Closes)).await;
    let (mut peer, _session) = node.connect().await;
    let bound = |open: &mut lightning::ln::msgs::OpenChannel| {
        open.common_fields.shutdown_scriptpubkey = Some(script(8));
    };
    let channel = node.they_fund(&mut peer, bound).await;
    peer.send(&shutdown(&channel, script(9))).await;
    let text = peer.expect_warning(channel.id).await;
    assert_eq!(text, "shutdown with another script than upfront");
    peer.expect_closed().await;
    // The channel lives on, and takes the right one.
    assert_eq!(node.ends(), [""; 0]);
    let (mut peer, _session) = node.connect().await;
    peer.reestablish(channel.id).await;
    peer.expect_silence().await;
    peer.send(&shutdown(&channel, script(8))).await;
    peer.expect_shutdown(channel.id).await;
}

/// Upfront it said nothing: an empty script.
// req: B2-SHUT-R-06
#[tokio::test]
async fn a_peer_that_is_bound_to_no_script_may_close_to_any() {
    let node = Lasting::with(|node| node.rest = Arc::new(Closes)).await;
    let (channel, mut peer, _session) = opened(&node).await;
    assert_eq!(channel.opened.remote_shutdown_script, None);
    peer.send(&shutdown(&channel, script(77))).await;
    peer.expect_shutdown(channel.id).await;
    peer.expect_silence().await;
}
