//! Every way in which an opening ends without a channel.
//!
//! Three readers, three texts: a program matches variants and [`Failure::code`], the operator
//! reads `Display` and `source`, the peer gets [`Failure::reply`], which never speaks of our
//! signer, disk or policy.

use core::fmt;
use std::time::Duration;

use bitcoin::Txid;
use bitcoin::secp256k1::PublicKey;
use lightning::ln::types::ChannelId;
use opening_core::Refusal;
use opening_signer::{Call, HsmError};

use crate::funding::FundingError;
use crate::message::Undecodable;
use crate::negotiation::NegotiationError;
use crate::node::Rejection;
use crate::store::StoreError;

/// Where an opening stands.  Each name says what is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// Funder: our signer is to give the channel's keys; the peer knows nothing yet.
    Keys,
    /// Funder: `open_channel` is out.
    AcceptChannel,
    /// Funder: accepted; the wallet is to build the funding transaction.
    Funding,
    /// Funder: the signer is to sign the peer's commitment.
    Signature,
    /// Funder: `funding_created` is out.
    FundingSigned,
    /// Funder: `funding_signed` is here; its signature is checked, here and by the signer.
    Validation,
    /// Fundee: the policy, then the signer, is at work on an offer.
    Decision,
    /// Fundee: `accept_channel` is out.
    FundingCreated,
    /// Fundee: the signer is at work on both commitments.
    Commitments,
    /// Both: the peer's signature is good, the channel is being saved.
    Save,
    /// Both: opened; the funding transaction is to confirm.
    Depth,
    /// Both: deep enough and our `channel_ready` is out; the peer's is awaited.
    ChannelReady,
    /// Both: in use.
    Ready,
    /// Both: an opened channel that has failed; the node resolves it.
    Failed,
}

impl Stage {
    /// A stable name for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Keys => "keys",
            Self::AcceptChannel => "accept-channel",
            Self::Funding => "funding",
            Self::Signature => "signature",
            Self::FundingSigned => "funding-signed",
            Self::Validation => "validation",
            Self::Decision => "decision",
            Self::FundingCreated => "funding-created",
            Self::Commitments => "commitments",
            Self::Save => "save",
            Self::Depth => "depth",
            Self::ChannelReady => "channel-ready",
            Self::Ready => "ready",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keys => "asking the signer for keys",
            Self::AcceptChannel => "offered, waiting for accept_channel",
            Self::Funding => "accepted, waiting for the funding transaction",
            Self::Signature => "asking the signer for a signature",
            Self::FundingSigned => "funding transaction named, waiting for funding_signed",
            Self::Validation => "checking the peer's signature",
            Self::Decision => "deciding about an offer",
            Self::FundingCreated => "accepted, waiting for funding_created",
            Self::Commitments => "asking the signer about both commitments",
            Self::Save => "signed, saving the channel",
            Self::Depth => "opened, waiting for the funding transaction to confirm",
            Self::ChannelReady => "confirmed, waiting for the peer's channel_ready",
            Self::Ready => "in use",
            Self::Failed => "failed, to be resolved by the node",
        })
    }
}

