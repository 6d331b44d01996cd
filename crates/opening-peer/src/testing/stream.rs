//! A connection that goes wrong.

use core::pin::Pin;
use core::task::{Context, Poll, Waker, ready};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Sleep, sleep};

/// Which way bytes go, as the owner of the faulty end sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the far end to the owner.
    Read,
    /// From the owner to the far end.
    Write,
}

/// What goes wrong with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamFault {
    /// Nothing passes, and nobody is told, until [`StreamFaults::release`].
    Stall,
    /// The owner gets an error in both directions.  The far end learns of it when the owner drops
    /// the stream.
    Break,
    /// This direction is at its end.  Reading says so; the owner of the end that writes gets an
    /// error, and the far end reads all that was written and then the end.
    End,
}

/// What goes wrong with a connection, and when.  Clones share plan and counts.
#[derive(Clone, Debug)]
pub struct StreamFaults(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    struck: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    read: Flow,
    write: Flow,
    broken: bool,
    released: bool,
}

/// One direction: its plan, and what has passed.
#[derive(Debug, Default)]
struct Flow {
    /// Bytes in one call at most.
    piece: Option<usize>,
    delay: Duration,
    plan: Vec<(When, StreamFault)>,
    bytes: u64,
    calls: u64,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, Debug)]
enum When {
    AfterBytes(u64),
    AtCall(u64),
}

/// What is about to be done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    PassBytes,
    /// To flush, or to shut down.
    Finish,
}

/// What a call may do.
enum Gate {
    /// Pass so many bytes at most, after a delay.
    Pass(usize, Duration),
    Fault(StreamFault),
}

impl Flow {
    fn fault(&self, step: Step, released: bool) -> Option<StreamFault> {
        let is_due = |when: When| match when {
            When::AfterBytes(bytes) => self.bytes >= bytes,
            When::AtCall(nth) => step == Step::PassBytes && self.calls + 1 >= nth,
        };
        let stands = |fault| !(released && fault == StreamFault::Stall);
        let mut due = self.plan.iter().filter(|(when, fault)| is_due(*when) && stands(*fault));
        due.next().map(|(_, fault)| *fault)
    }

    /// Bytes that may pass before the next fault that counts them.
    fn room(&self, released: bool) -> usize {
        let faults = self.plan.iter().filter_map(|(when, fault)| match when {
            When::AfterBytes(_) if released && *fault == StreamFault::Stall => None,
            When::AfterBytes(bytes) => usize::try_from(bytes.saturating_sub(self.bytes)).ok(),
            When::AtCall(_) => None,
        });
        faults.chain(self.piece).min().unwrap_or(usize::MAX)
    }
}

impl State {
    fn flow(&mut self, direction: Direction) -> &mut Flow {
        match direction {
            Direction::Read => &mut self.read,
            Direction::Write => &mut self.write,
        }
    }

    fn wake(&mut self) {
        for flow in [&mut self.read, &mut self.write] {
            if let Some(waker) = flow.waker.take() {
                waker.wake();
            }
        }
    }
}

impl StreamFaults {
    /// Nothing goes wrong.
    pub fn none() -> Self {
        let struck = watch::Sender::new(false);
        Self(Arc::new(Shared { state: Mutex::default(), struck }))
    }

    /// The same, and no call passes more than `bytes`, which is 1 at least.
    pub fn pieces(self, direction: Direction, bytes: usize) -> Self {
        self.state().flow(direction).piece = Some(bytes.max(1));
        self
    }

    /// The same, and whatever passes takes so long by tokio's clock.
    pub fn delay(self, direction: Direction, delay: Duration) -> Self {
        self.state().flow(direction).delay = delay;
        self
    }

    /// The same, and `fault` once exactly `bytes` have passed.
    pub fn after_bytes(self, direction: Direction, bytes: u64, fault: StreamFault) -> Self {
        self.state().flow(direction).plan.push((When::AfterBytes(bytes), fault));
        self
    }

    /// The same, and `fault` in the place of the `nth` call that would pass bytes, from 1.
    pub fn at_call(self, direction: Direction, nth: u64, fault: StreamFault) -> Self {
        self.state().flow(direction).plan.push((When::AtCall(nth), fault));
        self
    }

    /// Now, and in both directions.
    pub fn strike(&self, fault: StreamFault) {
        let mut state = self.state();
        state.released = false;
        for direction in [Direction::Read, Direction::Write] {
            state.flow(direction).plan.insert(0, (When::AfterBytes(0), fault));
        }
        state.wake();
    }

    /// Lets what stalls go on, now and later.
    pub fn release(&self) {
        let mut state = self.state();
        state.released = true;
        state.wake();
    }

    /// Waits until something has gone wrong.  Pieces and delays do not count.
    pub async fn struck(&self) {
        // The sender lives in `self`.
        let _ = self.0.struck.subscribe().wait_for(|struck| *struck).await;
    }

