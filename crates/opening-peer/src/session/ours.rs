//! Openings that this node asked for.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bitcoin::secp256k1::PublicKey;
use futures::FutureExt;
use lightning::ln::msgs::{AcceptChannel, FundingSigned};
use lightning::ln::types::ChannelId;
use opening_core::Role;
use tokio::sync::{mpsc, oneshot};

use super::early::Early;
use super::inbound::ALL_CHANNELS;
use super::opening::{Opening, OpeningChannels, Outcome};
use super::task::{Flow, OurReport, Report, Task};
use super::{Command, Key};
use crate::driver::funder;
use crate::driver::gate::Gate;
use crate::driver::line::{Inbound, Line};
use crate::event::{Event, Failed};
use crate::failure::{Failure, Stage};
use crate::message::{Message, decode};
use crate::negotiation::funder::Ask;
use crate::negotiation::{BroadcastPermit, Opened};
use crate::openings::Under;

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
    /// The message that the stage waits for is with the driver.
    received: bool,
    gate: Arc<Gate>,
    inbox: mpsc::UnboundedSender<Inbound>,
    outcome: oneshot::Sender<Outcome>,
    /// The handle, until `open_channel` is out.
    begun: Option<(oneshot::Sender<Result<Opening, Failed>>, Opening)>,
    /// A fundee may go on right behind its `funding_signed`, while we are still saving.
    early: Early,
}

impl Entry {
    fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        self.received = false;
    }

    /// Whether the peer has signed: for the peer the channel is there.
    fn is_signed(&self) -> bool {
        matches!(self.stage, Stage::Validation | Stage::Save)
    }
}

