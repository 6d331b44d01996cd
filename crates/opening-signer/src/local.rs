//! A signer in this process.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{All, PublicKey, Secp256k1, SecretKey};
use lightning::util::persist::KVStore;
use opening_core::{ChannelKeys, Commitment, Side, secrets};

use crate::derivation::{ChannelSecrets, Secret, channel_secrets, node_secret};
use crate::error::{HsmError, HsmResult};
use crate::hsm::{ChannelHsm, ChannelRef, ChannelSetup, CommitmentRequest, Hsm};
use crate::info::{Enforcement, Info};
use crate::record::{Digest, Record};

fn secp() -> &'static Secp256k1<All> {
    static SECP: LazyLock<Secp256k1<All>> = LazyLock::new(Secp256k1::new);
    &SECP
}

/// Signs with keys that Core Lightning would derive from the same `hsm_secret`.
pub struct LocalHsm {
    keys: Keys,
    enforcement: Enforcement,
    /// A validating signer's memory.
    store: Option<Arc<dyn KVStore + Send + Sync>>,
    channels: Mutex<HashMap<ChannelRef, Arc<LocalChannel>>>,
}

enum Keys {
    Derived(Secret),
    #[cfg(feature = "testing")]
    Fixed(crate::testing::FixedSecrets),
}

impl fmt::Debug for LocalHsm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalHsm").field("enforcement", &self.enforcement).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LocalHsm {
    /// Signs what it is asked to, and remembers in memory only: the node's store is its
    /// durability.
    pub fn blind(hsm_secret: [u8; 32]) -> Self {
        Self::new(Keys::Derived(Secret::new(hsm_secret)), Enforcement::Blind, None)
    }

    /// Rebuilds what it signs, and writes to `store` before a signature leaves: what it signed
    /// for a channel is known after a restart.
    pub fn validating(hsm_secret: [u8; 32], store: Arc<dyn KVStore + Send + Sync>) -> Self {
        Self::new(Keys::Derived(Secret::new(hsm_secret)), Enforcement::Validating, Some(store))
    }

    /// Blind, with the same secrets for every channel: for tests only.
    #[cfg(feature = "testing")]
    pub fn with_fixed_secrets(secrets: crate::testing::FixedSecrets) -> Self {
        Self::new(Keys::Fixed(secrets), Enforcement::Blind, None)
    }

    fn new(
        keys: Keys,
        enforcement: Enforcement,
        store: Option<Arc<dyn KVStore + Send + Sync>>,
    ) -> Self {
        Self { keys, enforcement, store, channels: Mutex::default() }
    }

    /// The node's identity as Core Lightning derives it; the only secret that leaves, because
    /// BOLT 8 needs it outside. `None` with fixed channel secrets.
    pub fn node_secret(&self) -> Option<SecretKey> {
        match &self.keys {
            Keys::Derived(hsm_secret) => Some(node_secret(hsm_secret)),
            #[cfg(feature = "testing")]
            Keys::Fixed(_) => None,
        }
    }

    fn secrets(&self, reference: ChannelRef) -> ChannelSecrets {
        match &self.keys {
            Keys::Derived(hsm_secret) => channel_secrets(hsm_secret, reference),
            #[cfg(feature = "testing")]
            Keys::Fixed(secrets) => secrets.channel_secrets(),
        }
    }
}

#[async_trait]
impl Hsm for LocalHsm {
    fn info(&self) -> Info {
        Info { enforcement: self.enforcement }
    }

    async fn channel(&self, reference: ChannelRef) -> HsmResult<Arc<dyn ChannelHsm>> {
        if reference.dbid == 0 {
            return Err(HsmError::InvalidRequest("dbid 0 names no channel".into()));
        }
        if let Some(channel) = lock(&self.channels).get(&reference) {
            return Ok(channel.clone());
        }
        let record = match &self.store {
            Some(store) => Some(Record::open(store.clone(), reference).await?),
            None => None,
        };
        let channel = LocalChannel::new(self.secrets(reference), record)?;
        // Two callers may come this far at once: both get the channel of the first.
        let mut channels = lock(&self.channels);
        Ok(channels.entry(reference).or_insert_with(|| Arc::new(channel)).clone())
    }

    async fn forget_channel(&self, reference: ChannelRef) -> HsmResult<()> {
        // What was signed stays on record: a reference is never begun again.
        lock(&self.channels).remove(&reference);
        Ok(())
    }
}

/// The signer of one channel.
struct LocalChannel {
    secrets: ChannelSecrets,
    keys: ChannelKeys,
    /// Where a validating signer keeps what it signed; a blind one has none.
    record: Option<Record>,
    state: tokio::sync::Mutex<State>,
}

#[derive(Default)]
struct State {
    setup: Option<ChannelSetup>,
    /// Digest of the one commitment 0 of the peer that we signed.
    signed: Option<Digest>,
    /// Digest of our commitment 0 to which the peer's signature was good.
    validated: Option<Digest>,
}

impl LocalChannel {
    fn new(secrets: ChannelSecrets, record: Option<Record>) -> HsmResult<Self> {
        let keys = ChannelKeys {
            funding_pubkey: public_key(&secrets.funding)?,
            revocation_basepoint: public_key(&secrets.revocation)?,
            payment_basepoint: public_key(&secrets.payment)?,
            delayed_payment_basepoint: public_key(&secrets.delayed_payment)?,
            htlc_basepoint: public_key(&secrets.htlc)?,
        };
        let signed = record.as_ref().and_then(Record::signed);
        let state = tokio::sync::Mutex::new(State { signed, ..State::default() });
        Ok(Self { secrets, keys, record, state })
    }

