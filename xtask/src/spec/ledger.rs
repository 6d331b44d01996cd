//! Requirements, citations and decisions brought together: what is covered, what is wrong.

use serde::Serialize;

use super::citation::{BadCitation, Citations, Place};
use super::coverage::{Coverage, Held, covers};
use super::requirement::{Requirement, Requirements, section};
use super::rule::Rules;

/// What is known about all requirements.
#[derive(Debug, Serialize)]
pub(crate) struct Ledger {
    pub(crate) sections: Vec<Section>,
    pub(crate) requirements: Vec<Entry>,
    /// What makes the command fail.
    pub(crate) findings: Vec<Finding>,
}

/// What shows that a requirement is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    Tested,
    Held,
    Waived,
    Missing,
}

/// One requirement with all that cites it.
#[derive(Debug, Serialize)]
pub(crate) struct Entry {
    #[serde(flatten)]
    pub(crate) requirement: Requirement,
    pub(crate) status: Status,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) tests: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) rules: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) held: Option<Held>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) waiver: Option<String>,
}

/// The sums of one section.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Section {
    pub(crate) section: String,
    pub(crate) total: usize,
    pub(crate) tested: usize,
    pub(crate) held: usize,
    pub(crate) waived: usize,
    pub(crate) missing: usize,
    /// How many of all are a MUST or MUST NOT.
    pub(crate) musts: usize,
    /// Those among them that are missing.
    pub(crate) missing_musts: Vec<String>,
    /// What `tested` and `held` together may not fall below.
    pub(crate) minimum: usize,
    /// Whether no MUST or MUST NOT may be missing.
    pub(crate) must_be_complete: bool,
}

impl Section {
    /// How many requirements a test of ours shows, directly or through a dependency's type.
    pub(crate) fn covered(&self) -> usize {
        self.tested + self.held
    }

    fn count(&mut self, entry: &Entry) {
        let Requirement { id, level, .. } = &entry.requirement;
        self.total += 1;
        self.musts += usize::from(level.is_absolute());
        match entry.status {
            Status::Tested => self.tested += 1,
            Status::Held => self.held += 1,
            Status::Waived => self.waived += 1,
            Status::Missing => {
                self.missing += 1;
                if level.is_absolute() {
                    self.missing_musts.push(id.clone());
                }
            }
        }
    }
}

/// Something that makes the command fail.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Finding {
    #[error("{place}: {bad}")]
    BadCitation { place: Place, bad: BadCitation },
    #[error("{place}: {id}, cited by a rule, is no requirement")]
    RuleCitesUnknown { place: Place, id: String },
    #[error("{rule}: {id}, cited by a rule, has neither test nor waiver")]
    RuleUntested { rule: String, id: String },
    #[error("coverage.toml: {0} is no requirement")]
    UnknownId(String),
    #[error("coverage.toml: no section is called {0}")]
    UnknownSection(String),
    #[error("coverage.toml: {0} has no minimum")]
    NoMinimum(String),
    #[error("coverage.toml: {0} is both held and waived")]
    HeldAndWaived(String),
    #[error("coverage.toml: {id} is listed, but {test} tests it: remove the entry")]
    ListedAndTested { id: String, test: String },
    #[error("coverage.toml: {id} is held through {test}, and there is no such test")]
    HeldWithoutTest { id: String, test: String },
    #[error("coverage.toml: {0} needs a reason in words")]
    NoReason(String),
    #[error("{section}: {covered} requirements covered, and the minimum is {minimum}")]
    BelowMinimum { section: String, covered: usize, minimum: usize },
    #[error("{section}: no MUST may be missing here, and these are: {}", ids.join(", "))]
    MissingMusts { section: String, ids: Vec<String> },
}

