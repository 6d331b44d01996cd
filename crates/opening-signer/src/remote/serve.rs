//! One door for serving: a signer behind either wire.

use std::io;
use std::sync::Arc;

use bitcoin::Network;
use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::PublicKey;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::backoff::Backoff;
use super::envelope::{Connect, EnvelopeServer, Stream};
use super::hsmd::{HsmdIdentity, serve_hsmd};
use super::unix::SignerSocket;
use crate::hsm::Hsm;

/// Connections that are served at once: a node has one, and for a moment the one before it.
const MOST_CONNECTIONS: usize = 16;

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
/// Fails where nothing can be accepted any more.  Must be called within a tokio runtime with its
/// clock.
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
/// serve(hsm, Network::Bitcoin, Transport::Listen(Box::new(socket)), std::future::pending()).await
/// # }
/// ```
pub async fn serve(
    hsm: Arc<dyn Hsm>,
    network: Network,
    transport: Transport,
    stop: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let (stopping, stopped) = watch::channel(());
    let mut connections = JoinSet::new();
    let chain_hash = ChainHash::using_genesis_block(network);
    let ended = tokio::select! {
        ended = accept(hsm, chain_hash, transport, &mut connections, &stopped) => ended,
        () = stop => Ok(()),
    };
    stopping.send_replace(());
    while connections.join_next().await.is_some() {}
    ended
}

async fn accept(
    hsm: Arc<dyn Hsm>,
    chain_hash: ChainHash,
    transport: Transport,
    connections: &mut JoinSet<()>,
    stopped: &watch::Receiver<()>,
) -> io::Result<()> {
    let server = Arc::new(EnvelopeServer::new(hsm.clone(), chain_hash));
    match transport {
        Transport::Listen(mut socket) => loop {
            let stream = socket.connect().await?;
            room(connections).await;
            connections.spawn(talk(server.clone(), stream, stopped.clone()));
        },
        Transport::Dial(mut dialer) => {
            let mut backoff = Backoff::new();
            loop {
                match dialer.connect().await {
                    Ok(stream) => {
                        backoff.reset();
                        connections.spawn(talk(server.clone(), stream, stopped.clone()));
                        connections.join_next().await;
                    }
                    Err(error) => log::warn!("cannot reach the node: {error}"),
                }
                sleep(backoff.next()).await;
            }
        }
        Transport::Hsmd(socket, node_id) => loop {
            let stream = socket.accept().await?.into_std()?;
            room(connections).await;
            let serving = serve_hsmd(hsm.clone(), HsmdIdentity { node_id, chain_hash }, stream);
            let mut stopped = stopped.clone();
            connections.spawn(async move {
                tokio::select! {
                    served = serving => match served {
                        Ok(()) => log::info!("a node's connection ended"),
                        Err(error) => log::warn!("closed a node's connection: {error}"),
                    },
                    _ = stopped.changed() => {}
                }
            });
        },
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
