//! What the session's handles can do while the node has its connection.

use std::time::Duration;

use bitcoin::Transaction;
use lightning::ln::types::ChannelId;
use opening_core::Role;
use opening_peer::message::{Message, encode};
use opening_peer::session::Parts;
use opening_peer::{Event, FundingTransaction, Session, Stage};

use crate::common::here::Here;
use crate::common::raw_peer::{RawPeer, made_up_outpoint};
use crate::common::{ask, confirmation, funding_transaction, signed};
use crate::{custom, settle, use_it};

const ID: ChannelId = ChannelId([0x1d; 32]);

async fn connected() -> (Here, RawPeer, Session) {
    let here = Here::new();
    let (peer, session) = RawPeer::connect(&here.openings, 2).await;
    (here, peer, session)
}

// req: B2-EST-B-06
#[tokio::test]
async fn two_openings_at_once_go_on_after_the_resume() {
    let (here, mut peer, session) = connected().await;
    let ours = session.open(ask()).await.unwrap();
    let open = peer.expect_open_channel().await;
    let theirs = peer.open_channel(ID);
    peer.send(&theirs).await;
    let accepted = peer.expect_accept_channel(ID).await;
    let parts = session.into_parts().await.unwrap();
    // Both are answered while nobody reads.
    let accept = peer.accept_channel(&open);
    peer.send(&accept).await;
    peer.send(&peer.funding_created(&theirs, &accepted, made_up_outpoint(1, 0))).await;
    settle().await;
    assert_eq!(parts.negotiations.pending().await.len(), 2);
    let _session = Session::resume(parts).unwrap();
    let their_id = peer.expect_funding_signed().await.channel_id;
    let pending = ours.accepted().await.unwrap();
    let funding = signed(&pending.needed().output);
    let mut signing = pending.complete(funding).await.unwrap();
    let created = peer.expect_funding_created().await;
    peer.send(&peer.funding_signed(&open, &accept, &created)).await;
    let (opened, _permit) = signing.opened().await.unwrap();
    let mut saved = here.saved().await;
    saved.sort_by_key(|id| *id == opened.channel_id);
    assert_eq!(saved, [their_id, opened.channel_id]);
}

/// They are with the reader already when the session lets go of it.
#[tokio::test]
async fn messages_that_nobody_has_read_are_read_by_whoever_has_the_transport() {
    let (here, mut peer, session) = connected().await;
    let ours = session.open(ask()).await.unwrap();
    let open = peer.expect_open_channel().await;
    let mut parts = session.into_parts().await.unwrap();
    peer.send_bytes(&custom(1)).await;
    peer.send_bytes(&custom(2)).await;
    peer.send(&peer.accept_channel(&open)).await;
    peer.send_bytes(&custom(3)).await;
    assert_eq!(parts.transport.reader.read().await.unwrap().unwrap(), custom(1));
    settle().await;
    let _session = Session::resume(parts).unwrap();
    let _pending = ours.accepted().await.unwrap();
    peer.expect_silence().await;
    assert_eq!(here.rest.take_messages(), [custom(2), custom(3)]);
}

#[tokio::test]
async fn what_was_put_back_is_read_first_and_in_its_order() {
    let (here, mut peer, session) = connected().await;
    let mut parts = session.into_parts().await.unwrap();
    for number in 1..=4 {
        peer.send_bytes(&custom(number)).await;
    }
    let reader = &mut parts.transport.reader;
    let first = reader.read().await.unwrap().unwrap();
    let second = reader.read().await.unwrap().unwrap();
    reader.put_back(first);
    reader.put_back(second);
    let _session = Session::resume(parts).unwrap();
    peer.expect_silence().await;
    assert_eq!(here.rest.take_messages(), [1, 2, 3, 4].map(custom));
}

#[tokio::test]
async fn handles_work_and_are_heard_at_the_resume() {
    let (here, mut peer, session) = connected().await;
    let first = session.open(ask()).await.unwrap();
    peer.expect_open_channel().await;
    let parts = session.clone().into_parts().await.unwrap();
    assert!(!session.is_closed());
    assert!(first.canceller().cancel().await);
    assert_eq!(here.failed().await.failure.code(), "cancelled");
    let second = session.open(ask()).await.unwrap();
    let dropped = session.open(ask()).await.unwrap();
    let dropped_id = dropped.temporary_channel_id();
    drop(dropped);
    here.failed().await;
    let status = here.openings.status().await.under_way;
    assert_eq!(status.len(), 1);
    assert_eq!((status[0].stage, status[0].role), (Stage::AcceptChannel, Role::Funder));

    // The node says something in between, which goes before.
    let Parts { mut transport, negotiations } = parts;
    transport.writer.queue(&custom(1)).unwrap();
    let _session = Session::resume(Parts { transport, negotiations }).unwrap();
    assert_eq!(peer.receive_bytes().await, custom(1));
    peer.expect_error(first.temporary_channel_id()).await;
    let open = peer.expect_open_channel().await;
    assert_eq!(open.common_fields.temporary_channel_id, second.temporary_channel_id());
    let open_dropped = peer.expect_open_channel().await;
    assert_eq!(open_dropped.common_fields.temporary_channel_id, dropped_id);
    peer.expect_error(dropped_id).await;
    peer.send(&peer.accept_channel(&open)).await;
    let _pending = second.accepted().await.unwrap();
    peer.expect_silence().await;
}

