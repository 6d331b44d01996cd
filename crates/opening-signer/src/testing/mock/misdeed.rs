//! What only a signer can do wrong.

use crate::call::Call;
use crate::error::HsmError;

/// What goes wrong with a call, other than when it is carried out and answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Misdeed {
    /// It is not carried out, and this is the answer: a refusal, a deferral.
    Say(HsmError),
    /// The signer is restarted first, and knows of its channels what it kept.  What a client that
    /// connects anew repeats, nobody repeats here.
    Restart(Restart),
    /// It is carried out, and answered wrongly.
    Forge(Forgery),
}

/// How a signer comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// With its secret and its store.
    Remembering,
    /// With its secret, and a store as it was before the first call: somebody put a backup back.
    RolledBack,
}

/// A wrong answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgery {
    /// A signature over the right digest by a key that is not the channel's.
    OtherKey,
    /// The right signature, with the other S: good for the curve, not for Bitcoin's nodes.
    HighS,
    /// A signature of the peer's commitment by the channel's key, over another transaction.
    ///
    /// A signer that validates does not sign that for a fundee, so that the one that
    /// [`restarting`](super::MockHsm::restarting) starts must be blind.
    WrongSighash,
    /// The keys of another channel with the same peer.
    OtherChannelsKeys,
    /// The point of another commitment.
    OtherPoint,
}

impl Misdeed {
    /// Whether the call can be answered so.
    pub(super) fn is_of(&self, call: Call) -> bool {
        use Call::{PerCommitmentPoint, Pubkeys, SignCounterpartyCommitment, SignHolderCommitment};
        match self {
            Self::Say(_) | Self::Restart(_) => true,
            Self::Forge(Forgery::OtherKey | Forgery::HighS) => {
                matches!(call, SignCounterpartyCommitment | SignHolderCommitment)
            }
            Self::Forge(Forgery::WrongSighash) => call == SignCounterpartyCommitment,
            Self::Forge(Forgery::OtherChannelsKeys) => call == Pubkeys,
            Self::Forge(Forgery::OtherPoint) => call == PerCommitmentPoint,
        }
    }

    pub(super) fn needs_start(&self) -> bool {
        let forgeries = [Forgery::WrongSighash, Forgery::OtherChannelsKeys].map(Self::Forge);
        matches!(self, Self::Restart(_)) || forgeries.contains(self)
    }
}