    /// Bytes that have passed.
    pub fn bytes(&self, direction: Direction) -> u64 {
        self.state().flow(direction).bytes
    }

    /// Calls that have passed bytes.
    pub fn calls(&self, direction: Direction) -> u64 {
        self.state().flow(direction).calls
    }

    fn gate(&self, direction: Direction, step: Step, context: &Context<'_>) -> Gate {
        let mut state = self.state();
        let State { broken, released, .. } = *state;
        let flow = state.flow(direction);
        flow.waker = Some(context.waker().clone());
        let fault = if broken { Some(StreamFault::Break) } else { flow.fault(step, released) };
        let Some(fault) = fault else { return Gate::Pass(flow.room(released), flow.delay) };
        if fault == StreamFault::Break && !broken {
            state.broken = true;
            state.wake();
        }
        self.0.struck.send_replace(true);
        Gate::Fault(fault)
    }

    fn passed(&self, direction: Direction, bytes: usize) {
        let mut state = self.state();
        let flow = state.flow(direction);
        flow.bytes += bytes as u64;
        flow.calls += 1;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Another stream, on which things go wrong.
#[derive(Debug)]
pub struct FaultyStream<S> {
    inner: S,
    faults: StreamFaults,
    /// Bytes that are here, and not yet due.
    arriving: Vec<u8>,
    reading: Wait,
    writing: Wait,
}

impl<S> FaultyStream<S> {
    /// `inner`, with these faults.
    pub fn new(inner: S, faults: StreamFaults) -> Self {
        let (reading, writing) = Default::default();
        Self { inner, faults, arriving: Vec::new(), reading, writing }
    }
}

/// A delay under way.
#[derive(Debug, Default)]
struct Wait(Option<Pin<Box<Sleep>>>);

impl Wait {
    /// Begins, unless it is under way.
    fn begin(&mut self, delay: Duration) {
        if !delay.is_zero() {
            self.0.get_or_insert_with(|| Box::pin(sleep(delay)));
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            Some(sleep) => sleep.as_mut().poll(context),
            None => Poll::Ready(()),
        }
    }

    fn end(&mut self) {
        self.0 = None;
    }
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "on purpose")
}

impl<S: AsyncRead + Unpin> AsyncRead for FaultyStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let (room, delay) = match this.faults.gate(Direction::Read, Step::PassBytes, context) {
            Gate::Pass(room, delay) => (room, delay),
            Gate::Fault(StreamFault::Stall) => return Poll::Pending,
            Gate::Fault(StreamFault::Break) => return Poll::Ready(Err(broken())),
            Gate::Fault(StreamFault::End) => return Poll::Ready(Ok(())),
        };
        if this.arriving.is_empty() {
            let mut space = vec![0; room.min(buffer.remaining())];
            let mut piece = ReadBuf::new(&mut space);
            ready!(Pin::new(&mut this.inner).poll_read(context, &mut piece))?;
            if piece.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.arriving.extend_from_slice(piece.filled());
            this.reading.begin(delay);
        }
        ready!(this.reading.poll(context));
        this.reading.end();
        // The caller may have come back with less space.
        let length = this.arriving.len().min(buffer.remaining());
        buffer.put_slice(&this.arriving[..length]);
        this.arriving.drain(..length);
        this.faults.passed(Direction::Read, length);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> FaultyStream<S> {
    /// What a direction that has gone wrong answers to its writer.
    fn refuse<T>(&mut self, fault: StreamFault, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        match fault {
            StreamFault::Stall => Poll::Pending,
            StreamFault::Break => Poll::Ready(Err(broken())),
            StreamFault::End => {
                ready!(Pin::new(&mut self.inner).poll_shutdown(context))?;
                Poll::Ready(Err(io::Error::new(io::ErrorKind::BrokenPipe, "on purpose")))
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FaultyStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let (room, delay) = match this.faults.gate(Direction::Write, Step::PassBytes, context) {
            Gate::Pass(room, delay) => (room, delay),
            Gate::Fault(fault) => return this.refuse(fault, context),
        };
        this.writing.begin(delay);
        ready!(this.writing.poll(context));
        let piece = &bytes[..room.min(bytes.len())];
        let written = ready!(Pin::new(&mut this.inner).poll_write(context, piece))?;
        this.writing.end();
        this.faults.passed(Direction::Write, written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.faults.gate(Direction::Write, Step::Finish, context) {
            Gate::Pass(..) => Pin::new(&mut this.inner).poll_flush(context),
            Gate::Fault(fault) => this.refuse(fault, context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.faults.gate(Direction::Write, Step::Finish, context) {
            Gate::Pass(..) => Pin::new(&mut this.inner).poll_shutdown(context),
            Gate::Fault(fault) => this.refuse(fault, context),
        }
    }
}
