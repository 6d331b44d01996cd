//! The profile of Core Lightning's openingd: its checks, its order, its arithmetic, to the
//! satoshi, in both roles.

mod common;

use common::{Case, cited, forget, good, good_accept, good_open, msat, negotiate, per_kw, sat};
use lightning_types::features::ChannelTypeFeatures;
use opening_core::{
    ChannelConfig, ChannelType, Feature, Profile, Refusal, Side, Stage, Terms, judge,
};
use proptest::prelude::*;
use proptest::sample::select;

/// The stages at which `check_config_bounds` has the peer's config before it.
const RECEIVING: [Stage; 2] = [Stage::ReceiveOpenChannel, Stage::ReceiveAcceptChannel];

fn openingd(stage: Stage) -> Case {
    good(stage).with(|p| p.limits.profile = Profile::Openingd)
}

fn remote(case: &mut Case) -> &mut ChannelConfig {
    match &mut case.accept {
        Some(accept) => &mut accept.config,
        None => &mut case.open.config,
    }
}

/// Anchors at 2500: a fee of 2810, and 660.  Both sides ask for 10,000 where nothing is said.
const FREE: u64 = 1_000_000 - 20_000 - 660 - 2810;

type Set = fn(&mut Case, u64);

/// What is set; the last value that passes; the first that does not; the rule and the reason.
const BOUNDS: [(Set, u64, u64, &str, &str); 10] = [
    (
        |p, v| remote(p).to_self_delay = v as u16,
        2016,
        2017,
        "openingd:R1",
        "to-self-delay-too-large",
    ),
    // 10,000 are asked by us: the sum is 2^64.
    (
        |p, v| remote(p).channel_reserve_satoshis = sat(v),
        10_000,
        u64::MAX - 9_999,
        "openingd:R2",
        "reserves-exceed-funding",
    ),
    // The sum fits, with 660 it is 2^64.
    (
        |p, v| remote(p).channel_reserve_satoshis = sat(v),
        10_000,
        u64::MAX - 10_659,
        "openingd:R3",
        "reserves-exceed-funding",
    ),
    (
        |p, v| {
            remote(p).channel_reserve_satoshis = sat(v);
            remote(p).htlc_minimum_msat = msat(0);
            p.open.feerate_per_kw = per_kw(0);
            p.feerates.as_mut().expect("an estimate").min = per_kw(0);
            p.limits.channel_reserve_percent = 0;
            // Somebody has to be above the reserve: the accepter is, by the push.
            p.open.push_msat = msat(999_000_000);
        },
        // 989,340 and 10,000 and 660.
        989_340,
        989_341,
        "openingd:R4",
        "reserves-exceed-funding",
    ),
    (
        |p, v| {
            remote(p).channel_reserve_satoshis = sat(v);
            remote(p).htlc_minimum_msat = msat(0);
        },
        10_000 + FREE,
        10_001 + FREE,
        "openingd:R5",
        "fee-exceeds-unreserved",
    ),
    (
        |p, v| {
            remote(p).max_htlc_value_in_flight_msat = msat(v);
            remote(p).htlc_minimum_msat = msat(7000);
        },
        7000,
        6999,
        "openingd:R6",
        "htlc-minimum-msat-above-capacity",
    ),
    (
        |p, v| remote(p).htlc_minimum_msat = msat(v),
        FREE * 1000,
        FREE * 1000 + 1,
        "openingd:R7",
        "htlc-minimum-msat-above-capacity",
    ),
    (
        |p, v| p.limits.min_effective_htlc_capacity = sat(v),
        FREE,
        FREE + 1,
        "openingd:R8",
        "capacity-too-small",
    ),
    (
        |p, v| remote(p).max_accepted_htlcs = v as u16,
        1,
        0,
        "openingd:R9",
        "max-accepted-htlcs-too-small",
    ),
    (
        |p, v| remote(p).max_accepted_htlcs = v as u16,
        483,
        484,
        "openingd:R10",
        "max-accepted-htlcs-too-large",
    ),
];

// req: B2-OPEN-R-15, B2-OPEN-R-16, B2-ACC-R-06, B2-ACC-R-07
#[test]
fn each_bound_holds_to_the_last_unit_in_both_roles() {
    for stage in RECEIVING {
        for (set, passes, fails, id, code) in BOUNDS {
            assert!(cited(Profile::Openingd, stage, id), "{id}");
            let at = |value| openingd(stage).with(|p| set(p, value)).judge(stage);
            assert_eq!(at(passes), Ok(()), "{stage:?} {id} at {passes}");
            let refusal = at(fails).expect_err(id);
            assert_eq!(refusal.code(), code, "{stage:?} {id} at {fails}");
            assert_eq!(refusal.side_to_move(), Side::Remote);
        }
    }
}

