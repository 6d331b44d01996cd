//! What the chain says of an opened channel: depth, reorganisations, spends, and nothing at all.

// Clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use bitcoin::absolute::LockTime;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use common::lasting::{Funded, Lasting};
use common::raw_peer::RawPeer;
use common::{ask, confirmation, funding_transaction, regtest_bounds};
use lightning::ln::msgs::OpenChannel;
use opening_core::{ChannelType, FundingOutput};
use opening_peer::event::{End, Spender};
use opening_peer::negotiation::ready::{Confirmation, EvidenceError, Exit};
use opening_peer::node::AcceptWithin;
use opening_peer::openings::ConfirmError;
use opening_peer::testing::{EVERY, Fault};
use opening_peer::{Capacity, Event, Failure, Restored};

fn without_push(open: &mut OpenChannel) {
    open.push_msat = 0;
}

fn coinbase(output: &FundingOutput) -> Transaction {
    let mut transaction = funding_transaction(output, 0);
    transaction.input[0].previous_output = OutPoint::null();
    assert!(transaction.is_coinbase());
    transaction
}

/// Spends the funding output, to whomever.
fn spending(channel: &Funded) -> Transaction {
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: channel.opened.parameters.funding_outpoint,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: vec![TxOut { value: Amount::from_sat(900_000), script_pubkey: ScriptBuf::new() }],
    }
}

/// The event that tells how the channel ended, which has to be there already.
async fn end(node: &Lasting) -> (End, Exit) {
    match node.seen.take(|event| matches!(event, Event::Ended(_))).await {
        Event::Ended(ended) => (ended.end, ended.exit),
        other => panic!("{other:?}"),
    }
}

type Change = fn(&mut Transaction);

/// A fundee is told an outpoint: the transaction behind it may pay anything.
// incident: CVE-2019-12998
// incident: CVE-2019-12999
// incident: CVE-2019-13000
// req: B2-CR-S-01
#[tokio::test]
async fn a_funding_transaction_that_does_not_pay_the_channel_fails_it() {
    let cases: [(Change, EvidenceError); 4] = [
        (|it| it.output[0].value -= Amount::ONE_SAT, EvidenceError::WrongOutput),
        (|it| it.output[0].value += Amount::ONE_SAT, EvidenceError::WrongOutput),
        (|it| it.output[0].script_pubkey = ScriptBuf::new(), EvidenceError::WrongOutput),
        (|it| it.output.clear(), EvidenceError::NoSuchOutput(0)),
    ];
    for (change, error) in cases {
        for is_connected in [true, false] {
            let mut node = Lasting::new().await;
            let (mut peer, mut session) = node.connect().await;
            let fund = |output: &FundingOutput, index| {
                let mut transaction = funding_transaction(output, index);
                change(&mut transaction);
                transaction
            };
            let channel = node.they_fund_by(&mut peer, |_| {}, fund).await;
            if !is_connected {
                peer.disconnect().await;
                let result = node.confirm(&channel, 6).await;
                assert_eq!(result, Err(ConfirmError::Evidence(error)));
                (peer, session) = node.connect().await;
            } else {
                let result = node.confirm(&channel, 1).await;
                assert_eq!(result, Err(ConfirmError::Evidence(error)));
            }
            assert_eq!(peer.expect_error(channel.id).await, error.to_string());
            assert_eq!(end(&node).await, (End::WrongFunding(error), Exit::Nothing));
            // For good.
            assert!(node.confirm(&channel, 6).await.is_err());
            peer.send(&peer.channel_ready(channel.id)).await;
            peer.expect_silence().await;
            assert_eq!((node.readies(), node.ends()), (0, vec![]));
            drop((peer, session));
            assert!(matches!(node.restart_with_one().await, Restored::Failed { .. }));
        }
    }
}

/// What is not the funding transaction says nothing about the channel.
// req: B2-CR-S-01
#[tokio::test]
async fn another_transaction_changes_nothing() {
    let node = Lasting::new().await;
    let (mut peer, _session) = node.connect().await;
    let channel = node.they_fund(&mut peer, |_| {}).await;
    let mut other = channel.transaction.clone();
    other.lock_time = LockTime::from_height(7).unwrap();
    let result = node.openings.confirmed(channel.id, confirmation(&other, 100)).await;
    assert_eq!(result, Err(EvidenceError::WrongTransaction.into()));
    peer.expect_silence().await;
    assert_eq!(node.ends(), [""; 0]);
    node.confirm(&channel, 3).await.unwrap();
    peer.expect_channel_ready(channel.id).await;
}

