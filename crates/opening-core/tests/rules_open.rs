//! `open_channel` as the fundee judges it: each bound from both sides.

mod common;

use bitcoin::constants::ChainHash;
use bitcoin::{Amount, ScriptBuf};
use common::{Case, bits, forget, good_open, msat, negotiate, per_kw, sat};
use lightning_types::features::ChannelTypeFeatures;
use opening_core::limits::Announcement;
use opening_core::{ChannelType, Feature, Refusal, Side, Stage};

const SIDE: Side = Side::Remote;

#[track_caller]
fn accepted(change: impl FnOnce(&mut Case)) {
    assert_eq!(good_open().with(change).judge(Stage::ReceiveOpenChannel), Ok(()));
}

#[track_caller]
fn refused(change: impl FnOnce(&mut Case), refusal: Refusal) {
    let verdict = good_open().with(change).judge(Stage::ReceiveOpenChannel);
    assert_eq!(verdict, Err(refusal.clone()));
    assert_eq!(refusal.side_to_move(), SIDE);
}

// req: B2-OPEN-R-05, B9-FEAT-S-13
#[test]
fn negotiated_dual_funding_rules_out_v1() {
    accepted(|p| p.features.remote = bits(&[5, 23, 29]));
    accepted(|p| p.features.local = bits(&[5, 23, 29]));
    refused(
        |p| negotiate(&mut p.features, Feature::DualFund),
        Refusal::DualFundNegotiated { side: SIDE },
    );
}

// req: B2-OPEN-R-06
#[test]
fn announcement_follows_the_policy() {
    for announce_channel in [false, true] {
        accepted(|p| p.open.announce_channel = announce_channel);
        let with = |announcement| {
            move |p: &mut Case| {
                p.open.announce_channel = announce_channel;
                p.limits.announcement = announcement;
            }
        };
        let (wanted, unwanted) = if announce_channel {
            (Announcement::PublicOnly, Announcement::PrivateOnly)
        } else {
            (Announcement::PrivateOnly, Announcement::PublicOnly)
        };
        accepted(with(wanted));
        refused(with(unwanted), Refusal::AnnouncementUnwanted { announce_channel });
    }
}

fn set_funding(p: &mut Case, funding_satoshis: Amount) {
    p.open.funding_satoshis = funding_satoshis;
    negotiate(&mut p.features, Feature::LargeChannels);
}

// req: B2-OPEN-R-07
#[test]
fn funding_has_a_minimum_and_a_maximum() {
    let at = |funding: u64| {
        move |p: &mut Case| {
            set_funding(p, sat(funding));
            p.limits.min_funding_satoshis = sat(100_000);
            p.limits.max_funding_satoshis = sat(20_000_000);
        }
    };
    accepted(at(100_000));
    accepted(at(20_000_000));
    refused(
        at(99_999),
        Refusal::FundingTooSmall { funding_satoshis: sat(99_999), min: sat(100_000) },
    );
    refused(
        at(20_000_001),
        Refusal::FundingTooLarge {
            side: SIDE,
            funding_satoshis: sat(20_000_001),
            max: sat(20_000_000),
        },
    );
}

// incident: CLN #9225
// req: B1-TYP-B-02, B1-TYP-B-03
#[test]
fn funding_beyond_the_supply_is_refused_without_overflow() {
    let supply = 2_100_000_000_000_000;
    accepted(|p| set_funding(p, sat(supply)));
    for funding in [supply + 1, u64::MAX / 1000, u64::MAX / 1000 + 1, u64::MAX] {
        refused(
            |p| set_funding(p, sat(funding)),
            Refusal::AmountAboveSupply {
                side: SIDE,
                field: "funding_satoshis",
                amount: funding,
                max: supply,
            },
        );
    }
}

// req: B2-OPEN-R-08
#[test]
fn htlc_minimum_has_a_maximum() {
    let at = |htlc_minimum: u64| {
        move |p: &mut Case| {
            p.open.config.htlc_minimum_msat = msat(htlc_minimum);
            p.limits.max_htlc_minimum_msat = msat(5000);
        }
    };
    accepted(at(5000));
    for htlc_minimum in [5001, u64::MAX] {
        refused(
            at(htlc_minimum),
            Refusal::HtlcMinimumTooLarge { htlc_minimum_msat: msat(htlc_minimum), max: msat(5000) },
        );
    }
}

