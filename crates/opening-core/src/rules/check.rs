//! What single fields have to fulfil, whoever announced them.

use bitcoin::{Amount, Script};
use lightning_types::features::ChannelTypeFeatures;

use crate::amount::{MAX_MILLISATOSHIS, MAX_SATOSHIS, MilliSatoshi};
use crate::channel_type::ChannelType;
use crate::config::ChannelConfig;
use crate::features::{Feature, offers};
use crate::limits::{Announcement, DUST_LIMIT_FLOOR, LARGE_CHANNEL, Limits, MAX_ACCEPTED_HTLCS};
use crate::proposal::{Answer, Proposal};
use crate::refusal::Refusal;
use crate::reserve::percent_of;
use crate::shutdown_script::is_valid_shutdown_script;
use crate::side::Side;

pub(super) type Verdict = Result<(), Refusal>;

pub(super) fn ensure(holds: bool, refusal: Refusal) -> Verdict {
    if holds { Ok(()) } else { Err(refusal) }
}

/// The first rule of the stages that judge an answer: without one, nothing passes.
pub(super) fn is_answered(p: &Proposal<'_>) -> Verdict {
    ensure(p.answer.is_some(), Refusal::NoAnswer)
}

/// Applies `check` to the answer; where there is none, [`is_answered`] has refused.
pub(super) fn answer(p: &Proposal<'_>, check: impl FnOnce(&Answer<'_>) -> Verdict) -> Verdict {
    p.answer.as_ref().map_or(Ok(()), check)
}

// Offer: chain, features, flags, amounts.

pub(super) fn chain_is_ours(side: Side, p: &Proposal<'_>) -> Verdict {
    let chain_hash = p.offer.chain_hash;
    ensure(chain_hash == p.chain_hash, Refusal::UnknownChain { side, chain_hash })
}

pub(super) fn dual_fund_is_not_negotiated(side: Side, p: &Proposal<'_>) -> Verdict {
    ensure(!p.features.negotiated(Feature::DualFund), Refusal::DualFundNegotiated { side })
}

pub(super) fn announcement_is_wanted(p: &Proposal<'_>) -> Verdict {
    let announce_channel = p.offer.announce_channel;
    let wanted = match p.limits.announcement {
        Announcement::Any => true,
        Announcement::PublicOnly => announce_channel,
        Announcement::PrivateOnly => !announce_channel,
    };
    ensure(wanted, Refusal::AnnouncementUnwanted { announce_channel })
}

pub(super) fn satoshis_exist(side: Side, field: &'static str, amount: Amount) -> Verdict {
    let (amount, max) = (amount.to_sat(), MAX_SATOSHIS.to_sat());
    ensure(amount <= max, Refusal::AmountAboveSupply { side, field, amount, max })
}

pub(super) fn millisatoshis_exist(
    side: Side,
    field: &'static str,
    amount: MilliSatoshi,
) -> Verdict {
    let (amount, max) = (amount.to_msat(), MAX_MILLISATOSHIS.to_msat());
    ensure(amount <= max, Refusal::AmountAboveSupply { side, field, amount, max })
}

pub(super) fn funding_exists(side: Side, p: &Proposal<'_>) -> Verdict {
    satoshis_exist(side, "funding_satoshis", p.offer.funding_satoshis)
}

/// All amounts of one side's config.
pub(super) fn config_exists(side: Side, config: &ChannelConfig) -> Verdict {
    satoshis_exist(side, "dust_limit_satoshis", config.dust_limit_satoshis)?;
    satoshis_exist(side, "channel_reserve_satoshis", config.channel_reserve_satoshis)?;
    millisatoshis_exist(side, "htlc_minimum_msat", config.htlc_minimum_msat)?;
    let in_flight = config.max_htlc_value_in_flight_msat;
    millisatoshis_exist(side, "max_htlc_value_in_flight_msat", in_flight)
}

pub(super) fn funding_at_least_minimum(p: &Proposal<'_>) -> Verdict {
    let (funding_satoshis, min) = (p.offer.funding_satoshis, p.limits.min_funding_satoshis);
    ensure(funding_satoshis >= min, Refusal::FundingTooSmall { funding_satoshis, min })
}

pub(super) fn funding_at_most_maximum(side: Side, p: &Proposal<'_>) -> Verdict {
    let (funding_satoshis, max) = (p.offer.funding_satoshis, p.limits.max_funding_satoshis);
    ensure(funding_satoshis <= max, Refusal::FundingTooLarge { side, funding_satoshis, max })
}

