//! The rules of channel establishment, as data.
//!
//! ```text
//! funder                                        fundee
//!   | SendOpenChannel     ------ open_channel ------>  ReceiveOpenChannel |
//!   | ReceiveAcceptChannel <----- accept_channel -----  SendAcceptChannel |
//! ```
//!
//! Each [`Stage`] of each [`Profile`] has one table of [`Rule`]s, in the order in which the BOLT
//! (or openingd) names them.  The same table gives the first violation, which goes to the peer
//! ([`judge`]); all of them, for the operator ([`explain`]); and the documentation ([`rules`]).
//!
//! A stage that receives holds the peer's terms against our [`Limits`](crate::Limits); one that
//! sends holds ours against the BOLT, so that no setting of a node or its policy leaves it.

mod balance;
mod check;
mod openingd;
mod strict;

use alloc::vec::Vec;

use crate::limits::Profile;
use crate::proposal::Proposal;
use crate::refusal::Refusal;
use crate::side::Role;

/// Where in the conversation the terms are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// As funder, before `open_channel` leaves.
    SendOpenChannel,
    /// As fundee, on `open_channel`.
    ReceiveOpenChannel,
    /// As fundee, before `accept_channel` leaves: the policy's terms are judged again.
    SendAcceptChannel,
    /// As funder, on `accept_channel`.
    ReceiveAcceptChannel,
}

impl Stage {
    /// All four, in the order of the conversation.
    pub const ALL: [Self; 4] = [
        Self::SendOpenChannel,
        Self::ReceiveOpenChannel,
        Self::SendAcceptChannel,
        Self::ReceiveAcceptChannel,
    ];

    /// The part this node plays where it judges at this stage.
    pub const fn role(self) -> Role {
        match self {
            Self::SendOpenChannel | Self::ReceiveAcceptChannel => Role::Funder,
            Self::ReceiveOpenChannel | Self::SendAcceptChannel => Role::Fundee,
        }
    }
}

/// One thing that has to hold.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// What has to hold, in a few words.
    pub name: &'static str,
    /// Rows of the requirements table, `openingd:` checks, or the field of `limits:` alone.
    pub cites: &'static [&'static str],
    /// Whether it holds.
    pub check: fn(&Proposal<'_>) -> Result<(), Refusal>,
}

/// The rules of one stage, in the order in which they are checked.
pub fn rules(profile: Profile, stage: Stage) -> &'static [Rule] {
    match (profile, stage) {
        (Profile::Strict, Stage::SendOpenChannel) => strict::SEND_OPEN_CHANNEL,
        (Profile::Strict, Stage::ReceiveOpenChannel) => strict::RECEIVE_OPEN_CHANNEL,
        (Profile::Strict, Stage::SendAcceptChannel) => strict::SEND_ACCEPT_CHANNEL,
        (Profile::Strict, Stage::ReceiveAcceptChannel) => strict::RECEIVE_ACCEPT_CHANNEL,
        (Profile::Openingd, Stage::SendOpenChannel) => openingd::SEND_OPEN_CHANNEL,
        (Profile::Openingd, Stage::ReceiveOpenChannel) => openingd::RECEIVE_OPEN_CHANNEL,
        (Profile::Openingd, Stage::SendAcceptChannel) => openingd::SEND_ACCEPT_CHANNEL,
        (Profile::Openingd, Stage::ReceiveAcceptChannel) => openingd::RECEIVE_ACCEPT_CHANNEL,
    }
}

/// The first violation, by the profile of the proposal's limits.
pub fn judge(stage: Stage, proposal: &Proposal<'_>) -> Result<(), Refusal> {
    rules(proposal.limits.profile, stage).iter().try_for_each(|rule| (rule.check)(proposal))
}

/// Every violation, each with the rule that found it.
///
/// A rule that cannot be applied because of another's violation (the fee of an undefined channel
/// type) is silent.
pub fn explain(stage: Stage, proposal: &Proposal<'_>) -> Vec<(&'static Rule, Refusal)> {
    rules(proposal.limits.profile, stage)
        .iter()
        .filter_map(|rule| (rule.check)(proposal).err().map(|refusal| (rule, refusal)))
        .collect()
}

const fn rule(
    name: &'static str,
    cites: &'static [&'static str],
    check: fn(&Proposal<'_>) -> Result<(), Refusal>,
) -> Rule {
    Rule { name, cites, check }
}