// req: B2-OPEN-R-08
#[test]
fn htlc_minimum_is_at_most_what_the_channel_carries() {
    // 1,000,000 less two reserves of 10,000, a fee of 2,810 and 660 for the anchors.
    let capacity = 976_530;
    accepted(|p| p.open.config.htlc_minimum_msat = msat(capacity * 1000));
    for htlc_minimum in [capacity * 1000 + 1, 2_100_000_000_000_000_000] {
        refused(
            |p| p.open.config.htlc_minimum_msat = msat(htlc_minimum),
            Refusal::HtlcMinimumAboveCapacity {
                side: SIDE,
                htlc_minimum_msat: msat(htlc_minimum),
                capacity: sat(capacity),
            },
        );
    }
    // What may be in flight at once is a bound too, in whole satoshis.
    let in_flight = |in_flight: u64| {
        move |p: &mut Case| {
            p.open.config.max_htlc_value_in_flight_msat = msat(in_flight);
            p.open.config.htlc_minimum_msat = msat(7000);
        }
    };
    accepted(in_flight(7000));
    refused(
        in_flight(6999),
        Refusal::HtlcMinimumAboveCapacity {
            side: SIDE,
            htlc_minimum_msat: msat(7000),
            capacity: sat(6),
        },
    );
}

// req: B2-OPEN-R-09, B1-TYP-B-04
#[test]
fn value_in_flight_has_a_minimum_and_may_be_more_than_there_is() {
    let at = |in_flight: u64| {
        move |p: &mut Case| {
            p.open.config.max_htlc_value_in_flight_msat = msat(in_flight);
            p.limits.min_htlc_value_in_flight_msat = msat(5_000_000);
        }
    };
    accepted(at(5_000_000));
    accepted(at(2_100_000_000_000_000_001));
    accepted(at(u64::MAX));
    refused(
        at(4_999_999),
        Refusal::MaxHtlcValueInFlightTooSmall {
            max_htlc_value_in_flight_msat: msat(4_999_999),
            min: msat(5_000_000),
        },
    );
    // More than there is counts as all there is.
    refused(
        |p| {
            p.open.config.max_htlc_value_in_flight_msat = msat(u64::MAX);
            p.limits.min_htlc_value_in_flight_msat = msat(u64::MAX);
        },
        Refusal::MaxHtlcValueInFlightTooSmall {
            max_htlc_value_in_flight_msat: msat(2_100_000_000_000_000_000),
            min: msat(u64::MAX),
        },
    );
}

// req: B2-OPEN-R-10
#[test]
fn reserve_is_at_most_twenty_percent() {
    accepted(|p| p.open.config.channel_reserve_satoshis = sat(200_000));
    for reserve in [200_001, 1_000_001, u64::MAX] {
        refused(
            |p| p.open.config.channel_reserve_satoshis = sat(reserve),
            Refusal::ReserveTooLarge { channel_reserve_satoshis: sat(reserve), max: sat(200_000) },
        );
    }
    // Rounded down.
    let at = |reserve: u64| {
        move |p: &mut Case| {
            p.open.funding_satoshis = sat(1_000_004);
            p.open.config.channel_reserve_satoshis = sat(reserve);
        }
    };
    accepted(at(200_000));
    refused(
        at(200_001),
        Refusal::ReserveTooLarge { channel_reserve_satoshis: sat(200_001), max: sat(200_000) },
    );
}

// req: B2-OPEN-R-10
#[test]
fn both_reserves_are_within_the_funding() {
    // We will ask for 10,000: one percent.
    let at = |reserve: u64| {
        move |p: &mut Case| {
            p.open.config.channel_reserve_satoshis = sat(reserve);
            p.open.config.htlc_minimum_msat = msat(0);
            p.limits.max_channel_reserve_percent = 100;
        }
    };
    accepted(at(990_000));
    refused(
        at(990_001),
        Refusal::ReservesExceedFunding {
            side: SIDE,
            need: sat(1_000_001),
            funding_satoshis: sat(1_000_000),
        },
    );
}