/// Why an opening ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The terms, signatures or outpoints exchanged do not make a channel.
    #[error(transparent)]
    Negotiation(#[from] NegotiationError),
    /// Our policy does not want the offer.
    #[error("our policy rejects the offer: {0}")]
    Rejected(Rejection),
    /// Our policy did not answer in time.
    #[error("our policy did not answer within {0:?}")]
    PolicySilent(Duration),
    /// The peer did not send what was awaited in time.
    #[error("the peer sent no {message} within {after:?}")]
    PeerSilent {
        /// The message awaited.
        message: &'static str,
        /// How long it was awaited.
        after: Duration,
    },
    /// Our wallet did not bring the funding transaction in time.
    #[error("our wallet brought no funding transaction within {0:?}")]
    WalletSilent(Duration),
    /// A well-formed message that does not belong to the stage.
    #[error("the peer's {message} does not belong here")]
    OutOfOrder {
        /// The message's name.
        message: &'static str,
        /// Where the opening stood.
        stage: Stage,
    },
    /// The funding transaction that the node brought does not fund the channel.
    #[error(transparent)]
    Funding(#[from] FundingError),
    /// The funding outpoint belongs to another channel of this node, or makes the same
    /// `channel_id`.
    #[error("channel {0} is in use by another opening or channel")]
    OutpointInUse(ChannelId),
    /// Our signer is out of reach, and nothing was asked of it.
    #[error("our signer takes no new opening")]
    SignerDown(#[source] HsmError),
    /// Our signer did not do its part.
    #[error("our signer failed in {call}")]
    Signer {
        /// What it was asked.
        call: Call,
        /// What it said.
        source: HsmError,
    },
    /// Our signer did not answer in time.
    #[error("our signer did not answer {call} within {after:?}")]
    SignerSilent {
        /// What it was asked.
        call: Call,
        /// How long it was awaited.
        after: Duration,
    },
    /// Our store did not do its part before the channel was saved.
    #[error("our store failed")]
    Store(#[from] StoreError),
    /// More openings are pending with this peer than it may have.
    #[error("{0} openings are pending with this peer, the most it may have")]
    TooManyPendingWithPeer(u32),
    /// More openings are pending in all than this node takes.
    #[error("{0} openings are pending, the most this node takes")]
    TooManyPending(u32),
    /// This peer has more channels whose funding has not confirmed than it may.
    #[error("{0} channels of this peer have not confirmed, the most it may have")]
    TooManyUnconfirmedWithPeer(u32),
    /// More channels of peers have not confirmed than this node takes.
    #[error("{0} channels of peers have not confirmed, the most this node takes")]
    TooManyUnconfirmed(u32),
    /// More new openings in a second than this peer may begin.
    #[error("more than {0} new openings in one second")]
    TooFast(u32),
    /// The peer reused the id of its own pending opening, which ends with this one.
    #[error("temporary_channel_id is in use by a pending opening")]
    DuplicateTemporaryId,
    /// The peer's id for its opening names all channels, or one that exists already: an `error`
    /// for the opening would fail those.
    #[error("temporary_channel_id {0} names other channels")]
    TemporaryIdTaken(ChannelId),
    /// Our randomness gives no id that is not in use.
    #[error("our entropy repeats itself")]
    EntropyRepeats,
    /// The peer sent `error` for the channel.
    #[error("the peer ended it: {0}")]
    PeerError(String),
    /// The message about the channel could not be read.
    #[error("the peer's {0}")]
    Undecodable(Undecodable),
    /// The policy, signer or store panicked while the opening waited for it.
    #[error("a part of this node panicked")]
    Panicked,
    /// The opening was one of a batch, and the one with this peer failed.
    #[error("the opening with {0}, of the same batch, failed")]
    BatchFailed(PublicKey),
    /// The transaction was to fund a batch that failed: part of it must never be broadcast.
    #[error("transaction {0} belongs to a batch that failed")]
    Condemned(Txid),
    /// The node sent `error` for the channel itself.
    #[error("this node ended it: {0}")]
    NodeError(String),
    /// The node cancelled, or dropped its handle.
    #[error("cancelled by this node")]
    Cancelled,
    /// The connection ended.
    #[error("the connection ended")]
    Disconnected,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Negotiation(refusal.into())
    }
}

impl Failure {
    /// A stable name for programs, kebab-case.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Negotiation(error) => error.code(),
            Self::Rejected(_) => "rejected-by-policy",
            Self::PolicySilent(_) => "policy-silent",
            Self::PeerSilent { .. } => "peer-silent",
            Self::WalletSilent(_) => "wallet-silent",
            Self::OutOfOrder { .. } => "message-out-of-order",
            Self::Funding(error) => error.code(),
            Self::OutpointInUse(_) => "outpoint-in-use",
            Self::SignerDown(source) | Self::Signer { source, .. } => source.code(),
            Self::SignerSilent { .. } => "signer-silent",
            Self::Store(error) => error.code(),
            Self::TooManyPendingWithPeer(_) => "too-many-pending-with-peer",
            Self::TooManyPending(_) => "too-many-pending",
            Self::TooManyUnconfirmedWithPeer(_) => "too-many-unconfirmed-with-peer",
            Self::TooManyUnconfirmed(_) => "too-many-unconfirmed",
            Self::TooFast(_) => "too-fast",
            Self::DuplicateTemporaryId => "duplicate-temporary-channel-id",
            Self::TemporaryIdTaken(_) => "temporary-channel-id-taken",
            Self::EntropyRepeats => "entropy-repeats",
            Self::PeerError(_) => "peer-error",
            Self::Undecodable(defect) => defect.code(),
            Self::Panicked => "internal-panic",
            Self::BatchFailed(_) => "batch-failed",
            Self::Condemned(_) => "transaction-condemned",
            Self::NodeError(_) => "node-error",
            Self::Cancelled => "cancelled",
            Self::Disconnected => "disconnected",
        }
    }

    /// What the peer is told in `error`: a closed set of texts with the numbers of the rule in
    /// them, and the policy's own public text.  `None` where the peer ended it itself, or has been told.
    pub fn reply(&self) -> Option<String> {
        Some(match self {
            Self::Negotiation(error) if error.is_ours() => INTERNAL_ERROR.into(),
            Self::Negotiation(error) => error.to_string(),
            Self::Rejected(rejection) => rejection.public.to_string(),
            Self::PeerSilent { message, .. } => format!("no {message} in time"),
            Self::OutOfOrder { message, .. } => format!("unexpected {message}"),
            Self::OutpointInUse(_) => "the funding outpoint is in use".into(),
            Self::TooManyPendingWithPeer(_) => "too many pending channels with you".into(),
            Self::TooManyPending(_) => "too many pending channels".into(),
            Self::TooManyUnconfirmedWithPeer(_) => "too many unconfirmed channels with you".into(),
            Self::TooManyUnconfirmed(_) => "too many unconfirmed channels".into(),
            Self::TooFast(_) => "too many new channels in one second".into(),
            Self::DuplicateTemporaryId => "temporary_channel_id is in use".into(),
            Self::TemporaryIdTaken(_) => "temporary_channel_id names other channels".into(),
            Self::Undecodable(defect) => defect.to_string(),
            Self::Cancelled | Self::BatchFailed(_) | Self::Condemned(_) => {
                "channel opening cancelled".into()
            }
            Self::Panicked
            | Self::EntropyRepeats
            | Self::PolicySilent(_)
            | Self::WalletSilent(_)
            | Self::Funding(_)
            | Self::SignerDown(_)
            | Self::Signer { .. }
            | Self::SignerSilent { .. }
            | Self::Store(_) => INTERNAL_ERROR.into(),
            Self::PeerError(_) | Self::NodeError(_) | Self::Disconnected => return None,
        })
    }
}

/// All that a peer learns of a fault on our side.
const INTERNAL_ERROR: &str = "internal error";
