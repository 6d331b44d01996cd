//! Names under which the signer knows channels, never given twice.

use std::ops::Range;
use std::sync::Arc;

use bitcoin::secp256k1::PublicKey;
use opening_signer::ChannelRef;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::Openings;
use crate::store::StoreError;

/// Channel references are reserved durably this many at a time: a restart skips the rest.
const DBID_BLOCK: u64 = 64;

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
    openings: Arc<Openings>,
    name: ChannelRef,
    kept: bool,
}

impl Openings {
    /// A name for a new channel that the signer has never heard.
    pub(crate) async fn reference(
        self: &Arc<Self>,
        peer: PublicKey,
    ) -> Result<Reference, StoreError> {
        let deadline = self.node.deadlines.store;
        // Waiting in line counts: else the last of many would wait many times as long.
        let dbid = timeout(deadline, self.next_dbid()).await;
        let dbid = dbid.map_err(|_| StoreError::Silent(deadline))??;
        let name = ChannelRef { peer, dbid };
        Ok(Reference { openings: self.clone(), name, kept: false })
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
    pub(super) fn forget_at_signer(&self, name: ChannelRef) {
        // Without a runtime the process is going down, and the signer's memory with it.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let hsm = self.node.hsm.clone();
        let deadline = self.node.deadlines.signer;
        runtime.spawn(async move {
            match timeout(deadline, hsm.forget_channel(name)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => log::warn!("the signer keeps {name:?}: {error}"),
                Err(_) => log::warn!("the signer does not answer whether it forgets {name:?}"),
            }
        });
    }
}

impl Reference {
    /// The signer's name for the channel.
    pub(crate) fn name(&self) -> ChannelRef {
        self.name
    }

    /// The channel is about to be saved: the signer is to remember it.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        if !self.kept {
            self.openings.forget_at_signer(self.name);
        }
    }
}
