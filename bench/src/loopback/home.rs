//! Runtimes that run by themselves, so that whoever measures only waits.

use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;

/// Where a node runs, until it is dropped.
pub(super) struct Home {
    handle: Handle,
    kept: Option<Kept>,
}

enum Kept {
    /// Its scheduler is the thread; it ends when the sender is dropped.
    Single(oneshot::Sender<()>, JoinHandle<()>),
    Workers(Runtime),
}

impl Home {
    /// One thread, whose scheduler knows of no other.
    pub(super) fn single() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime needs descriptors and no more");
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::spawn(move || {
            // The sender is dropped and sends nothing.
            let _ = runtime.block_on(stopped);
        });
        Self { handle, kept: Some(Kept::Single(stop, thread)) }
    }

    /// So many threads that share their work.
    pub(super) fn workers(threads: usize) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(threads).enable_all().build();
        let runtime = runtime.expect("a runtime needs descriptors and threads");
        Self { handle: runtime.handle().clone(), kept: Some(Kept::Workers(runtime)) }
    }

    /// To spawn on it.
    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Runs it there, and waits for it here.
    pub(super) fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let running = self.handle.spawn(work);
        self.handle.block_on(running).expect("nothing panics")
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        match self.kept.take() {
            Some(Kept::Single(stop, thread)) => {
                drop(stop);
                thread.join().expect("nothing panics");
            }
            Some(Kept::Workers(runtime)) => drop(runtime),
            None => {}
        }
    }
}
