//! What a signer's bounds make of the node's limits.

use bitcoin::{Amount, Network};
use opening_core::{ChannelType, ChannelTypes, FeeratePerKw, FeerateRange, Limits};
use opening_signer::{Bounds, Enforcement, Info, Pipelining};

fn range(min: u32, max: u32) -> FeerateRange {
    FeerateRange { min: FeeratePerKw::new(min), max: FeeratePerKw::new(max) }
}

fn narrowed(bounds: Bounds) -> (Limits, FeerateRange) {
    let mut limits = Limits::for_network(Network::Regtest);
    let mut feerates = range(1000, 5000);
    let info =
        Info { enforcement: Enforcement::Validating, bounds, pipelining: Pipelining::OneByOne };
    info.narrow(&mut limits, Some(&mut feerates));
    (limits, feerates)
}

#[test]
fn without_bounds_nothing_is_narrowed() {
    let unchanged = (Limits::for_network(Network::Regtest), range(1000, 5000));
    assert_eq!(narrowed(Bounds::none()), unchanged);
}

#[test]
fn each_limit_is_narrowed_to_the_signers_bound() {
    let (limits, feerates) = narrowed(Bounds {
        max_funding_satoshis: Amount::from_sat(500_000),
        to_self_delay: 200..=1000,
        feerates: range(253, 2000),
        ..Bounds::none()
    });
    assert_eq!(limits.max_funding_satoshis, Amount::from_sat(500_000));
    assert_eq!(limits.to_self_delay, 200);
    assert_eq!((limits.min_to_self_delay, limits.max_to_self_delay), (200, 1000));
    assert_eq!(limits.channel_types, ChannelTypes::ALL);
    assert_eq!(feerates, range(1000, 2000));

    let (limits, feerates) =
        narrowed(Bounds { to_self_delay: 4..=100, feerates: range(2000, 9000), ..Bounds::none() });
    assert_eq!((limits.min_to_self_delay, limits.to_self_delay), (4, 100));
    assert_eq!(limits.max_to_self_delay, 100);
    assert_eq!(feerates, range(2000, 5000));
}

#[test]
fn bounds_that_leave_nothing_do_not_panic() {
    #[expect(clippy::reversed_empty_ranges, reason = "what a broken signer may say")]
    let (limits, feerates) =
        narrowed(Bounds { to_self_delay: 10..=5, feerates: range(9, 8), ..Bounds::none() });
    assert_eq!(limits.to_self_delay, 5);
    assert!(feerates.min > feerates.max);
}

#[test]
fn types_are_those_that_both_take() {
    let anchors: ChannelTypes = [ChannelType::ANCHORS].into_iter().collect();
    let (limits, _) = narrowed(Bounds { channel_types: anchors, ..Bounds::none() });
    assert_eq!(limits.channel_types, anchors);
}

#[test]
fn a_nodes_own_limits_are_not_widened() {
    let mut limits = Limits::for_network(Network::Regtest);
    (limits.min_to_self_delay, limits.max_to_self_delay) = (300, 400);
    limits.max_funding_satoshis = Amount::from_sat(1);
    limits.channel_types = ChannelTypes::NONE;
    let before = limits.clone();
    let bounds = Bounds { to_self_delay: 100..=500, ..Bounds::for_network(Network::Regtest) };
    let pipelining = Pipelining::OneByOne;
    Info { enforcement: Enforcement::Validating, bounds, pipelining }.narrow(&mut limits, None);
    assert_eq!(limits, before);
}