/// Ids that entropy may give in vain before it is held to be broken.
const TEMPORARY_ID_TRIES: usize = 8;

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

    pub(super) fn under_way(&self, peer: PublicKey) -> impl Iterator<Item = Under> {
        self.entries.values().map(move |entry| Under {
            peer,
            role: Role::Funder,
            temporary_channel_id: entry.temporary_channel_id,
            channel_id: entry.channel_id,
            stage: entry.stage,
        })
    }

    pub(super) fn has_channel(&self, id: &ChannelId) -> bool {
        self.entry(id).is_some_and(|entry| entry.channel_id == Some(*id))
    }

    pub(super) fn is_saving(&self, id: &ChannelId) -> bool {
        self.entry(id).is_some_and(|entry| entry.gate.is_saving())
    }

    pub(super) fn keep_where_saving(&mut self, id: &ChannelId, message: &[u8]) {
        for entry in self.entries.values_mut().filter(|entry| entry.gate.is_saving()) {
            if *id == ALL_CHANNELS || entry.channel_id == Some(*id) {
                entry.early.keep(message);
            }
        }
    }

    fn entry(&self, id: &ChannelId) -> Option<&Entry> {
        self.entries.get(self.by_id.get(id)?)
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
        let Some(temporary_channel_id) = self.fresh_temporary_id() else {
            let _ = begun.send(Err(self.no_temporary_id()));
            return;
        };
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
        let handle = Opening::new(self.peer, key, commands, temporary_channel_id, channels);
        let entry = Entry {
            temporary_channel_id,
            channel_id: None,
            stage: Stage::Keys,
            received: false,
            gate: gate.clone(),
            inbox: inbox_sender,
            outcome,
            begun: Some((begun, handle)),
            early: Early::default(),
        };
        self.ours.by_id.insert(temporary_channel_id, key);
        self.ours.entries.insert(key, entry);
        self.progress(Role::Funder, temporary_channel_id, None, Stage::Keys);
        let mut line = Line {
            key,
            peer: self.peer,
            features: self.features.clone(),
            temporary_channel_id,
            reports: self.reports.clone(),
            inbox,
            gate,
            accepted: Some(accepted),
            funding,
            funded: None,
            seat: None,
        };
        let (openings, reports) = (self.openings.clone(), self.reports.clone());
        tokio::spawn(async move {
            // Boxed: a task is moved several times before it runs, and this one is large.
            let driver = Box::pin(funder::open_channel(&openings, &mut line, ask));
            let done = AssertUnwindSafe(driver).catch_unwind().await;
            let report = OurReport::Done(done.unwrap_or(Err(Failure::Panicked)));
            // The session may be gone, and has then told everyone.
            let _ = reports.send(Report::Ours { key, report });
        });
    }

    /// An id unlike any other with this peer, in either direction (B2-OPEN-S-02).
    fn fresh_temporary_id(&self) -> Option<ChannelId> {
        let is_in_use = |id: &ChannelId| {
            self.names_channels(id) || self.ours.key(id).is_some() || self.theirs.key(id).is_some()
        };
        (0..TEMPORARY_ID_TRIES)
            .map(|_| ChannelId(self.openings.node.entropy.bytes()))
            .find(|id| !is_in_use(id))
    }

    fn no_temporary_id(&mut self) -> Failed {
        let failed = Failed {
            role: Role::Funder,
            temporary_channel_id: ALL_CHANNELS,
            channel_id: None,
            stage: Stage::Keys,
            failure: Arc::new(Failure::EntropyRepeats),
        };
        self.fail(&failed, None);
        failed
    }

    pub(super) fn on_our_report(&mut self, key: Key, report: OurReport) -> Flow {
        // What was ended here may still report once more.
        let Some(entry) = self.ours.entries.get_mut(&key) else { return Flow::Continue };
        let (temporary_id, channel_id) = (entry.temporary_channel_id, entry.channel_id);
        let stage = match report {
            OurReport::OpenChannel(message) => {
                if let Some((begun, handle)) = entry.begun.take() {
                    // Where nobody waits for it, dropping the handle cancels.
                    let _ = begun.send(Ok(handle));
                }
                entry.enter(Stage::AcceptChannel);
                self.queue_logged(&message);
                Stage::AcceptChannel
            }
            OurReport::Stage(stage) => {
                entry.enter(stage);
                stage
            }
            OurReport::Identified(channel_id) => {
                entry.channel_id = Some(channel_id);
                self.ours.by_id.insert(channel_id, key);
                return Flow::Continue;
            }
            OurReport::FundingCreated { message, funded } => {
                entry.enter(Stage::FundingSigned);
                self.queue_logged(&message);
                if let Some(funded) = funded {
                    let _ = funded.send(Ok(()));
                }
                Stage::FundingSigned
            }
            OurReport::Done(Ok((opened, permit))) => return self.our_opened(key, opened, permit),
            OurReport::Done(Err(failure)) => {
                self.fail_ours(key, failure);
                return Flow::Continue;
            }
        };
        self.progress(Role::Funder, temporary_id, channel_id, stage);
        Flow::Continue
    }

    fn our_opened(
        &mut self,
        key: Key,
        opened: Arc<Opened>,
        permit: Option<BroadcastPermit>,
    ) -> Flow {
        let Some(entry) = self.ours.remove(key) else { return Flow::Continue };
        self.event(Event::Opened(opened.clone()));
        // Without a handle the permit is dropped; the saved channel knows what to broadcast.
        let _ = entry.outcome.send(Ok((opened.clone(), permit)));
        self.go_on_with(&opened);
        self.on_early(entry.early)
    }

    /// What the peer said about a channel before it was saved.
    pub(super) fn on_early(&mut self, early: Early) -> Flow {
        for bytes in early.into_messages() {
            match decode(&bytes) {
                // Told already when it came.
                Ok(Message::Error(error)) => self.end_opened_by_peer(&error, &bytes),
                // The peer says the rest again on its next connection.
                _ if !self.is_connected() => {}
                Ok(Message::ChannelReady(message)) => self.on_channel_ready(&message, &bytes),
                Ok(Message::Shutdown(message)) => {
                    if let close @ Flow::Close(_) = self.on_shutdown(&message, &bytes) {
                        return close;
                    }
                }
                _ => self.openings.node.rest.message(&self.peer, &bytes),
            }
        }
        Flow::Continue
    }

    /// Ends an opening from outside its driver, unless its save has begun.
    /// `false` where it goes on.
    pub(super) fn interrupt_ours(&mut self, key: Key, failure: Failure) -> bool {
        let ended = self.ours.entries.get(&key).is_some_and(|entry| entry.gate.end());
        if ended {
            self.fail_ours(key, failure);
        }
        ended
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

    pub(super) fn on_accept_channel(&mut self, message: Box<AcceptChannel>, bytes: &[u8]) {
        let id = message.common_fields.temporary_channel_id;
        if !self.hand_to_ours(id, Inbound::AcceptChannel(message)) {
            self.on_out_of_place("accept_channel", id, bytes);
        }
    }

    pub(super) fn on_funding_signed(&mut self, message: FundingSigned, bytes: &[u8]) {
        let id = message.channel_id;
        if !self.hand_to_ours(id, Inbound::FundingSigned(message)) {
            self.on_out_of_place("funding_signed", id, bytes);
        }
    }

    /// Hands a message to the driver that waits for it, once.  `false` if none does.
    fn hand_to_ours(&mut self, id: ChannelId, inbound: Inbound) -> bool {
        let key = self.ours.key(&id);
        let Some(entry) = key.and_then(|key| self.ours.entries.get_mut(&key)) else { return false };
        // accept_channel names the temporary id, funding_signed the final one.
        let temporary_id = entry.temporary_channel_id;
        let (stage, named) = match inbound {
            Inbound::AcceptChannel(_) => (Stage::AcceptChannel, Some(temporary_id)),
            Inbound::FundingSigned(_) => (Stage::FundingSigned, entry.channel_id),
        };
        if entry.stage != stage || entry.received || named != Some(id) {
            return false;
        }
        entry.received = true;
        // A driver that is gone has reported why.
        let _ = entry.inbox.send(inbound);
        if stage == Stage::FundingSigned {
            entry.enter(Stage::Validation);
            self.progress(Role::Funder, temporary_id, Some(id), Stage::Validation);
        }
        true
    }

    /// Keeps a message about a channel that the peer has signed and we have not saved yet.
    /// `false` if it is about no such channel.
    pub(super) fn keep_for_our_channel(&mut self, id: &ChannelId, bytes: &[u8]) -> bool {
        let entry = self.ours.key(id).and_then(|key| self.ours.entries.get_mut(&key));
        entry.is_some_and(|entry| {
            entry.channel_id == Some(*id) && entry.is_signed() && entry.early.keep(bytes)
        })
    }
}
