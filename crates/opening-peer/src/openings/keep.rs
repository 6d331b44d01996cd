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

impl Openings {
    /// Saves a channel and releases what was held for it.  It fails only when it is known that the
    /// channel is not kept.
    pub(crate) async fn keep<T>(
        self: &Arc<Self>,
        held: Held<T>,
    ) -> Result<(Arc<Opened>, T), Failure> {
        let saved = self.save(held.opened()).await?;
        let (opened, inside) = held.after(saved);
        self.take_in(opened.clone(), Progress::default());
        Ok((opened, inside))
    }

    /// Saves a channel, however long it takes to know whether it is: after the deadline the node
    /// is told, but nobody may act as if it were not.
    pub(crate) async fn save(&self, opened: &Arc<Opened>) -> Result<Saved, StoreError> {
        let deadline = self.node.deadlines.store;
        let saving = self.save_until_known(opened);
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
