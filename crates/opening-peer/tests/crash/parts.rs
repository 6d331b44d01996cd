//! A node's parts, each of which may be what it touches last.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::PublicKey;
use bitcoin::secp256k1::ecdsa::Signature;
use lightning::ln::msgs::ChannelReady;
use lightning::ln::types::ChannelId;
use opening_core::{ChannelKeys, ShortChannelId};
use opening_peer::message::{Message, decode, encode};
use opening_peer::negotiation::reestablish::channel_reestablish;
use opening_peer::node::{
    AcceptWithin, Bounds, Decision, Entropy, OfferDetails, Policy, RestOfNode,
};
use opening_peer::store::Stored;
use opening_signer::{
    ChannelHsm, ChannelRef, ChannelSetup, CommitmentRequest, Hsm, HsmResult, Info,
};

use crate::disk::Disk;
use crate::ledger::{Ledger, Name};
use crate::point::Crash;

/// A signer; what it is asked is remembered across deaths.
pub struct MortalHsm {
    pub inner: Arc<dyn Hsm>,
    pub watch: Watch,
}

#[derive(Clone)]
pub struct Watch {
    pub node: Name,
    pub crash: Crash,
    pub ledger: Ledger,
}

#[async_trait]
impl Hsm for MortalHsm {
    fn info(&self) -> Info {
        self.inner.info()
    }

    async fn channel(&self, reference: ChannelRef) -> HsmResult<Arc<dyn ChannelHsm>> {
        let act = self.inner.channel(reference);
        let inner = self.watch.crash.around("signer channel", act).await?;
        Ok(Arc::new(MortalChannel { inner, reference, watch: self.watch.clone() }))
    }

    async fn forget_channel(&self, reference: ChannelRef) -> HsmResult<()> {
        let act = self.inner.forget_channel(reference);
        self.watch.crash.around("signer forget_channel", act).await
    }
}

struct MortalChannel {
    inner: Arc<dyn ChannelHsm>,
    reference: ChannelRef,
    watch: Watch,
}

impl MortalChannel {
    async fn around<T>(
        &self,
        call: &'static str,
        what: Option<String>,
        act: impl Future<Output = HsmResult<T>>,
    ) -> HsmResult<T> {
        let Watch { node, crash, ledger } = &self.watch;
        let label = format!("signer {call}");
        let asking = async {
            if let Some(what) = what {
                ledger.asks_signer(*node, self.reference, call, what);
            }
            act.await
        };
        crash.around(&label, asking).await
    }
}

#[async_trait]
impl ChannelHsm for MortalChannel {
    async fn pubkeys(&self) -> HsmResult<ChannelKeys> {
        self.around("pubkeys", None, self.inner.pubkeys()).await
    }

    async fn per_commitment_point(&self, number: u64) -> HsmResult<PublicKey> {
        let act = self.inner.per_commitment_point(number);
        self.around("per_commitment_point", None, act).await
    }

    async fn setup(&self, setup: &ChannelSetup) -> HsmResult<()> {
        self.around("setup", Some(format!("{setup:?}")), self.inner.setup(setup)).await
    }

    async fn sign_counterparty_commitment(
        &self,
        request: &CommitmentRequest<'_>,
    ) -> HsmResult<Signature> {
        let act = self.inner.sign_counterparty_commitment(request);
        let what = Some(format!("{request:?}"));
        self.around("sign_counterparty_commitment", what, act).await
    }

    async fn validate_holder_commitment(
        &self,
        request: &CommitmentRequest<'_>,
        signature: &Signature,
    ) -> HsmResult<()> {
        let act = self.inner.validate_holder_commitment(request, signature);
        let what = Some(format!("{request:?} {signature:?}"));
        self.around("validate_holder_commitment", what, act).await
    }

    async fn sign_holder_commitment(
        &self,
        request: &CommitmentRequest<'_>,
    ) -> HsmResult<Signature> {
        let act = self.inner.sign_holder_commitment(request);
        self.around("sign_holder_commitment", Some(format!("{request:?}")), act).await
    }
}

pub struct MortalPolicy(pub AcceptWithin, pub Crash);

#[async_trait]
impl Policy for MortalPolicy {
    async fn bounds(&self, peer: &PublicKey) -> Bounds {
        self.1.around("policy bounds", self.0.bounds(peer)).await
    }

    async fn decide(&self, peer: &PublicKey, offer: &OfferDetails<'_>) -> Decision {
        self.1.around("policy decide", self.0.decide(peer, offer)).await
    }
}

/// The same bytes in every run, and others after every death.
pub struct Numbers {
    pub seed: String,
    pub next: AtomicU64,
    pub crash: Crash,
}

impl Entropy for Numbers {
    fn bytes(&self) -> [u8; 32] {
        // A node that dies here does nothing with them.
        self.crash.passes("before", "entropy");
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        sha256::Hash::hash(format!("{} {next}", self.seed).as_bytes()).to_byte_array()
    }
}

/// The rest of the node: it has the channels that it has taken over.
pub struct Rest {
    pub disk: Arc<Disk>,
    /// Channels of which the peer has sent `channel_reestablish`.
    pub reestablished: Mutex<Vec<(PublicKey, ChannelId)>>,
}

impl Rest {
    pub fn has(&self, channel_id: &ChannelId) -> bool {
        self.disk.taken_over.lock().unwrap().contains_key(channel_id)
    }
}

impl RestOfNode for Rest {
    fn owns(&self, _peer: &PublicKey, channel_id: &ChannelId) -> bool {
        self.has(channel_id)
    }

    fn message(&self, peer: &PublicKey, message: &[u8]) {
        if let Ok(Message::ChannelReestablish(message)) = decode(message) {
            self.reestablished.lock().unwrap().push((*peer, message.channel_id));
        }
    }
}

/// What a node says of a channel that it operates, and has just begun to, on a new connection.
pub fn said_again(stored: &Stored) -> [Vec<u8>; 2] {
    let local = stored.progress.local.expect("in use");
    let ready = ChannelReady {
        channel_id: stored.opened.channel_id,
        next_per_commitment_point: local.second_per_commitment_point,
        short_channel_id_alias: local.alias.map(ShortChannelId::to_u64),
    };
    [encode(&channel_reestablish(&stored.opened)), encode(&ready)]
}
