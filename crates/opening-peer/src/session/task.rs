//! The task that owns a connection: its loop, its writing, and what drivers report to it.

use std::pin::pin;
use std::sync::Arc;

use bitcoin::secp256k1::PublicKey;
use lightning::ln::msgs::{AcceptChannel, ErrorMessage, FundingSigned, WarningMessage};
use lightning::ln::types::ChannelId;
use lightning::ln::wire;
use opening_core::{NegotiatedFeatures, Role};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::channels::Links;
use super::inbound::ALL_CHANNELS;
use super::ours::Ours;
use super::parts::PartsError;
use super::theirs::{TheirKey, Theirs};
use super::wire::{Lent, Moved, NodeSend, Wire, take_turns};
use super::{Command, Key};
use crate::driver::fundee::Waiting;
use crate::event::{Event, Failed};
use crate::failure::{Failure, Stage};
use crate::funding::FundingError;
use crate::message::{Message, decode, encode};
use crate::negotiation::{BroadcastPermit, Opened};
use crate::openings::{Guest, Life, Openings, Slot, Under};
use crate::transport::{Transport, TransportError};

/// What a driver tells its session.
pub(crate) enum Report {
    /// A funder's.
    Ours { key: Key, report: OurReport },
    /// A fundee has decided about an offer.
    Answered { key: TheirKey, answer: Result<Box<(AcceptChannel, Waiting)>, Failure> },
    /// A fundee has signed and saved, or failed to.
    Signed {
        key: TheirKey,
        signed: Result<(Arc<Opened>, FundingSigned), Failure>,
        /// Its place, which others may have now.
        slot: Option<Slot>,
    },
    /// `channel_ready` of an opened channel is made and durable, or could not be.
    Prepared { channel_id: ChannelId, prepared: Result<(), Failure> },
}

/// What a funder tells its session.
pub(crate) enum OurReport {
    /// Send this `open_channel`.
    OpenChannel(Vec<u8>),
    /// A stage without a message.
    Stage(Stage),
    /// The final id is known.
    Identified(ChannelId),
    /// Send this `funding_created` and tell the handle.
    FundingCreated { message: Vec<u8>, funded: Option<oneshot::Sender<Result<(), FundingError>>> },
    /// The end.
    Done(Result<(Arc<Opened>, Option<BroadcastPermit>), Failure>),
}

/// Whether the connection goes on.
pub(super) enum Flow {
    Continue,
    /// What was queued is still written.
    Close(String),
}

/// What a session waits for.
enum Happening {
    Report(Report),
    Deadline,
    /// `None` where nobody is left who could have one.
    Command(Option<Command>),
    Moved(Moved),
}

pub(super) struct Task {
    pub(super) openings: Arc<Openings>,
    pub(super) peer: PublicKey,
    /// The peer, as its openings know it.
    pub(super) guest: Arc<Guest>,
    pub(super) features: Arc<NegotiatedFeatures>,
    pub(super) ours: Ours,
    pub(super) theirs: Theirs,
    pub(super) links: Links,
    pub(super) reports: mpsc::UnboundedSender<Report>,
    next_key: u64,
    wire: Wire,
    /// Whose turn it is.
    next: usize,
    commands: mpsc::UnboundedReceiver<Command>,
    reported: mpsc::UnboundedReceiver<Report>,
    life: watch::Sender<Life>,
}

impl Task {
    pub(super) fn new(
        openings: Arc<Openings>,
        peer: PublicKey,
        features: Arc<NegotiatedFeatures>,
        transport: Transport,
        (commands, sends): (mpsc::UnboundedReceiver<Command>, mpsc::Receiver<NodeSend>),
        life: watch::Sender<Life>,
    ) -> Self {
        let (reports, reported) = mpsc::unbounded_channel();
        Self {
            guest: Guest::new(openings.clone(), peer),
            openings,
            peer,
            features,
            ours: Ours::default(),
            theirs: Theirs::default(),
            links: Links::default(),
            reports,
            next_key: 0,
            wire: Wire::new(transport, sends),
            next: 0,
            commands,
            reported,
            life,
        }
    }

    pub(super) async fn run(mut self, first_message: Option<Vec<u8>>) {
        self.life.send_replace(Life::Running);
        self.event(Event::Connected);
        let mut flow = self.greet(first_message);
        if matches!(flow, Flow::Continue) {
            self.take_up_all();
        }
        let reason = loop {
            match flow {
                Flow::Continue => flow = self.turn().await,
                Flow::Close(reason) => break reason,
            }
        };
        log::debug!("{}: closing: {reason}", self.peer);
        self.end(reason).await;
        self.openings.disconnected(&self.peer, &self.life);
        self.life.send_replace(Life::Closed);
        self.await_saves().await;
    }

