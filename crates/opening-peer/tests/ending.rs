//! How an opened channel ends before it is the node's, and what the node can do about it.

// Clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

mod common;
mod faulty;

use std::sync::Arc;
use std::time::Duration;

use bitcoin::{OutPoint, Transaction};
use common::lasting::{Funded, Lasting};
use common::raw_peer::RawPeer;
use common::{ask, confirmation};
use lightning::ln::msgs::OpenChannel;
use lightning::ln::types::ChannelId;
use opening_core::ChannelType;
use opening_peer::funding::FundingTransaction;
use opening_peer::negotiation::ready::{Confirmation, Exit};
use opening_peer::node::PublicText;
use opening_peer::openings::{AbandonError, ConfirmError, ReleaseError, SignError};
use opening_peer::testing::{EVERY, Fault, Faults, MockHsm};
use opening_peer::{BroadcastPermit, Event, Restored, Session};
use opening_signer::{HsmSecret, LocalHsm};

async fn ours(node: &Lasting) -> (Funded, BroadcastPermit, RawPeer, Session) {
    let (mut peer, session) = node.connect().await;
    let (channel, permit) = node.we_fund(&mut peer, &session, ask()).await;
    (channel, permit, peer, session)
}

/// What the node has to do about the channel that ended.
fn exits(node: &Lasting) -> Vec<Exit> {
    node.seen.all(|event| match event {
        Event::Ended(ended) => Some(ended.exit),
        _ => None,
    })
}

/// Spends the input of the channel's funding transaction, but pays someone else.
fn conflict(channel: &Funded, depth: u32) -> Confirmation {
    let mut transaction = channel.transaction.clone();
    transaction.output[0].value -= bitcoin::Amount::ONE_SAT;
    confirmation(&transaction, depth)
}

/// Consensus code takes it as spending the funding output.
fn is_valid(commitment: &Transaction, channel: &Funded) -> bool {
    let funding = channel.opened.parameters.funding_outpoint;
    let output = &channel.transaction.output[funding.vout as usize];
    let spent = |outpoint: &OutPoint| (*outpoint == funding).then(|| output.clone());
    commitment.verify(spent).is_ok()
}

// req: B5-FAIL-B-05
#[tokio::test]
async fn a_channel_that_failed_can_be_left_by_our_signed_commitment() {
    for channel_type in [ChannelType::ANCHORS, ChannelType::STATIC_REMOTEKEY] {
        for by_peer in [true, false] {
            for we_fund in [true, false] {
                for is_restarted in [false, true] {
                    leave(channel_type, by_peer, we_fund, is_restarted).await;
                }
            }
        }
    }
}

async fn leave(channel_type: ChannelType, by_peer: bool, we_fund: bool, is_restarted: bool) {
    let mut node = Lasting::new().await;
    let (mut peer, session) = node.connect().await;
    let typed = |open: &mut OpenChannel| {
        open.common_fields.channel_type = Some(channel_type.to_features());
    };
    let ask = opening_peer::Ask { channel_type: Some(channel_type), ..ask() };
    let channel = match we_fund {
        true => node.we_fund(&mut peer, &session, ask).await.0,
        false => node.they_fund(&mut peer, typed).await,
    };
    let signed = node.openings.signed_commitment(&channel.id).await;
    assert!(matches!(signed, Err(SignError::NotFailed)));
    if by_peer {
        peer.send_error(channel.id, "no").await;
        node.until_kept(&channel, |progress| progress.failed.is_some()).await;
    } else {
        node.openings.fail(&channel.id, &PublicText::new("no")).await.unwrap();
        assert_eq!(peer.expect_error(channel.id).await, "no");
    }
    assert_eq!(exits(&node), [Exit::Broadcast]);
    // The peer may have lost it, or want us to pay the fee: there is no new permit.
    assert!(node.openings.broadcast_permit(&channel.id).is_none());
    if is_restarted {
        drop((peer, session));
        assert!(matches!(node.restart_with_one().await, Restored::Failed { .. }));
    }
    let commitment = node.openings.signed_commitment(&channel.id).await.unwrap();
    assert!(is_valid(&commitment, &channel));
    let txid = channel.opened.local_commitment.transaction.compute_txid();
    assert_eq!(commitment.compute_txid(), txid);
    let mut other = channel.clone();
    other.transaction.output[0].value += bitcoin::Amount::ONE_SAT;
    assert!(!is_valid(&commitment, &other));
}

