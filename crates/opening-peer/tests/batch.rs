//! One transaction that funds channels with several peers: all of them, or none.

#![allow(clippy::unwrap_used)]

mod common;
mod faulty;

use std::sync::Arc;

use bitcoin::secp256k1::PublicKey;
use bitcoin::{Transaction, TxOut};
use common::{ask, confirmation, funding_transaction, node_id, openings};
use faulty::{Log, Made, faulty_node, settle};
use opening_core::FundingOutput;
use opening_peer::negotiation::ready::Progress;
use opening_peer::session::{Batch, BatchFailed, CompleteBatchError, CompleteError, PendingBatch};
use opening_peer::store::{ChannelStore, MemoryStore};
use opening_peer::testing::{Fault, Faults, FaultyStore};
use opening_peer::transport::in_memory_pair;
use opening_peer::{Event, FundingTransaction, Greeting, Node, Openings, Restored, Session};

/// One of the funder's peers.
struct Peer {
    id: PublicKey,
    openings: Arc<Openings>,
    log: Arc<Log>,
    store: Arc<FaultyStore<MemoryStore>>,
    /// The funder's end.
    session: Session,
    theirs: Session,
}

struct Stage {
    openings: Arc<Openings>,
    log: Arc<Log>,
    store: Arc<FaultyStore<MemoryStore>>,
    peers: Vec<Peer>,
}

impl Stage {
    /// A funder with these faults, and three peers of which the second has those.
    async fn new(funder: &Faults, second: &Faults) -> Self {
        Self::with(faulty_node(1, funder), second, |_| {}).await
    }

    async fn with(funder: Made, second: &Faults, change: impl Fn(&mut Node)) -> Self {
        let Made { mut node, log, store, .. } = funder;
        change(&mut node);
        let openings = openings(node);
        let mut peers = Vec::new();
        for secret in 2..5 {
            let none = Faults::none();
            let faults = if secret == 3 { second } else { &none };
            let made = faulty_node(secret, faults);
            let theirs = common::openings(made.node);
            let (near, far) = in_memory_pair();
            let (session, other) = tokio::join!(
                Session::start(openings.clone(), node_id(secret), near, Greeting::default()),
                Session::start(theirs.clone(), node_id(1), far, Greeting::default()),
            );
            peers.push(Peer {
                id: node_id(secret),
                openings: theirs,
                log: made.log,
                store: made.store,
                session: session.unwrap(),
                theirs: other.unwrap(),
            });
        }
        Self { openings, log, store, peers }
    }

    async fn accepted(&self) -> Batch {
        let mut accepted = Vec::new();
        for peer in &self.peers {
            accepted.push(peer.session.open(ask()).await.unwrap().accepted().await.unwrap());
        }
        Batch::new(accepted)
    }

    async fn complete(&self) -> Result<PendingBatch, CompleteBatchError> {
        let batch = self.accepted().await;
        let transaction = paying(&batch.outputs());
        batch.complete(FundingTransaction::Signed(transaction)).await.map_err(|(error, _)| error)
    }

    /// The whole of it; it must fail, with one failure for each peer.
    async fn fails(&self) -> BatchFailed {
        let failed = match self.complete().await {
            Ok(mut pending) => pending.opened().await.unwrap_err(),
            Err(CompleteBatchError::Failed(failed)) => failed,
            Err(other) => panic!("{other}"),
        };
        let peers: Vec<_> = failed.failures.iter().map(|(peer, _)| *peer).collect();
        assert_eq!(peers, self.peers.iter().map(|peer| peer.id).collect::<Vec<_>>());
        settle().await;
        assert_eq!(self.log.failures().len(), 3);
        assert_eq!(self.log.opened_so_far(), 0);
        assert_eq!(self.store.load_all().await.unwrap().len(), 0, "nothing is kept");
        failed
    }

    fn codes(failed: &BatchFailed) -> Vec<&'static str> {
        failed.failures.iter().map(|(_, failed)| failed.failure.code()).collect()
    }
}

