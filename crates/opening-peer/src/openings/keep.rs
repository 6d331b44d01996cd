//! A channel is saved, or it is not: what is done until that is known.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::Openings;
use crate::event::Event;
use crate::failure::Failure;
use crate::negotiation::ready::Progress;
use crate::negotiation::{Held, Opened, Saved};
use crate::store::{self, StoreError, Stored};

/// First pause before a store that failed is asked again; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Asks the store until it has done what it is asked.
async fn until_done<F: Future<Output = Result<(), StoreError>>>(what: &str, ask: impl Fn() -> F) {
    let mut pause = FIRST_PAUSE;
    while let Err(error) = ask().await {
        log::error!("{what}: {error}");
        sleep(pause).await;
        pause = LONGEST_PAUSE.min(pause * 2);
    }
}

impl Openings {
    /// Saves a channel and releases what was held for it.  It fails only when it is known that the
    /// channel is not kept.
    pub(crate) async fn keep<T>(
        self: &Arc<Self>,
        held: Held<T>,
    ) -> Result<(Arc<Opened>, T), Failure> {
        let saved = self.save(held.opened()).await?;
        Ok(self.kept(held, saved))
    }

    /// Takes in a channel that is saved, and releases what was held for it.
    pub(crate) fn kept<T>(&self, held: Held<T>, saved: Saved) -> (Arc<Opened>, T) {
        let (opened, inside) = held.after(saved);
        self.take_in(opened.clone(), Progress::default());
        (opened, inside)
    }

    /// Takes in every channel of a batch, all of which are saved, and makes that durable: after a
    /// restart one of them that says so speaks for all.  Returns when it is known.
    pub(crate) async fn commit_batch(self: &Arc<Self>, channels: &[Arc<Opened>]) {
        for opened in channels {
            self.take_in(opened.clone(), Progress::default());
            self.with(&opened.channel_id, |channel| channel.wait.batch_saved());
        }
        for opened in channels {
            let id = opened.channel_id;
            until_done(&format!("{id}: its batch is saved, but not marked so"), || self.write(id))
                .await;
        }
    }

    /// Removes a channel of a batch that failed: without the others its transaction must never be
    /// broadcast.  Returns when it is known to be gone; a restart before that removes it, too.
    pub(crate) async fn unsave(&self, opened: &Opened) {
        self.condemn(opened.parameters.funding_outpoint.txid);
        let (id, store) = (opened.channel_id, &self.node.store);
        until_done(&format!("{id}: of a failed batch"), || store.remove(&id)).await;
        self.not_saved(&id);
    }

    /// Saves a channel, however long it takes to know whether it is: after the deadline the node
    /// is told, but nobody may act as if it were not.
    pub(crate) async fn save(&self, opened: &Arc<Opened>) -> Result<Saved, StoreError> {
        let deadline = self.node.deadlines.store;
        let saving = async {
            self.begins_saving(opened);
            let saved = self.save_until_known(opened).await;
            if saved.is_err() {
                self.not_saved(&opened.channel_id);
            }
            saved
        };
        tokio::pin!(saving);
        tokio::select! {
            saved = &mut saving => return saved,
            () = sleep(deadline) => {}
        }
        let (channel_id, after) = (opened.channel_id, deadline);
        self.tell(&opened.reference.peer, Event::SaveOverdue { channel_id, after });
        saving.await
    }

    async fn save_until_known(&self, opened: &Arc<Opened>) -> Result<Saved, StoreError> {
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.try_save(opened.clone()).await {
                Ok(saved) => return Ok(saved),
                Err(occupied @ StoreError::Occupied { .. }) => return Err(occupied),
                Err(error) => error,
            };
            log::error!("{}: whether it is saved is unknown: {error}", opened.channel_id);
            match self.read_back(opened).await {
                Ok(None) => return Err(error),
                Ok(Some(kept)) if kept.opened != **opened => {
                    return Err(StoreError::Occupied { key: opened.channel_id.to_string() });
                }
                // It is there; a second save makes sure that it stays.
                Ok(Some(_)) => {}
                Err(error) => log::error!("{}: nor can it be read: {error}", opened.channel_id),
            }
            sleep(pause).await;
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }

    // Tasks of their own, so that a store that panics is one that failed.
    async fn try_save(&self, opened: Arc<Opened>) -> Result<Saved, StoreError> {
        let store = self.node.store.clone();
        let saving = tokio::spawn(async move { store::save(&*store, &opened).await });
        saving.await.unwrap_or(Err(StoreError::Interrupted))
    }

    async fn read_back(&self, opened: &Opened) -> Result<Option<Stored>, StoreError> {
        let (store, channel_id) = (self.node.store.clone(), opened.channel_id);
        let reading = tokio::spawn(async move { store.load(&channel_id).await });
        reading.await.unwrap_or(Err(StoreError::Interrupted))
    }
}
