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
/// the same channel and the other channels were given.  A channel of an earlier process counts among
/// those from its setup on.  The peer's signature is verified here too,
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
    /// What no two channels may share: the funding key, which tells them apart, and the first point,
    /// whose secret would open the one with the revocation of the other.  Basepoints are not here:
    /// signers exist that pay several channels to one key.  An entry lives until the channel is
    /// forgotten.
    channels: Mutex<HashMap<PublicKey, ChannelRef>>,
}

impl Shared {
    fn channels(&self) -> MutexGuard<'_, HashMap<PublicKey, ChannelRef>> {
        // Nothing is left half-changed by a panic: each change is one insertion.
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<H: Hsm> Verified<H> {
    /// `inner`, verified.
    pub fn new(inner: H) -> Self {
        let secp = Secp256k1::verification_only();
        Self { inner, shared: Arc::new(Shared { secp, channels: Mutex::default() }) }
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
        self.shared.channels().retain(|_, of| *of != reference);
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
    /// The setup was taken, and says the same of keys and first point.
    is_set_up: bool,
}

impl Answers {
    fn point(&mut self, number: u64, point: PublicKey) -> HsmResult<()> {
        if self.points.iter().any(|&(n, p)| (n == number) != (p == point)) {
            return Err(broken("its per-commitment points contradict each other"));
        }
        if !self.points.contains(&(number, point)) {
            self.points.push((number, point));
        }
        Ok(())
    }
}

impl VerifiedChannel {
    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the key or the point for this channel, if no other has it.
    fn keep(&self, key: PublicKey) -> HsmResult<()> {
        match *self.shared.channels().entry(key).or_insert(self.reference) {
            of if of == self.reference => Ok(()),
            _ => Err(of_another_channel()),
        }
    }

    /// The same without keeping it.
    fn is_no_others(&self, point: &PublicKey) -> HsmResult<()> {
        match self.shared.channels().get(point) {
            Some(of) if *of != self.reference => Err(of_another_channel()),
            _ => Ok(()),
        }
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
        self.keep(keys.funding_pubkey)?;
        Ok(keys)
    }

    async fn per_commitment_point(&self, number: u64) -> HsmResult<PublicKey> {
        let point = self.inner.per_commitment_point(number).await?;
        self.answers().point(number, point)?;
        if number == 0 {
            self.keep(point)?
        } else {
            self.is_no_others(&point)?
        }
        Ok(point)
    }

    async fn setup(&self, setup: &ChannelSetup) -> HsmResult<()> {
        self.inner.setup(setup).await?;
        let local = &setup.parameters.local;
        let names = [local.keys.funding_pubkey, local.first_per_commitment_point];
        let is_saved = {
            let mut answers = self.answers();
            // A channel is opened by the handle that gave its keys.  Any other was saved before:
            // they are its own, whoever else was given them since.
            let is_saved = answers.keys.is_none() || answers.is_set_up;
            answers.is_set_up = true;
            answers.keys.get_or_insert(local.keys);
            answers.point(0, local.first_per_commitment_point)?;
            is_saved
        };
        if is_saved {
            self.shared.channels().extend(names.map(|name| (name, self.reference)));
            return Ok(());
        }
        names.into_iter().try_for_each(|name| self.keep(name))
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

fn of_another_channel() -> HsmError {
    broken("it gave the funding key or the first per-commitment point of another channel")
}

fn broken(how: &str) -> HsmError {
    HsmError::Protocol(how.into())
}