/// No permit, no channel, nothing to broadcast.
// req: B5-FAIL-B-05
#[tokio::test]
async fn an_error_before_our_save_leaves_nothing_to_broadcast() {
    let node = Lasting::new().await;
    let (mut peer, session) = node.connect().await;
    let opening = session.open(ask()).await.unwrap();
    let open = peer.expect_open_channel().await;
    peer.send(&peer.accept_channel(&open)).await;
    let pending = opening.accepted().await.unwrap();
    let funding = common::signed(&pending.needed().output);
    let mut signing = pending.complete(funding).await.unwrap();
    let created = peer.expect_funding_created().await;
    let id = common::raw_peer::channel_id(common::raw_peer::outpoint(&created));
    peer.send_error(id, "no").await;
    assert_eq!(signing.opened().await.unwrap_err().failure.code(), "peer-error");
    let signed = node.openings.signed_commitment(&id).await;
    assert!(matches!(signed, Err(SignError::UnknownChannel)));
    assert!(node.openings.broadcast_permit(&id).is_none());
    assert_eq!((exits(&node), node.store.load_all().await.unwrap().len()), (vec![], 0));
}

// req: B5-FAIL-B-01, B5-FAIL-B-02, B5-FAIL-B-03
#[tokio::test]
async fn a_fundee_without_an_output_may_forget_the_channel_when_it_fails() {
    // Nothing is pushed, and too little for an output.
    for (push_msat, exit) in
        [(0, Exit::Nothing), (353_999, Exit::Nothing), (400_000_000, Exit::Broadcast)]
    {
        let mut node = Lasting::new().await;
        let (mut peer, session) = node.connect().await;
        let channel = node.they_fund(&mut peer, |open| open.push_msat = push_msat).await;
        peer.send_error(channel.id, "no").await;
        node.until_kept(&channel, |progress| progress.failed.is_some()).await;
        assert_eq!(exits(&node), [exit], "{push_msat}");
        // By itself nothing is forgotten: the node says when it is done.
        drop((peer, session));
        assert!(matches!(node.restart_with_one().await, Restored::Failed { .. }));
        node.openings.release(&channel.id).await.unwrap();
        assert!(node.restart().await.is_empty());
    }
}

/// It was told once that the channel has failed, and that is all there is to say.
// req: B5-FAIL-B-01
#[tokio::test]
async fn a_failed_channel_without_our_money_is_forgotten_in_silence_after_2016_blocks() {
    let mut node = Lasting::new().await;
    let (mut peer, _session) = node.connect().await;
    let channel = node.they_fund(&mut peer, |open| open.push_msat = 0).await;
    node.openings.block_connected(1).await;
    node.openings.fail(&channel.id, &PublicText::new("no")).await.unwrap();
    peer.expect_error(channel.id).await;
    node.openings.block_connected(2017).await;
    assert_eq!(node.ends(), ["node-error"]);
    peer.expect_silence().await;
    assert!(node.restart().await.is_empty());
}

#[tokio::test]
async fn the_first_reason_of_a_failure_counts() {
    let node = Lasting::new().await;
    let (mut peer, _session) = node.connect().await;
    let channel = node.they_fund(&mut peer, |_| {}).await;
    node.openings.fail(&channel.id, &PublicText::new("one")).await.unwrap();
    node.openings.fail(&channel.id, &PublicText::new("two")).await.unwrap();
    assert_eq!(peer.expect_error(channel.id).await, "one");
    peer.send_error(channel.id, "three").await;
    peer.expect_silence().await;
    assert_eq!(node.ends(), ["node-error"]);
    let unknown = node.openings.fail(&ChannelId([9; 32]), &PublicText::new("")).await;
    assert_eq!(unknown, Err(ConfirmError::UnknownChannel));
}

#[tokio::test(start_paused = true)]
async fn a_signer_that_fails_to_sign_our_commitment_is_asked_again() {
    let faults = Faults::none();
    let signers = faults.clone();
    let node = Lasting::with(move |node| {
        let hsm = LocalHsm::blind(&HsmSecret::new([1; 32]));
        node.hsm = Arc::new(MockHsm::new(Arc::new(hsm), signers.clone()));
    })
    .await;
    let (channel, _permit, _peer, _session) = ours(&node).await;
    node.openings.fail(&channel.id, &PublicText::new("no")).await.unwrap();
    for fault in [Fault::FailBefore, Fault::StallBefore, Fault::FailAfter] {
        let faults = faults.clone().at("validate_holder_commitment", EVERY, fault);
        let signed = node.openings.signed_commitment(&channel.id).await;
        assert!(matches!(signed, Err(SignError::Signer(_))), "{fault:?}");
        faults.repair();
        assert!(node.openings.signed_commitment(&channel.id).await.is_ok());
    }
}

