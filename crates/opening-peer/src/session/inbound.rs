//! What the peer sends, and whom it concerns.

use bitcoin::secp256k1::constants::COMPACT_SIGNATURE_SIZE;
use lightning::ln::msgs::{ErrorMessage, Ping, Pong, WarningMessage};
use lightning::ln::types::ChannelId;

use super::Key;
use super::task::{Flow, Task};
use super::theirs::TheirKey;
use crate::event::{End, Event};
use crate::failure::Failure;
use crate::message::{Consequence, Message, Undecodable, UndecodableKind, decode};

/// Names all channels in `error`, none in particular in `warning` (B1-ERR-S-01).
pub(super) const ALL_CHANNELS: ChannelId = ChannelId([0; 32]);

const ERROR: u16 = 17;
const OPEN_CHANNEL: u16 = 32;
const FUNDING_CREATED: u16 = 34;

/// A `ping` that asks for this much or more wants no answer (B1-PING-R-02).
const PING_UNANSWERED: u16 = 65532;

/// Types that BOLT 7 gives to gossip.
fn is_gossip(type_number: u16) -> bool {
    matches!(type_number, 256..=258 | 261..=265)
}

/// Where a message that is not read here, but known to be about a channel, names it.
fn channel_id_offset(type_number: u16) -> Option<usize> {
    match type_number {
        // open_channel2 begins with the chain.
        64 => Some(34),
        39..=41 | 65..=74 | 77 | 80 | 81 | 127 | 128 | 130..=135 => Some(2),
        // stfu and announcement_signatures have their numbers outside of BOLT 2's block.
        2 | 259 => Some(2),
        _ => None,
    }
}

/// Types to which an unknown channel is answered (B1-ERR-S-05).
fn is_answered(type_number: u16) -> bool {
    matches!(type_number, 32..=255)
}

/// The same message with a signature of zeros, which can be read and is never valid: one out of
/// range is as good as a wrong one, and gets the same answer (B1-ERR-S-10).
fn without_signature(bytes: &[u8]) -> Vec<u8> {
    let start = if bytes.starts_with(&FUNDING_CREATED.to_be_bytes()) { 68 } else { 34 };
    let mut bytes = bytes.to_vec();
    if let Some(signature) = bytes.get_mut(start..start + COMPACT_SIGNATURE_SIZE) {
        signature.fill(0);
    }
    bytes
}

impl Task {
    pub(super) fn on_message(&mut self, bytes: &[u8]) -> Flow {
        let message = match decode(bytes) {
            Ok(message) => message,
            Err(defect) => return self.on_undecodable(defect, bytes),
        };
        match message {
            // A second init says nothing new.
            Message::Init(_) | Message::Pong(_) => {}
            Message::Ping(ping) => self.on_ping(&ping),
            Message::Warning(warning) => self.on_warning(warning, bytes),
            Message::Error(error) => self.on_error(error, bytes),
            Message::OpenChannel(message) => self.on_open_channel(message),
            Message::AcceptChannel(message) => self.on_accept_channel(message, bytes),
            Message::FundingCreated(message) => self.on_funding_created(message, bytes),
            Message::FundingSigned(message) => self.on_funding_signed(message, bytes),
            Message::ChannelReady(message) => self.on_channel_ready(&message, bytes),
            Message::Shutdown(message) => return self.on_shutdown(&message, bytes),
            Message::ChannelReestablish(message) => self.on_channel_reestablish(message, bytes),
            Message::Other { type_number } => return self.on_other(type_number, bytes),
        }
        Flow::Continue
    }

    fn on_ping(&mut self, ping: &Ping) {
        if ping.ponglen < PING_UNANSWERED {
            self.send(&Pong { byteslen: ping.ponglen });
        }
    }

    fn on_warning(&mut self, warning: WarningMessage, bytes: &[u8]) {
        let WarningMessage { channel_id, data: text } = warning;
        self.event(Event::WarningReceived { channel_id, text });
        if self.belongs_to_node(&channel_id) {
            self.openings.node.rest.message(&self.peer, bytes);
        }
    }

