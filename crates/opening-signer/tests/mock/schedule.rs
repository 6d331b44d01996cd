//! Faults at random, the same ones for the same seed.

use std::time::Duration;

use opening_signer::testing::{EVERY, Fault, Faults};

use crate::{CALLS, Funded, mock};

const DRAWN: [Fault; 2] = [Fault::FailBefore, Fault::FailAfter];

/// What every call of three rounds comes to; the channel itself is there.
async fn codes(faults: Faults) -> Vec<&'static str> {
    let funded = Funded::by(mock(faults.at("channel", EVERY, Fault::Delay(Duration::ZERO)))).await;
    let mut codes = Vec::new();
    for call in [CALLS, CALLS, CALLS].concat() {
        codes.push(funded.call(call).await.map_or_else(|error| error.code(), |()| "done"));
    }
    codes
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_is_the_same_schedule_and_another_is_another() {
    let of = |seed| codes(Faults::none().at_random(seed, 3, DRAWN));
    assert_eq!(of(1).await, of(1).await);
    let mut all = Vec::new();
    for seed in 0..8 {
        all.push(of(seed).await);
    }
    all.sort_unstable();
    all.dedup();
    assert!(all.len() > 4, "{all:?}");
    let drawn: Vec<_> = all.concat();
    for code in ["done", "signer-unavailable", "signer-indeterminate"] {
        assert!(drawn.contains(&code), "{code}");
    }
}

/// Calls of one method are drawn for whatever is called between them.
#[tokio::test]
async fn a_schedule_does_not_depend_on_the_order_of_different_calls() {
    let at = async |faults: &Faults, method| {
        faults.around(method, async { Ok(()) }, || ()).await.is_ok()
    };
    let (one, other) = (
        Faults::none().at_random(7, 2, [Fault::FailBefore]),
        Faults::none().at_random(7, 2, [Fault::FailBefore]),
    );
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for _ in 0..64 {
        first.push(at(&one, "setup").await);
        second.push(at(&other, "setup").await);
        at(&other, "pubkeys").await;
    }
    assert_eq!(first, second);
    let failed = first.iter().filter(|is_ok| !**is_ok).count();
    assert!((16..=48).contains(&failed), "{failed} of 64 at one in two");
}

#[tokio::test]
async fn what_is_planned_goes_before_what_is_drawn_and_a_repair_ends_both() {
    let faults =
        Faults::none().at_random(1, 1, [Fault::FailAfter]).at("setup", 1, Fault::FailBefore);
    let done = std::cell::Cell::new(0);
    let call = || {
        let act = async {
            done.set(done.get() + 1);
            Ok(())
        };
        faults.around("setup", act, || ())
    };
    assert_eq!((call().await, done.get()), (Err(()), 0));
    assert_eq!((call().await, done.get()), (Err(()), 1));
    faults.repair();
    assert_eq!((call().await, done.get()), (Ok(()), 2));
}
