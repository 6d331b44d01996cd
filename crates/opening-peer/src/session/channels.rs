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

/// Tells everyone who waits what came of the evidence.
fn answer(waiting: &mut Vec<Done>, result: Result<(), ConfirmError>) {
    for done in waiting.drain(..) {
        // The node may have stopped waiting.
        let _ = done.send(result);
    }
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
        self.openings.saved(id, self.peer);
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
        if let Some(short_channel_id) = entry.state.short_channel_id() {
            self.openings.seen(short_channel_id);
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
        if entry.asking {
            return;
        }
        if !entry.state.is_due() {
            return answer(&mut entry.waiting, Ok(()));
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
        let mut waiting = std::mem::take(&mut entry.waiting);
        // A reorganisation may have come while the signer was asked.
        if !entry.state.is_due() {
            return answer(&mut waiting, Ok(()));
        }
        let result = match point.and_then(|point| self.local_ready(point)) {
            Ok(local) => {
                self.send_channel_ready(id, local);
                Ok(())
            }
            // The channel is saved: it waits until the next evidence asks again.
            Err(failure) => {
                log::error!("{}: {id}: channel_ready is due, but {failure}", self.peer);
                Err(ConfirmError::NotReady)
            }
        };
        answer(&mut waiting, result);
    }

    fn local_ready(&self, second_per_commitment_point: PublicKey) -> Result<LocalReady, Failure> {
        let has_alias = self.features.negotiated(Feature::ScidAlias);
        let alias = has_alias.then(|| self.openings.alias()).transpose()?;
        Ok(LocalReady { second_per_commitment_point, alias })
    }

    fn send_channel_ready(&mut self, id: ChannelId, local: LocalReady) {
        let Some(entry) = self.channels.entries.get_mut(&id) else { return };
        let channel_ready = entry.state.send(local);
        let opened = entry.state.opened().clone();
        self.send(&channel_ready);
        let temporary_id = opened.temporary_channel_id;
        self.progress(opened.role(), temporary_id, Some(id), Stage::ChannelReady);
        self.tell_if_ready(id);
    }

    /// Ours until the channel is in use; then the node's, which alone knows what it means.
    pub(super) fn on_channel_ready(&mut self, message: &ChannelReady, bytes: &[u8]) {
        let id = message.channel_id;
        let entry = self.channels.entries.get_mut(&id).filter(|entry| !entry.in_use);
        if let Some(entry) = entry {
            entry.state.channel_ready(message);
            self.tell_if_ready(id);
        } else if !self.keep_for_our_channel(&id, bytes) {
            self.on_out_of_place("channel_ready", id, bytes);
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