// req: B2-OPEN-R-19
#[test]
fn dust_above_ones_own_reserve_is_the_seeds_last_bound() {
    let stage = Stage::ReceiveOpenChannel;
    let at = |dust_limit| {
        openingd(stage).with(|p| p.open.config.dust_limit_satoshis = sat(dust_limit)).judge(stage)
    };
    assert_eq!(at(10_000), Ok(()));
    let refusal = Refusal::DustLimitAboveOwnReserve {
        side: Side::Remote,
        dust_limit_satoshis: sat(10_001),
        channel_reserve_satoshis: sat(10_000),
    };
    assert_eq!(at(10_001), Err(refusal));
}

/// The bounds once more, written from the facts about openingd and not from our code: the
/// number of the rule that fails.
fn check_config_bounds(case: &Case, remote: &ChannelConfig, local: &ChannelConfig) -> Option<u8> {
    let sats = |amount: bitcoin::Amount| i128::from(amount.to_sat());
    let overflows = |sum: i128| sum > i128::from(u64::MAX);
    let anchors = case.open.channel_type.as_ref() == Some(&ChannelType::ANCHORS.to_features());
    let weight = if anchors { 1124 } else { 724 };
    let fee = i128::from(case.open.feerate_per_kw.to_sat_per_kw()) * weight / 1000;
    let reserves = sats(remote.channel_reserve_satoshis) + sats(local.channel_reserve_satoshis);
    let with_anchors = reserves + if anchors { 660 } else { 0 };
    let left = sats(case.open.funding_satoshis) - with_anchors;
    let in_flight = i128::from(remote.max_htlc_value_in_flight_msat.to_msat() / 1000);
    let capacity = (left - fee).min(in_flight);
    [
        (1, remote.to_self_delay > case.limits.max_to_self_delay),
        (2, overflows(reserves)),
        (3, overflows(with_anchors)),
        (4, left < 0),
        (5, left - fee < 0),
        (7, i128::from(remote.htlc_minimum_msat.to_msat()) > capacity * 1000),
        (8, sats(case.limits.min_effective_htlc_capacity) > capacity),
        (9, remote.max_accepted_htlcs == 0),
        (10, remote.max_accepted_htlcs > 483),
        (11, remote.dust_limit_satoshis > remote.channel_reserve_satoshis),
    ]
    .into_iter()
    .find_map(|(number, fails)| fails.then_some(number))
}

fn number_of(stage: Stage, case: &Case) -> Option<u8> {
    let proposal = case.proposal();
    opening_core::explain(stage, &proposal)
        .iter()
        .flat_map(|(rule, _)| rule.cites)
        .filter_map(|id| id.strip_prefix("openingd:R")?.parse().ok())
        .find(|number| *number != 6)
}

fn amounts() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => select(vec![0, 1, 353, 354, 660, 10_000, 500_000, 976_530, 990_000, 1_000_000]),
        1 => select(vec![u64::MAX, u64::MAX - 660, u64::MAX - 10_660, u64::MAX / 1000]),
        1 => any::<u64>(),
    ]
}

fn configs() -> impl Strategy<Value = ChannelConfig> {
    (amounts(), amounts(), amounts(), amounts(), 0..2u16, 0..3u16).prop_map(
        |(dust, in_flight, reserve, minimum, delay, htlcs)| ChannelConfig {
            dust_limit_satoshis: sat(dust),
            max_htlc_value_in_flight_msat: msat(in_flight),
            channel_reserve_satoshis: sat(reserve),
            htlc_minimum_msat: msat(minimum),
            to_self_delay: 2016 + delay,
            max_accepted_htlcs: htlcs * 242,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..Default::default() })]

    // req: B2-OPEN-R-10, B2-OPEN-R-15, B2-OPEN-R-16, B2-OPEN-R-19
    #[test]
    fn the_same_bound_fails_first_as_in_openingd(
        stage in select(RECEIVING.to_vec()),
        configs in (configs(), configs()),
        funding in amounts(),
        feerate in select(vec![0, 253, 2500, u32::MAX]),
        anchors in any::<bool>(),
        effective in select(vec![0, 976_530, 976_531]),
    ) {
        let kind = if anchors { ChannelType::ANCHORS } else { ChannelType::STATIC_REMOTEKEY };
        let mut case = openingd(stage).of_type(kind).with(|p| {
            p.open.funding_satoshis = sat(funding);
            p.open.feerate_per_kw = per_kw(feerate);
            p.open.config = configs.0;
            p.limits.min_effective_htlc_capacity = sat(effective);
        });
        let expected = if let Some(accept) = &mut case.accept {
            accept.config = configs.1;
            check_config_bounds(&case, &configs.1, &configs.0)
        } else {
            let terms = Terms::default();
            let ours = case.limits.config_for_accept(sat(funding), &configs.0, &terms);
            check_config_bounds(&case, &configs.0, &ours)
        };
        prop_assert_eq!(number_of(stage, &case), expected);
    }
}