// req: B2-CR-S-02
#[tokio::test]
async fn a_depth_of_0_is_no_place_in_the_chain() {
    let mut node = Lasting::new().await;
    let (mut peer, _session) = node.connect().await;
    let channel = node.they_fund(&mut peer, |_| {}).await;
    let place = opening_core::ShortChannelId::new(102, 1, 0).unwrap();
    node.confirm(&channel, 0).await.unwrap();
    assert_eq!(node.openings.channel_known_as(place), None);
    node.confirm(&channel, 2).await.unwrap();
    assert_eq!(node.openings.channel_known_as(place), Some(channel.id));
    // As good as a reorganisation.
    node.confirm(&channel, 0).await.unwrap();
    assert_eq!(node.openings.channel_known_as(place), None);
    peer.expect_silence().await;
    drop(peer);
    assert!(matches!(node.restart_with_one().await, Restored::AwaitDepth(_)));
}

#[tokio::test]
async fn a_reorganisation_before_the_depth_counts_anew() {
    let node = Lasting::new().await;
    let (mut peer, _session) = node.connect().await;
    let channel = node.they_fund(&mut peer, |_| {}).await;
    for _ in 0..3 {
        node.confirm(&channel, 2).await.unwrap();
        node.openings.unconfirmed(&channel.id).unwrap();
        node.openings.unconfirmed(&channel.id).unwrap();
    }
    peer.expect_silence().await;
    node.confirm(&channel, 3).await.unwrap();
    peer.expect_channel_ready(channel.id).await;
}

/// It was made, but not said yet.
#[tokio::test(start_paused = true)]
async fn a_reorganisation_while_channel_ready_is_being_kept_holds_it_back() {
    let node = Lasting::new().await;
    let (mut peer, _session) = node.connect().await;
    let channel = node.they_fund(&mut peer, |_| {}).await;
    let faults = node.faults.clone().at("update", EVERY, Fault::Hold);
    assert_eq!(node.confirm(&channel, 3).await, Err(ConfirmError::NotReady));
    node.openings.unconfirmed(&channel.id).unwrap();
    faults.repair();
    faults.release();
    node.until_kept(&channel, |progress| progress.local.is_some()).await;
    peer.expect_silence().await;
    node.confirm(&channel, 2).await.unwrap();
    peer.expect_silence().await;
    node.confirm(&channel, 3).await.unwrap();
    peer.expect_channel_ready(channel.id).await;
    peer.expect_silence().await;
}

/// What was sent stays sent; the place is the last one shown.
#[tokio::test]
async fn a_reorganisation_after_the_depth_takes_nothing_back() {
    let mut node = Lasting::new().await;
    let (mut peer, session) = node.connect().await;
    let (channel, _permit) = node.we_fund(&mut peer, &session, ask()).await;
    node.confirm(&channel, 3).await.unwrap();
    let said = peer.expect_channel_ready(channel.id).await;
    node.openings.unconfirmed(&channel.id).unwrap();
    peer.expect_silence().await;
    peer.send(&peer.channel_ready(channel.id)).await;
    assert_eq!(node.ready(&channel).await.short_channel_id, None);
    let elsewhere = Confirmation { block_height: 110, ..confirmation(&channel.transaction, 1) };
    node.openings.confirmed(channel.id, elsewhere).await.unwrap();
    let place = opening_core::ShortChannelId::new(110, 1, 0).unwrap();
    assert_eq!(node.openings.channel_known_as(place), Some(channel.id));
    peer.expect_silence().await;
    assert_eq!((node.readies(), node.ends()), (1, vec![]));
    // It may be lost from the chain for good: the funder can still broadcast it.
    node.openings.unconfirmed(&channel.id).unwrap();
    assert!(node.openings.broadcast_permit(&channel.id).is_some());
    drop((peer, session));
    node.restart().await;
    let (mut peer, _session) = node.connect().await;
    peer.reestablish(channel.id).await;
    assert_eq!(peer.expect_channel_ready(channel.id).await, said);
}

