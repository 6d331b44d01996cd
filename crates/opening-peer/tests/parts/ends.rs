//! Every other way to part: cancelled, dropped, closed, replaced, lost.

use opening_core::Role;
use opening_peer::message::Message;
use opening_peer::session::{Opening, Parts, PartsError};
use opening_peer::{Event, Failure, Session, Stage};

use crate::common::here::Here;
use crate::common::raw_peer::{RawPeer, made_up_outpoint};
use crate::common::{ask, node_id};
use crate::{custom, settle, use_it};
use lightning::ln::types::ChannelId;

const ID: ChannelId = ChannelId([0x1d; 32]);

/// One opening of ours and one of the peer's, both waiting for the peer, taken apart.
struct Apart {
    here: Here,
    peer: RawPeer,
    /// Another handle on the session.
    other: Session,
    ours: Opening,
    parts: Parts,
}

async fn apart() -> Apart {
    let here = Here::new();
    let (mut peer, session) = RawPeer::connect(&here.openings, 2).await;
    let ours = session.open(ask()).await.unwrap();
    peer.expect_open_channel().await;
    peer.send(&peer.open_channel(ID)).await;
    peer.expect_accept_channel(ID).await;
    let parts = session.clone().into_parts().await.unwrap();
    Apart { here, peer, other: session, ours, parts }
}

/// Both openings ended in the same way.
async fn both_failed(here: &Here, ours: Opening, code: &str) {
    let mut roles = Vec::new();
    for _ in 0..2 {
        let failed = here.failed().await;
        assert_eq!(failed.failure.code(), code);
        roles.push(failed.role);
    }
    assert!(roles.contains(&Role::Funder) && roles.contains(&Role::Fundee));
    assert_eq!(ours.accepted().await.unwrap_err().failure.code(), code);
    assert_eq!(here.openings.pending(), 0);
    assert_eq!(here.openings.status().await.under_way, []);
}

async fn disconnected(here: &Here) -> String {
    let line = here.seen.take(|event| matches!(event, Event::Disconnected { .. })).await;
    line.to_string()
}

// req: B1-ERR-S-02, B1-ERR-S-03
#[tokio::test]
async fn cancelled_negotiations_are_told_to_the_peer_and_the_transport_is_the_nodes() {
    let Apart { here, mut peer, other, ours, parts } = apart().await;
    let Parts { mut transport, negotiations } = parts;
    let pending = negotiations.pending().await;
    let mut stages: Vec<_> = pending.iter().map(|under| under.stage.as_str()).collect();
    stages.sort_unstable();
    assert_eq!(stages, ["accept-channel", "funding-created"]);
    let our_id = ours.temporary_channel_id();
    let features = negotiations.features().clone();
    negotiations.cancel(&mut transport.writer).await.unwrap();
    both_failed(&here, ours, "cancelled").await;
    assert_eq!(disconnected(&here).await, "disconnected: this node keeps the transport for itself");
    transport.writer.flush().await.unwrap();
    assert_eq!(peer.expect_error(our_id).await, "channel opening cancelled");
    assert_eq!(peer.expect_error(ID).await, "channel opening cancelled");
    let mut other = other;
    other.closed().await;
    assert_eq!(other.into_parts().await.unwrap_err(), PartsError::Disconnected);

    // The connection lives, and may even have a session again.
    let session = Session::adopt(here.openings.clone(), node_id(2), features, transport);
    here.can_open(&session, &mut peer).await;
    here.forgot_theirs(&mut peer, ID).await;
}

#[tokio::test]
async fn a_channel_that_is_being_saved_is_not_cancelled_but_awaited() {
    let here = Here::new();
    let (mut peer, session) = RawPeer::connect(&here.openings, 2).await;
    let open = peer.open_channel(ID);
    peer.send(&open).await;
    let accept = peer.expect_accept_channel(ID).await;
    here.valves.save.shut();
    peer.send(&peer.funding_created(&open, &accept, made_up_outpoint(1, 0))).await;
    here.valves.save.reached().await;
    let Parts { mut transport, negotiations } = session.into_parts().await.unwrap();
    let mut cancelling = Box::pin(negotiations.cancel(&mut transport.writer));
    for _ in 0..100 {
        assert!(futures::poll!(&mut cancelling).is_pending());
        tokio::task::yield_now().await;
    }
    here.valves.save.open();
    cancelling.await.unwrap();
    transport.writer.flush().await.unwrap();
    let id = peer.expect_funding_signed().await.channel_id;
    assert_eq!(here.saved().await, [id]);
    assert_eq!(here.seen.opened().await.channel_id, id);
    assert_eq!(here.seen.count(|event| matches!(event, Event::Failed(_))), 0);
}