    fn point(&self, number: u64) -> HsmResult<PublicKey> {
        let index = secrets::secret_index(number).ok_or_else(|| {
            HsmError::InvalidRequest(format!("commitment number {number} is beyond 2^48 - 1"))
        })?;
        let secret = Secret::new(secrets::generate_from_seed(&self.secrets.shachain_seed, index));
        public_key(&secret)
    }

    fn sign(&self, commitment: &Commitment) -> HsmResult<Signature> {
        with_key(&self.secrets.funding, |key| secp().sign_ecdsa_low_r(&commitment.sighash(), key))
    }

    /// What every request has to be, and for a validating signer: the transaction that follows
    /// from the setup.
    fn check(
        &self,
        state: &State,
        request: &CommitmentRequest<'_>,
        owner: Side,
    ) -> HsmResult<Digest> {
        let setup = state.setup.as_ref().ok_or_else(|| refused("setup-missing", "no setup yet"))?;
        if request.commitment.owner != owner {
            return Err(HsmError::InvalidRequest("the other side's commitment".into()));
        }
        if request.commitment.number != 0 {
            return Err(refused("commitment-number", "only commitment 0 belongs to an opening"));
        }
        if self.record.is_some() {
            let rebuilt = setup.parameters.first_commitment(secp(), owner);
            let rebuilt = rebuilt.map_err(|error| HsmError::InvalidRequest(error.to_string()))?;
            if rebuilt != *request.commitment {
                let detail = "the transaction is not the one that follows from the setup";
                return Err(refused("commitment-mismatch", detail));
            }
        }
        Ok(*request.commitment.sighash().as_ref())
    }
}

fn refused(tag: &str, detail: &str) -> HsmError {
    HsmError::Refused { tag: tag.into(), detail: detail.into() }
}

/// Lends the key for one call and wipes it.
fn with_key<T>(secret: &Secret, act: impl FnOnce(&SecretKey) -> T) -> HsmResult<T> {
    let mut key = SecretKey::from_slice(&**secret)
        .map_err(|_| HsmError::InvalidRequest("a channel secret is not a valid key".into()))?;
    let done = act(&key);
    key.non_secure_erase();
    Ok(done)
}

fn public_key(secret: &Secret) -> HsmResult<PublicKey> {
    with_key(secret, |key| key.public_key(secp()))
}

#[async_trait]
impl ChannelHsm for LocalChannel {
    async fn pubkeys(&self) -> HsmResult<ChannelKeys> {
        Ok(self.keys)
    }

    async fn per_commitment_point(&self, number: u64) -> HsmResult<PublicKey> {
        self.point(number)
    }

    async fn setup(&self, setup: &ChannelSetup) -> HsmResult<()> {
        if setup.parameters.local.keys != self.keys {
            return Err(HsmError::InvalidRequest("the local keys are not this channel's".into()));
        }
        let mut state = self.state.lock().await;
        match &state.setup {
            Some(known) if known != setup => {
                Err(refused("setup-changed", "the channel was set up differently before"))
            }
            Some(_) => Ok(()),
            None => {
                state.setup = Some(setup.clone());
                Ok(())
            }
        }
    }

    async fn sign_counterparty_commitment(
        &self,
        request: &CommitmentRequest<'_>,
    ) -> HsmResult<Signature> {
        let mut state = self.state.lock().await;
        let digest = self.check(&state, request, Side::Remote)?;
        if state.signed.is_some_and(|signed| signed != digest) {
            return Err(refused("commitment-signed", "another commitment 0 was signed before"));
        }
        if let Some(record) = &self.record {
            let is_fundee = request.parameters.opener == Side::Remote;
            if is_fundee && state.validated.is_none() {
                let detail = "a fundee signs nothing before its own commitment is validated";
                return Err(refused("holder-not-validated", detail));
            }
            if state.signed.is_none() {
                record.write(digest).await?;
            }
        }
        state.signed = Some(digest);
        self.sign(request.commitment)
    }

    async fn validate_holder_commitment(
        &self,
        request: &CommitmentRequest<'_>,
        signature: &Signature,
    ) -> HsmResult<()> {
        let mut state = self.state.lock().await;
        let digest = self.check(&state, request, Side::Local)?;
        let their_key = &request.parameters.remote.keys.funding_pubkey;
        if !request.commitment.is_signed_by(secp(), signature, their_key) {
            return Err(HsmError::BadCounterpartySignature);
        }
        if state.validated.is_some_and(|validated| validated != digest) {
            return Err(refused(
                "commitment-validated",
                "another commitment 0 was validated before",
            ));
        }
        state.validated = Some(digest);
        Ok(())
    }

    async fn sign_holder_commitment(
        &self,
        request: &CommitmentRequest<'_>,
    ) -> HsmResult<Signature> {
        let state = self.state.lock().await;
        let digest = self.check(&state, request, Side::Local)?;
        if state.validated != Some(digest) {
            return Err(refused("holder-not-validated", "this commitment was never validated"));
        }
        self.sign(request.commitment)
    }
}
