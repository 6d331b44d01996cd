//! The calls of a node that are not answered yet, across connections.
//!
//! A call is encoded once, and what is sent again are those bytes.  What the signer may have
//! forgotten of a channel goes before its first call on a new connection.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::link::LinkError;
use super::messages::{Answer, Body, FromNode, Request, mixed_up};
use crate::call::Call;
use crate::error::{HsmError, HsmResult};
use crate::info::Info;
use crate::request::ChannelRef;

/// Calls that may wait at once.
const MAX_CALLS: usize = 16_384;
/// Requests that are told again before a call: channel, setup, validate.
const MAX_REPLAYED: usize = 3;

type Frame = Arc<[u8]>;

/// What a channel's handle knows of what the signer was told.
#[derive(Default)]
pub(super) struct Memory(Mutex<Told>);

#[derive(Default)]
struct Told {
    /// Calls that succeeded, in order: channel, setup, validate.
    frames: Vec<(Call, u64, Frame)>,
    /// The connection that knows of them.
    connection: u64,
    /// The last call that others may depend on.
    last: u64,
}

impl Memory {
    fn told(&self) -> MutexGuard<'_, Told> {
        // Nothing is left half-changed by a panic: none of the code that holds it can.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Told {
    fn succeeded(&mut self, call: Call, id: u64, frame: Frame) {
        match call {
            Call::Channel | Call::Setup | Call::ValidateHolderCommitment => {
                self.frames.retain(|(of, ..)| *of != call);
                self.frames.push((call, id, frame));
                self.frames.sort_by_key(|(_, id, _)| *id);
            }
            _ => {}
        }
    }
}

struct Pending {
    frame: Frame,
    call: Call,
    after: u64,
    memory: Arc<Memory>,
    answer: oneshot::Sender<HsmResult<Answer>>,
    /// When, on the last connection that it was sent on.
    sent: Option<Instant>,
    /// What it depends on has failed or is unknown: it is not sent again, and this is its answer.
    doom: Option<HsmError>,
}

/// All calls of one signer.
#[derive(Default)]
pub(super) struct Calls {
    next_id: u64,
    pending: BTreeMap<u64, Pending>,
    /// Of those the ones that this connection has not sent.
    unsent: BTreeSet<u64>,
    /// What is told again on this connection, and is not answered.
    replayed: HashMap<u64, (Arc<Memory>, Instant)>,
    /// Goes out before anything else.
    outbox: VecDeque<Frame>,
    /// Counts connections, from 1.
    connection: u64,
    limit: usize,
    info: Option<Info>,
    /// Why there is no connection; `None` while there is one.
    pub(super) down: Option<LinkError>,
}

/// What others may depend on, and what may depend on others: they change what the signer knows of
/// the channel.
fn is_in_order(call: Call) -> bool {
    match call {
        Call::Setup
        | Call::SignCounterpartyCommitment
        | Call::ValidateHolderCommitment
        | Call::SignHolderCommitment => true,
        Call::Channel | Call::ForgetChannel | Call::Pubkeys | Call::PerCommitmentPoint => false,
    }
}

impl Calls {
    pub(super) fn new() -> Self {
        let down = Some(LinkError::Lost("not connected yet".into()));
        Self { down, ..Self::default() }
    }

    pub(super) fn info(&self) -> Option<&Info> {
        self.info.as_ref()
    }

