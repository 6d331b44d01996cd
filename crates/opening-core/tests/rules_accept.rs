//! `accept_channel` as the funder judges it: each bound from both sides.

mod common;

use bitcoin::ScriptBuf;
use common::{Accept, Case, forget, good_accept, good_open, msat, sat};
use lightning_types::features::ChannelTypeFeatures;
use opening_core::{ChannelType, Feature, Refusal, Side, Stage};

const SIDE: Side = Side::Remote;

#[track_caller]
fn accepts(case: &Case) {
    assert_eq!(case.judge(Stage::ReceiveAcceptChannel), Ok(()));
}

#[track_caller]
fn refuses(case: &Case, refusal: Refusal) {
    assert_eq!(refusal.side_to_move(), SIDE);
    assert_eq!(case.judge(Stage::ReceiveAcceptChannel), Err(refusal));
}

#[track_caller]
fn accepted(change: impl FnOnce(&mut Accept)) {
    accepts(&good_accept().answered(change));
}

#[track_caller]
fn refused(change: impl FnOnce(&mut Accept), refusal: Refusal) {
    refuses(&good_accept().answered(change), refusal);
}

// req: B2-EST-B-02
#[test]
fn without_an_answer_nothing_is_accepted() {
    accepted(|_| {});
    let verdict = good_open().judge(Stage::ReceiveAcceptChannel);
    assert_eq!(verdict, Err(Refusal::NoAnswer));
}

// req: B2-ACC-R-01
#[test]
fn depth_has_a_maximum() {
    for depth in [1, 144] {
        accepted(|a| a.minimum_depth = depth);
    }
    for minimum_depth in [145, u32::MAX] {
        refused(
            |a| a.minimum_depth = minimum_depth,
            Refusal::MinimumDepthTooLarge { minimum_depth, max: 144 },
        );
    }
}

// req: B2-ACC-S-01, B2-ACC-R-01
#[test]
fn depth_is_zero_with_zeroconf_and_treated_as_one_without() {
    // A-22, both ways.
    let zeroconf = ChannelType { zeroconf: true, ..ChannelType::ANCHORS };
    let with_depth = |channel_type, depth| {
        good_accept().of_type(channel_type).answered(|a| a.minimum_depth = depth)
    };
    let effective =
        |case: &Case| case.proposal().answer.expect("answered").effective_minimum_depth();

    let case = with_depth(zeroconf, 0);
    accepts(&case);
    assert_eq!(effective(&case), 0);
    refuses(
        &with_depth(zeroconf, 1),
        Refusal::MinimumDepthWithZeroconf { side: SIDE, minimum_depth: 1 },
    );

    for (depth, treated_as) in [(0, 1), (1, 1), (2, 2)] {
        let case = with_depth(ChannelType::ANCHORS, depth);
        accepts(&case);
        assert_eq!(effective(&case), treated_as);
    }
}

// incident: CLN #4140
// incident: CLN #9515
// req: B2-ACC-R-02
#[test]
fn reserve_covers_our_dust_limit() {
    let at = |reserve: u64| {
        good_accept()
            .with(|p| p.open.config.dust_limit_satoshis = sat(5000))
            .answered(|a| a.config.channel_reserve_satoshis = sat(reserve))
    };
    accepts(&at(5000));
    refuses(
        &at(4999),
        Refusal::ReserveBelowDustLimit {
            side: SIDE,
            channel_reserve_satoshis: sat(4999),
            dust_limit_satoshis: sat(5000),
        },
    );
}

// incident: CLN #4140
// incident: CLN #9439
// req: B2-ACC-R-03
#[test]
fn dust_limit_is_within_our_reserve() {
    let at = |dust_limit: u64| {
        good_accept()
            .with(|p| p.open.config.channel_reserve_satoshis = sat(5000))
            .answered(|a| a.config.dust_limit_satoshis = sat(dust_limit))
    };
    accepts(&at(5000));
    refuses(
        &at(5001),
        Refusal::DustLimitAboveReserve {
            side: SIDE,
            dust_limit_satoshis: sat(5001),
            channel_reserve_satoshis: sat(5000),
        },
    );
}

// req: B2-ACC-R-04
#[test]
fn channel_type_is_compulsory() {
    refused(|a| a.channel_type = None, Refusal::ChannelTypeMissing { side: SIDE });
    refused(
        |a| (a.channel_type, a.script) = (None, None),
        Refusal::ChannelTypeMissing { side: SIDE },
    );
}

