//! Two of LDK's nodes that open one channel after another over loopback.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bitcoin::secp256k1::PublicKey;
use bitcoin::{Amount, Network, Transaction};
use lightning::chain::BestBlock;
use lightning::chain::chaininterface::BroadcasterInterface;
use lightning::chain::chainmonitor::Persist;
use lightning::events::{Event, EventsProvider};
use lightning::ln::peer_handler::{IgnoringMessageHandler, PeerManager};
use lightning::sign::InMemorySigner;
use lightning_net_tokio::SocketDescriptor;
use opening_core::FundingOutput;
use opening_examples::ldk_node::parts::{self, Assembled, InMemory, Keys, ToLog, assemble};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::Kept;
use super::sample::{Meter, Sample};
use super::writes::{Timed, Writes};
use crate::node::funding;
use crate::pair::{FEERATE, FUNDING, PUSH};

/// Between two looks at what is not timed.
const LOOK_AGAIN: Duration = Duration::from_micros(500);
/// Seconds since 1970; nothing here depends on it.
const NOW: u32 = 1_750_000_000;

type Persister = Arc<dyn Persist<InMemorySigner> + Send + Sync>;
type Monitor = parts::Monitor<Arc<Broadcasts>, Persister>;
type Manager = parts::Manager<Arc<Broadcasts>, Persister>;
type Peers = PeerManager<
    SocketDescriptor,
    Arc<Manager>,
    IgnoringMessageHandler,
    IgnoringMessageHandler,
    Arc<ToLog>,
    IgnoringMessageHandler,
    Keys,
    Arc<Monitor>,
>;

/// Counts what LDK broadcasts: the funding transaction, as soon as the funder may.
struct Broadcasts(watch::Sender<u64>);

impl BroadcasterInterface for Broadcasts {
    fn broadcast_transactions(&self, _transactions: &[&Transaction]) {
        self.0.send_modify(|count| *count += 1);
    }
}

/// One node.
struct Side {
    manager: Arc<Manager>,
    monitor: Arc<Monitor>,
    peers: Arc<Peers>,
    broadcasts: watch::Receiver<u64>,
    /// How many it has funded: each transaction is another one.
    funded: AtomicU64,
}

/// Two connected nodes.
pub(super) struct Ldk {
    funder: Arc<Side>,
    fundee: Arc<Side>,
    writes: Writes,
    tasks: Vec<JoinHandle<()>>,
    _directory: TempDir,
}

