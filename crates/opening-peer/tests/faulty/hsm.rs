//! A signer that goes wrong.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bitcoin::secp256k1::PublicKey;
use bitcoin::secp256k1::ecdsa::Signature;
use opening_core::ChannelKeys;
use opening_peer::testing::Faults;
use opening_signer::{
    ChannelHsm, ChannelRef, ChannelSetup, CommitmentRequest, Hsm, HsmError, HsmResult, Info,
    LocalHsm,
};
use tokio::time::Instant;

/// Every call of an opening.
pub const HSM_CALLS: [&str; 6] = [
    "channel",
    "pubkeys",
    "per_commitment_point",
    "setup",
    "sign_counterparty_commitment",
    "validate_holder_commitment",
];

/// What was asked, and when: call, all of its arguments, instant.
pub type Request = (&'static str, String, Instant);

/// Everything that was asked.
pub type Requests = Arc<Mutex<Vec<Request>>>;

/// A local signer whose calls go wrong by the names of their methods.
pub struct FaultyHsm {
    inner: LocalHsm,
    shared: Shared,
}

#[derive(Clone)]
struct Shared {
    faults: Faults,
    requests: Requests,
    /// How often the call named is deferred before it is answered.
    deferrals: Arc<Mutex<Option<(&'static str, u32)>>>,
}

impl FaultyHsm {
    pub fn new(inner: LocalHsm, faults: Faults) -> Self {
        let (requests, deferrals) = Default::default();
        Self { inner, shared: Shared { faults, requests, deferrals } }
    }

    pub fn requests(&self) -> Requests {
        self.shared.requests.clone()
    }

    pub fn defer(&self, call: &'static str, times: u32) {
        *self.shared.deferrals.lock().unwrap() = Some((call, times));
    }
}

impl Shared {
    async fn around<T>(
        &self,
        call: &'static str,
        arguments: String,
        act: impl Future<Output = HsmResult<T>>,
    ) -> HsmResult<T> {
        self.requests.lock().unwrap().push((call, arguments, Instant::now()));
        if let Some((deferred, times)) = &mut *self.deferrals.lock().unwrap()
            && *deferred == call
            && *times > 0
        {
            *times -= 1;
            return Err(HsmError::Deferred);
        }
        self.faults.around(call, act, || HsmError::Indeterminate("SECRET REASON".into())).await
    }
}

#[async_trait]
impl Hsm for FaultyHsm {
    fn info(&self) -> Info {
        self.inner.info()
    }

    async fn channel(&self, reference: ChannelRef) -> HsmResult<Arc<dyn ChannelHsm>> {
        let act = self.inner.channel(reference);
        let inner = self.shared.around("channel", format!("{reference:?}"), act).await?;
        Ok(Arc::new(FaultyChannel { inner, shared: self.shared.clone() }))
    }

    async fn forget_channel(&self, reference: ChannelRef) -> HsmResult<()> {
        let act = self.inner.forget_channel(reference);
        self.shared.around("forget_channel", format!("{reference:?}"), act).await
    }
}

struct FaultyChannel {
    inner: Arc<dyn ChannelHsm>,
    shared: Shared,
}

#[async_trait]
impl ChannelHsm for FaultyChannel {
    async fn pubkeys(&self) -> HsmResult<ChannelKeys> {
        self.shared.around("pubkeys", String::new(), self.inner.pubkeys()).await
    }

    async fn per_commitment_point(&self, number: u64) -> HsmResult<PublicKey> {
        let act = self.inner.per_commitment_point(number);
        self.shared.around("per_commitment_point", number.to_string(), act).await
    }

    async fn setup(&self, setup: &ChannelSetup) -> HsmResult<()> {
        self.shared.around("setup", format!("{setup:?}"), self.inner.setup(setup)).await
    }

    async fn sign_counterparty_commitment(
        &self,
        request: &CommitmentRequest<'_>,
    ) -> HsmResult<Signature> {
        let act = self.inner.sign_counterparty_commitment(request);
        self.shared.around("sign_counterparty_commitment", format!("{request:?}"), act).await
    }

    async fn validate_holder_commitment(
        &self,
        request: &CommitmentRequest<'_>,
        signature: &Signature,
    ) -> HsmResult<()> {
        let act = self.inner.validate_holder_commitment(request, signature);
        let arguments = format!("{request:?} {signature:?}");
        self.shared.around("validate_holder_commitment", arguments, act).await
    }

    async fn sign_holder_commitment(
        &self,
        request: &CommitmentRequest<'_>,
    ) -> HsmResult<Signature> {
        self.inner.sign_holder_commitment(request).await
    }
}
