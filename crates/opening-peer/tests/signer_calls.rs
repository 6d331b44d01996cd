//! In which order the signer is asked, and that one that is down is not asked at all.

// Clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::secp256k1::PublicKey;
use bitcoin::secp256k1::ecdsa::Signature;
use common::here::Here;
use common::raw_peer::RawPeer;
use common::{ask, signed};
use lightning::ln::types::ChannelId;
use opening_core::ChannelKeys;
use opening_peer::{Event, Failure};
use opening_signer::{
    Call, ChannelHsm, ChannelRef, ChannelSetup, CommitmentRequest, Hsm, HsmError, HsmResult,
    HsmSecret, Info, LocalHsm, Pipelining,
};
use tokio::sync::Semaphore;

/// Shorter than the tests' own patience.
const DEADLINE: Duration = Duration::from_secs(6);
const ID: ChannelId = ChannelId([7; 32]);

/// Writes down each call as it is made, and answers it when it is let.
struct Slow(Arc<State>);

struct State {
    inner: LocalHsm,
    pipelining: Pipelining,
    /// Answers that may be given.
    answers: Semaphore,
    asked: Mutex<Vec<Call>>,
    fails: Mutex<Vec<(Call, HsmError)>>,
    is_down: Mutex<bool>,
}

impl Slow {
    fn new(pipelining: Pipelining) -> Arc<Self> {
        Arc::new(Self(Arc::new(State {
            inner: LocalHsm::blind(&HsmSecret::new([1; 32])),
            pipelining,
            answers: Semaphore::new(0),
            asked: Mutex::default(),
            fails: Mutex::default(),
            is_down: Mutex::new(false),
        })))
    }

    fn asked(&self) -> Vec<Call> {
        self.0.asked.lock().unwrap().clone()
    }

    fn answer(&self, calls: usize) {
        self.0.answers.add_permits(calls);
    }

    /// The next time it is asked, the call fails.
    fn fail(&self, call: Call, error: HsmError) {
        self.0.fails.lock().unwrap().push((call, error));
    }

    /// Waits until it has been asked this often since its start.
    async fn asked_times(&self, times: usize) -> Vec<Call> {
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        let asked = self.asked();
        assert_eq!(asked.len(), times, "{asked:?}");
        asked
    }
}

impl State {
    async fn answer<T>(
        &self,
        call: Call,
        answer: impl Future<Output = HsmResult<T>>,
    ) -> HsmResult<T> {
        self.asked.lock().unwrap().push(call);
        self.answers.acquire().await.unwrap().forget();
        let failing = {
            let mut fails = self.fails.lock().unwrap();
            let index = fails.iter().position(|(of, _)| *of == call);
            index.map(|index| fails.remove(index).1)
        };
        match failing {
            Some(error) => Err(error),
            None => answer.await,
        }
    }
}

#[async_trait]
impl Hsm for Slow {
    fn info(&self) -> Info {
        Info { pipelining: self.0.pipelining, ..self.0.inner.info() }
    }

    fn health(&self) -> HsmResult<()> {
        match *self.0.is_down.lock().unwrap() {
            true => Err(HsmError::Unavailable("no answer since noon".into())),
            false => Ok(()),
        }
    }

    async fn channel(&self, reference: ChannelRef) -> HsmResult<Arc<dyn ChannelHsm>> {
        let inner = self.0.inner.channel(reference).await?;
        Ok(Arc::new(SlowChannel(inner, self.0.clone())))
    }

    async fn forget_channel(&self, reference: ChannelRef) -> HsmResult<()> {
        self.0.inner.forget_channel(reference).await
    }
}

struct SlowChannel(Arc<dyn ChannelHsm>, Arc<State>);

#[async_trait]
impl ChannelHsm for SlowChannel {
    async fn pubkeys(&self) -> HsmResult<ChannelKeys> {
        self.0.pubkeys().await
    }