    /// What the node has to say before anything else is said.
    fn greet(&mut self, first_message: Option<Vec<u8>>) -> Flow {
        let Some(message) = first_message else { return Flow::Continue };
        self.on_sending(&message);
        if let Err(error) = self.wire.queue(&message) {
            return Flow::Close(format!("the node's first message: {error}"));
        }
        match decode(&message) {
            Ok(Message::Error(error)) if error.channel_id == ALL_CHANNELS => {
                Flow::Close("this node refuses the peer".into())
            }
            _ => Flow::Continue,
        }
    }

    /// One thing that happens.
    async fn turn(&mut self) -> Flow {
        self.wire.note_what_is_written();
        match self.happens().await {
            Happening::Deadline => self.on_deadline(),
            Happening::Report(report) => self.on_report(report),
            Happening::Command(Some(command)) => self.on_command(command),
            Happening::Command(None) => self.close("this node let go of it"),
            Happening::Moved(moved) => self.on_moved(moved),
        }
    }

    /// What our own side has done comes first, then the clock.  The node's wishes and the wire,
    /// which make work for both, take turns: neither a peer that never stops talking nor a node
    /// keeps the other waiting.
    async fn happens(&mut self) -> Happening {
        let deadline = self.next_deadline();
        let until = deadline.unwrap_or_else(Instant::now);
        let command = pin!(async { Happening::Command(self.commands.recv().await) });
        let moved = pin!(async { Happening::Moved(self.wire.moved().await) });
        tokio::select! {
            biased;
            Some(report) = self.reported.recv() => Happening::Report(report),
            () = sleep_until(until), if deadline.is_some() => Happening::Deadline,
            happened = take_turns([command, moved], &mut self.next) => happened,
        }
    }

    fn on_moved(&mut self, moved: Moved) -> Flow {
        match moved {
            Moved::Read(Ok(Some(bytes))) => return self.on_message(&bytes),
            Moved::Read(Ok(None)) => return Flow::Close("the peer closed it".into()),
            Moved::Read(Err(error)) | Moved::Flushed(Err(error)) => {
                return Flow::Close(error.to_string());
            }
            Moved::Flushed(Ok(())) => {}
            Moved::Send((message, done)) => self.send_for_the_node(&message, done),
            Moved::Back(Some(transport)) => self.wire.take_back(transport),
            Moved::Back(None) => return Flow::Close("this node dropped its transport".into()),
        }
        Flow::Continue
    }

    fn next_deadline(&self) -> Option<Instant> {
        let patience = self.openings.node.deadlines.peer;
        let reading = self.wire.stuck_since().map(|since| since + patience);
        reading.into_iter().chain(self.theirs.deadline()).min()
    }

    fn on_deadline(&mut self) -> Flow {
        let now = Instant::now();
        for key in self.theirs.late(now) {
            self.fundee_waited_too_long(key);
        }
        let patience = self.openings.node.deadlines.peer;
        self.wire.note_what_is_written();
        match self.wire.stuck_since() {
            Some(since) if now.duration_since(since) >= patience => {
                Flow::Close(format!("the peer has read nothing for {patience:?}"))
            }
            _ => Flow::Continue,
        }
    }

    fn on_report(&mut self, report: Report) -> Flow {
        match report {
            Report::Ours { key, report } => return self.on_our_report(key, report),
            Report::Signed { key, signed, slot } => {
                drop(slot);
                return self.on_signed(key, signed);
            }
            Report::Answered { key, answer } => self.on_answered(key, answer),
            Report::Prepared { channel_id, prepared } => self.on_prepared(channel_id, prepared),
        }
        Flow::Continue
    }

    fn on_command(&mut self, command: Command) -> Flow {
        match command {
            Command::Close => return self.close("this node closed it"),
            // The peer has given up what was under way here (B2-OPEN-R-04): a word about it could
            // be taken for one about an opening of the new connection.
            Command::Replaced => return Flow::Close("the peer has connected anew".into()),
            Command::Open { ask, begun, commands } => self.open(ask, begun, commands),
            Command::Cancel { key, done } => {
                let ended = self.interrupt_ours(key, Failure::Cancelled);
                if let Some(done) = done {
                    let _ = done.send(ended);
                }
            }
            Command::Advance { channel_id, done } => self.on_advance(channel_id, done),
            Command::SayAgain { channel_id } => self.say_again(channel_id),
            Command::TakeUp { channel_id } => self.take_up(channel_id),
            Command::Fail { channel_id, text } => self.fail_opened(channel_id, text),
            Command::Forget { channel_id } => self.forget_opened(&channel_id),
            Command::ShutDown { channel_id, script, done } => {
                self.shut_down(channel_id, script, done);
            }
            Command::Status { done } => {
                let _ = done.send(self.under_way());
            }
            Command::Lend { done } => self.lend(done),
            Command::CancelAll => {
                self.interrupt_all(|| Failure::Cancelled);
                return Flow::Close("this node keeps the transport for itself".into());
            }
        }
        Flow::Continue
    }

