//! Opened channels of this session, until both `channel_ready` have passed.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bitcoin::secp256k1::PublicKey;
use futures::FutureExt;
use lightning::ln::msgs::ChannelReady;
use lightning::ln::types::ChannelId;
use opening_core::Feature;

use super::task::{Report, Task};
use super::{ConfirmError, Done};
use crate::driver::signer::Signer;
use crate::event::Event;
use crate::failure::{Failure, Stage};
use crate::negotiation::Opened;
use crate::negotiation::ready::{Confirmation, LocalReady, WaitForReady};

/// Channels on their way into use, by their id.
#[derive(Default)]
pub(super) struct Channels {
    entries: HashMap<ChannelId, Entry>,
}

struct Entry {
    state: WaitForReady,
    /// The signer is being asked for the second point.
    asking: bool,
    /// The node waits until a due `channel_ready` is out.
    waiting: Vec<Done>,
    /// Both `channel_ready` have passed, and the node knows.
    in_use: bool,
}

/// The node's evidence has had its effect.
fn answer(done: Done) {
    // The node may have stopped waiting.
    let _ = done.send(Ok(()));
}

impl Channels {
    pub(super) fn contains(&self, id: &ChannelId) -> bool {
        self.entries.contains_key(id)
    }
}

impl Task {
    /// Takes in a channel that is saved.
    pub(super) fn await_ready(&mut self, opened: Arc<Opened>) {
        let id = opened.channel_id;
        self.progress(opened.role(), opened.temporary_channel_id, Some(id), Stage::Depth);
        let state = WaitForReady::new(opened);
        let entry = Entry { state, asking: false, waiting: Vec::new(), in_use: false };
        self.channels.entries.insert(id, entry);
        self.send_channel_ready_if_due(id);
    }

    pub(super) fn on_confirmed(&mut self, id: ChannelId, confirmation: &Confirmation, done: Done) {
        let Some(entry) = self.channels.entries.get_mut(&id) else {
            let _ = done.send(Err(ConfirmError::UnknownChannel));
            return;
        };
        if let Err(error) = entry.state.confirmed(confirmation) {
            let _ = done.send(Err(error.into()));
            return;
        }
        entry.waiting.push(done);
        self.send_channel_ready_if_due(id);
    }

    pub(super) fn on_unconfirmed(&mut self, id: ChannelId, done: Done) {
        let answer = match self.channels.entries.get_mut(&id) {
            Some(entry) => {
                entry.state.unconfirmed();
                Ok(())
            }
            None => Err(ConfirmError::UnknownChannel),
        };
        let _ = done.send(answer);
    }

    /// Asks the signer for the second point, which a due `channel_ready` carries.
    fn send_channel_ready_if_due(&mut self, id: ChannelId) {
        let Some(entry) = self.channels.entries.get_mut(&id) else { return };
        if !entry.state.is_due() || entry.asking {
            if !entry.asking {
                entry.waiting.drain(..).for_each(answer);
            }
            return;
        }
        entry.asking = true;
        let reference = entry.state.opened().reference;
        let (openings, reports) = (self.openings.clone(), self.reports.clone());
        tokio::spawn(async move {
            let deadline = openings.node.deadlines.signer;
            let asking = async {
                let signer = Signer::open(&*openings.node.hsm, reference, deadline).await?;
                signer.per_commitment_point(1).await
            };
            let point = AssertUnwindSafe(asking).catch_unwind().await;
            let point = point.unwrap_or(Err(Failure::Panicked));
            let _ = reports.send(Report::SecondPoint { channel_id: id, point });
        });
    }

    pub(super) fn on_second_point(&mut self, id: ChannelId, point: Result<PublicKey, Failure>) {
        let Some(entry) = self.channels.entries.get_mut(&id) else { return };
        entry.asking = false;
        let waiting = std::mem::take(&mut entry.waiting);
        match point {
            Ok(second_per_commitment_point) => {
                let alias =
                    self.features.negotiated(Feature::ScidAlias).then(|| self.openings.alias());
                let channel_ready =
                    entry.state.send(LocalReady { second_per_commitment_point, alias });
                let opened = entry.state.opened().clone();
                self.send(&channel_ready);
                let temporary_id = opened.temporary_channel_id;
                self.progress(opened.role(), temporary_id, Some(id), Stage::ChannelReady);
                self.tell_if_ready(id);
            }
            // The channel is saved: it waits until the next confirmation asks again.
            Err(failure) => log::error!("{}: {id}: channel_ready is due, but {failure}", self.peer),
        }
        waiting.into_iter().for_each(answer);
    }

    pub(super) fn on_channel_ready(&mut self, message: &ChannelReady) {
        let id = message.channel_id;
        if let Some(entry) = self.channels.entries.get_mut(&id) {
            entry.state.channel_ready(message);
            self.tell_if_ready(id);
        } else if !self.keep_early_channel_ready(message) {
            self.unknown_channel(id);
        }
    }

    fn tell_if_ready(&mut self, id: ChannelId) {
        let Some(entry) = self.channels.entries.get_mut(&id) else { return };
        if entry.in_use {
            return;
        }
        if let Some(ready) = entry.state.ready() {
            entry.in_use = true;
            self.event(Event::Ready(Box::new(ready)));
        }
    }
}
