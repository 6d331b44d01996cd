//! A signer that remembers what it was asked.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bitcoin::secp256k1::PublicKey;
use bitcoin::secp256k1::ecdsa::Signature;
use opening_core::ChannelKeys;
use opening_signer::{
    ChannelHsm, ChannelRef, ChannelSetup, CommitmentRequest, Hsm, HsmResult, Info,
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

/// Another signer, and everything that it was asked.
pub struct RecordingHsm {
    inner: Arc<dyn Hsm>,
    requests: Requests,
}

impl RecordingHsm {
    pub fn new(inner: Arc<dyn Hsm>) -> Self {
        Self { inner, requests: Requests::default() }
    }

    pub fn requests(&self) -> Requests {
        self.requests.clone()
    }
}

fn record(requests: &Requests, call: &'static str, arguments: String) {
    requests.lock().unwrap().push((call, arguments, Instant::now()));
}

#[async_trait]
impl Hsm for RecordingHsm {
    fn info(&self) -> Info {
        self.inner.info()
    }

    async fn channel(&self, reference: ChannelRef) -> HsmResult<Arc<dyn ChannelHsm>> {
        record(&self.requests, "channel", format!("{reference:?}"));
        let inner = self.inner.channel(reference).await?;
        Ok(Arc::new(RecordingChannelHsm { inner, requests: self.requests.clone() }))
    }

    async fn forget_channel(&self, reference: ChannelRef) -> HsmResult<()> {
        record(&self.requests, "forget_channel", format!("{reference:?}"));
        self.inner.forget_channel(reference).await
    }
}

struct RecordingChannelHsm {
    inner: Arc<dyn ChannelHsm>,
    requests: Requests,
}

#[async_trait]
impl ChannelHsm for RecordingChannelHsm {
    async fn pubkeys(&self) -> HsmResult<ChannelKeys> {
        record(&self.requests, "pubkeys", String::new());
        self.inner.pubkeys().await
    }

    async fn per_commitment_point(&self, number: u64) -> HsmResult<PublicKey> {
        record(&self.requests, "per_commitment_point", number.to_string());
        self.inner.per_commitment_point(number).await
    }

    async fn setup(&self, setup: &ChannelSetup) -> HsmResult<()> {
        record(&self.requests, "setup", format!("{setup:?}"));
        self.inner.setup(setup).await
    }

    async fn sign_counterparty_commitment(
        &self,
        request: &CommitmentRequest<'_>,
    ) -> HsmResult<Signature> {
        record(&self.requests, "sign_counterparty_commitment", format!("{request:?}"));
        self.inner.sign_counterparty_commitment(request).await
    }

    async fn validate_holder_commitment(
        &self,
        request: &CommitmentRequest<'_>,
        signature: &Signature,
    ) -> HsmResult<()> {
        let arguments = format!("{request:?} {signature:?}");
        record(&self.requests, "validate_holder_commitment", arguments);
        self.inner.validate_holder_commitment(request, signature).await
    }

    async fn sign_holder_commitment(
        &self,
        request: &CommitmentRequest<'_>,
    ) -> HsmResult<Signature> {
        self.inner.sign_holder_commitment(request).await
    }
}
