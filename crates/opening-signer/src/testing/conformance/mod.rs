//! What every signer must do, as checks that anyone can run over theirs.
//!
//! ```
//! use std::sync::Arc;
//!
//! use bitcoin::Network;
//! use opening_signer::testing::conformance::{Subject, conformance};
//! use opening_signer::{Hsm, HsmSecret, LocalHsm};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! // The same number is the same secret and the same store: a restart.
//! let subject = Subject::new("mine", Network::Regtest, |node| async move {
//!     let secret = HsmSecret::new([u8::try_from(node).expect("there are few checks"); 32]);
//!     Ok(Arc::new(LocalHsm::blind(&secret)) as Arc<dyn Hsm>)
//! });
//! let report = conformance(subject).await;
//! assert!(report.is_pass(), "{report}");
//! # }
//! ```
//!
//! A check is [passed](Outcome::Pass), [failed](Outcome::Fail) with what was asked, or
//! [not enforced](Outcome::NotEnforced): a blind signer says that it does not look, and the report
//! says at what.  A blind signer that looks all the same passes.

mod commitments;
mod keys;
mod lasting;
mod order;
mod play;
mod report;
mod setups;

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bitcoin::Network;
use bitcoin::secp256k1::ecdsa::Signature;

use self::play::Wrong;
pub use self::report::{Finding, Outcome, Report, Signatures};
use crate::error::HsmResult;
use crate::hsm::Hsm;
use crate::info::{Enforcement, Info};

/// A check that takes longer has failed: nothing in it waits for a person.
const PATIENCE: Duration = Duration::from_secs(60);

type Starting = Pin<Box<dyn Future<Output = HsmResult<Arc<dyn Hsm>>> + Send>>;

/// The signer to be checked.
pub struct Subject {
    name: String,
    network: Network,
    start: Box<dyn Fn(u32) -> Starting + Send + Sync>,
    secrets: Vec<Vec<u8>>,
    /// What it said when it said no.
    said: Mutex<Vec<String>>,
    /// What it signed.
    signatures: Mutex<Signatures>,
}

impl Subject {
    /// `start` gives the signer of a node by its number: a new one, or, for a number that was
    /// there before, the same one after a restart.  Each check takes a number of its own, below
    /// 100.
    pub fn new<F, S>(name: impl Into<String>, network: Network, start: F) -> Self
    where
        F: Fn(u32) -> S + Send + Sync + 'static,
        S: Future<Output = HsmResult<Arc<dyn Hsm>>> + Send + 'static,
    {
        Self {
            name: name.into(),
            network,
            start: Box::new(move |node| Box::pin(start(node))),
            secrets: Vec::new(),
            said: Mutex::default(),
            signatures: Mutex::default(),
        }
    }

    /// The same; no error may contain this secret, in hexadecimal or as a list of bytes.
    pub fn with_secret(mut self, secret: impl Into<Vec<u8>>) -> Self {
        self.secrets.push(secret.into());
        self
    }

    async fn start(&self, node: u32) -> Result<Arc<dyn Hsm>, Wrong> {
        (self.start)(node).await.map_err(|error| Wrong::new(format!("it does not start: {error}")))
    }

    fn is_told_by(&self, text: &str) -> bool {
        self.secrets.iter().any(|secret| {
            let list = format!("{secret:?}");
            text.contains(&hex(secret)) || text.contains(list.trim_matches(['[', ']']))
        })
    }

    /// Whoever reads the report should not learn a secret from it.
    fn scrub(&self, outcome: &mut Outcome) {
        let (Outcome::Fail { detail, .. } | Outcome::NotEnforced(detail)) = outcome else { return };
        if self.is_told_by(detail) {
            *detail = "(a text that contains a secret)".into();
        }
    }

    /// Counts a good signature.
    fn signed(&self, signature: &Signature) {
        let mut signatures = self.signatures.lock().unwrap_or_else(PoisonError::into_inner);
        signatures.all += 1;
        signatures.low_r += u32::from(signature.serialize_compact()[0] < 0x80);
    }