    /// The node wants no more of the connection: what is not being saved is cancelled.
    fn close(&mut self, reason: &str) -> Flow {
        self.interrupt_all(|| Failure::Cancelled);
        Flow::Close(reason.into())
    }

    fn interrupt_all(&mut self, why: impl Fn() -> Failure) {
        let all = (self.ours.keys(), self.theirs.keys());
        self.interrupt(all, why);
    }

    /// The connection is over.  What is being saved is awaited for a while: it becomes a channel.
    async fn end(&mut self, reason: String) {
        self.interrupt_all(|| Failure::Disconnected);
        // Nobody is to wait for an answer while a save goes on.
        self.wire.retire();
        self.commands.close();
        while self.commands.try_recv().is_ok() {}
        let mut is_alive = true;
        let patience = sleep(self.openings.node.deadlines.store);
        tokio::pin!(patience);
        while !(self.ours.is_empty() && self.theirs.is_empty()) {
            tokio::select! {
                Some(report) = self.reported.recv() => drop(self.on_report(report)),
                // What was said before does not wait for the save.
                flushed = self.wire.flush(), if is_alive => is_alive = flushed.is_ok(),
                () = &mut patience => break,
            }
        }
        // Before the peer's next connection, which may wait for this one, says that it is there.
        self.event(Event::Disconnected { reason });
        self.life.send_replace(Life::Ended);
        let patience = self.openings.node.deadlines.peer;
        let _ = tokio::time::timeout(patience, self.wire.close()).await;
    }

    /// A store that is late is awaited without the connection: its channel goes on over the next.
    async fn await_saves(&mut self) {
        while !(self.ours.is_empty() && self.theirs.is_empty()) {
            let Some(report) = self.reported.recv().await else { return };
            drop(self.on_report(report));
        }
    }

    pub(super) fn next_key(&mut self) -> Key {
        self.next_key += 1;
        Key(self.next_key)
    }

    /// Hands the transport to the node.
    fn lend(&mut self, done: oneshot::Sender<Result<Lent, PartsError>>) {
        // A node that has stopped waiting drops it, and the connection ends.
        let _ = done.send(self.wire.lend().ok_or(PartsError::HandedOut));
    }

    /// Queues what the node has to say, unless it has stopped waiting for that.
    fn send_for_the_node(
        &mut self,
        message: &[u8],
        done: oneshot::Sender<Result<(), TransportError>>,
    ) {
        if !done.is_closed() {
            self.on_sending(message);
            let _ = done.send(self.wire.queue(message));
        }
    }

    /// Queues a message of ours.
    pub(super) fn send<M: wire::Type>(&mut self, message: &M) {
        self.queue_logged(&encode(message));
    }

    /// Queues bytes of a message of ours.
    pub(super) fn queue_logged(&mut self, message: &[u8]) {
        if let Err(error) = self.wire.queue(message) {
            // Ours are short: the transport has failed, and the next flush says so.
            log::debug!("{}: not sent: {error}", self.peer);
        }
    }

    /// Refuses what the peer said and tells the node: by `error`, or by `warning` where the id
    /// names channels that are to live on (B1-ERR-S-06, B1-ERR-S-08).
    pub(super) fn refuse(&mut self, channel_id: ChannelId, text: String) {
        let data = text.clone();
        if self.must_survive(&channel_id) {
            self.send(&WarningMessage { channel_id, data });
            self.event(Event::WarningSent { channel_id, text });
        } else {
            self.send(&ErrorMessage { channel_id, data });
            self.event(Event::ErrorSent { channel_id, text });
        }
    }

    pub(super) fn progress(
        &self,
        role: Role,
        temporary_channel_id: ChannelId,
        channel_id: Option<ChannelId>,
        stage: Stage,
    ) {
        self.event(Event::Progress { role, temporary_channel_id, channel_id, stage });
    }

    /// Tells peer and node that an opening has failed.
    pub(super) fn fail(&mut self, failed: &Failed, reply_to: Option<ChannelId>) {
        log::info!("{}: {failed}", self.peer);
        self.tell_failed(failed, reply_to);
    }

    pub(super) fn tell_failed(&mut self, failed: &Failed, reply_to: Option<ChannelId>) {
        if let (Some(channel_id), Some(text)) = (reply_to, failed.failure.reply()) {
            self.refuse(channel_id, text);
        }
        self.openings.note_failure(self.peer, failed);
        self.event(Event::Failed(failed.clone()));
    }

    pub(super) fn event(&self, event: Event) {
        self.openings.tell(&self.peer, event);
    }

    /// Whether there is a connection to say anything on.
    pub(super) fn is_connected(&self) -> bool {
        *self.life.borrow() == Life::Running
    }

    fn under_way(&self) -> Vec<Under> {
        let (ours, theirs) = (self.ours.under_way(self.peer), self.theirs.under_way(self.peer));
        ours.chain(theirs).collect()
    }
}
