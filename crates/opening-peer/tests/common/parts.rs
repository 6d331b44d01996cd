//! Parts of a node that wait where a test wants them to, and that remember what they were given.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bitcoin::secp256k1::PublicKey;
use bitcoin::secp256k1::ecdsa::Signature;
use lightning::ln::types::ChannelId;
use opening_core::ChannelKeys;
use opening_peer::Opened;
use opening_peer::negotiation::ready::Progress;
use opening_peer::node::{AcceptWithin, Bounds, Decision, OfferDetails, Policy, RestOfNode};
use opening_peer::store::{ChannelStore, Entry, MemoryStore, StoreError, Stored};
use opening_signer::{
    ChannelHsm, ChannelRef, ChannelSetup, CommitmentRequest, Hsm, HsmResult, Info, LocalHsm,
};
use tokio::sync::watch;

/// Lets everything pass until it is shut.
pub struct Valve {
    open: watch::Sender<bool>,
    waiting: watch::Sender<u32>,
}

impl Default for Valve {
    fn default() -> Self {
        Self { open: watch::Sender::new(true), waiting: watch::Sender::new(0) }
    }
}

impl Valve {
    pub fn shut(&self) {
        self.waiting.send_replace(0);
        self.open.send_replace(false);
    }

    pub fn open(&self) {
        self.open.send_replace(true);
    }

    /// Waits until something waits here.
    pub async fn reached(&self) {
        self.waiting.subscribe().wait_for(|waiting| *waiting > 0).await.unwrap();
    }

    pub async fn pass(&self) {
        self.waiting.send_modify(|waiting| *waiting += 1);
        self.open.subscribe().wait_for(|open| *open).await.unwrap();
    }
}

/// Where a node can be made to wait.
#[derive(Default)]
pub struct Valves {
    pub keys: Valve,
    pub decide: Valve,
    pub sign: Valve,
    pub validate: Valve,
    pub save: Valve,
}

impl Valves {
    pub fn open_all(&self) {
        for valve in [&self.keys, &self.decide, &self.sign, &self.validate, &self.save] {
            valve.open();
        }
    }
}

/// A signer behind valves.
pub struct ValveHsm(pub LocalHsm, pub Arc<Valves>);

#[async_trait]
impl Hsm for ValveHsm {
    fn info(&self) -> Info {
        self.0.info()
    }

    async fn channel(&self, reference: ChannelRef) -> HsmResult<Arc<dyn ChannelHsm>> {
        Ok(Arc::new(ValveChannel(self.0.channel(reference).await?, self.1.clone())))
    }

    async fn forget_channel(&self, reference: ChannelRef) -> HsmResult<()> {
        self.0.forget_channel(reference).await
    }
}

struct ValveChannel(Arc<dyn ChannelHsm>, Arc<Valves>);

#[async_trait]
impl ChannelHsm for ValveChannel {
    async fn pubkeys(&self) -> HsmResult<ChannelKeys> {
        self.1.keys.pass().await;
        self.0.pubkeys().await
    }

    async fn per_commitment_point(&self, number: u64) -> HsmResult<PublicKey> {
        self.0.per_commitment_point(number).await
    }

    async fn setup(&self, setup: &ChannelSetup) -> HsmResult<()> {
        self.0.setup(setup).await
    }

    async fn sign_counterparty_commitment(
        &self,
        request: &CommitmentRequest<'_>,
    ) -> HsmResult<Signature> {
        self.1.sign.pass().await;
        self.0.sign_counterparty_commitment(request).await
    }

    async fn validate_holder_commitment(
        &self,
        request: &CommitmentRequest<'_>,
        signature: &Signature,
    ) -> HsmResult<()> {
        self.1.validate.pass().await;
        self.0.validate_holder_commitment(request, signature).await
    }

    async fn sign_holder_commitment(
        &self,
        request: &CommitmentRequest<'_>,
    ) -> HsmResult<Signature> {
        self.0.sign_holder_commitment(request).await
    }
}

/// A policy behind a valve.
pub struct ValvePolicy(pub AcceptWithin, pub Arc<Valves>);

#[async_trait]
impl Policy for ValvePolicy {
    async fn bounds(&self, peer: &PublicKey) -> Bounds {
        self.0.bounds(peer).await
    }

    async fn decide(&self, peer: &PublicKey, offer: &OfferDetails<'_>) -> Decision {
        self.1.decide.pass().await;
        self.0.decide(peer, offer).await
    }
}

/// A store behind a valve.
pub struct ValveStore(pub MemoryStore, pub Arc<Valves>);

#[async_trait]
impl ChannelStore for ValveStore {
    async fn save(&self, opened: &Opened) -> Result<(), StoreError> {
        self.1.save.pass().await;
        self.0.save(opened).await
    }

    async fn update(&self, opened: &Opened, progress: &Progress) -> Result<(), StoreError> {
        self.0.update(opened, progress).await
    }

    async fn remove(&self, channel_id: &ChannelId) -> Result<(), StoreError> {
        self.0.remove(channel_id).await
    }

    async fn load(&self, channel_id: &ChannelId) -> Result<Option<Stored>, StoreError> {
        self.0.load(channel_id).await
    }

    async fn load_all(&self) -> Result<Vec<Entry>, StoreError> {
        self.0.load_all().await
    }

    async fn reserve_dbids(&self, count: u64) -> Result<Range<u64>, StoreError> {
        self.0.reserve_dbids(count).await
    }
}

/// Custom types that [`Rest`] knows, one odd and one even.
pub const CUSTOM_TYPES: [u16; 2] = [32769, 32770];

/// A rest of the node that keeps what it is handed.
#[derive(Default)]
pub struct Rest {
    owned: Mutex<HashSet<ChannelId>>,
    used: Mutex<HashSet<ChannelId>>,
    messages: Mutex<Vec<Vec<u8>>>,
}

impl Rest {
    pub fn own(&self, id: ChannelId) {
        self.owned.lock().unwrap().insert(id);
    }

    /// The node has this channel elsewhere.
    pub fn use_elsewhere(&self, id: ChannelId) {
        self.used.lock().unwrap().insert(id);
    }

    /// What it was handed since this was asked last.
    pub fn take_messages(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.messages.lock().unwrap())
    }
}

impl RestOfNode for Rest {
    fn knows_type(&self, type_number: u16) -> bool {
        CUSTOM_TYPES.contains(&type_number)
    }

    fn owns(&self, _peer: &PublicKey, channel_id: &ChannelId) -> bool {
        self.owned.lock().unwrap().contains(channel_id)
    }

    fn uses(&self, channel_id: &ChannelId) -> bool {
        self.used.lock().unwrap().contains(channel_id)
    }

    fn message(&self, _peer: &PublicKey, message: &[u8]) {
        self.messages.lock().unwrap().push(message.to_vec());
    }
}
