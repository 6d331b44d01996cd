//! The smallest channel that works, for each type and push, to the satoshi.

mod common;

use common::{Case, good_open, msat, per_kw, sat};
use opening_core::{ChannelType, Profile, Stage, Terms, judge};

/// A channel of `funding`, offered and answered with what the limits say, at every stage.
fn verdict(base: &Case, funding: u64) -> Result<(), &'static str> {
    let mut case = base.clone();
    case.open.funding_satoshis = sat(funding);
    case.open.config = case.limits.config_for_open(sat(funding));
    let terms = Terms::default();
    let mut proposal = case.proposal();
    let answer = case.limits.answer(&proposal.offer, &terms);
    for stage in Stage::ALL {
        let needs_answer = matches!(stage, Stage::SendAcceptChannel | Stage::ReceiveAcceptChannel);
        proposal.answer = needs_answer.then_some(answer);
        judge(stage, &proposal).map_err(|refusal| refusal.code())?;
    }
    Ok(())
}

fn base(channel_type: ChannelType, push_sat: u64) -> Case {
    good_open().of_type(channel_type).with(|p| {
        p.open.push_msat = msat(push_sat * 1000);
        p.limits.min_funding_satoshis = sat(0);
        p.limits.trust_zeroconf = true;
    })
}

/// At 2500 sat per 1000 weight units.
fn cost(channel_type: ChannelType) -> u64 {
    if channel_type.has_anchors() { 2810 + 660 } else { 1810 }
}

// req: B2-OPEN-R-21, B2-OPEN-R-22, B2-OPEN-R-08, B3-FEE-B-02
#[test]
fn smallest_channel_of_each_type_and_push() {
    for channel_type in ChannelType::all() {
        let cost = cost(channel_type);
        for (push, smallest, reason) in [
            // Beside cost and both reserves of 354, one satoshi to move.
            (0, cost + 709, "htlc-minimum-msat-above-capacity"),
            (353, cost + 709, "htlc-minimum-msat-above-capacity"),
            (708, cost + 709, "htlc-minimum-msat-above-capacity"),
            (709, cost + 709, "fee-unaffordable"),
            // All but the cost may be given away.
            (710, cost + 710, "fee-unaffordable"),
            (5000, cost + 5000, "fee-unaffordable"),
        ] {
            let base = base(channel_type, push);
            assert_eq!(verdict(&base, smallest), Ok(()), "{channel_type} {push}");
            assert_eq!(verdict(&base, smallest - 1), Err(reason), "{channel_type} {push}");
        }
    }
}

// req: B2-OPEN-R-22
#[test]
fn without_an_htlc_minimum_one_satoshi_above_the_reserve_is_enough() {
    for channel_type in ChannelType::all() {
        let cost = cost(channel_type);
        for (push, smallest, reason) in [
            (0, cost + 355, "neither-above-reserve"),
            // What is pushed is at the reserve: the opener has to be above it.
            (354, cost + 709, "neither-above-reserve"),
            // The accepter is above it: the opener need not keep anything.
            (355, cost + 355, "fee-unaffordable"),
        ] {
            let base = base(channel_type, push).with(|p| p.limits.htlc_minimum_msat = msat(0));
            assert_eq!(verdict(&base, smallest), Ok(()), "{channel_type} {push}");
            assert_eq!(verdict(&base, smallest - 1), Err(reason), "{channel_type} {push}");
        }
    }
}

// req: B2-OPEN-R-21
#[test]
fn smallest_channel_at_each_feerate() {
    for (feerate, fee) in [(253, 284), (1000, 1124), (25_000, 28_100)] {
        let base = base(ChannelType::ANCHORS, 0).with(|p| p.open.feerate_per_kw = per_kw(feerate));
        let smallest = fee + 660 + 709;
        assert_eq!(verdict(&base, smallest.max(1770)), Ok(()), "{feerate}");
        let (smaller, reason) = if smallest < 1770 {
            // Below, 354 sat are more than twenty percent.
            (1769, "channel-reserve-satoshis-too-large")
        } else {
            (smallest - 1, "htlc-minimum-msat-above-capacity")
        };
        assert_eq!(verdict(&base, smaller), Err(reason), "{feerate}");
    }
}

// req: B2-OPEN-R-07
#[test]
fn smallest_channel_by_default_is_the_networks_minimum() {
    let base = good_open();
    assert_eq!(verdict(&base, 10_000), Ok(()));
    assert_eq!(verdict(&base, 9_999), Err("funding-satoshis-too-small"));
}

// req: B2-OPEN-R-21
#[test]
fn smallest_channel_of_openingd() {
    // Reserves of 354, anchors, fee, and an HTLC minimum of 1 msat; it has no minimum of its own.
    for channel_type in ChannelType::all() {
        let base = base(channel_type, 0).with(|p| p.limits.profile = Profile::Openingd);
        let smallest = cost(channel_type) + 709;
        assert_eq!(verdict(&base, smallest), Ok(()), "{channel_type}");
        let reason = "htlc-minimum-msat-above-capacity";
        assert_eq!(verdict(&base, smallest - 1), Err(reason), "{channel_type}");
    }
}
