//! Many channels over one connection.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use opening_signer::{Call, Hsm, HsmError};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::world::{Fate, Opening, Scripted, World, open, reference};

const TRIP: Duration = Duration::from_millis(5);

#[tokio::test(start_paused = true)]
async fn a_thousand_openings_take_a_few_trips_and_not_their_sum() {
    let signer = Scripted::new(|_| Fate::After(TRIP));
    let world = World::new(vec![signer.clone()]).await;
    let hsm = Arc::new(world.hsm);
    let begun = Instant::now();
    let mut openings = JoinSet::new();
    for dbid in 1..=1000 {
        let hsm = Arc::clone(&hsm);
        openings.spawn(async move { open(&*hsm, dbid).await });
    }
    while let Some(opened) = openings.join_next().await {
        opened.unwrap().unwrap();
    }
    // Of the signer's time: seven requests one after the other, and never 7,000 of them.
    let trips = begun.elapsed().as_millis() / TRIP.as_millis();
    assert!((7..=21).contains(&trips), "{trips} trips");
    // One request of a channel at a time.
    assert_eq!(signer.most_at_once.load(Ordering::SeqCst), 1000);
    assert_eq!(signer.calls.lock().unwrap().len(), 7000);
}

#[tokio::test]
async fn a_channel_that_takes_for_ever_keeps_no_other_waiting() {
    let signer = Scripted::new(|call| match call {
        Call::Setup => Fate::After(Duration::from_secs(3600)),
        _ => Fate::Go,
    });
    let world = World::new(vec![signer]).await;
    let slow = world.hsm.channel(reference(1)).await.unwrap();
    let opening = Opening::new(&*slow, 1).await;
    let never = async {
        opening.fund(&*slow).await.unwrap();
        unreachable!("it takes an hour");
    };
    let other = async {
        let other = world.hsm.channel(reference(2)).await.unwrap();
        other.pubkeys().await.unwrap();
    };
    tokio::select! {
        () = never => {}
        () = other => {}
    }
}

#[tokio::test]
async fn what_depends_on_a_failure_is_aborted_and_not_carried_out() {
    let signer = Scripted::new(|call| match call {
        Call::Setup => Fate::Defer,
        _ => Fate::Go,
    });
    let world = World::new(vec![signer.clone()]).await;
    let channel = world.hsm.channel(reference(1)).await.unwrap();
    let opening = Opening::new(&*channel, 1).await;
    let request = opening.request(&opening.theirs);
    let (setup, signature, validated, point) = tokio::join!(
        biased;
        channel.setup(&opening.setup),
        channel.sign_counterparty_commitment(&request),
        opening.validate(&*channel),
        channel.per_commitment_point(1),
    );
    assert_eq!(setup, Err(HsmError::Deferred));
    assert_eq!(signature, Err(HsmError::Aborted));
    assert_eq!(validated, Err(HsmError::Aborted));
    point.unwrap();
    assert_eq!(signer.count(Call::SignCounterpartyCommitment), 0);
    assert_eq!(signer.count(Call::ValidateHolderCommitment), 0);
}

#[tokio::test]
async fn a_transaction_that_the_setup_does_not_give_is_not_signed() {
    let signer = Scripted::new(|_| Fate::Go);
    let world = World::new(vec![signer.clone()]).await;
    let channel = world.hsm.channel(reference(1)).await.unwrap();
    let opening = Opening::new(&*channel, 1).await;

    let early = channel.sign_counterparty_commitment(&opening.request(&opening.theirs)).await;
    assert!(matches!(early, Err(HsmError::Refused { tag, .. }) if tag == "setup-missing"));

    channel.setup(&opening.setup).await.unwrap();
    let mut other = opening.theirs.clone();
    other.transaction.output[0].value += bitcoin::Amount::ONE_SAT;
    let signed = channel.sign_counterparty_commitment(&opening.request(&other)).await;
    assert!(matches!(signed, Err(HsmError::Refused { tag, .. }) if tag == "transaction-differs"));

    let mut pushed = opening.setup.parameters.clone();
    pushed.push_msat = opening_core::MilliSatoshi::ZERO;
    let mut request = opening.request(&opening.theirs);
    request.parameters = &pushed;
    let signed = channel.sign_counterparty_commitment(&request).await;
    assert!(matches!(signed, Err(HsmError::InvalidRequest(_))), "{signed:?}");

    let swapped = channel.sign_counterparty_commitment(&opening.request(&opening.ours)).await;
    assert!(matches!(swapped, Err(HsmError::InvalidRequest(_))), "{swapped:?}");
    assert_eq!(signer.count(Call::SignCounterpartyCommitment), 0);
}

#[tokio::test]
async fn every_call_crosses() {
    let world = World::new(vec![Scripted::new(|_| Fate::Go)]).await;
    let channel = world.hsm.channel(reference(1)).await.unwrap();
    let opening = Opening::new(&*channel, 1).await;
    let first = opening.fund(&*channel).await.unwrap();
    assert_eq!(opening.fund(&*channel).await.unwrap(), first);
    let own = opening.request(&opening.ours);
    let early = channel.sign_holder_commitment(&own).await;
    assert!(matches!(early, Err(HsmError::Refused { tag, .. }) if tag == "not-validated"));
    opening.validate(&*channel).await.unwrap();
    channel.sign_holder_commitment(&own).await.unwrap();
    let beyond = channel.per_commitment_point(1 << 48).await;
    assert!(matches!(beyond, Err(HsmError::InvalidRequest(_))));
    world.hsm.forget_channel(reference(1)).await.unwrap();
    let nameless = world.hsm.channel(reference(0)).await.map(|_| ());
    assert!(matches!(nameless, Err(HsmError::InvalidRequest(_))));
}

#[tokio::test]
async fn a_fundee_sets_up_validates_and_signs_in_one_go() {
    let signer = Scripted::new(|_| Fate::After(Duration::from_millis(1)));
    let world = World::new(vec![signer.clone()]).await;
    let channel = world.hsm.channel(reference(1)).await.unwrap();
    let opening = Opening::new(&*channel, 1).await;
    let request = opening.request(&opening.theirs);
    let (setup, validated, signature) = tokio::join!(
        biased;
        channel.setup(&opening.setup),
        opening.validate(&*channel),
        channel.sign_counterparty_commitment(&request),
    );
    setup.unwrap();
    validated.unwrap();
    signature.unwrap();
    let calls: Vec<Call> = signer.calls.lock().unwrap().iter().map(|(call, _)| *call).collect();
    let in_order = [Call::Setup, Call::ValidateHolderCommitment, Call::SignCounterpartyCommitment];
    assert_eq!(calls[calls.len() - 3..], in_order);
}
