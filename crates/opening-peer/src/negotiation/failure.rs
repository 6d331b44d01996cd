//! Why a negotiation ended, as far as the two nodes' messages tell.

use bitcoin::{OutPoint, Transaction, consensus};
use opening_core::{CommitmentError, Refusal, Side};

/// A reason to end a negotiation that lies in its messages or in what the node brought to it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NegotiationError {
    /// Terms of one side that the other does not take.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The peer's signature does not sign our first commitment transaction (B2-FC-R-01,
    /// B2-FS-R-01).
    #[error("signature is not one of the peer's funding key over our commitment transaction {}",
        hex(.transaction))]
    BadSignature {
        /// Our unsigned commitment transaction, which the reply quotes (B1-ERR-S-10).
        transaction: Box<Transaction>,
    },
    /// An outpoint that no commitment can spend: a zero txid or an index beyond 65,535.
    #[error("{0} cannot be a funding outpoint")]
    ImpossibleOutpoint(OutPoint),
    /// The first commitments cannot be built on the agreed terms.  The rules refuse such terms;
    /// seeing this means that one of them has a hole.
    #[error(transparent)]
    Commitment(#[from] CommitmentError),
}

fn hex(transaction: &Transaction) -> String {
    consensus::encode::serialize_hex(transaction)
}

impl NegotiationError {
    /// Whether this node is at fault, so that the peer could do nothing about it.
    pub(crate) fn is_ours(&self) -> bool {
        match self {
            // That there is no estimate is ours too, but a peer may well know it: it can retry.
            Self::Refused(Refusal::NoFeeEstimate { .. }) => false,
            Self::Refused(refusal) => refusal.side_to_move() == Side::Local,
            Self::Commitment(_) => true,
            Self::BadSignature { .. } | Self::ImpossibleOutpoint(_) => false,
        }
    }

    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.code(),
            Self::BadSignature { .. } => "bad-signature",
            Self::ImpossibleOutpoint(_) => "impossible-outpoint",
            Self::Commitment(_) => "commitment-impossible",
        }
    }
}
