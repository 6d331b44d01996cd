//! A small signer process: the options of the program `hsmd`, and what it serves.

use std::fmt;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bitcoin::Network;
use bitcoin::secp256k1::Secp256k1;
use clap::{ArgGroup, Parser};
use lightning_persister::fs_store::FilesystemStore;
use opening_signer::remote::tls::{Fingerprint, Identity, TlsDialer, TlsSocket};
use opening_signer::remote::unix::SignerSocket;
use opening_signer::remote::{Connect, Transport, serve};
use opening_signer::{Hsm, HsmSecret, LocalHsm, SigningPolicy};

use crate::{lock, logging, secret_file};

/// Signs for a node that runs in another process or on another machine.
#[derive(Debug, Parser)]
#[command(
    name = "hsmd",
    version,
    after_long_help = EXAMPLES,
    group(ArgGroup::new("way").required(true).multiple(true).args(["unix", "tls", "print_fingerprint"])),
)]
pub struct Options {
    /// The secret from which all keys follow: 32 bytes, as Core Lightning's hsm_secret, mode 0600.
    /// It is created at the first start.  Whoever has it has the money.
    #[arg(long, value_name = "FILE", required_unless_present = "print_fingerprint")]
    secret_file: Option<PathBuf>,
    /// bitcoin, testnet, signet or regtest.
    #[arg(long, default_value = "regtest")]
    network: Network,
    /// Check what is signed, and keep what was signed in this directory.
    #[arg(long, value_name = "DIR")]
    validating: Option<PathBuf>,
    /// Serve on this Unix socket, in a directory of mode 0700.
    #[arg(long, value_name = "PATH", conflicts_with = "tls")]
    unix: Option<PathBuf>,
    /// On the Unix socket speak the wire of Core Lightning's hsmd, instead of the enveloped one.
    #[arg(long, requires = "unix")]
    hsmd_wire: bool,
    /// Serve over TLS 1.3 at this address, or with --dial to the node there, whose host may be a name.
    #[arg(long, value_name = "IP:PORT", requires = "tls_key", requires = "peer")]
    tls: Option<String>,
    /// Our key for TLS, created at the first start.
    #[arg(long, value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// Print the fingerprint of --tls-key and exit.
    #[arg(long, requires = "tls_key")]
    print_fingerprint: bool,
    /// The fingerprint of the node's key: nobody else is served.
    #[arg(long, value_name = "FINGERPRINT", value_parser = fingerprint)]
    peer: Option<Fingerprint>,
    /// Dial the node instead of waiting for it.
    #[arg(long, requires = "tls")]
    dial: bool,
    /// What to log on stderr: off, error, warn, info, debug or trace.
    #[arg(long, default_value = "info", value_parser = logging::level)]
    log: log::LevelFilter,
}

const EXAMPLES: &str = "\
On one machine:
  hsmd --secret-file secret --unix run/signer.sock
  opening-node --hsm=unix:run/signer.sock

The same by the wire of Core Lightning's hsmd:
  hsmd --secret-file secret --unix run/signer.sock --hsmd-wire
  opening-node --hsm=hsmd:run/signer.sock

On two machines, after each side has told the other its fingerprint:
  hsmd --print-fingerprint --tls-key signer.key
  hsmd --print-fingerprint --tls-key node.key
  hsmd --secret-file secret --tls 0.0.0.0:7001 --tls-key signer.key --peer FINGERPRINT
  opening-node --hsm=tls:signer.example:7001 --hsm-key node.key --hsm-peer FINGERPRINT

The same with a signer that dials its node:
  opening-node --hsm=tls-listen:0.0.0.0:7001 --hsm-key node.key --hsm-peer FINGERPRINT
  hsmd --secret-file secret --tls node.example:7001 --dial --tls-key signer.key --peer FINGERPRINT";