    /// Puts a call behind all others.
    pub(super) fn push(
        &mut self,
        channel: ChannelRef,
        memory: &Arc<Memory>,
        body: Body,
    ) -> HsmResult<(u64, oneshot::Receiver<HsmResult<Answer>>)> {
        if self.pending.len() >= MAX_CALLS {
            let reason = format!("more than {MAX_CALLS} calls wait for it");
            return Err(HsmError::Unavailable(reason));
        }
        self.next_id += 1;
        let (id, call) = (self.next_id, body.call());
        let mut after = 0;
        if is_in_order(call) {
            let mut told = memory.told();
            // Not on one whose caller has gone: nobody would learn why this one is aborted.
            let last = self.pending.get(&told.last);
            if last.is_some_and(|last| !last.answer.is_closed()) {
                after = told.last;
            }
            told.last = id;
        }
        let frame = FromNode::Request(Request::new(id, channel, after, body)).encode().into();
        let (answer, receiver) = oneshot::channel();
        let memory = Arc::clone(memory);
        let (sent, doom) = (None, None);
        self.pending.insert(id, Pending { frame, call, after, memory, answer, sent, doom });
        self.unsent.insert(id);
        Ok((id, receiver))
    }

    /// The caller has gone.  What was sent stays until it is answered: its id is in use.
    pub(super) fn abandon(&mut self, id: u64) {
        if self.unsent.remove(&id) {
            self.pending.remove(&id);
            self.abort_those_after(id, &HsmError::Aborted);
        }
    }

    /// The caller waits no longer: what it is told.
    pub(super) fn overdue(&self, id: u64) -> HsmError {
        let reason = match &self.down {
            Some(down) => format!("{}: {down}", down.code()),
            None => "no answer within the deadline".into(),
        };
        match self.pending.get(&id) {
            Some(Pending { sent: Some(_), .. }) => HsmError::Indeterminate(reason),
            _ => HsmError::Unavailable(reason),
        }
    }

    /// There is a connection to a signer that says this of itself.
    pub(super) fn up(&mut self, info: Info, limit: usize) -> Result<(), LinkError> {
        if let Some(before) = &self.info {
            is_unchanged(before, &info)?;
        }
        self.info = Some(info);
        self.connection += 1;
        self.limit = limit;
        self.down = None;
        Ok(())
    }

    /// There is none any more.  What it left unanswered is sent on the next one, unless the signer
    /// broke the protocol: then nobody knows which of them that was the answer to.
    pub(super) fn down(&mut self, reason: LinkError) {
        let sent: Vec<u64> =
            self.pending.keys().copied().filter(|id| !self.unsent.contains(id)).collect();
        for id in sent {
            let pending = &self.pending[&id];
            let error = match &reason {
                LinkError::Malformed(how) => Some(HsmError::Protocol(how.clone())),
                _ => pending.doom.clone(),
            };
            match error {
                Some(error) => self.finish(id, Err(error)),
                None if pending.answer.is_closed() => {
                    self.pending.remove(&id);
                    // The next connection never sees it, and would carry out what depends on it.
                    let unknown = "the connection ended over the call before it, which is given up";
                    self.abort_those_after(id, &HsmError::Indeterminate(unknown.into()));
                }
                None => drop(self.unsent.insert(id)),
            }
        }
        self.replayed.clear();
        self.outbox.clear();
        self.down = Some(reason);
    }

    /// What goes out next, if anything may.
    pub(super) fn next_frame(&mut self) -> Option<Frame> {
        if let Some(frame) = self.outbox.pop_front() {
            return Some(frame);
        }
        if self.in_flight() + MAX_REPLAYED >= self.limit {
            return None;
        }
        let id = self.unsent.pop_first()?;
        let pending = self.pending.get_mut(&id).expect("what is unsent is pending");
        let now = Instant::now();
        pending.sent = Some(now);
        let frame = Arc::clone(&pending.frame);
        let mut told = pending.memory.told();
        if told.connection != self.connection {
            told.connection = self.connection;
            for (_, id, frame) in &told.frames {
                self.replayed.insert(*id, (Arc::clone(&pending.memory), now));
                self.outbox.push_back(Arc::clone(frame));
            }
        }
        self.outbox.push_back(frame);
        self.outbox.pop_front()
    }

