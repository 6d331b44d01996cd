//! What a node remembers of its channels when it starts again.

// Clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::lasting::{Funded, Lasting, PEER};
use common::raw_peer::RawPeer;
use common::{ask, node_id, regtest_bounds};
use lightning::ln::msgs::OpenChannel;
use opening_core::ChannelType;
use opening_peer::message::Message;
use opening_peer::negotiation::ready::Exit;
use opening_peer::node::{AcceptWithin, PublicText};
use opening_peer::openings::ConfirmError;
use opening_peer::store::KvChannelStore;
use opening_peer::testing::{EVERY, Fault};
use opening_peer::{Ask, Event, Node, Restored, Session};
use tempfile::TempDir;

const ZEROCONF: ChannelType = ChannelType { zeroconf: true, ..ChannelType::ANCHORS };

fn trusting(node: &mut Node) {
    let mut bounds = regtest_bounds();
    bounds.limits.trust_zeroconf = true;
    node.policy = Arc::new(AcceptWithin(bounds));
}

/// The connection is over before the process is.
async fn leave(peer: RawPeer, session: Session) {
    peer.disconnect().await;
    drop(session);
}

// req: B2-RE-B-04, B2-RE-B-06, B2-RE-B-08, B2-RE-B-09
#[tokio::test]
async fn a_fundee_goes_on_where_it_was_after_funding_signed() {
    let mut node = Lasting::new().await;
    let (mut peer, session) = node.connect().await;
    let channel = node.they_fund(&mut peer, |_| {}).await;
    drop((peer, session));
    match node.restart_with_one().await {
        Restored::AwaitDepth(opened) => assert_eq!(opened, channel.opened),
        other => panic!("{other:?}"),
    }
    // The depth is reached while nobody is connected.
    node.confirm(&channel, 3).await.unwrap();
    let (mut peer, _session) = node.connect().await;
    peer.expect_reestablish(channel.id).await;
    peer.expect_silence().await;
    peer.send(&peer.channel_reestablish(channel.id)).await;
    peer.expect_channel_ready(channel.id).await;
    assert_eq!(node.readies(), 0);
    peer.send(&peer.channel_ready(channel.id)).await;
    let ready = node.ready(&channel).await;
    assert_eq!(ready.opened, channel.opened);
    assert_eq!(ready.remote.second_per_commitment_point, peer.point(7));
    peer.expect_silence().await;
}

// req: B2-RE-B-02, B2-RE-B-10, B5-MON-B-01
#[tokio::test]
async fn a_funder_may_broadcast_until_the_transaction_has_been_in_a_block() {
    let mut node = Lasting::new().await;
    let (mut peer, session) = node.connect().await;
    let (channel, permit) = node.we_fund(&mut peer, &session, ask()).await;
    assert_eq!(permit.txid(), channel.transaction.compute_txid());
    drop((permit, peer, session));
    for _ in 0..2 {
        match node.restart_with_one().await {
            Restored::MayBroadcast { opened, permit } => {
                // What is to be broadcast, and the outpoint to watch from then on.
                assert_eq!(opened.funding_transaction, Some(channel.transaction.clone()));
                assert_eq!(opened.parameters.funding_outpoint.txid, permit.txid());
                assert_eq!(opened, channel.opened);
            }
            other => panic!("{other:?}"),
        }
        let (mut peer, _session) = node.connect().await;
        peer.expect_reestablish(channel.id).await;
    }
    node.confirm(&channel, 1).await.unwrap();
    node.until_kept(&channel, |progress| progress.was_confirmed).await;
    for _ in 0..2 {
        assert!(matches!(node.restart_with_one().await, Restored::AwaitDepth(_)));
        // Whoever lost the transaction may still ask.
        assert!(node.openings.broadcast_permit(&channel.id).is_some());
    }
}

// req: B2-RE-R-02, B2-RE-B-10
#[tokio::test]
async fn channel_ready_is_the_same_in_every_process() {
    let mut node = Lasting::new().await;
    let (mut peer, session) = node.connect().await;
    let (channel, _permit) = node.we_fund(&mut peer, &session, ask()).await;
    node.confirm(&channel, 3).await.unwrap();
    let first = peer.expect_channel_ready(channel.id).await;
    assert!(first.short_channel_id_alias.is_some());
    peer.send(&peer.channel_ready(channel.id)).await;
    node.ready(&channel).await;
    drop((peer, session));
    for _ in 0..3 {
        assert!(matches!(node.restart_with_one().await, Restored::AwaitChannelReady(_)));
        let (mut peer, _session) = node.connect().await;
        peer.reestablish(channel.id).await;
        // Though the chain has not been shown again.
        assert_eq!(peer.expect_channel_ready(channel.id).await, first);
        assert_eq!(node.readies(), 0);
        peer.send(&peer.channel_ready(channel.id)).await;
        assert_eq!(node.ready(&channel).await.short_channel_id, None);
        node.confirm(&channel, 9).await.unwrap();
        peer.expect_silence().await;
        assert_eq!(node.readies(), 1);
    }
}

