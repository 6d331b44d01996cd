//! Inbound openings are counted when they are received, and given back when they end.

// Clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

mod common;
mod faulty;

use std::sync::Arc;
use std::time::Duration;

use bitcoin::OutPoint;
use bitcoin::hashes::Hash;
use common::ask;
use faulty::{Raw, RawFunder, faulty_node, open_channel_message, settle, until};
use lightning::ln::msgs::{ErrorMessage, OpenChannel};
use lightning::ln::types::ChannelId;
use opening_peer::message::{Message, encode};
use opening_peer::testing::{EVERY, Fault, Faults};
use opening_peer::{Capacity, Openings};

fn with_id(message: &OpenChannel, id: u64) -> OpenChannel {
    let mut message = message.clone();
    let mut bytes = [0xee; 32];
    bytes[..8].copy_from_slice(&id.to_be_bytes());
    message.common_fields.temporary_channel_id = ChannelId(bytes);
    message
}

fn node(faults: &Faults, capacity: Capacity) -> (Arc<Openings>, Arc<faulty::Log>) {
    let mut made = faulty_node(2, faults);
    made.node.capacity = capacity;
    (common::openings(made.node), made.log)
}

fn no_rate() -> Capacity {
    Capacity { opens_per_second: None, ..Capacity::default() }
}

async fn error_text(raw: &mut Raw) -> String {
    match raw.receive().await {
        Some(Message::Error(error)) => error.data,
        other => panic!("{other:?}"),
    }
}

// incident: LDK #4851
#[tokio::test(start_paused = true)]
async fn one_peer_may_have_four_pending_counted_before_the_policy_is_asked() {
    let faults = Faults::none().at("bounds", EVERY, Fault::StallBefore);
    let (openings, log) = node(&faults, no_rate());
    let (session, mut raw) = Raw::connect(&openings, 7).await;
    let offer = open_channel_message([1; 32]).await;
    for id in 1..=5 {
        raw.send(&with_id(&offer, id)).await;
    }
    assert_eq!(error_text(&mut raw).await, "too many pending channels with you");
    assert_eq!(log.failures(), [("decision", "too-many-pending-with-peer")]);
    assert_eq!(log.failed().await.temporary_channel_id.0[..8], 5u64.to_be_bytes());
    assert_eq!((openings.pending(), faults.calls("bounds")), (4, 4));
    // One that ends makes room for one.
    let id = with_id(&offer, 2).common_fields.temporary_channel_id;
    raw.send(&ErrorMessage { channel_id: id, data: String::new() }).await;
    raw.send(&with_id(&offer, 6)).await;
    raw.send(&with_id(&offer, 7)).await;
    assert_eq!(error_text(&mut raw).await, "too many pending channels with you");
    assert_eq!((openings.pending(), faults.calls("bounds")), (4, 5));
    // The deadline frees them all.
    for _ in 0..4 {
        assert_eq!(error_text(&mut raw).await, "internal error");
    }
    assert_eq!(openings.pending(), 0);
    drop(session);
}

#[tokio::test(start_paused = true)]
async fn all_peers_together_may_have_so_many_pending() {
    let faults = Faults::none().at("decide", EVERY, Fault::StallBefore);
    let (openings, log) = node(&faults, Capacity { pending_in_all: 6, ..no_rate() });
    let (_one, mut raw_one) = Raw::connect(&openings, 7).await;
    let (_other, mut raw_other) = Raw::connect(&openings, 8).await;
    let offer = open_channel_message([1; 32]).await;
    for id in 1..=4 {
        raw_one.send(&with_id(&offer, id)).await;
    }
    until("four are pending", || openings.pending() == 4).await;
    // The same ids from another peer are other openings (B2-CID-B-03).
    for id in 1..=3 {
        raw_other.send(&with_id(&offer, id)).await;
    }
    assert_eq!(error_text(&mut raw_other).await, "too many pending channels");
    assert_eq!(log.failures(), [("decision", "too-many-pending")]);
    assert_eq!((openings.pending(), faults.calls("decide")), (6, 6));
    drop(raw_one);
    until("the first peer's are gone", || openings.pending() == 2).await;
    raw_other.send(&with_id(&offer, 4)).await;
    until("there is room again", || openings.pending() == 3).await;
}

#[tokio::test(start_paused = true)]
async fn one_peer_may_begin_so_many_in_a_second_even_if_they_end_at_once() {
    let faults = Faults::none().at("decide", EVERY, Fault::FailBefore);
    let capacity = Capacity { opens_per_second: Some(2), ..Capacity::default() };
    let (openings, log) = node(&faults, capacity);
    let (_session, mut raw) = Raw::connect(&openings, 7).await;
    let (_session, mut other) = Raw::connect(&openings, 8).await;
    let offer = open_channel_message([1; 32]).await;
    for (id, answer) in [
        (1, "no"),
        (2, "no"),
        (3, "too many new channels in one second"),
        (4, "too many new channels in one second"),
    ] {
        raw.send(&with_id(&offer, id)).await;
        assert_eq!(error_text(&mut raw).await, answer);
    }
    other.send(&with_id(&offer, 1)).await;
    assert_eq!(error_text(&mut other).await, "no", "another peer has its own count");
    tokio::time::advance(Duration::from_millis(1001)).await;
    raw.send(&with_id(&offer, 5)).await;
    assert_eq!(error_text(&mut raw).await, "no");
    assert_eq!(log.failures()[2], ("decision", "too-fast"));
    assert_eq!((openings.pending(), faults.calls("decide")), (0, 4));
}