#[tokio::test]
async fn dropped_parts_end_as_a_lost_connection_does() {
    let Apart { here, mut peer, mut other, ours, parts } = apart().await;
    drop(parts);
    both_failed(&here, ours, "disconnected").await;
    assert_eq!(disconnected(&here).await, "disconnected: this node dropped its transport");
    peer.expect_closed().await;
    other.closed().await;
    let (mut peer, session) = RawPeer::connect(&here.openings, 2).await;
    here.can_open(&session, &mut peer).await;
    here.forgot_theirs(&mut peer, ID).await;
}

/// The transport alone is not enough.
#[tokio::test]
async fn dropped_negotiations_end_and_the_transport_stays() {
    let Apart { here, mut peer, ours, parts, .. } = apart().await;
    let Parts { mut transport, negotiations } = parts;
    drop(negotiations);
    both_failed(&here, ours, "disconnected").await;
    transport.writer.queue(&custom(1)).unwrap();
    transport.writer.flush().await.unwrap();
    assert_eq!(peer.receive_bytes().await, custom(1));
}

// req: B2-FS-R-02
#[tokio::test]
async fn a_channel_saved_after_its_parts_were_dropped_goes_on_over_the_next_connection() {
    let here = Here::new();
    let (mut peer, session) = RawPeer::connect(&here.openings, 2).await;
    let open = peer.open_channel(ID);
    peer.send(&open).await;
    let accept = peer.expect_accept_channel(ID).await;
    here.valves.save.shut();
    peer.send(&peer.funding_created(&open, &accept, made_up_outpoint(1, 0))).await;
    here.valves.save.reached().await;
    drop(session.into_parts().await.unwrap());
    settle().await;
    here.valves.save.open();
    let id = here.seen.opened().await.channel_id;
    let (mut peer, _session) = RawPeer::connect(&here.openings, 2).await;
    match peer.receive().await {
        Message::ChannelReestablish(message) => assert_eq!(message.channel_id, id),
        other => panic!("{other:?}"),
    }
    assert_eq!(here.openings.pending(), 0);
}

#[tokio::test]
async fn a_session_closed_while_it_is_apart_leaves_the_transport_to_the_node() {
    let Apart { here, mut peer, mut other, ours, parts } = apart().await;
    let our_id = ours.temporary_channel_id();
    assert!(!other.is_closed());
    other.close().await;
    assert!(other.is_closed());
    both_failed(&here, ours, "cancelled").await;
    assert_eq!(disconnected(&here).await, "disconnected: this node closed it");
    let error = Session::resume(parts).unwrap_err();
    assert_eq!(error.code(), "session-ended");
    let mut transport = error.transport;
    transport.writer.queue(&custom(1)).unwrap();
    transport.writer.flush().await.unwrap();
    // The session's last words went onto the writer.
    assert_eq!(peer.expect_error(our_id).await, "channel opening cancelled");
    assert_eq!(peer.expect_error(ID).await, "channel opening cancelled");
    assert_eq!(peer.receive_bytes().await, custom(1));
}

/// It is closed in the same moment in which the transport comes back: nothing is lost on the way.
#[tokio::test]
async fn a_session_closed_just_before_the_resume_says_its_last_words() {
    let Apart { here, mut peer, other, ours, parts } = apart().await;
    let canceller = ours.canceller();
    let id = ours.temporary_channel_id();
    assert!(canceller.cancel().await);
    let mut closing = other.clone();
    let mut closing = Box::pin(closing.close());
    assert!(futures::poll!(&mut closing).is_pending());
    let _session = Session::resume(parts).unwrap();
    closing.await;
    assert_eq!(peer.expect_error(id).await, "channel opening cancelled");
    assert_eq!(peer.expect_error(ID).await, "channel opening cancelled");
    peer.expect_closed().await;
    assert_eq!(here.openings.pending(), 0);
}

