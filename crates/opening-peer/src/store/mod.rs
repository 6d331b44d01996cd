//! Where opened channels are kept.

mod kv;
mod memory;
mod record;

use core::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lightning::ln::types::ChannelId;

pub use self::kv::KvChannelStore;
pub use self::memory::MemoryStore;
use crate::negotiation::{Opened, Saved};

/// Durable memory for channels.  Every method returns only when what it did survives a crash.
#[async_trait]
pub trait ChannelStore: Send + Sync + 'static {
    /// Keeps a channel, never in the place of another: a record that is there already is either
    /// the same or stays, and the save is refused.  Any other error means that the channel may or
    /// may not be kept.
    async fn save(&self, opened: &Opened) -> Result<(), StoreError>;

    /// Forgets a channel.
    async fn remove(&self, channel_id: &ChannelId) -> Result<(), StoreError>;

    /// Every channel kept, and by itself what could not be read of each entry that is damaged.
    async fn load_all(&self) -> Result<Vec<Result<Opened, StoreError>>, StoreError>;

    /// Numbers for the signer's channel references, never given out before: references must not
    /// repeat, because a signer that signed for one refuses to begin it again.
    async fn reserve_dbids(&self, count: u64) -> Result<Range<u64>, StoreError>;
}

/// Why the store did not do its part.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The medium failed.
    #[error("{operation} failed")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// What the medium said.
        source: lightning::io::Error,
    },
    /// No answer in time: the channel may or may not be kept.
    #[error("no answer within {0:?}")]
    Silent(Duration),
    /// The store panicked, or the program is ending: what it was asked may or may not be done.
    #[error("it was interrupted")]
    Interrupted,
    /// An entry that is not what was written.
    #[error("entry {key} is damaged: {defect}")]
    Damaged {
        /// Which entry.
        key: String,
        /// What is wrong with it.
        defect: String,
    },
    /// An entry written by a version that this one does not know.
    #[error("entry {key} has version {version}, this program knows up to {known}")]
    UnknownVersion {
        /// Which entry.
        key: String,
        /// Its version.
        version: u8,
        /// The newest known one.
        known: u8,
    },
    /// The store's directory cannot be used.
    #[error("cannot use {path}")]
    Directory {
        /// Which.
        path: String,
        /// What the file system said.
        source: std::io::Error,
    },
    /// Another channel is kept under this id.
    #[error("entry {key} keeps another channel")]
    Occupied {
        /// Which entry.
        key: String,
    },
    /// No number is left for channel references.
    #[error("all channel references are used up")]
    Exhausted,
}

impl StoreError {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "store-io",
            Self::Silent(_) => "store-silent",
            Self::Interrupted => "store-interrupted",
            Self::Damaged { .. } => "store-damaged",
            Self::UnknownVersion { .. } => "store-unknown-version",
            Self::Directory { .. } => "store-directory",
            Self::Occupied { .. } => "store-occupied",
            Self::Exhausted => "store-exhausted",
        }
    }
}

/// Saves a channel and gives the proof that releases what its [`crate::negotiation::Held`] holds;
/// an error leaves it unknown whether the channel is kept.
// A task of its own: a save that is late, or whose opening nobody waits for any more, still runs
// to its end.
pub async fn save(
    store: Arc<dyn ChannelStore>,
    opened: Arc<Opened>,
    deadline: Duration,
) -> Result<Saved, StoreError> {
    let channel_id = opened.channel_id;
    let saving = tokio::spawn(async move { store.save(&opened).await });
    match tokio::time::timeout(deadline, saving).await {
        Ok(Ok(saved)) => saved.map(|()| Saved::new(channel_id)),
        Ok(Err(_)) => Err(StoreError::Interrupted),
        Err(_) => Err(StoreError::Silent(deadline)),
    }
}
