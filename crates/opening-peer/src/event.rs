//! What is happening, for logs, dashboards and the node's own logic.

use core::fmt;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::Txid;
use lightning::ln::types::ChannelId;
use opening_core::Role;

use crate::failure::{Failure, Stage};
use crate::negotiation::Opened;
use crate::negotiation::ready::{EvidenceError, Exit, Ready};
use crate::negotiation::reestablish::ReestablishError;

/// Something that happened with one peer.  `Display` is the operator's line.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// Both `init` messages passed.
    Connected,
    /// The connection ended; every opening not yet saved ended with it.
    Disconnected {
        /// Why, for the operator.
        reason: String,
    },
    /// An opening entered a stage.
    Progress {
        /// Our part.
        role: Role,
        /// The id by which it began.
        temporary_channel_id: ChannelId,
        /// The channel's id, once the funding outpoint is known.
        channel_id: Option<ChannelId>,
        /// What is awaited now.
        stage: Stage,
    },
    /// Terminal: the opening ended without a channel.
    Failed(Failed),
    /// The channel is saved.  As fundee, `funding_signed` is on its way, unless the connection
    /// ended during the save.
    Opened(Arc<Opened>),
    /// The store has not answered for this long whether an agreed channel is saved.  Until it
    /// does, nothing leaves and nothing is given up: the wallet keeps the inputs reserved.
    SaveOverdue {
        /// The channel.
        channel_id: ChannelId,
        /// How long the store has had.
        after: Duration,
    },
    /// A funding transaction of ours has not confirmed for this many blocks: it may take a higher
    /// fee, without a change of its txid (B2-FC-S-07).
    StillUnconfirmed {
        /// The channel.
        opened: Arc<Opened>,
        /// Blocks since it was opened.
        blocks: u32,
    },
    /// Terminal: both `channel_ready` passed; the channel is the node's, which
    /// [releases](crate::Openings::release) it when it has it in its own keeping.
    Ready(Box<Ready>),
    /// A public channel in use is deep enough to be announced: `announcement_signatures` may go
    /// out (B7-ANN-B-01).
    Announceable(Box<Ready>),
    /// Terminal: an opened channel ended before it was the node's.
    Ended(Ended),
    /// We sent `error`.
    ErrorSent {
        /// The channel it names.
        channel_id: ChannelId,
        /// Its text.
        text: String,
    },
    /// We sent `warning`, where an `error` would have failed more than it is about.
    WarningSent {
        /// The channel it names; zero for none in particular.
        channel_id: ChannelId,
        /// Its text.
        text: String,
    },
    /// The peer sent `error`.
    ErrorReceived {
        /// The channel it names; zero for all.
        channel_id: ChannelId,
        /// Its text, made printable (B1-ERR-R-06).
        text: String,
    },
    /// The peer sent `warning` (B1-ERR-R-03).
    WarningReceived {
        /// The channel it names; zero for none in particular.
        channel_id: ChannelId,
        /// Its text, made printable.
        text: String,
    },
}

/// An opened channel that ended before it was the node's.  `Display` is the operator's line.
///
/// Told once; and once more where the peer proves after that that our state is old: then nothing may
/// be broadcast ([`Exit::AwaitPeer`]), whatever was to be done before.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The channel.
    pub opened: Arc<Opened>,
    /// Why.
    pub end: End,
    /// What the node has to do.
    pub exit: Exit,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { opened, end, .. } = self;
        let id = opened.channel_id;
        write!(f, "{} {id} ended: {end} [{}]", opened.role().as_str(), end.code())
    }
}

/// Why an opened channel ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum End {
    /// The peer sent `error`.
    #[error("the peer failed it: {0}")]
    PeerError(String),
    /// The node failed it.
    #[error("this node failed it: {0}")]
    NodeError(String),
    /// The funding transaction does not pay the channel (B2-CR-S-01).
    #[error("{0}")]
    WrongFunding(EvidenceError),
    /// The funding output is spent (B5-MON-B-02).
    #[error("transaction {txid} spends the funding output")]
    Spent {
        /// The transaction.
        txid: Txid,
        /// Whose it is.
        spender: Spender,
    },
    /// What the peer remembers does not go with what we do.
    #[error("the peer's channel_reestablish: {0}")]
    Reestablish(ReestablishError),
    /// As fundee: the funding has not confirmed in time (B2-CR-S-13).
    #[error("not confirmed within {blocks} blocks")]
    Forgotten {
        /// Blocks since it was opened.
        blocks: u32,
    },
    /// As funder: the node gave the permit back.
    #[error("abandoned: the funding transaction was never broadcast")]
    NeverBroadcast,
    /// As funder: another transaction has spent an input of the funding transaction.
    #[error("abandoned: transaction {txid} spends its inputs")]
    DoubleSpent {
        /// The transaction.
        txid: Txid,
    },
}

