//! Every signer that can be had conforms, and the documentation shows what it enforces.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use opening_examples::signers;
use opening_signer::testing::conformance::Report;

const DOCUMENT: &str = include_str!("../../docs/signer.md");
const BEGIN: &str = "<!-- begin: cargo xtask conformance --markdown -->\n";
const END: &str = "<!-- end -->";

#[tokio::test]
async fn every_signer_conforms_and_the_table_in_the_documentation_is_theirs() {
    let reports = signers::reports().await.unwrap();
    assert_eq!(reports.len(), 6);
    for report in &reports {
        assert!(report.is_pass(), "{report}");
    }
    let (_, after) = DOCUMENT.split_once(BEGIN).unwrap();
    let (table, _) = after.split_once(END).unwrap();
    let expected = Report::to_markdown(&reports);
    assert!(table == expected, "put this into docs/signer.md:\n{expected}");
}