    fn on_error(&mut self, error: ErrorMessage, bytes: &[u8]) {
        let ErrorMessage { channel_id, data: text } = error;
        let all = channel_id == ALL_CHANNELS;
        let node_s = all || self.belongs_to_node(&channel_id);
        let (ours, theirs) = self.pending(&channel_id);
        if !(node_s || !ours.is_empty() || !theirs.is_empty()) {
            // An error about nothing is ignored (B1-ERR-R-05).
            return log::debug!("{}: error about unknown channel {channel_id}: {text}", self.peer);
        }
        self.event(Event::ErrorReceived { channel_id, text: text.clone() });
        self.interrupt((ours, theirs), || Failure::PeerError(text.clone()));
        // What is being saved becomes a channel, and then fails.
        self.ours.keep_where_saving(&channel_id, bytes);
        self.theirs.keep_where_saving(&channel_id, bytes);
        if node_s {
            self.end_opened_by_peer(&ErrorMessage { channel_id, data: text }, bytes);
        }
    }

    /// The peer's `error` about opened channels, which the rest of the node may have a part in.
    pub(super) fn end_opened_by_peer(&mut self, error: &ErrorMessage, bytes: &[u8]) {
        self.end_opened(&error.channel_id, || End::PeerError(error.data.clone()));
        self.openings.node.rest.message(&self.peer, bytes);
    }

    /// An `error` that the node sends ends here what it names (B1-ERR-S-06).
    pub(super) fn on_sending(&mut self, bytes: &[u8]) {
        if !bytes.starts_with(&ERROR.to_be_bytes()) {
            return;
        }
        if let Ok(Message::Error(error)) = decode(bytes) {
            let pending = self.pending(&error.channel_id);
            self.interrupt(pending, || Failure::NodeError(error.data.clone()));
            self.end_opened(&error.channel_id, || End::NodeError(error.data.clone()));
        }
    }

    /// Ends the opened channels that an `error` with this id is about (B5-FAIL-B-05).
    fn end_opened(&mut self, id: &ChannelId, why: impl Fn() -> End) {
        let named = if *id == ALL_CHANNELS {
            self.openings.channels_with(&self.peer).iter().map(|opened| opened.channel_id).collect()
        } else if self.openings.has_channel(&self.peer, id) {
            vec![*id]
        } else {
            Vec::new()
        };
        for id in named {
            // Those that the node operates are its own to fail.
            if !self.openings.node.rest.owns(&self.peer, &id) {
                self.forget_opened(&id);
                self.openings.channel_failed(&id, why());
            }
        }
    }

    /// The openings that an `error` with this id is about, those of ours and the peer's.
    fn pending(&self, id: &ChannelId) -> (Vec<Key>, Vec<TheirKey>) {
        if *id == ALL_CHANNELS {
            return (self.ours.keys(), self.theirs.keys());
        }
        (self.ours.key(id).into_iter().collect(), self.theirs.key(id).into_iter().collect())
    }

    /// Ends these openings, except those that are being saved.  `false` if none ended.
    pub(super) fn interrupt(
        &mut self,
        (ours, theirs): (Vec<Key>, Vec<TheirKey>),
        why: impl Fn() -> Failure,
    ) -> bool {
        let mut ended = false;
        for key in ours {
            ended |= self.interrupt_ours(key, why());
        }
        for key in theirs {
            ended |= self.interrupt_theirs(key, why());
        }
        ended
    }

    /// A message that is no step of a pending opening: the node's if it is about an opened
    /// channel; else it ends the opening that it names, or is answered (B1-ERR-S-05).
    pub(super) fn on_out_of_place(&mut self, message: &'static str, id: ChannelId, bytes: &[u8]) {
        if self.belongs_to_node(&id) {
            return self.openings.node.rest.message(&self.peer, bytes);
        }
        if self.openings.has_failed(&self.peer, &id) {
            // B2-RE-B-07.
            return log::debug!("{}: {message} about failed channel {id}", self.peer);
        }
        let (ours, theirs) = (self.ours.key(&id), self.theirs.key(&id));
        if ours.is_none() && theirs.is_none() {
            return self.refuse(id, "no such channel".into());
        }
        let mut ended = false;
        if let Some((key, stage)) = ours.and_then(|key| Some((key, self.ours.stage(key)?))) {
            ended |= self.interrupt_ours(key, Failure::OutOfOrder { message, stage });
        }
        if let Some((key, stage)) = theirs.and_then(|key| Some((key, self.theirs.stage(key)?))) {
            ended |= self.interrupt_theirs(key, Failure::OutOfOrder { message, stage });
        }
        if !ended {
            self.refuse(id, format!("unexpected {message}"));
        }
    }

