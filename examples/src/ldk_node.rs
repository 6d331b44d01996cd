//! A Lightning node made of LDK's own parts: the counterparty that no one here wrote.
//!
//! A real `ChannelManager` behind LDK's `PeerManager` on its own TCP socket.  Its chain is the
//! embedded one, its store is memory, and it has no router: it is here to open channels.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bitcoin::FeeRate;
use bitcoin::secp256k1::PublicKey;
use lightning::chain::{BestBlock, Listen};
use lightning::events::{ClosureReason, Event, EventsProvider};
use lightning::ln::channel_state::ChannelDetails;
use lightning::ln::msgs::ChannelMessageHandler;
use lightning::ln::peer_handler::{IgnoringMessageHandler, PeerManager};
use lightning::ln::types::ChannelId;
use lightning::util::config::UserConfig;
use lightning_net_tokio::SocketDescriptor;
use opening_core::FundingOutput;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use self::parts::{
    Assembled, Broadcaster, InMemory, Keys, Monitor, ToLog, assemble as assemble_parts,
};
use crate::chain::RegtestChain;
use crate::wallet::Wallet;

pub mod parts;
pub use self::parts::Manager;

/// sat per 1000 weight units, whatever it is for.
const FEERATE: u32 = 1250;
/// Nothing here takes longer, unless it never comes.
const PATIENCE: Duration = Duration::from_secs(20);

type Peers<H> = PeerManager<
    SocketDescriptor,
    Arc<H>,
    IgnoringMessageHandler,
    IgnoringMessageHandler,
    Arc<ToLog>,
    IgnoringMessageHandler,
    Keys,
    Arc<Monitor>,
>;

/// How the node answers offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inbound {
    /// It accepts what LDK accepts.
    Accept,
    /// It also uses zero-conf channels before they confirm.
    TrustZeroconf,
}

/// What LDK is asked to open.
#[derive(Clone, Copy, Debug)]
pub struct LdkAsk {
    /// Satoshis.
    pub funding_satoshis: u64,
    /// Millisatoshis of it given to the peer.
    pub push_msat: u64,
    /// Anchors, or else only a static remote key.
    pub anchors: bool,
    /// Whether both sides will announce the channel.
    pub announce_channel: bool,
}

/// A running node; it stops when dropped.  `H` handles its channel messages.
pub struct LdkNode<H: ChannelMessageHandler + Send + Sync + 'static = Manager> {
    node_id: PublicKey,
    address: SocketAddr,
    shared: Arc<Shared<H>>,
    stop: watch::Sender<bool>,
}

struct Shared<H: ChannelMessageHandler> {
    manager: Arc<Manager>,
    monitor: Arc<Monitor>,
    handler: Arc<H>,
    peers: Arc<Peers<H>>,
    chain: RegtestChain,
    wallet: Wallet,
    inbound: Inbound,
    config: UserConfig,
    closed: Mutex<Vec<(ChannelId, ClosureReason)>>,
    /// Counts what happened, so that whoever waits looks again.
    news: watch::Sender<u64>,
}

impl<H: ChannelMessageHandler> Shared<H> {
    fn closed(&self) -> MutexGuard<'_, Vec<(ChannelId, ClosureReason)>> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LdkNode {
    /// Starts a node that listens on a port of its own.
    pub async fn start(
        seed: [u8; 32],
        chain: RegtestChain,
        wallet: Wallet,
        inbound: Inbound,
    ) -> std::io::Result<Self> {
        Self::start_behind(seed, chain, wallet, inbound, |manager| manager).await
    }
}

