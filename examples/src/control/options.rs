//! The command line of the scriptable node, and the node that it describes.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bitcoin::Network;
use bitcoin::hex::DisplayHex;
use bitcoin::secp256k1::{PublicKey, SecretKey};
use clap::Parser;
use lightning::util::ser::Writeable;
use opening_core::{FeeratePerKw, FeerateRange, Limits};
use opening_peer::node::{AcceptWithin, Bounds, Entropy, SystemEntropy};
use opening_peer::store::{ChannelStore, KvChannelStore, MemoryStore, StoreError};
use opening_peer::{Capacity, Node, Openings};
use opening_signer::remote::tls::Fingerprint;
use opening_signer::{ChannelSecrets, Hsm, HsmError, HsmSecret, LocalHsm};
use serde_json::json;
use tokio::net::TcpListener;
use zeroize::Zeroizing;

use super::directory;
use super::help;
use super::node::ControlNode;
use super::output::Output;
use super::report::Reporter;
use super::signer::Address;
use crate::hsmd::HsmdError;
use crate::logging;

/// A Lightning node that opens channels as it is told on stdin.  Whoever drives it is its chain
/// and its wallet.
#[derive(Debug, Parser)]
#[command(name = "opening-node", version, after_long_help = help::COMMANDS_AND_EVENTS)]
pub struct Options {
    /// Print the hex of the features in `init` and exit.
    #[arg(long)]
    pub print_features: bool,
    /// Where to listen; the port is told in the `ready` line.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// bitcoin, testnet, signet or regtest.
    #[arg(long, default_value = "regtest")]
    network: Network,
    /// The node's identity, 32 bytes in hex.  By default it comes from the store's secret.
    #[arg(long, value_name = "HEX32", value_parser = secret_key)]
    node_privkey: Option<SecretKey>,
    /// Secrets of every channel, for tests: funding, revocation, payment, delayed payment and
    /// htlc secrets and the shachain seed, 32 bytes in hex each.
    #[arg(long, value_name = "F/R/P/D/H/S", value_parser = channel_secrets)]
    channel_secrets: Option<Arc<ChannelSecretsArgument>>,
    /// Confirmations to ask for in accept_channel.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    minimum_depth: u32,
    /// The chain's height at start.  It is not stored: see "After a restart" below.
    #[arg(long, default_value_t = 101)]
    height: u32,
    /// Keep channels and identity in this directory, for one process at a time; by default nothing
    /// is kept.
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Inbound openings that may be pending with one peer.
    #[arg(long, default_value_t = Capacity::default().pending_per_peer)]
    pending_per_peer: u32,
    /// Inbound openings that may be pending in all.
    #[arg(long, default_value_t = Capacity::default().pending_in_all)]
    pending_total: u32,
    /// New inbound openings in a second from one peer; on regtest there is no limit by default.
    #[arg(long, value_name = "N")]
    opens_per_second: Option<u32>,
    /// Never use the next N channel references: once, after an old copy of the store was restored.
    #[arg(long, value_name = "N")]
    skip_references: Option<u64>,
    /// A peer that may open channels even where others have taken all places; may be repeated.
    #[arg(long, value_name = "NODE_ID")]
    allow: Vec<PublicKey>,
    /// A remote signer, unix:PATH or tls:HOST:PORT; tls-listen:IP:PORT waits for one that dials;
    /// hsmd:PATH speaks hsmd's wire.
    #[arg(long, value_name = "ADDRESS")]
    hsm: Option<String>,
    /// Our key for a signer over TLS, created at the first start.
    #[arg(long, value_name = "FILE")]
    hsm_key: Option<PathBuf>,
    /// The fingerprint of that signer's key.
    #[arg(long, value_name = "FINGERPRINT", value_parser = crate::hsmd::fingerprint)]
    hsm_peer: Option<Fingerprint>,
    /// What to log on stderr: off, error, warn, info, debug or trace.
    #[arg(long, default_value = "info", value_parser = logging::level)]
    log: log::LevelFilter,
}

