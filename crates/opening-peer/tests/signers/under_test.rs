//! The signers, and what it takes to stop one and start it again.

use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::Network;
use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::Secp256k1;
use lightning::sign::KeysManager;
use lightning_persister::fs_store::FilesystemStore;
use opening_signer::ldk::LdkHsm;
use opening_signer::remote::tls::{Identity, TlsDialer, TlsSocket};
use opening_signer::remote::unix::{SignerSocket, UnixDialer};
use opening_signer::remote::{
    Connect, EnvelopeOptions, EnvelopeServer, EnvelopedHsm, HsmdConfig, HsmdHsm, HsmdIdentity,
    serve_hsmd,
};
use opening_signer::testing::{Faults, MockHsm};
use opening_signer::{
    ChannelHsm, ChannelRef, Hsm, HsmResult, HsmSecret, Info, LocalHsm, SigningPolicy,
};
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// Longer than any of the cases takes.
const DEADLINE: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    LocalBlind,
    LocalValidating,
    LdkKeysManager,
    EnvelopedUnix,
    EnvelopedTls,
    HsmdWire,
    /// Without faults.
    Mock,
}

/// A signer that is stopped and started again; what the node holds stays the same.
pub(crate) struct UnderTest {
    pub(crate) kind: Kind,
    directory: TempDir,
    /// Where it listens.
    tls: Option<(SocketAddr, Identity, Identity)>,
    serving: Option<JoinHandle<()>>,
    current: Arc<Mutex<Arc<dyn Hsm>>>,
}

/// Whichever signer there is now.
struct Current(Arc<Mutex<Arc<dyn Hsm>>>);

impl Current {
    fn get(&self) -> Arc<dyn Hsm> {
        self.0.lock().unwrap().clone()
    }
}

#[async_trait]
impl Hsm for Current {
    fn info(&self) -> Info {
        self.get().info()
    }

    fn health(&self) -> HsmResult<()> {
        self.get().health()
    }

    async fn channel(&self, reference: ChannelRef) -> HsmResult<Arc<dyn ChannelHsm>> {
        self.get().channel(reference).await
    }

    async fn forget_channel(&self, reference: ChannelRef) -> HsmResult<()> {
        self.get().forget_channel(reference).await
    }
}

impl UnderTest {
    pub(crate) async fn new(kind: Kind) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let tls = (kind == Kind::EnvelopedTls).then(|| {
            let key = |name| Identity::load_or_create(&directory.path().join(name)).unwrap();
            let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            (free.local_addr().unwrap(), key("node"), key("signer"))
        });
        let nobody: Arc<dyn Hsm> = Arc::new(LocalHsm::blind(&HsmSecret::new([9; 32])));
        let current = Arc::new(Mutex::new(nobody));
        let mut under_test = Self { kind, directory, tls, serving: None, current };
        under_test.serve().await;
        under_test.reconnect().await;
        under_test
    }

    /// For the node.
    pub(crate) fn hsm(&self) -> Arc<dyn Hsm> {
        Arc::new(Current(self.current.clone()))
    }

    /// Whether its refusals are about more than the order of calls.
    pub(crate) fn has_bounds(&self) -> bool {
        !matches!(self.kind, Kind::LocalBlind | Kind::LdkKeysManager)
    }

    /// The signer is gone for a moment and comes back; a client of it stays.
    pub(crate) async fn restart(&mut self) {
        self.serve().await;
        if self.serving.is_none() {
            self.reconnect().await;
        }
    }

    /// The signer and its client, as after a restart of the machine.
    pub(crate) async fn restart_with_client(&mut self) {
        self.serve().await;
        self.reconnect().await;
    }

    fn local(&self) -> Arc<dyn Hsm> {
        let secret = HsmSecret::new([1; 32]);
        if self.kind == Kind::LocalBlind {
            return Arc::new(LocalHsm::blind(&secret));
        }
        let store = FilesystemStore::new(self.directory.path().join("store"));
        let policy = SigningPolicy::for_network(Network::Regtest);
        Arc::new(LocalHsm::validating(&secret, policy, Arc::new(store)))
    }

    fn socket(&self) -> std::path::PathBuf {
        self.directory.path().join("private/signer")
    }

    /// Serves the signer anew, where it is one to be served.
    async fn serve(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            let _ = serving.await;
        }
        let hsm = self.local();
        let server = EnvelopeServer::new(hsm.clone(), ChainHash::REGTEST);
        self.serving = match self.kind {
            Kind::EnvelopedUnix => Some(serve(SignerSocket::bind(&self.socket()).unwrap(), server)),
            Kind::EnvelopedTls => {
                let (address, node, signer) = self.tls.as_ref().unwrap();
                let socket = TlsSocket::bind(signer, node.fingerprint(), *address).await.unwrap();
                Some(serve(socket, server))
            }
            Kind::HsmdWire => {
                let socket = SignerSocket::bind(&self.socket()).unwrap();
                let node = HsmSecret::new([1; 32]).node_key();
                let identity = HsmdIdentity {
                    node_id: node.public_key(&Secp256k1::new()),
                    chain_hash: ChainHash::REGTEST,
                };
                Some(tokio::spawn(async move {
                    loop {
                        let stream: UnixStream = socket.accept().await.unwrap().into_std().unwrap();
                        let _ = serve_hsmd(hsm.clone(), identity, stream).await;
                    }
                }))
            }
            Kind::LocalBlind | Kind::LocalValidating | Kind::LdkKeysManager | Kind::Mock => None,
        };
    }

    async fn reconnect(&self) {
        let options =
            EnvelopeOptions { deadline: DEADLINE, ..EnvelopeOptions::new(ChainHash::REGTEST) };
        let hsm: Arc<dyn Hsm> = match self.kind {
            Kind::LocalBlind | Kind::LocalValidating => self.local(),
            Kind::Mock => Arc::new(MockHsm::new(self.local(), Faults::none())),
            Kind::LdkKeysManager => {
                Arc::new(LdkHsm::new(Arc::new(KeysManager::new(&[1; 32], 0, 0, true))))
            }
            Kind::EnvelopedUnix => {
                let dialer = UnixDialer::new(self.socket());
                Arc::new(EnvelopedHsm::connect(dialer, options).await.unwrap())
            }
            Kind::EnvelopedTls => {
                let (address, node, signer) = self.tls.as_ref().unwrap();
                let dialer =
                    TlsDialer::new(node, signer.fingerprint(), &address.to_string()).unwrap();
                Arc::new(EnvelopedHsm::connect(dialer, options).await.unwrap())
            }
            Kind::HsmdWire => {
                let bounds = SigningPolicy::for_network(Network::Regtest).bounds;
                let config =
                    HsmdConfig { bounds, deadline: DEADLINE, ..HsmdConfig::new(Network::Regtest) };
                Arc::new(HsmdHsm::connect(&self.socket(), config).await.unwrap())
            }
        };
        *self.current.lock().unwrap() = hsm;
    }
}

/// One connection after the other.
fn serve(mut socket: impl Connect, server: EnvelopeServer) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            if let Ok(stream) = socket.connect().await {
                let _ = server.serve(Box::into_pin(stream), std::future::pending()).await;
            }
        }
    })
}
