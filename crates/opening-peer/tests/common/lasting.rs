//! A node that can be stopped at any moment and started again on what its store kept, and its
//! channels with a raw peer.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use async_trait::async_trait;
use bitcoin::{OutPoint, Transaction};
use lightning::ln::msgs::{ChannelReady, ChannelReestablish, OpenChannel, Shutdown};
use lightning::ln::types::ChannelId;
use opening_core::{FundingOutput, ShortChannelId};
use opening_peer::message::Message;
use opening_peer::negotiation::ready::{Progress, Ready};
use opening_peer::openings::ConfirmError;
use opening_peer::store::{ChannelStore, Entry, MemoryStore, StoreError, Stored};
use opening_peer::testing::{Faults, FaultyStore};
use opening_peer::{
    Ask, BroadcastPermit, Event, FundingTransaction, Node, Opened, Openings, Restored, Session,
};

use super::parts::Rest;
use super::raw_peer::RawPeer;
use super::{Seen, confirmation, funding_transaction, node};

/// The raw peer of most tests.
pub const PEER: u8 = 7;

/// A store whose process may have ended.
struct OfProcess {
    store: Arc<dyn ChannelStore>,
    is_alive: Arc<AtomicBool>,
}

impl OfProcess {
    async fn store(&self) -> &dyn ChannelStore {
        if !self.is_alive.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        &*self.store
    }
}

#[async_trait]
impl ChannelStore for OfProcess {
    async fn save(&self, opened: &Opened) -> Result<(), StoreError> {
        self.store().await.save(opened).await
    }

    async fn update(&self, opened: &Opened, progress: &Progress) -> Result<(), StoreError> {
        self.store().await.update(opened, progress).await
    }

    async fn remove(&self, channel_id: &ChannelId) -> Result<(), StoreError> {
        self.store().await.remove(channel_id).await
    }

    async fn load(&self, channel_id: &ChannelId) -> Result<Option<Stored>, StoreError> {
        self.store().await.load(channel_id).await
    }

    async fn load_all(&self) -> Result<Vec<Entry>, StoreError> {
        self.store().await.load_all().await
    }

    async fn reserve_dbids(&self, count: u64) -> Result<Range<u64>, StoreError> {
        self.store().await.reserve_dbids(count).await
    }
}

pub struct Lasting {
    pub openings: Arc<Openings>,
    /// What this process has told.
    pub seen: Arc<Seen>,
    pub rest: Arc<Rest>,
    /// What goes wrong with the store, in every process.
    pub faults: Faults,
    pub store: Arc<dyn ChannelStore>,
    is_alive: Arc<AtomicBool>,
    change: Box<dyn Fn(&mut Node)>,
    channels: AtomicU8,
}

/// A channel with the raw peer, and the transaction that funds it.
#[derive(Clone)]
pub struct Funded {
    pub id: ChannelId,
    pub opened: Arc<Opened>,
    pub transaction: Transaction,
}

impl Lasting {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// With a node of which `change` makes something else, in every process.
    pub async fn with(change: impl Fn(&mut Node) + 'static) -> Self {
        Self::on(Arc::new(MemoryStore::default()), change).await
    }

    pub async fn on(store: Arc<dyn ChannelStore>, change: impl Fn(&mut Node) + 'static) -> Self {
        let (faults, change) = (Faults::none(), Box::new(change));
        let (is_alive, rest) = (Arc::new(AtomicBool::new(true)), Arc::<Rest>::default());
        let (node, seen) = process(&store, &is_alive, &faults, &rest, &*change);
        let (openings, restored) = Openings::load(node).await.unwrap();
        assert!(restored.is_empty());
        let channels = AtomicU8::new(1);
        Self { openings, seen, rest, faults, store, is_alive, change, channels }
    }