#[track_caller]
fn fails(stage: Stage, code: &str, change: impl FnOnce(&mut Case)) {
    let verdict = openingd(stage).with(change).judge(stage);
    assert_eq!(verdict.map_err(|refusal| refusal.code()), Err(code));
}

#[track_caller]
fn passes(stage: Stage, change: impl FnOnce(&mut Case)) {
    assert_eq!(openingd(stage).with(change).judge(stage), Ok(()));
}

// req: B2-OPEN-R-13, B2-OPEN-R-14, B2-OPEN-R-17, B2-ACC-S-03, B2-ACC-S-04
#[test]
fn fundee_checks_around_the_bounds_come_in_openingds_order() {
    let stage = Stage::ReceiveOpenChannel;
    let mut case = openingd(stage).with(|p| {
        p.open.chain_hash = bitcoin::constants::ChainHash::BITCOIN;
        p.open.funding_satoshis = sat(16_777_216);
        p.open.push_msat = msat(u64::MAX);
        p.open.feerate_per_kw = per_kw(252);
        p.open.config.channel_reserve_satoshis = sat(353);
        p.open.config.to_self_delay = 2017;
    });
    let repairs: [(&str, Set); 6] = [
        ("unknown-chain", |p, _| p.open.chain_hash = p.chain_hash),
        ("large-channel-unsupported", |p, _| p.open.funding_satoshis = sat(16_777_215)),
        ("push-msat-exceeds-funding", |p, _| p.open.push_msat = msat(0)),
        ("feerate-per-kw-too-small", |p, _| p.open.feerate_per_kw = per_kw(2500)),
        ("dust-limit-above-reserve", |p, _| p.open.config.channel_reserve_satoshis = sat(354)),
        ("to-self-delay-too-large", |p, _| p.open.config.to_self_delay = 2016),
    ];
    for (code, repair) in repairs {
        assert_eq!(case.judge(stage).map_err(|refusal| refusal.code()), Err(code));
        repair(&mut case, 0);
    }
    assert_eq!(case.judge(stage), Ok(()));
    fails(stage, "feerate-per-kw-too-large", |p| p.open.feerate_per_kw = per_kw(25_001));
    fails(stage, "no-fee-estimate", |p| p.feerates = None);
}

// req: B2-OPEN-S-04, B2-OPEN-R-23
#[test]
fn large_channels_take_negotiation_not_just_support() {
    for stage in [Stage::SendOpenChannel, Stage::ReceiveOpenChannel] {
        passes(stage, |p| {
            p.open.funding_satoshis = sat(16_777_216);
            negotiate(&mut p.features, Feature::LargeChannels);
        });
        passes(stage, |p| p.open.funding_satoshis = sat(16_777_215));
        fails(stage, "large-channel-unsupported", |p| {
            p.open.funding_satoshis = sat(16_777_216);
            // Ours alone, which would do for the BOLT.
            p.features.local = common::bits(&[5, 19, 23]);
        });
    }
}

// req: B2-ACC-R-03
#[test]
fn funder_checks_their_dust_limit_against_its_reserve_first() {
    let stage = Stage::ReceiveAcceptChannel;
    let dust = |dust_limit: u64| {
        move |p: &mut Case| {
            remote(p).dust_limit_satoshis = sat(dust_limit);
            remote(p).to_self_delay = 2017;
        }
    };
    fails(stage, "dust-limit-above-reserve", dust(10_001));
    fails(stage, "to-self-delay-too-large", dust(10_000));
}