// req: B2-ACC-R-05
#[test]
fn channel_type_is_repeated_byte_for_byte() {
    for channel_type in ChannelType::all() {
        accepts(&good_accept().of_type(channel_type));
        let different = ChannelType::all().into_iter().filter(|other| *other != channel_type);
        let features = different.map(ChannelType::to_features).chain([
            ChannelTypeFeatures::empty(),
            ChannelTypeFeatures::from_le_bytes(
                [channel_type.to_features().le_flags(), &[0]].concat(),
            ),
        ]);
        for features in features {
            let case = good_accept().of_type(channel_type).answered(|a| {
                a.channel_type = Some(features);
                a.minimum_depth = 0;
            });
            refuses(&case, Refusal::ChannelTypeDiffers { side: SIDE });
        }
    }
}

// req: B2-ACC-R-06
#[test]
fn delay_has_a_maximum() {
    accepted(|a| a.config.to_self_delay = 2016);
    for to_self_delay in [2017, u16::MAX] {
        refused(
            |a| a.config.to_self_delay = to_self_delay,
            Refusal::ToSelfDelayTooLarge { to_self_delay, max: 2016 },
        );
    }
}

#[test]
fn delay_has_the_minimum_that_a_signer_wants() {
    for (to_self_delay, min) in [(144, 144), (143, 143), (0, 0)] {
        let mut case = good_accept().answered(|a| a.config.to_self_delay = to_self_delay);
        case.limits.min_to_self_delay = min;
        assert_eq!(case.judge(Stage::ReceiveAcceptChannel), Ok(()));
        case.limits.min_to_self_delay = min + 1;
        refuses(&case, Refusal::ToSelfDelayTooSmall { to_self_delay, min: min + 1 });
    }
}

// req: B2-ACC-R-07, B2-ACC-R-12
#[test]
fn accepted_htlcs_are_1_to_483() {
    for max_accepted_htlcs in [1, 483] {
        accepted(|a| a.config.max_accepted_htlcs = max_accepted_htlcs);
    }
    refused(
        |a| a.config.max_accepted_htlcs = 0,
        Refusal::MaxAcceptedHtlcsTooSmall { max_accepted_htlcs: 0, min: 1 },
    );
    for max_accepted_htlcs in [484, u16::MAX] {
        refused(
            |a| a.config.max_accepted_htlcs = max_accepted_htlcs,
            Refusal::MaxAcceptedHtlcsTooLarge { side: SIDE, max_accepted_htlcs, max: 483 },
        );
    }
}

// req: B2-ACC-R-09
#[test]
fn dust_limit_is_within_its_own_reserve() {
    let at = |dust_limit: u64| {
        move |a: &mut Accept| {
            a.config.channel_reserve_satoshis = sat(5000);
            a.config.dust_limit_satoshis = sat(dust_limit);
        }
    };
    accepted(at(5000));
    refused(
        at(5001),
        Refusal::DustLimitAboveOwnReserve {
            side: SIDE,
            dust_limit_satoshis: sat(5001),
            channel_reserve_satoshis: sat(5000),
        },
    );
}

// req: B2-ACC-R-10, B3-DUST-B-06
#[test]
fn dust_limit_is_at_least_354() {
    accepted(|a| a.config.dust_limit_satoshis = sat(354));
    for dust_limit in [353, 0] {
        refused(
            |a| a.config.dust_limit_satoshis = sat(dust_limit),
            Refusal::DustLimitTooSmall {
                side: SIDE,
                dust_limit_satoshis: sat(dust_limit),
                min: sat(354),
            },
        );
    }
}

// req: B2-ACC-R-11
#[test]
fn somebody_is_above_the_reserve_that_binds_us() {
    // Our balance is 400,000 less 3,470; theirs is what was pushed.
    let at = |reserve: u64| {
        good_accept()
            .with(|p| {
                p.open.push_msat = msat(600_000_000);
                p.limits.max_channel_reserve_percent = 100;
            })
            .answered(|a| a.config.channel_reserve_satoshis = sat(reserve))
    };
    accepts(&at(599_999));
    refuses(
        &at(600_000),
        Refusal::NeitherAboveReserve {
            side: SIDE,
            opener: sat(396_530),
            accepter: sat(600_000),
            channel_reserve_satoshis: sat(600_000),
        },
    );
}