/// Answers are read away, so that the flood is not held up by our own reading.
async fn flood(
    openings: &Arc<Openings>,
    peer: u8,
    offer: &OpenChannel,
    ids: std::ops::Range<u64>,
) -> usize {
    let (session, raw) = Raw::connect(openings, peer).await;
    let (mut reader, mut writer) = (raw.reader, raw.writer);
    let expected = (ids.end - ids.start).saturating_sub(4);
    let reading = tokio::spawn(async move {
        let mut errors = 0;
        while errors < expected
            && let Ok(Some(_)) = reader.read().await
        {
            errors += 1;
        }
        (errors, reader)
    });
    for id in ids {
        writer.queue(&encode(&with_id(offer, id))).unwrap();
        writer.flush().await.unwrap();
    }
    let (errors, reader) = reading.await.unwrap();
    drop((session, reader, writer));
    usize::try_from(errors).unwrap()
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_offers_on_one_connection_leave_nothing() {
    let faults = Faults::none().at("bounds", EVERY, Fault::StallBefore);
    let (openings, log) = node(&faults, no_rate());
    let offer = open_channel_message([1; 32]).await;
    assert_eq!(flood(&openings, 7, &offer, 0..10_000).await, 9_996);
    assert_eq!(faults.calls("bounds"), 4);
    until("nothing is pending", || openings.pending() == 0).await;
    assert_eq!(log.failures().len(), 10_000);
}

// incident: fake channels (2023)
#[tokio::test(start_paused = true)]
async fn ten_thousand_offers_on_many_connections_leave_nothing() {
    let faults = Faults::none().at("bounds", EVERY, Fault::StallBefore);
    let (openings, log) = node(&faults, Capacity { pending_in_all: 10, ..no_rate() });
    let offer = open_channel_message([1; 32]).await;
    let floods = (1..=200).map(|peer| {
        let (openings, offer) = (openings.clone(), offer.clone());
        tokio::spawn(async move {
            let (session, mut raw) = Raw::connect(&openings, peer).await;
            for id in 0..50 {
                raw.send(&with_id(&offer, id)).await;
            }
            settle().await;
            assert!(openings.pending() <= 10);
            drop((session, raw));
        })
    });
    for flood in floods.collect::<Vec<_>>() {
        flood.await.unwrap();
    }
    until("nothing is pending", || openings.pending() == 0).await;
    assert!(faults.calls("bounds") >= 10);
    assert!(log.failures().len() > 1000);
}

/// A peer could else have the signer at work for any number of openings, by ending each.
#[tokio::test(start_paused = true)]
async fn an_opening_that_ended_counts_until_the_signer_is_done_with_it() {
    let faults = Faults::none().at("validate_holder_commitment", EVERY, Fault::StallBefore);
    let (openings, log) = node(&faults, no_rate());
    let (_session, mut raw) = Raw::connect(&openings, 7).await;
    for id in 1..=4 {
        let (offer, mut funder) = RawFunder::offer(7, id.into(), [id; 32], ask()).await;
        let outpoint = OutPoint { txid: bitcoin::Txid::from_byte_array([id; 32]), vout: 0 };
        funder.fund(&mut raw, &offer, outpoint).await;
        until("the signer is asked", || {
            faults.calls("validate_holder_commitment") == u32::from(id)
        })
        .await;
        raw.send(&ErrorMessage { channel_id: ChannelId([id; 32]), data: String::new() }).await;
    }
    settle().await;
    assert_eq!(log.failures(), [("commitments", "peer-error"); 4]);
    assert_eq!(openings.pending(), 4);
    raw.send(&open_channel_message([5; 32]).await).await;
    assert_eq!(error_text(&mut raw).await, "too many pending channels with you");
    tokio::time::sleep(Duration::from_secs(60)).await;
    settle().await;
    assert_eq!(openings.pending(), 0);
    assert_eq!(faults.calls("sign_counterparty_commitment"), 0);
}

/// A peer could else have the policy at work for any number of offers, by ending each.
// incident: CLN 23.02 (hook and open race)
#[tokio::test(start_paused = true)]
async fn an_offer_that_ended_is_decided_no_further() {
    let faults = Faults::none().at("decide", EVERY, Fault::Hold);
    let (openings, _log) = node(&faults, no_rate());
    let (_session, mut raw) = Raw::connect(&openings, 7).await;
    let offer = open_channel_message([1; 32]).await;
    for id in 1..=100 {
        let message = with_id(&offer, id);
        raw.send(&message).await;
        until("it is counted", || openings.pending() == 1).await;
        let channel_id = message.common_fields.temporary_channel_id;
        raw.send(&ErrorMessage { channel_id, data: String::new() }).await;
        until("it is gone", || openings.pending() == 0).await;
    }
    faults.release();
    settle().await;
    assert_eq!(faults.calls("reserve_dbids"), 0, "work went on for an offer that had ended");
}