// req: B2-OPEN-R-11, B2-OPEN-R-16
#[test]
fn accepted_htlcs_are_1_to_483() {
    for max_accepted_htlcs in [1, 483] {
        accepted(|p| p.open.config.max_accepted_htlcs = max_accepted_htlcs);
    }
    refused(
        |p| p.open.config.max_accepted_htlcs = 0,
        Refusal::MaxAcceptedHtlcsTooSmall { max_accepted_htlcs: 0, min: 1 },
    );
    for max_accepted_htlcs in [484, u16::MAX] {
        refused(
            |p| p.open.config.max_accepted_htlcs = max_accepted_htlcs,
            Refusal::MaxAcceptedHtlcsTooLarge { side: SIDE, max_accepted_htlcs, max: 483 },
        );
    }
    // A node may want more, or none.
    refused(
        |p| (p.open.config.max_accepted_htlcs, p.limits.min_accepted_htlcs) = (4, 5),
        Refusal::MaxAcceptedHtlcsTooSmall { max_accepted_htlcs: 4, min: 5 },
    );
    accepted(|p| (p.open.config.max_accepted_htlcs, p.limits.min_accepted_htlcs) = (0, 0));
}

// incident: CVE-2021-41591
// incident: CVE-2021-41592
// incident: CVE-2021-41593
// req: B2-OPEN-R-12, B2-OPEN-R-20, B3-DUST-B-06, B3-DUST-B-08
#[test]
fn dust_limit_is_354_to_10000() {
    for dust_limit in [354, 546, 1000, 10_000] {
        accepted(|p| p.open.config.dust_limit_satoshis = sat(dust_limit));
    }
    for dust_limit in [0, 353] {
        refused(
            |p| p.open.config.dust_limit_satoshis = sat(dust_limit),
            Refusal::DustLimitTooSmall {
                side: SIDE,
                dust_limit_satoshis: sat(dust_limit),
                min: sat(354),
            },
        );
    }
    for dust_limit in [10_001, u64::MAX] {
        refused(
            |p| p.open.config.dust_limit_satoshis = sat(dust_limit),
            Refusal::DustLimitTooLarge { dust_limit_satoshis: sat(dust_limit), max: sat(10_000) },
        );
    }
}

// req: B2-OPEN-R-13
#[test]
fn another_chain_is_refused() {
    let mut chain_hash = ChainHash::REGTEST.to_bytes();
    chain_hash[0] ^= 1;
    for chain_hash in [ChainHash::BITCOIN, ChainHash::from(chain_hash)] {
        refused(
            |p| p.open.chain_hash = chain_hash,
            Refusal::UnknownChain { side: SIDE, chain_hash },
        );
    }
}

// req: B2-OPEN-R-14
#[test]
fn push_is_within_the_funding() {
    let funding_satoshis = sat(1_000_000);
    for push in [1_000_000_001, u64::MAX] {
        refused(
            |p| p.open.push_msat = msat(push),
            Refusal::PushExceedsFunding { side: SIDE, push_msat: msat(push), funding_satoshis },
        );
    }
    // All of it is not more than all; but then the fee is not paid.
    refused(
        |p| p.open.push_msat = msat(1_000_000_000),
        Refusal::Unaffordable { side: SIDE, have: sat(0), need: sat(3470) },
    );
}

// req: B2-OPEN-R-15
#[test]
fn delay_has_a_maximum() {
    accepted(|p| p.open.config.to_self_delay = 2016);
    for to_self_delay in [2017, u16::MAX] {
        refused(
            |p| p.open.config.to_self_delay = to_self_delay,
            Refusal::ToSelfDelayTooLarge { to_self_delay, max: 2016 },
        );
    }
}

// Beyond the BOLT: a signer that takes no shorter delay would refuse only when money is at stake.
#[test]
fn delay_has_the_minimum_that_a_signer_wants() {
    accepted(|p| p.open.config.to_self_delay = 0);
    accepted(|p| {
        p.limits.min_to_self_delay = 144;
        p.open.config.to_self_delay = 144;
    });
    refused(
        |p| {
            p.limits.min_to_self_delay = 144;
            p.open.config.to_self_delay = 143;
        },
        Refusal::ToSelfDelayTooSmall { to_self_delay: 143, min: 144 },
    );
}

