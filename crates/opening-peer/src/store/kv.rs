//! Channels in any of LDK's key-value stores: a directory, a database, a storage service.

use core::ops::Range;
use std::path::Path;

use async_trait::async_trait;
use lightning::io;
use lightning::ln::types::ChannelId;
use lightning::util::persist::KVStore;
use lightning_persister::fs_store::FilesystemStore;
use tokio::sync::Mutex;

use super::{ChannelStore, Entry, StoreError, Stored, record};
use crate::negotiation::Opened;
use crate::negotiation::ready::Progress;

const NAMESPACE: &str = "opening";
const CHANNELS: &str = "channels";
const PROGRESS: &str = "progress";
const DBID: &str = "dbid";
const RESERVED: &str = "reserved";

/// Keeps each channel as one entry of a key-value store, which must be durable when its `write`
/// returns.
#[derive(Debug)]
pub struct KvChannelStore<K> {
    store: K,
    /// References are reserved by read, then write: one at a time.
    reserving: Mutex<()>,
}

impl KvChannelStore<FilesystemStore> {
    /// In files below `directory`, which is created if it is not there.
    pub fn in_directory(directory: &Path) -> Result<Self, StoreError> {
        std::fs::create_dir_all(directory).map_err(|source| {
            let path = directory.display().to_string();
            StoreError::Directory { path, source }
        })?;
        Ok(Self::new(FilesystemStore::new(directory.to_path_buf())))
    }
}

impl<K: KVStore> KvChannelStore<K> {
    /// In `store`.
    pub fn new(store: K) -> Self {
        Self { store, reserving: Mutex::new(()) }
    }

    /// An entry's bytes, if there is one.
    async fn read(
        &self,
        namespace: &str,
        key: &str,
        operation: &'static str,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        match self.store.read(NAMESPACE, namespace, key).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error(operation)(error)),
        }
    }

    async fn load_key(&self, key: &str) -> Result<Option<Stored>, StoreError> {
        let Some(bytes) = self.read(CHANNELS, key, "reading a channel").await? else {
            return Ok(None);
        };
        let opened = record::decode(key, &bytes)?;
        let progress = match self.read(PROGRESS, key, "reading a channel's progress").await? {
            Some(bytes) => record::decode_progress(key, &opened, &bytes)?,
            None => Progress::default(),
        };
        Ok(Some(Stored { opened, progress }))
    }
}

fn io_error(operation: &'static str) -> impl Fn(io::Error) -> StoreError {
    move |source| StoreError::Io { operation, source }
}

#[async_trait]
impl<K: KVStore + Send + Sync + 'static> ChannelStore for KvChannelStore<K> {
    async fn save(&self, opened: &Opened) -> Result<(), StoreError> {
        let key = opened.channel_id.to_string();
        let record = record::encode(opened);
        let kept = self.read(CHANNELS, &key, "looking for a channel").await?;
        if kept.is_some_and(|kept| kept != record) {
            return Err(StoreError::Occupied { key });
        }
        // Written even if it is there: an earlier write may have failed to make it durable.
        let writing = self.store.write(NAMESPACE, CHANNELS, &key, record);
        writing.await.map_err(io_error("saving a channel"))
    }

    async fn update(&self, opened: &Opened, progress: &Progress) -> Result<(), StoreError> {
        let key = opened.channel_id.to_string();
        let record = record::encode_progress(opened, progress);
        let writing = self.store.write(NAMESPACE, PROGRESS, &key, record);
        writing.await.map_err(io_error("updating a channel"))
    }

    async fn remove(&self, channel_id: &ChannelId) -> Result<(), StoreError> {
        let key = channel_id.to_string();
        // The channel first: what became of it means nothing without it.  Not lazily: a channel
        // that was forgotten must not be back after a crash.
        for namespace in [CHANNELS, PROGRESS] {
            let removing = self.store.remove(NAMESPACE, namespace, &key, false);
            removing.await.map_err(io_error("removing a channel"))?;
        }
        Ok(())
    }

    async fn load(&self, channel_id: &ChannelId) -> Result<Option<Stored>, StoreError> {
        self.load_key(&channel_id.to_string()).await
    }

    async fn load_all(&self) -> Result<Vec<Entry>, StoreError> {
        let listing = self.store.list(NAMESPACE, CHANNELS);
        let keys = listing.await.map_err(io_error("listing channels"))?;
        let mut entries = Vec::with_capacity(keys.len());
        for key in keys {
            // None where it was removed since it was listed.
            if let Some(stored) = self.load_key(&key).await.transpose() {
                entries.push(Entry { key, stored });
            }
        }
        Ok(entries)
    }

    async fn reserve_dbids(&self, count: u64) -> Result<Range<u64>, StoreError> {
        let _one_at_a_time = self.reserving.lock().await;
        let kept = self.read(DBID, RESERVED, "reading the last channel reference").await?;
        let reserved = match kept {
            Some(bytes) => {
                let payload = record::unseal(RESERVED, &bytes)?;
                let number = payload.try_into().map_err(|_| StoreError::Damaged {
                    key: RESERVED.into(),
                    defect: "not 8 bytes".into(),
                })?;
                u64::from_be_bytes(number)
            }
            None => 0,
        };
        let last = reserved.checked_add(count).ok_or(StoreError::Exhausted)?;
        let end = last.checked_add(1).ok_or(StoreError::Exhausted)?;
        let sealed = record::seal(&last.to_be_bytes());
        let writing = self.store.write(NAMESPACE, DBID, RESERVED, sealed);
        writing.await.map_err(io_error("reserving channel references"))?;
        Ok(reserved + 1..end)
    }
}