#[tokio::test]
async fn a_funder_that_never_broadcast_gives_the_permit_back_and_the_channel_is_gone() {
    for is_failed in [false, true] {
        let mut node = Lasting::new().await;
        let (channel, permit, mut peer, session) = ours(&node).await;
        if is_failed {
            peer.send_error(channel.id, "no").await;
            peer.expect_silence().await;
        }
        let abandoned = node.openings.abandon_unbroadcast(permit).await.unwrap();
        assert_eq!(abandoned, [channel.id]);
        if is_failed {
            // Everyone has heard of its end already.
            assert_eq!(node.ends(), ["peer-error"]);
        } else {
            let text = peer.expect_error(channel.id).await;
            assert_eq!(text, "the funding transaction will not confirm");
            assert_eq!((node.ends(), exits(&node)), (vec!["never-broadcast"], vec![Exit::Nothing]));
        }
        peer.expect_silence().await;
        assert!(node.openings.broadcast_permit(&channel.id).is_none());
        assert_eq!(node.confirm(&channel, 6).await, Err(ConfirmError::UnknownChannel));
        drop((peer, session));
        assert!(node.restart().await.is_empty());
    }
}

#[tokio::test]
async fn what_may_have_been_broadcast_is_not_abandoned() {
    // Someone else got a permit, too; either may come back.
    let mut node = Lasting::new().await;
    let (channel, permit, peer, session) = ours(&node).await;
    let again = node.openings.broadcast_permit(&channel.id).unwrap();
    for permit in [permit, again] {
        let (error, permit) = node.openings.abandon_unbroadcast(permit).await.unwrap_err();
        assert_eq!(error.code(), "may-have-been-broadcast");
        assert_eq!(permit.unwrap().txid(), channel.transaction.compute_txid());
    }
    // Who broadcast before the restart, nobody knows.
    drop((peer, session));
    let Restored::MayBroadcast { permit, .. } = node.restart_with_one().await else { panic!() };
    let (error, permit) = node.openings.abandon_unbroadcast(permit).await.unwrap_err();
    assert!(matches!(error, AbandonError::MayHaveBeenBroadcast));
    // It has been in a block, whatever the permit says.
    node.confirm(&channel, 1).await.unwrap();
    node.openings.unconfirmed(&channel.id).unwrap();
    let (error, permit) = node.openings.abandon_unbroadcast(permit.unwrap()).await.unwrap_err();
    assert_eq!(error.code(), "funding-confirmed");
    assert_eq!(node.ends(), [""; 0]);
    // Of no channel of this node.
    let other = Lasting::new().await;
    let (error, _permit) = other.openings.abandon_unbroadcast(permit.unwrap()).await.unwrap_err();
    assert_eq!(error.code(), "unknown-channel");
}

/// From the moment the store is asked there is no way back.
#[tokio::test(start_paused = true)]
async fn a_store_that_fails_is_asked_until_an_abandoned_channel_is_gone() {
    for fault in [Fault::FailBefore, Fault::FailAfter, Fault::Panic, Fault::Hold] {
        let mut node = Lasting::new().await;
        let (channel, permit, mut peer, _session) = ours(&node).await;
        let faults = node.faults.clone().at("remove", EVERY, fault);
        let (error, permit) = node.openings.abandon_unbroadcast(permit).await.unwrap_err();
        assert_eq!(error.code(), "store-silent");
        assert!(permit.is_none(), "{fault:?}: who has it may broadcast");
        assert!(node.openings.broadcast_permit(&channel.id).is_none());
        assert_eq!(node.ends(), [""; 0]);
        peer.expect_silence().await;
        faults.repair();
        faults.release();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(node.ends(), ["never-broadcast"], "{fault:?}");
        peer.expect_error(channel.id).await;
        assert!(node.restart().await.is_empty());
    }
}

