//! One connection with one peer, carrying any number of negotiations.
//!
//! [`Session::start`] exchanges `init` and leaves a task behind that owns the transport: it
//! routes what the peer sends, writes what anyone here has to say, and keeps every pending inbound
//! opening as plain state.  A [`Session`] is the node's handle on it.

mod batch;
mod channels;
mod downgrade;
mod early;
mod inbound;
mod init;
mod opening;
mod ours;
mod parts;
mod shutdown;
mod task;
mod theirs;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::ScriptBuf;
use bitcoin::secp256k1::PublicKey;
use lightning::ln::types::ChannelId;
use opening_core::NegotiatedFeatures;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

pub use batch::{Batch, BatchFailed, CompleteBatchError, PendingBatch};
pub use downgrade::open_downgrading;
pub use init::{InitError, default_features};
pub(crate) use opening::FundingOffer;
pub use opening::{
    Canceller, CompleteError, FundingNeeded, Opening, PendingFunding, PendingSignature,
};
pub use parts::{Negotiations, Parts, PartsError, ResumeError};
pub use shutdown::ShutdownError;
pub(crate) use task::{OurReport, Report};

use crate::event::Failed;
use crate::message::{Message, Undecodable, decode, encode};
use crate::negotiation::funder::Ask;
use crate::openings::{ConfirmError, Life, Link, Openings, Under};
use crate::transport::{MAX_MESSAGE_LENGTH, Transport, TransportError};
use task::Task;
use wire::{Lent, NodeSend, node_sends};

/// Names one opening within its session, in either direction, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key(u64);

impl Key {
    /// Before all others.
    const FIRST: Self = Self(0);
}

/// What handles ask of their session's task.
#[derive(Debug)]
pub(crate) enum Command {
    Open {
        ask: Ask,
        begun: oneshot::Sender<Result<Opening, Failed>>,
        /// For the handle to cancel with; the task itself must not keep its own queue alive.
        commands: mpsc::UnboundedSender<Command>,
    },
    Cancel {
        key: Key,
        done: Option<oneshot::Sender<bool>>,
    },
    /// The node ends the connection.
    Close,
    /// The peer has connected anew.
    Replaced,
    /// There is news about an opened channel: do what is due.
    Advance {
        channel_id: ChannelId,
        done: Done,
    },
    /// Our `channel_ready` of the channel has changed.
    SayAgain {
        channel_id: ChannelId,
    },
    /// An opened channel was saved on an earlier connection, after this one had begun.
    TakeUp {
        channel_id: ChannelId,
    },
    /// An opened channel has failed, and the peer is to hear of it.
    Fail {
        channel_id: ChannelId,
        text: String,
    },
    /// An opened channel is not this library's any more.
    Forget {
        channel_id: ChannelId,
    },
    ShutDown {
        channel_id: ChannelId,
        script: Option<ScriptBuf>,
        done: oneshot::Sender<Result<ScriptBuf, ShutdownError>>,
    },
    Status {
        done: oneshot::Sender<Vec<Under>>,
    },
    /// The node wants the transport for itself, for a while or for good.
    Lend {
        done: oneshot::Sender<Result<Lent, PartsError>>,
    },
    /// The node keeps the transport: everything that is not being saved ends, and the session.
    CancelAll,
}

pub(crate) type Done = oneshot::Sender<Result<(), ConfirmError>>;

/// A connected peer.  Clones are handles on the same connection; it ends when the last one, and
/// the last handle of its openings, is dropped.  A new connection of the same peer ends this one.
#[must_use = "the connection ends with its last handle"]
#[derive(Clone, Debug)]
pub struct Session {
    peer: PublicKey,
    features: Arc<NegotiatedFeatures>,
    commands: mpsc::UnboundedSender<Command>,
    sends: mpsc::Sender<NodeSend>,
    life: watch::Receiver<Life>,
}

/// How a connection begins.
#[derive(Clone, Debug, Default)]
pub struct Greeting {
    /// Where an incoming connection came from, so that the peer may learn its own address.
    pub peer_address: Option<SocketAddr>,
    /// A message of the node's, type first, that goes out before anything but `init`.  If it is an
    /// `error` about all channels, it is the last one too: the connection is closed behind it.
    pub first_message: Option<Vec<u8>>,
}

impl Greeting {
    /// Of a connection that came from there.
    pub fn to(peer_address: SocketAddr) -> Self {
        Self { peer_address: Some(peer_address), first_message: None }
    }
}

/// Why a session did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The connection failed.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The peer closed the connection before its `init`.
    #[error("the peer closed the connection before its init")]
    Closed,
    /// The peer sent no `init` in time.
    #[error("the peer sent no init within {0:?}")]
    Silent(Duration),
    /// The peer's first message is not `init` (B1-INIT-R-01, B2-EST-B-01).
    #[error("the peer's first message is not init")]
    NotInit,
    /// The peer's first message cannot be read.
    #[error(transparent)]
    Undecodable(#[from] Undecodable),
    /// The peer's `init` does not go with ours.
    #[error(transparent)]
    Init(#[from] InitError),
    /// The node is going down.
    #[error("this node is going down")]
    ShuttingDown,
}

impl StartError {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Transport(error) => error.code(),
            Self::Closed => "init-connection-closed",
            Self::Silent(_) => "init-silent",
            Self::NotInit => "init-missing",
            Self::Undecodable(error) => error.code(),
            Self::Init(error) => error.code(),
            Self::ShuttingDown => "shutting-down",
        }
    }
}

