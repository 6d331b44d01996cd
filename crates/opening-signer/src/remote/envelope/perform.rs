//! Carries out one request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::{Secp256k1, VerifyOnly};
use opening_core::{Commitment, Side};

use super::body::{Asked, refused};
use super::messages::{Answer, Body};
use crate::error::HsmResult;
use crate::hsm::{ChannelHsm, Hsm};
use crate::request::{ChannelRef, ChannelSetup, CommitmentRequest};

/// What all requests of one server need.
pub(super) struct Context {
    pub(super) hsm: Arc<dyn Hsm>,
    pub(super) chain_hash: ChainHash,
    pub(super) secp: Secp256k1<VerifyOnly>,
    pub(super) turns: Turns,
}

/// One request of a channel at a time, also while a connection that broke still has one under way
/// and the next connection brings the same.
#[derive(Default)]
pub(super) struct Turns(Mutex<HashMap<ChannelRef, Weak<tokio::sync::Mutex<()>>>>);

impl Turns {
    /// Entries of channels that nobody uses are dropped beyond this number.
    const MAX_UNUSED: usize = 8192;

    fn of(&self, reference: ChannelRef) -> Arc<tokio::sync::Mutex<()>> {
        // Nothing is left half-changed by a panic: each change is one insertion.
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if turns.len() >= Self::MAX_UNUSED {
            turns.retain(|_, turn| turn.strong_count() > 0);
        }
        let place = turns.entry(reference).or_default();
        place.upgrade().unwrap_or_else(|| {
            let turn = Arc::default();
            *place = Arc::downgrade(&turn);
            turn
        })
    }
}

/// What a connection knows of a channel.
#[derive(Clone, Default)]
pub(super) struct Known {
    signer: Option<Arc<dyn ChannelHsm>>,
    setup: Option<Arc<ChannelSetup>>,
}

impl Context {
    /// Gives the answer, and puts into `known` what is known from then on.
    pub(super) async fn perform(
        &self,
        reference: ChannelRef,
        body: &Body,
        known: &mut Known,
    ) -> HsmResult<Answer> {
        let turn = self.turns.of(reference);
        let _turn = turn.lock().await;
        if *body == Body::ForgetChannel {
            *known = Known::default();
            self.hsm.forget_channel(reference).await?;
            return Ok(Answer::ForgetChannel);
        }
        let signer = match &known.signer {
            Some(signer) if *body != Body::Channel => Arc::clone(signer),
            _ => self.hsm.channel(reference).await?,
        };
        known.signer = Some(Arc::clone(&signer));
        Ok(match body {
            // Forgetting has ended above.
            Body::Channel | Body::ForgetChannel => Answer::Channel,
            Body::Pubkeys => Answer::Pubkeys(Box::new(signer.pubkeys().await?)),
            Body::PerCommitmentPoint(number) => {
                Answer::PerCommitmentPoint(signer.per_commitment_point(*number).await?)
            }
            Body::Setup(setup) => {
                let setup = ChannelSetup {
                    parameters: setup.parameters.clone(),
                    chain_hash: self.chain_hash,
                    local_shutdown_script: setup.local_shutdown_script.clone(),
                    remote_shutdown_script: setup.remote_shutdown_script.clone(),
                };
                signer.setup(&setup).await?;
                known.setup = Some(Arc::new(setup));
                Answer::Setup
            }
            Body::SignCounterpartyCommitment(asked) => {
                let (setup, commitment) = self.commitment(known, asked, Side::Remote)?;
                let request = request(&setup, &commitment, asked);
                let signature = signer.sign_counterparty_commitment(&request).await?;
                Answer::SignCounterpartyCommitment(signature)
            }
            Body::ValidateHolderCommitment(asked, signature) => {
                let (setup, commitment) = self.commitment(known, asked, Side::Local)?;
                let request = request(&setup, &commitment, asked);
                signer.validate_holder_commitment(&request, signature).await?;
                Answer::ValidateHolderCommitment
            }
            Body::SignHolderCommitment(asked) => {
                let (setup, commitment) = self.commitment(known, asked, Side::Local)?;
                let request = request(&setup, &commitment, asked);
                Answer::SignHolderCommitment(signer.sign_holder_commitment(&request).await?)
            }
        })
    }

    /// Out of the setup, not out of the request.
    fn commitment(
        &self,
        known: &Known,
        asked: &Asked,
        owner: Side,
    ) -> HsmResult<(Arc<ChannelSetup>, Commitment)> {
        let setup = known.setup.as_ref().ok_or_else(|| {
            refused("setup-missing", "setup comes before signing and validating".into())
        })?;
        let commitment = asked.rebuild(&self.secp, setup, owner)?;
        Ok((Arc::clone(setup), commitment))
    }
}

fn request<'a>(
    setup: &'a ChannelSetup,
    commitment: &'a Commitment,
    asked: &Asked,
) -> CommitmentRequest<'a> {
    CommitmentRequest {
        parameters: &setup.parameters,
        commitment,
        per_commitment_point: asked.per_commitment_point(),
        proof: None,
    }
}
