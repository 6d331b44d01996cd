//! Openings that the peer asked for: plain state between its messages.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bitcoin::secp256k1::PublicKey;
use bitcoin::{OutPoint, ScriptBuf};
use futures::FutureExt;
use lightning::ln::msgs::{AcceptChannel, FundingCreated, FundingSigned, OpenChannel};
use lightning::ln::types::ChannelId;
use lightning::types::features::ChannelTypeFeatures;
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

/// Bytes of a `channel_type`, of which no defined one has so many.
const LONGEST_CHANNEL_TYPE: usize = 32;

/// Bytes of an upfront shutdown script, of which no valid one has so many.
const LONGEST_SCRIPT: usize = 128;

/// Names one pending inbound opening: the peer's id, which it may use again when the opening has
/// ended, and a key, which nothing else has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TheirKey {
    key: Key,
    temporary_channel_id: ChannelId,
}

/// Pending inbound openings, by the peer's ids for them.
#[derive(Default)]
pub(super) struct Theirs {
    entries: HashMap<ChannelId, Box<Entry>>,
    /// Those of which `funding_created` has named the outpoint: the peer may use either id until
    /// it is answered.  Two may name the same one, of which the second fails.
    by_channel_id: BTreeSet<(ChannelId, TheirKey)>,
    /// None of them is late before.
    deadline: Option<Instant>,
    /// Some of those that are, or were, waited for, in the order of their deadlines; those that are
    /// not in it have later ones.
    line: VecDeque<(Instant, TheirKey)>,
}

// All that an opening costs between two messages is here, in two boxes of one map: `tests/flood.rs`
// counts it.  A map has four places at least, and most peers open one channel at a time.
struct Entry {
    key: Key,
    state: State,
    /// Its place among all that are pending, which is the driver's while it signs.
    slot: Option<Slot>,
}

/// What comes of the two signatures and the save.
type Signed = Result<(Arc<Opened>, FundingSigned), Failure>;

enum State {
    /// Policy and signer are at work on the offer, and need not finish it.
    Deciding(AbortHandle),
    /// `accept_channel` is out.
    Waiting(Box<Accepted>),
    /// The signer, then the store, is at work on the channel.
    Signing(Box<Signing>),
}

struct Accepted {
    waiting: Waiting,
    /// Until then the peer has time.
    deadline: Instant,
}

struct Signing {
    gate: Arc<Gate>,
    channel_id: Option<ChannelId>,
    early: Early,
}

impl Entry {
    fn stage(&self) -> Stage {
        match &self.state {
            State::Deciding(_) => Stage::Decision,
            State::Waiting(_) => Stage::FundingCreated,
            State::Signing(signing) if signing.gate.is_saving() => Stage::Save,
            State::Signing(_) => Stage::Commitments,
        }
    }

    /// When the peer is late with its next message.
    fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Waiting(accepted) => Some(accepted.deadline),
            State::Deciding(_) | State::Signing(_) => None,
        }
    }

    fn signing(&self) -> Option<&Signing> {
        match &self.state {
            State::Signing(signing) => Some(signing),
            State::Deciding(_) | State::Waiting(_) => None,
        }
    }

    fn channel_id(&self) -> Option<ChannelId> {
        self.signing()?.channel_id
    }

    fn is_saving(&self) -> bool {
        self.signing().is_some_and(|signing| signing.gate.is_saving())
    }

    /// Keeps what the peer says about the channel too early; `false` if it is not signing yet.
    fn keep_early(&mut self, message: &[u8]) -> bool {
        match &mut self.state {
            State::Signing(signing) => signing.early.keep(message),
            State::Deciding(_) | State::Waiting(_) => false,
        }
    }
}

impl Theirs {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn keys(&self) -> Vec<TheirKey> {
        self.entries.iter().map(|(id, entry)| entry.key.of(*id)).collect()
    }

