//! Any signer of LDK as an [`Hsm`].

use core::fmt;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{All, PublicKey, Secp256k1};
use lightning::ln::chan_utils::{
    ChannelTransactionParameters, CommitmentTransaction, HolderCommitmentTransaction,
};
use lightning::sign::ecdsa::EcdsaChannelSigner;
use lightning::sign::{ChannelSigner, SignerProvider};
use opening_core::commitment::MAX_COMMITMENT_NUMBER;
use opening_core::secrets::secret_index;
use opening_core::{ChannelKeys, Side};

use super::types::{channel_transaction_parameters, commitment_transaction};
use crate::error::{HsmError, HsmResult};
use crate::hsm::{ChannelHsm, Hsm};
use crate::info::{Bounds, Enforcement, Info, Pipelining};
use crate::memory::{ChannelMemory, invalid};
use crate::request::{ChannelRef, ChannelSetup, CommitmentRequest};
use crate::verified::Verified;

/// The name of a channel's keys at an LDK signer: the same for the same reference, for ever.
///
/// LDK asks its provider for such a name and keeps it; here it follows from the reference, so that
/// there is nothing to keep.  Whoever sweeps the channel's outputs with LDK's parts needs it: it is
/// the `channel_keys_id` of a `SpendableOutputDescriptor`.
pub fn channel_keys_id(reference: ChannelRef) -> [u8; 32] {
    let mut engine = sha256::Hash::engine();
    engine.input(b"opening-signer ldk channel_keys_id");
    engine.input(&reference.peer.serialize());
    engine.input(&reference.dbid.to_be_bytes());
    sha256::Hash::from_engine(engine).to_byte_array()
}

/// Any `SignerProvider` of LDK as an [`Hsm`].
///
/// * Keys come from [`channel_keys_id`]: `generate_channel_keys_id` is never asked.
/// * `Err(())` from a signature or a point is LDK's "not yet": [`HsmError::Deferred`], which the
///   driver asks for again.  From `validate_holder_commitment`, where LDK would close the channel,
///   it is [`HsmError::Refused`] with the tag `ldk-validation`.
/// * What LDK's own signers do not look at is looked at here: the peer's signature, one setup and
///   one commitment 0 for each channel, our own only after validation.  That memory ends with the
///   process, so that what stands here is blind unless the provider is more
///   ([`declaring`](Self::declaring)).
/// * The commitment is built a second time, by LDK; where the two differ nothing is asked.
/// * No secret of a commitment is ever released.
///
/// LDK's signers answer at once: one that blocks its thread blocks the tasks on it.
pub struct LdkHsm<S: SignerProvider>(Verified<Adapter<S>>);

struct Adapter<S> {
    shared: Arc<Shared<S>>,
    info: Info,
}

struct Shared<S> {
    provider: Arc<S>,
    secp: Secp256k1<All>,
    memory: Mutex<HashMap<ChannelRef, ChannelMemory>>,
}

impl<S: SignerProvider> LdkHsm<S>
where
    S: Send + Sync + 'static,
    S::EcdsaSigner: Send + 'static,
{
    /// A provider that signs what it is asked to, as `KeysManager` does.
    pub fn new(provider: Arc<S>) -> Self {
        Self::declaring(provider, Enforcement::Blind, Bounds::none())
    }

    /// A provider of which more is known.  Nothing is added by declaring it: what is said to be
    /// enforced the provider has to enforce, also the order of a fundee's calls and what a restart
    /// forgets here.
    pub fn declaring(provider: Arc<S>, enforcement: Enforcement, bounds: Bounds) -> Self {
        let shared = Shared { provider, secp: Secp256k1::new(), memory: Mutex::default() };
        let info = Info { enforcement, bounds, pipelining: Pipelining::OneByOne };
        Self(Verified::new(Adapter { shared: Arc::new(shared), info }))
    }
}