/// One transaction that pays all of these, and one more output in front.
fn paying(outputs: &[FundingOutput]) -> Transaction {
    let mut transaction = funding_transaction(&outputs[0], 1);
    transaction.output.truncate(1);
    let paid = |output: &FundingOutput| TxOut {
        value: output.value,
        script_pubkey: output.script_pubkey.clone(),
    };
    transaction.output.extend(outputs.iter().rev().map(paid));
    transaction
}

#[tokio::test(start_paused = true)]
async fn one_transaction_funds_three_channels() {
    let stage = Stage::new(&Faults::none(), &Faults::none()).await;
    let mut pending = stage.complete().await.unwrap();
    let (channels, permit) = pending.opened().await.unwrap();
    assert_eq!(channels.len(), 3);
    for (index, (opened, peer)) in channels.iter().zip(&stage.peers).enumerate() {
        assert_eq!(opened.reference.peer, peer.id);
        let outpoint = opened.parameters.funding_outpoint;
        assert_eq!((outpoint.txid, outpoint.vout as usize), (permit.txid(), 3 - index));
        let mut others: Vec<_> = channels.iter().map(|other| other.channel_id).collect();
        others.remove(index);
        assert_eq!(opened.batch, others);
        let transaction = opened.funding_transaction.clone().unwrap();
        assert_eq!(transaction.output[3 - index].value, opened.parameters.funding_satoshis);
        assert_eq!(peer.log.opened().await.channel_id, opened.channel_id);
        // Each comes into use by itself.
        let evidence = confirmation(&transaction, 3);
        stage.openings.confirmed(opened.channel_id, evidence.clone()).await.unwrap();
        peer.openings.confirmed(opened.channel_id, evidence).await.unwrap();
        peer.log.ready().await;
    }
    for entry in stage.store.load_all().await.unwrap() {
        assert!(entry.stored.unwrap().progress.is_batch_saved);
    }
}