    /// By either id.
    pub(super) fn key(&self, id: &ChannelId) -> Option<TheirKey> {
        let entry = self.entries.get(id);
        entry.map(|entry| entry.key.of(*id)).or_else(|| self.key_of_channel(id))
    }

    fn get(&self, key: TheirKey) -> Option<&Entry> {
        let entry = self.entries.get(&key.temporary_channel_id)?;
        (entry.key == key.key).then_some(entry)
    }

    fn get_mut(&mut self, key: TheirKey) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(&key.temporary_channel_id)?;
        (entry.key == key.key).then_some(entry)
    }

    /// No peer is late before; it may have been one that has ended meanwhile.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Those of which the peer's next message is late, in their order.  They are to be ended.
    pub(super) fn late(&mut self, now: Instant) -> Vec<TheirKey> {
        if self.deadline.is_none_or(|deadline| deadline > now) {
            return Vec::new();
        }
        if self.line.is_empty() {
            self.line_up();
        }
        let count = self.line.partition_point(|(deadline, _)| *deadline <= now);
        let mut late: Vec<_> = self.line.drain(..count).map(|(_, key)| key).collect();
        late.retain(|key| self.get(*key).is_some_and(|entry| entry.deadline().is_some()));
        // Others may have begun to wait since these did: they are lined up at the next look.
        let others = (count > 0).then_some(now);
        self.deadline = self.line.front().map(|(deadline, _)| *deadline).or(others);
        late
    }

    /// Puts all that wait in the order of their deadlines.  Done when the last line has passed, so
    /// that an opening costs the same however many there are, and nothing while peers are in time.
    fn line_up(&mut self) {
        let waiting = self.entries.iter();
        let waiting =
            waiting.filter_map(|(id, entry)| Some((entry.deadline()?, entry.key.of(*id))));
        let mut line: Vec<_> = waiting.collect();
        line.sort_unstable();
        self.line = line.into();
    }

    pub(super) fn under_way(&self, peer: PublicKey) -> impl Iterator<Item = Under> {
        self.entries.iter().map(move |(id, entry)| Under {
            peer,
            role: Role::Fundee,
            temporary_channel_id: *id,
            channel_id: entry.channel_id(),
            stage: entry.stage(),
        })
    }

    pub(super) fn is_saving(&self, id: &ChannelId) -> bool {
        self.key(id).and_then(|key| self.get(key)).is_some_and(Entry::is_saving)
    }

    pub(super) fn keep_where_saving(&mut self, id: &ChannelId, message: &[u8]) {
        for (channel_id, key) in &self.by_channel_id {
            if (*id == ALL_CHANNELS || channel_id == id)
                && let Some(entry) = self.entries.get_mut(&key.temporary_channel_id)
                && entry.is_saving()
            {
                entry.keep_early(message);
            }
        }
    }

    pub(super) fn has_channel(&self, id: &ChannelId) -> bool {
        self.key_of_channel(id).is_some()
    }

    fn key_of_channel(&self, id: &ChannelId) -> Option<TheirKey> {
        let mut named = self.by_channel_id.range((*id, Key::FIRST.of(ALL_CHANNELS))..);
        named.next().filter(|(named, _)| named == id).map(|(_, key)| *key)
    }

    pub(super) fn stage(&self, key: TheirKey) -> Option<Stage> {
        self.get(key).map(Entry::stage)
    }

    fn remove(&mut self, key: TheirKey) -> Option<Box<Entry>> {
        self.get(key)?;
        let entry = self.entries.remove(&key.temporary_channel_id)?;
        if let Some(channel_id) = entry.channel_id() {
            self.by_channel_id.remove(&(channel_id, key));
        }
        if self.entries.is_empty() {
            self.deadline = None;
            self.line = VecDeque::new();
        }
        // A flood that is over leaves no empty places.
        if self.entries.len() < self.entries.capacity() / 4 {
            self.entries.shrink_to(2 * self.entries.len());
        }
        Some(entry)
    }
}

impl Key {
    /// The peer's opening that has this id.
    const fn of(self, temporary_channel_id: ChannelId) -> TheirKey {
        TheirKey { key: self, temporary_channel_id }
    }
}

