//! A key-value store in memory that counts, fails and stalls on request.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use lightning::io;
use lightning::util::async_poll::AsyncResult;
use lightning::util::persist::KVStore;

#[derive(Default)]
pub(crate) struct MemoryStore {
    pub(crate) entries: Arc<Mutex<HashMap<String, Vec<u8>>>>,
    pub(crate) writes: AtomicUsize,
    pub(crate) fails: AtomicBool,
    pub(crate) stalls: AtomicBool,
}

impl MemoryStore {
    pub(crate) fn writes(&self) -> usize {
        self.writes.load(Ordering::SeqCst)
    }
}

impl KVStore for MemoryStore {
    fn read(&self, one: &str, two: &str, key: &str) -> AsyncResult<'static, Vec<u8>, io::Error> {
        let found = self.entries.lock().unwrap().get(&format!("{one}/{two}/{key}")).cloned();
        Box::pin(async { found.ok_or_else(|| io::ErrorKind::NotFound.into()) })
    }

    fn write(
        &self,
        one: &str,
        two: &str,
        key: &str,
        buf: Vec<u8>,
    ) -> AsyncResult<'static, (), io::Error> {
        if self.stalls.load(Ordering::SeqCst) {
            return Box::pin(std::future::pending());
        }
        if self.fails.load(Ordering::SeqCst) {
            return Box::pin(async { Err(io::ErrorKind::Other.into()) });
        }
        self.writes.fetch_add(1, Ordering::SeqCst);
        let entries = Arc::clone(&self.entries);
        let name = format!("{one}/{two}/{key}");
        Box::pin(async move {
            entries.lock().unwrap().insert(name, buf);
            Ok(())
        })
    }

    fn remove(&self, _: &str, _: &str, _: &str, _: bool) -> AsyncResult<'static, (), io::Error> {
        panic!("a signer removes no record")
    }

    fn list(&self, _: &str, _: &str) -> AsyncResult<'static, Vec<String>, io::Error> {
        panic!("a signer looks for one record")
    }
}
