//! What a signer says about itself, so that nobody builds a transaction that it will refuse.

use core::ops::RangeInclusive;

use bitcoin::{Amount, Network};
use opening_core::amount::MAX_SATOSHIS;
use opening_core::{ChannelTypes, FeeratePerKw, FeerateRange, Limits};

/// What a signer enforces and within which bounds it signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Whether it checks what it signs.
    pub enforcement: Enforcement,
    /// Outside of them it refuses.
    pub bounds: Bounds,
    /// Whether calls of one channel may be under way together.
    pub pipelining: Pipelining,
}

/// Whether calls of one channel that depend on each other may be made before the ones before have
/// answered, which saves the trips to a signer that is far away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pipelining {
    /// Each waits for the one before: what a signer need not think about.
    OneByOne,
    /// They are carried out in the order in which they were first polled.  Where one fails, those
    /// that were made while it was under way fail with [`HsmError::Aborted`], and are not carried
    /// out.
    ///
    /// [`HsmError::Aborted`]: crate::HsmError::Aborted
    InOrder,
}

/// Whether a signer checks what it signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Enforcement {
    /// It signs what it is asked to: it protects the keys, not the money.
    Blind,
    /// It rebuilds what it signs from the channel's setup, and keeps what it signed.
    Validating,
}

/// The channels that a signer signs for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Satoshis.  Largest channel.
    pub max_funding_satoshis: Amount,
    /// Blocks, both ends included.  Delays on both sides' outputs.
    pub to_self_delay: RangeInclusive<u16>,
    /// sat per 1000 weight units, both ends included.  Feerate of the commitments.
    pub feerates: FeerateRange,
    /// Channel types.
    pub channel_types: ChannelTypes,
}

impl Bounds {
    /// Every channel that the protocol allows.
    pub fn none() -> Self {
        Self {
            max_funding_satoshis: MAX_SATOSHIS,
            to_self_delay: 0..=u16::MAX,
            feerates: FeerateRange { min: FeeratePerKw::new(0), max: FeeratePerKw::new(u32::MAX) },
            channel_types: ChannelTypes::ALL,
        }
    }

    /// What a careful signer signs for: channels up to 10 BTC; delays of 144 to 2016 blocks on
    /// mainnet, from 4 elsewhere; feerates of 253 to 25,000 sat per 1000 weight units.
    pub fn for_network(network: Network) -> Self {
        let shortest = if network == Network::Bitcoin { 144 } else { 4 };
        Self {
            max_funding_satoshis: Amount::from_sat(1_000_000_000),
            to_self_delay: shortest..=2016,
            feerates: FeerateRange { min: FeeratePerKw::FLOOR, max: FeeratePerKw::new(25_000) },
            channel_types: ChannelTypes::ALL,
        }
    }
}

impl Info {
    /// Narrows what the node is about to offer or accept to what the signer will sign.
    ///
    /// Bounds that leave nothing make everything be refused.  The rules of openingd
    /// ([`Profile::Openingd`]) know neither types nor shortest delays nor largest channels: there
    /// it is [`setup`](crate::ChannelHsm::setup) that refuses.
    ///
    /// [`Profile::Openingd`]: opening_core::Profile::Openingd
    pub fn narrow(&self, limits: &mut Limits, feerates: Option<&mut FeerateRange>) {
        let Bounds { max_funding_satoshis, to_self_delay, feerates: bounds, channel_types } =
            &self.bounds;
        limits.max_funding_satoshis = limits.max_funding_satoshis.min(*max_funding_satoshis);
        limits.channel_types = limits.channel_types.and(*channel_types);
        limits.min_to_self_delay = limits.min_to_self_delay.max(*to_self_delay.start());
        limits.max_to_self_delay = limits.max_to_self_delay.min(*to_self_delay.end());
        // Not `clamp`, which panics on a range that a signer gave upside down.
        limits.to_self_delay =
            limits.to_self_delay.max(*to_self_delay.start()).min(*to_self_delay.end());
        if let Some(feerates) = feerates {
            feerates.min = feerates.min.max(bounds.min);
            feerates.max = feerates.max.min(bounds.max);
        }
    }
}
