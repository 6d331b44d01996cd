//! Openings that the peer asked for: plain state between its messages.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bitcoin::OutPoint;
use bitcoin::secp256k1::PublicKey;
use futures::FutureExt;
use lightning::ln::msgs::{AcceptChannel, FundingCreated, FundingSigned, OpenChannel};
use lightning::ln::types::ChannelId;
use opening_core::Role;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::Key;
use super::early::Early;
use super::inbound::ALL_CHANNELS;
use super::task::{Flow, Report, Task};
use crate::driver::fundee::{self, Waiting};
use crate::driver::gate::Gate;
use crate::event::{Event, Failed};
use crate::failure::{Failure, Stage};
use crate::negotiation::Opened;
use crate::openings::{Slot, Under};

/// Pending inbound openings, by their key and by the peer's id for them.
#[derive(Default)]
pub(super) struct Theirs {
    entries: HashMap<Key, Entry>,
    by_id: HashMap<ChannelId, Key>,
}

struct Entry {
    temporary_channel_id: ChannelId,
    /// Once `funding_created` has named the outpoint; the peer may use either id until it is
    /// answered.
    channel_id: Option<ChannelId>,
    state: State,
    early: Early,
    /// Given back when neither the session nor a driver has work with the opening any more.
    slot: Arc<Slot>,
}

/// What comes of the two signatures and the save.
type Signed = Result<(Arc<Opened>, FundingSigned), Failure>;

enum State {
    /// Policy and signer are at work on the offer, and need not finish it.
    Deciding(AbortHandle),
    /// `accept_channel` is out, and until then the peer has time.
    Waiting(Box<Waiting>, Instant),
    /// The signer, then the store, is at work on the channel.
    Signing(Arc<Gate>),
}

impl Entry {
    fn stage(&self) -> Stage {
        match &self.state {
            State::Deciding(_) => Stage::Decision,
            State::Waiting(..) => Stage::FundingCreated,
            State::Signing(_) if self.is_saving() => Stage::Save,
            State::Signing(_) => Stage::Commitments,
        }
    }

    fn is_saving(&self) -> bool {
        matches!(&self.state, State::Signing(gate) if gate.is_saving())
    }
}

impl Theirs {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn keys(&self) -> Vec<Key> {
        self.entries.keys().copied().collect()
    }

    /// By either id.
    pub(super) fn key(&self, id: &ChannelId) -> Option<Key> {
        self.by_id.get(id).copied().or_else(|| self.key_of_channel(id))
    }

    pub(super) fn under_way(&self, peer: PublicKey) -> impl Iterator<Item = Under> {
        self.entries.values().map(move |entry| Under {
            peer,
            role: Role::Fundee,
            temporary_channel_id: entry.temporary_channel_id,
            channel_id: entry.channel_id,
            stage: entry.stage(),
        })
    }

    pub(super) fn is_saving(&self, id: &ChannelId) -> bool {
        let entry = self.key(id).and_then(|key| self.entries.get(&key));
        entry.is_some_and(Entry::is_saving)
    }

    pub(super) fn keep_where_saving(&mut self, id: &ChannelId, message: &[u8]) {
        for entry in self.entries.values_mut().filter(|entry| entry.is_saving()) {
            if *id == ALL_CHANNELS || entry.channel_id == Some(*id) {
                entry.early.keep(message);
            }
        }
    }

    pub(super) fn has_channel(&self, id: &ChannelId) -> bool {
        self.key_of_channel(id).is_some()
    }

    // Few are pending at once: a second index would cost more than it saves.
    fn key_of_channel(&self, id: &ChannelId) -> Option<Key> {
        let mut entries = self.entries.iter();
        entries.find(|(_, entry)| entry.channel_id == Some(*id)).map(|(key, _)| *key)
    }

    pub(super) fn stage(&self, key: Key) -> Option<Stage> {
        self.entries.get(&key).map(Entry::stage)
    }
}

impl Task {
    pub(super) fn on_open_channel(&mut self, message: Box<OpenChannel>) {
        let id = message.common_fields.temporary_channel_id;
        if let Some(&key) = self.theirs.by_id.get(&id) {
            if !self.interrupt_theirs(key, Failure::DuplicateTemporaryId) {
                self.refuse(id, "unexpected open_channel".into());
            }
            return;
        }
        if self.names_channels(&id) {
            return self.turn_away(id, Failure::TemporaryIdTaken(id));
        }
        let slot = match self.openings.admit(self.peer) {
            Ok(slot) => slot,
            Err(failure) => return self.turn_away(id, failure),
        };
        let key = self.next_key();
        let deciding = self.decide(key, message);
        let entry = Entry {
            temporary_channel_id: id,
            channel_id: None,
            state: State::Deciding(deciding),
            early: Early::default(),
            slot: Arc::new(slot),
        };
        self.theirs.by_id.insert(id, key);
        self.theirs.entries.insert(key, entry);
        self.progress(Role::Fundee, id, None, Stage::Decision);
    }

    fn decide(&self, key: Key, message: Box<OpenChannel>) -> AbortHandle {
        let (openings, reports, peer) = (self.openings.clone(), self.reports.clone(), self.peer);
        let features = (*self.features).clone();
        let deciding = tokio::spawn(async move {
            let driver = fundee::answer_open_channel(openings, peer, features, message);
            let answer = AssertUnwindSafe(driver).catch_unwind().await;
            let answer = answer.unwrap_or(Err(Failure::Panicked)).map(Box::new);
            // The session may be gone, and has then told everyone.
            let _ = reports.send(Report::Answered { key, answer });
        });
        deciding.abort_handle()
    }

