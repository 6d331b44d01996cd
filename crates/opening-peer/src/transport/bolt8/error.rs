//! Why a handshake failed.

use std::{fmt, io};

/// An act of the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Initiator to responder.
    One,
    /// Responder to initiator.
    Two,
    /// Initiator to responder.
    Three,
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::One => "ACT1",
            Self::Two => "ACT2",
            Self::Three => "ACT3",
        })
    }
}

/// Why a handshake failed.  The connection is closed and the peer is told nothing.
///
/// The texts are the labels of BOLT 8's test vectors.  `ACT1_BAD_VERSION`, unlike there, carries the version too.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The stream ended before the act was whole.
    #[error("{0}_READ_FAILED")]
    ReadFailed(Act),
    /// A version that is not 0.
    #[error("{act}_BAD_VERSION {version}")]
    BadVersion {
        /// Where.
        act: Act,
        /// The version received.
        version: u8,
    },
    /// Not a point of the curve in compressed form.
    #[error("{0}_BAD_PUBKEY")]
    BadPublicKey(Act),
    /// The tag of the act does not fit.  In act one this is also what a peer with another idea of our node id causes.
    #[error("{0}_BAD_TAG")]
    BadTag(Act),
    /// The MAC of the encrypted node id in act three does not fit.
    #[error("ACT3_BAD_CIPHERTEXT")]
    BadCiphertext,
    /// The handshake took longer than its limit.
    #[error("handshake timed out")]
    TimedOut,
    /// The stream failed.
    #[error("connection failed: {0}")]
    Io(#[from] io::Error),
}

impl HandshakeError {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::ReadFailed(_) => "handshake-read-failed",
            Self::BadVersion { .. } => "handshake-bad-version",
            Self::BadPublicKey(_) => "handshake-bad-public-key",
            Self::BadTag(_) => "handshake-bad-tag",
            Self::BadCiphertext => "handshake-bad-ciphertext",
            Self::TimedOut => "handshake-timed-out",
            Self::Io(_) => "handshake-io",
        }
    }
}
