//! What a peer may not send on the way to a channel: it is told so under the right id, the
//! operator reads both numbers and a code, and the connection lives on.
//!
//! The rules' own bounds are tested in `opening-core`; here one violation of each kind goes the
//! whole way.

// Clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

mod answers;
#[path = "../common/mod.rs"]
mod common;
mod offers;
mod ours;
mod signatures;
mod unreadable;

use common::ask;
use common::here::Here;
use common::raw_peer::RawPeer;
use lightning::ln::msgs::{AcceptChannel, OpenChannel};
use lightning::ln::types::ChannelId;
use opening_core::Role;
use opening_peer::message::encode;
use opening_peer::{Failed, Node, Stage};

const ID: ChannelId = ChannelId([0x1d; 32]);

/// What follows the peer's `bytes` for its opening [`ID`]: `error` with this text.
async fn refused(here: &Here, peer: &mut RawPeer, bytes: &[u8], code: &str, text: &str) -> Failed {
    peer.send_bytes(bytes).await;
    assert_eq!(peer.expect_error(ID).await, text);
    let failed = here.failed().await;
    assert_eq!((failed.role, failed.temporary_channel_id), (Role::Fundee, ID));
    assert_eq!(failed.failure.code(), code);
    assert!(failed.to_string().contains(text), "{failed}");
    assert_eq!(here.saved().await, []);
    here.forgot_theirs(peer, ID).await;
    failed
}

/// An `open_channel` that `change` makes unacceptable to a node of `with`.
async fn offer_refused_by(
    with: impl FnOnce(&mut Node),
    change: impl FnOnce(&mut OpenChannel),
    code: &str,
    text: &str,
) -> Failed {
    let here = Here::with(with);
    let (mut peer, _session) = RawPeer::connect(&here.openings, 2).await;
    let mut open = peer.open_channel(ID);
    change(&mut open);
    let failed = refused(&here, &mut peer, &encode(&open), code, text).await;
    assert_eq!(failed.stage, Stage::Decision);
    failed
}

async fn offer_refused(change: impl FnOnce(&mut OpenChannel), code: &str, text: &str) -> Failed {
    offer_refused_by(|_| {}, change, code, text).await
}

/// An `accept_channel` that `change` makes unacceptable.
async fn answer_refused(change: impl FnOnce(&mut AcceptChannel), code: &str, text: &str) {
    answer_bytes_refused(
        |peer, open| {
            let mut accept = peer.accept_channel(open);
            change(&mut accept);
            encode(&accept)
        },
        code,
        text,
    )
    .await;
}

async fn answer_bytes_refused(
    answer: impl FnOnce(&RawPeer, &OpenChannel) -> Vec<u8>,
    code: &str,
    text: &str,
) {
    let here = Here::new();
    let (mut peer, session) = RawPeer::connect(&here.openings, 2).await;
    let opening = session.open(ask()).await.unwrap();
    let open = peer.expect_open_channel().await;
    let id = open.common_fields.temporary_channel_id;
    let bytes = answer(&peer, &open);
    peer.send_bytes(&bytes).await;
    assert_eq!(peer.expect_error(id).await, text);
    let to_the_handle = opening.accepted().await.unwrap_err();
    let failed = here.failed().await;
    for failed in [to_the_handle, failed] {
        assert_eq!((failed.role, failed.temporary_channel_id), (Role::Funder, id));
        assert_eq!((failed.failure.code(), failed.stage), (code, Stage::AcceptChannel));
        assert!(failed.to_string().contains(text), "{failed}");
    }
    here.can_open(&session, &mut peer).await;
}
