//! Openings that this node asked for.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use lightning::ln::msgs::{AcceptChannel, ChannelReady, FundingSigned};
use lightning::ln::types::ChannelId;
use opening_core::Role;
use tokio::sync::{mpsc, oneshot};

use super::opening::{Opening, OpeningChannels, Outcome};
use super::task::{OurReport, Report, Task};
use super::{Command, Key};
use crate::driver::funder;
use crate::driver::gate::Gate;
use crate::driver::line::{Inbound, Line};
use crate::event::{Event, Failed};
use crate::failure::{Failure, Stage};
use crate::negotiation::funder::Ask;
use crate::negotiation::{BroadcastPermit, Opened};

/// Openings of ours that are not saved yet, by their key and by both of their ids.
#[derive(Default)]
pub(super) struct Ours {
    entries: HashMap<Key, Entry>,
    by_id: HashMap<ChannelId, Key>,
}

struct Entry {
    temporary_channel_id: ChannelId,
    channel_id: Option<ChannelId>,
    stage: Stage,
    gate: Arc<Gate>,
    inbox: mpsc::UnboundedSender<Inbound>,
    outcome: oneshot::Sender<Outcome>,
    /// The handle, until `open_channel` is out.
    begun: Option<(oneshot::Sender<Result<Opening, Failed>>, Opening)>,
    /// A zero-conf fundee sends `channel_ready` right behind `funding_signed`: we are still saving.
    early_channel_ready: Option<ChannelReady>,
}

impl Ours {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn keys(&self) -> Vec<Key> {
        self.entries.keys().copied().collect()
    }

    pub(super) fn key(&self, id: &ChannelId) -> Option<Key> {
        self.by_id.get(id).copied()
    }

    pub(super) fn stage(&self, key: Key) -> Option<Stage> {
        self.entries.get(&key).map(|entry| entry.stage)
    }

    fn remove(&mut self, key: Key) -> Option<Entry> {
        let entry = self.entries.remove(&key)?;
        self.by_id.remove(&entry.temporary_channel_id);
        if let Some(channel_id) = entry.channel_id {
            self.by_id.remove(&channel_id);
        }
        Some(entry)
    }
}

impl Task {
    /// Begins an opening.  Its handle is given out when `open_channel` is on its way.
    pub(super) fn open(
        &mut self,
        ask: Ask,
        begun: oneshot::Sender<Result<Opening, Failed>>,
        commands: mpsc::UnboundedSender<Command>,
    ) {
        let temporary_channel_id = self.fresh_temporary_id();
        let key = self.next_key();
        let (accepted, accepted_receiver) = oneshot::channel();
        let (funding_sender, funding) = mpsc::channel(1);
        let (outcome, outcome_receiver) = oneshot::channel();
        let (inbox_sender, inbox) = mpsc::unbounded_channel();
        let channels = OpeningChannels {
            accepted: accepted_receiver,
            funding: funding_sender,
            outcome: outcome_receiver,
        };
        let gate = Arc::new(Gate::default());
        let handle = Opening::new(key, commands, temporary_channel_id, channels);
        let entry = Entry {
            temporary_channel_id,
            channel_id: None,
            stage: Stage::Keys,
            gate: gate.clone(),
            inbox: inbox_sender,
            outcome,
            begun: Some((begun, handle)),
            early_channel_ready: None,
        };
        self.ours.by_id.insert(temporary_channel_id, key);
        self.ours.entries.insert(key, entry);
        self.progress(Role::Funder, temporary_channel_id, None, Stage::Keys);
        let mut line = Line {
            key,
            peer: self.peer,
            features: (*self.features).clone(),
            temporary_channel_id,
            reports: self.reports.clone(),
            inbox,
            gate,
            accepted: Some(accepted),
            funding,
            funded: None,
        };
        let (openings, reports) = (self.openings.clone(), self.reports.clone());
        tokio::spawn(async move {
            let driver = funder::open_channel(&openings, &mut line, ask);
            let done = AssertUnwindSafe(driver).catch_unwind().await;
            let report = OurReport::Done(done.unwrap_or(Err(Failure::Panicked)));
            // The session may be gone, and has then told everyone.
            let _ = reports.send(Report::Ours { key, report });
        });
    }

    /// An id unlike any other with this peer (B2-OPEN-S-02).
    fn fresh_temporary_id(&self) -> ChannelId {
        loop {
            let id = ChannelId(self.openings.node.entropy.bytes());
            if !self.ours.by_id.contains_key(&id) && !self.channels.contains(&id) {
                return id;
            }
        }
    }

