//! Calls to the signer: bounded in time, patient with one that has to be asked again.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::secp256k1::PublicKey;
use bitcoin::secp256k1::ecdsa::Signature;
use opening_signer::{
    ChannelHsm, ChannelRef, ChannelSetup, CommitmentRequest, Hsm, HsmError, HsmResult,
};
use tokio::time::{sleep, timeout};

use crate::failure::{Failure, SignerCall};
use crate::negotiation::LocalKeys;

/// First pause before a deferred call is repeated; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// One channel's signer, with the deadline that every call to it has.
pub(crate) struct Signer {
    reference: ChannelRef,
    channel: Arc<dyn ChannelHsm>,
    deadline: Duration,
}

impl Signer {
    pub(crate) async fn open(
        hsm: &dyn Hsm,
        reference: ChannelRef,
        deadline: Duration,
    ) -> Result<Self, Failure> {
        let channel = ask(SignerCall::Channel, deadline, || hsm.channel(reference)).await?;
        Ok(Self { reference, channel, deadline })
    }

    /// Keys and first point, asked for together.
    pub(crate) async fn local_keys(&self) -> Result<LocalKeys, Failure> {
        let (keys, first_per_commitment_point) = tokio::try_join!(
            self.ask(SignerCall::Pubkeys, || self.channel.pubkeys()),
            self.per_commitment_point(0),
        )?;
        Ok(LocalKeys { reference: self.reference, keys, first_per_commitment_point })
    }

    pub(crate) async fn per_commitment_point(&self, number: u64) -> Result<PublicKey, Failure> {
        self.ask(SignerCall::PerCommitmentPoint, || self.channel.per_commitment_point(number)).await
    }

    pub(crate) async fn setup(&self, setup: &ChannelSetup) -> Result<(), Failure> {
        self.ask(SignerCall::Setup, || self.channel.setup(setup)).await
    }

    pub(crate) async fn sign(&self, request: &CommitmentRequest<'_>) -> Result<Signature, Failure> {
        self.ask(SignerCall::SignCounterpartyCommitment, || {
            self.channel.sign_counterparty_commitment(request)
        })
        .await
    }

    pub(crate) async fn validate(
        &self,
        request: &CommitmentRequest<'_>,
        signature: &Signature,
    ) -> Result<(), Failure> {
        self.ask(SignerCall::ValidateHolderCommitment, || {
            self.channel.validate_holder_commitment(request, signature)
        })
        .await
    }

    pub(crate) async fn sign_holder(
        &self,
        request: &CommitmentRequest<'_>,
    ) -> Result<Signature, Failure> {
        let call = SignerCall::SignHolderCommitment;
        self.ask(call, || self.channel.sign_holder_commitment(request)).await
    }

    async fn ask<T, F: Future<Output = HsmResult<T>>>(
        &self,
        call: SignerCall,
        request: impl Fn() -> F,
    ) -> Result<T, Failure> {
        ask(call, self.deadline, request).await
    }
}

/// Repeats a deferred call, with the same arguments, until it is answered or the deadline is over.
async fn ask<T, F: Future<Output = HsmResult<T>>>(
    call: SignerCall,
    deadline: Duration,
    request: impl Fn() -> F,
) -> Result<T, Failure> {
    let asking = async {
        let mut pause = FIRST_PAUSE;
        loop {
            match request().await {
                Err(HsmError::Deferred) => sleep(pause).await,
                answer => return answer,
            }
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    };
    match timeout(deadline, asking).await {
        Ok(answer) => answer.map_err(|source| Failure::Signer { call, source }),
        Err(_) => Err(Failure::SignerSilent { call, after: deadline }),
    }
}
