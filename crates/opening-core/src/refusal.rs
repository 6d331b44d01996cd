//! Why a channel is not opened: one variant for each reason, with both numbers in it.
//!
//! Three readers: a program matches variants or [`Refusal::code`]; the operator and the peer read
//! `Display`, which names the BOLT's fields and tells nothing of our state beyond the bound.

use bitcoin::Amount;
use bitcoin::constants::ChainHash;

use crate::amount::{FeeratePerKw, MilliSatoshi};
use crate::channel_type::ChannelType;
use crate::features::Feature;
use crate::side::Side;

/// Why these terms make no channel.
///
/// Fields with a name of the BOLT hold what a message has; `min`, `max` and `need` are the bound
/// it misses.  `side` is who has to move: [`Side::Remote`] where the peer's message was judged,
/// [`Side::Local`] where it was what we were about to send.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // Of fields only, as said above: every variant is documented.
pub enum Refusal {
    /// The stage judges an `accept_channel`, but the proposal has none.
    #[error("there is no accept_channel")]
    NoAnswer,
    /// TLV 1 is missing.
    #[error("channel_type is missing")]
    ChannelTypeMissing { side: Side },
    /// Both offer `option_dual_fund`: channels are opened by the v2 messages then.
    #[error("option_dual_fund is negotiated, which rules out open_channel")]
    DualFundNegotiated { side: Side },
    /// A private channel where only public ones are wanted, or the other way round.
    #[error("announce_channel {} is not accepted", u8::from(*.announce_channel))]
    AnnouncementUnwanted { announce_channel: bool },
    /// More than 21 million BTC, in the unit of `field`.
    #[error("{field} {amount} exceeds 21 million BTC, {max}")]
    AmountAboveSupply { side: Side, field: &'static str, amount: u64, max: u64 },
    /// Smaller than this node cares for.
    #[error("funding_satoshis {} is below {}", .funding_satoshis.to_sat(), .min.to_sat())]
    FundingTooSmall { funding_satoshis: Amount, min: Amount },
    /// Larger than this node wants.
    #[error("funding_satoshis {} is above {}", .funding_satoshis.to_sat(), .max.to_sat())]
    FundingTooLarge { side: Side, funding_satoshis: Amount, max: Amount },
    /// No reasonable payment would be large enough.
    #[error("htlc_minimum_msat {} is above {}", .htlc_minimum_msat.to_msat(), .max.to_msat())]
    HtlcMinimumTooLarge { htlc_minimum_msat: MilliSatoshi, max: MilliSatoshi },
    /// No HTLC that is large enough fits beside reserves and fee, or into the value in flight.
    #[error(
        "htlc_minimum_msat {} is above what the channel can carry, {} sat",
        .htlc_minimum_msat.to_msat(), .capacity.to_sat()
    )]
    HtlcMinimumAboveCapacity { side: Side, htlc_minimum_msat: MilliSatoshi, capacity: Amount },
    /// Too little could be under way at once.
    #[error(
        "max_htlc_value_in_flight_msat {} is below {}",
        .max_htlc_value_in_flight_msat.to_msat(), .min.to_msat()
    )]
    MaxHtlcValueInFlightTooSmall { max_htlc_value_in_flight_msat: MilliSatoshi, min: MilliSatoshi },
    /// Too much of our balance would be frozen.
    #[error(
        "channel_reserve_satoshis {} is above {}",
        .channel_reserve_satoshis.to_sat(), .max.to_sat()
    )]
    ReserveTooLarge { channel_reserve_satoshis: Amount, max: Amount },
    /// Too few HTLCs could be offered to the peer.
    #[error("max_accepted_htlcs {max_accepted_htlcs} is below {min}")]
    MaxAcceptedHtlcsTooSmall { max_accepted_htlcs: u16, min: u16 },
    /// Too much could be lost to fees when the peer closes.
    #[error("dust_limit_satoshis {} is above {}", .dust_limit_satoshis.to_sat(), .max.to_sat())]
    DustLimitTooLarge { dust_limit_satoshis: Amount, max: Amount },
    /// Another chain than this node's.
    #[error("chain_hash {chain_hash} is unknown")]
    UnknownChain { side: Side, chain_hash: ChainHash },
    /// More is given away than there is.
    #[error(
        "push_msat {} exceeds funding_satoshis {}",
        .push_msat.to_msat(), .funding_satoshis.to_sat()
    )]
    PushExceedsFunding { side: Side, push_msat: MilliSatoshi, funding_satoshis: Amount },
    /// Our own money would be locked for too long after we close.
    #[error("to_self_delay {to_self_delay} is above {max}")]
    ToSelfDelayTooLarge { to_self_delay: u16, max: u16 },
    /// Our signer signs for no delay on our own money that is so short.
    #[error("to_self_delay {to_self_delay} is below {min}")]
    ToSelfDelayTooSmall { to_self_delay: u16, min: u16 },
    /// A commitment with that many HTLCs cannot be relayed.
    #[error("max_accepted_htlcs {max_accepted_htlcs} is above {max}")]
    MaxAcceptedHtlcsTooLarge { side: Side, max_accepted_htlcs: u16, max: u16 },
    /// This node does not know now what a reasonable feerate is.
    // The text keeps to itself why: a node that catches up should not tell strangers.
    #[error("feerate_per_kw {} cannot be accepted", .feerate_per_kw.to_sat_per_kw())]
    NoFeeEstimate { feerate_per_kw: FeeratePerKw },
    /// The commitment might not be mined in time.
    #[error(
        "feerate_per_kw {} is below {}",
        .feerate_per_kw.to_sat_per_kw(), .min.to_sat_per_kw()
    )]
    FeerateTooSmall { side: Side, feerate_per_kw: FeeratePerKw, min: FeeratePerKw },
    /// The fee is unreasonable.
    #[error(
        "feerate_per_kw {} is above {}",
        .feerate_per_kw.to_sat_per_kw(), .max.to_sat_per_kw()
    )]
    FeerateTooLarge { side: Side, feerate_per_kw: FeeratePerKw, max: FeeratePerKw },
    /// One message's dust limit is above its own reserve.
    #[error(
        "dust_limit_satoshis {} is above channel_reserve_satoshis {}",
        .dust_limit_satoshis.to_sat(), .channel_reserve_satoshis.to_sat()
    )]
    DustLimitAboveOwnReserve {
        side: Side,
        dust_limit_satoshis: Amount,
        channel_reserve_satoshis: Amount,
    },
    /// Outputs that small are not relayed.
    #[error("dust_limit_satoshis {} is below {}", .dust_limit_satoshis.to_sat(), .min.to_sat())]
    DustLimitTooSmall { side: Side, dust_limit_satoshis: Amount, min: Amount },
    /// The opener's balance does not pay the commitment fee and, with them, the anchors.
    #[error(
        "the opener has {} sat, fee and anchors need {} sat, short of {} sat",
        .have.to_sat(), .need.to_sat(), short(.have, .need)
    )]
    Unaffordable { side: Side, have: Amount, need: Amount },
    /// Neither balance is above the reserve: nobody would have anything to lose.
    #[error(
        "balances {} and {} sat are both at or below channel_reserve_satoshis {}",
        .opener.to_sat(), .accepter.to_sat(), .channel_reserve_satoshis.to_sat()
    )]
    NeitherAboveReserve {
        side: Side,
        opener: Amount,
        accepter: Amount,
        channel_reserve_satoshis: Amount,
    },
    /// That much takes `option_support_large_channel`.
    #[error(
        "funding_satoshis {} is above {} without option_support_large_channel",
        .funding_satoshis.to_sat(), .max.to_sat()
    )]
    LargeChannelUnsupported { side: Side, funding_satoshis: Amount, max: Amount },
    /// Not one of the defined types, or not written in the smallest bitmap.
    #[error("channel_type is not a defined type")]
    ChannelTypeUndefined { side: Side },
    /// The type has a feature that the two `init` messages do not agree on.
    #[error("channel_type has feature {}, which is not negotiated", .feature.even_bit())]
    ChannelTypeNotNegotiated { side: Side, feature: Feature },
    /// A type that this node, or its signer, does not take.
    #[error("channel_type {channel_type} is not accepted")]
    ChannelTypeNotAccepted { side: Side, channel_type: ChannelType },
    /// A channel that is known by alias only cannot be announced.
    #[error("channel_type has option_scid_alias together with announce_channel")]
    ScidAliasAnnounced { side: Side },
    /// This peer is not trusted to open channels that are used before they confirm.
    #[error("channel_type has option_zeroconf, which is not accepted")]
    ZeroconfUntrusted,
    /// TLV 0 is missing although the feature is negotiated, or where we send TLVs.
    #[error("upfront_shutdown_script is missing")]
    UpfrontShutdownScriptMissing { side: Side },
    /// None of the forms that the negotiated features allow.
    #[error("upfront_shutdown_script of {length} bytes has no valid form")]
    UpfrontShutdownScriptInvalid { side: Side, length: usize },
    /// Both reserves together, and what is reserved for anchors, are more than there is.
    #[error(
        "reserves need {} sat, funding_satoshis is {}, short of {} sat",
        .need.to_sat(), .funding_satoshis.to_sat(), short(.funding_satoshis, .need)
    )]
    ReservesExceedFunding { side: Side, need: Amount, funding_satoshis: Amount },
    /// A commitment would have no output at all: both balances fall below its owner's dust limit.
    #[error(
        "balances {} and {} sat are both below dust_limit_satoshis {}",
        .opener.to_sat(), .accepter.to_sat(), .dust_limit_satoshis.to_sat()
    )]
    NoOutputs { side: Side, opener: Amount, accepter: Amount, dust_limit_satoshis: Amount },
    /// What the reserves leave does not pay the commitment fee.
    #[error(
        "reserves and anchors leave {} sat, the fee needs {} sat, short of {} sat",
        .have.to_sat(), .need.to_sat(), short(.have, .need)
    )]
    FeeExceedsUnreserved { side: Side, have: Amount, need: Amount },
    /// Reserves and fee, or the value in flight, leave too little to move.
    #[error("a capacity of {} sat is below {}", .capacity.to_sat(), .min.to_sat())]
    CapacityTooSmall { side: Side, capacity: Amount, min: Amount },
    /// The accepter's reserve would let the opener's balance become dust.
    #[error(
        "channel_reserve_satoshis {} of accept_channel is below dust_limit_satoshis {} of \
         open_channel",
        .channel_reserve_satoshis.to_sat(), .dust_limit_satoshis.to_sat()
    )]
    ReserveBelowDustLimit {
        side: Side,
        channel_reserve_satoshis: Amount,
        dust_limit_satoshis: Amount,
    },
    /// The accepter's dust limit is above what the opener makes it keep.
    #[error(
        "dust_limit_satoshis {} of accept_channel is above channel_reserve_satoshis {} of \
         open_channel",
        .dust_limit_satoshis.to_sat(), .channel_reserve_satoshis.to_sat()
    )]
    DustLimitAboveReserve {
        side: Side,
        dust_limit_satoshis: Amount,
        channel_reserve_satoshis: Amount,
    },
    /// `accept_channel` does not repeat the type of `open_channel`, byte for byte.
    #[error("channel_type of accept_channel differs from that of open_channel")]
    ChannelTypeDiffers { side: Side },
    /// The accepter wants to wait for too long.
    #[error("minimum_depth {minimum_depth} is above {max}")]
    MinimumDepthTooLarge { minimum_depth: u32, max: u32 },
    /// A depth above 0 with `option_zeroconf`.
    #[error("minimum_depth {minimum_depth} is above 0 with option_zeroconf")]
    MinimumDepthWithZeroconf { side: Side, minimum_depth: u32 },
    /// A depth of 0 in our answer, without `option_zeroconf`.
    #[error("minimum_depth 0 is below 1 without option_zeroconf")]
    MinimumDepthZero,
}

