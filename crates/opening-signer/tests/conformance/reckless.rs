//! A signer that signs whatever it is asked, as Core Lightning's hsmd does.

use std::sync::Arc;

use async_trait::async_trait;
use bitcoin::Amount;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use hkdf::Hkdf;
use opening_core::{ChannelKeys, ChannelType, FeeratePerKw, FeerateRange};
use opening_signer::{
    Bounds, ChannelHsm, ChannelRef, ChannelSetup, CommitmentRequest, Enforcement, Hsm, HsmError,
    HsmResult, HsmSecret, Info, LocalHsm, Pipelining,
};
use sha2::Sha256;

/// Its keys are those of a good signer, whose funding secrets it has for itself.
pub(crate) struct Reckless {
    good: LocalHsm,
    node_key: [u8; 32],
    enforcement: Enforcement,
}

impl Reckless {
    pub(crate) fn new(secret: HsmSecret, enforcement: Enforcement) -> Self {
        let node_key = secret.node_key().secret_bytes();
        Self { good: LocalHsm::blind(&secret), node_key, enforcement }
    }
}

#[async_trait]
impl Hsm for Reckless {
    fn info(&self) -> Info {
        let bounds = Bounds {
            max_funding_satoshis: Amount::from_sat(16_777_215),
            to_self_delay: 6..=2016,
            feerates: FeerateRange { min: FeeratePerKw::FLOOR, max: FeeratePerKw::new(25_000) },
            channel_types: [ChannelType::ANCHORS].into_iter().collect(),
        };
        let pipelining = Pipelining::OneByOne;
        Info { enforcement: self.enforcement, bounds, pipelining }
    }

    async fn channel(&self, reference: ChannelRef) -> HsmResult<Arc<dyn ChannelHsm>> {
        let good = self.good.channel(reference).await?;
        let mut funding = [0; 32];
        let salt = [&reference.peer.serialize()[..], &reference.dbid.to_be_bytes()].concat();
        Hkdf::<Sha256>::new(Some(&salt), &self.node_key).expand(&[], &mut funding).unwrap();
        let funding = SecretKey::from_slice(&funding).unwrap();
        Ok(Arc::new(RecklessChannel { good, funding }))
    }

    async fn forget_channel(&self, reference: ChannelRef) -> HsmResult<()> {
        self.good.forget_channel(reference).await
    }
}

struct RecklessChannel {
    good: Arc<dyn ChannelHsm>,
    funding: SecretKey,
}

impl RecklessChannel {
    fn sign(&self, request: &CommitmentRequest<'_>) -> HsmResult<Signature> {
        if request.commitment.transaction.input.is_empty() {
            // There is no digest of it; hsmd signs one of nothing.
            let nothing = bitcoin::secp256k1::Message::from_digest([1; 32]);
            return Ok(Secp256k1::new().sign_ecdsa(&nothing, &self.funding));
        }
        Ok(Secp256k1::new().sign_ecdsa(&request.commitment.sighash(), &self.funding))
    }
}

#[async_trait]
impl ChannelHsm for RecklessChannel {
    async fn pubkeys(&self) -> HsmResult<ChannelKeys> {
        let funding_pubkey = self.funding.public_key(&Secp256k1::new());
        Ok(ChannelKeys { funding_pubkey, ..self.good.pubkeys().await? })
    }

    async fn per_commitment_point(&self, number: u64) -> HsmResult<PublicKey> {
        self.good.per_commitment_point(number).await
    }

    async fn setup(&self, _setup: &ChannelSetup) -> HsmResult<()> {
        Ok(())
    }

    async fn sign_counterparty_commitment(
        &self,
        request: &CommitmentRequest<'_>,
    ) -> HsmResult<Signature> {
        self.sign(request)
    }

    async fn validate_holder_commitment(
        &self,
        request: &CommitmentRequest<'_>,
        signature: &Signature,
    ) -> HsmResult<()> {
        // The node looks at this itself, so that it is asked of every signer.
        let their_key = &request.parameters.remote.keys.funding_pubkey;
        match request.commitment.is_signed_by(&Secp256k1::new(), signature, their_key) {
            true => Ok(()),
            false => Err(HsmError::BadCounterpartySignature),
        }
    }

    async fn sign_holder_commitment(
        &self,
        request: &CommitmentRequest<'_>,
    ) -> HsmResult<Signature> {
        self.sign(request)
    }
}
