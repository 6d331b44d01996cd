//! What has become of opened channels, made durable.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use lightning::ln::types::ChannelId;
use tokio::time::{sleep, timeout};

use super::{Openings, lock};
use crate::event::End;
use crate::negotiation::Opened;
use crate::negotiation::ready::Exit;
use crate::session::Command;
use crate::store::StoreError;

/// First pause before a store that failed is asked again; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

impl Openings {
    /// Has what became of a channel made durable, however often the store has to be asked; nobody
    /// waits for it.  What the peer is to hear of it goes out then.
    pub(super) fn note(self: &Arc<Self>, id: ChannelId) {
        let begins = self.with(&id, |channel| !std::mem::replace(&mut channel.is_noting, true));
        if begins != Some(true) {
            return;
        }
        let openings = self.clone();
        tokio::spawn(async move {
            let mut pause = FIRST_PAUSE;
            while !openings.is_noted(&id) {
                if let Err(error) = openings.write_now(id).await {
                    log::error!("{id}: what has become of it is not kept: {error}");
                    sleep(pause).await;
                    pause = LONGEST_PAUSE.min(pause * 2);
                }
            }
            let to_say = openings.channel(&id).filter(|(_, progress)| progress.says_something());
            if let Some((opened, _)) = to_say {
                openings.nudge(&opened);
            }
        });
    }

    /// Whether there is nothing left to write.
    fn is_noted(&self, id: &ChannelId) -> bool {
        let is_noted = self.with(id, |channel| {
            channel.is_noting = channel.kept != *channel.wait.progress();
            !channel.is_noting
        });
        is_noted.unwrap_or(true)
    }

    /// Makes durable what has become of a channel.
    pub(crate) async fn write(self: &Arc<Self>, id: ChannelId) -> Result<(), StoreError> {
        let openings = self.clone();
        // A task of its own: a write that is late must not be overtaken by the next one.
        let writing = tokio::spawn(async move { openings.write_now(id).await });
        let deadline = self.node.deadlines.store;
        match timeout(deadline, writing).await {
            Ok(written) => written.unwrap_or(Err(StoreError::Interrupted)),
            Err(_) => Err(StoreError::Silent(deadline)),
        }
    }

    async fn write_now(&self, id: ChannelId) -> Result<(), StoreError> {
        let Some(writing) = lock(&self.channels).writing(&id) else { return Ok(()) };
        let _one_at_a_time = writing.lock().await;
        // Not of a channel that is being removed: what is left of it would outlive it.
        let changed = self.with(&id, |channel| {
            let progress = channel.wait.progress();
            let is_kept = *progress == channel.kept;
            (!is_kept).then(|| (channel.wait.opened().clone(), progress.clone()))
        });
        let Some((opened, progress)) = changed.flatten() else { return Ok(()) };
        let updating = self.node.store.update(&opened, &progress);
        let updated = AssertUnwindSafe(updating).catch_unwind().await;
        updated.unwrap_or(Err(StoreError::Interrupted))?;
        self.with(&id, |channel| channel.kept = progress);
        Ok(())
    }

    /// Removes a channel that has begun to leave: durably first, however often the store has to be
    /// asked, then for everyone, who hear why it ended, if `end` says so.  The error means that the
    /// removal goes on.
    pub(super) async fn erase(
        self: &Arc<Self>,
        opened: Arc<Opened>,
        end: Option<End>,
    ) -> Result<(), StoreError> {
        let openings = self.clone();
        let erasing = tokio::spawn(async move { openings.erase_now(opened, end).await });
        let deadline = self.node.deadlines.store;
        match timeout(deadline, erasing).await {
            Ok(erased) => erased.map_err(|_| StoreError::Interrupted),
            Err(_) => Err(StoreError::Silent(deadline)),
        }
    }

    async fn erase_now(self: &Arc<Self>, opened: Arc<Opened>, end: Option<End>) {
        let id = opened.channel_id;
        let Some(writing) = lock(&self.channels).writing(&id) else { return };
        let _one_at_a_time = writing.lock().await;
        let mut pause = FIRST_PAUSE;
        loop {
            let removed = AssertUnwindSafe(self.node.store.remove(&id)).catch_unwind().await;
            match removed.unwrap_or(Err(StoreError::Interrupted)) {
                Ok(()) => break,
                Err(error) => log::error!("{id}: cannot be removed: {error}"),
            }
            sleep(pause).await;
            pause = LONGEST_PAUSE.min(pause * 2);
        }
        let Some(mut channel) = lock(&self.channels).remove(&id) else { return };
        let peer = opened.reference.peer;
        if channel.no_longer_counts().is_some() {
            self.uncount_unconfirmed(&peer);
        }
        let has_failed = channel.wait.progress().failed.is_some();
        match end.as_ref().filter(|_| !has_failed).and_then(End::reply) {
            Some(text) => self.send_to(&peer, Command::Fail { channel_id: id, text }),
            None => self.send_to(&peer, Command::Forget { channel_id: id }),
        }
        let Some(end) = end else { return };
        self.forget_at_signer(opened.reference);
        // Of one that had failed, everyone has heard already.
        if !has_failed {
            self.tell_end(opened, end, Exit::Nothing);
        }
    }
}
