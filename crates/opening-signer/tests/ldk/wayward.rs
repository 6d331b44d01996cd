//! A provider of LDK whose signers do not always do what they are asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{All, PublicKey, Secp256k1, SecretKey};
use bitcoin::{ScriptBuf, Transaction, Txid};
use lightning::ln::chan_utils::{
    ChannelPublicKeys, ChannelTransactionParameters, ClosingTransaction, CommitmentTransaction,
    HTLCOutputInCommitment, HolderCommitmentTransaction,
};
use lightning::ln::msgs::UnsignedChannelAnnouncement;
use lightning::ln::script::ShutdownScript;
use lightning::sign::ecdsa::EcdsaChannelSigner;
use lightning::sign::{ChannelSigner, HTLCDescriptor, InMemorySigner, KeysManager, SignerProvider};
use lightning::types::payment::PaymentPreimage;

/// What goes wrong now.
#[derive(Clone, Default)]
pub(crate) struct Ways(Arc<[AtomicBool; 3]>);

impl Ways {
    pub(crate) fn not_yet(&self, on: bool) {
        self.0[0].store(on, Ordering::Relaxed);
    }

    pub(crate) fn wrong(&self, on: bool) {
        self.0[1].store(on, Ordering::Relaxed);
    }

    pub(crate) fn refuse(&self, on: bool) {
        self.0[2].store(on, Ordering::Relaxed);
    }

    fn is(&self, index: usize) -> Result<(), ()> {
        if self.0[index].load(Ordering::Relaxed) { Err(()) } else { Ok(()) }
    }
}

pub(crate) struct Wayward(pub(crate) Arc<KeysManager>, pub(crate) Ways);

pub(crate) struct WaywardSigner(InMemorySigner, Ways);

impl SignerProvider for Wayward {
    type EcdsaSigner = WaywardSigner;

    fn generate_channel_keys_id(&self, _inbound: bool, _user_channel_id: u128) -> [u8; 32] {
        panic!("the name follows from the reference")
    }

    fn derive_channel_signer(&self, channel_keys_id: [u8; 32]) -> WaywardSigner {
        WaywardSigner(self.0.derive_channel_signer(channel_keys_id), self.1.clone())
    }

    fn get_destination_script(&self, id: [u8; 32]) -> Result<ScriptBuf, ()> {
        self.0.get_destination_script(id)
    }

    fn get_shutdown_scriptpubkey(&self) -> Result<ShutdownScript, ()> {
        self.0.get_shutdown_scriptpubkey()
    }
}

type Parameters = ChannelTransactionParameters;
type Secp = Secp256k1<All>;

impl ChannelSigner for WaywardSigner {
    fn get_per_commitment_point(&self, index: u64, secp: &Secp) -> Result<PublicKey, ()> {
        self.1.is(0)?;
        self.0.get_per_commitment_point(index, secp)
    }

    fn release_commitment_secret(&self, _index: u64) -> Result<[u8; 32], ()> {
        panic!("no secret is ever asked for")
    }

    fn validate_holder_commitment(
        &self,
        holder: &HolderCommitmentTransaction,
        preimages: Vec<PaymentPreimage>,
    ) -> Result<(), ()> {
        self.1.is(2)?;
        self.0.validate_holder_commitment(holder, preimages)
    }

    fn validate_counterparty_revocation(&self, _: u64, _: &SecretKey) -> Result<(), ()> {
        panic!("not while opening")
    }

    fn pubkeys(&self, secp: &Secp) -> ChannelPublicKeys {
        self.0.pubkeys(secp)
    }

    fn new_funding_pubkey(&self, _: Txid, _: &Secp) -> PublicKey {
        panic!("not while opening")
    }

    fn channel_keys_id(&self) -> [u8; 32] {
        self.0.channel_keys_id()
    }
}

impl EcdsaChannelSigner for WaywardSigner {
    fn sign_counterparty_commitment(
        &self,
        parameters: &Parameters,
        commitment: &CommitmentTransaction,
        inbound: Vec<PaymentPreimage>,
        outbound: Vec<PaymentPreimage>,
        secp: &Secp,
    ) -> Result<(Signature, Vec<Signature>), ()> {
        self.1.is(0)?;
        if self.1.is(1).is_err() {
            return Ok((Signature::from_compact(&[1; 64]).unwrap(), Vec::new()));
        }
        self.0.sign_counterparty_commitment(parameters, commitment, inbound, outbound, secp)
    }

    fn sign_holder_commitment(
        &self,
        parameters: &Parameters,
        holder: &HolderCommitmentTransaction,
        secp: &Secp,
    ) -> Result<Signature, ()> {
        self.1.is(0)?;
        self.0.sign_holder_commitment(parameters, holder, secp)
    }

    fn sign_justice_revoked_output(
        &self,
        _: &Parameters,
        _: &Transaction,
        _: usize,
        _: u64,
        _: &SecretKey,
        _: &Secp,
    ) -> Result<Signature, ()> {
        panic!("not while opening")
    }

    fn sign_justice_revoked_htlc(
        &self,
        _: &Parameters,
        _: &Transaction,
        _: usize,
        _: u64,
        _: &SecretKey,
        _: &HTLCOutputInCommitment,
        _: &Secp,
    ) -> Result<Signature, ()> {
        panic!("not while opening")
    }

    fn sign_holder_htlc_transaction(
        &self,
        _: &Transaction,
        _: usize,
        _: &HTLCDescriptor,
        _: &Secp,
    ) -> Result<Signature, ()> {
        panic!("not while opening")
    }

    fn sign_counterparty_htlc_transaction(
        &self,
        _: &Parameters,
        _: &Transaction,
        _: usize,
        _: u64,
        _: &PublicKey,
        _: &HTLCOutputInCommitment,
        _: &Secp,
    ) -> Result<Signature, ()> {
        panic!("not while opening")
    }

    fn sign_closing_transaction(
        &self,
        _: &Parameters,
        _: &ClosingTransaction,
        _: &Secp,
    ) -> Result<Signature, ()> {
        panic!("not while opening")
    }

    fn sign_holder_keyed_anchor_input(
        &self,
        _: &Parameters,
        _: &Transaction,
        _: usize,
        _: &Secp,
    ) -> Result<Signature, ()> {
        panic!("not while opening")
    }

    fn sign_channel_announcement_with_funding_key(
        &self,
        _: &Parameters,
        _: &UnsignedChannelAnnouncement,
        _: &Secp,
    ) -> Result<Signature, ()> {
        panic!("not while opening")
    }

    fn sign_splice_shared_input(
        &self,
        _: &Parameters,
        _: &Transaction,
        _: usize,
        _: &Secp,
    ) -> Signature {
        panic!("not while opening")
    }
}
