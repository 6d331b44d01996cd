//! What the checks found, for people and programs.

use core::fmt;

use serde_json::{Value, json};

use super::Check;
use crate::info::{Enforcement, Info};

/// What the checks found out about one signer.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its name.
    pub signer: String,
    /// What it says of itself; `None` where it did not start.
    pub info: Option<Info>,
    /// One for each check.
    pub findings: Vec<Finding>,
    /// What it signed meanwhile.
    pub signatures: Signatures,
}

/// Good signatures.  That R is low is asked of nobody: it saves a byte on the chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signatures {
    /// All of them.
    pub all: u32,
    /// Those whose R is low.
    pub low_r: u32,
}

/// What one check found.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Which.
    pub check: Check,
    /// What it found.
    pub outcome: Outcome,
}

/// How a check ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The signer does it.
    Pass,
    /// It does not, and it must.
    Fail {
        /// What was asked and what came.
        detail: String,
        /// The transaction of the request, in hexadecimal, where there was one.
        request: Option<String>,
    },
    /// It does not, as it says of itself.
    NotEnforced(String),
    /// It cannot be asked, and why.
    NotApplicable(&'static str),
}

impl Outcome {
    /// Stable, for programs.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail { .. } => "fail",
            Self::NotEnforced(_) => "not-enforced",
            Self::NotApplicable(_) => "not-applicable",
        }
    }
}

impl Report {
    /// Nothing failed.
    pub fn is_pass(&self) -> bool {
        !self.findings.iter().any(|finding| matches!(finding.outcome, Outcome::Fail { .. }))
    }

    /// The outcome of the check with this id.
    pub fn outcome(&self, id: &str) -> Option<&Outcome> {
        let finding = self.findings.iter().find(|finding| finding.check.id == id)?;
        Some(&finding.outcome)
    }

    /// For programs.
    pub fn to_json(&self) -> Value {
        let enforcement = self.info.as_ref().map(|info| match info.enforcement {
            Enforcement::Blind => "blind",
            Enforcement::Validating => "validating",
        });
        let findings = self.findings.iter().map(|Finding { check, outcome }| {
            let (detail, request) = match outcome {
                Outcome::Pass => (None, None),
                Outcome::Fail { detail, request } => (Some(detail.as_str()), request.as_deref()),
                Outcome::NotEnforced(detail) => (Some(detail.as_str()), None),
                Outcome::NotApplicable(why) => (Some(*why), None),
            };
            json!({
                "check": check.id,
                "title": check.title,
                "outcome": outcome.as_str(),
                "detail": detail,
                "request": request,
            })
        });
        json!({
            "signer": self.signer,
            "enforcement": enforcement,
            "passes": self.is_pass(),
            "signatures": self.signatures.all,
            "low_r_signatures": self.signatures.low_r,
            "findings": findings.collect::<Value>(),
        })
    }

    /// Several signers side by side, as a table in Markdown: a row for each check.
    pub fn to_markdown(reports: &[Self]) -> String {
        let Some(first) = reports.first() else { return String::new() };
        let cells = |cells: Vec<&str>| format!("| {} |\n", cells.join(" | "));
        let mut names = vec!["check", "a signer"];
        names.extend(reports.iter().map(|report| report.signer.as_str()));
        let mut table = cells(names.clone());
        table.push_str(&cells(vec!["---"; names.len()]));
        for Finding { check, .. } in &first.findings {
            let outcomes = reports.iter().map(|report| {
                report.outcome(check.id).map_or("not run", |outcome| match outcome {
                    Outcome::Pass => "yes",
                    Outcome::Fail { .. } => "**no**",
                    Outcome::NotEnforced(_) => "does not look",
                    Outcome::NotApplicable(_) => "–",
                })
            });
            let id = format!("`{}`", check.id);
            table
                .push_str(&cells([id.as_str(), check.title].into_iter().chain(outcomes).collect()));
        }
        table
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.is_pass() { "conforms" } else { "does not conform" };
        writeln!(f, "{} {verdict}", self.signer)?;
        let Signatures { all, low_r } = self.signatures;
        writeln!(f, "  of {all} good signatures {low_r} are low-R")?;
        let width = self.findings.iter().map(|finding| finding.check.id.len()).max().unwrap_or(0);
        for Finding { check, outcome } in &self.findings {
            writeln!(f, "  {:width$}  {:14}  {}", check.id, outcome.as_str(), check.title)?;
            match outcome {
                Outcome::Pass => {}
                Outcome::Fail { detail, request } => {
                    writeln!(f, "  {:width$}    {detail}", "")?;
                    if let Some(request) = request {
                        writeln!(f, "  {:width$}    asked for: {request}", "")?;
                    }
                }
                Outcome::NotEnforced(detail) => writeln!(f, "  {:width$}    {detail}", "")?,
                Outcome::NotApplicable(why) => writeln!(f, "  {:width$}    {why}", "")?,
            }
        }
        Ok(())
    }
}