#[tokio::test]
async fn a_channel_is_abandoned_for_a_conflict_deep_in_the_chain_only() {
    let mut node = Lasting::new().await;
    let (channel, _permit, mut peer, session) = ours(&node).await;
    let abandon = async |evidence: Confirmation| {
        let abandoned = node.openings.abandon_double_spent(&channel.id, &evidence).await;
        abandoned.unwrap_err().code()
    };
    for depth in [0, 1, 5] {
        assert_eq!(abandon(conflict(&channel, depth)).await, "conflict-too-shallow");
    }
    assert_eq!(abandon(confirmation(&channel.transaction, 100)).await, "no-conflict");
    let mut elsewhere = conflict(&channel, 100);
    elsewhere.transaction.input[0].previous_output.vout = 9;
    assert_eq!(abandon(elsewhere).await, "no-conflict");
    let mut nothing = conflict(&channel, 100);
    nothing.transaction.input.clear();
    assert_eq!(abandon(nothing).await, "no-conflict");
    node.confirm(&channel, 1).await.unwrap();
    assert_eq!(abandon(conflict(&channel, 100)).await, "funding-confirmed");
    // A reorganisation replaced it, for good.
    node.openings.unconfirmed(&channel.id).unwrap();
    assert_eq!(node.ends(), [""; 0]);
    peer.expect_silence().await;
    node.openings.abandon_double_spent(&channel.id, &conflict(&channel, 6)).await.unwrap();
    assert_eq!(node.ends(), ["funding-double-spent"]);
    peer.expect_error(channel.id).await;
    drop((peer, session));
    assert!(node.restart().await.is_empty());
}

#[tokio::test]
async fn a_conflict_says_nothing_where_the_peer_funds_or_the_transaction_is_not_known() {
    let node = Lasting::new().await;
    let (mut peer, session) = node.connect().await;
    let theirs = node.they_fund(&mut peer, |_| {}).await;
    let unknown = Funded { id: ChannelId([9; 32]), ..theirs.clone() };
    // A wallet that shows an outpoint only.
    let opening = session.open(ask()).await.unwrap();
    let open = peer.expect_open_channel().await;
    let accept = peer.accept_channel(&open);
    peer.send(&accept).await;
    let pending = opening.accepted().await.unwrap();
    let transaction = common::funding_transaction(&pending.needed().output, 0);
    let outpoint = OutPoint { txid: transaction.compute_txid(), vout: 0 };
    let funding = FundingTransaction::Outpoint(outpoint);
    let mut signing = pending.complete(funding).await.unwrap();
    let created = peer.expect_funding_created().await;
    peer.send(&peer.funding_signed(&open, &accept, &created)).await;
    let (opened, _permit) = signing.opened().await.unwrap();
    let unseen = Funded { id: opened.channel_id, opened, transaction };
    for (channel, code) in [
        (&theirs, "channel-not-ours"),
        (&unknown, "unknown-channel"),
        (&unseen, "funding-transaction-unknown"),
    ] {
        let evidence = conflict(channel, 100);
        let abandoned = node.openings.abandon_double_spent(&channel.id, &evidence).await;
        assert_eq!(abandoned.unwrap_err().code(), code);
    }
    assert_eq!(node.ends(), [""; 0]);
}

#[tokio::test]
async fn a_channel_is_released_once_it_is_in_use_or_has_failed_and_not_before() {
    let mut node = Lasting::new().await;
    let (mut peer, session) = node.connect().await;
    let one = node.they_fund(&mut peer, |_| {}).await;
    let other = node.they_fund(&mut peer, |_| {}).await;
    let early = node.openings.release(&one.id).await;
    assert!(matches!(early, Err(ReleaseError::NotInUse)));
    node.confirm(&one, 3).await.unwrap();
    peer.expect_channel_ready(one.id).await;
    assert!(node.openings.release(&one.id).await.is_err(), "the peer's is awaited");
    peer.send(&peer.channel_ready(one.id)).await;
    node.ready(&one).await;
    node.openings.fail(&other.id, &PublicText::new("no")).await.unwrap();
    peer.expect_error(other.id).await;
    for channel in [&one, &other] {
        node.openings.release(&channel.id).await.unwrap();
        let again = node.openings.release(&channel.id).await;
        assert!(matches!(again, Err(ReleaseError::UnknownChannel)));
    }
    // Nothing of it is told as an end, and its outpoint stays taken.
    assert_eq!(node.ends(), ["node-error"]);
    peer.expect_silence().await;
    drop((peer, session));
    assert!(node.restart().await.is_empty());
}
