//! What is happening, for logs, dashboards and the node's own logic.

use core::fmt;
use std::sync::Arc;

use lightning::ln::types::ChannelId;
use opening_core::Role;

use crate::failure::{Failure, Stage};
use crate::negotiation::Opened;
use crate::negotiation::ready::Ready;

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
    /// Terminal: both `channel_ready` passed; the channel is the node's.
    Ready(Box<Ready>),
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
            Self::Ready(ready) => write!(f, "{} ready", ready.opened.channel_id),
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