#[tokio::test]
async fn messages_of_the_nodes_wait_for_the_resume_or_hear_of_the_end() {
    for is_resumed in [true, false] {
        let (_here, mut peer, session) = connected().await;
        let parts = session.clone().into_parts().await.unwrap();
        let sends: Vec<_> = (0..20)
            .map(|number| {
                let session = session.clone();
                tokio::spawn(async move { session.send(custom(number)).await })
            })
            .collect();
        settle().await;
        assert!(sends.iter().all(|send| !send.is_finished()));
        if is_resumed {
            let _session = Session::resume(parts).unwrap();
            for number in 0..20 {
                assert_eq!(peer.receive_bytes().await, custom(number));
            }
        } else {
            drop(parts);
        }
        for send in sends {
            assert_eq!(send.await.unwrap().is_ok(), is_resumed);
        }
    }
}

#[tokio::test]
async fn evidence_does_not_wait_and_channel_ready_goes_out_at_the_resume() {
    let (here, mut peer, session) = connected().await;
    let ours = session.open(ask()).await.unwrap();
    let open = peer.expect_open_channel().await;
    let accept = peer.accept_channel(&open);
    peer.send(&accept).await;
    let pending = ours.accepted().await.unwrap();
    let transaction: Transaction = funding_transaction(&pending.needed().output, 0);
    let funding = FundingTransaction::Signed(transaction.clone());
    let mut signing = pending.complete(funding).await.unwrap();
    let created = peer.expect_funding_created().await;
    peer.send(&peer.funding_signed(&open, &accept, &created)).await;
    let (opened, _permit) = signing.opened().await.unwrap();

    let parts = session.into_parts().await.unwrap();
    here.openings.confirmed(opened.channel_id, confirmation(&transaction, 3)).await.unwrap();
    let stage = |event: &Event| matches!(event, Event::Progress { stage: Stage::ChannelReady, .. });
    here.seen.take(stage).await;
    let _session = Session::resume(parts).unwrap();
    match peer.receive().await {
        Message::ChannelReady(message) => assert_eq!(message.channel_id, opened.channel_id),
        other => panic!("{other:?}"),
    }
    peer.expect_silence().await;
}

/// Ours for its `accept_channel`, the peer's for its `funding_created`.
#[tokio::test(start_paused = true)]
async fn deadlines_go_on_and_the_peer_is_told_at_the_resume() {
    let (here, mut peer, session) = connected().await;
    let ours = session.open(ask()).await.unwrap();
    peer.expect_open_channel().await;
    peer.send(&peer.open_channel(ID)).await;
    peer.expect_accept_channel(ID).await;
    let parts = session.into_parts().await.unwrap();
    tokio::time::sleep(Duration::from_secs(59)).await;
    assert_eq!(parts.negotiations.pending().await.len(), 2);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(parts.negotiations.pending().await.len(), 1);
    tokio::time::sleep(Duration::from_secs(840)).await;
    assert_eq!(parts.negotiations.pending().await, []);
    for _ in 0..2 {
        assert_eq!(here.failed().await.failure.code(), "peer-silent");
    }
    assert_eq!(here.openings.pending(), 0);
    // However long the node keeps it: what it has not read yet is nothing that the peer is late with.
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let session = Session::resume(parts).unwrap();
    let ids = [ours.temporary_channel_id(), ID];
    for _ in ids {
        match peer.receive().await {
            Message::Error(error) => assert!(ids.contains(&error.channel_id)),
            other => panic!("{other:?}"),
        }
    }
    here.can_open(&session, &mut peer).await;
}

/// What waits to be written when the session lets go is written by whoever flushes next, once.
#[tokio::test]
async fn what_is_not_written_yet_is_written_once() {
    let (here, mut peer, session) = connected().await;
    // More than the connection holds: the rest stays with the writer.
    let long = [&custom(0)[..2], &[0xaa; 60_000]].concat();
    for _ in 0..3 {
        session.send(long.clone()).await.unwrap();
    }
    let ours = session.open(ask()).await.unwrap();
    settle().await;
    let mut parts = session.into_parts().await.unwrap();
    assert!(parts.transport.writer.queued() > 60_000);
    parts.transport.writer.queue(&custom(1)).unwrap();
    let reading = async {
        for _ in 0..3 {
            assert_eq!(peer.receive_bytes().await, long);
        }
        let id = peer.expect_open_channel().await.common_fields.temporary_channel_id;
        assert_eq!(id, ours.temporary_channel_id());
        assert_eq!(peer.receive_bytes().await, custom(1));
    };
    tokio::join!(reading, use_it(&mut parts.transport, 0, |_| {}));
    let _session = Session::resume(parts).unwrap();
    peer.send_bytes(&encode(&lightning::ln::msgs::Ping { ponglen: 1, byteslen: 0 })).await;
    assert!(matches!(peer.receive().await, Message::Pong(_)));
    assert_eq!(here.openings.status().await.under_way.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_has_its_time_from_the_resume_on() {
    let (here, peer, session) = connected().await;
    let mut parts = session.into_parts().await.unwrap();
    for _ in 0..3 {
        parts.transport.writer.queue(&[0x80; 60_000]).unwrap();
    }
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let mut session = Session::resume(parts).unwrap();
    tokio::time::sleep(Duration::from_secs(59)).await;
    assert!(!session.is_closed());
    session.closed().await;
    let ended = here.seen.take(|event| matches!(event, Event::Disconnected { .. })).await;
    assert_eq!(ended.to_string(), "disconnected: the peer has read nothing for 60s");
    drop(peer);
}