// req: B2-OPEN-R-03
#[tokio::test]
async fn a_new_connection_of_the_peer_ends_what_is_apart() {
    let Apart { here, ours, parts, mut other, .. } = apart().await;
    let (mut peer, session) = RawPeer::connect(&here.openings, 2).await;
    both_failed(&here, ours, "disconnected").await;
    other.closed().await;
    here.can_open(&session, &mut peer).await;
    drop(Session::resume(parts).unwrap_err());
    here.forgot_theirs(&mut peer, ID).await;
}

#[tokio::test]
async fn a_node_that_goes_down_does_not_wait_for_its_own_parts() {
    let Apart { here, ours, parts, .. } = apart().await;
    assert_eq!(here.openings.status().await.under_way.len(), 2);
    here.openings.shut_down().await;
    both_failed(&here, ours, "cancelled").await;
    assert_eq!(Session::resume(parts).unwrap_err().code(), "session-ended");
}

#[tokio::test]
async fn a_connection_lost_while_apart_is_found_lost_at_the_resume() {
    let Apart { here, peer, ours, mut parts, .. } = apart().await;
    drop(peer);
    assert!(parts.transport.reader.read().await.unwrap().is_none());
    settle().await;
    assert_eq!(here.openings.status().await.under_way.len(), 2);
    let mut session = Session::resume(parts).unwrap();
    session.closed().await;
    both_failed(&here, ours, "disconnected").await;
    assert_eq!(disconnected(&here).await, "disconnected: the peer closed it");
}

#[tokio::test]
async fn a_transport_that_failed_while_apart_ends_the_session_at_the_resume() {
    let Apart { here, peer, ours, mut parts, .. } = apart().await;
    drop(peer);
    parts.transport.writer.queue(&custom(1)).unwrap();
    assert_eq!(parts.transport.writer.flush().await.unwrap_err().code(), "transport-io");
    let mut session = Session::resume(parts).unwrap();
    session.closed().await;
    both_failed(&here, ours, "disconnected").await;
}

#[tokio::test]
async fn a_connection_that_has_failed_cannot_be_handed_back() {
    let here = Here::new();
    let (peer, session) = RawPeer::connect(&here.openings, 2).await;
    drop(peer);
    // Noticed or not: the answer is the same, or the transport says it.
    match session.clone().into_parts().await {
        Err(error) => assert_eq!(error.code(), "disconnected"),
        Ok(mut parts) => assert!(matches!(parts.transport.reader.read().await, Ok(None) | Err(_))),
    }
    let mut closed = session.clone();
    closed.closed().await;
    let error = session.into_parts().await.unwrap_err();
    assert_eq!((error, error.code()), (PartsError::Disconnected, "disconnected"));
}

#[tokio::test]
async fn after_a_failure_the_connection_is_handed_back_like_any_other() {
    let here = Here::new();
    let (mut peer, session) = RawPeer::connect(&here.openings, 2).await;
    // One ended by the peer, one by us.
    let ours = session.open(ask()).await.unwrap();
    peer.expect_open_channel().await;
    peer.send_error(ours.temporary_channel_id(), "no").await;
    assert!(matches!(&*here.failed().await.failure, Failure::PeerError(_)));
    let mut open = peer.open_channel(ID);
    open.common_fields.dust_limit_satoshis = 1;
    peer.send(&open).await;
    peer.expect_error(ID).await;
    assert!(matches!(&*here.failed().await.failure, Failure::Negotiation(_)));

    let mut parts = session.into_parts().await.unwrap();
    assert_eq!(parts.negotiations.pending().await, []);
    assert_eq!(parts.negotiations.peer(), node_id(2));
    peer.send_bytes(&custom(1)).await;
    assert_eq!(use_it(&mut parts.transport, 1, |_| panic!("nothing else")).await, [custom(1)]);
    let session = Session::resume(parts).unwrap();
    here.can_open(&session, &mut peer).await;
    here.forgot_theirs(&mut peer, ID).await;
}

#[tokio::test]
async fn parts_are_handed_out_once() {
    let Apart { mut peer, here, other, ours, parts } = apart().await;
    let error = other.clone().into_parts().await.unwrap_err();
    assert_eq!((error, error.code()), (PartsError::HandedOut, "parts-handed-out"));
    let session = Session::resume(parts).unwrap();
    let parts = session.into_parts().await.unwrap();
    assert_eq!(parts.negotiations.pending().await.len(), 2);
    let session = Session::resume(parts).unwrap();
    here.can_open(&session, &mut peer).await;
    drop(ours);
    assert_eq!(here.failed().await.stage, Stage::AcceptChannel);
}
