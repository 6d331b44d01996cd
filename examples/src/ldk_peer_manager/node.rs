//! How this library and LDK's `ChannelManager` are put behind one `PeerManager`.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use bitcoin::Network;
use bitcoin::secp256k1::PublicKey;
use lightning::ln::msgs::OpenChannel;
use lightning::ln::types::ChannelId;
use opening_core::{FeeratePerKw, FeerateRange, Limits};
use opening_peer::ldk::{OpeningHandler, Route};
use opening_peer::negotiation::ready::Confirmation;
use opening_peer::node::{AcceptWithin, Bounds, RestOfNode};
use opening_peer::store::MemoryStore;
use opening_peer::wallet::fund;
use opening_peer::{Ask, Event, Node, Opened, Openings, Session};
use opening_signer::{HsmSecret, LocalHsm};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::watched::Watched;
use crate::chain::RegtestChain;
use crate::ldk_node::{Inbound, LdkNode, Manager};
use crate::our_node::{AnyError, Recorder};
use crate::wallet::Wallet;

/// Offers of so many satoshis or more are answered by this library, smaller ones by LDK.
pub const OURS_FROM: u64 = 1_000_000;
/// Nothing here takes longer, unless it never comes.
const PATIENCE: Duration = Duration::from_secs(20);

/// LDK's `ChannelManager` behind this library; what it gets to see is watched.
pub type Handler = OpeningHandler<Watched<Manager>>;

/// What the session hands to the node: messages about channels that this library has opened, once
/// they are the node's to operate.
#[derive(Default)]
pub struct Handed {
    manager: OnceLock<Weak<Manager>>,
    messages: Mutex<Vec<Vec<u8>>>,
    news: watch::Sender<usize>,
}

impl RestOfNode for Handed {
    fn uses(&self, channel_id: &ChannelId) -> bool {
        let channels = self.manager.get().and_then(Weak::upgrade).map(|it| it.list_channels());
        channels.is_some_and(|channels| channels.iter().any(|it| it.channel_id == *channel_id))
    }

    fn message(&self, _peer: &PublicKey, message: &[u8]) {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        messages.push(message.to_vec());
        self.news.send_replace(messages.len());
    }
}

impl Handed {
    /// The first message; waits until there is one.
    pub async fn first(&self) -> Result<Vec<u8>, AnyError> {
        timeout(PATIENCE, self.news.subscribe().wait_for(|count| *count > 0)).await??;
        let messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(messages[0].clone())
    }
}

/// A running node; it stops when dropped.
pub struct MixedNode {
    /// The LDK node, whose `PeerManager` has our handler.
    pub ldk: Arc<LdkNode<Handler>>,
    /// What LDK's `ChannelManager` gets to see.
    pub watched: Arc<Watched<Manager>>,
    /// What this library has told.
    pub recorder: Arc<Recorder>,
    /// What it has handed to the node.
    pub handed: Arc<Handed>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for MixedNode {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl MixedNode {
    /// Starts a node with keys of this seed.
    pub async fn start(
        seed: [u8; 32],
        chain: RegtestChain,
        wallet: Wallet,
    ) -> Result<Self, AnyError> {
        let (recorder, handed) = (Arc::<Recorder>::default(), Arc::<Handed>::default());
        let openings = openings(seed, recorder.clone(), handed.clone()).await?;
        let mut watched = None;
        let shown = openings.clone();
        let behind = |manager: Arc<Manager>| {
            handed.manager.get_or_init(|| Arc::downgrade(&manager));
            let inner = watched.insert(Arc::new(Watched::new(manager))).clone();
            let by_amount = |_: &PublicKey, offer: &OpenChannel| {
                let is_ours = offer.common_fields.funding_satoshis >= OURS_FROM;
                if is_ours { Route::Ours } else { Route::Inner }
            };
            Arc::new(OpeningHandler::new(inner, openings, by_amount, Handle::current()))
        };
        let inbound = Inbound::Accept;
        let ldk = LdkNode::start_behind(seed, chain.clone(), wallet, inbound, behind).await?;
        let ldk = Arc::new(ldk);
        let watched = watched.ok_or("the node has no handler")?;
        let tasks = vec![
            tokio::spawn(send_what_we_say(ldk.clone())),
            tokio::spawn(follow_chain(shown, recorder.clone(), chain)),
        ];
        Ok(Self { ldk, watched, recorder, handed, tasks })
    }

    /// This library's session with a connected peer.
    pub fn session(&self, peer: &PublicKey) -> Result<Session, AnyError> {
        Ok(self.ldk.handler().session(peer).ok_or("the peer is not connected")?)
    }

    /// Opens a channel with this library: the wallet builds the transaction when the peer has
    /// accepted, and signs it only against the permit.
    pub async fn open_channel(
        &self,
        peer: &PublicKey,
        ask: Ask,
        wallet: &Wallet,
    ) -> Result<Arc<Opened>, AnyError> {
        let (opened, _transaction) = fund(&self.session(peer)?, ask, wallet).await?;
        Ok(opened)
    }

    /// Every id, temporary and final, of the openings of this library.
    pub fn ids(&self) -> Vec<ChannelId> {
        let seen = self.recorder.since(0);
        let ids = seen.iter().flat_map(|seen| match &*seen.event {
            Event::Progress { temporary_channel_id, channel_id, .. } => {
                vec![Some(*temporary_channel_id), *channel_id]
            }
            _ => Vec::new(),
        });
        ids.flatten().collect()
    }
}

async fn openings(
    seed: [u8; 32],
    recorder: Arc<Recorder>,
    handed: Arc<Handed>,
) -> Result<Arc<Openings>, AnyError> {
    let limits = Limits::for_network(Network::Regtest);
    let feerates = FeerateRange { min: FeeratePerKw::FLOOR, max: FeeratePerKw::new(25_000) };
    let node = Node {
        rest: handed,
        ..Node::new(
            Network::Regtest,
            // For the channels only: the node id is that of the `PeerManager`.
            Arc::new(LocalHsm::blind(&HsmSecret::new(seed))),
            Arc::new(AcceptWithin(Bounds { limits, feerates: Some(feerates) })),
            Arc::new(MemoryStore::default()),
            recorder,
        )
    };
    let (openings, _restored) = Openings::load(node).await?;
    Ok(openings)
}

/// Nothing of LDK's knows when this library has something to say.
async fn send_what_we_say(ldk: Arc<LdkNode<Handler>>) {
    loop {
        ldk.handler().output().await;
        ldk.process_events();
    }
}

/// Shows each new block to every channel of this library that waits for depth.
async fn follow_chain(openings: Arc<Openings>, recorder: Arc<Recorder>, chain: RegtestChain) {
    let mut tip = chain.tip();
    while tip.changed().await.is_ok() {
        let height = *tip.borrow_and_update();
        for seen in recorder.since(0) {
            let Event::Opened(opened) = &*seen.event else { continue };
            let txid = opened.parameters.funding_outpoint.txid;
            let Some((transaction, block_height, transaction_index)) = chain.find(&txid) else {
                continue;
            };
            let depth = height + 1 - block_height;
            let confirmation = Confirmation { transaction, block_height, transaction_index, depth };
            if let Err(error) = openings.confirmed(opened.channel_id, confirmation).await {
                log::warn!("{}: {error}", opened.channel_id);
            }
        }
    }
}
