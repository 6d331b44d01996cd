//! Every signer that can be had here, for the conformance suite.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;

use bitcoin::Network;
use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::Secp256k1;
use lightning::sign::KeysManager;
use lightning_persister::fs_store::FilesystemStore;
use opening_signer::ldk::LdkHsm;
use opening_signer::remote::unix::{SignerSocket, UnixDialer};
use opening_signer::remote::{
    EnvelopeOptions, EnvelopeServer, EnvelopedHsm, HsmdConfig, HsmdHsm, HsmdIdentity, serve_hsmd,
};
use opening_signer::testing::conformance::{Report, Subject, conformance};
use opening_signer::{Hsm, HsmError, HsmResult, HsmSecret, LocalHsm, SigningPolicy};
use zeroize::Zeroizing;

use crate::custom_signer::CustomHsm;

/// The chain of the checks.
const NETWORK: Network = Network::Regtest;

/// Runs the suite over each signer, with what has to last in a directory of its own.
pub async fn reports() -> std::io::Result<Vec<Report>> {
    let directory = tempfile::tempdir()?;
    let mut reports = Vec::new();
    for subject in subjects(&Home(directory.path().into())) {
        reports.push(conformance(subject).await);
    }
    Ok(reports)
}

/// Where the signers' stores are.
#[derive(Clone)]
struct Home(PathBuf);

fn subjects(home: &Home) -> Vec<Subject> {
    let secrets =
        |subject: Subject| (0..100).fold(subject, |subject, node| subject.with_secret([node; 32]));
    let subject = |name: &'static str, start: fn(Home, u32) -> Starting| {
        // A folder of its own for each signer, in which each node has one.
        let home = Home(home.0.join(name.replace(' ', "-")));
        secrets(Subject::new(name, NETWORK, move |node| start(home.clone(), node)))
    };
    vec![
        subject("LocalHsm, blind", |_, node| Box::pin(async move { Ok(blind(node)) })),
        subject("LocalHsm, validating", |home, node| {
            Box::pin(async move { Ok(home.validating(node)) })
        }),
        subject("LDK KeysManager", |_, node| Box::pin(async move { Ok(keys_manager(node)) })),
        subject("enveloped, validating", |home, node| Box::pin(enveloped(home, node))),
        subject("hsmd's wire, validating", |home, node| Box::pin(behind_hsmds_wire(home, node))),
        subject("custom_signer", |_, node| {
            let seed = Zeroizing::new(seed(node));
            Box::pin(async move { Ok(Arc::new(CustomHsm::new(seed)) as Arc<dyn Hsm>) })
        }),
    ]
}

type Starting = std::pin::Pin<Box<dyn Future<Output = HsmResult<Arc<dyn Hsm>>> + Send>>;

fn seed(node: u32) -> [u8; 32] {
    [u8::try_from(node).expect("there are fewer than 100 checks"); 32]
}

fn secret(node: u32) -> HsmSecret {
    HsmSecret::new(seed(node))
}

fn blind(node: u32) -> Arc<dyn Hsm> {
    Arc::new(LocalHsm::blind(&secret(node)))
}

impl Home {
    fn validating(&self, node: u32) -> Arc<dyn Hsm> {
        let store = FilesystemStore::new(self.0.join(node.to_string()));
        let policy = SigningPolicy::for_network(NETWORK);
        Arc::new(LocalHsm::validating(&secret(node), policy, Arc::new(store)))
    }
}

fn keys_manager(node: u32) -> Arc<dyn Hsm> {
    // The time only matters to names of keys that LDK draws itself.
    Arc::new(LdkHsm::new(Arc::new(KeysManager::new(&seed(node), 0, 0, true))))
}

/// In a task that serves it over a Unix socket.
async fn enveloped(home: Home, node: u32) -> HsmResult<Arc<dyn Hsm>> {
    let path = home.0.join(format!("sockets-{node}")).join("signer");
    let unavailable = |error: std::io::Error| HsmError::Unavailable(error.to_string());
    std::fs::create_dir_all(&home.0).map_err(unavailable)?;
    // What was served before has ended with its node.
    let socket = loop {
        match SignerSocket::bind(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                tokio::task::yield_now().await;
            }
            bound => break bound.map_err(unavailable)?,
        }
    };
    let server = EnvelopeServer::new(home.validating(node), ChainHash::REGTEST);
    tokio::spawn(async move {
        if let Ok(stream) = socket.accept().await {
            let ended = server.serve(stream, std::future::pending()).await;
            log::debug!("a node's connection ended: {ended:?}");
        }
    });
    let options = EnvelopeOptions::new(ChainHash::REGTEST);
    Ok(Arc::new(EnvelopedHsm::connect(UnixDialer::new(path), options).await?))
}

/// In a task that serves it over a pair of sockets.
async fn behind_hsmds_wire(home: Home, node: u32) -> HsmResult<Arc<dyn Hsm>> {
    let pair = UnixStream::pair().map_err(|error| HsmError::Unavailable(error.to_string()));
    let (client, server) = pair?;
    let node_id = secret(node).node_key().public_key(&Secp256k1::signing_only());
    let identity = HsmdIdentity { node_id, chain_hash: ChainHash::REGTEST };
    tokio::spawn(serve_hsmd(home.validating(node), identity, server));
    // Not "validating": a feerate is what a funder's first transaction makes of it on this wire.
    let bounds = SigningPolicy::for_network(NETWORK).bounds;
    let config = HsmdConfig { bounds, ..HsmdConfig::new(NETWORK) };
    Ok(Arc::new(HsmdHsm::over(client, config).await?))
}