// req: B2-ACC-R-12
#[test]
fn reserve_is_at_most_twenty_percent() {
    accepted(|a| a.config.channel_reserve_satoshis = sat(200_000));
    refused(
        |a| a.config.channel_reserve_satoshis = sat(200_001),
        Refusal::ReserveTooLarge { channel_reserve_satoshis: sat(200_001), max: sat(200_000) },
    );
    for reserve in [1_000_001, u64::MAX] {
        let case = good_accept().answered(|a| a.config.channel_reserve_satoshis = sat(reserve));
        let codes = case.codes(Stage::ReceiveAcceptChannel);
        for code in ["channel-reserve-satoshis-too-large", "reserves-exceed-funding"] {
            assert!(codes.contains(&code), "{reserve}: {codes:?}");
        }
    }
}

// req: B2-ACC-R-12
#[test]
fn both_reserves_are_within_the_funding() {
    let at = |reserve: u64| {
        good_accept().with(|p| p.limits.max_channel_reserve_percent = 100).answered(|a| {
            a.config.channel_reserve_satoshis = sat(reserve);
            a.config.htlc_minimum_msat = msat(0);
        })
    };
    accepts(&at(990_000));
    refuses(
        &at(990_001),
        Refusal::ReservesExceedFunding {
            side: SIDE,
            need: sat(1_000_001),
            funding_satoshis: sat(1_000_000),
        },
    );
}

// incident: CVE-2021-41591
// incident: CVE-2021-41592
// incident: CVE-2021-41593
// req: B2-ACC-R-12
#[test]
fn dust_limit_is_at_most_ten_thousand() {
    accepted(|a| a.config.dust_limit_satoshis = sat(10_000));
    let at = |dust_limit: u64| {
        good_accept().with(|p| p.open.config.channel_reserve_satoshis = sat(20_000)).answered(|a| {
            a.config.channel_reserve_satoshis = sat(20_000);
            a.config.dust_limit_satoshis = sat(dust_limit);
        })
    };
    refuses(
        &at(10_001),
        Refusal::DustLimitTooLarge { dust_limit_satoshis: sat(10_001), max: sat(10_000) },
    );
}

// req: B2-ACC-R-12
#[test]
fn htlc_minimum_is_bounded_by_us_and_by_the_channel() {
    let max = msat(5000);
    let at = |minimum: u64| {
        good_accept()
            .with(|p| p.limits.max_htlc_minimum_msat = max)
            .answered(|a| a.config.htlc_minimum_msat = msat(minimum))
    };
    accepts(&at(5000));
    refuses(&at(5001), Refusal::HtlcMinimumTooLarge { htlc_minimum_msat: msat(5001), max });

    let capacity = 976_530;
    accepted(|a| a.config.htlc_minimum_msat = msat(capacity * 1000));
    refused(
        |a| a.config.htlc_minimum_msat = msat(capacity * 1000 + 1),
        Refusal::HtlcMinimumAboveCapacity {
            side: SIDE,
            htlc_minimum_msat: msat(capacity * 1000 + 1),
            capacity: sat(capacity),
        },
    );
}

// req: B2-ACC-R-12
#[test]
fn value_in_flight_has_a_minimum() {
    let at = |in_flight: u64| {
        good_accept()
            .with(|p| p.limits.min_htlc_value_in_flight_msat = msat(5000))
            .answered(|a| a.config.max_htlc_value_in_flight_msat = msat(in_flight))
    };
    accepts(&at(5000));
    accepts(&at(u64::MAX));
    refuses(
        &at(4999),
        Refusal::MaxHtlcValueInFlightTooSmall {
            max_htlc_value_in_flight_msat: msat(4999),
            min: msat(5000),
        },
    );
}

// req: B2-ACC-S-09, B2-SHUT-S-05
#[test]
fn upfront_script_is_judged_where_negotiated() {
    let valid = ScriptBuf::from([&[0x00, 32][..], &[7; 32]].concat());
    let invalid = ScriptBuf::from([&[0x00, 32][..], &[7; 33]].concat());
    accepted(|a| a.script = Some(valid));
    refused(|a| a.script = None, Refusal::UpfrontShutdownScriptMissing { side: SIDE });
    refused(
        |a| a.script = Some(invalid.clone()),
        Refusal::UpfrontShutdownScriptInvalid { side: SIDE, length: 35 },
    );
    for script in [None, Some(invalid)] {
        let case = good_accept()
            .with(|p| forget(&mut p.features, Feature::UpfrontShutdownScript))
            .answered(|a| a.script = script);
        accepts(&case);
    }
}
