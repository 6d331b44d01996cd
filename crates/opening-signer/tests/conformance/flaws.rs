//! For each check a signer that fails it.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bitcoin::Network;
use bitcoin::secp256k1::PublicKey;
use bitcoin::secp256k1::ecdsa::Signature;
use opening_core::ChannelKeys;
use opening_signer::testing::conformance::{Needed, Outcome, Subject, checks, conformance};
use opening_signer::{
    Call, ChannelHsm, ChannelRef, ChannelSetup, CommitmentRequest, Enforcement, Hsm, HsmError,
    HsmResult, Info, LocalHsm,
};

use crate::reckless::Reckless;
use crate::{Nodes, secret};

/// What is wrong with a signer that is otherwise good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    /// Another channel each time it is named.
    NamesAnew,
    TakesNumber0,
    OneKeyForAll,
    OnePointForAll,
    PointsWithoutEnd,
    ForgetsItsKeys,
    /// The call fails every time.
    Fails(Call),
    /// The call fails the second time.
    FailsAgain(Call),
    TakesBadSignatures,
    /// A call that is dropped leaves it locked.
    StaysLocked,
    /// After a restart it takes no setup.
    ForgetsToGoOn,
    TellsItsSecret,
    Panics,
}

/// Each flaw, and a check that finds it.
const FLAWS: [(Flaw, &str); 16] = [
    (Flaw::NamesAnew, "channel-again"),
    (Flaw::TakesNumber0, "channel-0"),
    (Flaw::OneKeyForAll, "keys-distinct"),
    (Flaw::OnePointForAll, "points"),
    (Flaw::PointsWithoutEnd, "points-end"),
    (Flaw::ForgetsItsKeys, "keys-after-restart"),
    (Flaw::Fails(Call::SignCounterpartyCommitment), "opens"),
    (Flaw::FailsAgain(Call::Setup), "setup-again"),
    (Flaw::FailsAgain(Call::SignCounterpartyCommitment), "sign-again"),
    (Flaw::TakesBadSignatures, "bad-signature"),
    (Flaw::FailsAgain(Call::ValidateHolderCommitment), "validate-again"),
    (Flaw::StaysLocked, "dropped-call"),
    (Flaw::Panics, "many-at-once"),
    (Flaw::ForgetsToGoOn, "goes-on-after-restart"),
    (Flaw::Fails(Call::ForgetChannel), "forgets"),
    (Flaw::TellsItsSecret, "no-secret-in-errors"),
];

#[derive(Clone)]
struct Flawed(Arc<State>);

struct State {
    inner: LocalHsm,
    flaw: Flaw,
    life: u32,
    named: AtomicU32,
    seen: Mutex<BTreeSet<(u64, &'static str)>>,
    locked: AtomicBool,
}

impl State {
    fn fail<T>(&self, reason: &str) -> HsmResult<T> {
        Err(HsmError::Refused { tag: "flaw".into(), detail: format!("{:?}: {reason}", self.flaw) })
    }

    fn before(&self, call: Call, dbid: u64) -> HsmResult<()> {
        let is_new = self.seen.lock().unwrap().insert((dbid, call.as_str()));
        match self.flaw {
            Flaw::Fails(it) if it == call => self.fail("always"),
            Flaw::FailsAgain(it) if it == call && !is_new => self.fail("again"),
            Flaw::ForgetsToGoOn if self.life > 1 && call == Call::Setup => self.fail("restarted"),
            Flaw::TellsItsSecret if call == Call::SignHolderCommitment => {
                self.fail(&"05".repeat(32))
            }
            Flaw::Panics if self.locked.load(Ordering::Relaxed) => panic!("two at once"),
            _ => Ok(()),
        }
    }

    /// Takes a moment, in which it may be dropped.
    async fn work(&self) -> HsmResult<()> {
        let locks = matches!(self.flaw, Flaw::StaysLocked | Flaw::Panics);
        if self.locked.swap(locks, Ordering::Relaxed) && locks {
            return self.fail("locked");
        }
        tokio::task::yield_now().await;
        self.locked.store(false, Ordering::Relaxed);
        Ok(())
    }
}

#[async_trait]
impl Hsm for Flawed {
    fn info(&self) -> Info {
        self.0.inner.info()
    }

    async fn channel(&self, reference: ChannelRef) -> HsmResult<Arc<dyn ChannelHsm>> {
        let ChannelRef { peer, dbid } = reference;
        let dbid = match self.0.flaw {
            Flaw::NamesAnew => {
                dbid + 1000 * u64::from(self.0.named.fetch_add(1, Ordering::Relaxed))
            }
            Flaw::TakesNumber0 => dbid.max(1),
            Flaw::OneKeyForAll => 1,
            _ => dbid,
        };
        let inner = self.0.inner.channel(ChannelRef { peer, dbid }).await?;
        Ok(Arc::new(FlawedChannel { inner, state: self.0.clone(), dbid }))
    }

    async fn forget_channel(&self, reference: ChannelRef) -> HsmResult<()> {
        self.0.before(Call::ForgetChannel, reference.dbid)?;
        self.0.inner.forget_channel(reference).await
    }
}

struct FlawedChannel {
    inner: Arc<dyn ChannelHsm>,
    state: Arc<State>,
    dbid: u64,
}

#[async_trait]
impl ChannelHsm for FlawedChannel {
    async fn pubkeys(&self) -> HsmResult<ChannelKeys> {
        self.inner.pubkeys().await
    }

    async fn per_commitment_point(&self, number: u64) -> HsmResult<PublicKey> {
        let number = match self.state.flaw {
            Flaw::OnePointForAll => 0,
            Flaw::PointsWithoutEnd => number & 0xffff,
            _ => number,
        };
        self.inner.per_commitment_point(number).await
    }

