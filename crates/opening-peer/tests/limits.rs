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

/// What is refused at receipt costs little, and is counted for that second nevertheless.
#[tokio::test(start_paused = true)]
async fn offers_that_are_refused_for_what_they_are_count_in_the_rate() {
    let faults = Faults::none();
    let capacity = Capacity { opens_per_second: Some(3), ..Capacity::default() };
    let (openings, log) = node(&faults, capacity);
    let (_session, mut raw) = Raw::connect(&openings, 7).await;
    let offer = open_channel_message([1; 32]).await;
    // A key that is none, an id that names all channels, a chain of someone else's.
    let mut bad_key = encode(&with_id(&offer, 1));
    bad_key[134..167].fill(0xff);
    raw.send_bytes(&bad_key).await;
    assert!(error_text(&mut raw).await.contains("not a valid key"));
    let mut all_channels = offer.clone();
    all_channels.common_fields.temporary_channel_id = ChannelId([0; 32]);
    raw.send(&all_channels).await;
    assert!(matches!(raw.receive().await, Some(Message::Warning(_))));
    let mut elsewhere = with_id(&offer, 2);
    elsewhere.common_fields.chain_hash = bitcoin::Network::Bitcoin.chain_hash();
    raw.send(&elsewhere).await;
    assert!(error_text(&mut raw).await.contains("chain_hash"));

    raw.send(&with_id(&offer, 3)).await;
    assert_eq!(error_text(&mut raw).await, "too many new channels in one second");
    // Whatever the rate, an offer that cannot be read is told why.
    raw.send_bytes(&bad_key).await;
    assert!(error_text(&mut raw).await.contains("not a valid key"));
    let codes: Vec<_> = log.failures().into_iter().map(|(_, code)| code).collect();
    let bad_key = "message-invalid-key";
    let expected = [bad_key, "temporary-channel-id-taken", "unknown-chain", "too-fast", bad_key];
    assert_eq!(codes, expected);

    tokio::time::advance(Duration::from_millis(1001)).await;
    raw.send(&with_id(&offer, 4)).await;
    assert!(matches!(raw.receive().await, Some(Message::AcceptChannel(_))));
}

/// LDK #4851: what is not decided yet has to count, too, whoever it is that does not decide.
#[tokio::test(start_paused = true)]
async fn a_flood_while_the_policy_does_not_answer_is_counted_at_receipt() {
    let faults = Faults::none().at("decide", EVERY, Fault::Hold);
    let (openings, log) = node(&faults, Capacity { pending_in_all: 10, ..no_rate() });
    let offer = open_channel_message([1; 32]).await;
    let mut peers = Vec::new();
    for peer in 1..=10 {
        let (session, mut raw) = Raw::connect(&openings, peer).await;
        for id in 0..100 {
            raw.send(&with_id(&offer, id)).await;
        }
        settle().await;
        peers.push((session, raw));
    }
    assert_eq!((openings.pending(), faults.calls("decide")), (10, 10));
    let refused = log.failures();
    assert_eq!(refused.len(), 990);
    assert_eq!(refused[0], ("decision", "too-many-pending-with-peer"));
    assert_eq!(refused[989], ("decision", "too-many-pending"));
    // Nothing was asked of the signer or the disk.
    assert_eq!((faults.calls("channel"), faults.calls("reserve_dbids")), (0, 0));
    faults.release();
    settle().await;
    assert_eq!(faults.calls("channel"), 10, "those that were counted go on");
}

/// Failed openings may be many and the signer slow: it is told in turn.
#[tokio::test(start_paused = true)]
async fn a_signer_that_is_slow_to_forget_has_few_channels_to_forget_at_once() {
    let faults = Faults::none().at("forget_channel", EVERY, Fault::Hold);
    let (openings, log) = node(&faults, no_rate());
    let (_session, mut raw) = Raw::connect(&openings, 7).await;
    let offer = open_channel_message([1; 32]).await;
    for id in 0..100 {
        let message = with_id(&offer, id);
        raw.send(&message).await;
        assert!(matches!(raw.receive().await, Some(Message::AcceptChannel(_))));
        let channel_id = message.common_fields.temporary_channel_id;
        raw.send(&ErrorMessage { channel_id, data: String::new() }).await;
    }
    until("all have ended", || log.failures().len() == 100).await;
    settle().await;
    assert_eq!(faults.calls("forget_channel"), 4);
    // A minute for each: those that were asked are given up, the next ones asked.
    tokio::time::sleep(Duration::from_secs(61)).await;
    settle().await;
    assert_eq!(faults.calls("forget_channel"), 8);
    faults.release();
    settle().await;
    assert_eq!(faults.calls("forget_channel"), 100, "every one is told in the end");
}