// req: B2-FC-S-03, B2-FS-R-02
#[tokio::test(start_paused = true)]
async fn nothing_is_saved_before_every_peer_has_signed() {
    let slow = Faults::none().at("sign_counterparty_commitment", 1, Fault::Hold);
    let stage = Stage::new(&Faults::none(), &slow).await;
    let mut pending = stage.complete().await.unwrap();
    slow.struck().await;
    settle().await;
    assert_eq!(stage.store.load_all().await.unwrap().len(), 0);
    assert_eq!(stage.log.opened_so_far(), 0);
    slow.release();
    let (channels, _permit) = pending.opened().await.unwrap();
    assert_eq!(channels.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn one_failure_tells_all_others() {
    for (fault, stage_of_second) in [
        ("setup", "funding-signed"),
        ("validate_holder_commitment", "funding-signed"),
        ("sign_counterparty_commitment", "funding-signed"),
        ("save", "funding-signed"),
    ] {
        let faults = Faults::none().at(fault, 1, Fault::FailBefore);
        let stage = Stage::new(&Faults::none(), &faults).await;
        let failed = stage.fails().await;
        assert_eq!(Stage::codes(&failed), ["batch-failed", "peer-error", "batch-failed"]);
        assert_eq!(failed.failures[1].1.stage.as_str(), stage_of_second);
        for peer in [&stage.peers[0], &stage.peers[2]] {
            assert_eq!(peer.log.error_received().await, "channel opening cancelled");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_goes_or_falls_silent_fails_all() {
    let slow = Faults::none().at("sign_counterparty_commitment", 1, Fault::Hold);
    let stage = Stage::new(&Faults::none(), &slow).await;
    let mut pending = stage.complete().await.unwrap();
    slow.struck().await;
    let mut theirs = stage.peers[1].theirs.clone();
    theirs.close().await;
    let failed = pending.opened().await.unwrap_err();
    assert_eq!(Stage::codes(&failed), ["batch-failed", "peer-error", "batch-failed"]);

    let silent = Faults::none().at("sign_counterparty_commitment", 1, Fault::StallBefore);
    let stage = Stage::new(&Faults::none(), &silent).await;
    let failed = stage.fails().await;
    // The fundee's own deadline for its signer is as long as ours for its answer.
    assert_eq!(Stage::codes(&failed)[0], "batch-failed");
    assert_eq!(Stage::codes(&failed)[2], "batch-failed");
}

#[tokio::test(start_paused = true)]
async fn a_save_that_fails_removes_the_others_and_condemns_the_transaction() {
    for nth in 1..=3 {
        let faults = Faults::none().at("save", nth, Fault::FailBefore);
        let stage = Stage::new(&faults, &Faults::none()).await;
        let batch = stage.accepted().await;
        let transaction = paying(&batch.outputs());
        let mut pending =
            batch.complete(FundingTransaction::Signed(transaction.clone())).await.unwrap();
        let failed = pending.opened().await.unwrap_err();
        let mut codes = Stage::codes(&failed);
        codes.sort_unstable();
        assert_eq!(codes, ["batch-failed", "batch-failed", "store-io"], "{nth}");
        assert_eq!(stage.store.load_all().await.unwrap().len(), 0, "{nth}");
        // What is left of it cannot be used again.
        let pending = stage.peers[0].session.open(ask()).await.unwrap().accepted().await.unwrap();
        let outpoint = bitcoin::OutPoint { txid: transaction.compute_txid(), vout: 0 };
        let again = pending.complete(FundingTransaction::Outpoint(outpoint)).await;
        match again.unwrap_err().0 {
            CompleteError::Failed(failed) => {
                assert_eq!(failed.failure.code(), "transaction-condemned", "{nth}");
            }
            other => panic!("{other}"),
        }
        for peer in &stage.peers {
            peer.log.error_received().await;
        }
    }
}

/// The remove that follows a failure is repeated until it is done.
#[tokio::test(start_paused = true)]
async fn a_record_that_cannot_be_removed_at_once_is_removed_later() {
    let faults = Faults::none().at("save", 3, Fault::FailBefore).at("remove", 1, Fault::FailBefore);
    let stage = Stage::new(&faults, &Faults::none()).await;
    stage.fails().await;
    assert!(faults.calls("remove") >= 3);
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_misses_an_output_is_refused_and_the_batch_still_waits() {
    let stage = Stage::new(&Faults::none(), &Faults::none()).await;
    let batch = stage.accepted().await;
    let whole = paying(&batch.outputs());
    let mut short = whole.clone();
    short.output.pop();
    let outpoint = bitcoin::OutPoint { txid: whole.compute_txid(), vout: 1 };
    let (error, batch) = batch.complete(FundingTransaction::Signed(short)).await.unwrap_err();
    assert!(
        matches!(error, CompleteBatchError::Funding(error) if error.code() == "no-funding-output")
    );
    let (error, batch) =
        batch.unwrap().complete(FundingTransaction::Outpoint(outpoint)).await.unwrap_err();
    assert!(
        matches!(error, CompleteBatchError::Funding(error) if error.code() == "funding-outpoint-of-batch")
    );
    let mut pending = batch.unwrap().complete(FundingTransaction::Signed(whole)).await.unwrap();
    assert_eq!(pending.opened().await.unwrap().0.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_dropped_cancels_all() {
    let stage = Stage::new(&Faults::none(), &Faults::none()).await;
    drop(stage.accepted().await);
    for peer in &stage.peers {
        assert_eq!(peer.log.error_received().await, "channel opening cancelled");
        assert_eq!(peer.openings.pending(), 0);
    }
    let slow = Faults::none().at("sign_counterparty_commitment", 1, Fault::Hold);
    let stage = Stage::new(&Faults::none(), &slow).await;
    let pending = stage.complete().await.unwrap();
    slow.struck().await;
    drop(pending);
    for peer in &stage.peers {
        assert_eq!(peer.log.error_received().await, "channel opening cancelled");
    }
    assert_eq!(stage.store.load_all().await.unwrap().len(), 0);
}

/// Records of a batch that was cut short in the midst of its saves, and of one that was not.
#[tokio::test(start_paused = true)]
async fn after_a_restart_half_a_batch_is_none() {
    for is_whole in [false, true] {
        let stage = Stage::new(&Faults::none(), &Faults::none()).await;
        let mut pending = stage.complete().await.unwrap();
        let (channels, _permit) = pending.opened().await.unwrap();
        let store = Arc::new(MemoryStore::default());
        for (index, opened) in channels.iter().enumerate() {
            let is_batch_saved = is_whole && index == 1;
            let progress = Progress { is_batch_saved, ..Progress::default() };
            store.save(opened).await.unwrap();
            store.update(opened, &progress).await.unwrap();
        }
        let mut made = faulty_node(1, &Faults::none());
        made.node.store = store.clone();
        let (openings, restored) = Openings::load(made.node).await.unwrap();
        assert_eq!(restored.len(), 3);
        for restored in restored {
            match restored {
                Restored::MayBroadcast { permit, opened } if is_whole => {
                    assert_eq!(permit.txid(), opened.parameters.funding_outpoint.txid);
                }
                Restored::NeverBroadcast(opened) if !is_whole => {
                    assert!(openings.broadcast_permit(&opened.channel_id).is_none());
                }
                other => panic!("{other:?}"),
            }
        }
        settle().await;
        let kept = store.load_all().await.unwrap();
        assert_eq!(kept.len(), if is_whole { 3 } else { 0 });
        assert!(kept.iter().all(|it| it.stored.as_ref().unwrap().progress.is_batch_saved));
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_abandoned_as_a_whole_with_its_permit() {
    let stage = Stage::new(&Faults::none(), &Faults::none()).await;
    let mut pending = stage.complete().await.unwrap();
    let (channels, permit) = pending.opened().await.unwrap();
    let mut abandoned = stage.openings.abandon_unbroadcast(permit).await.unwrap();
    let mut ids: Vec<_> = channels.iter().map(|opened| opened.channel_id).collect();
    abandoned.sort_by_key(|id| id.0);
    ids.sort_by_key(|id| id.0);
    assert_eq!(abandoned, ids);
    assert_eq!(stage.store.load_all().await.unwrap().len(), 0);
    let ended = |event: &Event| matches!(event, Event::Ended(_)).then_some(());
    assert_eq!(stage.log.all(ended).len(), 3);
    for peer in &stage.peers {
        assert_eq!(peer.log.error_received().await, "the funding transaction will not confirm");
        // The peer cannot know that it is true, and keeps its record until the node resolves it.
        assert_eq!(peer.store.load_all().await.unwrap().len(), 1);
    }
}

/// Two channels with one peer, one with another; and a batch of one, which is saved like any other.
#[tokio::test(start_paused = true)]
async fn a_batch_may_have_two_channels_with_one_peer_or_only_one_channel() {
    for members in [&[0, 0, 1][..], &[2]] {
        let stage = Stage::new(&Faults::none(), &Faults::none()).await;
        let mut accepted = Vec::new();
        for member in members {
            let session = &stage.peers[*member].session;
            accepted.push(session.open(ask()).await.unwrap().accepted().await.unwrap());
        }
        let batch = Batch::new(accepted);
        let transaction = paying(&batch.outputs());
        let mut pending = batch.complete(FundingTransaction::Signed(transaction)).await.unwrap();
        let (channels, permit) = pending.opened().await.unwrap();
        assert_eq!(channels.len(), members.len());
        for (opened, member) in channels.iter().zip(members) {
            assert_eq!(opened.reference.peer, stage.peers[*member].id);
            assert_eq!(opened.batch.len(), members.len() - 1);
            assert_eq!(opened.parameters.funding_outpoint.txid, permit.txid());
            assert!(stage.openings.broadcast_permit(&opened.channel_id).is_some());
        }
        // It answers once.
        assert!(pending.opened().await.unwrap_err().failures.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_nothing_comes_to_nothing() {
    let output = FundingOutput::new(bitcoin::Amount::ONE_BTC, &node_id(8), &node_id(9));
    let transaction = paying(&[output]);
    let batch = Batch::new(Vec::new());
    let mut pending = batch.complete(FundingTransaction::Signed(transaction)).await.unwrap();
    assert!(pending.opened().await.unwrap_err().failures.is_empty());
}
