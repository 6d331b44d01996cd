//! Store, policy and signer, one call after the other.

use std::cell::Cell;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use opening_peer::store::{ChannelStore, MemoryStore};
use opening_peer::testing::clock::{Deadline, settle};
use opening_peer::testing::{EVERY, Fault, Faults, FaultyStore, MockHsm};
use opening_peer::transport::in_memory_pair;
use opening_peer::{Failed, Opened};
use opening_signer::{ChannelRef, CommitmentRequest, Hsm, HsmError, HsmSecret, LocalHsm};
use tokio::time::{Instant, timeout};

use crate::common::node_id;
use crate::faulty::{HSM_CALLS, faulty_node};
use crate::{Side, connect};

const SECOND: Duration = Duration::from_secs(1);

/// What comes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    Done,
    Failed,
    Nothing,
    Late,
    Panicked,
}

/// Every fault, what comes of its call, and how often that call is done.
const FAULTS: [(Fault, Came, u32); 7] = [
    (Fault::FailBefore, Came::Failed, 0),
    (Fault::FailAfter, Came::Failed, 1),
    (Fault::StallBefore, Came::Nothing, 0),
    (Fault::StallAfter, Came::Nothing, 1),
    (Fault::Delay(SECOND), Came::Late, 1),
    (Fault::Hold, Came::Nothing, 0),
    (Fault::Panic, Came::Panicked, 0),
];

async fn came(faults: &Faults, done: &Cell<u32>) -> Came {
    let begin = Instant::now();
    let act = async {
        done.set(done.get() + 1);
        Ok(())
    };
    let call = AssertUnwindSafe(faults.around("call", act, || ())).catch_unwind();
    match timeout(10 * SECOND, call).await {
        Err(_) => Came::Nothing,
        Ok(Err(_)) => Came::Panicked,
        Ok(Ok(Err(()))) => Came::Failed,
        Ok(Ok(Ok(()))) if begin.elapsed() >= SECOND => Came::Late,
        Ok(Ok(Ok(()))) => Came::Done,
    }
}

