//! The sending half: whole messages in, bytes out.

use core::fmt;

use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::TransportError;
use super::framing::FrameEncoder;

/// Bytes of buffer that a writer with nothing to send keeps.
const KEPT_CAPACITY: usize = 8192;

/// The sending half of a transport.
pub struct Writer {
    stream: Box<dyn AsyncWrite + Send + Unpin>,
    encoder: FrameEncoder,
    /// Whole frames.
    frames: Vec<u8>,
    /// How many bytes of `frames` the stream has taken.
    written: usize,
    /// Whether the stream may hold bytes back until it is flushed.
    unflushed: bool,
    failed: bool,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut writer = f.debug_struct("Writer");
        writer.field("queued", &self.queued()).field("failed", &self.failed);
        writer.finish_non_exhaustive()
    }
}

impl Writer {
    pub(super) fn new(stream: Box<dyn AsyncWrite + Send + Unpin>, encoder: FrameEncoder) -> Self {
        Self { stream, encoder, frames: Vec::new(), written: 0, unflushed: false, failed: false }
    }

    /// Puts `message` behind what is already queued; [`flush`](Self::flush) sends it.
    ///
    /// More than [`MAX_MESSAGE_LENGTH`](super::MAX_MESSAGE_LENGTH) bytes are refused and change nothing.  The queue has
    /// no bound of its own: look at [`queued`](Self::queued) before queueing what a peer caused.
    pub fn queue(&mut self, message: &[u8]) -> Result<(), TransportError> {
        if self.failed {
            return Err(TransportError::AlreadyFailed);
        }
        self.forget_written();
        self.encoder.append(message, &mut self.frames)?;
        self.unflushed = true;
        Ok(())
    }

    /// Bytes of frames that the stream has not taken yet.
    pub fn queued(&self) -> usize {
        self.frames.len() - self.written
    }

    /// Whether [`flush`](Self::flush) has anything to do.
    // Not the same as `queued() > 0`: a stream with a buffer of its own (TLS) may have taken all and sent nothing.
    pub fn needs_flush(&self) -> bool {
        self.unflushed
    }

    /// Sends all that is queued.
    ///
    /// Cancel safe: a `flush` dropped while it waits goes on with the next byte when called again.  After an error
    /// every later call says [`TransportError::AlreadyFailed`].
    pub async fn flush(&mut self) -> Result<(), TransportError> {
        if self.failed {
            return Err(TransportError::AlreadyFailed);
        }
        let result = self.write_out().await;
        self.failed = result.is_err();
        result
    }

    /// Sends all that is queued, then ends our direction of the stream; the peer can still be read.
    // Dropping a TCP stream with unread input resets the connection, and the peer may lose our last message.
    pub async fn close(&mut self) -> Result<(), TransportError> {
        self.flush().await?;
        Ok(self.stream.shutdown().await?)
    }

    async fn write_out(&mut self) -> Result<(), TransportError> {
        while self.queued() > 0 {
            let taken = self.stream.write(&self.frames[self.written..]).await?;
            if taken == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::WriteZero).into());
            }
            self.written += taken;
        }
        self.forget_written();
        if self.unflushed {
            self.stream.flush().await?;
            self.unflushed = false;
        }
        Ok(())
    }

    /// Gives back the space of what was written, where that costs at most one copy of what was not.
    fn forget_written(&mut self) {
        if self.queued() == 0 {
            self.frames.clear();
            self.frames.shrink_to(KEPT_CAPACITY);
        } else if self.written >= self.frames.len() / 2 {
            self.frames.drain(..self.written);
        } else {
            return;
        }
        self.written = 0;
    }
}
