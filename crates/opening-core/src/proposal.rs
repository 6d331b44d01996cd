//! What the rules judge: the terms of one channel, free of messages.

use bitcoin::constants::ChainHash;
use bitcoin::{Amount, Script};
use lightning_types::features::ChannelTypeFeatures;

use crate::amount::{FeeratePerKw, MilliSatoshi};
use crate::channel_type::ChannelType;
use crate::config::ChannelConfig;
use crate::features::NegotiatedFeatures;
use crate::limits::{FeerateRange, Limits};
use crate::terms::Terms;

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

impl Proposal<'_> {
    /// What the accepter announces.  Before it answers: what we would, being the accepter.
    pub(crate) fn accepter_config(&self) -> ChannelConfig {
        self.answer.map_or_else(
            || {
                let offer = &self.offer;
                let terms = Terms::default();
                self.limits.config_for_accept(offer.funding_satoshis, &offer.config, &terms)
            },
            |answer| answer.config,
        )
    }
}

impl Offer<'_> {
    /// The channel type, if there is one and it is a defined one.
    pub fn defined_channel_type(&self) -> Option<ChannelType> {
        self.channel_type.and_then(ChannelType::from_features)
    }
}

impl Answer<'_> {
    /// Blocks that we wait for as funder.
    ///
    /// A depth of 0 without `option_zeroconf` is a promise of the accepter's that does not bind
    /// us: we treat it as 1.
    pub fn effective_minimum_depth(&self) -> u32 {
        let channel_type = self.channel_type.and_then(ChannelType::from_features);
        if channel_type.is_some_and(|channel_type| channel_type.zeroconf) {
            self.minimum_depth
        } else {
            self.minimum_depth.max(1)
        }
    }
}
