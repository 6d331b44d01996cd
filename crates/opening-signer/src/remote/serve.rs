//! One door for serving: a signer behind either wire.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::Network;
use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::PublicKey;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::backoff::Backoff;
use super::envelope::{Connect, EnvelopeServer, Stream};
use super::hsmd::{HsmdIdentity, serve_hsmd};
use super::reasons::Reasons;
use super::unix::SignerSocket;
use crate::hsm::Hsm;

/// Connections that are served at once: a node has one, and for a moment the one before it.
const MOST_CONNECTIONS: usize = 16;

/// A connection that lasts so long was one.
const LASTING: Duration = Duration::from_secs(5);

/// How nodes reach a signer.
pub enum Transport {
    /// The enveloped wire, for nodes that dial: a [`SignerSocket`] or a
    /// [`TlsSocket`](super::tls::TlsSocket).
    Listen(Box<dyn Connect>),
    /// The enveloped wire, to a node that waits: a [`UnixDialer`](super::unix::UnixDialer) or a
    /// [`TlsDialer`](super::tls::TlsDialer).
    Dial(Box<dyn Connect>),
    /// hsmd's wire, for the node of this id.
    Hsmd(SignerSocket, PublicKey),
}

/// Serves `hsm` to the nodes of one chain, one connection after the other and a few at once, until
/// `stop` is ready.  What ends with a connection is logged; what is under way when it stops gets five
/// seconds on the enveloped wire, and is dropped on hsmd's.
///
/// Where no connection can be had (no descriptor is left, the node is not there), it tries again,
/// with pauses of 100 ms that double to 5 s.  Must be called within a tokio runtime with its clock.
///
/// ```no_run
/// # async fn run() -> std::io::Result<()> {
/// use std::path::Path;
/// use std::sync::Arc;
///
/// use bitcoin::Network;
/// use opening_signer::remote::unix::SignerSocket;
/// use opening_signer::remote::{Transport, serve};
/// use opening_signer::{HsmSecret, LocalHsm};
///
/// let hsm = Arc::new(LocalHsm::blind(&HsmSecret::new([7; 32])));
/// let socket = SignerSocket::bind(Path::new("/run/user/1000/signer/signer.sock"))?;
/// serve(hsm, Network::Bitcoin, Transport::Listen(Box::new(socket)), std::future::pending()).await;
/// # Ok(())
/// # }
/// ```
pub async fn serve(
    hsm: Arc<dyn Hsm>,
    network: Network,
    transport: Transport,
    stop: impl Future<Output = ()> + Send,
) {
    let (stopping, stopped) = watch::channel(());
    let mut connections = JoinSet::new();
    let chain_hash = ChainHash::using_genesis_block(network);
    tokio::select! {
        () = accept(hsm, chain_hash, transport, &mut connections, &stopped) => {}
        () = stop => {}
    }
    stopping.send_replace(());
    while connections.join_next().await.is_some() {}
}

async fn accept(
    hsm: Arc<dyn Hsm>,
    chain_hash: ChainHash,
    mut transport: Transport,
    connections: &mut JoinSet<()>,
    stopped: &watch::Receiver<()>,
) {
    let server = Arc::new(EnvelopeServer::new(hsm.clone(), chain_hash));
    let mut backoff = Backoff::new();
    let mut reasons = Reasons::default();
    loop {
        room(connections).await;
        let since = Instant::now();
        let failed = match &mut transport {
            Transport::Listen(socket) => match socket.connect().await {
                Ok(stream) => {
                    connections.spawn(talk(server.clone(), stream, stopped.clone()));
                    None
                }
                Err(error) => Some(error),
            },
            Transport::Dial(dialer) => match dialer.connect().await {
                Ok(stream) => {
                    connections.spawn(talk(server.clone(), stream, stopped.clone()));
                    connections.join_next().await;
                    // One that ended at once is as good as none.
                    (since.elapsed() < LASTING).then(|| io::Error::other("it hung up"))
                }
                Err(error) => Some(error),
            },
            Transport::Hsmd(socket, node_id) => {
                let identity = HsmdIdentity { node_id: *node_id, chain_hash };
                match socket.accept().await.and_then(UnixStream::into_std) {
                    Ok(stream) => {
                        let serving = serve_hsmd(hsm.clone(), identity, stream);
                        connections.spawn(until(stopped.clone(), serving));
                        None
                    }
                    Err(error) => Some(error),
                }
            }
        };
        match failed {
            None => {
                backoff.reset();
                reasons.reset();
            }
            Some(error) => {
                log::log!(reasons.level(&error.to_string()), "no connection to a node: {error}");
                sleep(backoff.next()).await;
            }
        }
    }
}

async fn until(mut stopped: watch::Receiver<()>, serving: impl Future<Output = io::Result<()>>) {
    tokio::select! {
        served = serving => match served {
            Ok(()) => log::info!("a node's connection ended"),
            Err(error) => log::warn!("closed a node's connection: {error}"),
        },
        _ = stopped.changed() => {}
    }
}

/// Waits until one more connection may be served.
async fn room(connections: &mut JoinSet<()>) {
    while connections.try_join_next().is_some() {}
    while connections.len() >= MOST_CONNECTIONS {
        connections.join_next().await;
    }
}

async fn talk(
    server: Arc<EnvelopeServer>,
    stream: Box<dyn Stream>,
    mut stopped: watch::Receiver<()>,
) {
    // What it ended with is in the log.
    let stop = async move { drop(stopped.changed().await) };
    let _ = server.serve(Box::into_pin(stream), stop).await;
}
