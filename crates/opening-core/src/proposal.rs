//! What the rules judge: the terms of one channel, free of messages.

use bitcoin::constants::ChainHash;
use bitcoin::{Amount, Script};
use lightning_types::features::ChannelTypeFeatures;

use crate::amount::{FeeratePerKw, MilliSatoshi};
use crate::config::ChannelConfig;
use crate::features::NegotiatedFeatures;
use crate::limits::{FeerateRange, Limits};

/// The terms of a channel as far as they are known, beside what they are judged by.
#[derive(Clone, Copy, Debug)]
pub struct Proposal<'a> {
    /// What the opener proposes.
    pub offer: Offer<'a>,
    /// What the accepter answers, once known.
    pub answer: Option<Answer<'a>>,
    /// The chain that this node is on.
    pub chain_hash: ChainHash,
    /// The features of both `init` messages.
    pub features: &'a NegotiatedFeatures,
    /// This node's limits for this peer.
    pub limits: &'a Limits,
    /// Acceptable feerates; `None` while there is no estimate, which is a refusal.
    pub feerates: Option<FeerateRange>,
}

/// The content of `open_channel` that rules look at.
#[derive(Clone, Copy, Debug)]
pub struct Offer<'a> {
    /// The chain on which to open.
    pub chain_hash: ChainHash,
    /// Satoshis.
    pub funding_satoshis: Amount,
    /// Millisatoshis of it given to the accepter.
    pub push_msat: MilliSatoshi,
    /// sat per 1000 weight units, set and paid by the opener.
    pub feerate_per_kw: FeeratePerKw,
    /// Bit 0 of `channel_flags`; the others are ignored (B2-OPEN-R-01).
    pub announce_channel: bool,
    /// As on the wire: it may be missing, undefined, or not minimal.
    pub channel_type: Option<&'a ChannelTypeFeatures>,
    /// What the opener announces.
    pub config: ChannelConfig,
    /// As on the wire: missing, empty for "none", or a script.
    pub upfront_shutdown_script: Option<&'a Script>,
}

/// The content of `accept_channel` that rules look at.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// Blocks until the accepter sends `channel_ready`.
    pub minimum_depth: u32,
    /// As on the wire.
    pub channel_type: Option<&'a ChannelTypeFeatures>,
    /// What the accepter announces.
    pub config: ChannelConfig,
    /// As on the wire.
    pub upfront_shutdown_script: Option<&'a Script>,
}
