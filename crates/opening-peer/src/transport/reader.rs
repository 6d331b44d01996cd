//! The receiving half: bytes in, whole messages out.

use core::fmt;
use std::collections::VecDeque;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::TransportError;
use super::framing::FrameDecoder;

/// Bytes asked of the stream at a time, where no longer frame is under way.
const READ_AHEAD: usize = 4096;

/// The receiving half of a transport.
pub struct Reader {
    stream: Box<dyn AsyncRead + Send + Unpin>,
    decoder: FrameDecoder,
    /// Bytes received that no message has taken yet.
    received: BytesMut,
    /// Bytes of the body on the wire, once the header of the frame under way was judged and taken.
    body_length: Option<usize>,
    /// Messages that were read and are to be read again.
    returned: VecDeque<Vec<u8>>,
    failed: bool,
}

// What was received is nobody's but the peer's and the node's.
impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("failed", &self.failed).finish_non_exhaustive()
    }
}

impl Reader {
    pub(super) fn new(stream: Box<dyn AsyncRead + Send + Unpin>, decoder: FrameDecoder) -> Self {
        Self {
            stream,
            decoder,
            received: BytesMut::new(),
            body_length: None,
            returned: VecDeque::new(),
            failed: false,
        }
    }

    /// The next whole message; `None` where the peer ended the stream between two frames.
    ///
    /// Cancel safe: a `read` dropped while it waits has lost nothing.  After an error nothing more is read, and every
    /// later call says [`TransportError::AlreadyFailed`].
    pub async fn read(&mut self) -> Result<Option<Vec<u8>>, TransportError> {
        if let Some(message) = self.returned.pop_front() {
            return Ok(Some(message));
        }
        if self.failed {
            return Err(TransportError::AlreadyFailed);
        }
        let result = self.next_message().await;
        if result.is_err() {
            self.failed = true;
            self.received = BytesMut::new();
        }
        result
    }

    /// Gives back a message that was read and is for someone else: it is read again before anything
    /// that has not been read yet, behind those given back before.
    pub fn put_back(&mut self, message: Vec<u8>) {
        self.returned.push_back(message);
    }

    async fn next_message(&mut self) -> Result<Option<Vec<u8>>, TransportError> {
        loop {
            if let Some(message) = self.take_message()? {
                return Ok(Some(message));
            }
            self.received.reserve(self.missing().max(READ_AHEAD));
            // The only await, and cancel safe by itself: what it received is in `received` when it returns.
            if self.stream.read_buf(&mut self.received).await? == 0 {
                let between_frames = self.received.is_empty() && self.body_length.is_none();
                return if between_frames { Ok(None) } else { Err(TransportError::EndInsideFrame) };
            }
        }
    }

    /// The first message of what was received, if it is whole.
    fn take_message(&mut self) -> Result<Option<Vec<u8>>, TransportError> {
        let body_length = match self.body_length {
            Some(body_length) => body_length,
            None => {
                let header_length = self.decoder.header_length();
                let Some(header) = self.received.get_mut(..header_length) else { return Ok(None) };
                let body_length = self.decoder.header(header)?;
                self.received.advance(header_length);
                *self.body_length.insert(body_length)
            }
        };
        let Some(body) = self.received.get_mut(..body_length) else { return Ok(None) };
        let message = self.decoder.body(body)?.to_vec();
        self.received.advance(body_length);
        self.body_length = None;
        if self.received.is_empty() && self.received.capacity() > 2 * READ_AHEAD {
            // A quiet connection keeps no memory from its longest message.
            self.received = BytesMut::new();
        }
        Ok(Some(message))
    }

    /// Bytes that the part of the frame under way still lacks.
    fn missing(&self) -> usize {
        self.body_length
            .unwrap_or_else(|| self.decoder.header_length())
            .saturating_sub(self.received.len())
    }
}
