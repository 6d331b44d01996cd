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
    pub(crate) reads_fail: AtomicBool,
    /// Writes wait until it is false.
    pub(crate) stalls: Arc<AtomicBool>,
    /// Which write each entry is of.
    order: Arc<Mutex<HashMap<String, usize>>>,
}

impl MemoryStore {
    pub(crate) fn writes(&self) -> usize {
        self.writes.load(Ordering::SeqCst)
    }
}

impl KVStore for MemoryStore {
    fn read(&self, one: &str, two: &str, key: &str) -> AsyncResult<'static, Vec<u8>, io::Error> {
        if self.reads_fail.load(Ordering::SeqCst) {
            return Box::pin(async { Err(io::ErrorKind::Other.into()) });
        }
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
        if self.fails.load(Ordering::SeqCst) {
            return Box::pin(async { Err(io::ErrorKind::Other.into()) });
        }
        let number = self.writes.fetch_add(1, Ordering::SeqCst);
        let (entries, order) = (Arc::clone(&self.entries), Arc::clone(&self.order));
        let stalls = Arc::clone(&self.stalls);
        let name = format!("{one}/{two}/{key}");
        Box::pin(async move {
            while stalls.load(Ordering::SeqCst) {
                tokio::task::yield_now().await;
            }
            // The order of writes is that in which they were asked for.
            let mut order = order.lock().unwrap();
            if order.get(&name).is_none_or(|newest| *newest < number) {
                order.insert(name.clone(), number);
                entries.lock().unwrap().insert(name, buf);
            }
            Ok(())
        })
    }

    fn remove(&self, _: &str, _: &str, _: &str, _: bool) -> AsyncResult<'static, (), io::Error> {
        panic!("a signer removes no record")
    }

    fn list(&self, one: &str, two: &str) -> AsyncResult<'static, Vec<String>, io::Error> {
        let prefix = format!("{one}/{two}/");
        let entries = self.entries.lock().unwrap();
        let names = entries.keys().filter_map(|name| name.strip_prefix(&prefix));
        let names = names.map(str::to_owned).collect();
        Box::pin(async { Ok(names) })
    }
}