    async fn per_commitment_point(&self, number: u64) -> HsmResult<PublicKey> {
        self.0.per_commitment_point(number).await
    }

    async fn setup(&self, setup: &ChannelSetup) -> HsmResult<()> {
        self.1.answer(Call::Setup, self.0.setup(setup)).await
    }

    async fn sign_counterparty_commitment(
        &self,
        request: &CommitmentRequest<'_>,
    ) -> HsmResult<Signature> {
        let answer = self.0.sign_counterparty_commitment(request);
        self.1.answer(Call::SignCounterpartyCommitment, answer).await
    }

    async fn validate_holder_commitment(
        &self,
        request: &CommitmentRequest<'_>,
        signature: &Signature,
    ) -> HsmResult<()> {
        let answer = self.0.validate_holder_commitment(request, signature);
        self.1.answer(Call::ValidateHolderCommitment, answer).await
    }

    async fn sign_holder_commitment(
        &self,
        request: &CommitmentRequest<'_>,
    ) -> HsmResult<Signature> {
        self.0.sign_holder_commitment(request).await
    }
}

const FUNDER: [Call; 3] =
    [Call::Setup, Call::SignCounterpartyCommitment, Call::ValidateHolderCommitment];
const FUNDEE: [Call; 3] =
    [Call::Setup, Call::ValidateHolderCommitment, Call::SignCounterpartyCommitment];

/// The peer funds a channel up to its `funding_created`.
async fn be_funded(hsm: &Arc<Slow>) -> (Here, RawPeer) {
    let here = Here::with(|node| {
        node.hsm = hsm.clone();
        node.deadlines.signer = DEADLINE;
    });
    let (mut peer, session) = RawPeer::connect(&here.openings, 2).await;
    // The connection is to outlive the handle that nobody here needs.
    std::mem::forget(session);
    let open = peer.open_channel(ID);
    peer.send(&open).await;
    let accept = peer.expect_accept_channel(ID).await;
    let created = peer.funding_created(&open, &accept, common::raw_peer::made_up_outpoint(1, 0));
    peer.send(&created).await;
    (here, peer)
}

#[tokio::test(start_paused = true)]
async fn a_fundees_calls_come_one_by_one() {
    let hsm = Slow::new(Pipelining::OneByOne);
    let (here, mut peer) = be_funded(&hsm).await;
    for answered in 0..3 {
        assert_eq!(hsm.asked_times(answered + 1).await, FUNDEE[..=answered]);
        hsm.answer(1);
    }
    peer.expect_funding_signed().await;
    here.seen.opened().await;
}

#[tokio::test(start_paused = true)]
async fn a_fundees_calls_go_out_together_where_the_signer_keeps_their_order() {
    let hsm = Slow::new(Pipelining::InOrder);
    let (here, mut peer) = be_funded(&hsm).await;
    assert_eq!(hsm.asked_times(3).await, FUNDEE);
    hsm.answer(3);
    peer.expect_funding_signed().await;
    here.seen.opened().await;
}

/// We fund a channel up to our calls before `funding_created`, and after it.
async fn fund(pipelining: Pipelining, together: usize) {
    let hsm = Slow::new(pipelining);
    let here = Here::with(|node| node.hsm = hsm.clone());
    let (mut peer, session) = RawPeer::connect(&here.openings, 2).await;
    let opening = session.open(ask()).await.unwrap();
    let open = peer.expect_open_channel().await;
    let accept = peer.accept_channel(&open);
    peer.send(&accept).await;
    let pending = opening.accepted().await.unwrap();
    let transaction = signed(&pending.needed().output);
    let completing = tokio::spawn(pending.complete(transaction));
    assert_eq!(hsm.asked_times(together).await, FUNDER[..together]);
    hsm.answer(2);
    let created = peer.expect_funding_created().await;
    peer.send(&peer.funding_signed(&open, &accept, &created)).await;
    assert_eq!(hsm.asked_times(3).await, FUNDER);
    hsm.answer(1);
    let (opened, permit) = completing.await.unwrap().unwrap().opened().await.unwrap();
    assert_eq!(permit.txid(), opened.parameters.funding_outpoint.txid);
}