/// The output of a coinbase cannot be spent before: a commitment that cannot confirm is no way out.
#[tokio::test]
async fn a_coinbase_that_funds_a_channel_takes_100_blocks() {
    let node = Lasting::new().await;
    let (mut peer, _session) = node.connect().await;
    let fund = |output: &FundingOutput, _| coinbase(output);
    let channel = node.they_fund_by(&mut peer, |_| {}, fund).await;
    for depth in [1, 3, 6, 99] {
        node.confirm(&channel, depth).await.unwrap();
        peer.expect_silence().await;
    }
    node.confirm(&channel, 100).await.unwrap();
    peer.expect_channel_ready(channel.id).await;
}

// req: B5-MON-B-02, B5-MON-B-03, B2-RE-B-11
#[tokio::test]
async fn a_spent_funding_output_fails_the_channel_and_tells_by_whose_transaction() {
    for which in [Spender::RemoteCommitment, Spender::LocalCommitment, Spender::Other] {
        for is_connected in [true, false] {
            let mut node = Lasting::new().await;
            let (mut peer, mut session) = node.connect().await;
            let channel = node.they_fund(&mut peer, |_| {}).await;
            let transaction = match which {
                Spender::RemoteCommitment => channel.opened.remote_commitment.transaction.clone(),
                Spender::LocalCommitment => channel.opened.local_commitment.transaction.clone(),
                Spender::Other => spending(&channel),
            };
            let txid = transaction.compute_txid();
            if !is_connected {
                peer.disconnect().await;
                assert_eq!(node.openings.spent(&channel.id, &transaction).await, Ok(which));
                (peer, session) = node.connect().await;
            } else {
                assert_eq!(node.openings.spent(&channel.id, &transaction).await, Ok(which));
            }
            assert_eq!(peer.expect_error(channel.id).await, "the funding output is spent");
            assert_eq!(end(&node).await, (End::Spent { txid, spender: which }, Exit::Watch));
            node.confirm(&channel, 6).await.unwrap();
            peer.send(&peer.channel_ready(channel.id)).await;
            peer.expect_silence().await;
            // Told once more, as after a restart: the same, and no second end.
            assert_eq!(node.openings.spent(&channel.id, &transaction).await, Ok(which));
            assert_eq!((node.readies(), node.ends()), (0, vec![]));
            drop((peer, session));
            assert!(matches!(node.restart_with_one().await, Restored::Failed { .. }));
        }
    }
}

#[tokio::test]
async fn a_transaction_that_spends_something_else_fails_nothing() {
    let node = Lasting::new().await;
    let (mut peer, _session) = node.connect().await;
    let channel = node.they_fund(&mut peer, |_| {}).await;
    let mut other = spending(&channel);
    other.input[0].previous_output.vout = 1;
    for transaction in [&other, &channel.transaction] {
        let result = node.openings.spent(&channel.id, transaction).await;
        assert_eq!(result, Err(EvidenceError::WrongTransaction.into()));
    }
    let unknown = lightning::ln::types::ChannelId([9; 32]);
    let result = node.openings.spent(&unknown, &other).await;
    assert_eq!(result, Err(ConfirmError::UnknownChannel));
    peer.expect_silence().await;
    assert_eq!(node.ends(), [""; 0]);
}