    /// The process ends here, and another begins.
    pub async fn restart(&mut self) -> Vec<Restored> {
        self.is_alive.store(false, Ordering::SeqCst);
        self.is_alive = Arc::new(AtomicBool::new(true));
        let (node, seen) =
            process(&self.store, &self.is_alive, &self.faults, &self.rest, &*self.change);
        self.seen = seen;
        let (openings, restored) = Openings::load(node).await.unwrap();
        self.openings = openings;
        restored
    }

    /// The same, of a node that has one channel.
    pub async fn restart_with_one(&mut self) -> Restored {
        let [restored] = <[Restored; 1]>::try_from(self.restart().await).unwrap();
        restored
    }

    pub async fn connect(&self) -> (RawPeer, Session) {
        RawPeer::connect(&self.openings, PEER).await
    }

    /// A channel that the peer funds, with `change` in its offer.
    pub async fn they_fund(
        &self,
        peer: &mut RawPeer,
        change: impl FnOnce(&mut OpenChannel),
    ) -> Funded {
        self.they_fund_by(peer, change, funding_transaction).await
    }

    /// The same, by a transaction that `fund` makes for the funding output.
    pub async fn they_fund_by(
        &self,
        peer: &mut RawPeer,
        change: impl FnOnce(&mut OpenChannel),
        fund: impl FnOnce(&FundingOutput, usize) -> Transaction,
    ) -> Funded {
        let temporary_id = ChannelId([self.channels.fetch_add(1, Ordering::SeqCst); 32]);
        let mut open = peer.open_channel(temporary_id);
        change(&mut open);
        peer.send(&open).await;
        let accept = peer.expect_accept_channel(temporary_id).await;
        let output = FundingOutput::new(
            bitcoin::Amount::from_sat(open.common_fields.funding_satoshis),
            &open.common_fields.funding_pubkey,
            &accept.common_fields.funding_pubkey,
        );
        let transaction = fund(&output, 0);
        let outpoint = OutPoint { txid: transaction.compute_txid(), vout: 0 };
        peer.send(&peer.funding_created(&open, &accept, outpoint)).await;
        let id = peer.expect_funding_signed().await.channel_id;
        Funded { id, opened: self.opened(id).await, transaction }
    }

    /// A channel that this node funds.
    pub async fn we_fund(
        &self,
        peer: &mut RawPeer,
        session: &Session,
        ask: Ask,
    ) -> (Funded, BroadcastPermit) {
        let opening = session.open(ask).await.unwrap();
        let open = peer.expect_open_channel().await;
        let mut accept = peer.accept_channel(&open);
        let channel_type = open.common_fields.channel_type.as_ref();
        if channel_type.is_some_and(|channel_type| channel_type.requires_zero_conf()) {
            accept.common_fields.minimum_depth = 0;
        }
        peer.send(&accept).await;
        let pending = opening.accepted().await.unwrap();
        let transaction = funding_transaction(&pending.needed().output, 0);
        let funding = FundingTransaction::Signed(transaction.clone());
        let mut signing = pending.complete(funding).await.unwrap();
        let created = peer.expect_funding_created().await;
        peer.send(&peer.funding_signed(&open, &accept, &created)).await;
        let (opened, permit) = signing.opened().await.unwrap();
        (Funded { id: opened.channel_id, opened, transaction }, permit)
    }

    async fn opened(&self, id: ChannelId) -> Arc<Opened> {
        let found = |event: &Event| match event {
            Event::Opened(opened) if opened.channel_id == id => Some(opened.clone()),
            _ => None,
        };
        self.seen.find(found).await
    }

    pub async fn confirm(&self, channel: &Funded, depth: u32) -> Result<(), ConfirmError> {
        self.openings.confirmed(channel.id, confirmation(&channel.transaction, depth)).await
    }

    /// How the channel became ready, in this process.
    pub async fn ready(&self, channel: &Funded) -> Ready {
        let found = |event: &Event| match event {
            Event::Ready(ready) if ready.opened.channel_id == channel.id => Some((**ready).clone()),
            _ => None,
        };
        self.seen.find(found).await
    }