impl Session {
    /// Exchanges `init` over `transport` and takes it over.
    ///
    /// Our `init` goes out at once; nothing else does before the peer's is here (B1-INIT-S-01,
    /// B1-INIT-R-01).  A first message that is too long for any transport fails before that.
    pub async fn start(
        openings: Arc<Openings>,
        peer: PublicKey,
        transport: Transport,
        greeting: Greeting,
    ) -> Result<Self, StartError> {
        if openings.is_stopping() {
            return Err(StartError::ShuttingDown);
        }
        let (mut reader, mut writer) = transport.split();
        let node = &openings.node;
        let Greeting { peer_address, first_message } = greeting;
        first_message.as_deref().map_or(Ok(()), fits)?;
        writer.queue(&encode(&init::ours(&node.features, node.network, peer_address)))?;
        let deadline = node.deadlines.peer;
        let exchange = async { tokio::try_join!(writer.flush(), reader.read()) };
        let exchanged = timeout(deadline, exchange).await;
        let ((), bytes) = exchanged.map_err(|_| StartError::Silent(deadline))??;
        let Message::Init(theirs) = decode(&bytes.ok_or(StartError::Closed)?)? else {
            return Err(StartError::NotInit);
        };
        let features = init::judge(&node.features, openings.chain_hash(), theirs)?;
        if openings.is_stopping() {
            return Err(StartError::ShuttingDown);
        }
        let transport = Transport { reader, writer };
        Ok(Self::begin(openings, peer, features, transport, first_message))
    }

    /// Takes over a connection on which the node has exchanged both `init` already: `features` are
    /// theirs and ours.
    pub fn adopt(
        openings: Arc<Openings>,
        peer: PublicKey,
        features: NegotiatedFeatures,
        transport: Transport,
    ) -> Self {
        Self::begin(openings, peer, features, transport, None)
    }

    fn begin(
        openings: Arc<Openings>,
        peer: PublicKey,
        features: NegotiatedFeatures,
        transport: Transport,
        first_message: Option<Vec<u8>>,
    ) -> Self {
        let features = Arc::new(features);
        let (commands, requests) = mpsc::unbounded_channel();
        let (sends, to_send) = node_sends();
        let (living, life) = watch::channel(Life::Waiting);
        let link = Link { commands: commands.downgrade(), life: life.clone() };
        let old = openings.connected(peer, link);
        if let Some(old) = &old {
            // Now: the node may drop its handle on the old one as soon as it has this one.
            old.replace();
        }
        let requests = (requests, to_send);
        let task = Task::new(openings, peer, features.clone(), transport, requests, living);
        tokio::spawn(async move {
            if let Some(old) = old {
                old.ended().await;
            }
            task.run(first_message).await;
        });
        Self { peer, features, commands, sends, life }
    }

    /// The peer's node id.
    pub fn peer(&self) -> PublicKey {
        self.peer
    }

    /// The features of both `init` messages.
    pub fn features(&self) -> &NegotiatedFeatures {
        &self.features
    }

    /// Begins an opening; returns when `open_channel` has been sent.
    pub async fn open(&self, ask: Ask) -> Result<Opening, Failed> {
        let (begun, answer) = oneshot::channel();
        let gone = || Err(Failed::session_gone(ChannelId([0; 32])));
        let commands = self.commands.clone();
        if self.commands.send(Command::Open { ask, begun, commands }).is_err() {
            return gone();
        }
        answer.await.unwrap_or_else(|_| gone())
    }

    /// Begins to close an opened channel, before or after `channel_ready`: `shutdown` goes out with
    /// this script, or with the one that we committed to when the channel was opened
    /// (B2-SHUT-S-02, B2-SHUT-S-04).  What follows is the node's.  Asked again, it tells the script
    /// that was sent, and sends nothing (B2-SHUT-S-03).
    pub async fn shut_down(
        &self,
        channel_id: ChannelId,
        script: Option<ScriptBuf>,
    ) -> Result<ScriptBuf, ShutdownError> {
        let (done, answer) = oneshot::channel();
        let gone = Err(ShutdownError::Disconnected);
        if self.commands.send(Command::ShutDown { channel_id, script, done }).is_err() {
            return gone;
        }
        answer.await.unwrap_or(gone)
    }

    /// Sends a message of the node's own, type first: gossip, a custom one, or one for a channel
    /// that the node owns.  Returns when it is queued, for which it waits until there is room
    /// beside our own messages, in turn with whoever else sends.  Dropped before that, the message
    /// may be sent or not.
    pub async fn send(&self, message: Vec<u8>) -> Result<(), SendError> {
        fits(&message)?;
        let (done, answer) = oneshot::channel();
        self.sends.send((message, done)).await.map_err(|_| SendError::Disconnected)?;
        answer.await.map_err(|_| SendError::Disconnected)?.map_err(SendError::Transport)
    }

    /// Ends the connection and every opening on it that is not yet being saved; returns when the
    /// peer has been told what there was to tell, and what was being saved is.
    pub async fn close(&mut self) {
        // A task that is gone has closed it.
        let _ = self.commands.send(Command::Close);
        self.closed().await;
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        *self.life.borrow() == Life::Closed
    }

    /// Waits until the connection has ended.
    pub async fn closed(&mut self) {
        // An error means that the task is gone, which is the same.
        let _ = self.life.wait_for(|life| *life == Life::Closed).await;
    }
}

/// Whether any transport takes the message.
fn fits(message: &[u8]) -> Result<(), TransportError> {
    match message.len() {
        ..=MAX_MESSAGE_LENGTH => Ok(()),
        length => Err(TransportError::MessageTooLong { length }),
    }
}

/// Why a message of the node was not sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The transport does not take it.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The connection ended.
    #[error("the connection ended")]
    Disconnected,
}