fn large_only_where(supported: bool, side: Side, p: &Proposal<'_>) -> Verdict {
    let (funding_satoshis, max) = (p.offer.funding_satoshis, LARGE_CHANNEL - Amount::ONE_SAT);
    ensure(
        supported || funding_satoshis <= max,
        Refusal::LargeChannelUnsupported { side, funding_satoshis, max },
    )
}

/// The sender's rule: both advertised it.
pub(super) fn large_only_if_both_advertised(side: Side, p: &Proposal<'_>) -> Verdict {
    let [local, remote] =
        [&p.features.local, &p.features.remote].map(|init| offers(init, Feature::LargeChannels));
    large_only_where(local && remote, side, p)
}

/// The receiver's rule: we support it, whether or not the peer said that it does.
pub(super) fn large_only_if_supported(side: Side, p: &Proposal<'_>) -> Verdict {
    large_only_where(offers(&p.features.local, Feature::LargeChannels), side, p)
}

/// openingd's rule: negotiation, not just support.
pub(super) fn large_only_if_negotiated(side: Side, p: &Proposal<'_>) -> Verdict {
    large_only_where(p.features.negotiated(Feature::LargeChannels), side, p)
}

pub(super) fn push_within_funding(side: Side, p: &Proposal<'_>) -> Verdict {
    let (push_msat, funding_satoshis) = (p.offer.push_msat, p.offer.funding_satoshis);
    // A funding that overflows in millisatoshis is larger than whatever is pushed.
    let within = MilliSatoshi::from_amount(funding_satoshis).is_none_or(|all| push_msat <= all);
    ensure(within, Refusal::PushExceedsFunding { side, push_msat, funding_satoshis })
}

pub(super) fn feerate_can_be_judged(p: &Proposal<'_>) -> Verdict {
    let feerate_per_kw = p.offer.feerate_per_kw;
    ensure(p.feerates.is_some(), Refusal::NoFeeEstimate { feerate_per_kw })
}

pub(super) fn feerate_at_least_minimum(side: Side, p: &Proposal<'_>) -> Verdict {
    let Some(range) = p.feerates else { return Ok(()) };
    let (feerate_per_kw, min) = (p.offer.feerate_per_kw, range.min);
    ensure(feerate_per_kw >= min, Refusal::FeerateTooSmall { side, feerate_per_kw, min })
}

pub(super) fn feerate_at_most_maximum(side: Side, p: &Proposal<'_>) -> Verdict {
    let Some(range) = p.feerates else { return Ok(()) };
    let (feerate_per_kw, max) = (p.offer.feerate_per_kw, range.max);
    ensure(feerate_per_kw <= max, Refusal::FeerateTooLarge { side, feerate_per_kw, max })
}

// Channel types.

pub(super) fn type_is_there(side: Side, wire: Option<&ChannelTypeFeatures>) -> Verdict {
    ensure(wire.is_some(), Refusal::ChannelTypeMissing { side })
}

pub(super) fn type_is_defined(side: Side, p: &Proposal<'_>) -> Verdict {
    let undefined = p.offer.channel_type.is_some() && p.offer.defined_channel_type().is_none();
    ensure(!undefined, Refusal::ChannelTypeUndefined { side })
}

fn offered_type(p: &Proposal<'_>, check: impl FnOnce(ChannelType) -> Verdict) -> Verdict {
    p.offer.defined_channel_type().map_or(Ok(()), check)
}

pub(super) fn type_is_negotiated(side: Side, p: &Proposal<'_>) -> Verdict {
    offered_type(p, |channel_type| {
        match channel_type.features().find(|&feature| !p.features.negotiated(feature)) {
            None => Ok(()),
            Some(feature) => Err(Refusal::ChannelTypeNotNegotiated { side, feature }),
        }
    })
}

pub(super) fn type_is_accepted(side: Side, p: &Proposal<'_>) -> Verdict {
    offered_type(p, |channel_type| {
        let is_accepted = p.limits.channel_types.contains(channel_type);
        ensure(is_accepted, Refusal::ChannelTypeNotAccepted { side, channel_type })
    })
}