impl<S: SignerProvider> fmt::Debug for LdkHsm<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Adapter { shared, info } = self.0.inner();
        f.debug_struct("LdkHsm")
            .field("enforcement", &info.enforcement)
            .field("channels", &shared.memory().len())
            .finish_non_exhaustive()
    }
}

impl<S> Shared<S> {
    fn memory(&self) -> MutexGuard<'_, HashMap<ChannelRef, ChannelMemory>> {
        // Nothing is left half-changed by a panic: each change is one assignment.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl<S: SignerProvider> Hsm for LdkHsm<S>
where
    S: Send + Sync + 'static,
    S::EcdsaSigner: Send + 'static,
{
    fn info(&self) -> Info {
        self.0.info()
    }

    async fn channel(&self, reference: ChannelRef) -> HsmResult<Arc<dyn ChannelHsm>> {
        self.0.channel(reference).await
    }

    async fn forget_channel(&self, reference: ChannelRef) -> HsmResult<()> {
        self.0.forget_channel(reference).await
    }
}

#[async_trait]
impl<S: SignerProvider> Hsm for Adapter<S>
where
    S: Send + Sync + 'static,
    S::EcdsaSigner: Send + 'static,
{
    fn info(&self) -> Info {
        self.info.clone()
    }

    async fn channel(&self, reference: ChannelRef) -> HsmResult<Arc<dyn ChannelHsm>> {
        if reference.dbid == 0 {
            return Err(invalid("dbid 0 names no channel"));
        }
        let shared = self.shared.clone();
        let signer = shared.provider.derive_channel_signer(channel_keys_id(reference));
        let keys = public_keys(&signer, &shared.secp);
        Ok(Arc::new(LdkChannel { shared, reference, keys, signer: Mutex::new(signer) }))
    }

    async fn forget_channel(&self, reference: ChannelRef) -> HsmResult<()> {
        self.shared.memory().remove(&reference);
        Ok(())
    }
}

struct LdkChannel<S: SignerProvider> {
    shared: Arc<Shared<S>>,
    reference: ChannelRef,
    keys: ChannelKeys,
    /// A signer of LDK's need not be one that threads share.
    signer: Mutex<S::EcdsaSigner>,
}

fn public_keys(signer: &impl ChannelSigner, secp: &Secp256k1<All>) -> ChannelKeys {
    let keys = signer.pubkeys(secp);
    ChannelKeys {
        funding_pubkey: keys.funding_pubkey,
        revocation_basepoint: keys.revocation_basepoint.to_public_key(),
        payment_basepoint: keys.payment_point,
        delayed_payment_basepoint: keys.delayed_payment_basepoint.to_public_key(),
        htlc_basepoint: keys.htlc_basepoint.to_public_key(),
    }
}

impl<S: SignerProvider> LdkChannel<S> {
    fn signer(&self) -> MutexGuard<'_, S::EcdsaSigner> {
        // Every method of it takes it as it is.
        self.signer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn memory<T>(&self, act: impl FnOnce(&mut ChannelMemory) -> HsmResult<T>) -> HsmResult<T> {
        let mut channels = self.shared.memory();
        act(channels.get_mut(&self.reference).ok_or_else(crate::local::rule::setup_missing)?)
    }

    fn point(&self, number: u64) -> HsmResult<PublicKey> {
        // LDK's numbers count down.
        let beyond = || invalid("no commitment number is beyond 2^48 - 1");
        let index = secret_index(number).ok_or_else(beyond)?;
        let point = self.signer().get_per_commitment_point(index, &self.shared.secp);
        point.map_err(|()| HsmError::Deferred)
    }

