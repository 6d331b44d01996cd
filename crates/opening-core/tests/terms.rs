//! What `Limits` and a policy's `Terms` make us announce.

mod common;

use bitcoin::{Network, ScriptBuf};
use common::{good_open, msat, sat};
use opening_core::{ChannelConfig, ChannelType, Limits, Profile, Stage, Terms};

fn config(dust_limit: u64, reserve: u64) -> ChannelConfig {
    ChannelConfig {
        dust_limit_satoshis: sat(dust_limit),
        channel_reserve_satoshis: sat(reserve),
        ..good_open().open.config
    }
}

fn limits(profile: Profile, dust_limit: u64) -> Limits {
    let mut limits = Limits::for_network(Network::Bitcoin);
    limits.profile = profile;
    limits.dust_limit_satoshis = sat(dust_limit);
    limits
}

// req: B2-OPEN-S-08
#[test]
fn funders_reserve_is_one_percent_rounded_down_and_never_below_its_dust_limit() {
    for profile in common::PROFILES {
        for (funding, dust_limit, reserve) in [
            (1_000_000, 354, 10_000),
            (1_000_099, 354, 10_000),
            (1_000_100, 354, 10_001),
            (35_400, 354, 354),
            (35_399, 354, 354),
            (35_500, 354, 355),
            (20_000, 546, 546),
        ] {
            let config = limits(profile, dust_limit).config_for_open(sat(funding));
            assert_eq!(config.channel_reserve_satoshis, sat(reserve), "{profile:?} {funding}");
        }
    }
    // The optional floor, and another percentage: neither is openingd's.
    for (profile, reserve, at_two_percent) in
        [(Profile::Strict, 546, 2000), (Profile::Openingd, 354, 1000)]
    {
        let mut limits = limits(profile, 354);
        limits.channel_reserve_floor = sat(546);
        assert_eq!(limits.config_for_open(sat(20_000)).channel_reserve_satoshis, sat(reserve));
        limits.channel_reserve_percent = 2;
        let config = limits.config_for_open(sat(100_000));
        assert_eq!(config.channel_reserve_satoshis, sat(at_two_percent));
    }
}

// incident: CLN #9515
// req: B2-ACC-S-03, B2-ACC-S-08
#[test]
fn fundees_reserve_is_never_below_either_dust_limit() {
    for (profile, own, theirs, reserve) in [
        (Profile::Strict, 354, 354, 1000),
        (Profile::Strict, 354, 5000, 5000),
        (Profile::Strict, 5000, 354, 5000),
        // The hole that openingd's fix left: its own dust limit is forgotten.
        (Profile::Openingd, 354, 5000, 5000),
        (Profile::Openingd, 5000, 354, 1000),
    ] {
        let opener = config(theirs, 6000);
        let ours = limits(profile, own).config_for_accept(sat(100_000), &opener, &Terms::default());
        assert_eq!(ours.channel_reserve_satoshis, sat(reserve), "{profile:?} {own} {theirs}");
    }
}

// req: B2-ACC-S-04
#[test]
fn fundees_dust_limit_is_lowered_to_the_openers_reserve() {
    for (profile, reserve, dust_limit) in [
        (Profile::Strict, 547, 546),
        (Profile::Strict, 546, 546),
        (Profile::Strict, 545, 545),
        (Profile::Strict, 354, 354),
        // Nothing below 354 helps: the opener is refused.
        (Profile::Strict, 353, 546),
        // openingd refuses instead.
        (Profile::Openingd, 545, 546),
    ] {
        let opener = config(354, reserve);
        let ours = limits(profile, 546).config_for_accept(sat(20_000), &opener, &Terms::default());
        assert_eq!(ours.dust_limit_satoshis, sat(dust_limit), "{profile:?} {reserve}");
    }
}

