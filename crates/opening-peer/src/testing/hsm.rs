//! A signer that goes wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bitcoin::secp256k1::PublicKey;
use bitcoin::secp256k1::ecdsa::Signature;
use opening_core::ChannelKeys;
use opening_signer::{
    ChannelHsm, ChannelRef, ChannelSetup, CommitmentRequest, Hsm, HsmError, HsmResult, Info,
};

use super::Faults;

/// Another signer, whose calls go wrong by the names of their methods; those of all its channels
/// are counted together.
///
/// A call that fails before it is done says [`HsmError::Unavailable`], one that fails after it
/// says [`HsmError::Indeterminate`], unless [`failing_with`](Self::failing_with) chooses.
pub struct FaultyHsm {
    inner: Arc<dyn Hsm>,
    wrong: Wrong,
}

#[derive(Clone)]
struct Wrong {
    faults: Faults,
    failure: Option<HsmError>,
}

impl FaultyHsm {
    /// `inner`, with these faults.
    pub fn new(inner: Arc<dyn Hsm>, faults: Faults) -> Self {
        Self { inner, wrong: Wrong { faults, failure: None } }
    }

    /// The same; calls that fail say this.
    pub fn failing_with(mut self, failure: HsmError) -> Self {
        self.wrong.failure = Some(failure);
        self
    }
}

impl Wrong {
    async fn around<T>(
        &self,
        method: &'static str,
        act: impl Future<Output = HsmResult<T>>,
    ) -> HsmResult<T> {
        let is_done = AtomicBool::new(false);
        let act = async {
            let done = act.await;
            is_done.store(true, Ordering::Relaxed);
            done
        };
        let failure = || match &self.failure {
            Some(failure) => failure.clone(),
            None if is_done.load(Ordering::Relaxed) => HsmError::Indeterminate(ON_PURPOSE.into()),
            None => HsmError::Unavailable(ON_PURPOSE.into()),
        };
        self.faults.around(method, act, failure).await
    }
}

const ON_PURPOSE: &str = "on purpose";

#[async_trait]
impl Hsm for FaultyHsm {
    fn info(&self) -> Info {
        self.inner.info()
    }

    async fn channel(&self, reference: ChannelRef) -> HsmResult<Arc<dyn ChannelHsm>> {
        let inner = self.wrong.around("channel", self.inner.channel(reference)).await?;
        Ok(Arc::new(FaultyChannelHsm { inner, wrong: self.wrong.clone() }))
    }

    async fn forget_channel(&self, reference: ChannelRef) -> HsmResult<()> {
        self.wrong.around("forget_channel", self.inner.forget_channel(reference)).await
    }
}

struct FaultyChannelHsm {
    inner: Arc<dyn ChannelHsm>,
    wrong: Wrong,
}

#[async_trait]
impl ChannelHsm for FaultyChannelHsm {
    async fn pubkeys(&self) -> HsmResult<ChannelKeys> {
        self.wrong.around("pubkeys", self.inner.pubkeys()).await
    }

    async fn per_commitment_point(&self, number: u64) -> HsmResult<PublicKey> {
        let act = self.inner.per_commitment_point(number);
        self.wrong.around("per_commitment_point", act).await
    }

    async fn setup(&self, setup: &ChannelSetup) -> HsmResult<()> {
        self.wrong.around("setup", self.inner.setup(setup)).await
    }

    async fn sign_counterparty_commitment(
        &self,
        request: &CommitmentRequest<'_>,
    ) -> HsmResult<Signature> {
        let act = self.inner.sign_counterparty_commitment(request);
        self.wrong.around("sign_counterparty_commitment", act).await
    }

    async fn validate_holder_commitment(
        &self,
        request: &CommitmentRequest<'_>,
        signature: &Signature,
    ) -> HsmResult<()> {
        let act = self.inner.validate_holder_commitment(request, signature);
        self.wrong.around("validate_holder_commitment", act).await
    }

    async fn sign_holder_commitment(
        &self,
        request: &CommitmentRequest<'_>,
    ) -> HsmResult<Signature> {
        let act = self.inner.sign_holder_commitment(request);
        self.wrong.around("sign_holder_commitment", act).await
    }
}