    /// Since when the request that was sent first on this connection has had no answer.
    pub(super) fn unanswered_since(&self) -> Option<Instant> {
        let sent = self.pending.iter().filter(|(id, _)| !self.unsent.contains(id));
        let sent = sent.filter_map(|(_, pending)| pending.sent);
        sent.chain(self.replayed.values().map(|(_, sent)| *sent)).min()
    }

    fn in_flight(&self) -> usize {
        self.pending.len() - self.unsent.len() + self.replayed.len()
    }

    /// The signer's answer to a request.
    pub(super) fn answered(&mut self, id: u64, answer: HsmResult<Answer>) -> Result<(), LinkError> {
        if let Some((memory, _)) = self.replayed.remove(&id) {
            if let Err(error) = answer {
                self.replay_failed(&memory, &error);
            }
            return Ok(());
        }
        let Some(pending) = self.pending.get(&id).filter(|_| !self.unsent.contains(&id)) else {
            return Err(LinkError::Malformed(format!(
                "it answered request {id}, which is not open"
            )));
        };
        match &answer {
            Ok(answer) if answer.call() != pending.call => {
                self.finish(id, Err(mixed_up()));
                return Err(LinkError::Malformed(format!("it answered another call than {id}")));
            }
            Ok(_) => {
                pending.memory.told().succeeded(pending.call, id, Arc::clone(&pending.frame));
            }
            Err(_) => {}
        }
        self.finish(id, answer);
        Ok(())
    }

    /// Without it nothing that was sent for the channel means anything.
    fn replay_failed(&mut self, memory: &Arc<Memory>, error: &HsmError) {
        memory.told().connection = 0;
        let of_channel = |pending: &Pending| Arc::ptr_eq(&pending.memory, memory);
        let ids: Vec<u64> =
            self.pending.iter().filter(|(_, one)| of_channel(one)).map(|(id, _)| *id).collect();
        for id in ids {
            let Some(pending) = self.pending.get_mut(&id) else { continue };
            // Its id stays in use until the signer has answered.
            let (unused, _) = oneshot::channel();
            let answer = std::mem::replace(&mut pending.answer, unused);
            drop(answer.send(Err(error.clone())));
            if self.unsent.remove(&id) {
                self.pending.remove(&id);
            }
        }
    }

    fn finish(&mut self, id: u64, answer: HsmResult<Answer>) {
        let Some(pending) = self.pending.remove(&id) else { return };
        self.unsent.remove(&id);
        let failed = answer.is_err();
        // A caller that has gone needs no answer.
        drop(pending.answer.send(answer));
        if failed {
            self.abort_those_after(id, &HsmError::Aborted);
        }
    }

    /// The signer aborts those that it has; the others are not sent.  `if_sent` is the answer of
    /// those that were.
    fn abort_those_after(&mut self, failed: u64, if_sent: &HsmError) {
        let mut aborted = BTreeSet::from([failed]);
        let ids: Vec<u64> = self.pending.range(failed..).map(|(id, _)| *id).collect();
        for id in ids {
            let Some(pending) = self.pending.get_mut(&id) else { continue };
            if !aborted.contains(&pending.after) {
                continue;
            }
            aborted.insert(id);
            if self.unsent.remove(&id) {
                if let Some(pending) = self.pending.remove(&id) {
                    let error = if pending.sent.is_some() { if_sent } else { &HsmError::Aborted };
                    drop(pending.answer.send(Err(error.clone())));
                }
            } else {
                pending.doom = Some(if_sent.clone());
            }
        }
    }
}

/// Channels under way were begun under what it said first.
fn is_unchanged(before: &Info, now: &Info) -> Result<(), LinkError> {
    if before.enforcement != now.enforcement {
        return Err(LinkError::InfoChanged("enforcement"));
    }
    if before.bounds != now.bounds {
        return Err(LinkError::InfoChanged("bounds"));
    }
    if before.pipelining != now.pipelining {
        return Err(LinkError::InfoChanged("pipelining"));
    }
    Ok(())
}
