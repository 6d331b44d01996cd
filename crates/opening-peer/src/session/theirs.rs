//! Openings that the peer asked for: plain state between its messages.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bitcoin::OutPoint;
use futures::FutureExt;
use lightning::ln::msgs::{AcceptChannel, FundingCreated, FundingSigned, OpenChannel};
use lightning::ln::types::ChannelId;
use opening_core::Role;
use tokio::time::Instant;

use super::Key;
use super::task::{Report, Task};
use crate::driver::fundee::{self, Waiting};
use crate::driver::gate::Gate;
use crate::event::{Event, Failed};
use crate::failure::{Failure, Stage};
use crate::negotiation::Opened;
use crate::openings::Slot;

/// Pending inbound openings, by their key and by the peer's id for them.
#[derive(Default)]
pub(super) struct Theirs {
    entries: HashMap<Key, Entry>,
    by_id: HashMap<ChannelId, Key>,
}

struct Entry {
    temporary_channel_id: ChannelId,
    /// Once `funding_created` has named the outpoint.
    channel_id: Option<ChannelId>,
    state: State,
    /// Given back with the entry.
    _slot: Slot,
}

enum State {
    /// Policy and signer are at work on the offer.
    Deciding,
    /// `accept_channel` is out, and until then the peer has time.
    Waiting(Box<Waiting>, Instant),
    /// The signer, then the store, is at work on the channel.
    Signing(Arc<Gate>),
}

impl Entry {
    fn stage(&self) -> Stage {
        match self.state {
            State::Deciding => Stage::Decision,
            State::Waiting(..) => Stage::FundingCreated,
            State::Signing(_) => Stage::Commitments,
        }
    }
}

impl Theirs {
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
        self.entries.get(&key).map(Entry::stage)
    }
}

impl Task {
    pub(super) fn on_open_channel(&mut self, message: Box<OpenChannel>) {
        let id = message.common_fields.temporary_channel_id;
        if let Some(key) = self.theirs.key(&id) {
            return self.interrupt_theirs(key, Failure::DuplicateTemporaryId);
        }
        let slot = match self.openings.admit(self.peer) {
            Ok(slot) => slot,
            Err(failure) => return self.turn_away(id, failure),
        };
        let key = self.next_key();
        let entry = Entry {
            temporary_channel_id: id,
            channel_id: None,
            state: State::Deciding,
            _slot: slot,
        };
        self.theirs.by_id.insert(id, key);
        self.theirs.entries.insert(key, entry);
        self.progress(Role::Fundee, id, None, Stage::Decision);

        let (openings, reports, peer) = (self.openings.clone(), self.reports.clone(), self.peer);
        let features = (*self.features).clone();
        tokio::spawn(async move {
            let driver = fundee::answer_open_channel(openings, peer, features, message);
            let answer = AssertUnwindSafe(driver).catch_unwind().await;
            let answer = answer.unwrap_or(Err(Failure::Panicked)).map(Box::new);
            // The session may be gone, and has then told everyone.
            let _ = reports.send(Report::Answered { key, answer });
        });
    }

    /// Refuses an offer that never became a pending opening.
    fn turn_away(&mut self, temporary_channel_id: ChannelId, failure: Failure) {
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

    pub(super) fn on_funding_created(&mut self, message: FundingCreated) {
        let id = message.temporary_channel_id;
        let Some(key) = self.theirs.key(&id) else { return self.unknown_channel(id) };
        let Some(entry) = self.theirs.entries.get_mut(&key) else { return };
        let stage = entry.stage();
        let gate = Arc::new(Gate::default());
        let signing = State::Signing(gate.clone());
        let (state, deadline) = match std::mem::replace(&mut entry.state, signing) {
            State::Waiting(state, deadline) => (state, deadline),
            other => {
                entry.state = other;
                let message = "funding_created";
                return self.interrupt_theirs(key, Failure::OutOfOrder { message, stage });
            }
        };
        entry.channel_id = opening_core::channel_id(OutPoint {
            txid: message.funding_txid,
            vout: message.funding_output_index.into(),
        })
        .map(ChannelId);
        let channel_id = entry.channel_id;
        self.deadlines.remove(&(deadline, key));
        self.progress(Role::Fundee, id, channel_id, Stage::Commitments);

        let (openings, reports) = (self.openings.clone(), self.reports.clone());
        tokio::spawn(async move {
            let driver = fundee::answer_funding_created(openings, gate, *state, message);
            let signed = AssertUnwindSafe(driver).catch_unwind().await;
            let signed = signed.unwrap_or(Err(Failure::Panicked));
            let _ = reports.send(Report::Signed { key, signed });
        });
    }

    pub(super) fn on_signed(
        &mut self,
        key: Key,
        signed: Result<(Arc<Opened>, FundingSigned), Failure>,
    ) {
        match signed {
            Ok((opened, funding_signed)) => {
                if self.remove_theirs(key).is_none() {
                    return;
                }
                self.send(&funding_signed);
                self.event(Event::Opened(opened.clone()));
                self.await_ready(opened);
            }
            Err(failure) => self.fail_theirs(key, failure),
        }
    }

    pub(super) fn fundee_waited_too_long(&mut self, key: Key) {
        let after = self.openings.node.deadlines.peer;
        self.interrupt_theirs(key, Failure::PeerSilent { message: "funding_created", after });
    }

    /// Ends an opening from outside its driver, unless its save has begun.
    pub(super) fn interrupt_theirs(&mut self, key: Key, failure: Failure) {
        let Some(entry) = self.theirs.entries.get(&key) else { return };
        let ended = match &entry.state {
            State::Signing(gate) => gate.end(),
            State::Deciding | State::Waiting(..) => true,
        };
        if ended {
            self.fail_theirs(key, failure);
        }
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
        if let State::Waiting(_, deadline) = entry.state {
            self.deadlines.remove(&(deadline, key));
        }
        Some(entry)
    }
}
