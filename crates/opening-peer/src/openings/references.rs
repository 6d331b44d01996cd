//! Names under which the signer knows channels, never given twice.

use std::collections::VecDeque;
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bitcoin::secp256k1::PublicKey;
use futures::FutureExt;
use opening_signer::ChannelRef;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::limits::Guest;
use super::{Openings, lock};
use crate::store::StoreError;

/// Channel references are reserved durably this many at a time: a restart skips the rest.
const DBID_BLOCK: u64 = 64;

/// Channels that the signer is asked to forget at once.
const MOST_FORGETTING: usize = 4;

/// Channels that may wait for it.
const MOST_TO_FORGET: usize = 10_000;

/// Numbers for channel references.
#[derive(Default)]
pub(super) struct Dbids {
    /// Reserved and not given out yet.
    left: Range<u64>,
    /// The reservation under way.  There is one at a time, and whoever comes next waits for the
    /// same: a store that does not answer is not asked again and again.
    reserving: Option<JoinHandle<Result<Range<u64>, StoreError>>>,
}

/// A channel reference that the signer may have heard of.  Dropped before the save has begun, it
/// makes the signer forget the channel: an opening that fails must cost it nothing.
pub(crate) struct Reference {
    guest: Arc<Guest>,
    dbid: u64,
    kept: bool,
}

impl Openings {
    /// A name for a new channel that the signer has never heard.
    pub(crate) async fn reference(
        self: &Arc<Self>,
        peer: PublicKey,
    ) -> Result<Reference, StoreError> {
        Guest::new(self.clone(), peer).reference().await
    }

    async fn next_dbid(&self) -> Result<u64, StoreError> {
        let Dbids { left, reserving } = &mut *self.dbids.lock().await;
        if left.is_empty() {
            // A task of its own: nobody's deadline may cut it short between its read and its write.
            let under_way = reserving.get_or_insert_with(|| {
                let store = self.node.store.clone();
                tokio::spawn(async move { store.reserve_dbids(DBID_BLOCK).await })
            });
            let reserved = under_way.await;
            *reserving = None;
            *left = reserved.map_err(|_| StoreError::Interrupted)??;
        }
        left.next().ok_or(StoreError::Exhausted)
    }

    /// The signer is to forget a channel that will never be.
    pub(super) fn forget_at_signer(self: &Arc<Self>, name: ChannelRef) {
        // Without a runtime the process is going down, and the signer's memory with it.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if lock(&self.to_forget).push(name) {
            runtime.spawn(self.clone().forget_at_signer_in_turn());
        }
    }

    async fn forget_at_signer_in_turn(self: Arc<Self>) {
        while let Some(name) = self.next_to_forget() {
            let deadline = self.node.deadlines.signer;
            let forgetting = timeout(deadline, self.node.hsm.forget_channel(name));
            match AssertUnwindSafe(forgetting).catch_unwind().await {
                Ok(Ok(Ok(()))) => {}
                Ok(Ok(Err(error))) => log::warn!("the signer keeps {name:?}: {error}"),
                Ok(Err(_)) => {
                    log::warn!("the signer does not answer whether it forgets {name:?}");
                }
                Err(_) => log::error!("the signer panicked over forgetting {name:?}"),
            }
        }
    }

    fn next_to_forget(&self) -> Option<ChannelRef> {
        lock(&self.to_forget).pop()
    }
}

impl Guest {
    /// A name for a new channel with this peer that the signer has never heard.
    pub(crate) async fn reference(self: &Arc<Self>) -> Result<Reference, StoreError> {
        let deadline = self.openings.node.deadlines.store;
        // Waiting in line counts: else the last of many would wait many times as long.
        let dbid = timeout(deadline, self.openings.next_dbid()).await;
        let dbid = dbid.map_err(|_| StoreError::Silent(deadline))??;
        Ok(Reference { guest: self.clone(), dbid, kept: false })
    }
}

/// Channels that the signer is still to forget.  A signer that is slow, or does not answer, has
/// few of them to deal with at once, and makes nothing grow without end.
#[derive(Default)]
pub(super) struct ToForget {
    waiting: VecDeque<ChannelRef>,
    /// Tasks that tell the signer, each one channel at a time.
    tasks: usize,
    /// Channels that the signer was not told of, because too many waited.
    left_out: u64,
}

impl ToForget {
    /// Takes one in; `true` where another task is to tell the signer.
    fn push(&mut self, name: ChannelRef) -> bool {
        if self.waiting.len() == MOST_TO_FORGET {
            self.left_out += 1;
            if self.left_out == 1 {
                log::error!("{MOST_TO_FORGET} channels wait for the signer to forget them");
            }
            return false;
        }
        self.waiting.push_back(name);
        let is_room = self.tasks < MOST_FORGETTING;
        self.tasks += usize::from(is_room);
        is_room
    }

    /// The next one; `None` ends the task that asks.
    fn pop(&mut self) -> Option<ChannelRef> {
        let next = self.waiting.pop_front();
        if next.is_none() {
            self.tasks -= 1;
            self.waiting = VecDeque::new();
            if let left_out @ 1.. = std::mem::take(&mut self.left_out) {
                log::error!("the signer keeps {left_out} channels that never came to be");
            }
        }
        next
    }
}

impl Reference {
    /// The signer's name for the channel.
    pub(crate) fn name(&self) -> ChannelRef {
        ChannelRef { peer: self.guest.peer, dbid: self.dbid }
    }

    /// The channel is about to be saved: the signer is to remember it.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        if !self.kept {
            self.guest.openings.forget_at_signer(self.name());
        }
    }
}