impl Serialize for Finding {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Ledger {
    /// Brings everything together and judges it.
    pub(crate) fn new(
        requirements: &Requirements,
        citations: &Citations,
        rules: &Rules,
        coverage: &Coverage,
    ) -> Self {
        let entries: Vec<_> =
            requirements.iter().map(|row| entry(row, citations, rules, coverage)).collect();
        let sections: Vec<_> = requirements
            .sections()
            .into_iter()
            .map(|section| sum(section, &entries, coverage))
            .collect();
        let mut findings = citation_findings(citations, rules);
        findings.extend(coverage_findings(requirements, citations, coverage));
        findings.extend(sections.iter().filter_map(below_minimum));
        findings.extend(sections.iter().filter_map(missing_musts));
        findings.extend(entries.iter().filter_map(rule_untested));
        Self { sections, requirements: entries, findings }
    }
}

fn entry(row: &Requirement, citations: &Citations, rules: &Rules, coverage: &Coverage) -> Entry {
    let tests = citations.by_id.get(&row.id).cloned().unwrap_or_default();
    let held = coverage.held.get(&row.id).cloned();
    let waiver = coverage.waivers.get(&row.id).cloned();
    let status = match (&held, &waiver) {
        _ if !tests.is_empty() => Status::Tested,
        (Some(_), _) => Status::Held,
        (None, Some(_)) => Status::Waived,
        (None, None) => Status::Missing,
    };
    let rules = rules.by_id.get(&row.id).into_iter().flatten().map(Place::to_string).collect();
    Entry { requirement: row.clone(), status, tests, rules, held, waiver }
}

fn sum(name: &str, entries: &[Entry], coverage: &Coverage) -> Section {
    let mut sum = Section {
        section: name.to_owned(),
        minimum: coverage.minimum.get(name).copied().unwrap_or_default(),
        must_be_complete: coverage.complete.iter().any(|pattern| covers(pattern, name)),
        ..Section::default()
    };
    entries.iter().filter(|entry| section(&entry.requirement.id) == name).for_each(|entry| {
        sum.count(entry);
    });
    sum
}

/// Citations that count for nothing.
fn citation_findings(citations: &Citations, rules: &Rules) -> Vec<Finding> {
    let bad = citations.bad.iter().cloned().map(|(place, bad)| Finding::BadCitation { place, bad });
    let unknown =
        rules.unknown.iter().cloned().map(|(place, id)| Finding::RuleCitesUnknown { place, id });
    bad.chain(unknown).collect()
}

/// Entries of `coverage.toml` that say something untrue.
fn coverage_findings(
    requirements: &Requirements,
    citations: &Citations,
    coverage: &Coverage,
) -> Vec<Finding> {
    let sections = requirements.sections();
    let mut findings = Vec::new();
    for pattern in &coverage.complete {
        if !sections.iter().any(|section| covers(pattern, section)) {
            findings.push(Finding::UnknownSection(pattern.clone()));
        }
    }
    for section in coverage.minimum.keys() {
        if !sections.contains(&section.as_str()) {
            findings.push(Finding::UnknownSection(section.clone()));
        }
    }
    for section in sections {
        if !coverage.minimum.contains_key(section) {
            findings.push(Finding::NoMinimum(section.to_owned()));
        }
    }
    let reasons = coverage.waivers.iter();
    let reasons = reasons.chain(coverage.held.iter().map(|(id, held)| (id, &held.by)));
    for (id, reason) in reasons {
        if !requirements.contains(id) {
            findings.push(Finding::UnknownId(id.clone()));
        }
        if let Some(test) = citations.by_id.get(id).and_then(|tests| tests.first()) {
            findings.push(Finding::ListedAndTested { id: id.clone(), test: test.clone() });
        }
        if reason.trim().is_empty() {
            findings.push(Finding::NoReason(id.clone()));
        }
    }
    for (id, Held { test, .. }) in &coverage.held {
        if coverage.waivers.contains_key(id) {
            findings.push(Finding::HeldAndWaived(id.clone()));
        }
        if !citations.tests.contains(test) {
            findings.push(Finding::HeldWithoutTest { id: id.clone(), test: test.clone() });
        }
    }
    findings
}

fn below_minimum(section: &Section) -> Option<Finding> {
    let (covered, minimum) = (section.covered(), section.minimum);
    (covered < minimum).then(|| Finding::BelowMinimum {
        section: section.section.clone(),
        covered,
        minimum,
    })
}

fn missing_musts(section: &Section) -> Option<Finding> {
    (section.must_be_complete && !section.missing_musts.is_empty()).then(|| Finding::MissingMusts {
        section: section.section.clone(),
        ids: section.missing_musts.clone(),
    })
}

/// The first rule stands for all that cite the requirement.
fn rule_untested(entry: &Entry) -> Option<Finding> {
    let rule = entry.rules.first().filter(|_| entry.status == Status::Missing)?.clone();
    Some(Finding::RuleUntested { rule, id: entry.requirement.id.clone() })
}

#[cfg(test)]
mod tests;
