//! One peer's connection, as a byte stream between LDK's synchronous callbacks and a session.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use bitcoin::secp256k1::PublicKey;
use bytes::{Buf, BytesMut};
use lightning::ln::msgs::{ErrorAction, MessageSendEvent, WarningMessage};
use lightning::ln::types::ChannelId;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use super::ids::Ids;
use super::outbound;
use crate::transport::MAX_MESSAGE_LENGTH;

/// Bytes of messages that wait for the session, or for `process_events`: each direction has as
/// much.
const QUEUE_CAPACITY: usize = 256 * 1024;

/// The header of a frame: the length of its message, big-endian.
const HEADER: usize = 4;

/// Why the adapter lets go of a peer; the session tells it with the end of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer has sent {QUEUE_CAPACITY} bytes that are not read yet [ldk-queue-full]")]
struct QueueFull;

/// What wakes whoever runs `process_events`, and who has something for it.
#[derive(Default)]
pub(super) struct Outgoing {
    /// Connections with events to fetch, each once.
    waiting: Mutex<Vec<Weak<Connection>>>,
    news: Notify,
}

impl Outgoing {
    /// Waits until a connection has something to say.
    pub(super) async fn wait(&self) {
        self.news.notified().await;
    }

    /// Everything that is to be sent.
    pub(super) fn take(&self) -> Vec<MessageSendEvent> {
        let waiting = std::mem::take(&mut *lock(&self.waiting));
        let connections = waiting.iter().filter_map(Weak::upgrade);
        connections.flat_map(|connection| connection.take_events()).collect()
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing here is left half-changed by a panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether more is to come from the peer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inbound {
    Open,
    /// LDK has disconnected it: what is here is still read.
    Closed,
    Overrun,
}

struct State {
    ids: Ids,
    inbound: Inbound,
    /// Frames for the session.
    received: BytesMut,
    reader: Option<Waker>,
    /// Bytes of the frame that the session is writing.
    frame: BytesMut,
    events: Vec<MessageSendEvent>,
    /// Bytes of the messages in `events`.
    queued: usize,
    writer: Option<Waker>,
    /// `Outgoing` knows that there are events.
    is_listed: bool,
    /// LDK has been told to disconnect the peer, or has done so itself.
    has_ended: bool,
}

/// One peer's.
pub(super) struct Connection {
    peer: PublicKey,
    state: Mutex<State>,
    outgoing: Arc<Outgoing>,
}

impl Connection {
    pub(super) fn new(peer: PublicKey, outgoing: Arc<Outgoing>) -> Arc<Self> {
        let state = Mutex::new(State {
            ids: Ids::default(),
            inbound: Inbound::Open,
            received: BytesMut::new(),
            reader: None,
            frame: BytesMut::new(),
            events: Vec::new(),
            queued: 0,
            writer: None,
            is_listed: false,
            has_ended: false,
        });
        Arc::new(Self { peer, state, outgoing })
    }

    /// Whether an opening on this connection has, or had, this id.
    pub(super) fn names(&self, id: &ChannelId) -> bool {
        lock(&self.state).ids.contains(id)
    }

    /// Whether an opening by this id, in either direction, is under way.
    pub(super) fn is_pending(&self, temporary_channel_id: &ChannelId) -> bool {
        lock(&self.state).ids.is_pending(temporary_channel_id)
    }

    /// The inner handler begins an opening by this id.
    pub(super) fn release(&self, temporary_channel_id: &ChannelId) {
        lock(&self.state).ids.release(temporary_channel_id);
    }

    /// Queues a message from the peer for the session, of which `note` remembers the ids.  Never
    /// blocks: a peer whose queue is full is disconnected.
    pub(super) fn feed(self: &Arc<Self>, message: &[u8], note: impl FnOnce(&mut Ids)) {
        let mut state = lock(&self.state);
        if state.inbound != Inbound::Open {
            return;
        }
        if state.received.len() + HEADER + message.len() > QUEUE_CAPACITY {
            state.overrun(self.peer);
            return self.list(state);
        }
        note(&mut state.ids);
        let length = u32::try_from(message.len()).expect("less than the queue's capacity");
        state.received.extend_from_slice(&length.to_be_bytes());
        state.received.extend_from_slice(message);
        state.wake_reader();
    }

    /// LDK has disconnected the peer: the session reads what is here, and ends.
    pub(super) fn disconnected(&self) {
        let mut state = lock(&self.state);
        state.has_ended = true;
        state.drop_events();
        if state.inbound == Inbound::Open {
            state.inbound = Inbound::Closed;
        }
        state.wake_reader();
    }

    fn take_events(&self) -> Vec<MessageSendEvent> {
        let mut state = lock(&self.state);
        state.is_listed = false;
        state.take_events()
    }

    /// Tells whoever runs `process_events`, once for all that waits.
    fn list(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        if state.events.is_empty() || std::mem::replace(&mut state.is_listed, true) {
            return;
        }
        drop(state);
        lock(&self.outgoing.waiting).push(Arc::downgrade(self));
        self.outgoing.news.notify_one();
    }

    /// The session has ended: so does the connection, behind the session's last words.
    fn session_ended(self: &Arc<Self>) {
        let mut state = lock(&self.state);
        if !std::mem::replace(&mut state.has_ended, true) {
            log::debug!(
                "{}: the session has ended, LDK is to disconnect [ldk-session-ended]",
                self.peer
            );
            state.inbound = Inbound::Closed;
            let action = ErrorAction::DisconnectPeer { msg: None };
            state.events.push(MessageSendEvent::HandleError { node_id: self.peer, action });
        }
        self.list(state);
    }
}

impl State {
    fn wake_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    fn take_events(&mut self) -> Vec<MessageSendEvent> {
        self.queued = 0;
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
        std::mem::take(&mut self.events)
    }

    fn drop_events(&mut self) {
        self.take_events();
    }

    /// Nothing more is read; the peer is told, in a way that fails no channel.
    fn overrun(&mut self, peer: PublicKey) {
        log::warn!("{peer}: {QueueFull}");
        self.inbound = Inbound::Overrun;
        self.received = BytesMut::new();
        self.has_ended = true;
        let data = "too many messages at once".to_owned();
        let msg = WarningMessage { channel_id: ChannelId([0; 32]), data };
        let action = ErrorAction::DisconnectPeerWithWarning { msg };
        self.events.push(MessageSendEvent::HandleError { node_id: peer, action });
        self.wake_reader();
    }

    /// Takes every whole frame that the session has written.
    fn take_frames(&mut self, peer: PublicKey) {
        while let Some(&header) = self.frame.first_chunk::<HEADER>() {
            // Lengths are those of the session's writer: none exceeds 65535.
            let length = u32::from_be_bytes(header) as usize;
            if self.frame.len() < HEADER + length {
                return;
            }
            self.frame.advance(HEADER);
            let message = self.frame.split_to(length);
            match outbound::event(peer, &message) {
                Some(event) => {
                    self.ids.note_sent(&event);
                    self.queued += length;
                    self.events.push(event);
                }
                None => log::warn!(
                    "{peer}: LDK's PeerManager sends no message like this one of {length} bytes, \
                     type {:02x?}: dropped [ldk-unsendable]",
                    message.get(..2).unwrap_or_default()
                ),
            }
        }
    }
}

/// The session's end of a connection.
pub(super) struct SessionEnd(pub(super) Arc<Connection>);

impl AsyncRead for SessionEnd {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = lock(&self.0.state);
        if !state.received.is_empty() {
            let length = state.received.len().min(buffer.remaining());
            buffer.put_slice(&state.received.split_to(length));
            if state.received.is_empty() {
                // A quiet connection keeps nothing.
                state.received = BytesMut::new();
            }
            return Poll::Ready(Ok(()));
        }
        match state.inbound {
            Inbound::Open => {
                state.reader = Some(context.waker().clone());
                Poll::Pending
            }
            Inbound::Closed => Poll::Ready(Ok(())),
            Inbound::Overrun => Poll::Ready(Err(io::Error::other(QueueFull))),
        }
    }
}

impl AsyncWrite for SessionEnd {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = lock(&self.0.state);
        if state.has_ended {
            // Nobody hears it.
            return Poll::Ready(Ok(bytes.len()));
        }
        if state.queued >= QUEUE_CAPACITY {
            state.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        // One frame's worth at most: what is taken is bounded, whatever the session has queued.
        let taken = &bytes[..bytes.len().min(MAX_MESSAGE_LENGTH)];
        state.frame.extend_from_slice(taken);
        state.take_frames(self.0.peer);
        self.0.list(state);
        Poll::Ready(Ok(taken.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.session_ended();
        Poll::Ready(Ok(()))
    }
}

impl Drop for SessionEnd {
    fn drop(&mut self) {
        self.0.session_ended();
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::secp256k1::{Secp256k1, SecretKey};
    use lightning::ln::msgs::TxComplete;
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::message::encode;

    /// A session that is still saving may outlive its connection, and the next one has begun.
    #[tokio::test]
    async fn what_is_written_after_the_disconnect_is_not_sent() {
        let secret = SecretKey::from_slice(&[1; 32]).unwrap();
        let peer = secret.public_key(&Secp256k1::signing_only());
        let outgoing = Arc::<Outgoing>::default();
        let connection = Connection::new(peer, outgoing.clone());
        let mut session = SessionEnd(connection.clone());
        let message = encode(&TxComplete { channel_id: ChannelId([1; 32]) });
        let frame = [&[0, 0, 0, 34], &message[..]].concat();
        // In whatever pieces it comes.
        session.write_all(&frame[..9]).await.unwrap();
        assert!(outgoing.take().is_empty());
        session.write_all(&frame[9..]).await.unwrap();
        session.write_all(&frame).await.unwrap();
        outgoing.wait().await;
        assert_eq!(outgoing.take().len(), 2);
        connection.disconnected();
        session.write_all(&frame).await.unwrap();
        session.shutdown().await.unwrap();
        assert!(outgoing.take().is_empty());
    }
}
