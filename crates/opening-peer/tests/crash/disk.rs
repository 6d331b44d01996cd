//! What outlives a node: the entries of its store and of its signer's.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use futures::FutureExt;
use futures::future::BoxFuture;
use lightning::io;
use lightning::ln::types::ChannelId;
use lightning::util::persist::{KVStore, KVStoreSync};
use lightning_persister::fs_store::FilesystemStore;
use opening_peer::store::{ChannelStore, KvChannelStore, Stored};
use tempfile::TempDir;

use crate::point::Crash;

type AsyncResult<T> = BoxFuture<'static, Result<T, io::Error>>;

type Contents = BTreeMap<[String; 3], Vec<u8>>;

/// Entries in memory that outlive the node.
#[derive(Clone, Default)]
pub struct Entries(Arc<Mutex<Contents>>);

fn name(primary: &str, secondary: &str, key: &str) -> [String; 3] {
    [primary, secondary, key].map(str::to_owned)
}

impl KVStore for Entries {
    fn read(&self, primary: &str, secondary: &str, key: &str) -> AsyncResult<Vec<u8>> {
        let entry = self.0.lock().unwrap().get(&name(primary, secondary, key)).cloned();
        let missing = || io::Error::new(io::ErrorKind::NotFound, "no such entry");
        async move { entry.ok_or_else(missing) }.boxed()
    }

    fn write(&self, primary: &str, secondary: &str, key: &str, bytes: Vec<u8>) -> AsyncResult<()> {
        let (entries, name) = (self.clone(), name(primary, secondary, key));
        async move {
            entries.0.lock().unwrap().insert(name, bytes);
            Ok(())
        }
        .boxed()
    }

    fn remove(&self, primary: &str, secondary: &str, key: &str, _lazy: bool) -> AsyncResult<()> {
        let (entries, name) = (self.clone(), name(primary, secondary, key));
        async move {
            entries.0.lock().unwrap().remove(&name);
            Ok(())
        }
        .boxed()
    }

    fn list(&self, primary: &str, secondary: &str) -> AsyncResult<Vec<String>> {
        let entries = self.0.lock().unwrap();
        let listed = entries.keys().filter(|name| name[0] == primary && name[1] == secondary);
        let keys = listed.map(|name| name[2].clone()).collect();
        async move { Ok(keys) }.boxed()
    }
}

/// Where the entries of a node are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    Memory,
    Files,
}

/// A node's disk.
pub struct Disk {
    entries: Entries,
    files: Option<(FilesystemStore, TempDir)>,
    /// What was read last, and what it says: reading it anew costs more than all the rest.
    last_read: Mutex<(Contents, Vec<Stored>)>,
    /// What a validating signer keeps.
    pub signer: Entries,
    /// The channels that the node has taken over, in its own keeping.
    pub taken_over: Mutex<HashMap<ChannelId, Stored>>,
}

impl Disk {
    pub fn new(medium: Medium) -> Self {
        let files = (medium == Medium::Files).then(|| {
            let directory = tempfile::tempdir().unwrap();
            (FilesystemStore::new(directory.path().to_path_buf()), directory)
        });
        Self {
            entries: Entries::default(),
            files,
            last_read: Mutex::default(),
            signer: Entries::default(),
            taken_over: Mutex::default(),
        }
    }

    /// The store of a node that may die at each of its reads and writes.
    pub fn store(&self, crash: &Crash) -> Arc<dyn ChannelStore> {
        match &self.files {
            None => {
                Arc::new(KvChannelStore::new(Mortal::new("store", self.entries.clone(), crash)))
            }
            Some((_, directory)) => {
                let files = FilesystemStore::new(directory.path().to_path_buf());
                Arc::new(KvChannelStore::new(Mortal::new("store", files, crash)))
            }
        }
    }

    /// What a store finds that is asked now.
    pub fn channels(&self) -> Vec<Stored> {
        let contents = match &self.files {
            Some((files, _)) => copy(files),
            None => self.entries.0.lock().unwrap().clone(),
        };
        let mut last_read = self.last_read.lock().unwrap();
        if last_read.0 != contents {
            let entries = Entries(Arc::new(Mutex::new(contents.clone())));
            let loaded = KvChannelStore::new(entries).load_all().now_or_never();
            let loaded = loaded.expect("memory does not wait").unwrap();
            let channels = loaded.into_iter().map(|entry| entry.stored.unwrap()).collect();
            *last_read = (contents, channels);
        }
        last_read.1.clone()
    }
}

/// The channels of a directory, in memory.
fn copy(files: &FilesystemStore) -> Contents {
    let mut contents = Contents::new();
    for secondary in ["channels", "progress"] {
        for key in KVStoreSync::list(files, "opening", secondary).unwrap() {
            let bytes = KVStoreSync::read(files, "opening", secondary, &key).unwrap();
            contents.insert(name("opening", secondary, &key), bytes);
        }
    }
    contents
}

/// A store whose node may die before and after everything that it does.
// What the inner store does, it does when its future is awaited, behind the first point.
pub struct Mortal<K> {
    whose: &'static str,
    inner: K,
    crash: Crash,
}

impl<K> Mortal<K> {
    pub fn new(whose: &'static str, inner: K, crash: &Crash) -> Self {
        Self { whose, inner, crash: crash.clone() }
    }

    fn around<T: Send + 'static>(
        &self,
        what: &str,
        entry: &str,
        act: impl Future<Output = T> + Send + 'static,
    ) -> BoxFuture<'static, T> {
        let (crash, what) = (self.crash.clone(), format!("{} {what} {entry}", self.whose));
        async move { crash.around(&what, crash.working(act)).await }.boxed()
    }
}

impl<K: KVStore + Send + Sync + 'static> KVStore for Mortal<K> {
    fn read(&self, primary: &str, secondary: &str, key: &str) -> AsyncResult<Vec<u8>> {
        self.around("read", secondary, self.inner.read(primary, secondary, key))
    }

    fn write(&self, primary: &str, secondary: &str, key: &str, bytes: Vec<u8>) -> AsyncResult<()> {
        self.around("write", secondary, self.inner.write(primary, secondary, key, bytes))
    }

    fn remove(&self, primary: &str, secondary: &str, key: &str, lazy: bool) -> AsyncResult<()> {
        self.around("remove", secondary, self.inner.remove(primary, secondary, key, lazy))
    }

    fn list(&self, primary: &str, secondary: &str) -> AsyncResult<Vec<String>> {
        self.around("list", secondary, self.inner.list(primary, secondary))
    }
}
