//! Why a signer did not do what it was asked, and what the node does then.

/// What every call to a signer gives.
pub type HsmResult<T> = Result<T, HsmError>;

/// Why a signer did not do what it was asked.
///
/// [`Deferred`](Self::Deferred) makes the driver ask again.  Everything else ends an opening that
/// is not saved yet: the peer reads a plain internal error, the operator all that stands here.
/// No text may contain a secret.
///
/// Slow is not an error: a signer whose owner has to press a button answers when it is pressed.
/// The driver waits until its own deadline.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HsmError {
    /// The signer cannot be reached, and was not asked.  Asking again is safe.
    #[error("the signer is unavailable: {0}")]
    Unavailable(String),
    /// The signer was asked, and nobody knows whether it did it.  For this channel only identical
    /// bytes may be asked for again.
    #[error("the signer did not answer: {0}")]
    Indeterminate(String),
    /// Not yet.  The driver repeats the same bytes, after 100 ms, doubling up to 5 s, until its
    /// deadline.
    #[error("the signer is not ready to answer")]
    Deferred,
    /// A rule of the signer forbids it.  Asking again gives the same answer.
    #[error("the signer refuses ({tag}): {detail}")]
    Refused {
        /// The rule's name: stable, kebab-case, kept across a wire.
        tag: String,
        /// For the operator.
        detail: String,
    },
    /// The request contradicts itself or the channel's setup: a bug on the node's side.
    #[error("the signer finds the request invalid: {0}")]
    InvalidRequest(String),
    /// The signer's answer is not one: unreadable, of the wrong kind, or a signature that does
    /// not verify.
    #[error("the signer broke its protocol: {0}")]
    Protocol(String),
    /// The signer could not keep what it has to keep before a signature leaves; none left.
    #[error("the signer could not keep its record: {0}")]
    Storage(String),
    /// The peer's signature does not sign our commitment.
    #[error("the signer finds the peer's signature invalid")]
    BadCounterpartySignature,
    /// A call of the same channel failed on which this one depends, which was not carried out.
    /// Only a signer that takes several at once says so ([`Pipelining::InOrder`]).
    ///
    /// [`Pipelining::InOrder`]: crate::Pipelining::InOrder
    #[error("the signer did not carry this out, because the call before it failed")]
    Aborted,
}

impl HsmError {
    /// A stable name for programs, kebab-case.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "signer-unavailable",
            Self::Indeterminate(_) => "signer-indeterminate",
            Self::Deferred => "signer-deferred",
            Self::Refused { .. } => "signer-refused",
            Self::InvalidRequest(_) => "signer-invalid-request",
            Self::Protocol(_) => "signer-protocol",
            Self::Storage(_) => "signer-storage",
            Self::BadCounterpartySignature => "signer-bad-counterparty-signature",
            Self::Aborted => "signer-aborted",
        }
    }
}
