//! A small node around this library: what it takes to open channels, and nothing else.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use bitcoin::{Network, Transaction};
use opening_core::{FeeratePerKw, FeerateRange, Limits};
use opening_peer::negotiation::ready::{Confirmation, Ready};
use opening_peer::node::{AcceptWithin, Bounds, Events};
use opening_peer::store::{ChannelStore, MemoryStore};
use opening_peer::transport::bolt8::EphemeralKey;
use opening_peer::transport::tcp;
use opening_peer::{Ask, Event, Failed, Greeting, Node, Opened, Openings, Session, fund};
use opening_signer::{ChannelSetup, CommitmentRequest, Hsm, HsmSecret, LocalHsm};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::chain::RegtestChain;
use crate::wallet::Wallet;

/// How long TCP and BOLT 8 may take together.
const CONNECT: Duration = Duration::from_secs(10);
/// Nothing here takes longer, unless it never comes.
const PATIENCE: Duration = Duration::from_secs(20);

/// An error of any kind, told to the user and to no program.
pub type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// Something that happened, and when.
#[derive(Clone)]
pub struct Seen {
    /// When.
    pub at: Instant,
    /// With whom.
    pub peer: PublicKey,
    /// What.
    pub event: Arc<Event>,
}

/// Remembers every event, and wakes whoever waits for one.
#[derive(Default)]
pub struct Recorder {
    seen: Mutex<Vec<Seen>>,
    news: watch::Sender<usize>,
}

impl Events for Recorder {
    fn event(&self, peer: &PublicKey, event: Event) {
        let mut seen = lock(&self.seen);
        seen.push(Seen { at: Instant::now(), peer: *peer, event: Arc::new(event) });
        self.news.send_replace(seen.len());
    }
}

impl Recorder {
    /// Everything from the `first` event on.
    pub fn since(&self, first: usize) -> Vec<Seen> {
        lock(&self.seen).get(first..).unwrap_or_default().to_vec()
    }

    /// How much has been seen: a place for [`Recorder::since`] to begin.
    pub fn len(&self) -> usize {
        lock(&self.seen).len()
    }

