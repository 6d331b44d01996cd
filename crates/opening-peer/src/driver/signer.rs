//! Calls to the signer: bounded in time, patient with one that has to be asked again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bitcoin::secp256k1::PublicKey;
use bitcoin::secp256k1::ecdsa::Signature;
use opening_signer::{
    Call, ChannelHsm, ChannelRef, ChannelSetup, CommitmentRequest, Hsm, HsmError, HsmResult,
    Pipelining,
};
use tokio::time::{sleep, timeout};

use crate::failure::Failure;
use crate::negotiation::LocalKeys;

/// First pause before a deferred call is repeated; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// One channel's signer, with the deadline that a call, or several that go together, have.
pub(crate) struct Signer {
    reference: ChannelRef,
    channel: Arc<dyn ChannelHsm>,
    pipelining: Pipelining,
    deadline: Duration,
}

impl Signer {
    pub(crate) async fn open(
        hsm: &dyn Hsm,
        reference: ChannelRef,
        deadline: Duration,
    ) -> Result<Self, Failure> {
        let channel = ask(Call::Channel, deadline, || hsm.channel(reference)).await?;
        Ok(Self { reference, channel, pipelining: hsm.info().pipelining, deadline })
    }

    /// Keys and first point, asked for together.
    pub(crate) async fn local_keys(&self) -> Result<LocalKeys, Failure> {
        let (keys, first_per_commitment_point) = tokio::try_join!(
            ask(Call::Pubkeys, self.deadline, || self.channel.pubkeys()),
            self.per_commitment_point(0),
        )?;
        Ok(LocalKeys { reference: self.reference, keys, first_per_commitment_point })
    }

    pub(crate) async fn per_commitment_point(&self, number: u64) -> Result<PublicKey, Failure> {
        let call = Call::PerCommitmentPoint;
        ask(call, self.deadline, || self.channel.per_commitment_point(number)).await
    }

    /// A funder's: setup, then the signature for the peer.
    pub(crate) async fn fund(
        &self,
        setup: &ChannelSetup,
        theirs: &CommitmentRequest<'_>,
    ) -> Result<Signature, Failure> {
        let turn = &Turn::of(&[Call::Setup, Call::SignCounterpartyCommitment]);
        turn.ask(self.deadline, || async move {
            let setup = turn.next(self.channel.setup(setup));
            let sign = turn.next(self.channel.sign_counterparty_commitment(theirs));
            match self.pipelining {
                Pipelining::InOrder => tokio::try_join!(biased; setup, sign).map(|done| done.1),
                Pipelining::OneByOne => {
                    setup.await?;
                    sign.await
                }
            }
        })
        .await
    }

    /// A fundee's: setup, then the peer's signature on our commitment, then ours for the peer.
    pub(crate) async fn be_funded(
        &self,
        setup: &ChannelSetup,
        (ours, signature): (&CommitmentRequest<'_>, &Signature),
        theirs: &CommitmentRequest<'_>,
    ) -> Result<Signature, Failure> {
        let turn = &Turn::of(&[
            Call::Setup,
            Call::ValidateHolderCommitment,
            Call::SignCounterpartyCommitment,
        ]);
        turn.ask(self.deadline, || async move {
            let setup = turn.next(self.channel.setup(setup));
            let validate = turn.next(self.channel.validate_holder_commitment(ours, signature));
            let sign = turn.next(self.channel.sign_counterparty_commitment(theirs));
            match self.pipelining {
                Pipelining::InOrder => {
                    tokio::try_join!(biased; setup, validate, sign).map(|done| done.2)
                }
                Pipelining::OneByOne => {
                    setup.await?;
                    validate.await?;
                    sign.await
                }
            }
        })
        .await
    }

    pub(crate) async fn setup(&self, setup: &ChannelSetup) -> Result<(), Failure> {
        ask(Call::Setup, self.deadline, || self.channel.setup(setup)).await
    }

    pub(crate) async fn validate(
        &self,
        request: &CommitmentRequest<'_>,
        signature: &Signature,
    ) -> Result<(), Failure> {
        let call = Call::ValidateHolderCommitment;
        let validate = || self.channel.validate_holder_commitment(request, signature);
        ask(call, self.deadline, validate).await
    }

    pub(crate) async fn sign_holder(
        &self,
        request: &CommitmentRequest<'_>,
    ) -> Result<Signature, Failure> {
        let call = Call::SignHolderCommitment;
        ask(call, self.deadline, || self.channel.sign_holder_commitment(request)).await
    }
}

/// One call, repeated with the same arguments while it is deferred, until the deadline.
async fn ask<T, F: Future<Output = HsmResult<T>>>(
    call: Call,
    deadline: Duration,
    request: impl Fn() -> F,
) -> Result<T, Failure> {
    Turn::of(&[call]).ask(deadline, request).await
}

/// Calls that depend on each other, and how many of them are answered.
struct Turn<'a> {
    calls: &'a [Call],
    answered: AtomicUsize,
}

impl<'a> Turn<'a> {
    const fn of(calls: &'a [Call]) -> Self {
        Self { calls, answered: AtomicUsize::new(0) }
    }

    async fn next<T>(&self, call: impl Future<Output = HsmResult<T>>) -> HsmResult<T> {
        let done = call.await?;
        self.answered.fetch_add(1, Ordering::Relaxed);
        Ok(done)
    }

    /// They are answered in order, so that what failed is the first without a good answer.
    fn at(&self) -> Call {
        self.calls[self.answered.load(Ordering::Relaxed).min(self.calls.len() - 1)]
    }

    /// Makes them, all again with the same arguments while one is deferred, until the deadline.
    async fn ask<T, F: Future<Output = HsmResult<T>>>(
        &self,
        deadline: Duration,
        make: impl Fn() -> F,
    ) -> Result<T, Failure> {
        let asking = async {
            let mut pause = FIRST_PAUSE;
            loop {
                self.answered.store(0, Ordering::Relaxed);
                match make().await {
                    Err(HsmError::Deferred) => sleep(pause).await,
                    answer => return answer,
                }
                pause = LONGEST_PAUSE.min(pause * 2);
            }
        };
        match timeout(deadline, asking).await {
            Ok(answer) => answer.map_err(|source| Failure::Signer { call: self.at(), source }),
            Err(_) => Err(Failure::SignerSilent { call: self.at(), after: deadline }),
        }
    }
}