    /// Refuses an offer that never became a pending opening.
    pub(super) fn turn_away(&mut self, temporary_channel_id: ChannelId, failure: Failure) {
        let failed = Failed {
            role: Role::Fundee,
            temporary_channel_id,
            channel_id: None,
            stage: Stage::Decision,
            failure: Arc::new(failure),
        };
        self.fail(&failed, Some(temporary_channel_id));
    }

    pub(super) fn on_answered(
        &mut self,
        key: Key,
        answer: Result<Box<(AcceptChannel, Waiting)>, Failure>,
    ) {
        // Ended meanwhile.
        let Some(entry) = self.theirs.entries.get_mut(&key) else { return };
        match answer {
            Ok(answer) => {
                let (accept_channel, state) = *answer;
                let deadline = Instant::now() + self.openings.node.deadlines.peer;
                entry.state = State::Waiting(Box::new(state), deadline);
                let id = entry.temporary_channel_id;
                self.deadlines.insert((deadline, key));
                self.send(&accept_channel);
                self.progress(Role::Fundee, id, None, Stage::FundingCreated);
            }
            Err(failure) => self.fail_theirs(key, failure),
        }
    }

    pub(super) fn on_funding_created(&mut self, message: FundingCreated, bytes: &[u8]) {
        let id = message.temporary_channel_id;
        let key = self.theirs.by_id.get(&id).copied();
        let entry = key.and_then(|key| Some((key, self.theirs.entries.get_mut(&key)?)));
        let Some((key, entry)) = entry else {
            return self.on_out_of_place("funding_created", id, bytes);
        };
        let gate = Arc::new(Gate::default());
        let signing = State::Signing(gate.clone());
        let (state, deadline) = match std::mem::replace(&mut entry.state, signing) {
            State::Waiting(state, deadline) => (state, deadline),
            other => {
                entry.state = other;
                return self.on_out_of_place("funding_created", id, bytes);
            }
        };
        entry.channel_id = channel_id_of(&message);
        let (channel_id, slot) = (entry.channel_id, entry.slot.clone());
        self.deadlines.remove(&(deadline, key));
        self.progress(Role::Fundee, id, channel_id, Stage::Commitments);
        let driver = fundee::answer_funding_created(self.openings.clone(), gate, *state, message);
        self.sign(key, slot, driver);
    }

    /// A signature under way is not cut short: it counts among the pending until it is done, even
    /// if its opening has ended meanwhile.
    fn sign(
        &self,
        key: Key,
        slot: Arc<Slot>,
        driver: impl Future<Output = Signed> + Send + 'static,
    ) {
        let reports = self.reports.clone();
        tokio::spawn(async move {
            let signed = AssertUnwindSafe(driver).catch_unwind().await;
            let signed = signed.unwrap_or(Err(Failure::Panicked));
            drop(slot);
            let _ = reports.send(Report::Signed { key, signed });
        });
    }

    pub(super) fn on_signed(&mut self, key: Key, signed: Signed) -> Flow {
        match signed {
            Ok((opened, funding_signed)) => {
                let Some(entry) = self.remove_theirs(key) else { return Flow::Continue };
                self.send(&funding_signed);
                self.event(Event::Opened(opened.clone()));
                self.go_on_with(&opened);
                self.on_early(entry.early)
            }
            Err(failure) => {
                self.fail_theirs(key, failure);
                Flow::Continue
            }
        }
    }

    pub(super) fn fundee_waited_too_long(&mut self, key: Key) {
        let after = self.openings.node.deadlines.peer;
        self.interrupt_theirs(key, Failure::PeerSilent { message: "funding_created", after });
    }

    /// Ends an opening from outside its driver, unless its save has begun.
    /// `false` where it goes on.
    pub(super) fn interrupt_theirs(&mut self, key: Key, failure: Failure) -> bool {
        let Some(entry) = self.theirs.entries.get(&key) else { return false };
        let ended = match &entry.state {
            State::Signing(gate) => gate.end(),
            State::Deciding(_) | State::Waiting(..) => true,
        };
        if ended {
            self.fail_theirs(key, failure);
        }
        ended
    }

    fn fail_theirs(&mut self, key: Key, failure: Failure) {
        let Some(entry) = self.remove_theirs(key) else { return };
        let id = entry.temporary_channel_id;
        let failed = Failed {
            role: Role::Fundee,
            temporary_channel_id: id,
            channel_id: entry.channel_id,
            stage: entry.stage(),
            failure: Arc::new(failure),
        };
        // The temporary id until funding_signed is out (B1-ERR-S-03).
        self.fail(&failed, Some(id));
    }

    fn remove_theirs(&mut self, key: Key) -> Option<Entry> {
        let entry = self.theirs.entries.remove(&key)?;
        self.theirs.by_id.remove(&entry.temporary_channel_id);
        match &entry.state {
            State::Deciding(deciding) => deciding.abort(),
            State::Waiting(_, deadline) => drop(self.deadlines.remove(&(*deadline, key))),
            State::Signing(_) => {}
        }
        Some(entry)
    }

    /// Keeps a message about a channel of which the peer has sent `funding_created` and we have
    /// not answered it.  `false` if it is about no such channel.
    pub(super) fn keep_for_their_channel(&mut self, id: &ChannelId, bytes: &[u8]) -> bool {
        let key = self.theirs.key_of_channel(id);
        let entry = key.and_then(|key| self.theirs.entries.get_mut(&key));
        entry.is_some_and(|entry| entry.early.keep(bytes))
    }
}

/// The channel that the peer's `funding_created` makes, unless its outpoint is impossible.
fn channel_id_of(message: &FundingCreated) -> Option<ChannelId> {
    let vout = message.funding_output_index.into();
    opening_core::channel_id(OutPoint { txid: message.funding_txid, vout }).map(ChannelId)
}