    /// The request in LDK's types, if LDK means the same transaction by it.
    fn in_ldks_types(
        &self,
        request: &CommitmentRequest<'_>,
    ) -> HsmResult<(ChannelTransactionParameters, CommitmentTransaction)> {
        let CommitmentRequest { parameters, commitment, per_commitment_point, .. } = request;
        if commitment.number > MAX_COMMITMENT_NUMBER {
            return Err(invalid("no commitment number is beyond 2^48 - 1"));
        }
        let in_ldks = channel_transaction_parameters(parameters)
            .ok_or_else(|| invalid("LDK has no outpoint with so large an index"))?;
        let feerate = parameters.feerate_per_kw.to_sat_per_kw();
        let secp = &self.shared.secp;
        let built =
            commitment_transaction(secp, commitment, per_commitment_point, feerate, &in_ldks);
        if built.trust().built_transaction().transaction != commitment.transaction {
            return Err(invalid("LDK builds another transaction from the same parameters"));
        }
        Ok((in_ldks, built))
    }

    /// Our commitment, with a signature of the peer's or in its place.
    fn holder_commitment(
        &self,
        request: &CommitmentRequest<'_>,
        built: CommitmentTransaction,
        signature: &Signature,
    ) -> HolderCommitmentTransaction {
        let key = |side: Side| request.parameters.party(side).keys.funding_pubkey;
        let (ours, theirs) = (key(Side::Local), key(Side::Remote));
        HolderCommitmentTransaction::new(built, *signature, Vec::new(), &ours, &theirs)
    }
}

#[async_trait]
impl<S: SignerProvider> ChannelHsm for LdkChannel<S>
where
    S: Send + Sync + 'static,
    S::EcdsaSigner: Send + 'static,
{
    async fn pubkeys(&self) -> HsmResult<ChannelKeys> {
        Ok(self.keys)
    }

    async fn per_commitment_point(&self, number: u64) -> HsmResult<PublicKey> {
        self.point(number)
    }

    async fn setup(&self, setup: &ChannelSetup) -> HsmResult<()> {
        let new = ChannelMemory::set_up(setup, &self.keys, &self.point(0)?)?;
        self.shared.memory().entry(self.reference).or_insert(new).set_up_again(setup)
    }

    async fn sign_counterparty_commitment(
        &self,
        request: &CommitmentRequest<'_>,
    ) -> HsmResult<Signature> {
        let (parameters, built) = self.in_ldks_types(request)?;
        self.memory(|memory| memory.sign_counterparty(request))?;
        let (none, secp) = (Vec::new, &self.shared.secp);
        let signer = self.signer();
        let signed = signer.sign_counterparty_commitment(&parameters, &built, none(), none(), secp);
        signed.map(|(signature, _)| signature).map_err(|()| HsmError::Deferred)
    }

    async fn validate_holder_commitment(
        &self,
        request: &CommitmentRequest<'_>,
        signature: &Signature,
    ) -> HsmResult<()> {
        let (_, built) = self.in_ldks_types(request)?;
        // The signature is a good one: what stands around this has verified it.
        let holder = self.holder_commitment(request, built, signature);
        self.memory(|memory| memory.is_ours(request))?;
        let validated = self.signer().validate_holder_commitment(&holder, Vec::new());
        validated.map_err(|()| HsmError::Refused {
            tag: "ldk-validation".into(),
            detail: "LDK's signer does not take our commitment".into(),
        })?;
        self.memory(|memory| memory.validated(request.commitment.sighash()))
    }

    async fn sign_holder_commitment(
        &self,
        request: &CommitmentRequest<'_>,
    ) -> HsmResult<Signature> {
        let (parameters, built) = self.in_ldks_types(request)?;
        self.memory(|memory| memory.sign_holder(request))?;
        // Our own signature does not depend on the peer's, which LDK keeps beside it.
        let any = Signature::from_compact(&[1; 64]).expect("two numbers below the curve's order");
        let holder = self.holder_commitment(request, built, &any);
        let signer = self.signer();
        let signed = signer.sign_holder_commitment(&parameters, &holder, &self.shared.secp);
        signed.map_err(|()| HsmError::Deferred)
    }
}