    /// Whether it is an opened channel, of this session's making or not.
    pub(super) fn belongs_to_node(&self, id: &ChannelId) -> bool {
        self.links.contains(id) || self.openings.node.rest.owns(&self.peer, id)
    }

    /// Whether an `error` with this id would fail what is to live on.
    pub(super) fn must_survive(&self, id: &ChannelId) -> bool {
        self.names_channels(id) || self.ours.is_saving(id) || self.theirs.is_saving(id)
    }

    /// Whether it is no temporary id, but one of a channel, or of all of them.
    pub(super) fn names_channels(&self, id: &ChannelId) -> bool {
        *id == ALL_CHANNELS
            || self.belongs_to_node(id)
            // Saved, but of an earlier connection: an `error` would make the peer close it.
            || self.openings.has_channel(&self.peer, id)
            || self.ours.has_channel(id)
            || self.theirs.has_channel(id)
    }

    fn on_other(&mut self, type_number: u16, bytes: &[u8]) -> Flow {
        let rest = &self.openings.node.rest;
        if is_gossip(type_number) || rest.knows_type(type_number) {
            rest.message(&self.peer, bytes);
            return Flow::Continue;
        }
        if let Some(offset) = channel_id_offset(type_number) {
            let Some(&id) = bytes.get(offset..).and_then(|rest| rest.first_chunk()) else {
                // B1-MSG-R-04.
                return Flow::Close(format!("the peer's message of type {type_number}: truncated"));
            };
            let id = ChannelId(id);
            if is_answered(type_number) || self.belongs_to_node(&id) {
                self.on_out_of_place("message of an open channel", id, bytes);
                return Flow::Continue;
            }
        }
        if type_number.is_multiple_of(2) {
            // B1-MSG-R-02.
            Flow::Close(format!("the peer sent a message of unknown even type {type_number}"))
        } else {
            Flow::Continue
        }
    }

    fn on_undecodable(&mut self, defect: Undecodable, bytes: &[u8]) -> Flow {
        let is_signature = defect.kind == UndecodableKind::InvalidSignature;
        if let Some(id) = defect.channel_id
            && (self.openings.node.rest.owns(&self.peer, &id)
                || is_signature && self.belongs_to_node(&id))
        {
            // Its owner may read what is unknown here.
            self.openings.node.rest.message(&self.peer, bytes);
            return Flow::Continue;
        }
        if is_signature {
            return self.on_message(&without_signature(bytes));
        }
        let (id, flow) = match defect.consequence() {
            Consequence::FailChannel(id) => (id, Flow::Continue),
            Consequence::Close(id) => {
                (id.unwrap_or(ALL_CHANNELS), Flow::Close(format!("the peer's {defect}")))
            }
        };
        self.refuse_undecodable(id, defect);
        flow
    }

    fn refuse_undecodable(&mut self, id: ChannelId, defect: Undecodable) {
        let (ours, theirs) = (self.ours.key(&id), self.theirs.key(&id));
        let is_new = ours.is_none() && theirs.is_none();
        let pending = (ours.into_iter().collect(), theirs.into_iter().collect());
        if self.interrupt(pending, || Failure::Undecodable(defect.clone())) {
            return;
        }
        if is_new && defect.type_number == Some(OPEN_CHANNEL) {
            self.guest.count_offer();
            self.turn_away(id, Failure::Undecodable(defect));
        } else {
            self.refuse(id, defect.to_string());
        }
    }
}
