//! Signers that hang and panic, at their start or at a call: the suite goes on and says so.

use std::sync::Arc;

use bitcoin::Network;
use opening_signer::testing::conformance::{Outcome, Report, Subject, conformance};
use opening_signer::testing::{EVERY, Fault, Faults, MockHsm};
use opening_signer::{Hsm, HsmResult, LocalHsm};

use crate::secret;

/// A signer that goes wrong at every call of this name.
async fn with(fault: Fault, call: &'static str) -> Report {
    let subject = Subject::new("mock", Network::Regtest, move |node| async move {
        let faults = Faults::none().at(call, EVERY, fault);
        let inner = Arc::new(LocalHsm::blind(&secret(node)));
        Ok(Arc::new(MockHsm::new(inner, faults)) as Arc<dyn Hsm>)
    });
    conformance(subject).await
}

#[track_caller]
fn fails(report: &Report, id: &str, why: &str) {
    match report.outcome(id) {
        Some(Outcome::Fail { detail, .. }) => assert!(detail.contains(why), "{id}: {detail}"),
        other => panic!("{id}: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_never_answered_fails_its_checks_and_no_other() {
    let report = with(Fault::StallBefore, "sign_holder_commitment").await;
    fails(&report, "own-after-validation", "it took longer than 60s");
    assert_eq!(report.outcome("sign-again"), Some(&Outcome::Pass), "{report}");
}

#[tokio::test]
async fn a_call_that_panics_fails_its_checks_and_no_other() {
    let report = with(Fault::Panic, "sign_holder_commitment").await;
    fails(&report, "own-after-validation", "it panicked");
    assert_eq!(report.outcome("sign-again"), Some(&Outcome::Pass), "{report}");
}

async fn starting(start: impl Fn() -> HsmResult<()> + Copy + Send + Sync + 'static) -> Report {
    conformance(Subject::new("mock", Network::Regtest, move |_| async move {
        start()?;
        std::future::pending().await
    }))
    .await
}

#[tokio::test(start_paused = true)]
async fn a_signer_that_never_starts_fails_once_for_all_checks() {
    let begin = tokio::time::Instant::now();
    let report = starting(|| Ok(())).await;
    assert_eq!(begin.elapsed().as_secs(), 60);
    assert!(report.info.is_none() && !report.is_pass());
    for finding in &report.findings {
        fails(&report, finding.check.id, "it took longer than 60s");
    }
}

#[tokio::test]
async fn a_signer_that_panics_when_it_starts_fails() {
    let report = starting(|| panic!("no")).await;
    fails(&report, "opens", "it panicked");
}
