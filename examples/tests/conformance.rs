//! Every signer that can be had conforms, and the documentation shows what it enforces.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::{Arc, Mutex};

use lightning::sign::KeysManager;
use log::{LevelFilter, Log, Metadata, Record};
use opening_examples::signers;
use opening_signer::ldk::LdkHsm;
use opening_signer::testing::conformance::Report;
use opening_signer::testing::{Faults, MockHsm};
use opening_signer::{HsmSecret, LocalHsm};

const DOCUMENT: &str = include_str!("../../docs/signer.md");
const BEGIN: &str = "<!-- begin: cargo xtask conformance --markdown -->\n";
const END: &str = "<!-- end -->";

/// Everything that is logged, down to the finest.
static LOGGED: Mutex<String> = Mutex::new(String::new());

struct Everything;

impl Log for Everything {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let line = format!("{} {}\n", record.target(), record.args());
        LOGGED.lock().unwrap().push_str(&line);
    }

    fn flush(&self) {}
}

/// Node `byte` of each signer has this secret.  The keys that follow from it are derived by hashes,
/// and never leave a wrapper that wipes them: what could be shown is what was given.
fn no_secret_in(text: &str) {
    for byte in 0..100_u8 {
        let secret = [byte; 32];
        let list = format!("{secret:?}");
        let node_key = HsmSecret::new(secret).node_key().secret_bytes();
        for shown in
            [hex::encode(secret), list.trim_matches(['[', ']']).into(), hex::encode(node_key)]
        {
            assert!(!text.contains(&shown), "secret {byte} is shown as {shown}");
        }
    }
}

#[test]
fn what_signers_show_of_themselves_is_no_secret() {
    for byte in [5_u8, 77] {
        let local = LocalHsm::blind(&HsmSecret::new([byte; 32]));
        let ldk = LdkHsm::new(Arc::new(KeysManager::new(&[byte; 32], 0, 0, true)));
        let shown = format!("{local:?} {ldk:?}");
        no_secret_in(&shown);
        let mock = MockHsm::new(Arc::new(local), Faults::none());
        no_secret_in(&format!("{:?}", mock.transcript()));
    }
}

#[tokio::test]
async fn every_signer_conforms_and_the_table_in_the_documentation_is_theirs() {
    log::set_logger(&Everything).unwrap();
    log::set_max_level(LevelFilter::Trace);
    let reports = signers::reports().await.unwrap();
    assert_eq!(reports.len(), 6);
    for report in &reports {
        assert!(report.is_pass(), "{report}");
    }
    let (_, after) = DOCUMENT.split_once(BEGIN).unwrap();
    let (table, _) = after.split_once(END).unwrap();
    let expected = Report::to_markdown(&reports);
    assert!(table == expected, "put this into docs/signer.md:\n{expected}");
    // Both wires have refused many a request, and said why.
    let logged = LOGGED.lock().unwrap();
    assert!(logged.contains("opening_signer::remote"), "{logged}");
    no_secret_in(&logged);
}
