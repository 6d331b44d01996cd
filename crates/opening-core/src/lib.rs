//! Rules, scripts and first transactions of Lightning channel establishment.
//!
//! This crate judges and builds; it neither speaks nor waits.  It has no `async`, socket, clock,
//! randomness or log line, and builds without `std`.
//!
//! * [`Proposal`]: the terms of a channel, judged by [`rules`], refused with a [`Refusal`].
//! * [`Limits`]: what this node asks for and accepts, each knob with its unit and default;
//!   [`Terms`]: what a policy overrides for one offer.
//! * [`ChannelParameters`]: what two nodes agreed on, from which both first
//!   [`Commitment`] transactions follow.
//! * [`keys`]: BOLT 3 key derivation; [`funding`]: the funding output and the channel's id.

#![cfg_attr(not(any(feature = "std", test)), no_std)]

extern crate alloc;

pub mod amount;
pub mod channel_type;
pub mod channel_types;
pub mod commitment;
pub mod config;
pub mod dust;
pub mod features;
pub mod funding;
pub mod good_signature;
pub mod keys;
pub mod limits;
pub mod proposal;
pub mod refusal;
pub mod reserve;
pub mod rules;
mod scripts;
pub mod secrets;
pub mod short_channel_id;
pub mod shutdown_script;
pub mod side;
pub mod terms;

pub use amount::{FeeratePerKw, MilliSatoshi};
pub use channel_type::{ChannelType, CommitmentFormat};
pub use channel_types::ChannelTypes;
pub use commitment::{ChannelParameters, Commitment, CommitmentError, Party, PenaltyBase};
pub use config::ChannelConfig;
pub use features::{Feature, NegotiatedFeatures};
pub use funding::{FundingOutput, channel_id};
pub use good_signature::GoodSignature;
pub use keys::ChannelKeys;
pub use limits::{FeerateRange, Limits, Profile};
pub use proposal::{Answer, Offer, Proposal};
pub use refusal::Refusal;
pub use rules::{Rule, Stage, explain, judge};
pub use short_channel_id::ShortChannelId;
pub use side::{Role, Side};
pub use terms::Terms;
