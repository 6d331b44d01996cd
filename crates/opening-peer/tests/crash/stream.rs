//! A connection whose end may die with every read and write, and half-way through a write.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use opening_peer::message::decode;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use crate::disk::Disk;
use crate::parts::Watch;

pub struct MortalStream {
    inner: DuplexStream,
    watch: Watch,
    disk: Arc<Disk>,
    /// Bytes of the message that is being written.
    written: Vec<u8>,
}

/// Bytes of a message's length.
const HEADER: usize = 4;

impl MortalStream {
    pub fn new(inner: DuplexStream, watch: Watch, disk: Arc<Disk>) -> Self {
        Self { inner, watch, disk, written: Vec::new() }
    }

    /// Looks at every message that is whole by now.
    fn note(&mut self, bytes: &[u8]) {
        self.written.extend_from_slice(bytes);
        while let Some(header) = self.written.first_chunk::<HEADER>() {
            let end = HEADER + u32::from_be_bytes(*header) as usize;
            let Some(message) = self.written.get(HEADER..end) else { return };
            let message = decode(message).expect("a node writes what can be read");
            self.watch.ledger.says(self.watch.node, &self.disk, &message);
            self.written.drain(..end);
        }
    }

    /// The type of the first message in what is about to be written.
    fn label(bytes: &[u8]) -> String {
        match bytes.get(HEADER..HEADER + 2) {
            Some(kind) => format!("writing message {}", u16::from_be_bytes([kind[0], kind[1]])),
            None => "writing".into(),
        }
    }
}

impl AsyncWrite for MortalStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let (crash, label) = (self.watch.crash.clone(), Self::label(bytes));
        if !crash.passes("before", &label) {
            return Poll::Pending;
        }
        if !crash.passes("half-way through", &label) {
            let half = &bytes[..bytes.len() / 2];
            if let Poll::Ready(Ok(written)) = Pin::new(&mut self.inner).poll_write(context, half) {
                self.note(&half[..written]);
            }
            return Poll::Pending;
        }
        let written = ready!(Pin::new(&mut self.inner).poll_write(context, bytes))?;
        self.note(&bytes[..written]);
        if crash.passes("after", &label) { Poll::Ready(Ok(written)) } else { Poll::Pending }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.watch.crash.is_dead() {
            return Poll::Pending;
        }
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.watch.crash.passes("before", "shutting the connection down") {
            return Poll::Pending;
        }
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

impl AsyncRead for MortalStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        let is_end = buffer.filled().len() == before;
        if is_end || self.watch.crash.passes("after", "reading") {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }
}
