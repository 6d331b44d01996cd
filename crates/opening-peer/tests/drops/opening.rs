//! Handles of openings, of one or of many in a batch.

use std::sync::Arc;

use opening_peer::session::{Batch, CompleteError, Opening, PendingFunding, PendingSignature};
use opening_peer::store::{ChannelStore, Entry};
use opening_peer::transport::in_memory_pair;
use opening_peer::{BroadcastPermit, Failed, FundingTransaction, Greeting, Openings, Session};
use tokio::time::{sleep, timeout};

use crate::common::{ask, funding_transaction, node_id, signed};
use crate::faulty::{Made, Party, finish, open};
use crate::world::{
    ENOUGH, TICK, World, at_every_tick, begun, check_ends, leave_nothing, slow_node, within,
};

async fn complete(pending: PendingFunding) -> Result<PendingSignature, Failed> {
    let funding = signed(&pending.needed().output);
    pending.complete(funding).await.map_err(|error| match error {
        (CompleteError::Failed(failed), None) => failed,
        other => panic!("{other:?}"),
    })
}

#[tokio::test(start_paused = true)]
async fn an_opening_with_whatever_handle_there_is() {
    at_every_tick(30, async |ticks| {
        let world = World::new().await;
        let done = within(ticks, open(&world.funder)).await;
        let is_done = done.map(|done| done.unwrap()).is_some();
        world.has_told().await;
        world.goes_on_as_before().await;
        is_done
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn handles_that_nobody_asks() {
    for ticks in 0..15 {
        let world = World::new().await;
        let opening: Opening = world.funder.session.open(ask()).await.unwrap();
        sleep(TICK * ticks).await;
        drop(opening);
        world.has_told().await;
        world.goes_on_as_before().await;

        let world = World::new().await;
        let pending = world.funder.session.open(ask()).await.unwrap().accepted().await.unwrap();
        sleep(TICK * ticks).await;
        drop(pending);
        world.has_told().await;
        world.goes_on_as_before().await;
    }
    let mut has_opened = false;
    for ticks in 0..25 {
        let world = World::new().await;
        let pending = world.funder.session.open(ask()).await.unwrap().accepted().await.unwrap();
        let signing = complete(pending).await.unwrap();
        sleep(TICK * ticks).await;
        drop(signing);
        world.has_told().await;
        world.comes_to_rest().await;
        has_opened = world.funder.log.opened_so_far() == 1;
        world.goes_on_as_before().await;
    }
    assert!(has_opened, "at last it was too late to cancel");
}

#[tokio::test(start_paused = true)]
async fn the_wait_for_the_permit_is_taken_up_again() {
    at_every_tick(10, async |ticks| {
        let world = World::new().await;
        let pending = world.funder.session.open(ask()).await.unwrap().accepted().await.unwrap();
        let mut signing = complete(pending).await.unwrap();
        let first = within(ticks, signing.opened()).await;
        let is_done = first.is_some();
        let (opened, permit) = match first {
            Some(opened) => opened.unwrap(),
            None => signing.opened().await.unwrap(),
        };
        assert_eq!(permit.txid(), opened.parameters.funding_outpoint.txid);
        drop(signing);
        world.goes_on_as_before().await;
        is_done
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn cancelling() {
    // How far the opening is, and for how long the cancelling is awaited.
    for progress in 0..40 {
        for patience in 0..2 {
            let world = World::new().await;
            let opening = world.funder.session.open(ask()).await.unwrap();
            let canceller = opening.canceller();
            let going_on = tokio::spawn(finish(opening));
            sleep(TICK * progress).await;
            let _ = within(patience, canceller.cancel()).await;
            let opened = timeout(ENOUGH, going_on).await.unwrap().unwrap();
            assert!(patience > 0 || opened.is_ok());
            drop(canceller);
            world.goes_on_as_before().await;
        }
    }
}

/// A batch with two peers, to the permit.
async fn open_batch(sessions: [Session; 2]) -> Result<BroadcastPermit, String> {
    let mut accepted = Vec::new();
    for session in &sessions {
        let opening = session.open(ask()).await.map_err(|it| it.to_string())?;
        accepted.push(opening.accepted().await.map_err(|it| it.to_string())?);
    }
    let batch = Batch::new(accepted);
    let [one, other] = &batch.outputs()[..] else { panic!("two") };
    let mut transaction = funding_transaction(one, 0);
    transaction.output.extend(funding_transaction(other, 0).output);
    let completing = batch.complete(FundingTransaction::Signed(transaction));
    let mut signing = completing.await.map_err(|(error, _)| error.to_string())?;
    let (_, permit) = signing.opened().await.map_err(|it| it.to_string())?;
    Ok(permit)
}

#[tokio::test(start_paused = true)]
async fn a_batch_with_whatever_handle_there_is() {
    at_every_tick(40, async |ticks| {
        let funder = slow_node(1);
        let (log, store) = (funder.log.clone(), funder.store.clone());
        let openings = crate::common::openings(funder.node);
        let (first, one) = join(&openings, 2).await;
        let (second, other) = join(&openings, 3).await;
        let done = within(ticks, open_batch([first.clone(), second.clone()])).await;
        let is_done = done.is_some();
        sleep(ENOUGH).await;
        // All or none, on every side.
        let kept = store.load_all().await.unwrap();
        assert!(kept.is_empty() || kept.len() == 2);
        assert!(!is_done || done.unwrap().is_ok() && !kept.is_empty());
        let permits = kept.iter().filter_map(|it| openings.broadcast_permit(&it.channel_id()?));
        assert_eq!(permits.count(), kept.len());
        for party in [&one, &other] {
            assert_eq!(party.openings.pending(), 0);
            check_ends(party);
            let theirs = party.store.load_all().await.unwrap();
            let has_lived = |it: &Entry| it.stored.as_ref().unwrap().progress.failed.is_none();
            assert_eq!(theirs.iter().filter(|it| has_lived(it)).count(), kept.len() / 2);
        }
        let failures = log.failures().len() + log.opened_so_far();
        assert_eq!(failures, begun(&log).len());
        // The next one is as good as any.
        drop(open_batch([first.clone(), second.clone()]).await.unwrap());
        let nodes = [openings, one.openings.clone(), other.openings.clone()];
        drop((first, second, one, other));
        leave_nothing(nodes).await;
        is_done
    })
    .await;
}

/// Connects a funder with one more peer: the funder's session, and the peer.
async fn join(funder: &Arc<Openings>, secret: u8) -> (Session, Party) {
    let Made { node, log, store, transcript } = slow_node(secret);
    let openings = crate::common::openings(node);
    let (near, far) = in_memory_pair();
    let (near, far) = tokio::join!(
        Session::start(funder.clone(), node_id(secret), near, Greeting::default()),
        Session::start(openings.clone(), node_id(1), far, Greeting::default()),
    );
    (near.unwrap(), Party { openings, log, store, transcript, session: far.unwrap() })
}