fn short(have: &Amount, need: &Amount) -> u64 {
    need.to_sat().saturating_sub(have.to_sat())
}

/// What does not depend on the numbers: code, citations, and who has to move.
struct Facts(&'static str, &'static [&'static str], Side);

impl Refusal {
    /// A stable name for programs, in kebab-case.
    pub fn code(&self) -> &'static str {
        self.facts().0
    }

    /// The requirements behind this reason, in whichever message and profile it was found:
    /// rows of the requirements table, `openingd:` rules, or the field of `limits:` alone.
    pub fn cites(&self) -> &'static [&'static str] {
        self.facts().1
    }

    /// Whose parameter has to change for the channel to be possible.
    pub fn side_to_move(&self) -> Side {
        self.facts().2
    }

    #[rustfmt::skip] // A table: one reason, one line.
    fn facts(&self) -> Facts {
        use Refusal as R;
        use Side::{Local, Remote};
        match *self {
            R::NoAnswer => Facts("no-answer", &["B2-EST-B-02"], Local),
            R::ChannelTypeMissing { side } => Facts("channel-type-missing", &["B2-OPEN-S-13", "B2-OPEN-R-02", "B2-ACC-R-04"], side),
            R::DualFundNegotiated { side } => Facts("dual-fund-negotiated", &["B2-OPEN-R-05"], side),
            R::AnnouncementUnwanted { .. } => Facts("announcement-unwanted", &["B2-OPEN-R-06"], Remote),
            R::AmountAboveSupply { side, .. } => Facts("amount-above-supply", &["B1-TYP-B-02", "B1-TYP-B-03", "B1-TYP-B-04"], side),
            R::FundingTooSmall { .. } => Facts("funding-satoshis-too-small", &["B2-OPEN-R-07"], Remote),
            R::FundingTooLarge { side, .. } => Facts("funding-satoshis-too-large", &["limits:max_funding_satoshis"], side),
            R::HtlcMinimumTooLarge { .. } => Facts("htlc-minimum-msat-too-large", &["B2-OPEN-R-08", "B2-ACC-R-12"], Remote),
            R::HtlcMinimumAboveCapacity { side, .. } => Facts("htlc-minimum-msat-above-capacity", &["B2-OPEN-R-08", "B2-ACC-R-12", "openingd:R7"], side),
            R::MaxHtlcValueInFlightTooSmall { .. } => Facts("max-htlc-value-in-flight-msat-too-small", &["B2-OPEN-R-09", "B2-ACC-R-12"], Remote),
            R::ReserveTooLarge { .. } => Facts("channel-reserve-satoshis-too-large", &["B2-OPEN-R-10", "B2-ACC-R-12"], Remote),
            R::MaxAcceptedHtlcsTooSmall { .. } => Facts("max-accepted-htlcs-too-small", &["B2-OPEN-R-11", "B2-ACC-R-12", "openingd:R9"], Remote),
            R::DustLimitTooLarge { .. } => Facts("dust-limit-satoshis-too-large", &["B2-OPEN-R-12", "B2-ACC-R-12"], Remote),
            R::UnknownChain { side, .. } => Facts("unknown-chain", &["B2-OPEN-S-01", "B2-OPEN-R-13"], side),
            R::PushExceedsFunding { side, .. } => Facts("push-msat-exceeds-funding", &["B2-OPEN-S-05", "B2-OPEN-R-14"], side),
            R::ToSelfDelayTooLarge { .. } => Facts("to-self-delay-too-large", &["B2-OPEN-R-15", "B2-ACC-R-06", "openingd:R1"], Remote),
            R::ToSelfDelayTooSmall { .. } => Facts("to-self-delay-too-small", &["limits:min_to_self_delay"], Remote),
            R::MaxAcceptedHtlcsTooLarge { side, .. } => Facts("max-accepted-htlcs-too-large", &["B2-OPEN-R-16", "B2-ACC-R-07", "openingd:R10"], side),
            R::NoFeeEstimate { .. } => Facts("no-fee-estimate", &["B2-OPEN-S-19", "B2-OPEN-R-17"], Local),
            R::FeerateTooSmall { side, .. } => Facts("feerate-per-kw-too-small", &["B2-OPEN-S-19", "B2-OPEN-R-17", "B3-FEE-B-05"], side),
            R::FeerateTooLarge { side, .. } => Facts("feerate-per-kw-too-large", &["B2-OPEN-R-17"], side),
            R::DustLimitAboveOwnReserve { side, .. } => Facts("dust-limit-above-own-reserve", &["B2-OPEN-S-08", "B2-OPEN-R-19", "B2-ACC-S-08", "B2-ACC-R-09", "openingd:R11"], side),
            R::DustLimitTooSmall { side, .. } => Facts("dust-limit-satoshis-too-small", &["B2-OPEN-S-20", "B2-OPEN-R-20", "B2-ACC-S-10", "B2-ACC-R-10", "B3-DUST-B-06"], side),
            R::Unaffordable { side, .. } => Facts("fee-unaffordable", &["B2-OPEN-R-21", "B3-FEE-B-03"], side),
            R::NeitherAboveReserve { side, .. } => Facts("neither-above-reserve", &["B2-OPEN-R-22", "B2-ACC-R-11"], side),
            R::LargeChannelUnsupported { side, .. } => Facts("large-channel-unsupported", &["B2-OPEN-S-04", "B2-OPEN-R-23"], side),
            R::ChannelTypeUndefined { side } => Facts("channel-type-undefined", &["B2-TYPE-B-01", "B2-OPEN-S-14", "B2-OPEN-S-15", "B2-OPEN-R-24"], side),
            R::ChannelTypeNotNegotiated { side, .. } => Facts("channel-type-not-negotiated", &["B2-OPEN-S-16", "B2-OPEN-R-24"], side),
            R::ChannelTypeNotAccepted { side, .. } => Facts("channel-type-not-accepted", &["limits:channel_types"], side),
            R::ScidAliasAnnounced { side } => Facts("scid-alias-announced", &["B2-OPEN-S-17", "B2-OPEN-R-24"], side),
            R::ZeroconfUntrusted => Facts("zeroconf-untrusted", &["B2-OPEN-R-25"], Remote),
            R::UpfrontShutdownScriptMissing { side } => Facts("upfront-shutdown-script-missing", &["B2-OPEN-S-10", "B2-OPEN-S-12", "B2-ACC-S-09"], side),
            R::UpfrontShutdownScriptInvalid { side, .. } => Facts("upfront-shutdown-script-invalid", &["B2-OPEN-S-10", "B2-ACC-S-09", "B2-SHUT-S-05"], side),
            R::ReservesExceedFunding { side, .. } => Facts("reserves-exceed-funding", &["B2-OPEN-R-10", "B2-ACC-R-12", "openingd:R2", "openingd:R3", "openingd:R4"], side),
            R::NoOutputs { side, .. } => Facts("no-outputs", &["B3-FEE-B-04", "B2-OPEN-B-05"], side),
            R::FeeExceedsUnreserved { side, .. } => Facts("fee-exceeds-unreserved", &["openingd:R5"], side),
            R::CapacityTooSmall { side, .. } => Facts("capacity-too-small", &["openingd:R8"], side),
            R::ReserveBelowDustLimit { side, .. } => Facts("reserve-below-dust-limit", &["B2-ACC-S-03", "B2-ACC-R-02"], side),
            R::DustLimitAboveReserve { side, .. } => Facts("dust-limit-above-reserve", &["B2-ACC-S-04", "B2-ACC-R-03"], side),
            R::ChannelTypeDiffers { side } => Facts("channel-type-differs", &["B2-ACC-S-05", "B2-ACC-R-05"], side),
            R::MinimumDepthTooLarge { .. } => Facts("minimum-depth-too-large", &["B2-ACC-R-01"], Remote),
            R::MinimumDepthWithZeroconf { side, .. } => Facts("minimum-depth-with-zeroconf", &["B2-ACC-S-01"], side),
            R::MinimumDepthZero => Facts("minimum-depth-zero", &["B2-ACC-S-02"], Local),
        }
    }
}
