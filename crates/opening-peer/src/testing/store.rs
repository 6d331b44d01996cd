//! A store that goes wrong.

use core::ops::Range;

use async_trait::async_trait;
use lightning::io;
use lightning::ln::types::ChannelId;

use super::Faults;
use crate::negotiation::Opened;
use crate::negotiation::ready::Progress;
use crate::store::{ChannelStore, Entry, StoreError, Stored};

/// Another store, whose calls go wrong by the names of their methods.
#[derive(Debug)]
pub struct FaultyStore<S> {
    inner: S,
    faults: Faults,
}

impl<S> FaultyStore<S> {
    /// `inner`, with these faults.
    pub fn new(inner: S, faults: Faults) -> Self {
        Self { inner, faults }
    }
}

fn failure() -> StoreError {
    let source = io::Error::new(io::ErrorKind::Other, "on purpose");
    StoreError::Io { operation: "a faulty call", source }
}

#[async_trait]
impl<S: ChannelStore> ChannelStore for FaultyStore<S> {
    async fn save(&self, opened: &Opened) -> Result<(), StoreError> {
        self.faults.around("save", self.inner.save(opened), failure).await
    }

    async fn update(&self, opened: &Opened, progress: &Progress) -> Result<(), StoreError> {
        self.faults.around("update", self.inner.update(opened, progress), failure).await
    }

    async fn remove(&self, channel_id: &ChannelId) -> Result<(), StoreError> {
        self.faults.around("remove", self.inner.remove(channel_id), failure).await
    }

    async fn load(&self, channel_id: &ChannelId) -> Result<Option<Stored>, StoreError> {
        self.faults.around("load", self.inner.load(channel_id), failure).await
    }

    async fn load_all(&self) -> Result<Vec<Entry>, StoreError> {
        self.faults.around("load_all", self.inner.load_all(), failure).await
    }

    async fn reserve_dbids(&self, count: u64) -> Result<Range<u64>, StoreError> {
        self.faults.around("reserve_dbids", self.inner.reserve_dbids(count), failure).await
    }
}