/// What `--channel-secrets` says, kept out of every `Debug`.
struct ChannelSecretsArgument([[u8; 32]; 6]);

impl std::fmt::Debug for ChannelSecretsArgument {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ChannelSecretsArgument")
    }
}

/// Why the node does not start.
#[derive(Debug)]
pub enum OptionsError {
    /// Another process works with the store.
    Locked(String),
    /// An option that asks for what this program does not have.
    NotBuiltIn(String),
    /// An option that means nothing.
    BadOption(String),
    /// Options that do not go together.
    Contradiction(&'static str),
    /// The remote signer.
    Signer(HsmError),
    /// Our own key for it.
    SignersKey(HsmdError),
    /// The store.
    Store(StoreError),
    /// A file or a socket.
    Io(String, io::Error),
}

impl OptionsError {
    /// 2 for what was asked wrongly, 1 for what went wrong.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotBuiltIn(_) | Self::BadOption(_) | Self::Contradiction(_) => 2,
            Self::Locked(_) | Self::Signer(_) | Self::Store(_) | Self::Io(..) => 1,
            Self::SignersKey(error) => error.exit_code(),
        }
    }
}

impl std::fmt::Display for OptionsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotBuiltIn(what) => write!(f, "{what} [not-built-in]"),
            Self::BadOption(why) => write!(f, "{why} [bad-options]"),
            Self::Contradiction(why) => write!(f, "{why} [bad-options]"),
            Self::Locked(directory) => {
                write!(f, "another process works with {directory} [store-locked]")
            }
            Self::Signer(error) => write!(f, "--hsm: {error} [{}]", error.code()),
            Self::SignersKey(error) => write!(f, "{error}"),
            Self::Store(error) => write!(f, "{error} [{}]", error.code()),
            Self::Io(what, error) => write!(f, "{what}: {error} [io]"),
        }
    }
}

fn secret_key(text: &str) -> Result<SecretKey, String> {
    text.parse().map_err(|_| "not a secret key of 32 bytes in hex".into())
}

fn channel_secrets(text: &str) -> Result<Arc<ChannelSecretsArgument>, String> {
    let parts: Vec<_> = text.split('/').collect();
    if parts.len() != 6 {
        return Err("six parts separated by / are needed".into());
    }
    let mut secrets = [[0; 32]; 6];
    for (secret, part) in secrets.iter_mut().zip(parts) {
        // A test harness may leave out leading zeros.
        let padded = format!("{part:0>64}");
        hex::decode_to_slice(padded, secret).map_err(|_| "each part is 32 bytes in hex")?;
    }
    Ok(Arc::new(ChannelSecretsArgument(secrets)))
}

/// The features of our `init`, as on the wire.
pub fn features_hex() -> String {
    // Without the two bytes of length.
    opening_peer::session::default_features().encode()[2..].to_lower_hex_string()
}

