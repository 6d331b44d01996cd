//! One channel of a signer that goes wrong.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bitcoin::consensus::serialize;
use bitcoin::secp256k1::PublicKey;
use bitcoin::secp256k1::ecdsa::Signature;
use opening_core::ChannelKeys;

use super::{Forgery, State, Turn, forgery};
use crate::call::Call;
use crate::error::HsmResult;
use crate::hsm::ChannelHsm;
use crate::request::{ChannelRef, ChannelSetup, CommitmentRequest};

pub(super) struct MockChannel {
    state: Arc<State>,
    reference: ChannelRef,
    inner: Mutex<Inner>,
    setup: Mutex<Option<ChannelSetup>>,
}

/// The channel of the signer that was alive when it was asked for.
#[derive(Clone)]
struct Inner {
    life: u32,
    channel: Arc<dyn ChannelHsm>,
}

impl MockChannel {
    pub(super) async fn open(state: Arc<State>, reference: ChannelRef) -> HsmResult<Self> {
        let life = state.now();
        let channel = life.hsm.channel(reference).await?;
        let inner = Mutex::new(Inner { life: life.number, channel });
        Ok(Self { state, reference, inner, setup: Mutex::default() })
    }

    /// The channel of the signer that is alive now.
    async fn inner(&self) -> HsmResult<Arc<dyn ChannelHsm>> {
        let life = self.state.now();
        let known = self.inner.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if known.life == life.number {
            return Ok(known.channel);
        }
        let channel = life.hsm.channel(self.reference).await?;
        let inner = Inner { life: life.number, channel: channel.clone() };
        *self.inner.lock().unwrap_or_else(PoisonError::into_inner) = inner;
        Ok(channel)
    }

    fn begin(&self, call: Call, request: String) -> Turn<'_> {
        self.state.begin(call, self.reference, request, None)
    }

    fn begin_with(&self, call: Call, request: &CommitmentRequest<'_>, more: &str) -> Turn<'_> {
        let transaction = serialize(&request.commitment.transaction);
        let text = format!("{request:?}{more}");
        self.state.begin(call, self.reference, text, Some(transaction))
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Option<ChannelSetup>> {
        self.setup.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl ChannelHsm for MockChannel {
    async fn pubkeys(&self) -> HsmResult<ChannelKeys> {
        let turn = self.begin(Call::Pubkeys, String::new());
        let is_forged = turn.forgery().is_some();
        turn.perform(async {
            let keys = self.inner().await?.pubkeys().await?;
            match is_forged {
                true => forgery::other_channels_keys(&self.state, self.reference).await,
                false => Ok(keys),
            }
        })
        .await
    }

    async fn per_commitment_point(&self, number: u64) -> HsmResult<PublicKey> {
        let turn = self.begin(Call::PerCommitmentPoint, number.to_string());
        // Of 0 and 1, for which opening asks, the other one.
        let number = if turn.forgery().is_some() { number ^ 1 } else { number };
        turn.perform(async { self.inner().await?.per_commitment_point(number).await }).await
    }

    async fn setup(&self, setup: &ChannelSetup) -> HsmResult<()> {
        let turn = self.begin(Call::Setup, format!("{setup:?}"));
        *self.told() = Some(setup.clone());
        turn.perform(async { self.inner().await?.setup(setup).await }).await
    }

    async fn sign_counterparty_commitment(
        &self,
        request: &CommitmentRequest<'_>,
    ) -> HsmResult<Signature> {
        let turn = self.begin_with(Call::SignCounterpartyCommitment, request, "");
        let forged = turn.forgery();
        turn.perform(async {
            let signature = self.inner().await?.sign_counterparty_commitment(request).await?;
            if forged == Some(Forgery::WrongSighash) {
                let (state, told) = (&self.state, self.told().clone());
                return forgery::over_another_transaction(state, self.reference, told, request)
                    .await;
            }
            Ok(forged_signature(forged, request, signature))
        })
        .await
    }

    async fn validate_holder_commitment(
        &self,
        request: &CommitmentRequest<'_>,
        signature: &Signature,
    ) -> HsmResult<()> {
        let more = format!(" {signature:?}");
        let turn = self.begin_with(Call::ValidateHolderCommitment, request, &more);
        turn.perform(async {
            self.inner().await?.validate_holder_commitment(request, signature).await
        })
        .await
    }

    async fn sign_holder_commitment(
        &self,
        request: &CommitmentRequest<'_>,
    ) -> HsmResult<Signature> {
        let turn = self.begin_with(Call::SignHolderCommitment, request, "");
        let forged = turn.forgery();
        turn.perform(async {
            let signature = self.inner().await?.sign_holder_commitment(request).await?;
            Ok(forged_signature(forged, request, signature))
        })
        .await
    }
}

fn forged_signature(
    forged: Option<Forgery>,
    request: &CommitmentRequest<'_>,
    signature: Signature,
) -> Signature {
    match forged {
        Some(Forgery::OtherKey) => forgery::by_other_key(request),
        Some(Forgery::HighS) => forgery::with_high_s(signature),
        _ => signature,
    }
}
