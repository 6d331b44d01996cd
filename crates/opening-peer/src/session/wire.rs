//! The transport of a session: what goes out over it, in whose turn, and what is said while the
//! node has it.

use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::{pending, select_all};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::transport::{Transport, TransportError, Writer};

/// Bytes waiting to be written above which nothing more is read: a peer that asks without
/// listening waits.
const WRITE_HIGH_WATER: usize = 256 * 1024;

/// Bytes waiting to be written above which the node's own messages wait, so that only what the
/// peer asked for can stop our reading: else two nodes with much gossip would wait for each other.
/// It also bounds what of the node's an opening's message may find before it.
const NODE_HIGH_WATER: usize = WRITE_HIGH_WATER / 2;

/// Messages of the node's that wait here; all others wait in the hands of who sends them.
const NODE_SENDS: usize = 4;

/// A message of the node's own, and who waits until it is queued.
pub(crate) type NodeSend = (Vec<u8>, oneshot::Sender<Result<(), TransportError>>);

pub(super) fn node_sends() -> (mpsc::Sender<NodeSend>, mpsc::Receiver<NodeSend>) {
    mpsc::channel(NODE_SENDS)
}

/// Something that happens, to be waited for.
pub(super) type Source<'a, T> = Pin<&'a mut (dyn Future<Output = T> + Send)>;

