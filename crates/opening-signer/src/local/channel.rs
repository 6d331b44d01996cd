//! One channel of a [`LocalHsm`](super::LocalHsm).

use std::sync::Arc;

use async_trait::async_trait;
use bitcoin::secp256k1::PublicKey;
use bitcoin::secp256k1::ecdsa::Signature;
use opening_core::ChannelKeys;
use opening_core::secrets::{generate_from_seed, secret_index};
use zeroize::Zeroizing;

use super::memory::{Memory, Rebuilt, Signable, Unsigned};
use super::public::Public;
use super::records::Records;
use super::secret::with_key;
use super::{Shared, Validating, rule};
use crate::error::HsmResult;
use crate::hsm::ChannelHsm;
use crate::memory::{ChannelMemory, invalid};
use crate::request::{ChannelRef, ChannelSetup, CommitmentRequest};

/// Knows of the channel's secrets the two that opening uses.
pub(super) struct LocalChannel {
    shared: Arc<Shared>,
    reference: ChannelRef,
    funding_secret: Zeroizing<[u8; 32]>,
    shachain_seed: Zeroizing<[u8; 32]>,
    public: Arc<Public>,
}

impl LocalChannel {
    pub(super) fn new(shared: Arc<Shared>, reference: ChannelRef) -> Self {
        let secrets = shared.root.channel(reference);
        let public = shared.public(reference, &secrets);
        Self {
            funding_secret: Zeroizing::new(*secrets.funding()),
            shachain_seed: Zeroizing::new(*secrets.shachain_seed()),
            public,
            reference,
            shared,
        }
    }

    fn memory<T>(&self, act: impl FnOnce(&mut Memory) -> HsmResult<T>) -> HsmResult<T> {
        let mut channels = self.shared.channels();
        act(channels.get_mut(&self.reference).ok_or_else(rule::setup_missing)?)
    }

    /// Signs when the record is durable.
    async fn sign(&self, signable: Signable) -> HsmResult<Signature> {
        if let (Some(validating), Some(unsigned)) = (&self.shared.validating, signable.record) {
            self.keep(&validating.records, unsigned).await?;
        }
        let secp = &self.shared.secp;
        Ok(with_key(&self.funding_secret, |key| secp.sign_ecdsa_low_r(&signable.sighash, key)))
    }

    /// Returns when the record would survive a crash.
    async fn keep(&self, records: &Records, unsigned: Unsigned) -> HsmResult<()> {
        let Unsigned { record, recorded } = unsigned;
        let found = records.find(self.reference, &record).await?;
        if recorded {
            return if found { Ok(()) } else { Err(records.lose(self.reference)) };
        }
        // Two calls at once keep the same record twice, which is harmless.  That it is the same is
        // looked at under the lock under which the write is given its place: a call for what the
        // channel was before it was forgotten overwrites nothing.
        let writing = self.memory(|memory| {
            memory.is_still(&record)?;
            Ok(records.begin(self.reference, record, found))
        })?;
        let kept = writing.finish().await?;
        self.memory(|memory| {
            let is_first = memory.is_still(&record)?.recorded();
            kept.count(is_first);
            Ok(())
        })
    }
}

/// `None` beyond the last commitment.
pub(super) fn per_commitment_secret(seed: &[u8; 32], number: u64) -> Option<Zeroizing<[u8; 32]>> {
    Some(Zeroizing::new(generate_from_seed(seed, secret_index(number)?)))
}

#[async_trait]
impl ChannelHsm for LocalChannel {
    async fn pubkeys(&self) -> HsmResult<ChannelKeys> {
        Ok(self.public.keys)
    }

    async fn per_commitment_point(&self, number: u64) -> HsmResult<PublicKey> {
        if number == 0 {
            return Ok(self.public.first_per_commitment_point);
        }
        let secret = per_commitment_secret(&self.shachain_seed, number)
            .ok_or_else(|| invalid("no commitment number is beyond 2^48 - 1"))?;
        Ok(with_key(&secret, |key| key.public_key(&self.shared.secp)))
    }

    async fn setup(&self, setup: &ChannelSetup) -> HsmResult<()> {
        let Public { keys, first_per_commitment_point } = &*self.public;
        let channel = ChannelMemory::set_up(setup, keys, first_per_commitment_point)?;
        if let Some(memory) = self.shared.channels().get(&self.reference) {
            return memory.set_up_again(setup);
        }
        let mut rebuilt = None;
        if let Some(Validating { policy, records }) = &self.shared.validating {
            policy.judge(setup)?;
            let new = rebuilt.insert(Rebuilt::from_setup(&self.shared.secp, setup)?);
            // Found or not, it is written before the first signature: who wrote it may have died
            // before it was durable.
            records.find(self.reference, &new.record).await?;
        }
        // Another call may have come first while we read.
        let mut channels = self.shared.channels();
        channels
            .entry(self.reference)
            .or_insert_with(|| Box::new(Memory::new(channel, rebuilt)))
            .set_up_again(setup)
    }

    async fn sign_counterparty_commitment(
        &self,
        request: &CommitmentRequest<'_>,
    ) -> HsmResult<Signature> {
        let signable = self.memory(|memory| memory.sign_counterparty(request))?;
        self.sign(signable).await
    }

    async fn validate_holder_commitment(
        &self,
        request: &CommitmentRequest<'_>,
        signature: &Signature,
    ) -> HsmResult<()> {
        self.memory(|memory| memory.is_ours(request))?;
        // Without the lock: other channels do not wait for it.
        let proof = request.signed_by_peer(&self.shared.secp, signature)?;
        self.memory(|memory| memory.validated(request, &proof))
    }

    async fn sign_holder_commitment(
        &self,
        request: &CommitmentRequest<'_>,
    ) -> HsmResult<Signature> {
        let signable = self.memory(|memory| memory.sign_holder(request))?;
        self.sign(signable).await
    }
}