#[test]
fn only_types_that_a_signer_takes_are_accepted() {
    let only = |one| [one].into_iter().collect();
    for channel_type in [ChannelType::ANCHORS, ChannelType::STATIC_REMOTEKEY] {
        let case = good_open().of_type(channel_type);
        let taken = case.clone().with(|p| p.limits.channel_types = only(channel_type));
        assert_eq!(taken.judge(Stage::ReceiveOpenChannel), Ok(()));
        let zeroconf = ChannelType { zeroconf: true, ..channel_type };
        let other = case.with(|p| p.limits.channel_types = only(zeroconf));
        let refusal = Refusal::ChannelTypeNotAccepted { side: SIDE, channel_type };
        assert_eq!(other.judge(Stage::ReceiveOpenChannel), Err(refusal));
    }
}

// incident: LND #11201
// incident: LND #11149
// req: B2-OPEN-R-17, B3-FEE-B-05
#[test]
fn feerate_is_within_both_bounds() {
    for feerate in [253, 25_000] {
        accepted(|p| p.open.feerate_per_kw = per_kw(feerate));
    }
    for feerate in [0, 252] {
        let feerate_per_kw = per_kw(feerate);
        refused(
            |p| p.open.feerate_per_kw = feerate_per_kw,
            Refusal::FeerateTooSmall { side: SIDE, feerate_per_kw, min: per_kw(253) },
        );
    }
    for feerate in [25_001, u32::MAX] {
        let feerate_per_kw = per_kw(feerate);
        refused(
            |p| p.open.feerate_per_kw = feerate_per_kw,
            Refusal::FeerateTooLarge { side: SIDE, feerate_per_kw, max: per_kw(25_000) },
        );
    }
}

// req: B2-OPEN-R-17
#[test]
fn without_an_estimate_no_feerate_is_accepted() {
    let case = good_open().with(|p| p.feerates = None);
    let refusal = case.judge(Stage::ReceiveOpenChannel).expect_err("no estimate");
    assert_eq!(refusal, Refusal::NoFeeEstimate { feerate_per_kw: per_kw(2500) });
    assert_eq!(refusal.side_to_move(), Side::Local);
    assert_eq!(refusal.code(), "no-fee-estimate");
    // Why is not the peer's business.
    assert_eq!(refusal.to_string(), "feerate_per_kw 2500 cannot be accepted");
}