/// Where the node is met.
#[derive(Clone, Copy)]
enum Address<'a> {
    Unix(&'a Path),
    Dial(&'a str),
    Listen(SocketAddr),
}

/// As it was asked for.
impl fmt::Display for Address<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "--unix={}", path.display()),
            Self::Dial(address) => write!(f, "--tls={address}"),
            Self::Listen(address) => write!(f, "--tls={address}"),
        }
    }
}

/// Where the node is met, open, before there is a secret.
enum Door {
    Enveloped(Transport),
    HsmdWire(SignerSocket),
}

impl Door {
    fn listening(socket: impl Connect) -> Self {
        Self::Enveloped(Transport::Listen(Box::new(socket)))
    }

    /// hsmd's wire tells the node its id.
    fn transport(self, secret: &HsmSecret) -> Transport {
        match self {
            Self::Enveloped(transport) => transport,
            Self::HsmdWire(socket) => {
                let node_id = secret.node_key().public_key(&Secp256k1::signing_only());
                Transport::Hsmd(socket, node_id)
            }
        }
    }
}

/// Why it does not serve.
#[derive(Debug)]
pub enum HsmdError {
    /// A file or a socket.
    Io(String, io::Error),
    /// Another process works with the directory.
    Locked(String),
    /// An option that means nothing.
    BadOption(String),
}

impl HsmdError {
    /// 2 for what was asked wrongly, 1 for what went wrong.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::BadOption(_) => 2,
            Self::Locked(_) | Self::Io(..) => 1,
        }
    }
}

impl fmt::Display for HsmdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(what, error) => write!(f, "{what}: {error} [io]"),
            Self::Locked(directory) => {
                write!(f, "another process works with {directory} [store-locked]")
            }
            Self::BadOption(why) => write!(f, "{why} [bad-options]"),
        }
    }
}

/// A line on stdout, which may be a full disk or a pipe that nobody reads.
fn say(line: &str) -> Result<(), HsmdError> {
    let mut stdout = io::stdout().lock();
    let said = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
    said.map_err(|error| HsmdError::Io("stdout".into(), error))
}

/// clap asks for it before.
fn missing(option: &str) -> HsmdError {
    HsmdError::BadOption(format!("{option} is missing"))
}

/// A fingerprint on a command line.
pub fn fingerprint(text: &str) -> Result<Fingerprint, String> {
    text.parse().map_err(|_| "not the 64 hex digits of a fingerprint".into())
}

/// Whether `text` names a host and a port that can be dialled; the host is not looked up.
pub fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    // Only an IPv6 address has more colons, and it stands in brackets.
    let is_host = !host.is_empty() && (!host.contains(':') || text.parse::<SocketAddr>().is_ok());
    is_host && port.parse::<u16>().is_ok_and(|port| port != 0)
}

/// Whether a Unix socket can have this path: the system takes about a hundred bytes.
pub fn is_socket_path(path: &Path) -> bool {
    !path.as_os_str().is_empty() && unix::net::SocketAddr::from_pathname(path).is_ok()
}

/// The key in the file that `option` names, or why there is none.
pub fn identity(option: &str, path: &Path) -> Result<Identity, HsmdError> {
    Identity::load_or_create(path)
        .map_err(|error| HsmdError::Io(format!("{option}={}", path.display()), error))
}

impl Options {
    /// Serves until `stop` is ready.
    pub async fn run(self, stop: impl Future<Output = ()> + Send) -> Result<(), HsmdError> {
        logging::to_stderr(self.log);
        if self.print_fingerprint {
            return self.print();
        }
        let address = self.address()?;
        let file = self.secret_file.as_deref().ok_or_else(|| missing("--secret-file"))?;
        // What fails here leaves no secret behind that nobody has asked for.
        let (door, where_to) = self.door(address).await?;
        let store = self.store()?;
        let secret = secret_file::read_or_create(file)
            .map_err(|error| HsmdError::Io(format!("--secret-file={}", file.display()), error))?;
        let secret = HsmSecret::new(secret);
        let hsm: Arc<dyn Hsm> = match store {
            None => Arc::new(LocalHsm::blind(&secret)),
            Some(store) => {
                let policy = SigningPolicy::for_network(self.network);
                Arc::new(LocalHsm::validating(&secret, policy, Arc::new(store)))
            }
        };
        let kind = if self.validating.is_some() { "validating" } else { "blind" };
        say(&format!("hsmd: {kind}, for {}, {where_to}", self.network))?;
        serve(hsm, self.network, door.transport(&secret), stop).await;
        Ok(())
    }