#[tokio::test]
async fn a_zeroconf_channel_of_ours_is_broadcast_again_though_it_was_ready() {
    let mut node = Lasting::with(trusting).await;
    let (mut peer, session) = node.connect().await;
    let ask = Ask { channel_type: Some(ZEROCONF), ..ask() };
    let (channel, _permit) = node.we_fund(&mut peer, &session, ask).await;
    let first = peer.expect_channel_ready(channel.id).await;
    peer.send(&peer.channel_ready(channel.id)).await;
    node.ready(&channel).await;
    drop((peer, session));
    assert!(matches!(node.restart_with_one().await, Restored::MayBroadcast { .. }));
    let (mut peer, _session) = node.connect().await;
    peer.reestablish(channel.id).await;
    assert_eq!(peer.expect_channel_ready(channel.id).await, first);
    node.confirm(&channel, 1).await.unwrap();
    node.until_kept(&channel, |progress| progress.was_confirmed).await;
    assert!(matches!(node.restart_with_one().await, Restored::AwaitChannelReady(_)));
}

/// An alias is no other channel's, in any process.
// req: B2-CR-S-08
#[tokio::test]
async fn an_alias_of_an_earlier_process_is_not_given_again() {
    struct Counter(std::sync::atomic::AtomicU8);
    impl opening_peer::node::Entropy for Counter {
        fn bytes(&self) -> [u8; 32] {
            [self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst); 32]
        }
    }
    let mut node = Lasting::with(|node| node.entropy = Arc::new(Counter(5.into()))).await;
    let (mut peer, session) = node.connect().await;
    let channel = node.they_fund(&mut peer, |_| {}).await;
    node.confirm(&channel, 3).await.unwrap();
    let first = peer.expect_channel_ready(channel.id).await.short_channel_id_alias;
    assert_eq!(first, Some(u64::from_be_bytes([5; 8])));
    drop((peer, session));
    node.restart().await;
    let (mut peer, _session) = node.connect().await;
    peer.reestablish(channel.id).await;
    peer.expect_channel_ready(channel.id).await;
    let other = node.they_fund(&mut peer, |_| {}).await;
    node.confirm(&other, 3).await.unwrap();
    let second = peer.expect_channel_ready(other.id).await.short_channel_id_alias;
    assert_eq!(second, Some(u64::from_be_bytes([6; 8])));
}

type Ends = fn(&Lasting, &Funded) -> futures::future::BoxFuture<'static, ()>;

