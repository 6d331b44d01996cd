//! What is written down.

use std::time::Duration;

use bitcoin::consensus::serialize;
use opening_core::Side;
use opening_signer::testing::{Fault, Faults, Outcome};
use opening_signer::{Call, Hsm};

use crate::{CALLS, Funded, mock};

#[tokio::test]
async fn every_call_is_written_down_in_order_with_what_was_asked() {
    let funded = Funded::by(mock(Faults::none())).await;
    for call in CALLS {
        funded.call(call).await.unwrap();
    }
    let entries = funded.transcript.entries();
    let calls: Vec<_> = entries.iter().map(|entry| entry.call).collect();
    assert_eq!(calls, [&[Call::Channel], &CALLS[..]].concat());
    for entry in &entries {
        assert_eq!(entry.reference, funded.funder().reference);
        assert_eq!((entry.nth, entry.outcome, entry.is_carried_out), (1, Outcome::Done, true));
    }
    let of = |call| funded.transcript.of(call).pop().unwrap();
    assert_eq!(of(Call::PerCommitmentPoint).request, "0");
    assert_eq!(of(Call::Setup).request, format!("{:?}", funded.funder().setup));
    assert_eq!(of(Call::Setup).transaction, None);
    for (call, owner) in [
        (Call::SignCounterpartyCommitment, Side::Remote),
        (Call::ValidateHolderCommitment, Side::Local),
        (Call::SignHolderCommitment, Side::Local),
    ] {
        let transaction = serialize(&funded.funder().commitment(owner).transaction);
        assert_eq!(of(call).transaction, Some(transaction), "{call}");
    }
}

#[tokio::test]
async fn the_same_request_is_the_same_text() {
    let funded = Funded::by(mock(Faults::none())).await;
    for call in [CALLS, CALLS].concat() {
        funded.call(call).await.unwrap();
    }
    for call in CALLS {
        let [first, second] = &funded.transcript.of(call)[..] else { panic!("{call}") };
        assert_eq!(first.request, second.request);
        assert_eq!((first.nth, second.nth), (1, 2));
    }
}

#[tokio::test]
async fn what_was_carried_out_and_what_was_heard_of_it_are_told_apart() {
    for (fault, is_carried_out, code) in [
        (Fault::FailBefore, false, "signer-unavailable"),
        (Fault::FailAfter, true, "signer-indeterminate"),
    ] {
        let funded = Funded::by(mock(Faults::none().at("setup", 1, fault))).await;
        assert!(funded.call(Call::Setup).await.is_err());
        let entry = funded.transcript.of(Call::Setup).pop().unwrap();
        assert_eq!(entry.is_carried_out, is_carried_out, "{fault:?}");
        assert_eq!(entry.outcome, Outcome::Failed(code), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_given_up_is_unanswered() {
    for (fault, is_carried_out) in [(Fault::StallBefore, false), (Fault::StallAfter, true)] {
        let funded = Funded::by(mock(Faults::none().at("setup", 1, fault))).await;
        let call = funded.call(Call::Setup);
        assert!(tokio::time::timeout(Duration::from_secs(60), call).await.is_err());
        let entry = funded.transcript.of(Call::Setup).pop().unwrap();
        assert_eq!((entry.outcome, entry.is_carried_out), (Outcome::Unanswered, is_carried_out));
    }
}

#[tokio::test]
async fn it_is_bounded_and_says_what_it_left_out() {
    let mock = mock(Faults::none());
    let funded = Funded::by(mock).await;
    for _ in 0..16_383 {
        funded.call(Call::PerCommitmentPoint).await.unwrap();
    }
    let transcript = &funded.transcript;
    assert_eq!((transcript.entries().len(), transcript.beyond()), (16_384, 0));
    funded.call(Call::Pubkeys).await.unwrap();
    assert_eq!((transcript.entries().len(), transcript.beyond()), (16_384, 1));
    assert_eq!(transcript.count(Call::Pubkeys), 1);
    assert!(transcript.of(Call::Pubkeys).is_empty());
}

/// A held call is one that somebody has to press a button for.
#[tokio::test(start_paused = true)]
async fn a_held_call_is_carried_out_once_it_is_released() {
    let faults = Faults::none().at("setup", 1, Fault::Hold);
    let mock = mock(faults.clone());
    let funded = std::sync::Arc::new(Funded::by(mock).await);
    let held = tokio::spawn({
        let funded = funded.clone();
        async move { funded.call(Call::Setup).await }
    });
    faults.struck().await;
    assert!(!funded.transcript.of(Call::Setup)[0].is_carried_out);
    faults.release();
    assert_eq!(held.await.unwrap(), Ok(()));
}

#[tokio::test]
async fn what_it_says_of_itself_is_what_the_signer_says() {
    let mock = mock(Faults::none());
    assert_eq!(mock.info(), crate::local().info());
    assert_eq!(mock.health(), Ok(()));
}
