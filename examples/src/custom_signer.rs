//! A complete signer, to start one's own from: blind, all keys drawn from one seed, its memory that
//! of the process.
//!
//! [`ChannelMemory`] says what may be signed.  What is left is where the secrets are: replace
//! `secret` by whatever holds them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256};
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{All, Message, PublicKey, Secp256k1, SecretKey};
use opening_core::ChannelKeys;
use opening_core::secrets::{generate_from_seed, secret_index};
use opening_signer::{
    Bounds, ChannelHsm, ChannelMemory, ChannelRef, ChannelSetup, CommitmentRequest, Enforcement,
    Hsm, HsmError, HsmResult, Info, Pipelining,
};
use zeroize::Zeroizing;

/// The signer of one node.
pub struct CustomHsm(Arc<Shared>);

struct Shared {
    secp: Secp256k1<All>,
    seed: Zeroizing<[u8; 32]>,
    channels: Mutex<HashMap<ChannelRef, ChannelMemory>>,
}

impl CustomHsm {
    /// All keys follow from `seed`.
    pub fn new(seed: Zeroizing<[u8; 32]>) -> Self {
        Self(Arc::new(Shared { secp: Secp256k1::new(), seed, channels: Mutex::default() }))
    }
}

#[async_trait]
impl Hsm for CustomHsm {
    fn info(&self) -> Info {
        let (enforcement, pipelining) = (Enforcement::Blind, Pipelining::OneByOne);
        Info { enforcement, bounds: Bounds::none(), pipelining }
    }

    async fn channel(&self, reference: ChannelRef) -> HsmResult<Arc<dyn ChannelHsm>> {
        match reference.dbid {
            0 => Err(invalid("dbid 0 names no channel")),
            _ => Ok(Arc::new(CustomChannel { shared: self.0.clone(), reference })),
        }
    }

    async fn forget_channel(&self, reference: ChannelRef) -> HsmResult<()> {
        self.0.channels().remove(&reference);
        Ok(())
    }
}

struct CustomChannel {
    shared: Arc<Shared>,
    reference: ChannelRef,
}

impl Shared {
    fn channels(&self) -> MutexGuard<'_, HashMap<ChannelRef, ChannelMemory>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CustomChannel {
    /// One secret of this channel: the place where a device would be asked.
    fn secret(&self, name: &str) -> Zeroizing<[u8; 32]> {
        let mut engine = HmacEngine::<sha256::Hash>::new(&*self.shared.seed);
        engine.input(&self.reference.peer.serialize());
        engine.input(&self.reference.dbid.to_be_bytes());
        engine.input(name.as_bytes());
        Zeroizing::new(Hmac::from_engine(engine).to_byte_array())
    }

    fn public_key(&self, secret: &[u8; 32]) -> PublicKey {
        with_key(secret, |key| key.public_key(&self.shared.secp))
    }

    fn sign(&self, sighash: Message) -> Signature {
        let secp = &self.shared.secp;
        with_key(&self.secret("funding"), |key| secp.sign_ecdsa_low_r(&sighash, key))
    }

    fn memory<T>(&self, act: impl FnOnce(&mut ChannelMemory) -> HsmResult<T>) -> HsmResult<T> {
        let mut channels = self.shared.channels();
        act(channels.get_mut(&self.reference).ok_or_else(|| invalid("setup comes first"))?)
    }
}

#[async_trait]
impl ChannelHsm for CustomChannel {
    async fn pubkeys(&self) -> HsmResult<ChannelKeys> {
        let key = |name| self.public_key(&self.secret(name));
        Ok(ChannelKeys {
            funding_pubkey: key("funding"),
            revocation_basepoint: key("revocation"),
            payment_basepoint: key("payment"),
            delayed_payment_basepoint: key("delayed payment"),
            htlc_basepoint: key("htlc"),
        })
    }

    async fn per_commitment_point(&self, number: u64) -> HsmResult<PublicKey> {
        let index =
            secret_index(number).ok_or_else(|| invalid("no commitment is beyond 2^48 - 1"))?;
        let seed = self.secret("per-commitment secrets");
        Ok(self.public_key(&Zeroizing::new(generate_from_seed(&seed, index))))
    }

    async fn setup(&self, setup: &ChannelSetup) -> HsmResult<()> {
        let (keys, point) = (self.pubkeys().await?, self.per_commitment_point(0).await?);
        let memory = ChannelMemory::set_up(setup, &keys, &point)?;
        self.shared.channels().entry(self.reference).or_insert(memory).set_up_again(setup)
    }

    async fn sign_counterparty_commitment(
        &self,
        request: &CommitmentRequest<'_>,
    ) -> HsmResult<Signature> {
        Ok(self.sign(self.memory(|memory| memory.sign_counterparty(request))?))
    }

    async fn validate_holder_commitment(
        &self,
        request: &CommitmentRequest<'_>,
        signature: &Signature,
    ) -> HsmResult<()> {
        self.memory(|memory| memory.validate_holder(&self.shared.secp, request, signature))
    }

    async fn sign_holder_commitment(
        &self,
        request: &CommitmentRequest<'_>,
    ) -> HsmResult<Signature> {
        Ok(self.sign(self.memory(|memory| memory.sign_holder(request))?))
    }
}

/// A `SecretKey` wipes nothing by itself, so one lives only while `act` runs.
fn with_key<T>(secret: &[u8; 32], act: impl FnOnce(&SecretKey) -> T) -> T {
    let mut key = SecretKey::from_slice(secret).expect("nearly every 32 bytes are a key");
    let done = act(&key);
    key.non_secure_erase();
    done
}

fn invalid(reason: &str) -> HsmError {
    HsmError::InvalidRequest(reason.into())
}
