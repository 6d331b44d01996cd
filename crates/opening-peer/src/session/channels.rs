//! Opened channels on this connection: what is said of them until both `channel_ready` have passed.
//!
//! What they are is in [`Openings`](crate::Openings), which outlives the connection.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use lightning::ln::msgs::{ChannelReady, ChannelReestablish, ErrorMessage, Shutdown};
use lightning::ln::types::ChannelId;

use super::Done;
use super::task::{Report, Task};
use crate::event::{End, Event};
use crate::failure::{Failure, Stage};
use crate::negotiation::{Opened, reestablish};
use crate::openings::{ConfirmError, Step};

/// The channels that this connection carries.
#[derive(Default)]
pub(super) struct Links {
    by_id: HashMap<ChannelId, Link>,
    /// What the peer said of channels that an earlier connection opened and that are still being
    /// saved.
    early: HashMap<ChannelId, (ChannelReestablish, Vec<u8>)>,
}

#[derive(Default)]
struct Link {
    /// It was opened on this connection, or both `channel_reestablish` have passed: before that
    /// nothing else is said of it (B2-RE-B-09).
    is_live: bool,
    /// Our `channel_ready` is out, on this connection.
    is_said: bool,
    /// Our `shutdown` is out, on this connection (B2-SHUT-S-03).
    is_shut_down: bool,
    /// Signer and store are at work on `channel_ready`.
    is_preparing: bool,
    /// The node waits until a due `channel_ready` is out.
    waiting: Vec<Done>,
}

impl Link {
    /// Nothing is said of the channel, and it does not become ready, until it is reestablished.
    fn stand_still(&mut self) {
        (self.is_live, self.is_said) = (false, false);
        self.answer(Ok(()));
    }

    /// Tells everyone who waits what came of the evidence.
    fn answer(&mut self, result: Result<(), ConfirmError>) {
        for done in self.waiting.drain(..) {
            // The node may have stopped waiting.
            let _ = done.send(result);
        }
    }
}

impl Links {
    pub(super) fn contains(&self, id: &ChannelId) -> bool {
        self.by_id.contains_key(id)
    }
}

impl Task {
    /// A channel was opened here.  If the connection has ended since, the next one takes it up.
    pub(super) fn go_on_with(&mut self, opened: &Opened) {
        let id = opened.channel_id;
        self.progress(opened.role(), opened.temporary_channel_id, Some(id), Stage::Depth);
        if !self.is_connected() {
            return self.openings.take_up(opened);
        }
        self.links.by_id.insert(id, Link { is_live: true, ..Link::default() });
        self.advance(id);
    }

    /// The channels of earlier connections go on over this one (B2-RE-B-06, B2-RE-B-08).
    pub(super) fn take_up_all(&mut self) {
        for opened in self.openings.channels_with(&self.peer) {
            self.take_up(opened.channel_id);
        }
    }

    pub(super) fn take_up(&mut self, id: ChannelId) {
        // The node operates it, or it has been taken up meanwhile.
        if self.openings.node.rest.owns(&self.peer, &id) || self.links.contains(&id) {
            return;
        }
        let Some((opened, progress)) = self.openings.channel(&id) else { return };
        match progress.failed {
            // B2-RE-B-07.
            Some(failure) => self.say_failed(id, failure.reason),
            None => {
                self.links.by_id.insert(id, Link::default());
                self.send(&reestablish::channel_reestablish(&opened));
            }
        }
        if let Some((message, bytes)) = self.links.early.remove(&id) {
            self.on_channel_reestablish(message, &bytes);
        }
    }

    /// The peer tells what it remembers of a channel.
    pub(super) fn on_channel_reestablish(&mut self, message: ChannelReestablish, bytes: &[u8]) {
        let id = message.channel_id;
        let is_owned = self.openings.node.rest.owns(&self.peer, &id);
        let is_opened_here = self.ours.has_channel(&id) || self.theirs.has_channel(&id);
        if !is_owned && !is_opened_here && self.openings.is_saving(&self.peer, &id) {
            self.links.early.insert(id, (message, bytes.to_vec()));
            return;
        }
        // Also of one that has failed: that our state is old changes what is to be done about it.
        let is_failed = self.openings.has_failed(&self.peer, &id);
        if !is_owned && (self.links.contains(&id) || is_failed) && self.openings.claims(&message) {
            if let Some(link) = self.links.by_id.get_mut(&id) {
                link.stand_still();
            }
            return self.openings.judge_soon(id);
        }
        if is_owned || !self.links.contains(&id) {
            return self.on_out_of_place("channel_reestablish", id, bytes);
        }
        self.on_reestablished(&message);
    }

    /// What the peer says can be judged without our signer.
    fn on_reestablished(&mut self, message: &ChannelReestablish) {
        let id = message.channel_id;
        let Some(link) = self.links.by_id.get_mut(&id) else { return };
        match reestablish::judge(message, None) {
            Ok(()) => {
                link.is_live = true;
                // Again, if they were sent before (B2-RE-R-02, B2-RE-S-07).
                (link.is_said, link.is_shut_down) = (false, false);
                self.advance(id);
            }
            Err(error) => self.openings.fail_channel(&id, End::Reestablish(error)),
        }
    }