    async fn setup(&self, setup: &ChannelSetup) -> HsmResult<()> {
        self.state.before(Call::Setup, self.dbid)?;
        self.state.work().await?;
        self.inner.setup(setup).await
    }

    async fn sign_counterparty_commitment(
        &self,
        request: &CommitmentRequest<'_>,
    ) -> HsmResult<Signature> {
        self.state.before(Call::SignCounterpartyCommitment, self.dbid)?;
        self.state.work().await?;
        self.inner.sign_counterparty_commitment(request).await
    }

    async fn validate_holder_commitment(
        &self,
        request: &CommitmentRequest<'_>,
        signature: &Signature,
    ) -> HsmResult<()> {
        self.state.before(Call::ValidateHolderCommitment, self.dbid)?;
        match self.inner.validate_holder_commitment(request, signature).await {
            Err(HsmError::BadCounterpartySignature)
                if self.state.flaw == Flaw::TakesBadSignatures =>
            {
                Ok(())
            }
            other => other,
        }
    }

    async fn sign_holder_commitment(
        &self,
        request: &CommitmentRequest<'_>,
    ) -> HsmResult<Signature> {
        self.state.before(Call::SignHolderCommitment, self.dbid)?;
        self.inner.sign_holder_commitment(request).await
    }
}

fn flawed(flaw: Flaw) -> Subject {
    let (nodes, lives) = (Nodes::default(), Mutex::<HashMap<u32, u32>>::default());
    Subject::new(format!("{flaw:?}"), Network::Regtest, move |node| {
        let life = {
            let mut lives = lives.lock().unwrap();
            let life = lives.entry(node).or_default();
            *life += 1;
            *life
        };
        let other = if flaw == Flaw::ForgetsItsKeys { 100 * (life - 1) } else { 0 };
        let inner = nodes.signer(node + other, Enforcement::Validating);
        let hsm: Arc<dyn Hsm> = Arc::new(Flawed(Arc::new(State {
            inner,
            flaw,
            life,
            named: AtomicU32::new(0),
            seen: Mutex::default(),
            locked: AtomicBool::new(false),
        })));
        async { Ok(hsm) }
    })
    .with_secret([5; 32])
}

#[tokio::test]
async fn each_flaw_is_found_by_its_check() {
    for (flaw, id) in FLAWS {
        let report = conformance(flawed(flaw)).await;
        let outcome = report.outcome(id);
        assert!(matches!(outcome, Some(Outcome::Fail { .. })), "{flaw:?} {id}\n{report}");
        assert!(!report.is_pass());
        assert!(!report.to_string().contains(&"05".repeat(32)), "the report tells the secret");
    }
}

fn reckless(enforcement: Enforcement) -> Subject {
    Subject::new("reckless", Network::Regtest, move |node| async move {
        Ok(Arc::new(Reckless::new(secret(node), enforcement)) as Arc<dyn Hsm>)
    })
}

/// One that looks at nothing is no validating signer, whatever it says, and every check for one
/// finds that.
#[tokio::test]
async fn a_signer_that_never_looks_fails_every_check_for_a_validating_one() {
    let report = conformance(reckless(Enforcement::Validating)).await;
    for check in checks().filter(|check| check.needed == Needed::Validating) {
        let outcome = report.outcome(check.id);
        assert!(matches!(outcome, Some(Outcome::Fail { .. })), "{}\n{report}", check.id);
    }
}

/// The same signer says what it is: then it is only said what it does not enforce.
#[tokio::test]
async fn a_signer_that_never_looks_and_says_so_conforms() {
    let report = conformance(reckless(Enforcement::Blind)).await;
    assert!(report.is_pass(), "{report}");
    // It does not grind: about half of them.
    assert!((1..report.signatures.all).contains(&report.signatures.low_r), "{report}");
    for check in checks().filter(|check| check.needed == Needed::Validating) {
        let outcome = report.outcome(check.id);
        assert!(matches!(outcome, Some(Outcome::NotEnforced(_))), "{}\n{report}", check.id);
    }
}

/// There is no check that nothing here has failed.
#[test]
fn every_check_has_a_signer_that_fails_it() {
    let mut failed: BTreeSet<&str> = FLAWS.into_iter().map(|(_, id)| id).collect();
    failed.remove("no-secret-in-errors");
    let always: BTreeSet<&str> =
        checks().filter(|check| check.needed == Needed::Always).map(|check| check.id).collect();
    assert_eq!(failed, always);
}

#[tokio::test]
async fn a_failure_tells_what_was_asked_and_how_it_ended() {
    let report = conformance(reckless(Enforcement::Validating)).await;
    let Some(Outcome::Fail { detail, request }) = report.outcome("commitment-fields") else {
        panic!("{report}");
    };
    assert_eq!(detail, "version 1: it signed");
    let request = request.as_deref().unwrap();
    assert!(request.starts_with("01000000"), "{request}");
    let json = report.to_json();
    let findings = json["findings"].as_array().unwrap();
    let finding = findings.iter().find(|finding| finding["check"] == "commitment-fields").unwrap();
    assert_eq!(finding["outcome"], "fail");
    assert_eq!(finding["request"], request);
    assert_eq!(json["passes"], false);
    assert_eq!(json["enforcement"], "validating");
    let text = report.to_string();
    assert!(text.contains("version 1: it signed") && text.contains(request), "{text}");
}

#[tokio::test]
async fn a_signer_that_does_not_start_fails_and_does_not_hang() {
    let subject = Subject::new("dead", Network::Regtest, |_| async {
        Err(HsmError::Unavailable("nobody is there".into()))
    });
    let report = conformance(subject).await;
    assert!(report.info.is_none() && !report.is_pass());
    assert!(report.to_string().contains("nobody is there"), "{report}");
}