/// Every way in which a channel fails here, what it is called, and what is left to do.
fn failures() -> [(Ends, &'static str, Exit); 2] {
    [
        (
            |node, channel| {
                let (openings, id) = (node.openings.clone(), channel.id);
                Box::pin(async move {
                    openings.fail(&id, &PublicText::new("enough of it")).await.unwrap();
                })
            },
            "enough of it",
            Exit::Broadcast,
        ),
        (
            |node, channel| {
                let (openings, opened) = (node.openings.clone(), channel.opened.clone());
                Box::pin(async move {
                    let spending = &opened.remote_commitment.transaction;
                    openings.spent(&opened.channel_id, spending).await.unwrap();
                })
            },
            "the funding output is spent",
            Exit::Watch,
        ),
    ]
}

// req: B2-RE-B-07
#[tokio::test]
async fn a_channel_that_failed_before_a_restart_has_failed_after_it() {
    for (fail, text, exit) in failures() {
        let mut node = Lasting::new().await;
        let (mut peer, session) = node.connect().await;
        let channel = node.they_fund(&mut peer, |_| {}).await;
        leave(peer, session).await;
        fail(&node, &channel).await;
        assert_eq!(node.ends().len(), 1);
        for _ in 0..2 {
            match node.restart_with_one().await {
                Restored::Failed { opened, failure } => {
                    assert_eq!(opened, channel.opened);
                    assert_eq!((failure.reason.as_str(), failure.exit), (text, exit));
                }
                other => panic!("{other:?}"),
            }
            let (mut peer, _session) = node.connect().await;
            assert_eq!(peer.expect_error(channel.id).await, text);
            peer.send(&peer.channel_reestablish(channel.id)).await;
            peer.send(&peer.channel_ready(channel.id)).await;
            peer.send_error(channel.id, "and so do we").await;
            node.confirm(&channel, 6).await.unwrap();
            peer.expect_silence().await;
            assert_eq!((node.readies(), node.ends()), (0, vec![]));
        }
    }
}

// req: B2-RE-B-07
#[tokio::test]
async fn a_channel_that_the_peer_failed_stays_failed_when_it_thinks_better_of_it() {
    let mut node = Lasting::new().await;
    let (mut peer, session) = node.connect().await;
    let channel = node.they_fund(&mut peer, |_| {}).await;
    peer.send_error(channel.id, "we have lost it").await;
    node.until_kept(&channel, |progress| progress.failed.is_some()).await;
    assert_eq!(node.ends(), ["peer-error"]);
    drop((peer, session));
    assert!(matches!(node.restart_with_one().await, Restored::Failed { .. }));
    let (mut peer, _session) = node.connect().await;
    peer.send(&peer.channel_reestablish(channel.id)).await;
    assert_eq!(peer.expect_error(channel.id).await, "the channel has failed");
    peer.expect_silence().await;
}

// req: B2-RE-B-08, B1-ERR-S-06
#[tokio::test]
async fn a_damaged_entry_is_named_and_its_peer_hears_a_warning_while_the_others_go_on() {
    let directory = TempDir::new().unwrap();
    let store = Arc::new(KvChannelStore::in_directory(directory.path()).unwrap());
    let mut node = Lasting::on(store, |_| {}).await;
    let (mut peer, session) = node.connect().await;
    let (one, other) =
        (node.they_fund(&mut peer, |_| {}).await, node.they_fund(&mut peer, |_| {}).await);
    let damaged = node.they_fund(&mut peer, |_| {}).await;
    drop((peer, session));
    let file = directory.path().join("opening/channels").join(damaged.id.to_string());
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    let restored = node.restart().await;
    let codes: Vec<_> = restored
        .iter()
        .map(|restored| match restored {
            Restored::AwaitDepth(opened) if opened.channel_id != damaged.id => "depth",
            Restored::Damaged { key, error } => {
                assert_eq!(*key, damaged.id.to_string());
                error.code()
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(codes.iter().filter(|code| **code == "depth").count(), 2);
    assert!(codes.contains(&"store-damaged"));
    let (mut peer, _session) = node.connect().await;
    let mut remembered = Vec::new();
    for _ in 0..2 {
        match peer.receive().await {
            Message::ChannelReestablish(message) => remembered.push(message.channel_id),
            other => panic!("{other:?}"),
        }
    }
    assert!(remembered.contains(&one.id) && remembered.contains(&other.id));
    // An error would make the peer close a channel that may be mended.
    for _ in 0..2 {
        peer.send(&peer.channel_reestablish(damaged.id)).await;
        peer.expect_warning(damaged.id).await;
        peer.send(&peer.channel_ready(damaged.id)).await;
        peer.expect_warning(damaged.id).await;
    }
    peer.expect_silence().await;
    // Its outpoint is taken, whoever offers it.
    let open = peer.open_channel(lightning::ln::types::ChannelId([0xaa; 32]));
    peer.send(&open).await;
    let accept = peer.expect_accept_channel(open.common_fields.temporary_channel_id).await;
    let outpoint = damaged.opened.parameters.funding_outpoint;
    peer.send(&peer.funding_created(&open, &accept, outpoint)).await;
    peer.expect_error(open.common_fields.temporary_channel_id).await;
    // Mended, it is there again.
    std::fs::write(&file, &whole).unwrap();
    assert_eq!(node.restart().await.len(), 3);
    let (peer, _session) = node.connect().await;
    drop(peer);
}

#[tokio::test(start_paused = true)]
async fn what_became_of_a_channel_is_written_until_the_store_has_done_it() {
    for fault in [Fault::FailBefore, Fault::FailAfter, Fault::Panic] {
        let mut node = Lasting::new().await;
        let (mut peer, session) = node.connect().await;
        let channel = node.they_fund(&mut peer, |_| {}).await;
        let faults = node.faults.clone().at("update", EVERY, fault);
        peer.send_error(channel.id, "no more").await;
        node.seen.take(|event| matches!(event, Event::Ended(_))).await;
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert!(faults.calls("update") > 100, "{fault:?}");
        faults.repair();
        node.until_kept(&channel, |progress| progress.failed.is_some()).await;
        drop((peer, session));
        assert!(matches!(node.restart_with_one().await, Restored::Failed { .. }));
    }
}

#[tokio::test(start_paused = true)]
async fn channel_ready_waits_for_the_store_and_leaves_by_itself_when_it_is_kept() {
    for fault in [Fault::FailBefore, Fault::FailAfter, Fault::Panic, Fault::Hold] {
        let node = Lasting::new().await;
        let (mut peer, _session) = node.connect().await;
        let channel = node.they_fund(&mut peer, |_| {}).await;
        let faults = node.faults.clone().at("update", EVERY, fault);
        assert_eq!(node.confirm(&channel, 3).await, Err(ConfirmError::NotReady), "{fault:?}");
        // Nor is the channel in use by the peer's alone.
        peer.send(&peer.channel_ready(channel.id)).await;
        peer.expect_silence().await;
        tokio::time::sleep(Duration::from_secs(600)).await;
        peer.expect_silence().await;
        assert_eq!(node.readies(), 0, "{fault:?}");
        faults.repair();
        faults.release();
        let said = peer.expect_channel_ready(channel.id).await;
        let local = node.kept(&channel).await.unwrap().local.unwrap();
        assert_eq!(said.next_per_commitment_point, local.second_per_commitment_point);
        node.ready(&channel).await;
        peer.expect_silence().await;
        assert_eq!(node.readies(), 1);
    }
}

/// The funder has our `funding_signed` where we were late to learn that we saved, or it has signed
/// and we are still saving: it comes back before there is a channel.
// req: B2-RE-B-06, B1-ERR-S-06
#[tokio::test(start_paused = true)]
async fn a_peer_that_comes_back_while_its_channel_is_still_being_saved_is_kept_waiting() {
    let node = Lasting::new().await;
    let (mut peer, session) = node.connect().await;
    let faults = node.faults.clone().at("save", 1, Fault::Hold);
    let opening = session.open(ask()).await.unwrap();
    let open = peer.expect_open_channel().await;
    let accept = peer.accept_channel(&open);
    peer.send(&accept).await;
    let pending = opening.accepted().await.unwrap();
    let funding = common::signed(&pending.needed().output);
    let mut signing = pending.complete(funding).await.unwrap();
    let created = peer.expect_funding_created().await;
    let signed = peer.funding_signed(&open, &accept, &created);
    peer.send(&signed).await;
    faults.struck().await;
    peer.disconnect().await;
    // The old connection waits for the store, but not for ever.
    let (mut peer, _session) = node.connect().await;
    peer.send(&peer.channel_reestablish(signed.channel_id)).await;
    peer.expect_silence().await;
    // Others hear what they always do.
    let (mut stranger, _other) = RawPeer::connect(&node.openings, PEER + 1).await;
    stranger.send(&stranger.channel_reestablish(signed.channel_id)).await;
    stranger.expect_error(signed.channel_id).await;
    faults.release();
    let (opened, _permit) = signing.opened().await.unwrap();
    assert_eq!(opened.reference.peer, node_id(PEER));
    peer.expect_reestablish(opened.channel_id).await;
    // Its word still counts.
    let transaction = opened.funding_transaction.clone().unwrap();
    let channel = Funded { id: opened.channel_id, opened, transaction };
    node.confirm(&channel, 3).await.unwrap();
    peer.expect_channel_ready(channel.id).await;
    peer.expect_silence().await;
}

/// A signer that forgets everything with the process, as a blind one may.
#[tokio::test]
async fn the_signer_is_told_again_what_a_channel_is_made_of() {
    let mut node = Lasting::new().await;
    let (mut peer, session) = node.connect().await;
    let plain = |open: &mut OpenChannel| {
        open.common_fields.channel_type = Some(ChannelType::STATIC_REMOTEKEY.to_features());
    };
    let channel = node.they_fund(&mut peer, plain).await;
    leave(peer, session).await;
    node.restart().await;
    node.openings.fail(&channel.id, &PublicText::new("")).await.unwrap();
    let commitment = node.openings.signed_commitment(&channel.id).await.unwrap();
    let output = channel.transaction.output[0].clone();
    commitment.verify(|_: &bitcoin::OutPoint| Some(output.clone())).unwrap();
}