/// Whose transaction spends a funding output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spender {
    /// Our first commitment.
    LocalCommitment,
    /// The peer's first commitment (B2-RE-B-11).
    RemoteCommitment,
    /// Neither: a mutual close, or something that this library does not know.
    Other,
}

impl End {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::PeerError(_) => "peer-error",
            Self::NodeError(_) => "node-error",
            Self::WrongFunding(error) => error.code(),
            Self::Spent { .. } => "funding-spent",
            Self::Reestablish(error) => error.code(),
            Self::Forgotten { .. } => "funding-unconfirmed",
            Self::NeverBroadcast => "never-broadcast",
            Self::DoubleSpent { .. } => "funding-double-spent",
        }
    }

    /// What the peer is told now; `None` where it was the peer who ended it.
    pub(crate) fn reply(&self) -> Option<String> {
        match self {
            Self::PeerError(_) => None,
            _ => Some(self.told()),
        }
    }

    /// What the peer is told when it comes back (B2-RE-B-07).
    pub(crate) fn told(&self) -> String {
        match self {
            Self::PeerError(_) => "the channel has failed".into(),
            Self::NodeError(text) => text.clone(),
            Self::WrongFunding(error) => error.to_string(),
            Self::Spent { .. } => "the funding output is spent".into(),
            Self::Reestablish(error) => error.to_string(),
            Self::Forgotten { .. } => "the funding transaction has not confirmed in time".into(),
            Self::NeverBroadcast | Self::DoubleSpent { .. } => {
                "the funding transaction will not confirm".into()
            }
        }
    }
}

/// An opening that ended without a channel.  `Display` is the operator's line.
#[derive(Clone, Debug)]
pub struct Failed {
    /// Our part.
    pub role: Role,
    /// The id by which it began.
    pub temporary_channel_id: ChannelId,
    /// The channel's id, where the funding outpoint was known already.
    pub channel_id: Option<ChannelId>,
    /// Where it stood.
    pub stage: Stage,
    /// Why.
    pub failure: Arc<Failure>,
}

impl Failed {
    /// What a handle says when its session is gone without a word: the runtime is going down.
    pub(crate) fn session_gone(temporary_channel_id: ChannelId) -> Self {
        Self {
            role: Role::Funder,
            temporary_channel_id,
            channel_id: None,
            stage: Stage::Keys,
            failure: Arc::new(Failure::Disconnected),
        }
    }
}

// `Display` tells the causes already.
impl std::error::Error for Failed {}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { role, temporary_channel_id, stage, failure, .. } = self;
        write!(f, "{} {temporary_channel_id} failed: {failure}", role.as_str())?;
        let mut source = std::error::Error::source(&**failure);
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        write!(f, " ({stage}) [{}]", failure.code())
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected => f.write_str("connected"),
            Self::Disconnected { reason } => write!(f, "disconnected: {reason}"),
            Self::Progress { role, temporary_channel_id, channel_id, stage } => {
                let id = channel_id.unwrap_or(*temporary_channel_id);
                write!(f, "{} {id}: {stage}", role.as_str())
            }
            Self::Failed(failed) => write!(f, "{failed}"),
            Self::Opened(opened) => {
                write!(f, "{} {} opened", opened.role().as_str(), opened.channel_id)
            }
            Self::SaveOverdue { channel_id, after } => {
                write!(f, "{channel_id}: the store has not answered for {after:?} [store-silent]")
            }
            Self::StillUnconfirmed { opened, blocks } => {
                write!(f, "{} not confirmed for {blocks} blocks", opened.channel_id)
            }
            Self::Ready(ready) => write!(f, "{} ready", ready.opened.channel_id),
            Self::Announceable(ready) => {
                write!(f, "{} may be announced", ready.opened.channel_id)
            }
            Self::Ended(ended) => write!(f, "{ended}"),
            Self::ErrorSent { channel_id, text } => write!(f, "sent error {channel_id}: {text}"),
            Self::WarningSent { channel_id, text } => {
                write!(f, "sent warning {channel_id}: {text}")
            }
            Self::ErrorReceived { channel_id, text } => {
                write!(f, "received error {channel_id}: {text}")
            }
            Self::WarningReceived { channel_id, text } => {
                write!(f, "received warning {channel_id}: {text}")
            }
        }
    }
}