// req: B1-TYP-B-04
#[test]
fn value_in_flight_is_a_share_of_the_funding() {
    for (percent, funding, in_flight) in [
        (100, 20_000, 20_000_000),
        (25, 20_001, 5_000_250),
        (0, 20_000, 0),
        (255, 20_000, 20_000_000),
        (100, u64::MAX, 2_100_000_000_000_000_000),
    ] {
        let mut limits = limits(Profile::Strict, 354);
        limits.max_htlc_value_in_flight_percent = percent;
        let config = limits.config_for_open(sat(funding));
        assert_eq!(config.max_htlc_value_in_flight_msat, msat(in_flight), "{percent} % {funding}");
    }
    let config = limits(Profile::Openingd, 354).config_for_open(sat(20_000));
    assert_eq!(config.max_htlc_value_in_flight_msat, msat(u64::MAX));
}

// req: B2-OPEN-S-18, B2-OPEN-S-22, B2-ACC-S-02, B2-ACC-S-10
#[test]
fn defaults_are_announced_as_configured() {
    let mut limits = limits(Profile::Strict, 354);
    let ours = limits.config_for_open(sat(20_000));
    assert_eq!((ours.to_self_delay, ours.dust_limit_satoshis), (144, sat(354)));
    assert_eq!((ours.htlc_minimum_msat, ours.max_accepted_htlcs), (msat(1), 483));
    let case = good_open();
    assert_eq!(limits.answer(&case.offer(), &Terms::default()).minimum_depth, 3);
    limits.htlc_minimum_msat = msat(1234);
    assert_eq!(limits.config_for_open(sat(20_000)).htlc_minimum_msat, msat(1234));
    let terms = Terms::default();
    let ours = limits.config_for_accept(sat(20_000), &config(354, 354), &terms);
    assert_eq!(ours.htlc_minimum_msat, msat(1234));
}

// req: B2-ACC-S-01, B2-ACC-S-05, B2-ACC-S-09
#[test]
fn answer_follows_the_offer_and_the_terms() {
    for channel_type in ChannelType::all() {
        let case = good_open().of_type(channel_type);
        let terms = Terms::default();
        let answer = case.limits.answer(&case.offer(), &terms);
        assert_eq!(answer.minimum_depth, if channel_type.zeroconf { 0 } else { 3 });
        assert_eq!(answer.channel_type, case.open.channel_type.as_ref());
        assert_eq!(answer.upfront_shutdown_script.map(|script| script.len()), Some(0));
    }

    let case = good_open();
    let script = ScriptBuf::from([&[0x00, 20][..], &[7; 20]].concat());
    let mut terms = Terms::default();
    terms.dust_limit_satoshis = Some(sat(400));
    terms.max_htlc_value_in_flight_msat = Some(msat(5));
    terms.channel_reserve_satoshis = Some(sat(11_111));
    terms.htlc_minimum_msat = Some(msat(6));
    terms.to_self_delay = Some(720);
    terms.max_accepted_htlcs = Some(30);
    terms.minimum_depth = Some(6);
    terms.upfront_shutdown_script = Some(script.clone());
    let answer = case.limits.answer(&case.offer(), &terms);
    assert_eq!(
        answer.config,
        ChannelConfig {
            dust_limit_satoshis: sat(400),
            max_htlc_value_in_flight_msat: msat(5),
            channel_reserve_satoshis: sat(11_111),
            htlc_minimum_msat: msat(6),
            to_self_delay: 720,
            max_accepted_htlcs: 30,
        }
    );
    assert_eq!(answer.minimum_depth, 6);
    assert_eq!(answer.upfront_shutdown_script, Some(script.as_script()));
}

// req: B2-ACC-S-03, B2-ACC-S-04, B2-ACC-S-08
#[test]
fn terms_of_a_policy_are_judged_again() {
    let case = good_open();
    for (reserve, verdict) in [
        (354, Ok(())),
        (353, Err("reserve-below-dust-limit")),
        (0, Err("reserve-below-dust-limit")),
        (990_000, Ok(())),
        (u64::MAX, Err("amount-above-supply")),
    ] {
        let mut terms = Terms::default();
        terms.channel_reserve_satoshis = Some(sat(reserve));
        terms.htlc_minimum_msat = Some(msat(0));
        let mut proposal = case.proposal();
        proposal.answer = Some(case.limits.answer(&proposal.offer, &terms));
        let judged = opening_core::judge(Stage::SendAcceptChannel, &proposal);
        assert_eq!(judged.map_err(|refusal| refusal.code()), verdict, "{reserve}");
    }
}