// incident: CLN #4140
// incident: CLN #9515
// req: B2-OPEN-R-19
#[test]
fn dust_limit_is_within_its_own_reserve() {
    let at = |dust_limit: u64| {
        move |p: &mut Case| {
            p.open.config.channel_reserve_satoshis = sat(5000);
            p.open.config.dust_limit_satoshis = sat(dust_limit);
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

// incident: eclair #3383
// incident: CLN #9491
// req: B2-OPEN-R-21, B3-FEE-B-01, B3-FEE-B-03
#[test]
fn opener_pays_the_whole_fee_and_both_anchors() {
    for (channel_type, cost) in
        [(ChannelType::STATIC_REMOTEKEY, 1810), (ChannelType::ANCHORS, 2810 + 660)]
    {
        let keeping = |kept_msat: u64| {
            move |p: &mut Case| {
                p.open.channel_type = Some(channel_type.to_features());
                p.open.push_msat = msat(1_000_000_000 - kept_msat);
            }
        };
        accepted(keeping(cost * 1000));
        for kept_msat in [cost * 1000 - 1, (cost - 1) * 1000] {
            refused(
                keeping(kept_msat),
                Refusal::Unaffordable { side: SIDE, have: sat(cost - 1), need: sat(cost) },
            );
        }
    }
}

// incident: LND #5523
// incident: LND #6505
// req: B2-OPEN-R-21
#[test]
fn a_refusal_says_what_is_short() {
    let case = good_open().with(|p| p.open.push_msat = msat(999_000_000));
    let refusal = case.judge(Stage::ReceiveOpenChannel).unwrap_err();
    let text = "the opener has 1000 sat, fee and anchors need 3470 sat, short of 2470 sat";
    assert_eq!(refusal.to_string(), text);
}

// incident: CLN #605
// req: B2-OPEN-R-22
#[test]
fn somebody_is_above_the_reserve() {
    // What is asked here: 200,000 sat, twenty percent.  Anchors cost 3,470.
    let at = |funding: u64, push: u64| {
        move |p: &mut Case| {
            p.open.funding_satoshis = sat(funding);
            p.open.push_msat = msat(push);
            p.open.config.channel_reserve_satoshis = sat(200_000);
            p.open.config.htlc_minimum_msat = msat(0);
            p.limits.max_channel_reserve_percent = 100;
        }
    };
    // The opener.
    accepted(at(203_471 + 100_000, 100_000_000));
    refused(
        at(203_470 + 100_000, 100_000_000),
        Refusal::NeitherAboveReserve {
            side: SIDE,
            opener: sat(200_000),
            accepter: sat(100_000),
            channel_reserve_satoshis: sat(200_000),
        },
    );
    // The accepter, in whole satoshis as they stand in the commitment.
    accepted(at(300_000, 200_001_000));
    refused(
        at(300_000, 200_000_999),
        Refusal::NeitherAboveReserve {
            side: SIDE,
            opener: sat(96_529),
            accepter: sat(200_000),
            channel_reserve_satoshis: sat(200_000),
        },
    );
}

// req: B2-OPEN-R-23
#[test]
fn large_channels_take_our_support_alone() {
    let last = 16_777_215;
    accepted(|p| p.open.funding_satoshis = sat(last));
    let with_large = [5, 19, 23];
    for (local, supported) in [(true, true), (false, false)] {
        let large = |p: &mut Case| {
            p.open.funding_satoshis = sat(last + 1);
            let init = if local { &mut p.features.local } else { &mut p.features.remote };
            *init = bits(&with_large);
        };
        if supported {
            accepted(large);
        } else {
            refused(
                large,
                Refusal::LargeChannelUnsupported {
                    side: SIDE,
                    funding_satoshis: sat(last + 1),
                    max: sat(last),
                },
            );
        }
    }
}

// req: B2-OPEN-S-10, B2-SHUT-S-05
#[test]
fn upfront_script_is_judged_where_negotiated() {
    let valid = ScriptBuf::from([&[0x00, 20][..], &[7; 20]].concat());
    let invalid = ScriptBuf::from([&[0x00, 20][..], &[7; 19]].concat());
    accepted(|p| p.open.script = Some(valid));
    accepted(|p| p.open.script = Some(ScriptBuf::new()));
    refused(|p| p.open.script = None, Refusal::UpfrontShutdownScriptMissing { side: SIDE });
    refused(
        |p| p.open.script = Some(invalid.clone()),
        Refusal::UpfrontShutdownScriptInvalid { side: SIDE, length: 21 },
    );
    // Not negotiated: neither missed nor looked at.
    for script in [None, Some(invalid)] {
        accepted(|p| {
            forget(&mut p.features, Feature::UpfrontShutdownScript);
            p.open.script = script;
        });
    }
}

// req: B3-FEE-B-04
#[test]
fn a_channel_without_outputs_is_explained() {
    // Everything went to the fee, and a balance below both dust limits is left.
    let case = good_open().of_type(ChannelType::STATIC_REMOTEKEY).with(|p| {
        p.open.funding_satoshis = sat(10_000);
        p.open.feerate_per_kw = per_kw(13_324);
    });
    let outputs = |case: &Case| case.codes(Stage::ReceiveOpenChannel).contains(&"no-outputs");
    assert!(!outputs(&case), "354 sat are left");
    assert!(outputs(&case.with(|p| p.open.feerate_per_kw = per_kw(13_325))), "353 sat are left");
}

// req: B2-OPEN-R-24
#[test]
fn the_first_violation_in_the_order_of_the_bolt_is_told_and_all_are_explained() {
    let case = good_open().with(|p| {
        p.open.chain_hash = ChainHash::BITCOIN;
        p.open.config.to_self_delay = 2017;
        p.open.config.dust_limit_satoshis = sat(353);
        p.open.channel_type = Some(ChannelTypeFeatures::empty());
    });
    let expected = [
        "unknown-chain",
        "to-self-delay-too-large",
        "dust-limit-satoshis-too-small",
        "channel-type-undefined",
    ];
    assert_eq!(case.judge(Stage::ReceiveOpenChannel).unwrap_err().code(), expected[0]);
    assert_eq!(case.codes(Stage::ReceiveOpenChannel), expected);
}
