//! What this node asks of its peers and accepts from them.

use bitcoin::{Amount, Network};

use crate::amount::{FeeratePerKw, MAX_MILLISATOSHIS, MAX_SATOSHIS, MilliSatoshi};
use crate::channel_types::ChannelTypes;

/// The smallest dust limit that BOLT 2 lets anyone announce (B2-OPEN-R-20, B3-DUST-B-06).
pub const DUST_LIMIT_FLOOR: Amount = Amount::from_sat(354);

/// Most HTLCs that fit into a commitment transaction which can be relayed (B2-OPEN-R-16).
pub const MAX_ACCEPTED_HTLCS: u16 = 483;

/// The first funding amount that takes `option_support_large_channel` (B2-OPEN-R-23).
pub const LARGE_CHANNEL: Amount = Amount::from_sat(1 << 24);

/// Whose rules are applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Profile {
    /// The BOLT, with a stance wherever it is silent.
    #[default]
    Strict,
    /// The checks of Core Lightning's openingd in its order, for parity tests and migration.
    Openingd,
}

/// Which channels are wanted, by their `announce_channel` bit (B2-OPEN-R-06).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Announcement {
    /// Public and private ones.
    #[default]
    Any,
    /// Only channels that will be announced.
    PublicOnly,
    /// Only channels that will not.
    PrivateOnly,
}

/// Bounds on what a peer asks for, and what we ask for ourselves.  A policy may choose them for
/// each peer; a signer may narrow them.
///
/// The fields of the first half say what we accept; those of the second what *we* announce.
/// [`Profile::Openingd`] looks at `max_to_self_delay`, `min_effective_htlc_capacity` and
/// `trust_zeroconf` of the first half only, and has its own reserve and value in flight.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Whose rules are applied.  Default: the BOLT's.
    pub profile: Profile,
    /// Satoshis.  Smallest channel accepted.  Default: 20,000 on mainnet, 10,000 elsewhere.
    pub min_funding_satoshis: Amount,
    /// Satoshis.  Largest channel accepted or opened.  Default: 21 million BTC, which leaves the
    /// bound to `option_support_large_channel`.
    pub max_funding_satoshis: Amount,
    /// Satoshis.  Largest dust limit accepted from the peer.  Default: 10,000.
    pub max_dust_limit_satoshis: Amount,
    /// Blocks.  Longest delay accepted on our own outputs.  Default: 2016.
    pub max_to_self_delay: u16,
    /// Blocks.  Shortest delay accepted on our own outputs: some signers know none below a bound
    /// of their own.  Default: 0, off.
    pub min_to_self_delay: u16,
    /// Channel types that are accepted and opened, as far as they are negotiated.  Default: all.
    pub channel_types: ChannelTypes,
    /// Smallest number of HTLCs that the peer must let us offer.  Default: 1.
    pub min_accepted_htlcs: u16,
    /// Millisatoshis.  Smallest sum of HTLCs in flight that the peer must let us offer.  Default: 0.
    pub min_htlc_value_in_flight_msat: MilliSatoshi,
    /// Millisatoshis.  Largest HTLC minimum accepted from the peer.  Default: no bound of its own;
    /// it may never exceed what the channel can carry.
    pub max_htlc_minimum_msat: MilliSatoshi,
    /// Satoshis that must be left to move HTLCs, after both reserves and the fee; openingd's
    /// `min_effective_htlc_capacity`, used by [`Profile::Openingd`] only.  Default: 0.
    pub min_effective_htlc_capacity: Amount,
    /// Percent of the funding, rounded down.  Largest reserve accepted on our side.  Default: 20.
    pub max_channel_reserve_percent: u8,
    /// Blocks.  Deepest confirmation that a fundee may ask of us.  Default: 144.
    pub max_minimum_depth: u32,
    /// Public channels, private ones, or both.  Default: both.
    pub announcement: Announcement,
    /// Whether this peer may open channels that are used before they confirm (B2-OPEN-R-25).
    /// Default: no.
    pub trust_zeroconf: bool,

    /// Satoshis.  Dust limit of our transactions; as fundee lowered to the opener's reserve where
    /// that is smaller.  Default: 354.
    pub dust_limit_satoshis: Amount,
    /// Blocks.  Delay that we ask for on the peer's own outputs.  Default: 144.
    pub to_self_delay: u16,
    /// HTLCs that the peer may offer us.  Default: 483.
    pub max_accepted_htlcs: u16,
    /// Percent of the funding that HTLCs offered to us may sum up to; more than 100 counts as
    /// 100.  [`Profile::Openingd`] announces 2^64 − 1 millisatoshis instead.  Default: 100.
    pub max_htlc_value_in_flight_percent: u8,
    /// Millisatoshis.  Smallest HTLC that we accept.  Default: 1.
    pub htlc_minimum_msat: MilliSatoshi,
    /// Percent of the funding, rounded down.  Reserve that we ask of the peer, raised to the dust
    /// limits; always 1 with [`Profile::Openingd`].  Default: 1.
    pub channel_reserve_percent: u8,
    /// Satoshis.  Lower bound of the reserve that we ask for as funder, who does not know the
    /// peer's dust limit yet: 546 avoids refusals by peers with that dust limit.  Default: 0, off.
    pub channel_reserve_floor: Amount,
    /// Blocks.  Confirmations that we ask for as fundee.  Default: 3.
    pub minimum_depth: u32,
}

impl Limits {
    /// The defaults for `network`.
    pub fn for_network(network: Network) -> Self {
        let min_funding = if network == Network::Bitcoin { 20_000 } else { 10_000 };
        Self {
            profile: Profile::Strict,
            min_funding_satoshis: Amount::from_sat(min_funding),
            max_funding_satoshis: MAX_SATOSHIS,
            max_dust_limit_satoshis: Amount::from_sat(10_000),
            max_to_self_delay: 2016,
            min_to_self_delay: 0,
            channel_types: ChannelTypes::ALL,
            min_accepted_htlcs: 1,
            min_htlc_value_in_flight_msat: MilliSatoshi::ZERO,
            max_htlc_minimum_msat: MAX_MILLISATOSHIS,
            min_effective_htlc_capacity: Amount::ZERO,
            max_channel_reserve_percent: 20,
            max_minimum_depth: 144,
            announcement: Announcement::Any,
            trust_zeroconf: false,
            dust_limit_satoshis: DUST_LIMIT_FLOOR,
            to_self_delay: 144,
            max_accepted_htlcs: MAX_ACCEPTED_HTLCS,
            max_htlc_value_in_flight_percent: 100,
            htlc_minimum_msat: MilliSatoshi::from_msat(1),
            channel_reserve_percent: 1,
            channel_reserve_floor: Amount::ZERO,
            minimum_depth: 3,
        }
    }
}

/// The feerates at which a commitment is acceptable now, both ends included (B2-OPEN-R-17).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FeerateRange {
    /// Below it a commitment might not be mined in time.
    pub min: FeeratePerKw,
    /// Above it the fee is unreasonable.
    pub max: FeeratePerKw,
}
