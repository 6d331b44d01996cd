//! The names of the calls, for operators, transcripts and tests.

use core::fmt;

/// A call to a signer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// [`Hsm::channel`](crate::Hsm::channel).
    Channel,
    /// [`Hsm::forget_channel`](crate::Hsm::forget_channel).
    ForgetChannel,
    /// [`ChannelHsm::pubkeys`](crate::ChannelHsm::pubkeys).
    Pubkeys,
    /// [`ChannelHsm::per_commitment_point`](crate::ChannelHsm::per_commitment_point).
    PerCommitmentPoint,
    /// [`ChannelHsm::setup`](crate::ChannelHsm::setup).
    Setup,
    /// [`ChannelHsm::sign_counterparty_commitment`](crate::ChannelHsm::sign_counterparty_commitment).
    SignCounterpartyCommitment,
    /// [`ChannelHsm::validate_holder_commitment`](crate::ChannelHsm::validate_holder_commitment).
    ValidateHolderCommitment,
    /// [`ChannelHsm::sign_holder_commitment`](crate::ChannelHsm::sign_holder_commitment).
    SignHolderCommitment,
}

impl Call {
    /// Every call, in the order in which an opening makes them.
    pub const ALL: [Self; 8] = [
        Self::Channel,
        Self::Pubkeys,
        Self::PerCommitmentPoint,
        Self::Setup,
        Self::ValidateHolderCommitment,
        Self::SignCounterpartyCommitment,
        Self::SignHolderCommitment,
        Self::ForgetChannel,
    ];

    /// The method's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Channel => "channel",
            Self::ForgetChannel => "forget_channel",
            Self::Pubkeys => "pubkeys",
            Self::PerCommitmentPoint => "per_commitment_point",
            Self::Setup => "setup",
            Self::SignCounterpartyCommitment => "sign_counterparty_commitment",
            Self::ValidateHolderCommitment => "validate_holder_commitment",
            Self::SignHolderCommitment => "sign_holder_commitment",
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