#[tokio::test(start_paused = true)]
async fn a_funders_calls_come_one_by_one() {
    fund(Pipelining::OneByOne, 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_funders_calls_go_out_together_where_the_signer_keeps_their_order() {
    fund(Pipelining::InOrder, 2).await;
}

#[tokio::test(start_paused = true)]
async fn what_fails_among_calls_that_went_out_together_is_named() {
    for (index, call) in FUNDEE.into_iter().enumerate() {
        let hsm = Slow::new(Pipelining::InOrder);
        hsm.fail(call, HsmError::Refused { tag: "because".into(), detail: "so".into() });
        for later in &FUNDEE[index + 1..] {
            hsm.fail(*later, HsmError::Aborted);
        }
        hsm.answer(3);
        let (here, mut peer) = be_funded(&hsm).await;
        assert_eq!(peer.expect_error(ID).await, "internal error");
        match &*here.failed().await.failure {
            Failure::Signer { call: named, source } => {
                assert_eq!((*named, source.code()), (call, "signer-refused"));
            }
            other => panic!("{other}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_signer_is_named_with_the_call_it_does_not_answer() {
    for pipelining in [Pipelining::OneByOne, Pipelining::InOrder] {
        for (answered, call) in FUNDEE.into_iter().enumerate() {
            let hsm = Slow::new(pipelining);
            hsm.answer(answered);
            let (here, mut peer) = be_funded(&hsm).await;
            assert_eq!(peer.expect_error(ID).await, "internal error");
            match &*here.failed().await.failure {
                Failure::SignerSilent { call: named, after } => {
                    assert_eq!((*named, *after), (call, DEADLINE));
                }
                other => panic!("{other}"),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_deferred_among_calls_that_went_out_together_is_asked_for_again_with_all() {
    let hsm = Slow::new(Pipelining::InOrder);
    hsm.fail(Call::ValidateHolderCommitment, HsmError::Deferred);
    let (here, mut peer) = be_funded(&hsm).await;
    assert_eq!(hsm.asked_times(3).await, FUNDEE);
    hsm.answer(2);
    tokio::time::sleep(Duration::from_millis(101)).await;
    assert_eq!(hsm.asked_times(6).await, [FUNDEE, FUNDEE].concat());
    hsm.answer(3);
    peer.expect_funding_signed().await;
    here.seen.opened().await;
}

// A dead signer must stop new openings at once.
// incident: LDK #2357
#[tokio::test(start_paused = true)]
async fn a_signer_that_is_down_refuses_at_once_in_both_roles() {
    let hsm = Slow::new(Pipelining::OneByOne);
    *hsm.0.is_down.lock().unwrap() = true;
    let here = Here::with(|node| node.hsm = hsm.clone());
    let (mut peer, session) = RawPeer::connect(&here.openings, 2).await;

    peer.send(&peer.open_channel(ID)).await;
    assert_eq!(peer.expect_error(ID).await, "internal error");
    let failed = here.failed().await;
    assert_eq!(failed.failure.code(), "signer-unavailable");
    let reason = std::error::Error::source(&*failed.failure).unwrap().to_string();
    assert!(reason.contains("no answer since noon"), "{reason}");

    let failed = session.open(ask()).await.unwrap_err();
    assert_eq!(failed.failure.code(), "signer-unavailable");
    peer.expect_silence().await;
    let status = here.openings.status().await;
    assert_eq!(status.signer.unwrap_err().code(), "signer-unavailable");

    *hsm.0.is_down.lock().unwrap() = false;
    assert_eq!(here.openings.status().await.signer, Ok(()));
    here.seen.take(|event| matches!(event, Event::Failed(_))).await;
    here.can_open(&session, &mut peer).await;
}