    fn said(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a signer must do, whatever it declares, or only if it validates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needed {
    /// By every signer.
    Always,
    /// By one that says [`Enforcement::Validating`].
    Validating,
}

/// One thing that a signer must do.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// Stable, kebab-case.
    pub id: &'static str,
    /// What it must do.
    pub title: &'static str,
    /// Who must.
    pub needed: Needed,
    run: fn(Arc<Subject>, u32) -> Running,
}

type Running = Pin<Box<dyn Future<Output = Result<(), Wrong>> + Send>>;

/// Every check, in the order of the report.
pub fn checks() -> impl Iterator<Item = Check> {
    let groups =
        [keys::CHECKS, order::CHECKS, setups::CHECKS, commitments::CHECKS, lasting::CHECKS];
    groups.into_iter().flatten().copied()
}

/// Runs every check over the signer, one after the other.
///
/// A check that panics or does not end has failed, and the others go on; of a signer that does not
/// start every check has.  Has to be called within a tokio runtime.
pub async fn conformance(subject: Subject) -> Report {
    let subject = Arc::new(subject);
    let mut findings = Vec::new();
    match bounded(introduce(subject.clone())).await {
        Ok(info) => {
            for (node, check) in (1..).zip(checks()) {
                let result = bounded((check.run)(subject.clone(), node)).await;
                let outcome = judge(check, info.enforcement, result);
                findings.push(Finding { check, outcome });
            }
            findings.push(secrecy(&subject));
            report(&subject, Some(info), findings)
        }
        Err(wrong) => {
            // Nothing is known of it, and nothing excused.
            findings.extend(checks().map(|check| {
                let outcome = judge(check, Enforcement::Validating, Err(wrong.clone()));
                Finding { check, outcome }
            }));
            report(&subject, None, findings)
        }
    }
}

/// What the signer says of itself.
async fn introduce(subject: Arc<Subject>) -> Result<Info, Wrong> {
    Ok(subject.start(0).await?.info())
}

/// In a task of its own, which may panic and is not awaited for ever.
async fn bounded<T: Send + 'static>(
    run: impl Future<Output = Result<T, Wrong>> + Send + 'static,
) -> Result<T, Wrong> {
    let running = tokio::spawn(run);
    let abort = running.abort_handle();
    match tokio::time::timeout(PATIENCE, running).await {
        Ok(Ok(result)) => result,
        Ok(Err(error)) => Err(Wrong::new(format!("it panicked: {error}"))),
        Err(_) => {
            abort.abort();
            Err(Wrong::new(format!("it took longer than {PATIENCE:?}")))
        }
    }
}

fn report(subject: &Subject, info: Option<Info>, mut findings: Vec<Finding>) -> Report {
    for finding in &mut findings {
        subject.scrub(&mut finding.outcome);
    }
    let signatures = *subject.signatures.lock().unwrap_or_else(PoisonError::into_inner);
    Report { signer: subject.name.clone(), info, findings, signatures }
}

fn judge(check: Check, enforcement: Enforcement, result: Result<(), Wrong>) -> Outcome {
    let is_declared = check.needed == Needed::Validating && enforcement == Enforcement::Blind;
    match result {
        Ok(()) => Outcome::Pass,
        Err(Wrong::NotApplicable(why)) => Outcome::NotApplicable(why),
        // What it did at all it did wrong: that it does not look is no excuse.
        Err(Wrong::Allowed(detail)) if is_declared => Outcome::NotEnforced(detail),
        Err(Wrong::Allowed(detail)) => Outcome::Fail { detail, request: None },
        Err(Wrong::AllowedRequest { detail, .. }) if is_declared => Outcome::NotEnforced(detail),
        Err(Wrong::Broken { detail, request }) => Outcome::Fail { detail, request },
        Err(Wrong::AllowedRequest { detail, request }) => {
            Outcome::Fail { detail, request: Some(request) }
        }
    }
}

/// What it said in all the checks, held against the secrets that are known.
fn secrecy(subject: &Subject) -> Finding {
    let check = Check {
        id: "no-secret-in-errors",
        title: "no error contains a secret",
        needed: Needed::Always,
        run: |_, _| Box::pin(async { Ok(()) }),
    };
    let said = subject.said();
    let told = said.iter().find(|text| subject.is_told_by(text));
    let outcome = match (told, subject.secrets.is_empty()) {
        (_, true) => Outcome::NotApplicable("no secret of it was given"),
        (Some(text), _) => Outcome::Fail {
            detail: format!("a text of {} characters contains one", text.len()),
            request: None,
        },
        (None, _) => Outcome::Pass,
    };
    Finding { check, outcome }
}

fn hex(bytes: &[u8]) -> String {
    use bitcoin::hex::DisplayHex;
    bytes.to_lower_hex_string()
}
