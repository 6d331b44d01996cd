//! A funder whose signer is elsewhere, and a fundee.

use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bitcoin::Network;
use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::PublicKey;
use opening_core::ChannelType;
use opening_peer::transport::{self, in_memory_pair};
use opening_peer::{Deadlines, Greeting, Node, Session};
use opening_signer::remote::{
    Connect, EnvelopeOptions, EnvelopedHsm, HsmdConfig, HsmdHsm, HsmdIdentity, Stream, Transport,
    serve, serve_hsmd,
};
use opening_signer::{Hsm, HsmSecret};
use tokio::net::UnixStream;
use tokio::task::JoinSet;

use super::away::away;
use crate::node::{Opened, Signer, node, node_id, start};
use crate::pair::open;

/// Longer than anything here: how long things take is what is measured.
const PATIENCE: Duration = Duration::from_secs(600);

/// How node and signer talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    Enveloped,
    Hsmd,
}

impl Wire {
    pub(super) const ALL: [Self; 2] = [Self::Enveloped, Self::Hsmd];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Enveloped => "enveloped",
            Self::Hsmd => "hsmd's",
        }
    }

    /// A blind signer so far away.
    async fn connect(self, secret: &HsmSecret, round_trip: Duration) -> io::Result<Arc<dyn Hsm>> {
        let local = Signer::Blind.local(secret);
        let (near, far) = StdUnixStream::pair()?;
        Ok(match self {
            Self::Enveloped => {
                let socket = Box::new(One(Some(far)));
                let serving = Transport::Listen(socket);
                tokio::spawn(serve(local, Network::Regtest, serving, std::future::pending()));
                let options = EnvelopeOptions {
                    deadline: PATIENCE,
                    ..EnvelopeOptions::new(ChainHash::REGTEST)
                };
                let dialer = One(Some(away(near, round_trip)?));
                let connected = EnvelopedHsm::connect(dialer, options).await;
                Arc::new(connected.map_err(io::Error::other)?)
            }
            Self::Hsmd => {
                let node_id = node_id(secret);
                let identity = HsmdIdentity { node_id, chain_hash: ChainHash::REGTEST };
                tokio::spawn(async move {
                    let served = serve_hsmd(local, identity, far).await;
                    served.expect("the node speaks hsmd's wire");
                });
                let config = HsmdConfig { deadline: PATIENCE, ..HsmdConfig::new(Network::Regtest) };
                let connected = HsmdHsm::over(away(near, round_trip)?, config).await;
                Arc::new(connected.map_err(io::Error::other)?)
            }
        })
    }
}

/// One connection, and no other after it.
struct One(Option<StdUnixStream>);

#[async_trait]
impl Connect for One {
    async fn connect(&mut self) -> io::Result<Box<dyn Stream>> {
        match self.0.take() {
            Some(stream) => {
                stream.set_nonblocking(true)?;
                Ok(Box::new(UnixStream::from_std(stream)?))
            }
            None => std::future::pending().await,
        }
    }
}

/// Two connected nodes.
pub(super) struct Nodes {
    funder: Session,
    _fundee: Session,
    count: u64,
}

impl Nodes {
    /// The funder's signer is behind this wire and so far away, the fundee's is its own.
    pub(super) async fn connect(wire: Wire, round_trip: Duration) -> Self {
        let [near, far] = [1, 2].map(|byte| HsmSecret::new([byte; 32]));
        let hsm = wire.connect(&near, round_trip).await.expect("both ends are here");
        let (left, right) = in_memory_pair();
        let (funder, fundee) = tokio::join!(
            connect(hsm, node_id(&far), left),
            connect(Signer::Blind.local(&far), node_id(&near), right),
        );
        Self { funder, _fundee: fundee, count: 0 }
    }

    /// So many openings, begun together: how long all took, and each.
    pub(super) async fn open(&mut self, at_once: u32) -> (Duration, Vec<Duration>) {
        let since = Instant::now();
        let mut openings = JoinSet::new();
        for _ in 0..at_once {
            self.count += 1;
            let (session, number) = (self.funder.clone(), self.count);
            openings.spawn(async move {
                open(session, ChannelType::ANCHORS, number).await;
                since.elapsed()
            });
        }
        let each = openings.join_all().await;
        (since.elapsed(), each)
    }
}

async fn connect(hsm: Arc<dyn Hsm>, peer: PublicKey, transport: transport::Transport) -> Session {
    let made = node(hsm, Opened::counted().0);
    let deadlines = Deadlines { signer: PATIENCE, peer: PATIENCE, ..made.deadlines };
    let openings = start(Node { deadlines, ..made }).await;
    let session = Session::start(openings, peer, transport, Greeting::default()).await;
    session.expect("two of our own nodes understand each other")
}