    /// Where a validating signer keeps what it signed.
    fn store(&self) -> Result<Option<FilesystemStore>, HsmdError> {
        let Some(directory) = &self.validating else { return Ok(None) };
        let failed = |error| HsmdError::Io(format!("--validating={}", directory.display()), error);
        std::fs::create_dir_all(directory).map_err(failed)?;
        // Two that sign for the same channels would each think itself the only one.
        if !lock::take(directory).map_err(failed)? {
            return Err(HsmdError::Locked(directory.display().to_string()));
        }
        Ok(Some(FilesystemStore::new(directory.clone())))
    }

    fn identity(&self) -> Result<Identity, HsmdError> {
        identity("--tls-key", self.tls_key.as_deref().ok_or_else(|| missing("--tls-key"))?)
    }

    fn print(&self) -> Result<(), HsmdError> {
        say(&self.identity()?.fingerprint().to_string())
    }

    /// Where nobody can ever be is refused here, before anything is made.
    fn address(&self) -> Result<Address<'_>, HsmdError> {
        let bad = |why| Err(HsmdError::BadOption(why));
        if let Some(path) = &self.unix {
            if !is_socket_path(path) {
                return bad(format!("--unix={} is no path that a socket can have", path.display()));
            }
            return Ok(Address::Unix(path));
        }
        let address = self.tls.as_deref().ok_or_else(|| missing("--unix or --tls"))?;
        match address.parse() {
            _ if self.dial && is_host_and_port(address) => Ok(Address::Dial(address)),
            _ if self.dial => bad(format!("--tls={address} is no host and port to dial")),
            Ok(address) => Ok(Address::Listen(address)),
            Err(_) => bad(format!("--tls={address} is no IP address and port to listen at")),
        }
    }

    /// Opens it, and says where for the one line on stdout.
    async fn door(&self, address: Address<'_>) -> Result<(Door, String), HsmdError> {
        let failed = |error| HsmdError::Io(address.to_string(), error);
        match address {
            Address::Unix(path) => {
                let (socket, shown) = (SignerSocket::bind(path).map_err(failed)?, path.display());
                if self.hsmd_wire {
                    return Ok((Door::HsmdWire(socket), format!("on {shown} by hsmd's wire")));
                }
                Ok((Door::listening(socket), format!("on {shown}")))
            }
            Address::Dial(node) => {
                let (identity, peer) = self.pins()?;
                let dialer = TlsDialer::new(&identity, peer, node).map_err(failed)?;
                let ours = identity.fingerprint();
                let where_to = format!("to the node at {node}, with the key {ours}");
                Ok((Door::Enveloped(Transport::Dial(Box::new(dialer))), where_to))
            }
            Address::Listen(at) => {
                let (identity, peer) = self.pins()?;
                let socket = TlsSocket::bind(&identity, peer, at).await.map_err(failed)?;
                let (at, ours) = (socket.local_addr().map_err(failed)?, identity.fingerprint());
                let where_to = format!("at {at}, with the key {ours}");
                Ok((Door::listening(socket), where_to))
            }
        }
    }

    /// Our key for TLS, and the only one that is served.
    fn pins(&self) -> Result<(Identity, Fingerprint), HsmdError> {
        Ok((self.identity()?, self.peer.ok_or_else(|| missing("--peer"))?))
    }
}