pub(super) fn alias_is_not_announced(side: Side, p: &Proposal<'_>) -> Verdict {
    offered_type(p, |channel_type| {
        let announced = channel_type.scid_alias && p.offer.announce_channel;
        ensure(!announced, Refusal::ScidAliasAnnounced { side })
    })
}

pub(super) fn zeroconf_is_trusted(p: &Proposal<'_>) -> Verdict {
    offered_type(p, |channel_type| {
        ensure(!channel_type.zeroconf || p.limits.trust_zeroconf, Refusal::ZeroconfUntrusted)
    })
}

/// Byte for byte: `ChannelTypeFeatures` would take a padded bitmap for the same.
pub(super) fn type_is_echoed(side: Side, p: &Proposal<'_>) -> Verdict {
    answer(p, |answer| match (p.offer.channel_type, answer.channel_type) {
        (Some(offered), Some(answered)) => {
            ensure(offered.le_flags() == answered.le_flags(), Refusal::ChannelTypeDiffers { side })
        }
        (None, Some(_)) => Err(Refusal::ChannelTypeDiffers { side }),
        (_, None) => Ok(()),
    })
}

// Upfront shutdown scripts.

fn script_is_valid(side: Side, script: Option<&Script>, p: &Proposal<'_>) -> Verdict {
    let Some(script) = script.filter(|script| !script.is_empty()) else { return Ok(()) };
    ensure(
        is_valid_shutdown_script(script, p.features),
        Refusal::UpfrontShutdownScriptInvalid { side, length: script.len() },
    )
}

/// What we send always has TLV 0, empty or valid: it always has TLVs, and they ask for it.
pub(super) fn sent_script(script: Option<&Script>, p: &Proposal<'_>) -> Verdict {
    let side = Side::Local;
    ensure(script.is_some(), Refusal::UpfrontShutdownScriptMissing { side })?;
    script_is_valid(side, script, p)
}

/// A peer that negotiated the feature has to send TLV 0.
pub(super) fn received_script_is_there(script: Option<&Script>, p: &Proposal<'_>) -> Verdict {
    let negotiated = p.features.negotiated(Feature::UpfrontShutdownScript);
    let side = Side::Remote;
    ensure(script.is_some() || !negotiated, Refusal::UpfrontShutdownScriptMissing { side })
}

/// What comes without negotiation is ignored, not judged.
pub(super) fn received_script_is_valid(script: Option<&Script>, p: &Proposal<'_>) -> Verdict {
    if !p.features.negotiated(Feature::UpfrontShutdownScript) {
        return Ok(());
    }
    script_is_valid(Side::Remote, script, p)
}

// One side's config.

pub(super) fn htlc_minimum_at_most_maximum(limits: &Limits, config: &ChannelConfig) -> Verdict {
    let (htlc_minimum_msat, max) = (config.htlc_minimum_msat, limits.max_htlc_minimum_msat);
    ensure(htlc_minimum_msat <= max, Refusal::HtlcMinimumTooLarge { htlc_minimum_msat, max })
}

pub(super) fn in_flight_at_least_minimum(limits: &Limits, config: &ChannelConfig) -> Verdict {
    // Peers do send 2^64 - 1: more than there is means no bound.
    let in_flight = config.max_htlc_value_in_flight_msat.min(MAX_MILLISATOSHIS);
    let min = limits.min_htlc_value_in_flight_msat;
    ensure(
        in_flight >= min,
        Refusal::MaxHtlcValueInFlightTooSmall { max_htlc_value_in_flight_msat: in_flight, min },
    )
}

pub(super) fn reserve_at_most_maximum(p: &Proposal<'_>, config: &ChannelConfig) -> Verdict {
    let channel_reserve_satoshis = config.channel_reserve_satoshis;
    let max = percent_of(p.offer.funding_satoshis, p.limits.max_channel_reserve_percent);
    ensure(
        channel_reserve_satoshis <= max,
        Refusal::ReserveTooLarge { channel_reserve_satoshis, max },
    )
}

pub(super) fn htlcs_at_least(min: u16, config: &ChannelConfig) -> Verdict {
    let max_accepted_htlcs = config.max_accepted_htlcs;
    ensure(max_accepted_htlcs >= min, Refusal::MaxAcceptedHtlcsTooSmall { max_accepted_htlcs, min })
}