impl Drop for Ldk {
    fn drop(&mut self) {
        self.funder.peers.disconnect_all_peers();
        self.fundee.peers.disconnect_all_peers();
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Ldk {
    /// A funder and a fundee on these runtimes.
    pub(super) async fn connect(kept: Kept, [near, far]: [Handle; 2]) -> Self {
        let directory = tempfile::tempdir().expect("a place for files");
        let writes = Writes::default();
        let side = |number: u8| {
            let persister: Persister = match kept {
                Kept::InMemory => Arc::new(InMemory),
                Kept::InFiles => {
                    let place = directory.path().join(number.to_string());
                    Arc::new(Timed::new(&place, &writes))
                }
            };
            Arc::new(Side::new([number; 32], persister))
        };
        let (funder, fundee) = (side(1), side(2));
        let tasks = vec![near.spawn(funder.clone().work()), far.spawn(fundee.clone().work())];
        let (tell_address, address) = oneshot::channel();
        let peers = fundee.peers.clone();
        far.spawn(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has ports");
            let address = listener.local_addr().expect("it is bound");
            tell_address.send(address).expect("it is awaited");
            let (stream, _) = listener.accept().await.expect("somebody connects");
            lightning_net_tokio::setup_inbound(peers, without_delay(stream)).await;
        });
        let address = address.await.expect("it is told");
        let (peers, their_id) = (funder.peers.clone(), fundee.id());
        near.spawn(async move {
            let stream = TcpStream::connect(address).await.expect("it listens");
            lightning_net_tokio::setup_outbound(peers, their_id, without_delay(stream)).await;
        });
        let ldk = Self { funder, fundee, writes, tasks, _directory: directory };
        ldk.until(|[funder, fundee]| funder.knows(fundee) && fundee.knows(funder)).await;
        ldk
    }

    /// One channel, timed from the ask to when the funder broadcasts its transaction.
    pub(super) async fn open(&mut self) -> Sample {
        let Self { funder, fundee, writes, .. } = &*self;
        let mut broadcasts = funder.broadcasts.clone();
        broadcasts.mark_unchanged();
        let meter = Meter::start(writes);
        let asked = funder.manager.create_channel(
            fundee.id(),
            FUNDING.to_sat(),
            PUSH.to_msat(),
            0,
            None,
            None,
        );
        asked.expect("an ask within the limits");
        funder.peers.process_events();
        broadcasts.changed().await.expect("the funder's node is there");
        let sample = meter.stop();
        // Each is closed before the next: LDK lets no more than four of a peer wait for the chain.
        for channel in funder.manager.list_channels() {
            let (id, text) = (&channel.channel_id, "not needed".to_owned());
            let closed = funder.manager.force_close_broadcasting_latest_txn(id, &fundee.id(), text);
            closed.expect("it is there");
        }
        let is_empty = |side: &Side| side.manager.list_channels().is_empty();
        self.until(|[funder, fundee]| is_empty(funder) && is_empty(fundee)).await;
        // What is left of it is not to be counted with the next.
        sleep(LOOK_AGAIN).await;
        sample
    }

    async fn until(&self, is_so: impl Fn([&Side; 2]) -> bool) {
        while !is_so([&self.funder, &self.fundee]) {
            sleep(LOOK_AGAIN).await;
        }
    }
}

impl Side {
    fn new(seed: [u8; 32], persister: Persister) -> Self {
        let (count, broadcasts) = watch::channel(0);
        let kept = (Arc::new(Broadcasts(count)), persister);
        let best_block = BestBlock::from_network(Network::Regtest);
        let Assembled { manager, monitor, keys, .. } =
            assemble(seed, FEERATE, kept, best_block, NOW);
        let peers = Arc::new(PeerManager::new_channel_only(
            manager.clone(),
            IgnoringMessageHandler {},
            NOW,
            &seed,
            Arc::new(ToLog),
            keys,
            monitor.clone(),
        ));
        Self { manager, monitor, peers, broadcasts, funded: AtomicU64::default() }
    }

    fn id(&self) -> PublicKey {
        self.manager.get_our_node_id()
    }

    fn knows(&self, other: &Self) -> bool {
        self.peers.peer_by_node_id(&other.id()).is_some()
    }

    /// What LDK leaves to its user: to answer events and to send what is queued.
    async fn work(self: Arc<Self>) {
        loop {
            let handler = |event| {
                self.on_event(event);
                Ok(())
            };
            self.manager.process_pending_events(&handler);
            self.monitor.process_pending_events(&handler);
            self.peers.process_events();
            self.manager.get_event_or_persistence_needed_future().await;
        }
    }

    fn on_event(&self, event: Event) {
        match event {
            Event::OpenChannelRequest { temporary_channel_id, counterparty_node_id, .. } => {
                let (id, peer) = (&temporary_channel_id, &counterparty_node_id);
                let accepted = self.manager.accept_inbound_channel(id, peer, 0, None);
                accepted.expect("an offer within the limits");
            }
            Event::FundingGenerationReady {
                temporary_channel_id,
                counterparty_node_id,
                channel_value_satoshis,
                output_script,
                ..
            } => {
                let value = Amount::from_sat(channel_value_satoshis);
                let output = FundingOutput { value, script_pubkey: output_script };
                let transaction = funding(&output, self.funded.fetch_add(1, Ordering::Relaxed));
                let (id, peer) = (temporary_channel_id, counterparty_node_id);
                let funded = self.manager.funding_transaction_generated(id, peer, transaction);
                funded.expect("it pays the output");
            }
            _ => {}
        }
    }
}

fn without_delay(stream: TcpStream) -> std::net::TcpStream {
    stream.set_nodelay(true).expect("a socket of ours");
    stream.into_std().expect("a socket of ours")
}
