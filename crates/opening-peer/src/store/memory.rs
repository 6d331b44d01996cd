//! Channels in memory, for tests and for programs that keep nothing.

use core::ops::Range;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use lightning::ln::types::ChannelId;

use super::{ChannelStore, Entry, StoreError, Stored};
use crate::negotiation::Opened;
use crate::negotiation::ready::Progress;

/// Forgets everything with the process: never for a node with money in it.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<Contents>);

#[derive(Debug, Default)]
struct Contents {
    // In boxes, so that a map that grows does not copy them.
    channels: HashMap<ChannelId, Box<Stored>>,
    reserved_dbids: u64,
}

impl MemoryStore {
    fn contents<T>(&self, act: impl FnOnce(&mut Contents) -> T) -> T {
        // Nothing here can be left half-changed by a panic.
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl ChannelStore for MemoryStore {
    async fn save(&self, opened: &Opened) -> Result<(), StoreError> {
        self.contents(|contents| {
            let id = opened.channel_id;
            if contents.channels.get(&id).is_some_and(|kept| kept.opened != *opened) {
                return Err(StoreError::Occupied { key: id.to_string() });
            }
            let stored = Stored { opened: opened.clone(), progress: Progress::default() };
            contents.channels.entry(id).or_insert_with(|| Box::new(stored));
            Ok(())
        })
    }

    async fn update(&self, opened: &Opened, progress: &Progress) -> Result<(), StoreError> {
        self.contents(|contents| {
            if let Some(stored) = contents.channels.get_mut(&opened.channel_id) {
                stored.progress = progress.clone();
            }
        });
        Ok(())
    }

    async fn remove(&self, channel_id: &ChannelId) -> Result<(), StoreError> {
        self.contents(|contents| contents.channels.remove(channel_id));
        Ok(())
    }

    async fn load(&self, channel_id: &ChannelId) -> Result<Option<Stored>, StoreError> {
        Ok(self.contents(|contents| {
            contents.channels.get(channel_id).map(|stored| (**stored).clone())
        }))
    }

    async fn load_all(&self) -> Result<Vec<Entry>, StoreError> {
        let entry = |id: &ChannelId, stored: &Stored| Entry {
            key: id.to_string(),
            stored: Ok(stored.clone()),
        };
        Ok(self.contents(|contents| {
            contents.channels.iter().map(|(id, stored)| entry(id, stored)).collect()
        }))
    }

    async fn reserve_dbids(&self, count: u64) -> Result<Range<u64>, StoreError> {
        self.contents(|contents| {
            let reserved = contents.reserved_dbids;
            let last = reserved.checked_add(count).ok_or(StoreError::Exhausted)?;
            let end = last.checked_add(1).ok_or(StoreError::Exhausted)?;
            contents.reserved_dbids = last;
            Ok(reserved + 1..end)
        })
    }
}