// req: B2-CR-S-13
#[tokio::test]
async fn a_fundee_forgets_what_has_not_confirmed_for_2016_blocks() {
    for is_connected in [true, false] {
        let mut node = Lasting::new().await;
        let (mut peer, session) = node.connect().await;
        let channel = node.they_fund(&mut peer, without_push).await;
        node.openings.block_connected(1000).await;
        node.until_kept(&channel, |progress| progress.waiting_since == Some(1000)).await;
        // The count goes on over a restart; so does a chain that goes back a little.
        for height in [1001, 999, 3015] {
            node.openings.block_connected(height).await;
            assert!(node.kept(&channel).await.is_some(), "{height}");
        }
        drop((peer, session));
        assert!(matches!(node.restart_with_one().await, Restored::AwaitDepth(_)));
        node.openings.block_connected(3015).await;
        assert!(node.kept(&channel).await.is_some());
        let (mut peer, mut session) = node.connect().await;
        peer.expect_reestablish(channel.id).await;
        if !is_connected {
            peer.disconnect().await;
            node.openings.block_connected(3016).await;
            (peer, session) = node.connect().await;
        } else {
            node.openings.block_connected(3016).await;
            let text = peer.expect_error(channel.id).await;
            assert_eq!(text, "the funding transaction has not confirmed in time");
        }
        assert_eq!(node.kept(&channel).await, None);
        assert_eq!(end(&node).await, (End::Forgotten { blocks: 2016 }, Exit::Nothing));
        // It is no channel any more.
        assert_eq!(node.confirm(&channel, 6).await, Err(ConfirmError::UnknownChannel));
        peer.send(&peer.channel_reestablish(channel.id)).await;
        assert_eq!(peer.expect_error(channel.id).await, "no such channel");
        node.openings.block_connected(3017).await;
        assert_eq!(node.ends(), [""; 0]);
        drop((peer, session));
        assert!(node.restart().await.is_empty());
    }
}

// req: B2-CR-S-13
#[tokio::test]
async fn a_fundee_forgets_nothing_that_confirmed_or_holds_its_money() {
    let mut node = Lasting::new().await;
    let (mut peer, session) = node.connect().await;
    let pushed = node.they_fund(&mut peer, |open| open.push_msat = 1).await;
    let confirmed = node.they_fund(&mut peer, without_push).await;
    let (ours, _permit) = node.we_fund(&mut peer, &session, ask()).await;
    node.openings.block_connected(1000).await;
    node.confirm(&confirmed, 1).await.unwrap();
    // Not even if a reorganisation has taken it away since.
    node.openings.unconfirmed(&confirmed.id).unwrap();
    for height in [3015, 3016, 3017, 500_000, u32::MAX] {
        node.openings.block_connected(height).await;
    }
    node.until_kept(&confirmed, |progress| progress.was_confirmed).await;
    for channel in [&pushed, &confirmed, &ours] {
        assert!(node.kept(channel).await.is_some());
    }
    assert_eq!(node.ends(), [""; 0]);
    peer.expect_silence().await;
    drop((peer, session));
    assert_eq!(node.restart().await.len(), 3);
    node.openings.block_connected(u32::MAX).await;
    assert_eq!(node.ends(), [""; 0]);
}

/// It is in use: nobody forgets it because it is unconfirmed.
// req: B2-CR-S-13
#[tokio::test]
async fn a_zeroconf_channel_is_not_forgotten() {
    let node = Lasting::with(|node| {
        let mut bounds = regtest_bounds();
        bounds.limits.trust_zeroconf = true;
        node.policy = Arc::new(AcceptWithin(bounds));
    })
    .await;
    let (mut peer, _session) = node.connect().await;
    let zeroconf = ChannelType { zeroconf: true, ..ChannelType::ANCHORS };
    let channel = node
        .they_fund(&mut peer, |open| {
            open.push_msat = 0;
            open.common_fields.channel_type = Some(zeroconf.to_features());
        })
        .await;
    peer.expect_channel_ready(channel.id).await;
    for height in [1, 2017, 9999] {
        node.openings.block_connected(height).await;
    }
    assert!(node.kept(&channel).await.is_some());
    peer.expect_silence().await;
}

/// The signer's memory is freed, too, and a store that fails is asked until it has forgotten.
// req: B2-CR-S-13
#[tokio::test(start_paused = true)]
async fn forgetting_goes_on_until_the_store_has_done_it_and_is_told_once() {
    for fault in [Fault::FailBefore, Fault::FailAfter, Fault::Panic, Fault::Hold] {
        let mut node = Lasting::new().await;
        let (mut peer, _session) = node.connect().await;
        let channel = node.they_fund(&mut peer, without_push).await;
        node.openings.block_connected(1).await;
        let faults = node.faults.clone().at("remove", EVERY, fault);
        node.openings.block_connected(2017).await;
        node.openings.block_connected(2018).await;
        assert_eq!(node.ends(), [""; 0], "{fault:?}");
        // Nothing happens to it any more: no channel_ready for a channel that is going.
        assert_eq!(node.confirm(&channel, 6).await, Err(ConfirmError::UnknownChannel));
        peer.expect_silence().await;
        faults.repair();
        faults.release();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(node.ends(), ["funding-unconfirmed"], "{fault:?}");
        peer.expect_error(channel.id).await;
        peer.expect_silence().await;
        assert!(node.restart().await.is_empty());
    }
}