    pub fn readies(&self) -> usize {
        self.seen.count(|event| matches!(event, Event::Ready(_)))
    }

    /// How the opened channels ended, in this process.
    pub fn ends(&self) -> Vec<&'static str> {
        self.seen.all(|event| match event {
            Event::Ended(ended) => Some(ended.end.code()),
            _ => None,
        })
    }

    /// What of the channel is durable.
    pub async fn kept(&self, channel: &Funded) -> Option<Progress> {
        self.store.load(&channel.id).await.unwrap().map(|stored| stored.progress)
    }

    /// Waits until what is durable of the channel is `wanted`.
    pub async fn until_kept(&self, channel: &Funded, wanted: impl Fn(&Progress) -> bool) {
        let waiting = async {
            while !self.kept(channel).await.is_some_and(|progress| wanted(&progress)) {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        };
        let patience = std::time::Duration::from_secs(60);
        tokio::time::timeout(patience, waiting).await.expect("never kept");
    }

    /// Both sides have it in use.
    pub async fn both_ready(&self, peer: &mut RawPeer, channel: &Funded) -> Ready {
        self.confirm(channel, 3).await.unwrap();
        peer.expect_channel_ready(channel.id).await;
        peer.send(&peer.channel_ready(channel.id)).await;
        self.ready(channel).await
    }
}

fn process(
    store: &Arc<dyn ChannelStore>,
    is_alive: &Arc<AtomicBool>,
    faults: &Faults,
    rest: &Arc<Rest>,
    change: &dyn Fn(&mut Node),
) -> (Node, Arc<Seen>) {
    let (mut node, seen) = node(1);
    let store = OfProcess { store: store.clone(), is_alive: is_alive.clone() };
    node.store = Arc::new(FaultyStore::new(store, faults.clone()));
    node.rest = rest.clone();
    change(&mut node);
    (node, seen)
}

/// What the raw peer says of channels.
impl RawPeer {
    /// Its `channel_ready`, the same each time.
    pub fn channel_ready(&self, channel_id: ChannelId) -> ChannelReady {
        ChannelReady {
            channel_id,
            next_per_commitment_point: self.point(7),
            short_channel_id_alias: None,
        }
    }

    pub fn channel_ready_as(&self, channel_id: ChannelId, alias: ShortChannelId) -> ChannelReady {
        let short_channel_id_alias = Some(alias.to_u64());
        ChannelReady { short_channel_id_alias, ..self.channel_ready(channel_id) }
    }

    /// Its `channel_reestablish` where all is well.
    pub fn channel_reestablish(&self, channel_id: ChannelId) -> ChannelReestablish {
        ChannelReestablish {
            channel_id,
            next_local_commitment_number: 1,
            next_remote_commitment_number: 0,
            your_last_per_commitment_secret: [0; 32],
            my_current_per_commitment_point: self.point(6),
            next_funding: None,
            my_current_funding_locked: None,
        }
    }

    pub async fn expect_channel_ready(&mut self, id: ChannelId) -> ChannelReady {
        match self.receive().await {
            Message::ChannelReady(message) if message.channel_id == id => message,
            other => panic!("no channel_ready for {id}: {other:?}"),
        }
    }

    pub async fn expect_reestablish(&mut self, id: ChannelId) -> ChannelReestablish {
        match self.receive().await {
            Message::ChannelReestablish(message) if message.channel_id == id => message,
            other => panic!("no channel_reestablish for {id}: {other:?}"),
        }
    }

    pub async fn expect_shutdown(&mut self, id: ChannelId) -> Shutdown {
        match self.receive().await {
            Message::Shutdown(message) if message.channel_id == id => message,
            other => panic!("no shutdown for {id}: {other:?}"),
        }
    }

    /// Both sides say what they remember of the channel.
    pub async fn reestablish(&mut self, id: ChannelId) {
        self.expect_reestablish(id).await;
        self.send(&self.channel_reestablish(id)).await;
    }
}
