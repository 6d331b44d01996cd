//! A complete signer, to start one's own from: blind, its secrets drawn from one seed, its memory
//! that of the process.
//!
//! What makes it a signer and not only a key: it signs after `setup` only, what belongs to that
//! setup only, one first commitment of each side only, and its own only after the peer's signature
//! was good.  Replace `secret` by whatever holds the keys.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256};
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{All, Message, PublicKey, Secp256k1, SecretKey};
use opening_core::secrets::{generate_from_seed, secret_index};
use opening_core::{ChannelKeys, Side};
use opening_signer::{
    Bounds, ChannelHsm, ChannelRef, ChannelSetup, CommitmentRequest, Enforcement, Hsm, HsmError,
    HsmResult, Info, Pipelining,
};
use zeroize::Zeroizing;

/// The signer of one node.
pub struct CustomHsm(Arc<Shared>);

struct Shared {
    secp: Secp256k1<All>,
    seed: Zeroizing<[u8; 32]>,
    channels: Mutex<HashMap<ChannelRef, Memory>>,
}

/// What it knows of a channel, and what it did for it.
struct Memory {
    setup: ChannelSetup,
    signed: Option<Message>,
    validated: Option<Message>,
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
        let enforcement = Enforcement::Blind;
        Info { enforcement, bounds: Bounds::none(), pipelining: Pipelining::OneByOne }
    }

    async fn channel(&self, reference: ChannelRef) -> HsmResult<Arc<dyn ChannelHsm>> {
        match reference.dbid {
            0 => Err(HsmError::InvalidRequest("dbid 0 names no channel".into())),
            _ => Ok(Arc::new(CustomChannel { shared: self.0.clone(), reference })),
        }
    }

    async fn forget_channel(&self, reference: ChannelRef) -> HsmResult<()> {
        self.0.channels.lock().unwrap_or_else(PoisonError::into_inner).remove(&reference);
        Ok(())
    }
}

struct CustomChannel {
    shared: Arc<Shared>,
    reference: ChannelRef,
}

impl CustomChannel {
    /// One secret of this channel; `of` says which.
    fn secret(&self, of: &str) -> Zeroizing<[u8; 32]> {
        let mut engine = HmacEngine::<sha256::Hash>::new(&*self.shared.seed);
        engine.input(&self.reference.peer.serialize());
        engine.input(&self.reference.dbid.to_be_bytes());
        engine.input(of.as_bytes());
        Zeroizing::new(Hmac::from_engine(engine).to_byte_array())
    }

    fn with_key<T>(secret: &[u8; 32], act: impl FnOnce(&SecretKey) -> T) -> T {
        let mut key = SecretKey::from_slice(secret).expect("nearly every 32 bytes are a key");
        let result = act(&key);
        key.non_secure_erase();
        result
    }

    fn public(&self, of: &str) -> PublicKey {
        Self::with_key(&self.secret(of), |key| key.public_key(&self.shared.secp))
    }

    fn sign(&self, sighash: &Message) -> Signature {
        Self::with_key(&self.secret("funding"), |key| self.shared.secp.sign_ecdsa(sighash, key))
    }

    /// The memory of this channel, and the digest of a commitment that belongs to its setup.
    fn remember<T>(
        &self,
        owner: Side,
        request: &CommitmentRequest<'_>,
        act: impl FnOnce(&mut Memory, Message) -> HsmResult<T>,
    ) -> HsmResult<T> {
        let mut channels = self.shared.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let memory = channels.get_mut(&self.reference).ok_or_else(|| refused("setup-missing"))?;
        let CommitmentRequest { parameters, commitment, .. } = request;
        let spends = &commitment.transaction.input[..];
        if commitment.owner != owner
            || **parameters != memory.setup.parameters
            || !matches!(spends, [one] if one.previous_output == parameters.funding_outpoint)
            || commitment.funding_satoshis != parameters.funding_satoshis
            || commitment.funding_witness_script != parameters.funding_witness_script()
        {
            return Err(HsmError::InvalidRequest("it does not belong to the setup".into()));
        }
        if commitment.number != 0 {
            return Err(refused("commitment-number"));
        }
        act(memory, commitment.sighash())
    }
}

#[async_trait]
impl ChannelHsm for CustomChannel {
    async fn pubkeys(&self) -> HsmResult<ChannelKeys> {
        Ok(ChannelKeys {
            funding_pubkey: self.public("funding"),
            revocation_basepoint: self.public("revocation"),
            payment_basepoint: self.public("payment"),
            delayed_payment_basepoint: self.public("delayed payment"),
            htlc_basepoint: self.public("htlc"),
        })
    }

    async fn per_commitment_point(&self, number: u64) -> HsmResult<PublicKey> {
        let beyond = || HsmError::InvalidRequest("no commitment is beyond 2^48 - 1".into());
        let index = secret_index(number).ok_or_else(beyond)?;
        let secret = Zeroizing::new(generate_from_seed(&self.secret("shachain"), index));
        Ok(Self::with_key(&secret, |key| key.public_key(&self.shared.secp)))
    }

    async fn setup(&self, setup: &ChannelSetup) -> HsmResult<()> {
        if setup.parameters.local.keys != self.pubkeys().await? {
            return Err(HsmError::InvalidRequest("the local keys are not this channel's".into()));
        }
        let mut channels = self.shared.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Memory { setup: setup.clone(), signed: None, validated: None };
        let memory = channels.entry(self.reference).or_insert_with(new);
        if memory.setup == *setup { Ok(()) } else { Err(refused("setup-differs")) }
    }

    async fn sign_counterparty_commitment(
        &self,
        request: &CommitmentRequest<'_>,
    ) -> HsmResult<Signature> {
        let sighash = self.remember(Side::Remote, request, |memory, sighash| {
            once(&mut memory.signed, sighash)
        })?;
        Ok(self.sign(&sighash))
    }

    async fn validate_holder_commitment(
        &self,
        request: &CommitmentRequest<'_>,
        signature: &Signature,
    ) -> HsmResult<()> {
        let their_key = &request.parameters.remote.keys.funding_pubkey;
        self.remember(Side::Local, request, |memory, sighash| {
            self.shared
                .secp
                .verify_ecdsa(&sighash, signature, their_key)
                .map_err(|_| HsmError::BadCounterpartySignature)?;
            once(&mut memory.validated, sighash)
        })?;
        Ok(())
    }

    async fn sign_holder_commitment(
        &self,
        request: &CommitmentRequest<'_>,
    ) -> HsmResult<Signature> {
        let sighash = self.remember(Side::Local, request, |memory, sighash| {
            let validated = memory.validated.ok_or_else(|| refused("not-validated"))?;
            once(&mut Some(validated), sighash)
        })?;
        Ok(self.sign(&sighash))
    }
}

/// One commitment 0 of each side, ever: two would be two channels over one funding output.
fn once(place: &mut Option<Message>, sighash: Message) -> HsmResult<Message> {
    match *place.get_or_insert(sighash) == sighash {
        true => Ok(sighash),
        false => Err(refused("second-commitment")),
    }
}

fn refused(tag: &str) -> HsmError {
    HsmError::Refused { tag: tag.into(), detail: "see the rule of that name".into() }
}