impl Options {
    /// Opens the store, listens, and says `ready`.
    pub async fn start(self, output: Output) -> Result<Arc<ControlNode>, OptionsError> {
        logging::to_stderr(self.log);
        let remote = self.hsm.as_deref().map(Address::parse).transpose()?;
        let is_tls = matches!(remote, Some(Address::Tls(_) | Address::TlsListen(_)));
        if !is_tls && (self.hsm_key.is_some() || self.hsm_peer.is_some()) {
            let why = "--hsm-key and --hsm-peer are for --hsm=tls:… and --hsm=tls-listen:…";
            return Err(OptionsError::Contradiction(why));
        }
        if remote.is_some() && self.channel_secrets.is_some() {
            let why = "--channel-secrets are those of the local signer: not with --hsm";
            return Err(OptionsError::Contradiction(why));
        }
        if self.channel_secrets.is_some() && self.network != Network::Regtest {
            let why = "--channel-secrets is for tests on regtest only";
            return Err(OptionsError::Contradiction(why));
        }
        let store: Arc<dyn ChannelStore> = match &self.store {
            Some(directory) => {
                let store = KvChannelStore::in_directory(directory).map_err(OptionsError::Store)?;
                // Before anything is read: the other process may be writing it.
                directory::lock(directory)?;
                Arc::new(store)
            }
            None => Arc::new(MemoryStore::default()),
        };
        if let Some(count) = self.skip_references {
            store.reserve_dbids(count).await.map_err(OptionsError::Store)?;
        }
        let hsm_secret = hsm_secret(self.store.as_deref())?;
        let secret = self.node_privkey.unwrap_or_else(|| hsm_secret.node_key());
        let pinned = (self.hsm_key.as_deref(), self.hsm_peer);
        let remote = match remote {
            Some(remote) => Some(remote.connect(self.network, pinned).await?),
            None => None,
        };
        let hsm: Arc<dyn Hsm> = match (&remote, self.channel_secrets) {
            (Some(remote), _) => remote.hsm(),
            (None, Some(secrets)) => Arc::new(LocalHsm::with_channel_secrets(fixed(&secrets.0)?)),
            (None, None) => Arc::new(LocalHsm::blind(&hsm_secret)),
        };
        let reporter = Arc::new(Reporter::new(output.clone()));
        let policy = AcceptWithin(bounds(self.network, self.minimum_depth));
        let policy = Arc::new(policy);
        let node = Node {
            capacity: Capacity {
                pending_per_peer: self.pending_per_peer,
                pending_in_all: self.pending_total,
                opens_per_second: self.opens_per_second.or(default_rate(self.network)),
                ..Capacity::default()
            },
            allowed: self.allow.into_iter().collect(),
            ..Node::new(self.network, hsm, policy, store, reporter.clone())
        };
        let (openings, restored) = Openings::load(node).await.map_err(OptionsError::Store)?;
        let listener = TcpListener::bind(self.listen)
            .await
            .and_then(|listener| Ok((listener.local_addr()?, listener)));
        let (addr, listener) = listener
            .map_err(|error| OptionsError::Io(format!("--listen={}", self.listen), error))?;
        let node_id = secret.public_key(&bitcoin::secp256k1::Secp256k1::new());
        output.line(json!({
            "event": "ready", "addr": addr.to_string(), "node_id": node_id.to_string(),
        }));
        let node = ControlNode::new(openings, reporter, output, secret, self.height, remote);
        node.restore(restored).await;
        tokio::spawn(node.clone().listen(listener));
        tokio::spawn(node.clone().follow_openings());
        Ok(node)
    }
}

/// What the node accepts: on test networks anything that the rules allow.
fn bounds(network: Network, minimum_depth: u32) -> Bounds {
    let mut limits = Limits::for_network(network);
    limits.minimum_depth = minimum_depth;
    limits.max_minimum_depth = limits.max_minimum_depth.max(minimum_depth);
    let max = if network == Network::Bitcoin { 25_000 } else { u32::MAX };
    let feerates = FeerateRange { min: FeeratePerKw::FLOOR, max: FeeratePerKw::new(max) };
    Bounds { limits, feerates: Some(feerates) }
}

fn default_rate(network: Network) -> Option<u32> {
    Capacity::default().opens_per_second.filter(|_| network != Network::Regtest)
}

fn fixed(secrets: &[[u8; 32]; 6]) -> Result<ChannelSecrets, OptionsError> {
    let key = |index: usize| {
        let why = OptionsError::Contradiction("--channel-secrets has a part that is no secret key");
        SecretKey::from_slice(&secrets[index]).map_err(|_| why)
    };
    Ok(ChannelSecrets {
        funding: key(0)?,
        revocation: key(1)?,
        payment: key(2)?,
        delayed_payment: key(3)?,
        htlc: key(4)?,
        shachain_seed: secrets[5],
    })
}

/// The root of all keys: from the store, where it is created at first start, or new.
fn hsm_secret(store: Option<&Path>) -> Result<HsmSecret, OptionsError> {
    Ok(HsmSecret::new(match store {
        Some(directory) => directory::read_or_create_secret(directory)?,
        None => Zeroizing::new(SystemEntropy.bytes()),
    }))
}