pub(super) fn htlcs_at_most_483(side: Side, config: &ChannelConfig) -> Verdict {
    let (max_accepted_htlcs, max) = (config.max_accepted_htlcs, MAX_ACCEPTED_HTLCS);
    ensure(
        max_accepted_htlcs <= max,
        Refusal::MaxAcceptedHtlcsTooLarge { side, max_accepted_htlcs, max },
    )
}

pub(super) fn dust_limit_at_most_maximum(limits: &Limits, config: &ChannelConfig) -> Verdict {
    let (dust_limit_satoshis, max) = (config.dust_limit_satoshis, limits.max_dust_limit_satoshis);
    ensure(dust_limit_satoshis <= max, Refusal::DustLimitTooLarge { dust_limit_satoshis, max })
}

pub(super) fn dust_limit_at_least_floor(side: Side, config: &ChannelConfig) -> Verdict {
    let (dust_limit_satoshis, min) = (config.dust_limit_satoshis, DUST_LIMIT_FLOOR);
    ensure(
        dust_limit_satoshis >= min,
        Refusal::DustLimitTooSmall { side, dust_limit_satoshis, min },
    )
}

pub(super) fn dust_limit_within_own_reserve(side: Side, config: &ChannelConfig) -> Verdict {
    let ChannelConfig { dust_limit_satoshis, channel_reserve_satoshis, .. } = *config;
    ensure(
        dust_limit_satoshis <= channel_reserve_satoshis,
        Refusal::DustLimitAboveOwnReserve { side, dust_limit_satoshis, channel_reserve_satoshis },
    )
}

pub(super) fn delay_at_most_maximum(limits: &Limits, config: &ChannelConfig) -> Verdict {
    let (to_self_delay, max) = (config.to_self_delay, limits.max_to_self_delay);
    ensure(to_self_delay <= max, Refusal::ToSelfDelayTooLarge { to_self_delay, max })
}

pub(super) fn delay_at_least_minimum(limits: &Limits, config: &ChannelConfig) -> Verdict {
    let (to_self_delay, min) = (config.to_self_delay, limits.min_to_self_delay);
    ensure(to_self_delay >= min, Refusal::ToSelfDelayTooSmall { to_self_delay, min })
}

// Both configs.

/// The accepter's reserve keeps the opener's balance above dust.
pub(super) fn reserve_covers_opener_dust(
    side: Side,
    opener: &ChannelConfig,
    accepter: &ChannelConfig,
) -> Verdict {
    let channel_reserve_satoshis = accepter.channel_reserve_satoshis;
    let dust_limit_satoshis = opener.dust_limit_satoshis;
    ensure(
        channel_reserve_satoshis >= dust_limit_satoshis,
        Refusal::ReserveBelowDustLimit { side, channel_reserve_satoshis, dust_limit_satoshis },
    )
}

/// The opener's reserve keeps the accepter's balance above dust.
pub(super) fn accepter_dust_within_reserve(
    side: Side,
    opener: &ChannelConfig,
    accepter: &ChannelConfig,
) -> Verdict {
    let dust_limit_satoshis = accepter.dust_limit_satoshis;
    let channel_reserve_satoshis = opener.channel_reserve_satoshis;
    ensure(
        dust_limit_satoshis <= channel_reserve_satoshis,
        Refusal::DustLimitAboveReserve { side, dust_limit_satoshis, channel_reserve_satoshis },
    )
}

// Depth.

pub(super) fn depth_at_most_maximum(p: &Proposal<'_>) -> Verdict {
    answer(p, |answer| {
        let (minimum_depth, max) = (answer.minimum_depth, p.limits.max_minimum_depth);
        ensure(minimum_depth <= max, Refusal::MinimumDepthTooLarge { minimum_depth, max })
    })
}

fn has_zeroconf(p: &Proposal<'_>) -> bool {
    p.offer.defined_channel_type().is_some_and(|channel_type| channel_type.zeroconf)
}

pub(super) fn zeroconf_has_no_depth(side: Side, p: &Proposal<'_>) -> Verdict {
    answer(p, |answer| {
        let minimum_depth = answer.minimum_depth;
        ensure(
            minimum_depth == 0 || !has_zeroconf(p),
            Refusal::MinimumDepthWithZeroconf { side, minimum_depth },
        )
    })
}

pub(super) fn depth_is_not_zero(p: &Proposal<'_>) -> Verdict {
    answer(p, |answer| {
        ensure(answer.minimum_depth > 0 || has_zeroconf(p), Refusal::MinimumDepthZero)
    })
}
