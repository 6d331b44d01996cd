//! How whole messages travel: BOLT 8 or a length prefix, over any byte stream.
//!
//! ```text
//!   queue(message) --> FrameEncoder --> buffer --> flush() --> stream
//!   message <-- read() <-- FrameDecoder <-- buffer <---------- stream
//! ```
//!
//! A [`Transport`] is a [`Reader`] and a [`Writer`], which one task can own in one `select!`: both
//! keep all their progress in themselves, so that dropping a `read` or a `flush` half-way loses nothing.
//!
//! ```
//! # use opening_peer::transport::{Transport, TransportError};
//! # async fn echo(transport: Transport) -> Result<(), TransportError> {
//! let (mut reader, mut writer) = transport.split();
//! loop {
//!     tokio::select! {
//!         message = reader.read() => match message? {
//!             Some(message) => writer.queue(&message)?,
//!             None => return Ok(()),
//!         },
//!         flushed = writer.flush(), if writer.needs_flush() => flushed?,
//!     }
//! }
//! # }
//! ```
//!
//! What a message says is no concern of this module; see [`crate::message`].
//!
//! | made by | framing |
//! |---|---|
//! | [`bolt8::connect`], [`bolt8::accept`], [`tcp::connect`], [`tcp::accept`] | BOLT 8, encrypted and authenticated |
//! | [`framed`], [`in_memory_pair`] | u32 length and plaintext: for processes that trust each other, and for tests |

pub mod bolt8;
pub mod tcp;

mod framing;
mod reader;
mod writer;

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};

use self::framing::{FrameDecoder, FrameEncoder};
pub use self::reader::Reader;
pub use self::writer::Writer;

/// Bytes of the longest message, its type included (B1-MSG-B-05, B8-TR-S-01).
pub const MAX_MESSAGE_LENGTH: usize = 65535;

/// Bytes that each direction of an [`in_memory_pair`] holds before the writer has to wait.
const IN_MEMORY_CAPACITY: usize = 64 * 1024;

/// A connection that carries whole messages both ways.
#[derive(Debug)]
pub struct Transport {
    /// What the peer sends.
    pub reader: Reader,
    /// What we send.
    pub writer: Writer,
}

impl Transport {
    fn new<S>(stream: S, encoder: FrameEncoder, decoder: FrameDecoder) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (read_half, write_half) = tokio::io::split(stream);
        Self {
            reader: Reader::new(Box::new(read_half), decoder),
            writer: Writer::new(Box::new(write_half), encoder),
        }
    }

    /// The two halves, for an owner that borrows them apart.
    pub fn split(self) -> (Reader, Writer) {
        (self.reader, self.writer)
    }
}

/// A transport of plaintext messages, each preceded by its length as a big-endian `u32`.
///
/// This is how Core Lightning's daemons speak among themselves.  It hides nothing from anyone on the path.
pub fn framed<S>(stream: S) -> Transport
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    Transport::new(stream, FrameEncoder::LengthPrefix, FrameDecoder::LengthPrefix)
}

/// Two connected transports without a socket.
pub fn in_memory_pair() -> (Transport, Transport) {
    let (one, other) = tokio::io::duplex(IN_MEMORY_CAPACITY);
    (framed(one), framed(other))
}

/// Why a transport stopped, or did not take a message.
///
/// Only [`MessageTooLong`](Self::MessageTooLong) leaves the transport usable.  After any other the connection is to be
/// closed without a message: under BOLT 8 the nonces of both ends may no longer agree (B8-TR-R-05).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The stream failed.
    #[error("connection failed: {0}")]
    Io(#[from] io::Error),
    /// The peer ended the stream inside a frame.
    #[error("connection ended inside a frame")]
    EndInsideFrame,
    /// The MAC of a frame's length does not fit.
    #[error("bad MAC of a message's length")]
    BadLengthMac,
    /// The MAC of a message does not fit.
    #[error("bad MAC of a message")]
    BadMessageMac,
    /// The peer announces a message beyond [`MAX_MESSAGE_LENGTH`]; none of it is read.
    #[error("peer announces a message of {announced} bytes, more than {MAX_MESSAGE_LENGTH}")]
    FrameTooLong {
        /// Bytes announced.
        announced: u32,
    },
    /// We were asked to send more than [`MAX_MESSAGE_LENGTH`]; nothing was sent, nothing changed.
    #[error("message of {length} bytes, more than {MAX_MESSAGE_LENGTH}")]
    MessageTooLong {
        /// Bytes of the message.
        length: usize,
    },
    /// An earlier call told why this direction stopped.
    #[error("connection already failed")]
    AlreadyFailed,
}

impl TransportError {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io(_) => "transport-io",
            Self::EndInsideFrame => "transport-end-inside-frame",
            Self::BadLengthMac => "transport-bad-length-mac",
            Self::BadMessageMac => "transport-bad-message-mac",
            Self::FrameTooLong { .. } => "transport-frame-too-long",
            Self::MessageTooLong { .. } => "transport-message-too-long",
            Self::AlreadyFailed => "transport-already-failed",
        }
    }
}