impl<H: ChannelMessageHandler + Send + Sync + 'static> LdkNode<H> {
    /// The same with a handler of the caller's before LDK's own.
    pub async fn start_behind(
        seed: [u8; 32],
        chain: RegtestChain,
        wallet: Wallet,
        inbound: Inbound,
        handler: impl FnOnce(Arc<Manager>) -> Arc<H>,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(assemble(seed, chain, wallet, inbound, handler));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let node_id = shared.manager.get_our_node_id();
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(listen(listener, shared.peers.clone(), stopped.clone()));
        tokio::spawn(work(shared.clone(), stopped));
        Ok(Self { node_id, address, shared, stop })
    }

    /// Its node id.
    pub fn node_id(&self) -> PublicKey {
        self.node_id
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What handles its channel messages.
    pub fn handler(&self) -> &Arc<H> {
        &self.shared.handler
    }

    /// Sends what handlers have queued.
    pub fn process_events(&self) {
        self.shared.peers.process_events();
    }

    /// Connects to a peer and waits until both `init` messages have passed.
    pub async fn connect(&self, peer: PublicKey, address: SocketAddr) -> std::io::Result<()> {
        let stream = TcpStream::connect(address).await?;
        // Without it, each small message waits some 40 ms for the acknowledgement of the last.
        stream.set_nodelay(true)?;
        let peers = self.shared.peers.clone();
        tokio::spawn(lightning_net_tokio::setup_outbound(peers, peer, stream.into_std()?));
        self.connected(peer).await
    }

    /// Waits until both `init` messages have passed with a peer.
    pub async fn connected(&self, peer: PublicKey) -> std::io::Result<()> {
        let connected = || self.shared.peers.peer_by_node_id(&peer).map(drop);
        let waiting = async {
            while connected().is_none() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.map_err(std::io::Error::other)
    }

    /// Offers a channel; its transaction comes from the wallet when the peer has accepted.
    pub fn open_channel(&self, peer: PublicKey, ask: LdkAsk) -> Result<ChannelId, String> {
        let mut config = self.shared.config.clone();
        config.channel_handshake_config.negotiate_anchors_zero_fee_htlc_tx = ask.anchors;
        config.channel_handshake_config.announce_for_forwarding = ask.announce_channel;
        let LdkAsk { funding_satoshis, push_msat, .. } = ask;
        self.shared
            .manager
            .create_channel(peer, funding_satoshis, push_msat, 0, None, Some(config))
            .map_err(|error| format!("{error:?}"))
    }

    /// LDK's own view of its channels.
    pub fn channels(&self) -> Vec<ChannelDetails> {
        self.shared.manager.list_channels()
    }

    /// Waits until LDK has a channel that `wanted` accepts.
    pub async fn channel(
        &self,
        wanted: impl Fn(&ChannelDetails) -> bool,
    ) -> Result<ChannelDetails, String> {
        self.wait(|| self.channels().into_iter().find(&wanted))
            .await
            .ok_or_else(|| format!("no such channel in time; there are: {:#?}", self.channels()))
    }

    /// Waits until LDK has closed this channel and says why.
    pub async fn closure_reason(&self, channel_id: ChannelId) -> Option<ClosureReason> {
        let find =
            |(id, reason): &(ChannelId, ClosureReason)| (*id == channel_id).then(|| reason.clone());
        self.wait(|| self.shared.closed().iter().find_map(find)).await
    }

    async fn wait<T>(&self, look: impl Fn() -> Option<T>) -> Option<T> {
        let mut news = self.shared.news.subscribe();
        let waiting = async {
            loop {
                if let Some(found) = look() {
                    return Some(found);
                }
                // The sender lives as long as the node.
                news.changed().await.ok()?;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.ok().flatten()
    }
}

impl<H: ChannelMessageHandler + Send + Sync + 'static> Drop for LdkNode<H> {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        self.shared.peers.disconnect_all_peers();
    }
}

fn assemble<H: ChannelMessageHandler>(
    seed: [u8; 32],
    chain: RegtestChain,
    wallet: Wallet,
    inbound: Inbound,
    handler: impl FnOnce(Arc<Manager>) -> Arc<H>,
) -> Shared<H> {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now = u32::try_from(since_epoch.as_secs()).unwrap_or(u32::MAX);
    let height = chain.height();
    let tip = chain.block(height).expect("the tip is there").block_hash();
    let kept = (Arc::new(Broadcaster(chain.clone())), Arc::new(InMemory));
    let Assembled { manager, monitor, keys, config } =
        assemble_parts(seed, FEERATE, kept, BestBlock::new(tip, height), now);
    let handler = handler(manager.clone());
    let peers = Arc::new(PeerManager::new_channel_only(
        handler.clone(),
        IgnoringMessageHandler {},
        now,
        &seed,
        Arc::new(ToLog),
        keys,
        monitor.clone(),
    ));
    let (closed, news) = (Mutex::default(), watch::Sender::new(0));
    Shared { manager, monitor, handler, peers, chain, wallet, inbound, config, closed, news }
}

async fn listen<H: ChannelMessageHandler + Send + Sync + 'static>(
    listener: TcpListener,
    peers: Arc<Peers<H>>,
    mut stopped: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.changed() => return,
        };
        let Ok((stream, _)) = accepted else { continue };
        if let Ok(stream) = stream.set_nodelay(true).and_then(|()| stream.into_std()) {
            tokio::spawn(lightning_net_tokio::setup_inbound(peers.clone(), stream));
        }
    }
}

