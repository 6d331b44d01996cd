//! A signer that goes wrong at each call, in both roles: the opening recovers or ends with its
//! reason, nothing is signed in two versions, the peer learns nothing, and nothing stays behind.

// Clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../faulty/mod.rs"]
mod faulty;
mod play;
mod table;

use faulty::From;

use crate::play::play;
use crate::table::{Ends, rows};

#[tokio::test(start_paused = true)]
async fn an_opening_recovers_from_a_signers_fault_or_ends_with_its_reason() {
    let mut wrong = 0;
    for which in [From::Funder, From::Fundee] {
        for row in rows(which) {
            // Each row says for itself what is wrong with it.
            let played = tokio::spawn(async move { play(which, &row).await });
            wrong += usize::from(played.await.is_err());
        }
    }
    assert_eq!(wrong, 0, "rows");
}

/// Else the test above shows one half of what it says.
#[test]
fn at_each_call_there_is_a_fault_that_ends_an_opening_and_one_that_does_not() {
    for which in [From::Funder, From::Fundee] {
        for call in table::CALLS {
            let of_call: Vec<_> = rows(which).into_iter().filter(|row| row.call == call).collect();
            assert!(of_call.iter().any(|row| row.ends == Ends::Opened), "{call}");
            assert!(of_call.iter().any(|row| row.ends != Ends::Opened), "{call}");
        }
    }
}
