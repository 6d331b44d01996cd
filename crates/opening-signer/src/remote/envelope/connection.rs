//! The task that owns the connection to a signer, and makes it anew when it breaks.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::calls::Calls;
use super::client::EnvelopeOptions;
use super::hello::{NodeHello, SignerHello, same_chain};
use super::link::LinkError;
use super::messages::{FromNode, FromSigner};
use crate::remote::backoff::Backoff;
use crate::remote::frame::{close, read_frame, write_frame};
use crate::remote::reasons::Reasons;

/// For connecting, and for the signer's first message.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// A server closes a node that it has not heard of for twice that time.
const MAX_KEEP_ALIVE: Duration = Duration::from_secs(30);
/// For the signer to take a request.
const WRITE_PATIENCE: Duration = Duration::from_secs(30);

/// A connection to a signer, private already.
pub trait Stream: AsyncRead + AsyncWrite + Send {}

impl<S: AsyncRead + AsyncWrite + Send> Stream for S {}

/// How a node gets a connection to its signer: by dialling it, or by waiting until it dials.
#[async_trait]
pub trait Connect: Send + 'static {
    /// The next connection.  Called again, with pauses, when it fails or when the connection that
    /// it gave breaks.  May be dropped while it is awaited.
    async fn connect(&mut self) -> io::Result<Box<dyn Stream>>;
}

/// What the task and the callers share.
pub(super) struct Shared {
    calls: Mutex<Calls>,
    /// There is something to send.
    pub(super) wake: Notify,
    /// Nobody can call any more.
    pub(super) closing: Notify,
}

impl Shared {
    pub(super) fn new() -> Self {
        Self { calls: Mutex::new(Calls::new()), wake: Notify::new(), closing: Notify::new() }
    }

    pub(super) fn calls(&self) -> MutexGuard<'_, Calls> {
        // Nothing is left half-changed by a panic: none of the code that holds it can.
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Until `closing`; `changed` says each time a connection began or failed.
pub(super) async fn keep_connected(
    shared: Arc<Shared>,
    mut connector: Box<dyn Connect>,
    mut options: EnvelopeOptions,
    changed: watch::Sender<()>,
) {
    options.keep_alive = options.keep_alive.min(MAX_KEEP_ALIVE);
    let mut backoff = Backoff::new();
    let mut reasons = Reasons::default();
    loop {
        let connected = tokio::select! {
            connected = connect(&shared, connector.as_mut(), &options) => connected,
            () = shared.closing.notified() => break,
        };
        let ended = match connected {
            Err(error) => error,
            Ok((mut reader, mut writer)) => {
                log::info!("connected to the signer");
                reasons.reset();
                changed.send_replace(());
                let begun = Instant::now();
                let ended = tokio::select! {
                    ended = read(&shared, &options, &mut reader) => Some(ended),
                    ended = write(&shared, &options, &mut writer) => Some(ended),
                    () = shared.closing.notified() => None,
                };
                close(&mut writer).await;
                let Some(ended) = ended else { break };
                backoff.ended_after(begun.elapsed());
                ended
            }
        };
        let level = reasons.level(&ended.to_string());
        log::log!(level, "no connection to the signer ({}): {ended}", ended.code());
        shared.calls().down(ended);
        changed.send_replace(());
        tokio::select! {
            () = sleep(backoff.next()) => {}
            () = shared.closing.notified() => break,
        }
    }
    shared.calls().down(LinkError::Lost("closed by the node itself".into()));
}

/// The two directions of a connection.
type Halves = (ReadHalf<Pin<Box<dyn Stream>>>, WriteHalf<Pin<Box<dyn Stream>>>);

async fn connect(
    shared: &Shared,
    connector: &mut dyn Connect,
    options: &EnvelopeOptions,
) -> Result<Halves, LinkError> {
    let connecting = timeout(CONNECT_PATIENCE, connector.connect()).await;
    let stream = connecting.map_err(|_| LinkError::Silent("no connection"))?;
    let stream = stream.map_err(|error| LinkError::not_connected(&error))?;
    let (mut reader, mut writer) = tokio::io::split(Box::into_pin(stream));
    match begin(shared, options, &mut reader, &mut writer).await {
        Ok(()) => Ok((reader, writer)),
        Err(error) => {
            close(&mut writer).await;
            Err(error)
        }
    }
}

async fn begin(
    shared: &Shared,
    options: &EnvelopeOptions,
    reader: &mut (impl AsyncRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
) -> Result<(), LinkError> {
    let chain_hash = options.chain_hash;
    let hellos = async {
        let written = write_frame(writer, &NodeHello { chain_hash }.encode()).await;
        match read_frame(reader).await {
            Ok(None) => written.map(|()| None),
            // Who has refused us and closed may have said why before.
            read => read,
        }
    };
    let frame =
        timeout(CONNECT_PATIENCE, hellos).await.map_err(|_| LinkError::Silent("no hello"))?;
    let Some(frame) = frame? else {
        // hsmd has no other way to say that it does not understand.
        let reason = "the signer closed instead of a hello (is it hsmd's wire?)";
        return Err(LinkError::Lost(reason.into()));
    };
    let hello = SignerHello::decode(&frame)?;
    same_chain(chain_hash, hello.chain_hash)?;
    let limit = usize::try_from(hello.max_in_flight).unwrap_or(usize::MAX);
    shared.calls().up(hello.info, limit)
}

async fn read(
    shared: &Shared,
    options: &EnvelopeOptions,
    reader: &mut (impl AsyncRead + Unpin),
) -> LinkError {
    // A ping goes out each time, and any message shows that the signer is there.
    let patience = options.keep_alive * 2;
    loop {
        let frame = match timeout(patience, read_frame(reader)).await {
            Err(_) => return LinkError::Silent("not even a ping is answered"),
            Ok(Err(error)) => return error.into(),
            Ok(Ok(None)) => return LinkError::Lost("the signer closed the connection".into()),
            Ok(Ok(Some(frame))) => frame,
        };
        let done = match FromSigner::decode(&frame) {
            Err(malformed) => Err(malformed.into()),
            Ok(FromSigner::Pong(_)) => Ok(()),
            Ok(FromSigner::Reply(id, answer)) => shared.calls().answered(id, answer),
        };
        if let Err(error) = done {
            return error;
        }
        // There may be room for another request.
        shared.wake.notify_one();
    }
}

async fn write(
    shared: &Shared,
    options: &EnvelopeOptions,
    writer: &mut (impl AsyncWrite + Unpin),
) -> LinkError {
    let mut pings = 0;
    let mut next_ping = Instant::now() + options.keep_alive;
    loop {
        let next = if Instant::now() >= next_ping { None } else { shared.calls().next_frame() };
        let frame = match next {
            Some(frame) => frame,
            None if Instant::now() >= next_ping => {
                // Its caller has long gone, and it holds a place among those that may be in flight.
                let unanswered = shared.calls().unanswered_since();
                if unanswered
                    .is_some_and(|since| since.elapsed() > options.deadline.saturating_mul(2))
                {
                    return LinkError::Silent("it answers pings and no request");
                }
                pings += 1;
                next_ping = Instant::now() + options.keep_alive;
                FromNode::Ping(pings).encode().into()
            }
            None => {
                tokio::select! {
                    () = shared.wake.notified() => {}
                    () = sleep_until(next_ping) => {}
                }
                continue;
            }
        };
        match timeout(WRITE_PATIENCE, write_frame(writer, &frame)).await {
            Err(_) => return LinkError::Silent("it does not take what it is asked"),
            Ok(Err(error)) => return error.into(),
            Ok(Ok(())) => {}
        }
    }
}