/// A signer that panics over one channel is still told of the others.
#[tokio::test(start_paused = true)]
async fn a_signer_that_panics_over_forgetting_is_told_of_the_next() {
    let faults = Faults::none().at("forget_channel", EVERY, Fault::Panic);
    let (openings, _log) = node(&faults, no_rate());
    let (_session, mut raw) = Raw::connect(&openings, 7).await;
    let offer = open_channel_message([1; 32]).await;
    for id in 0..10 {
        let message = with_id(&offer, id);
        raw.send(&message).await;
        assert!(matches!(raw.receive().await, Some(Message::AcceptChannel(_))));
        let channel_id = message.common_fields.temporary_channel_id;
        raw.send(&ErrorMessage { channel_id, data: String::new() }).await;
        until("the signer is told", || u64::from(faults.calls("forget_channel")) == id + 1).await;
    }
}

async fn accepted_of(raw: &mut Raw, offer: &OpenChannel, ids: std::ops::Range<u64>) -> usize {
    let count = ids.end - ids.start;
    for id in ids {
        raw.send(&with_id(offer, id)).await;
    }
    let mut accepted = 0;
    for _ in 0..count {
        accepted += usize::from(matches!(raw.receive().await, Some(Message::AcceptChannel(_))));
    }
    accepted
}

#[tokio::test(start_paused = true)]
async fn peers_on_the_allow_list_open_where_others_have_taken_all_places() {
    let mut made = faulty_node(2, &Faults::none());
    made.node.capacity = Capacity {
        pending_per_peer: 4,
        pending_in_all: 8,
        opens_per_second: Some(4),
        unconfirmed_in_all: 8,
        ..Capacity::default()
    };
    made.node.allowed = [common::node_id(20)].into();
    let openings = common::openings(made.node);
    let offer = open_channel_message([1; 32]).await;
    let (_one, mut one) = Raw::connect(&openings, 7).await;
    let (_other, mut other) = Raw::connect(&openings, 8).await;
    assert_eq!(accepted_of(&mut one, &offer, 0..4).await, 4);
    assert_eq!(accepted_of(&mut other, &offer, 0..4).await, 4);
    let (_stranger, mut stranger) = Raw::connect(&openings, 9).await;
    assert_eq!(accepted_of(&mut stranger, &offer, 0..1).await, 0);

    let (_friend, mut friend) = Raw::connect(&openings, 20).await;
    assert_eq!(accepted_of(&mut friend, &offer, 0..4).await, 4);
    assert_eq!(openings.pending(), 12);
    // As fast as it likes, but not more than one peer may have.
    assert_eq!(accepted_of(&mut friend, &offer, 4..5).await, 0);
    assert_eq!(*made.log.failures().last().unwrap(), ("decision", "too-many-pending-with-peer"));
    // It takes no place of others: one that ends makes room for one.
    let channel_id = with_id(&offer, 0).common_fields.temporary_channel_id;
    one.send(&ErrorMessage { channel_id, data: String::new() }).await;
    until("there is room", || openings.pending() == 11).await;
    assert_eq!(accepted_of(&mut stranger, &offer, 1..3).await, 1);

    // The list can change while the node runs, and what was counted stays as it was counted.
    openings.disallow(&common::node_id(20));
    friend.send(&ErrorMessage { channel_id, data: String::new() }).await;
    until("there is room with it", || openings.pending() == 11).await;
    assert_eq!(accepted_of(&mut friend, &offer, 5..6).await, 0);
    assert_eq!(*made.log.failures().last().unwrap(), ("decision", "too-many-pending"));
    openings.allow([common::node_id(9)]);
    assert_eq!(accepted_of(&mut stranger, &offer, 3..6).await, 3);
    assert_eq!(openings.pending(), 14);
}

