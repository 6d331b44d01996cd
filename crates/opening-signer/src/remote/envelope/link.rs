//! Why a connection between a node and its signer ended.

use std::io;

use bitcoin::constants::ChainHash;

use crate::remote::codec::Malformed;

/// Why a connection between a node and its signer ended, or was not begun.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// It could not be made, or broke.
    #[error("{0}")]
    Lost(String),
    /// One side does not accept the other: its key, or the user as which it runs.
    #[error("{0}")]
    Denied(String),
    /// The other side did not answer, or did not take what was sent, in time.
    #[error("the other side is silent: {0}")]
    Silent(&'static str),
    /// The other side sent what no version of the wire has.
    #[error("the other side broke the protocol: {0}")]
    Malformed(String),
    /// No common version of the wire.
    #[error("the other side speaks versions {theirs_min} to {theirs_max} of the wire, we {ours}")]
    Version {
        /// The only one that we speak.
        ours: u16,
        /// The oldest that they speak.
        theirs_min: u16,
        /// The newest that they speak.
        theirs_max: u16,
    },
    /// The other side works on another chain.
    #[error("the other side is on chain {theirs}, we are on {ours}")]
    Chain {
        /// Ours.
        ours: ChainHash,
        /// Theirs.
        theirs: ChainHash,
    },
    /// The signer came back with other rules than those that channels were begun under.
    #[error("the signer enforces other rules than before ({0}): restart the node to accept that")]
    InfoChanged(&'static str),
    /// More requests at once than the signer takes.
    #[error("more than {0} requests at once")]
    TooManyRequests(usize),
}

impl LinkError {
    /// A stable name for programs, kebab-case.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Lost(_) => "link-lost",
            Self::Denied(_) => "link-denied",
            Self::Silent(_) => "link-silent",
            Self::Malformed(_) => "link-malformed",
            Self::Version { .. } => "link-version",
            Self::Chain { .. } => "link-chain",
            Self::InfoChanged(_) => "link-info-changed",
            Self::TooManyRequests(_) => "link-too-many-requests",
        }
    }

    /// Whether connecting again will not help until somebody changes something.
    pub(super) fn is_lasting(&self) -> bool {
        match self {
            Self::Denied(_) | Self::Version { .. } | Self::Chain { .. } | Self::InfoChanged(_) => {
                true
            }
            Self::Lost(_) | Self::Silent(_) | Self::Malformed(_) | Self::TooManyRequests(_) => {
                false
            }
        }
    }

    /// Why there is no connection at all: nothing of it can be the wire's fault.
    pub(super) fn not_connected(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::PermissionDenied => Self::Denied(error.to_string()),
            _ => Self::Lost(error.to_string()),
        }
    }
}

impl From<Malformed> for LinkError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed.to_string())
    }
}

impl From<io::Error> for LinkError {
    fn from(error: io::Error) -> Self {
        // Who changes bytes under TLS is not the signer.
        let is_tls = error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
        match error.kind() {
            io::ErrorKind::InvalidData if !is_tls => Self::Malformed(error.to_string()),
            _ => Self::not_connected(&error),
        }
    }
}