    /// There is news about the channel; `done` hears when what is due has been said.
    pub(super) fn on_advance(&mut self, id: ChannelId, done: Done) {
        match self.links.by_id.get_mut(&id) {
            Some(link) => link.waiting.push(done),
            // Said when the channel is taken up.
            None => drop(done.send(Ok(()))),
        }
        self.advance(id);
    }

    pub(super) fn say_again(&mut self, id: ChannelId) {
        if let Some(link) = self.links.by_id.get_mut(&id) {
            link.is_said = false;
        }
        self.advance(id);
    }

    fn advance(&mut self, id: ChannelId) {
        let Some(link) = self.links.by_id.get_mut(&id) else { return };
        if !link.is_live {
            // Nothing is made before it can be said: a reorganisation may come first.
            return link.answer(Ok(()));
        }
        match self.openings.step(&id) {
            // Whoever waits hears when it is made.
            Step::Prepare if link.is_preparing => return,
            Step::Prepare => {
                link.is_preparing = true;
                return self.prepare(id);
            }
            Step::Say(message) if !link.is_said => {
                link.is_said = true;
                self.openings.is_said(&id);
                self.send(&message);
                self.tell_said(&id);
            }
            Step::Say(_) | Step::Nothing => {}
        }
        self.say_shutdown(id);
        // Last: whoever hears it may look at once at what was said.
        if let Some(link) = self.links.by_id.get_mut(&id) {
            link.answer(Ok(()));
        }
    }

    /// Says `shutdown`, once on each connection.
    fn say_shutdown(&mut self, channel_id: ChannelId) {
        let Some(link) = self.links.by_id.get_mut(&channel_id).filter(|link| !link.is_shut_down)
        else {
            return;
        };
        if let Some(scriptpubkey) = self.openings.shutdown_to_say(&channel_id) {
            link.is_shut_down = true;
            self.send(&Shutdown { channel_id, scriptpubkey });
        }
    }

    /// Has `channel_ready` made, which takes signer and store.
    fn prepare(&self, channel_id: ChannelId) {
        let (openings, reports) = (self.openings.clone(), self.reports.clone());
        let features = self.features.clone();
        tokio::spawn(async move {
            let preparing = openings.prepare(channel_id, &features);
            let prepared = AssertUnwindSafe(preparing).catch_unwind().await;
            let prepared = prepared.unwrap_or(Err(Failure::Panicked));
            let _ = reports.send(Report::Prepared { channel_id, prepared });
        });
    }

    pub(super) fn on_prepared(&mut self, id: ChannelId, prepared: Result<(), Failure>) {
        let Some(link) = self.links.by_id.get_mut(&id) else { return };
        link.is_preparing = false;
        match prepared {
            Ok(()) => self.advance(id),
            // The channel is saved: it waits until the next evidence asks again.
            Err(failure) => {
                link.answer(Err(ConfirmError::NotReady));
                log::error!("{}: {id}: channel_ready is due, but {failure}", self.peer);
                self.say_shutdown(id);
            }
        }
    }

    fn tell_said(&mut self, id: &ChannelId) {
        if let Some((opened, _)) = self.openings.channel(id)
            && !self.openings.is_in_use(id)
        {
            let temporary_id = opened.temporary_channel_id;
            self.progress(opened.role(), temporary_id, Some(*id), Stage::ChannelReady);
        }
        self.tell_if_ready(id);
    }

    /// Ours until the channel is in use; then the node's, which alone knows what it means.
    pub(super) fn on_channel_ready(&mut self, message: &ChannelReady, bytes: &[u8]) {
        let id = message.channel_id;
        if self.links.contains(&id) && !self.openings.is_in_use(&id) {
            self.openings.channel_ready(message);
            self.tell_if_ready(&id);
        } else if !self.keep_for_our_channel(&id, bytes) {
            self.on_out_of_place("channel_ready", id, bytes);
        }
    }

    /// Both have said `channel_ready`: the peer's may be here before ours is even made.
    fn tell_if_ready(&mut self, id: &ChannelId) {
        if !self.links.by_id.get(id).is_some_and(|link| link.is_said) {
            return;
        }
        if let Some(ready) = self.openings.becomes_ready(id) {
            self.event(Event::Ready(Box::new(ready)));
            self.openings.tell_if_announceable(id);
        }
    }

    /// An opened channel has failed: the peer hears of it, and nothing else about it any more.
    pub(super) fn fail_opened(&mut self, id: ChannelId, text: String) {
        self.forget_opened(&id);
        self.say_failed(id, text);
    }

    fn say_failed(&mut self, channel_id: ChannelId, text: String) {
        self.send(&ErrorMessage { channel_id, data: text.clone() });
        self.event(Event::ErrorSent { channel_id, text });
    }

    pub(super) fn forget_opened(&mut self, id: &ChannelId) {
        if let Some(mut link) = self.links.by_id.remove(id) {
            link.answer(Ok(()));
        }
    }
}
