//! A channel goes on over a new connection, before any commitment was updated.
//!
//! ```text
//!    | <---- channel_reestablish ----> |   for each channel that both remember
//!    | <------ channel_ready --------> |   again, if it was sent before
//! ```

use bitcoin::secp256k1::{PublicKey, SecretKey};
use lightning::ln::msgs::ChannelReestablish;

use super::{Opened, secp};

/// The next commitment that either side expects: the first one came with the opening.
const NEXT_COMMITMENT: u64 = 1;

/// The largest commitment number.
const MAX_COMMITMENT: u64 = (1 << 48) - 1;

/// What we say of a channel on a new connection: commitment 0 is signed, nothing is revoked
/// (B2-RE-S-01 to B2-RE-S-06).
pub fn channel_reestablish(opened: &Opened) -> ChannelReestablish {
    ChannelReestablish {
        channel_id: opened.channel_id,
        next_local_commitment_number: NEXT_COMMITMENT,
        next_remote_commitment_number: 0,
        your_last_per_commitment_secret: [0; 32],
        my_current_per_commitment_point: opened.parameters.local.first_per_commitment_point,
        next_funding: None,
        my_current_funding_locked: None,
    }
}

/// Why a channel cannot go on from what the peer remembers of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReestablishError {
    /// It remembers nothing (B2-RE-R-01).
    #[error("next_commitment_number is 0")]
    NothingRemembered,
    /// It proves that we revoked a commitment of which we know nothing: our own state is old, and
    /// to broadcast it would lose everything (B2-RE-R-12, B2-RE-R-13).
    #[error("this node has lost its state at commitment {0}: please fail the channel")]
    OurStateIsOld(u64),
    /// It expects a revocation that we never made, and proves nothing (B2-RE-R-08, B2-RE-R-09).
    #[error("next_revocation_number {0}, but nothing was revoked")]
    NothingRevoked(u64),
    /// It expects another commitment (B2-RE-R-07).
    #[error("next_commitment_number {0}, not 1")]
    OtherCommitment(u64),
    /// A secret where there is none yet (B2-RE-R-14).
    #[error("your_last_per_commitment_secret without a revocation")]
    SecretWithoutRevocation,
}

impl ReestablishError {
    /// Whether it is this node that has lost its state.
    pub fn is_our_fault(self) -> bool {
        matches!(self, Self::OurStateIsOld(_))
    }

    /// A stable name for programs.
    pub fn code(self) -> &'static str {
        match self {
            Self::NothingRemembered => "reestablish-nothing-remembered",
            Self::OurStateIsOld(_) => "reestablish-our-state-is-old",
            Self::NothingRevoked(_) => "reestablish-nothing-revoked",
            Self::OtherCommitment(_) => "reestablish-other-commitment",
            Self::SecretWithoutRevocation => "reestablish-secret-without-revocation",
        }
    }
}

/// The commitment of ours that the peer says we revoked last: to judge its message, its point is
/// needed.  `None` too where nothing can be proved, because there is no such commitment, or what
/// should be our secret is none.
pub fn revoked_commitment(message: &ChannelReestablish) -> Option<u64> {
    let may_prove = SecretKey::from_slice(&message.your_last_per_commitment_secret).is_ok();
    message
        .next_remote_commitment_number
        .checked_sub(1)
        .filter(|commitment| *commitment <= MAX_COMMITMENT && may_prove)
}

/// Judges what the peer remembers.  `our_point` is our point of [`revoked_commitment`], if there is
/// one.  The peer's own point is of no use here (B2-RE-R-10).
///
/// When this is `Ok`, our `channel_ready`, if there is one, goes out again (B2-RE-R-02).
pub fn judge(
    message: &ChannelReestablish,
    our_point: Option<PublicKey>,
) -> Result<(), ReestablishError> {
    let secret = message.your_last_per_commitment_secret;
    let revoked = message.next_remote_commitment_number;
    if revoked > 0 {
        let proves = SecretKey::from_slice(&secret)
            .is_ok_and(|secret| our_point == Some(secret.public_key(secp())));
        return Err(if proves {
            ReestablishError::OurStateIsOld(revoked - 1)
        } else {
            ReestablishError::NothingRevoked(revoked)
        });
    }
    match message.next_local_commitment_number {
        NEXT_COMMITMENT if secret == [0; 32] => Ok(()),
        NEXT_COMMITMENT => Err(ReestablishError::SecretWithoutRevocation),
        0 => Err(ReestablishError::NothingRemembered),
        other => Err(ReestablishError::OtherCommitment(other)),
    }
}