// req: B2-FC-S-07
#[tokio::test]
async fn a_funder_is_reminded_each_day_of_what_has_not_confirmed() {
    let node = Lasting::new().await;
    let (mut peer, session) = node.connect().await;
    let (channel, _permit) = node.we_fund(&mut peer, &session, ask()).await;
    let theirs = node.they_fund(&mut peer, |_| {}).await;
    let reminders = || {
        node.seen.all(|event| match event {
            Event::StillUnconfirmed { opened, blocks } => {
                assert_eq!(opened.channel_id, channel.id);
                Some(*blocks)
            }
            _ => None,
        })
    };
    for height in 100..=100 + 2016 {
        node.openings.block_connected(height).await;
    }
    let days: Vec<u32> = (1..=14).map(|day| day * 144).collect();
    assert_eq!(reminders(), days);
    // The same height again says nothing new; blocks may be told together.
    node.openings.block_connected(2116).await;
    node.openings.block_connected(2300).await;
    assert_eq!(reminders()[14..], [2200]);
    node.confirm(&channel, 1).await.unwrap();
    node.openings.block_connected(9000).await;
    assert_eq!(reminders().len(), 15);
    assert!(node.kept(&theirs).await.is_some());
}

/// The next block asks a signer or store again that did not do its part, without new evidence.
#[tokio::test(start_paused = true)]
async fn a_block_brings_what_was_due_and_could_not_be_made() {
    let node = Lasting::with(|node| node.deadlines.store = Duration::from_secs(1)).await;
    let (mut peer, _session) = node.connect().await;
    let channel = node.they_fund(&mut peer, |_| {}).await;
    let faults = node.faults.clone().at("update", EVERY, Fault::FailBefore);
    assert_eq!(node.confirm(&channel, 3).await, Err(ConfirmError::NotReady));
    faults.repair();
    node.openings.block_connected(105).await;
    peer.expect_channel_ready(channel.id).await;
    peer.expect_silence().await;
}

/// What confirms, or is forgotten, makes room for others.
#[tokio::test]
async fn an_unconfirmed_channel_counts_until_it_is_in_a_block_or_forgotten() {
    let mut node = Lasting::with(|node| {
        let capacity = Capacity { unconfirmed_per_peer: 2, ..Capacity::default() };
        node.capacity = Capacity { opens_per_second: None, ..capacity };
    })
    .await;
    let (mut peer, session) = node.connect().await;
    let one = node.they_fund(&mut peer, |_| {}).await;
    node.they_fund(&mut peer, without_push).await;
    refused(&node, &mut peer, 0xa1).await;
    // Not by evidence of a depth of nothing.
    node.confirm(&one, 0).await.unwrap();
    refused(&node, &mut peer, 0xa2).await;
    node.confirm(&one, 1).await.unwrap();
    node.they_fund(&mut peer, without_push).await;
    refused(&node, &mut peer, 0xa3).await;
    drop((peer, session));
    node.until_kept(&one, |progress| progress.was_confirmed).await;
    node.restart().await;
    let (mut peer, _session) = node.connect().await;
    for _ in 0..3 {
        peer.receive().await;
    }
    refused(&node, &mut peer, 0xa4).await;
    node.openings.block_connected(1).await;
    node.openings.block_connected(2017).await;
    for _ in 0..2 {
        peer.receive().await;
    }
    node.they_fund(&mut peer, |_| {}).await;
}

async fn refused(node: &Lasting, peer: &mut RawPeer, id: u8) {
    let id = lightning::ln::types::ChannelId([id; 32]);
    peer.send(&peer.open_channel(id)).await;
    peer.expect_error(id).await;
    let failed = node.seen.take(|event| matches!(event, Event::Failed(_))).await;
    let Event::Failed(failed) = failed else { unreachable!("taken for what it is") };
    assert!(matches!(*failed.failure, Failure::TooManyUnconfirmedWithPeer(2)), "{failed}");
}