impl Task {
    pub(super) fn on_open_channel(&mut self, message: Box<OpenChannel>) {
        let id = message.common_fields.temporary_channel_id;
        if let Some(key) = self.theirs.entries.get(&id).map(|entry| entry.key.of(id)) {
            if !self.interrupt_theirs(key, Failure::DuplicateTemporaryId) {
                self.refuse(id, "unexpected open_channel".into());
            }
            return;
        }
        if self.names_channels(&id) {
            self.guest.count_offer();
            return self.turn_away(id, Failure::TemporaryIdTaken(id));
        }
        let slot = match self.guest.admit() {
            Ok(slot) => slot,
            Err(failure) => return self.turn_away(id, failure),
        };
        let key = self.next_key();
        let state = State::Deciding(self.decide(key.of(id), message));
        self.theirs.entries.insert(id, Box::new(Entry { key, state, slot: Some(slot) }));
        self.progress(Role::Fundee, id, None, Stage::Decision);
    }

    fn decide(&self, key: TheirKey, mut message: Box<OpenChannel>) -> AbortHandle {
        shorten(&mut message);
        let (guest, reports) = (self.guest.clone(), self.reports.clone());
        let features = self.features.clone();
        let deciding = tokio::spawn(async move {
            // Boxed: a task is moved several times before it runs, and this one is large.
            let driver = Box::pin(fundee::answer_open_channel(guest, features, message));
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
        // Without a line of its own in the log: these come as fast as the peer can send.
        self.tell_failed(&failed, Some(temporary_channel_id));
    }

    pub(super) fn on_answered(
        &mut self,
        key: TheirKey,
        answer: Result<Box<(AcceptChannel, Waiting)>, Failure>,
    ) {
        // Ended meanwhile.
        let Some(entry) = self.theirs.get_mut(key) else { return };
        match answer {
            Ok(answer) => {
                let (accept_channel, waiting) = *answer;
                let deadline = Instant::now() + self.openings.node.deadlines.funding_created;
                entry.state = State::Waiting(Box::new(Accepted { waiting, deadline }));
                let id = key.temporary_channel_id;
                // Those before it were given the same time.
                self.theirs.deadline.get_or_insert(deadline);
                self.send(&accept_channel);
                self.progress(Role::Fundee, id, None, Stage::FundingCreated);
            }
            Err(failure) => self.fail_theirs(key, failure),
        }
    }

    pub(super) fn on_funding_created(&mut self, message: FundingCreated, bytes: &[u8]) {
        let id = message.temporary_channel_id;
        let Some(entry) = self.theirs.entries.get_mut(&id) else {
            return self.on_out_of_place("funding_created", id, bytes);
        };
        let key = entry.key.of(id);
        let gate = Arc::new(Gate::default());
        let channel_id = channel_id_of(&message);
        let signing = Signing { gate: gate.clone(), channel_id, early: Early::default() };
        let signing = State::Signing(Box::new(signing));
        let waiting = match std::mem::replace(&mut entry.state, signing) {
            State::Waiting(accepted) => accepted.waiting,
            other => {
                entry.state = other;
                return self.on_out_of_place("funding_created", id, bytes);
            }
        };
        let slot = entry.slot.take();
        self.theirs.by_channel_id.extend(channel_id.map(|channel_id| (channel_id, key)));
        self.progress(Role::Fundee, id, channel_id, Stage::Commitments);
        let driver = fundee::answer_funding_created(self.openings.clone(), gate, waiting, message);
        self.sign(key, slot, driver);
    }

    /// A signature under way is not cut short: it counts among the pending until it is done, even
    /// if its opening has ended meanwhile.
    fn sign(
        &self,
        key: TheirKey,
        slot: Option<Slot>,
        driver: impl Future<Output = Signed> + Send + 'static,
    ) {
        let reports = self.reports.clone();
        // Boxed: a task is moved several times before it runs, and this one is large.
        let driver = Box::pin(driver);
        tokio::spawn(async move {
            let signed = AssertUnwindSafe(driver).catch_unwind().await;
            let signed = signed.unwrap_or(Err(Failure::Panicked));
            let _ = reports.send(Report::Signed { key, signed, slot });
        });
    }

    pub(super) fn on_signed(&mut self, key: TheirKey, signed: Signed) -> Flow {
        match signed {
            Ok((opened, funding_signed)) => {
                let Some(entry) = self.remove_theirs(key) else { return Flow::Continue };
                self.send(&funding_signed);
                self.event(Event::Opened(opened.clone()));
                self.go_on_with(&opened);
                match entry.state {
                    State::Signing(signing) => self.on_early(signing.early),
                    State::Deciding(_) | State::Waiting(_) => Flow::Continue,
                }
            }
            Err(failure) => {
                self.fail_theirs(key, failure);
                Flow::Continue
            }
        }
    }

    pub(super) fn fundee_waited_too_long(&mut self, key: TheirKey) {
        let after = self.openings.node.deadlines.funding_created;
        self.interrupt_theirs(key, Failure::PeerSilent { message: "funding_created", after });
    }

    /// Ends an opening from outside its driver, unless its save has begun.
    /// `false` where it goes on.
    pub(super) fn interrupt_theirs(&mut self, key: TheirKey, failure: Failure) -> bool {
        let Some(entry) = self.theirs.get(key) else { return false };
        let ended = match &entry.state {
            State::Signing(signing) => signing.gate.end(),
            State::Deciding(_) | State::Waiting(_) => true,
        };
        if ended {
            self.fail_theirs(key, failure);
        }
        ended
    }

    fn fail_theirs(&mut self, key: TheirKey, failure: Failure) {
        let Some(entry) = self.remove_theirs(key) else { return };
        let id = key.temporary_channel_id;
        let failed = Failed {
            role: Role::Fundee,
            temporary_channel_id: id,
            channel_id: entry.channel_id(),
            stage: entry.stage(),
            failure: Arc::new(failure),
        };
        // The temporary id until funding_signed is out (B1-ERR-S-03).
        self.fail(&failed, Some(id));
    }

    fn remove_theirs(&mut self, key: TheirKey) -> Option<Box<Entry>> {
        let entry = self.theirs.remove(key)?;
        if let State::Deciding(deciding) = &entry.state {
            deciding.abort();
        }
        Some(entry)
    }

    /// Keeps a message about a channel of which the peer has sent `funding_created` and we have
    /// not answered it.  `false` if it is about no such channel.
    pub(super) fn keep_for_their_channel(&mut self, id: &ChannelId, bytes: &[u8]) -> bool {
        let key = self.theirs.key_of_channel(id);
        let entry = key.and_then(|key| self.theirs.get_mut(key));
        entry.is_some_and(|entry| entry.keep_early(bytes))
    }
}

/// Cuts what may be long in an offer, so that one which waits for a decision is small.  What is
/// cut is still too long to be valid, and refused as if it were whole.
fn shorten(message: &mut OpenChannel) {
    let common = &mut message.common_fields;
    if let Some(channel_type) = &mut common.channel_type
        && let Some(first) = channel_type.le_flags().get(..LONGEST_CHANNEL_TYPE)
    {
        *channel_type = ChannelTypeFeatures::from_le_bytes(first.to_vec());
    }
    if let Some(script) = &mut common.shutdown_scriptpubkey
        && let Some(first) = script.as_bytes().get(..LONGEST_SCRIPT)
    {
        *script = ScriptBuf::from_bytes(first.to_vec());
    }
}

/// The channel that the peer's `funding_created` makes, unless its outpoint is impossible.
fn channel_id_of(message: &FundingCreated) -> Option<ChannelId> {
    let vout = message.funding_output_index.into();
    opening_core::channel_id(OutPoint { txid: message.funding_txid, vout }).map(ChannelId)
}
