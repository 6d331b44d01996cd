//! The ledger on small tables: what counts for what, and everything that makes it fail.

use super::super::requirement::tests::requirements;
use super::*;

/// Two sections: `A-B` with a MUST and a MAY, `C-D` with a MUST NOT.
fn known() -> Requirements {
    requirements(&[("A-B-01", "MUST"), ("A-B-02", "MAY"), ("C-D-01", "MUST NOT")])
}

/// Nothing demanded, nothing decided.
fn undecided() -> Coverage {
    let minimum = [("A-B".to_owned(), 0), ("C-D".to_owned(), 0)].into();
    Coverage { minimum, ..Coverage::default() }
}

/// Tests of these requirements, each named after its own.
fn tested(ids: &[&str]) -> Citations {
    let mut citations = Citations::default();
    for id in ids {
        let test = format!("t.rs::{id}");
        citations.tests.insert(test.clone());
        citations.by_id.insert((*id).to_owned(), vec![test]);
    }
    citations
}

fn ledger(citations: &Citations, coverage: &Coverage) -> Ledger {
    Ledger::new(&known(), citations, &Rules::default(), coverage)
}

fn held(test: &str) -> Held {
    Held { by: "lightning: OpenChannel".to_owned(), test: test.to_owned() }
}

#[test]
fn each_requirement_counts_once() {
    let mut coverage = undecided();
    coverage.held.insert("A-B-02".to_owned(), held("t.rs::A-B-01"));
    coverage.waivers.insert("C-D-01".to_owned(), "no such thing here".to_owned());
    let ledger = ledger(&tested(&["A-B-01"]), &coverage);

    let status: Vec<_> = ledger.requirements.iter().map(|entry| entry.status).collect();
    assert_eq!(status, [Status::Tested, Status::Held, Status::Waived]);
    let [ab, cd] = &ledger.sections[..] else { panic!("two sections") };
    assert_eq!((ab.total, ab.tested, ab.held, ab.waived, ab.missing), (2, 1, 1, 0, 0));
    assert_eq!((cd.total, cd.tested, cd.held, cd.waived, cd.missing), (1, 0, 0, 1, 0));
    assert_eq!(ledger.findings, []);
}

#[test]
fn a_minimum_may_not_be_undercut_and_waivers_do_not_help() {
    let mut coverage = undecided();
    coverage.waivers.insert("A-B-02".to_owned(), "no such thing here".to_owned());
    coverage.minimum.insert("A-B".to_owned(), 1);
    assert_eq!(ledger(&tested(&["A-B-01"]), &coverage).findings, []);

    coverage.minimum.insert("A-B".to_owned(), 2);
    let section = "A-B".to_owned();
    let below = Finding::BelowMinimum { section, covered: 1, minimum: 2 };
    assert_eq!(ledger(&tested(&["A-B-01"]), &coverage).findings, [below]);
}

#[test]
fn only_a_must_may_not_be_missing_where_that_is_demanded() {
    let mut coverage = undecided();
    coverage.complete = vec!["A-*".to_owned(), "C-D".to_owned()];
    let incomplete = ledger(&tested(&["C-D-01"]), &coverage);
    let (section, ids) = ("A-B".to_owned(), vec!["A-B-01".to_owned()]);
    assert_eq!(incomplete.findings, [Finding::MissingMusts { section, ids }]);

    let complete = ledger(&tested(&["A-B-01", "C-D-01"]), &coverage);
    assert_eq!(complete.findings, []);
    assert_eq!(complete.sections[0].missing, 1, "a MAY may be missing");
    assert_eq!(complete.sections[0].musts, 1);
}

#[test]
fn a_waived_must_is_not_missing() {
    let mut coverage = undecided();
    coverage.complete = vec!["C-D".to_owned()];
    coverage.waivers.insert("C-D-01".to_owned(), "no such thing here".to_owned());
    assert_eq!(ledger(&Citations::default(), &coverage).findings, []);
}

#[test]
fn a_decision_has_to_be_about_something_and_still_needed() {
    let mut coverage = undecided();
    coverage.waivers.insert("A-B-01".to_owned(), "no such thing here".to_owned());
    coverage.waivers.insert("A-B-77".to_owned(), "no such thing here".to_owned());
    coverage.waivers.insert("C-D-01".to_owned(), " ".to_owned());
    let findings = ledger(&tested(&["A-B-01"]), &coverage).findings;
    let (id, test) = ("A-B-01".to_owned(), "t.rs::A-B-01".to_owned());
    assert_eq!(
        findings,
        [
            Finding::ListedAndTested { id, test },
            Finding::UnknownId("A-B-77".to_owned()),
            Finding::NoReason("C-D-01".to_owned()),
        ]
    );
}

#[test]
fn what_is_held_needs_the_test_that_goes_through_it() {
    let mut coverage = undecided();
    coverage.held.insert("A-B-02".to_owned(), held("t.rs::gone"));
    coverage.waivers.insert("A-B-02".to_owned(), "no such thing here".to_owned());
    let (id, test) = ("A-B-02".to_owned(), "t.rs::gone".to_owned());
    assert_eq!(
        ledger(&tested(&["A-B-01"]), &coverage).findings,
        [Finding::HeldAndWaived(id.clone()), Finding::HeldWithoutTest { id, test }]
    );
}

#[test]
fn every_section_has_a_minimum_and_every_minimum_a_section() {
    let mut coverage = undecided();
    coverage.minimum.remove("C-D");
    coverage.minimum.insert("C-E".to_owned(), 0);
    coverage.complete.push("E-*".to_owned());
    assert_eq!(
        ledger(&Citations::default(), &coverage).findings,
        [
            Finding::UnknownSection("E-*".to_owned()),
            Finding::UnknownSection("C-E".to_owned()),
            Finding::NoMinimum("C-D".to_owned()),
        ]
    );
}

#[test]
fn a_rule_needs_a_test_of_each_requirement_it_cites() {
    let at = |line| Place { file: "rules.rs".to_owned(), line };
    let mut rules = Rules::default();
    rules.by_id.insert("A-B-01".to_owned(), vec![at(1)]);
    rules.by_id.insert("A-B-02".to_owned(), vec![at(2)]);
    rules.unknown.push((at(3), "B2-A-77".to_owned()));
    let ledger = Ledger::new(&known(), &tested(&["A-B-01"]), &rules, &undecided());
    assert_eq!(
        ledger.findings,
        [
            Finding::RuleCitesUnknown { place: at(3), id: "B2-A-77".to_owned() },
            Finding::RuleUntested { rule: "rules.rs:2".to_owned(), id: "A-B-02".to_owned() },
        ]
    );
    assert_eq!(ledger.requirements[0].rules, ["rules.rs:1"]);
}

#[test]
fn citations_that_count_for_nothing_are_findings() {
    let mut citations = Citations::default();
    let place = Place { file: "t.rs".to_owned(), line: 9 };
    citations.bad.push((place, BadCitation::NoTest));
    let findings = ledger(&citations, &undecided()).findings;
    assert_eq!(findings[0].to_string(), "t.rs:9: no test follows this citation");
    assert_eq!(findings.len(), 1);
}
