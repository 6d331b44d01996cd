//! Channels in any of LDK's key-value stores: a directory, a database, a storage service.

use core::ops::Range;
use std::path::Path;

use async_trait::async_trait;
use lightning::io;
use lightning::ln::types::ChannelId;
use lightning::util::persist::KVStore;
use lightning_persister::fs_store::FilesystemStore;
use tokio::sync::Mutex;

use super::{ChannelStore, StoreError, record};
use crate::negotiation::Opened;

const NAMESPACE: &str = "opening";
const CHANNELS: &str = "channels";
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
}

fn io_error(operation: &'static str) -> impl Fn(io::Error) -> StoreError {
    move |source| StoreError::Io { operation, source }
}

#[async_trait]
impl<K: KVStore + Send + Sync + 'static> ChannelStore for KvChannelStore<K> {
    async fn save(&self, opened: &Opened) -> Result<(), StoreError> {
        let key = opened.channel_id.to_string();
        let record = record::encode(opened);
        match self.store.read(NAMESPACE, CHANNELS, &key).await {
            Ok(kept) if kept == record => return Ok(()),
            Ok(_) => return Err(StoreError::Occupied { key }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_error("looking for a channel")(error)),
        }
        let writing = self.store.write(NAMESPACE, CHANNELS, &key, record);
        writing.await.map_err(io_error("saving a channel"))
    }

    async fn remove(&self, channel_id: &ChannelId) -> Result<(), StoreError> {
        let key = channel_id.to_string();
        // Not lazily: a channel that was forgotten must not be back after a crash.
        let removing = self.store.remove(NAMESPACE, CHANNELS, &key, false);
        removing.await.map_err(io_error("removing a channel"))
    }

    async fn load_all(&self) -> Result<Vec<Result<Opened, StoreError>>, StoreError> {
        let listing = self.store.list(NAMESPACE, CHANNELS);
        let keys = listing.await.map_err(io_error("listing channels"))?;
        let mut channels = Vec::with_capacity(keys.len());
        for key in keys {
            let read = self.store.read(NAMESPACE, CHANNELS, &key).await;
            channels.push(match read {
                Ok(bytes) => record::decode(&key, &bytes),
                Err(error) => Err(io_error("reading a channel")(error)),
            });
        }
        Ok(channels)
    }

    async fn reserve_dbids(&self, count: u64) -> Result<Range<u64>, StoreError> {
        let _one_at_a_time = self.reserving.lock().await;
        let reserved = match self.store.read(NAMESPACE, DBID, RESERVED).await {
            Ok(bytes) => {
                let payload = record::unseal(RESERVED, &bytes)?;
                let number = payload.try_into().map_err(|_| StoreError::Damaged {
                    key: RESERVED.into(),
                    defect: "not 8 bytes".into(),
                })?;
                u64::from_be_bytes(number)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(io_error("reading the last channel reference")(error)),
        };
        let last = reserved.checked_add(count).ok_or(StoreError::Exhausted)?;
        let end = last.checked_add(1).ok_or(StoreError::Exhausted)?;
        let sealed = record::seal(&last.to_be_bytes());
        let writing = self.store.write(NAMESPACE, DBID, RESERVED, sealed);
        writing.await.map_err(io_error("reserving channel references"))?;
        Ok(reserved + 1..end)
    }
}
