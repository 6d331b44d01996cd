//! Where opened channels are kept.

mod kv;
mod memory;
mod record;

use core::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use lightning::ln::types::ChannelId;

pub use self::kv::KvChannelStore;
pub use self::memory::MemoryStore;
use crate::negotiation::ready::Progress;
use crate::negotiation::{Opened, Saved};

/// Durable memory for channels.  Every method returns only when what it did survives a crash.
#[async_trait]
pub trait ChannelStore: Send + Sync + 'static {
    /// Keeps a channel, never in the place of another: a record that is there already is either
    /// the same, and made durable once more, or stays, and the save is refused.  Any other error
    /// means that the channel may or may not be kept.
    async fn save(&self, opened: &Opened) -> Result<(), StoreError>;

    /// Keeps what has become of a saved channel, in the place of what was kept of that before.
    async fn update(&self, opened: &Opened, progress: &Progress) -> Result<(), StoreError>;

    /// Forgets a channel, and what became of it.
    async fn remove(&self, channel_id: &ChannelId) -> Result<(), StoreError>;

    /// One channel, read back; `None` if it is not kept.
    async fn load(&self, channel_id: &ChannelId) -> Result<Option<Stored>, StoreError>;

    /// Every entry, and by itself what could not be read of each one that is damaged.
    async fn load_all(&self) -> Result<Vec<Entry>, StoreError>;

    /// Numbers for the signer's channel references, never given out before: references must not
    /// repeat, because a signer that signed for one refuses to begin it again.
    async fn reserve_dbids(&self, count: u64) -> Result<Range<u64>, StoreError>;
}

/// A channel as the store keeps it.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// What was saved when it was opened.
    pub opened: Opened,
    /// What has become of it since.
    pub progress: Progress,
}

/// One entry of the store.
#[derive(Debug)]
pub struct Entry {
    /// Its name, which is the channel's id in hex where nothing is wrong with it.
    pub key: String,
    /// What it holds.
    pub stored: Result<Stored, StoreError>,
}

impl Entry {
    /// The channel that the entry is about, even if it cannot be read.
    pub fn channel_id(&self) -> Option<ChannelId> {
        let bytes: Vec<u8> = hex::decode(&self.key).ok()?;
        Some(ChannelId(bytes.try_into().ok()?))
    }
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

/// Saves a channel and gives the proof that releases what its [`crate::negotiation::Held`] holds.
/// An error other than `Occupied` leaves it unknown whether the channel is kept.
pub async fn save(store: &dyn ChannelStore, opened: &Opened) -> Result<Saved, StoreError> {
    store.save(opened).await?;
    Ok(Saved::new(opened.channel_id))
}