/// What LDK leaves to its user: to hand on blocks, to answer events, to send what is queued.
async fn work<H: ChannelMessageHandler>(
    shared: Arc<Shared<H>>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut tip = shared.chain.tip();
    let mut height = shared.manager.current_best_block().height;
    loop {
        while height < shared.chain.height() {
            height += 1;
            let block = shared.chain.block(height).expect("blocks up to the tip are there");
            shared.manager.block_connected(&block, height);
            shared.monitor.block_connected(&block, height);
        }
        let handler = |event| {
            on_event(&shared, event);
            Ok(())
        };
        shared.manager.process_pending_events(&handler);
        shared.monitor.process_pending_events(&handler);
        shared.peers.process_events();
        shared.news.send_modify(|news| *news += 1);
        tokio::select! {
            () = shared.manager.get_event_or_persistence_needed_future() => {}
            _ = tip.changed() => {}
            _ = stopped.changed() => return,
        }
    }
}

fn on_event<H: ChannelMessageHandler>(shared: &Shared<H>, event: Event) {
    match event {
        Event::FundingGenerationReady {
            temporary_channel_id,
            counterparty_node_id,
            channel_value_satoshis,
            output_script,
            ..
        } => {
            let value = bitcoin::Amount::from_sat(channel_value_satoshis);
            let output = FundingOutput { value, script_pubkey: output_script };
            let feerate = FeeRate::from_sat_per_kwu(FEERATE.into());
            let paid = shared.wallet.build_unsigned(&[output], feerate);
            let transaction = match paid.and_then(|psbt| shared.wallet.sign(psbt)) {
                Ok(transaction) => transaction,
                Err(error) => {
                    // The peer is told, and the node goes on.
                    log::warn!("ldk: {error}");
                    let text = "cannot fund the channel".to_owned();
                    let (id, peer) = (&temporary_channel_id, &counterparty_node_id);
                    let closed = shared.manager.force_close_broadcasting_latest_txn(id, peer, text);
                    return closed.unwrap_or_else(|error| log::warn!("ldk: {error:?}"));
                }
            };
            // LDK broadcasts it itself, when it has the peer's signature.
            let manager = &shared.manager;
            if let Err(error) = manager.funding_transaction_generated(
                temporary_channel_id,
                counterparty_node_id,
                transaction,
            ) {
                log::warn!("ldk: {error:?}");
            }
        }
        Event::OpenChannelRequest { temporary_channel_id, counterparty_node_id, .. } => {
            let (manager, id, peer) =
                (&shared.manager, &temporary_channel_id, &counterparty_node_id);
            let accepted = match shared.inbound {
                Inbound::Accept => manager.accept_inbound_channel(id, peer, 0, None),
                Inbound::TrustZeroconf => {
                    manager.accept_inbound_channel_from_trusted_peer_0conf(id, peer, 0, None)
                }
            };
            if let Err(error) = accepted {
                log::warn!("ldk: {error:?}");
            }
        }
        Event::ChannelClosed { channel_id, reason, .. } => {
            shared.closed().push((channel_id, reason));
        }
        _ => {}
    }
}
