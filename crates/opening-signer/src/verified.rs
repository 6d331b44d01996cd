//! A signer whose answers are not taken on trust.
//!
//! Trust ends where the process ends.  What a signer elsewhere answers is held against what it
//! answered before and against the transaction, so that nothing wrong reaches the peer: a signature
//! that does not verify would fail the channel there, a key of another channel would put both
//! channels' money at risk.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{PublicKey, Secp256k1, VerifyOnly};
use opening_core::ChannelKeys;

use crate::error::{HsmError, HsmResult};
use crate::hsm::{ChannelHsm, Hsm};
use crate::info::Info;
use crate::request::{ChannelRef, ChannelSetup, CommitmentRequest};

/// A signer whose answers are verified before they are passed on: signatures against the
/// transaction and the key that was announced, in their low-S form; keys and points against what
/// the same channel and the other channels were given.  The peer's signature is verified here too,
/// so that a signer may leave that to the node.
///
/// What does not hold is [`HsmError::Protocol`].
#[derive(Debug)]
pub struct Verified<H> {
    inner: H,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    secp: Secp256k1<VerifyOnly>,
    /// The funding key tells channels apart.  An entry lives until the channel is forgotten.
    funding_keys: Mutex<HashMap<PublicKey, ChannelRef>>,
}

impl Shared {
    fn funding_keys(&self) -> MutexGuard<'_, HashMap<PublicKey, ChannelRef>> {
        // Nothing is left half-changed by a panic: each change is one insertion.
        self.funding_keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<H: Hsm> Verified<H> {
    /// `inner`, verified.
    pub fn new(inner: H) -> Self {
        let secp = Secp256k1::verification_only();
        Self { inner, shared: Arc::new(Shared { secp, funding_keys: Mutex::default() }) }
    }
}

impl<H> Verified<H> {
    /// The signer itself.
    pub fn inner(&self) -> &H {
        &self.inner
    }
}

#[async_trait]
impl<H: Hsm> Hsm for Verified<H> {
    fn info(&self) -> Info {
        self.inner.info()
    }

    fn health(&self) -> HsmResult<()> {
        self.inner.health()
    }

    async fn channel(&self, reference: ChannelRef) -> HsmResult<Arc<dyn ChannelHsm>> {
        let inner = self.inner.channel(reference).await?;
        let answers = Mutex::default();
        Ok(Arc::new(VerifiedChannel { inner, reference, shared: self.shared.clone(), answers }))
    }

    async fn forget_channel(&self, reference: ChannelRef) -> HsmResult<()> {
        self.shared.funding_keys().retain(|_, of| *of != reference);
        self.inner.forget_channel(reference).await
    }
}

struct VerifiedChannel {
    inner: Arc<dyn ChannelHsm>,
    reference: ChannelRef,
    shared: Arc<Shared>,
    answers: Mutex<Answers>,
}

/// What the signer answered, which it must answer again.
#[derive(Default)]
struct Answers {
    keys: Option<ChannelKeys>,
    /// Opening asks for two.
    points: Vec<(u64, PublicKey)>,
}

impl VerifiedChannel {
    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A signature by this channel's funding key over the request's commitment.
    fn signature(
        &self,
        request: &CommitmentRequest<'_>,
        signature: Signature,
    ) -> HsmResult<Signature> {
        let funding_pubkey = &request.parameters.local.keys.funding_pubkey;
        if request.commitment.is_signed_by(&self.shared.secp, &signature, funding_pubkey) {
            Ok(signature)
        } else {
            Err(broken("its signature does not verify"))
        }
    }
}

#[async_trait]
impl ChannelHsm for VerifiedChannel {
    async fn pubkeys(&self) -> HsmResult<ChannelKeys> {
        let keys = self.inner.pubkeys().await?;
        if *self.answers().keys.get_or_insert(keys) != keys {
            return Err(broken("it gave other keys for the same channel before"));
        }
        let mut funding_keys = self.shared.funding_keys();
        if *funding_keys.entry(keys.funding_pubkey).or_insert(self.reference) != self.reference {
            return Err(broken("it gave the funding key of another channel"));
        }
        Ok(keys)
    }

    async fn per_commitment_point(&self, number: u64) -> HsmResult<PublicKey> {
        let point = self.inner.per_commitment_point(number).await?;
        let mut answers = self.answers();
        if answers.points.iter().any(|&(n, p)| (n == number) != (p == point)) {
            return Err(broken("its per-commitment points contradict each other"));
        }
        if !answers.points.contains(&(number, point)) {
            answers.points.push((number, point));
        }
        Ok(point)
    }

    async fn setup(&self, setup: &ChannelSetup) -> HsmResult<()> {
        self.inner.setup(setup).await
    }

    async fn sign_counterparty_commitment(
        &self,
        request: &CommitmentRequest<'_>,
    ) -> HsmResult<Signature> {
        let signature = self.inner.sign_counterparty_commitment(request).await?;
        self.signature(request, signature)
    }

    async fn validate_holder_commitment(
        &self,
        request: &CommitmentRequest<'_>,
        signature: &Signature,
    ) -> HsmResult<()> {
        let proof = Some(request.signed_by_peer(&self.shared.secp, signature)?);
        let request = &CommitmentRequest { proof, ..*request };
        self.inner.validate_holder_commitment(request, signature).await
    }

    async fn sign_holder_commitment(
        &self,
        request: &CommitmentRequest<'_>,
    ) -> HsmResult<Signature> {
        let signature = self.inner.sign_holder_commitment(request).await?;
        self.signature(request, signature)
    }
}

fn broken(how: &str) -> HsmError {
    HsmError::Protocol(how.into())
}
