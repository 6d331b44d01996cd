//! What the peer sends, and whom it concerns.

use lightning::ln::msgs::{ErrorMessage, Ping, Pong, Shutdown};
use lightning::ln::types::ChannelId;

use super::task::{Flow, Task};
use crate::event::Event;
use crate::failure::Failure;
use crate::message::{Consequence, Message, Undecodable, channel_id_of, decode};

/// Names all channels in `error`, none in `warning` (B1-ERR-S-01).
const ALL_CHANNELS: ChannelId = ChannelId([0; 32]);

/// A `ping` that asks for this much or more wants no answer (B1-PING-R-02).
const PING_UNANSWERED: u16 = 65532;

/// Types that BOLT 7 gives to gossip.
fn is_gossip(type_number: u16) -> bool {
    matches!(type_number, 256..=258 | 261..=265)
}

/// Types in which BOLT 2 speaks about one channel (B1-ERR-S-05).
fn is_about_a_channel(type_number: u16) -> bool {
    matches!(
        type_number,
        2 | 38..=41 | 64..=74 | 77 | 80 | 81 | 127 | 128 | 130..=134 | 136 | 259
    )
}

impl Task {
    pub(super) fn on_message(&mut self, bytes: &[u8]) -> Flow {
        let message = match decode(bytes) {
            Ok(message) => message,
            Err(defect) => return self.on_undecodable(&defect),
        };
        match message {
            // A second init draws no error (it says nothing new).
            Message::Init(_) | Message::Pong(_) => {}
            Message::Ping(ping) => self.on_ping(&ping),
            Message::Warning(warning) => {
                let (channel_id, text) = (warning.channel_id, warning.data);
                self.event(Event::WarningReceived { channel_id, text });
            }
            Message::Error(error) => self.on_error(error, bytes),
            Message::OpenChannel(message) => self.on_open_channel(message),
            Message::AcceptChannel(message) => self.on_accept_channel(message),
            Message::FundingCreated(message) => self.on_funding_created(message),
            Message::FundingSigned(message) => self.on_funding_signed(message),
            Message::ChannelReady(message) => {
                if !self.hand_to_owner(message.channel_id, bytes) {
                    self.on_channel_ready(&message);
                }
            }
            Message::Shutdown(message) => self.on_shutdown(&message, bytes),
            Message::ChannelReestablish(message) => {
                self.on_other_channel(message.channel_id, bytes)
            }
            Message::Other { type_number } => return self.on_other(type_number, bytes),
        }
        Flow::Continue
    }

    fn on_ping(&mut self, ping: &Ping) {
        if ping.ponglen < PING_UNANSWERED {
            self.send(&Pong { byteslen: ping.ponglen });
        }
    }

    fn on_error(&mut self, error: ErrorMessage, bytes: &[u8]) {
        let ErrorMessage { channel_id, data: text } = error;
        let all = channel_id == ALL_CHANNELS;
        let ours =
            if all { self.ours.keys() } else { self.ours.key(&channel_id).into_iter().collect() };
        let theirs = if all {
            self.theirs.keys()
        } else {
            self.theirs.key(&channel_id).into_iter().collect()
        };
        let known =
            all || !ours.is_empty() || !theirs.is_empty() || self.channels.contains(&channel_id);
        let owned = self.openings.node.rest.owns(&self.peer, &channel_id);
        // An error about nothing is ignored (B1-ERR-R-05).
        if known || owned {
            self.event(Event::ErrorReceived { channel_id, text: text.clone() });
        }
        for key in ours {
            self.interrupt_ours(key, Failure::PeerError(text.clone()));
        }
        for key in theirs {
            self.interrupt_theirs(key, Failure::PeerError(text.clone()));
        }
        if all || owned {
            self.openings.node.rest.message(&self.peer, bytes);
        }
    }

    /// Before the funding is signed there is nothing to shut down (B2-SHUT-R-01).
    fn on_shutdown(&mut self, message: &Shutdown, bytes: &[u8]) {
        let id = message.channel_id;
        let (ours, theirs) = (self.ours.key(&id), self.theirs.key(&id));
        if ours.is_none() && theirs.is_none() {
            return self.on_other_channel(id, bytes);
        }
        if let Some((key, stage)) = ours.and_then(|key| Some((key, self.ours.stage(key)?))) {
            self.interrupt_ours(key, Failure::OutOfOrder { message: "shutdown", stage });
        }
        if let Some((key, stage)) = theirs.and_then(|key| Some((key, self.theirs.stage(key)?))) {
            self.interrupt_theirs(key, Failure::OutOfOrder { message: "shutdown", stage });
        }
    }

    /// A message about an opened channel is the node's.
    fn on_other_channel(&mut self, id: ChannelId, bytes: &[u8]) {
        if self.channels.contains(&id) {
            self.openings.node.rest.message(&self.peer, bytes);
        } else if !self.hand_to_owner(id, bytes) {
            self.unknown_channel(id);
        }
    }

    fn hand_to_owner(&self, id: ChannelId, bytes: &[u8]) -> bool {
        let rest = &self.openings.node.rest;
        let owned = rest.owns(&self.peer, &id);
        if owned {
            rest.message(&self.peer, bytes);
        }
        owned
    }

    fn on_other(&mut self, type_number: u16, bytes: &[u8]) -> Flow {
        let rest = &self.openings.node.rest;
        if is_gossip(type_number) || rest.knows_type(type_number) {
            rest.message(&self.peer, bytes);
            return Flow::Continue;
        }
        if is_about_a_channel(type_number)
            && let Some(id) = channel_id_of(bytes)
        {
            self.on_other_channel(id, bytes);
            return Flow::Continue;
        }
        if type_number.is_multiple_of(2) {
            // B1-MSG-R-02.
            Flow::Close(format!("the peer sent a message of unknown even type {type_number}"))
        } else {
            Flow::Continue
        }
    }

    pub(super) fn unknown_channel(&mut self, id: ChannelId) {
        self.send_error(id, "no such channel".into());
    }

    fn on_undecodable(&mut self, defect: &Undecodable) -> Flow {
        let text = defect.to_string();
        let (channel_id, close) = match defect.consequence() {
            Consequence::FailChannel(id) => (Some(id), false),
            Consequence::Close(id) => (id, true),
        };
        if let Some(id) = channel_id {
            let (ours, theirs) = (self.ours.key(&id), self.theirs.key(&id));
            if ours.is_none() && theirs.is_none() {
                self.send_error(id, text.clone());
            }
            if let Some(key) = ours {
                self.interrupt_ours(key, Failure::Undecodable(text.clone()));
            }
            if let Some(key) = theirs {
                self.interrupt_theirs(key, Failure::Undecodable(text.clone()));
            }
        }
        if close { Flow::Close(format!("the peer's {text}")) } else { Flow::Continue }
    }
}