// req: B1-TYP-B-03, B2-OPEN-R-02, B2-OPEN-R-21, B2-OPEN-R-22, B2-OPEN-R-24, B2-OPEN-R-25
#[test]
fn exceptions_are_stricter_than_the_seed() {
    let supply = 2_100_000_000_000_000;
    for stage in Stage::ALL {
        let large = |funding: u64| {
            move |p: &mut Case| {
                p.open.funding_satoshis = sat(funding);
                negotiate(&mut p.features, Feature::LargeChannels);
            }
        };
        passes(stage, large(supply));
        fails(stage, "amount-above-supply", large(supply + 1));
        fails(stage, "channel-type-missing", |p| p.open.channel_type = None);
        fails(stage, "channel-type-undefined", |p| {
            p.open.channel_type = Some(ChannelTypeFeatures::empty());
        });
        fails(stage, "channel-type-not-negotiated", |p| forget(&mut p.features, Feature::Anchors));
        passes(stage, |p| p.open.push_msat = msat(996_530_000));
        fails(stage, "fee-unaffordable", |p| p.open.push_msat = msat(996_530_001));
        fails(stage, "push-msat-exceeds-funding", |p| p.open.push_msat = msat(1_000_000_001));
        // The opener keeps 400,000 less 3,470, the accepter is given 600,000.
        let reserve = |reserve: u64| {
            move |p: &mut Case| {
                p.open.push_msat = msat(600_000_000);
                p.open.config.channel_reserve_satoshis = sat(reserve);
            }
        };
        passes(stage, reserve(599_999));
        fails(stage, "neither-above-reserve", reserve(600_000));
    }
    let zeroconf = ChannelType { zeroconf: true, ..ChannelType::ANCHORS };
    for stage in [Stage::ReceiveOpenChannel, Stage::SendAcceptChannel] {
        let case = openingd(stage).of_type(zeroconf);
        assert_eq!(case.judge(stage), Err(Refusal::ZeroconfUntrusted));
        assert_eq!(case.with(|p| p.limits.trust_zeroconf = true).judge(stage), Ok(()));
    }
}

// req: B3-FEE-B-04
#[test]
fn a_commitment_without_outputs_is_refused_in_this_profile_too() {
    // Where reserves of 0 are let through, nothing else speaks of dust.
    let stage = Stage::SendOpenChannel;
    let keeping = |kept: u64| {
        move |p: &mut Case| {
            p.open.funding_satoshis = sat(3470 + kept);
            p.open.config.channel_reserve_satoshis = sat(0);
        }
    };
    passes(stage, keeping(354));
    fails(stage, "no-outputs", keeping(353));
}

// req: B2-ACC-S-03, B2-ACC-S-04, B2-ACC-S-05, B2-ACC-R-04, B2-ACC-R-05
#[test]
fn a_policys_override_is_checked_again() {
    // What later versions of openingd leave out.
    let case = good_open().with(|p| p.limits.profile = Profile::Openingd);
    let verdict = |reserve: u64| {
        let mut terms = Terms::default();
        terms.channel_reserve_satoshis = Some(sat(reserve));
        let mut proposal = case.proposal();
        proposal.answer = Some(case.limits.answer(&proposal.offer, &terms));
        judge(Stage::SendAcceptChannel, &proposal).map_err(|refusal| refusal.code())
    };
    assert_eq!(verdict(354), Ok(()));
    assert_eq!(verdict(353), Err("reserve-below-dust-limit"));
    assert_eq!(verdict(9_999 + FREE), Ok(()));
    assert_eq!(verdict(10_001 + FREE), Err("fee-exceeds-unreserved"));
    assert_eq!(verdict(u64::MAX), Err("reserves-exceed-funding"));

    for stage in [Stage::SendAcceptChannel, Stage::ReceiveAcceptChannel] {
        let answered = |channel_type: Option<ChannelType>| {
            good_accept()
                .with(|p| p.limits.profile = Profile::Openingd)
                .answered(|a| a.channel_type = channel_type.map(ChannelType::to_features))
                .judge(stage)
                .map_err(|refusal| refusal.code())
        };
        assert_eq!(answered(Some(ChannelType::ANCHORS)), Ok(()));
        assert_eq!(answered(None), Err("channel-type-missing"));
        assert_eq!(answered(Some(ChannelType::STATIC_REMOTEKEY)), Err("channel-type-differs"));
    }
}

#[test]
fn what_openingd_does_not_check_is_not_checked() {
    for stage in RECEIVING {
        passes(stage, |p| remote(p).dust_limit_satoshis = sat(0));
        passes(stage, |p| remote(p).channel_reserve_satoshis = sat(900_000));
    }
    passes(Stage::ReceiveOpenChannel, |p| {
        p.open.script = Some(bitcoin::ScriptBuf::from(vec![1]));
        p.open.funding_satoshis = sat(30_000);
        p.limits.min_funding_satoshis = sat(1_000_000);
    });
    passes(Stage::ReceiveAcceptChannel, |p| {
        p.accept.as_mut().unwrap().minimum_depth = u32::MAX;
    });
}