#[tokio::test(start_paused = true)]
async fn each_fault_happens_at_its_call_and_not_before() {
    for (fault, what_comes, times) in FAULTS {
        let faults = Faults::none().at("call", 3, fault).at("another", 1, Fault::Panic);
        let done = Cell::new(0);
        for _ in 1..=2 {
            assert_eq!(came(&faults, &done).await, Came::Done, "{fault:?}");
        }
        assert!(faults.struck().now_or_never().is_none(), "{fault:?}");
        assert_eq!(came(&faults, &done).await, what_comes);
        assert!(faults.struck().now_or_never().is_some(), "{fault:?}");
        assert_eq!(done.get(), 2 + times, "{fault:?}");
        assert_eq!(came(&faults, &done).await, Came::Done, "{fault:?}");
        assert_eq!((faults.calls("call"), faults.calls("another")), (4, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn every_call_goes_wrong_until_it_is_repaired() {
    let faults = Faults::none().at("call", EVERY, Fault::FailBefore).at("call", 2, Fault::Panic);
    let done = Cell::new(0);
    for what_comes in [Came::Failed, Came::Panicked, Came::Failed] {
        assert_eq!(came(&faults, &done).await, what_comes);
    }
    faults.repair();
    assert_eq!(came(&faults, &done).await, Came::Done);
}

#[tokio::test(start_paused = true)]
async fn a_delay_ends_at_its_instant() {
    let faults = Faults::none().at("call", 1, Fault::Delay(SECOND));
    let deadline = Deadline::after(SECOND);
    let delayed = tokio::spawn(async move {
        let _: Result<(), ()> = faults.around("call", async { Ok(()) }, || ()).await;
    });
    settle().await;
    deadline.nearly().await;
    assert!(!delayed.is_finished());
    deadline.passed().await;
    assert!(delayed.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_held_call_waits_for_the_test() {
    let faults = Faults::none().at("call", EVERY, Fault::Hold);
    let held = faults.clone();
    let call = tokio::spawn(async move {
        let done: Result<_, ()> = held.around("call", async { Ok("done") }, || ()).await;
        done
    });
    faults.struck().await;
    tokio::time::sleep(1000 * SECOND).await;
    assert!(!call.is_finished());
    faults.release();
    assert_eq!(call.await.unwrap(), Ok("done"));
    assert_eq!(came(&faults, &Cell::new(0)).await, Came::Done, "also the next one");
}

/// Two openings, one after the other, with a signer of the funder's that has these faults.
async fn open_twice(
    hsm: MockHsm,
) -> (Result<Arc<Opened>, Failed>, Result<Arc<Opened>, Failed>, (Side, Side)) {
    let mut funder = faulty_node(1, &Faults::none());
    funder.node.hsm = Arc::new(hsm);
    let fundee = faulty_node(2, &Faults::none());
    let (funder, fundee) = connect(funder, fundee, in_memory_pair()).await;
    let first = funder.open().await.map(|(opened, _permit)| opened);
    let second = funder.open().await.map(|(opened, _permit)| opened);
    (first, second, (funder, fundee))
}

fn local_hsm() -> Arc<LocalHsm> {
    Arc::new(LocalHsm::blind(&HsmSecret::new([1; 32])))
}

#[tokio::test(start_paused = true)]
async fn a_signer_fails_at_the_second_call_of_each_method() {
    let refused = HsmError::Refused { tag: "test".into(), detail: "on purpose".into() };
    for call in HSM_CALLS {
        for (fault, failure, code) in [
            (Fault::FailBefore, None, "signer-unavailable"),
            (Fault::FailAfter, None, "signer-indeterminate"),
            (Fault::FailBefore, Some(&refused), "signer-refused"),
            (Fault::StallAfter, None, "signer-silent"),
        ] {
            let faults = Faults::none().at(call, 2, fault);
            let hsm = MockHsm::new(local_hsm(), faults.clone());
            let hsm = failure.into_iter().fold(hsm, |hsm, why| hsm.failing_with(why.clone()));
            let (first, second, _sides) = open_twice(hsm).await;
            assert!(first.is_ok(), "{call}");
            assert_eq!(second.unwrap_err().failure.code(), code, "{call}");
            assert_eq!(faults.calls(call), 2);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_signer_that_defers_is_asked_again() {
    for call in HSM_CALLS {
        let faults = Faults::none().at(call, 2, Fault::FailBefore).at(call, 3, Fault::FailBefore);
        let hsm = MockHsm::new(local_hsm(), faults.clone()).failing_with(HsmError::Deferred);
        let (first, second, _sides) = open_twice(hsm).await;
        assert!(first.is_ok() && second.is_ok(), "{call}");
        assert_eq!(faults.calls(call), 4, "{call}");
    }
}

#[tokio::test]
async fn a_signer_fails_to_forget_and_to_leave() {
    let faults = Faults::none().at("forget_channel", 1, Fault::FailBefore).at(
        "sign_holder_commitment",
        1,
        Fault::FailAfter,
    );
    let (opened, _, _sides) = open_twice(MockHsm::new(local_hsm(), Faults::none())).await;
    let opened = opened.unwrap();

    let hsm = MockHsm::new(local_hsm(), faults.clone());
    let other = ChannelRef { peer: node_id(2), dbid: 1000 };
    let unavailable = HsmError::Unavailable("on purpose".into());
    assert_eq!(hsm.forget_channel(other).await, Err(unavailable));
    assert_eq!(hsm.forget_channel(other).await, Ok(()));

    let channel = hsm.channel(opened.reference).await.unwrap();
    let setup = opening_signer::ChannelSetup {
        parameters: opened.parameters.clone(),
        chain_hash: bitcoin::constants::ChainHash::REGTEST,
        local_shutdown_script: opened.local_shutdown_script.clone(),
        remote_shutdown_script: opened.remote_shutdown_script.clone(),
    };
    channel.setup(&setup).await.unwrap();
    let request = CommitmentRequest::first(&opened.parameters, &opened.local_commitment);
    channel.validate_holder_commitment(&request, &opened.remote_signature).await.unwrap();
    let lost = channel.sign_holder_commitment(&request).await;
    assert_eq!(lost, Err(HsmError::Indeterminate("on purpose".into())));
    assert!(channel.sign_holder_commitment(&request).await.is_ok());
}

#[tokio::test]
async fn a_store_fails_at_the_second_call_of_each_method() {
    let faults = ["remove", "load_all", "reserve_dbids"]
        .into_iter()
        .fold(Faults::none(), |faults, method| faults.at(method, 2, Fault::FailAfter));
    let store = FaultyStore::new(MemoryStore::default(), faults);
    let id = lightning::ln::types::ChannelId([1; 32]);
    for nth in 1..=3 {
        let fails = nth == 2;
        assert_eq!(store.remove(&id).await.is_err(), fails);
        assert_eq!(store.load_all().await.is_err(), fails);
        let reserved = store.reserve_dbids(1).await;
        assert_eq!(reserved.is_err(), fails);
        // The number of the call that failed is used up: it was done.
        assert!(fails || reserved.unwrap() == (nth..nth + 1));
    }
}

#[tokio::test(start_paused = true)]
async fn policy_and_store_fail_at_the_second_opening() {
    for (call, fault, code) in [
        ("bounds", Fault::FailBefore, "peer-error"),
        ("decide", Fault::FailAfter, "peer-error"),
        ("decide", Fault::Delay(14 * SECOND), "opened"),
        ("decide", Fault::Delay(16 * SECOND), "peer-error"),
        ("save", Fault::FailBefore, "peer-error"),
        ("save", Fault::Delay(29 * SECOND), "opened"),
        // A save is never given up.
        ("save", Fault::Delay(31 * SECOND), "opened"),
    ] {
        let faults = Faults::none().at(call, 2, fault);
        let made = (faulty_node(1, &Faults::none()), faulty_node(2, &faults));
        let (funder, fundee) = connect(made.0, made.1, in_memory_pair()).await;
        let code_of = |result: Result<_, Failed>| match result {
            Ok(_) => "opened",
            Err(failed) => failed.failure.code(),
        };
        assert_eq!(code_of(funder.open().await), "opened", "{call} {fault:?}");
        assert_eq!(code_of(funder.open().await), code, "{call} {fault:?}");
        assert_eq!(faults.calls(call), 2);
        assert_eq!(fundee.openings.pending(), 0, "{call} {fault:?}");
    }
}