    /// Whether nothing has happened yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits for an event from the `first` on of which `find` makes something.
    pub async fn find<T>(
        &self,
        first: usize,
        find: impl Fn(&Event) -> Option<T>,
    ) -> Result<T, AnyError> {
        let mut news = self.news.subscribe();
        let waiting = async {
            loop {
                let found = self.since(first).iter().find_map(|seen| find(&seen.event));
                if let Some(found) = found {
                    return found;
                }
                if news.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        Ok(tokio::time::timeout(PATIENCE, waiting).await?)
    }

    /// The next channel opened.
    pub async fn opened(&self, first: usize) -> Result<Arc<Opened>, AnyError> {
        let found = |event: &Event| match event {
            Event::Opened(opened) => Some(opened.clone()),
            _ => None,
        };
        self.find(first, found).await
    }

    /// The next opening that failed.
    pub async fn failed(&self, first: usize) -> Result<Failed, AnyError> {
        let found = |event: &Event| match event {
            Event::Failed(failed) => Some(failed.clone()),
            _ => None,
        };
        self.find(first, found).await
    }

    /// The given channel in use.
    pub async fn ready(&self, opened: &Opened) -> Result<Ready, AnyError> {
        let found = |event: &Event| match event {
            Event::Ready(ready) if ready.opened.channel_id == opened.channel_id => {
                Some((**ready).clone())
            }
            _ => None,
        };
        self.find(0, found).await
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running node: it listens, and shows every block to the channels that wait for depth.
pub struct OurNode {
    secret: SecretKey,
    address: SocketAddr,
    hsm: Arc<dyn Hsm>,
    openings: Arc<Openings>,
    recorder: Arc<Recorder>,
    restored: Vec<Arc<Opened>>,
    chain: RegtestChain,
    sessions: watch::Sender<HashMap<PublicKey, Session>>,
}

impl OurNode {
    /// Starts a node with the keys of this seed.
    pub async fn start(seed: [u8; 32], chain: RegtestChain) -> Result<Arc<Self>, AnyError> {
        Self::with_limits(seed, chain, Limits::for_network(Network::Regtest)).await
    }

    /// The same with limits of the caller's.
    pub async fn with_limits(
        seed: [u8; 32],
        chain: RegtestChain,
        limits: Limits,
    ) -> Result<Arc<Self>, AnyError> {
        Self::with_store(seed, chain, limits, Arc::new(MemoryStore::default())).await
    }

    /// The same with the channels of a store, as after a restart.
    pub async fn with_store(
        seed: [u8; 32],
        chain: RegtestChain,
        limits: Limits,
        store: Arc<dyn ChannelStore>,
    ) -> Result<Arc<Self>, AnyError> {
        let hsm_secret = HsmSecret::new(seed);
        let hsm = Arc::new(LocalHsm::blind(&hsm_secret));
        Self::with_signer(hsm_secret.node_key(), hsm, chain, limits, store).await
    }

    /// The same with a signer of the caller's, and `secret` for the node's identity.
    pub async fn with_signer(
        secret: SecretKey,
        hsm: Arc<dyn Hsm>,
        chain: RegtestChain,
        limits: Limits,
        store: Arc<dyn ChannelStore>,
    ) -> Result<Arc<Self>, AnyError> {
        let recorder = Arc::new(Recorder::default());
        let feerates = FeerateRange { min: FeeratePerKw::FLOOR, max: FeeratePerKw::new(25_000) };
        let node = Node::new(
            Network::Regtest,
            hsm.clone(),
            Arc::new(AcceptWithin(Bounds { limits, feerates: Some(feerates) })),
            store,
            recorder.clone(),
        );
        let (openings, restored) = Openings::load(node).await?;
        let restored = restored.into_iter().filter_map(|it| it.opened().cloned()).collect();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let sessions = watch::Sender::default();
        let node =
            Arc::new(Self { secret, address, hsm, openings, recorder, restored, chain, sessions });
        tokio::spawn(node.clone().listen(listener));
        tokio::spawn(node.clone().follow_chain());
        Ok(node)
    }

    /// Its node id.
    pub fn node_id(&self) -> PublicKey {
        self.secret.public_key(&Secp256k1::signing_only())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has seen.
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Ends every connection.
    pub async fn stop(&self) {
        self.openings.shut_down().await;
    }

    /// Inbound openings under way.
    pub fn pending(&self) -> u32 {
        self.openings.pending()
    }

    /// Connects to a peer.
    pub async fn connect(&self, peer: PublicKey, address: SocketAddr) -> Result<Session, AnyError> {
        let ephemeral = EphemeralKey::random();
        let transport = tcp::connect(address, &self.secret, peer, ephemeral, CONNECT).await?;
        let session =
            Session::start(self.openings.clone(), peer, transport, Greeting::default()).await?;
        self.keep(session.clone());
        Ok(session)
    }

    fn keep(&self, session: Session) {
        self.sessions.send_modify(|sessions| drop(sessions.insert(session.peer(), session)));
    }

    /// The connection with a peer, which may still have to come.
    pub async fn session(&self, peer: &PublicKey) -> Result<Session, AnyError> {
        let mut sessions = self.sessions.subscribe();
        let waiting = sessions.wait_for(|sessions| sessions.contains_key(peer));
        let sessions = tokio::time::timeout(PATIENCE, waiting).await??;
        Ok(sessions[peer].clone())
    }

    async fn listen(self: Arc<Self>, listener: TcpListener) {
        while let Ok((stream, address)) = listener.accept().await {
            let node = self.clone();
            tokio::spawn(async move {
                let ephemeral = EphemeralKey::random();
                let accepted = tcp::accept(stream, &node.secret, ephemeral, CONNECT).await;
                let Ok((transport, peer)) = accepted else { return };
                let openings = node.openings.clone();
                match Session::start(openings, peer, transport, Greeting::to(address)).await {
                    Ok(session) => node.keep(session),
                    Err(error) => log::warn!("{peer}: {error}"),
                }
            });
        }
    }

    /// Opens a channel: the wallet builds the transaction when the peer has accepted, and signs
    /// it only against the permit.
    pub async fn open_channel(
        &self,
        session: &Session,
        ask: Ask,
        wallet: &Wallet,
    ) -> Result<(Arc<Opened>, Transaction), AnyError> {
        Ok(fund(session, ask, wallet).await?)
    }

    /// Our first commitment with both signatures, which a node broadcasts only to leave the
    /// channel without its peer.
    pub async fn signed_commitment(&self, opened: &Opened) -> Result<Transaction, AnyError> {
        let parameters = &opened.parameters;
        let channel = self.hsm.channel(opened.reference).await?;
        let setup = ChannelSetup {
            parameters: parameters.clone(),
            chain_hash: ChainHash::REGTEST,
            local_shutdown_script: opened.local_shutdown_script.clone(),
            remote_shutdown_script: opened.remote_shutdown_script.clone(),
        };
        let request = CommitmentRequest::first(parameters, &opened.local_commitment);
        // Again: a signer that was restarted may have forgotten both.
        channel.setup(&setup).await?;
        channel.validate_holder_commitment(&request, &opened.remote_signature).await?;
        let signature = channel.sign_holder_commitment(&request).await?;
        let (local, remote) = (&parameters.local.keys, &parameters.remote.keys);
        Ok(opened.local_commitment.signed(
            (&local.funding_pubkey, signature),
            (&remote.funding_pubkey, opened.remote_signature),
        ))
    }

    /// Shows each new block to every channel that waits for depth.
    async fn follow_chain(self: Arc<Self>) {
        let mut tip = self.chain.tip();
        while tip.changed().await.is_ok() {
            let height = *tip.borrow_and_update();
            let seen = self.recorder.since(0);
            let opened = seen.iter().filter_map(|seen| match &*seen.event {
                Event::Opened(opened) => Some(opened.clone()),
                _ => None,
            });
            for opened in opened.chain(self.restored.iter().cloned()).collect::<Vec<_>>() {
                if let Err(error) = self.show_depth(&opened, height).await {
                    log::warn!("{}: {error}", opened.channel_id);
                }
            }
        }
    }

    async fn show_depth(&self, opened: &Opened, height: u32) -> Result<(), AnyError> {
        let txid = opened.parameters.funding_outpoint.txid;
        let Some((transaction, block_height, transaction_index)) = self.chain.find(&txid) else {
            return Ok(());
        };
        let depth = height + 1 - block_height;
        let confirmation = Confirmation { transaction, block_height, transaction_index, depth };
        Ok(self.openings.confirmed(opened.channel_id, confirmation).await?)
    }
}