/// Saved channels that nobody ever funds: a peer may have so many, and no more.
#[tokio::test(start_paused = true)]
async fn one_peer_may_have_so_many_channels_that_have_not_confirmed() {
    let (openings, log) = node(&Faults::none(), Capacity { unconfirmed_per_peer: 2, ..no_rate() });
    let (_session, mut raw) = Raw::connect(&openings, 7).await;
    save_one(&mut raw, 7, 1).await;
    save_one(&mut raw, 7, 2).await;
    raw.send(&open_channel_message([3; 32]).await).await;
    assert_eq!(error_text(&mut raw).await, "too many unconfirmed channels with you");
    assert_eq!(log.failures(), [("decision", "too-many-unconfirmed-with-peer")]);
    assert_eq!(openings.pending(), 0);
}

/// Opens a channel of which no transaction is ever seen; gives its id.
async fn save_one(raw: &mut Raw, secret: u8, id: u8) -> ChannelId {
    let (offer, mut funder) = RawFunder::offer(secret, id.into(), [id; 32], ask()).await;
    let outpoint = OutPoint { txid: bitcoin::Txid::from_byte_array([id; 32]), vout: 0 };
    funder.fund(raw, &offer, outpoint).await;
    let Some(Message::FundingSigned(signed)) = raw.receive().await else { panic!("refused") };
    assert!(funder.takes(&signed));
    signed.channel_id
}

/// Those of peers on the allow-list take no place of others.
#[tokio::test(start_paused = true)]
async fn all_peers_together_may_have_so_many_channels_that_have_not_confirmed() {
    let (openings, log) = node(&Faults::none(), Capacity { unconfirmed_in_all: 1, ..no_rate() });
    openings.allow([common::node_id(20)]);
    let (_friend, mut friend) = Raw::connect(&openings, 20).await;
    save_one(&mut friend, 20, 1).await;
    save_one(&mut friend, 20, 2).await;
    let (_one, mut one) = Raw::connect(&openings, 7).await;
    let channel_id = save_one(&mut one, 7, 3).await;
    let (_other, mut other) = Raw::connect(&openings, 8).await;
    let offer = open_channel_message([4; 32]).await;
    other.send(&offer).await;
    assert_eq!(error_text(&mut other).await, "too many unconfirmed channels");
    assert_eq!(log.failures(), [("decision", "too-many-unconfirmed")]);
    // One that has failed and is released makes room for one.
    openings.fail(&channel_id, &opening_peer::node::PublicText::new("enough")).await.unwrap();
    openings.release(&channel_id).await.unwrap();
    other.send(&offer).await;
    assert!(matches!(other.receive().await, Some(Message::AcceptChannel(_))));
}

/// A peer's features are kept with its session, and may be 64 kB of nothing.
#[tokio::test(start_paused = true)]
async fn of_a_peer_s_features_only_those_are_kept_that_anyone_could_know() {
    let (openings, _log) = node(&Faults::none(), no_rate());
    let (near, far) = opening_peer::transport::in_memory_pair();
    let (reader, writer) = far.split();
    let mut raw = Raw { reader, writer };
    let mut flags = opening_peer::session::default_features().le_flags().to_vec();
    let known = flags.clone();
    // Odd bits: nobody has to know them.
    flags.resize(60_000, 0b1010_1010);
    let features = lightning::types::features::InitFeatures::from_le_bytes(flags);
    let init = lightning::ln::msgs::Init { features, networks: None, remote_network_address: None };
    let starting = opening_peer::Session::start(
        openings.clone(),
        common::node_id(7),
        near,
        opening_peer::Greeting::default(),
    );
    let (session, ()) = tokio::join!(starting, async {
        raw.send(&init).await;
        raw.receive().await;
    });
    let session = session.unwrap();
    let kept = session.features().remote.le_flags();
    assert_eq!(kept.len(), 32);
    assert_eq!(kept[..known.len()], known);
    raw.send(&open_channel_message([1; 32]).await).await;
    assert!(matches!(raw.receive().await, Some(Message::AcceptChannel(_))));
}