    pub(super) fn on_our_report(&mut self, key: Key, report: OurReport) {
        // What was ended here may still report once more.
        let Some(entry) = self.ours.entries.get_mut(&key) else { return };
        let (temporary_id, channel_id) = (entry.temporary_channel_id, entry.channel_id);
        let stage = match report {
            OurReport::OpenChannel(message) => {
                if let Some((begun, handle)) = entry.begun.take() {
                    // Where nobody waits for it, dropping the handle cancels.
                    let _ = begun.send(Ok(handle));
                }
                entry.stage = Stage::AcceptChannel;
                self.queue_logged(&message);
                Stage::AcceptChannel
            }
            OurReport::Stage(stage) => {
                entry.stage = stage;
                stage
            }
            OurReport::Identified(channel_id) => {
                entry.channel_id = Some(channel_id);
                self.ours.by_id.insert(channel_id, key);
                return;
            }
            OurReport::FundingCreated { message, funded } => {
                entry.stage = Stage::FundingSigned;
                self.queue_logged(&message);
                if let Some(funded) = funded {
                    let _ = funded.send(Ok(()));
                }
                Stage::FundingSigned
            }
            OurReport::Done(Ok((opened, permit))) => return self.our_opened(key, opened, permit),
            OurReport::Done(Err(failure)) => return self.fail_ours(key, failure),
        };
        self.progress(Role::Funder, temporary_id, channel_id, stage);
    }

    fn our_opened(&mut self, key: Key, opened: Arc<Opened>, permit: BroadcastPermit) {
        let Some(entry) = self.ours.remove(key) else { return };
        self.event(Event::Opened(opened.clone()));
        // Without a handle the permit is dropped; the saved channel knows what to broadcast.
        let _ = entry.outcome.send(Ok((opened.clone(), permit)));
        self.await_ready(opened);
        if let Some(channel_ready) = entry.early_channel_ready {
            self.on_channel_ready(&channel_ready);
        }
    }

    /// Ends an opening from outside its driver, unless its save has begun.
    pub(super) fn interrupt_ours(&mut self, key: Key, failure: Failure) {
        if self.ours.entries.get(&key).is_some_and(|entry| entry.gate.end()) {
            self.fail_ours(key, failure);
        }
    }

    fn fail_ours(&mut self, key: Key, failure: Failure) {
        let Some(entry) = self.ours.remove(key) else { return };
        let failed = Failed {
            role: Role::Funder,
            temporary_channel_id: entry.temporary_channel_id,
            channel_id: entry.channel_id,
            stage: entry.stage,
            failure: Arc::new(failure),
        };
        // The temporary id up to funding_created, the final one after it (B1-ERR-S-02).
        let reply_to = match entry.stage {
            Stage::Keys => None,
            Stage::AcceptChannel | Stage::Funding | Stage::Signature => {
                Some(entry.temporary_channel_id)
            }
            _ => Some(entry.channel_id.unwrap_or(entry.temporary_channel_id)),
        };
        self.fail(&failed, reply_to);
        if let Some((begun, _handle)) = entry.begun {
            let _ = begun.send(Err(failed.clone()));
        }
        let _ = entry.outcome.send(Err(failed));
    }

    pub(super) fn on_accept_channel(&mut self, message: Box<AcceptChannel>) {
        let id = message.common_fields.temporary_channel_id;
        let inbound = Inbound::AcceptChannel(message);
        self.hand_to_ours(id, "accept_channel", Stage::AcceptChannel, Stage::Funding, inbound);
    }

    pub(super) fn on_funding_signed(&mut self, message: FundingSigned) {
        let id = message.channel_id;
        let inbound = Inbound::FundingSigned(message);
        self.hand_to_ours(id, "funding_signed", Stage::FundingSigned, Stage::Validation, inbound);
    }

    /// Hands a message to the driver that waits for it; in any other stage it ends the opening.
    fn hand_to_ours(
        &mut self,
        id: ChannelId,
        message: &'static str,
        expected: Stage,
        next: Stage,
        inbound: Inbound,
    ) {
        let Some(key) = self.ours.key(&id) else { return self.unknown_channel(id) };
        let Some(entry) = self.ours.entries.get_mut(&key) else { return };
        let stage = entry.stage;
        // funding_signed names the final id, accept_channel the temporary one.
        let named = match expected {
            Stage::AcceptChannel => Some(entry.temporary_channel_id),
            _ => entry.channel_id,
        };
        if stage != expected || named != Some(id) {
            return self.interrupt_ours(key, Failure::OutOfOrder { message, stage });
        }
        entry.stage = next;
        let (temporary_id, channel_id) = (entry.temporary_channel_id, entry.channel_id);
        // A driver that is gone has reported why.
        let _ = entry.inbox.send(inbound);
        if next == Stage::Validation {
            self.progress(Role::Funder, temporary_id, channel_id, next);
        }
    }

    /// Keeps a `channel_ready` that comes while we are still saving.  `false` if it is not for
    /// such an opening.
    pub(super) fn keep_early_channel_ready(&mut self, message: &ChannelReady) -> bool {
        let Some(key) = self.ours.key(&message.channel_id) else { return false };
        let Some(entry) = self.ours.entries.get_mut(&key) else { return false };
        let stage = entry.stage;
        let is_signed = matches!(stage, Stage::Validation | Stage::Save);
        if is_signed && entry.channel_id == Some(message.channel_id) {
            entry.early_channel_ready = Some(message.clone());
        } else {
            self.interrupt_ours(key, Failure::OutOfOrder { message: "channel_ready", stage });
        }
        true
    }
}
