//! How long durable writes take.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lightning::io;
use lightning::util::async_poll::AsyncResult;
use lightning::util::persist::{KVStore, KVStoreSync};
use lightning_persister::fs_store::FilesystemStore;

/// The writes that were awaited.
#[derive(Clone, Default)]
pub(super) struct Writes(Arc<Mutex<Written>>);

/// How many, and how long they took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Written {
    /// How many.
    pub count: u32,
    /// From the first poll of each to its end, the way to another thread and back included.
    pub taken: Duration,
}

impl Writes {
    fn add(&self, since: Instant) {
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        written.count += 1;
        written.taken += since.elapsed();
    }

    /// Those since the last call.
    pub(super) fn take(&self) -> Written {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A store in files, whose writes are timed.
pub(super) struct Timed {
    store: FilesystemStore,
    writes: Writes,
}

impl Timed {
    /// In this directory.
    pub(super) fn new(directory: &Path, writes: &Writes) -> Self {
        let store = FilesystemStore::new(directory.to_path_buf());
        Self { store, writes: writes.clone() }
    }
}

type Done<T> = AsyncResult<'static, T, io::Error>;

impl KVStore for Timed {
    fn read(&self, primary: &str, secondary: &str, key: &str) -> Done<Vec<u8>> {
        KVStore::read(&self.store, primary, secondary, key)
    }

    fn write(&self, primary: &str, secondary: &str, key: &str, bytes: Vec<u8>) -> Done<()> {
        let writing = KVStore::write(&self.store, primary, secondary, key, bytes);
        let writes = self.writes.clone();
        Box::pin(async move {
            let since = Instant::now();
            let written = writing.await;
            writes.add(since);
            written
        })
    }

    fn remove(&self, primary: &str, secondary: &str, key: &str, lazy: bool) -> Done<()> {
        KVStore::remove(&self.store, primary, secondary, key, lazy)
    }

    fn list(&self, primary: &str, secondary: &str) -> Done<Vec<String>> {
        KVStore::list(&self.store, primary, secondary)
    }
}

/// For LDK, whose calls return when it is durable.
impl KVStoreSync for Timed {
    fn read(&self, primary: &str, secondary: &str, key: &str) -> Result<Vec<u8>, io::Error> {
        KVStoreSync::read(&self.store, primary, secondary, key)
    }

    fn write(
        &self,
        primary: &str,
        secondary: &str,
        key: &str,
        bytes: Vec<u8>,
    ) -> Result<(), io::Error> {
        let since = Instant::now();
        let written = KVStoreSync::write(&self.store, primary, secondary, key, bytes);
        self.writes.add(since);
        written
    }

    fn remove(
        &self,
        primary: &str,
        secondary: &str,
        key: &str,
        lazy: bool,
    ) -> Result<(), io::Error> {
        KVStoreSync::remove(&self.store, primary, secondary, key, lazy)
    }

    fn list(&self, primary: &str, secondary: &str) -> Result<Vec<String>, io::Error> {
        KVStoreSync::list(&self.store, primary, secondary)
    }
}