/// Waits for the first of several sources; the one that was served last is asked last.
pub(super) async fn take_turns<T, const N: usize>(
    mut sources: [Source<'_, T>; N],
    next: &mut usize,
) -> T {
    sources.rotate_left(*next);
    let (happened, index, _) = select_all(sources).await;
    *next = (*next + index + 1) % N;
    happened
}

/// What happens on the wire.
pub(super) enum Moved {
    /// All is written.
    Flushed(Result<(), TransportError>),
    /// The peer's next message, or its end.
    Read(Result<Option<Vec<u8>>, TransportError>),
    /// There is room for a message of the node's.
    Send(NodeSend),
    /// The node gives the transport back, or has dropped it.
    Back(Option<Box<Transport>>),
}

/// What was said while the node has the transport; it goes out when the node is done with it.
#[derive(Clone, Debug, Default)]
pub(super) struct Outbox(Arc<Mutex<Vec<Vec<u8>>>>);

impl Outbox {
    fn keep(&self, message: &[u8]) {
        // Nothing here can be left half-changed by a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(message.to_vec());
    }

    /// Queues everything behind what the writer has already.
    pub(super) fn empty_into(&self, writer: &mut Writer) -> Result<(), TransportError> {
        let messages = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        messages.iter().try_for_each(|message| writer.queue(message))
    }
}

/// What the node gets for as long as it has the transport.
#[derive(Debug)]
pub(crate) struct Lent {
    pub(super) transport: Box<Transport>,
    pub(super) back: oneshot::Sender<Box<Transport>>,
    pub(super) outbox: Outbox,
}

enum Place {
    Here(Box<Transport>),
    /// With the node.
    Lent {
        back: oneshot::Receiver<Box<Transport>>,
        outbox: Outbox,
    },
}

pub(super) struct Wire {
    place: Place,
    /// Since when something waits to be written, and how much had been written then.
    writing_since: Option<(Instant, u64)>,
    /// Bytes ever queued.
    queued_ever: u64,
    /// What the node wants to say beside us.
    sends: mpsc::Receiver<NodeSend>,
    /// Whose turn it is.
    next: usize,
}

impl Wire {
    pub(super) fn new(transport: Transport, sends: mpsc::Receiver<NodeSend>) -> Self {
        let place = Place::Here(Box::new(transport));
        Self { place, writing_since: None, queued_ever: 0, sends, next: 0 }
    }

    /// The next thing that happens.  Writing, reading and the node's own messages take turns, so
    /// that none of them keeps the others waiting.  Cancel safe.
    pub(super) async fn moved(&mut self) -> Moved {
        let Transport { reader, writer } = &mut **match &mut self.place {
            Place::Here(transport) => transport,
            Place::Lent { back, .. } => return Moved::Back(back.await.ok()),
        };
        let (queued, must_flush) = (writer.queued(), writer.needs_flush());
        let flush = pin!(async {
            if !must_flush {
                return pending().await;
            }
            Moved::Flushed(writer.flush().await)
        });
        let read = pin!(async {
            if queued >= WRITE_HIGH_WATER {
                return pending().await;
            }
            Moved::Read(reader.read().await)
        });
        let send = pin!(async {
            if queued >= NODE_HIGH_WATER {
                return pending().await;
            }
            match self.sends.recv().await {
                Some(send) => Moved::Send(send),
                // Nobody is left who could send.
                None => pending().await,
            }
        });
        let moved = take_turns([flush, read, send], &mut self.next).await;
        if matches!(moved, Moved::Flushed(_)) {
            self.writing_since = None;
        }
        moved
    }

    /// Queues bytes of a whole message, or keeps it until the transport is back.
    pub(super) fn queue(&mut self, message: &[u8]) -> Result<(), TransportError> {
        let writer = match &mut self.place {
            Place::Here(transport) => &mut transport.writer,
            Place::Lent { outbox, .. } => {
                outbox.keep(message);
                return Ok(());
            }
        };
        let before = writer.queued();
        writer.queue(message)?;
        self.queued_ever += (writer.queued() - before) as u64;
        let written = self.written();
        self.writing_since.get_or_insert_with(|| (Instant::now(), written));
        Ok(())
    }

    /// Bytes that the connection has taken.
    fn written(&self) -> u64 {
        match &self.place {
            Place::Here(transport) => self.queued_ever - transport.writer.queued() as u64,
            Place::Lent { .. } => self.queued_ever,
        }
    }

    /// A peer that reads slowly still reads: its time begins anew.
    pub(super) fn note_what_is_written(&mut self) {
        let written = self.written();
        if let Some(since) = self.writing_since.as_mut().filter(|since| since.1 < written) {
            *since = (Instant::now(), written);
        }
    }

    /// Since when the peer has read nothing of what waits for it.
    pub(super) fn stuck_since(&self) -> Option<Instant> {
        self.writing_since.map(|(since, _)| since)
    }

    /// Gives the transport to the node; `None` if it has it already.
    pub(super) fn lend(&mut self) -> Option<Lent> {
        self.take_back_what_is_given();
        let (giving, back) = oneshot::channel();
        let outbox = Outbox::default();
        let lent = Place::Lent { back, outbox: outbox.clone() };
        match std::mem::replace(&mut self.place, lent) {
            Place::Here(transport) => {
                self.writing_since = None;
                Some(Lent { transport, back: giving, outbox })
            }
            already => {
                self.place = already;
                None
            }
        }
    }

    /// Goes on with the transport where the node left it, and says what waited for it.
    pub(super) fn take_back(&mut self, mut transport: Box<Transport>) {
        let writer = &mut transport.writer;
        if let Place::Lent { outbox, .. } = &self.place
            && let Err(error) = outbox.empty_into(writer)
        {
            // Ours are short: the transport has failed, and the next flush says so.
            log::debug!("not sent: {error}");
        }
        self.queued_ever = writer.queued() as u64;
        self.writing_since = writer.needs_flush().then(|| (Instant::now(), 0));
        self.place = Place::Here(transport);
    }

    /// No more messages of the node's are taken, and those that wait are not sent.  A transport
    /// that is just being given back is still ours.
    pub(super) fn retire(&mut self) {
        self.sends.close();
        while self.sends.try_recv().is_ok() {}
        if let Place::Lent { back, .. } = &mut self.place {
            back.close();
        }
        self.take_back_what_is_given();
    }

    /// The transport may be on its way back, with something else handled before.
    fn take_back_what_is_given(&mut self) {
        if let Place::Lent { back, .. } = &mut self.place
            && let Ok(transport) = back.try_recv()
        {
            self.take_back(transport);
        }
    }

    /// Writes what is queued; waits for ever if the node has the transport.
    pub(super) async fn flush(&mut self) -> Result<(), TransportError> {
        match &mut self.place {
            Place::Here(transport) if transport.writer.needs_flush() => {
                transport.writer.flush().await
            }
            _ => pending().await,
        }
    }

    /// Says the last words, to a peer that may be gone already.
    pub(super) async fn close(&mut self) {
        if let Place::Here(transport) = &mut self.place {
            let _ = transport.writer.close().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use futures::FutureExt;

    use super::*;
    use crate::transport::in_memory_pair;

    #[tokio::test]
    async fn sources_that_are_always_ready_take_turns() {
        let mut next = 0;
        let mut served = Vec::new();
        for _ in 0..6 {
            served.push(
                take_turns([pin!(ready(0)), pin!(ready(1)), pin!(ready(2))], &mut next).await,
            );
        }
        assert_eq!(served, [0, 1, 2, 0, 1, 2]);
        served.clear();
        for _ in 0..4 {
            served.push(
                take_turns([pin!(ready(0)), pin!(pending()), pin!(ready(2))], &mut next).await,
            );
        }
        assert_eq!(served, [0, 2, 0, 2]);
    }

    #[tokio::test]
    async fn writing_reading_and_the_nodes_messages_take_turns() {
        let (near, mut far) = in_memory_pair();
        let (sends, to_send) = mpsc::channel(100);
        let mut wire = Wire::new(near, to_send);
        for number in 0..10 {
            far.writer.queue(&[0, number]).unwrap();
            sends.try_send((vec![1, number], oneshot::channel().0)).unwrap();
        }
        far.writer.flush().await.unwrap();
        let mut moves = String::new();
        for _ in 0..9 {
            // As if the session had something to say each time.
            wire.queue(&[2, 2]).unwrap();
            moves.push(match wire.moved().await {
                Moved::Flushed(_) => 'f',
                Moved::Read(_) => 'r',
                Moved::Send(_) => 's',
                Moved::Back(_) => 'b',
            });
        }
        assert_eq!(moves, "frsfrsfrs");
    }

    /// The session ends in the moment in which the node has given the transport back.
    #[tokio::test]
    async fn a_transport_on_its_way_back_is_not_lost() {
        let (near, mut far) = in_memory_pair();
        let mut wire = Wire::new(near, node_sends().1);
        let lent = wire.lend().unwrap();
        assert!(wire.lend().is_none());
        wire.queue(b"last word").unwrap();
        lent.back.send(lent.transport).unwrap();
        wire.retire();
        wire.close().await;
        let said = far.reader.read().now_or_never().expect("nothing is said");
        assert_eq!(said.unwrap().unwrap(), b"last word");
        // Nor given to a session that is gone.
        let (near, _far) = in_memory_pair();
        let mut wire = Wire::new(near, node_sends().1);
        let lent = wire.lend().unwrap();
        wire.retire();
        assert!(lent.back.send(lent.transport).is_err());
    }
}
