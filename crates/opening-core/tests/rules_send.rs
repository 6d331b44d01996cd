//! What we are about to send, held against the BOLT.

mod common;

use bitcoin::ScriptBuf;
use bitcoin::constants::ChainHash;
use common::{Accept, Case, bits, forget, good_accept, good_open, msat, negotiate, per_kw, sat};
use lightning_types::features::ChannelTypeFeatures;
use opening_core::{ChannelType, Feature, Refusal, Side, Stage};

const SIDE: Side = Side::Local;

#[track_caller]
fn sends(case: &Case, stage: Stage) {
    assert_eq!(case.judge(stage), Ok(()));
}

#[track_caller]
fn keeps(case: &Case, stage: Stage, refusal: Refusal) {
    assert_eq!(refusal.side_to_move(), SIDE);
    assert_eq!(case.judge(stage), Err(refusal));
}

#[track_caller]
fn open_leaves(change: impl FnOnce(&mut Case)) {
    sends(&good_open().with(change), Stage::SendOpenChannel);
}

#[track_caller]
fn open_stays(change: impl FnOnce(&mut Case), refusal: Refusal) {
    keeps(&good_open().with(change), Stage::SendOpenChannel, refusal);
}

#[track_caller]
fn accept_leaves(change: impl FnOnce(&mut Accept)) {
    sends(&good_accept().answered(change), Stage::SendAcceptChannel);
}

#[track_caller]
fn accept_stays(change: impl FnOnce(&mut Accept), refusal: Refusal) {
    keeps(&good_accept().answered(change), Stage::SendAcceptChannel, refusal);
}

// req: B2-OPEN-S-01, B2-OPEN-R-05
#[test]
fn open_is_for_our_chain_and_not_where_v2_is_negotiated() {
    open_leaves(|_| {});
    let chain_hash = ChainHash::BITCOIN;
    open_stays(
        |p| p.open.chain_hash = chain_hash,
        Refusal::UnknownChain { side: SIDE, chain_hash },
    );
    open_stays(
        |p| negotiate(&mut p.features, Feature::DualFund),
        Refusal::DualFundNegotiated { side: SIDE },
    );
}

// req: B2-OPEN-S-03, B2-OPEN-S-04
#[test]
fn open_is_large_only_if_both_advertised() {
    let large = sat(16_777_216);
    open_leaves(|p| p.open.funding_satoshis = sat(16_777_215));
    let with = |local: &'static [u16], remote: &'static [u16]| {
        move |p: &mut Case| {
            p.open.funding_satoshis = large;
            (p.features.local, p.features.remote) = (bits(local), bits(remote));
        }
    };
    open_leaves(with(&[5, 19, 23], &[5, 19, 23]));
    open_leaves(with(&[5, 19, 23], &[5, 18, 23]));
    for (local, remote) in
        [(&[5, 19, 23][..], &[5, 23][..]), (&[5, 23], &[5, 19, 23]), (&[5, 23], &[5, 23])]
    {
        let refusal = Refusal::LargeChannelUnsupported {
            side: SIDE,
            funding_satoshis: large,
            max: sat(16_777_215),
        };
        open_stays(with(local, remote), refusal);
    }
}

// req: B1-TYP-B-02, B1-TYP-B-03, B1-TYP-B-04
#[test]
fn open_has_no_amount_beyond_the_supply() {
    let (most_sat, most_msat) = (2_100_000_000_000_000, 2_100_000_000_000_000_000);
    let all = |p: &mut Case| {
        negotiate(&mut p.features, Feature::LargeChannels);
        p.open.funding_satoshis = sat(most_sat);
    };
    open_leaves(all);
    open_leaves(|p| p.open.config.max_htlc_value_in_flight_msat = msat(most_msat));
    type Change = fn(&mut Case, u64);
    let fields: [(&str, u64, Change); 6] = [
        ("funding_satoshis", most_sat, |p, v| p.open.funding_satoshis = sat(v)),
        ("push_msat", most_msat, |p, v| p.open.push_msat = msat(v)),
        ("dust_limit_satoshis", most_sat, |p, v| p.open.config.dust_limit_satoshis = sat(v)),
        ("channel_reserve_satoshis", most_sat, |p, v| {
            p.open.config.channel_reserve_satoshis = sat(v);
        }),
        ("htlc_minimum_msat", most_msat, |p, v| p.open.config.htlc_minimum_msat = msat(v)),
        ("max_htlc_value_in_flight_msat", most_msat, |p, v| {
            p.open.config.max_htlc_value_in_flight_msat = msat(v);
        }),
    ];
    for (field, max, set) in fields {
        for amount in [max + 1, u64::MAX] {
            let refusal = Refusal::AmountAboveSupply { side: SIDE, field, amount, max };
            open_stays(|p| set(p, amount), refusal);
        }
        let codes = good_open().with(|p| set(p, max)).codes(Stage::SendOpenChannel);
        assert!(!codes.contains(&"amount-above-supply"), "{field} {max}: {codes:?}");
    }
}

// req: B2-OPEN-S-05
#[test]
fn open_pushes_no_more_than_there_is() {
    let funding_satoshis = sat(1_000_000);
    let push_msat = msat(1_000_000_001);
    open_stays(
        |p| p.open.push_msat = push_msat,
        Refusal::PushExceedsFunding { side: SIDE, push_msat, funding_satoshis },
    );
    open_leaves(|p| p.open.push_msat = msat(996_530_000));
    open_stays(
        |p| p.open.push_msat = msat(996_530_001),
        Refusal::Unaffordable { side: SIDE, have: sat(3469), need: sat(3470) },
    );
}

// req: B2-OPEN-S-08
#[test]
fn open_asks_for_a_reserve_above_its_dust_limit() {
    open_leaves(|p| p.open.config.dust_limit_satoshis = sat(10_000));
    open_stays(
        |p| p.open.config.dust_limit_satoshis = sat(10_001),
        Refusal::DustLimitAboveOwnReserve {
            side: SIDE,
            dust_limit_satoshis: sat(10_001),
            channel_reserve_satoshis: sat(10_000),
        },
    );
}

// req: B2-OPEN-S-10, B2-OPEN-S-11, B2-OPEN-S-12, B2-SHUT-S-05
#[test]
fn open_always_has_an_upfront_script_empty_or_valid() {
    let valid = ScriptBuf::from([&[0x51, 32][..], &[7; 32]].concat());
    for negotiated in [true, false] {
        let with = |script: Option<ScriptBuf>| {
            move |p: &mut Case| {
                p.open.script = script;
                if !negotiated {
                    forget(&mut p.features, Feature::UpfrontShutdownScript);
                }
            }
        };
        open_leaves(with(Some(ScriptBuf::new())));
        open_leaves(with(Some(valid.clone())));
        open_stays(with(None), Refusal::UpfrontShutdownScriptMissing { side: SIDE });
        open_stays(
            with(Some(ScriptBuf::from(vec![0x51, 1, 7]))),
            Refusal::UpfrontShutdownScriptInvalid { side: SIDE, length: 3 },
        );
    }
    // Taproot takes anysegwit.
    open_stays(
        |p| {
            p.open.script = Some(valid.clone());
            forget(&mut p.features, Feature::ShutdownAnysegwit);
        },
        Refusal::UpfrontShutdownScriptInvalid { side: SIDE, length: 34 },
    );
}

// req: B2-OPEN-S-13, B2-OPEN-S-14, B2-OPEN-S-15, B2-OPEN-S-16, B2-OPEN-S-17, B2-TYPE-B-01, B9-FEAT-S-04
#[test]
fn open_has_a_defined_minimal_negotiated_type() {
    open_stays(|p| p.open.channel_type = None, Refusal::ChannelTypeMissing { side: SIDE });
    let undefined = [
        vec![],
        vec![0x00, 0x20],
        vec![0x00, 0x10, 0x40, 0x00],
        // Features of `init` alone: upfront scripts, large channels, any segwit version.
        vec![0x10, 0x10, 0x40],
        vec![0x00, 0x10, 0x44],
        vec![0x00, 0x10, 0x40, 0x04],
    ];
    for bytes in undefined {
        open_stays(
            |p| p.open.channel_type = Some(ChannelTypeFeatures::from_le_bytes(bytes)),
            Refusal::ChannelTypeUndefined { side: SIDE },
        );
    }
    for channel_type in ChannelType::all() {
        let trusting = || good_open().of_type(channel_type);
        sends(&trusting(), Stage::SendOpenChannel);
        for feature in channel_type.features() {
            let case = trusting().with(|p| forget(&mut p.features, feature));
            let refusal = Refusal::ChannelTypeNotNegotiated { side: SIDE, feature };
            keeps(&case, Stage::SendOpenChannel, refusal);
        }
        let announced = trusting().with(|p| p.open.announce_channel = true);
        if channel_type.scid_alias {
            let refusal = Refusal::ScidAliasAnnounced { side: SIDE };
            keeps(&announced, Stage::SendOpenChannel, refusal);
        } else {
            sends(&announced, Stage::SendOpenChannel);
        }
    }
}

// req: B2-OPEN-S-19, B2-OPEN-S-20, B2-OPEN-S-21
#[test]
fn open_has_a_reasonable_feerate_and_dust_limit() {
    for feerate in [253, 25_000] {
        open_leaves(|p| p.open.feerate_per_kw = per_kw(feerate));
    }
    let (low, high) = (per_kw(252), per_kw(25_001));
    open_stays(
        |p| p.open.feerate_per_kw = low,
        Refusal::FeerateTooSmall { side: SIDE, feerate_per_kw: low, min: per_kw(253) },
    );
    open_stays(
        |p| p.open.feerate_per_kw = high,
        Refusal::FeerateTooLarge { side: SIDE, feerate_per_kw: high, max: per_kw(25_000) },
    );
    open_stays(|p| p.feerates = None, Refusal::NoFeeEstimate { feerate_per_kw: per_kw(2500) });
    open_leaves(|p| p.open.config.dust_limit_satoshis = sat(354));
    open_stays(
        |p| p.open.config.dust_limit_satoshis = sat(353),
        Refusal::DustLimitTooSmall { side: SIDE, dust_limit_satoshis: sat(353), min: sat(354) },
    );
}

// req: B2-OPEN-R-16, B2-OPEN-R-22
#[test]
fn open_is_not_what_any_peer_has_to_refuse() {
    open_leaves(|p| p.open.config.max_accepted_htlcs = 483);
    open_stays(
        |p| p.open.config.max_accepted_htlcs = 484,
        Refusal::MaxAcceptedHtlcsTooLarge { side: SIDE, max_accepted_htlcs: 484, max: 483 },
    );
    let reserve = |reserve: u64| {
        move |p: &mut Case| {
            p.open.config.channel_reserve_satoshis = sat(reserve);
            p.open.config.htlc_minimum_msat = msat(0);
        }
    };
    open_leaves(reserve(996_529));
    open_stays(
        reserve(996_530),
        Refusal::NeitherAboveReserve {
            side: SIDE,
            opener: sat(996_530),
            accepter: sat(0),
            channel_reserve_satoshis: sat(996_530),
        },
    );
    open_stays(
        |p| p.limits.max_funding_satoshis = sat(999_999),
        Refusal::FundingTooLarge {
            side: SIDE,
            funding_satoshis: sat(1_000_000),
            max: sat(999_999),
        },
    );
}

// req: B2-ACC-S-01, B2-ACC-S-02
#[test]
fn accept_has_depth_zero_with_zeroconf_only() {
    let zeroconf = ChannelType { zeroconf: true, scid_alias: true, ..ChannelType::ANCHORS };
    let with_depth = |channel_type, depth| {
        good_accept()
            .of_type(channel_type)
            .with(|p| p.limits.trust_zeroconf = true)
            .answered(|a| a.minimum_depth = depth)
    };
    sends(&with_depth(zeroconf, 0), Stage::SendAcceptChannel);
    keeps(
        &with_depth(zeroconf, 1),
        Stage::SendAcceptChannel,
        Refusal::MinimumDepthWithZeroconf { side: SIDE, minimum_depth: 1 },
    );
    sends(&with_depth(ChannelType::ANCHORS, 1), Stage::SendAcceptChannel);
    keeps(
        &with_depth(ChannelType::ANCHORS, 0),
        Stage::SendAcceptChannel,
        Refusal::MinimumDepthZero,
    );
}

// req: B2-OPEN-R-25
#[test]
fn accept_of_zeroconf_takes_trust() {
    let zeroconf = ChannelType { zeroconf: true, ..ChannelType::ANCHORS };
    let verdict = good_accept().of_type(zeroconf).judge(Stage::SendAcceptChannel);
    assert_eq!(verdict, Err(Refusal::ZeroconfUntrusted));
}

// req: B2-ACC-S-03
#[test]
fn accept_asks_for_a_reserve_above_the_openers_dust_limit() {
    let at = |reserve: u64| {
        good_accept()
            .with(|p| p.open.config.dust_limit_satoshis = sat(5000))
            .answered(|a| a.config.channel_reserve_satoshis = sat(reserve))
    };
    sends(&at(5000), Stage::SendAcceptChannel);
    keeps(
        &at(4999),
        Stage::SendAcceptChannel,
        Refusal::ReserveBelowDustLimit {
            side: SIDE,
            channel_reserve_satoshis: sat(4999),
            dust_limit_satoshis: sat(5000),
        },
    );
}

// req: B2-ACC-S-04
#[test]
fn accept_has_a_dust_limit_within_the_openers_reserve() {
    accept_leaves(|a| a.config.dust_limit_satoshis = sat(10_000));
    accept_stays(
        |a| a.config.dust_limit_satoshis = sat(10_001),
        Refusal::DustLimitAboveReserve {
            side: SIDE,
            dust_limit_satoshis: sat(10_001),
            channel_reserve_satoshis: sat(10_000),
        },
    );
}

// req: B2-ACC-S-05
#[test]
fn accept_repeats_the_type() {
    accept_stays(|a| a.channel_type = None, Refusal::ChannelTypeMissing { side: SIDE });
    accept_stays(
        |a| a.channel_type = Some(ChannelType::STATIC_REMOTEKEY.to_features()),
        Refusal::ChannelTypeDiffers { side: SIDE },
    );
    accept_stays(
        |a| a.channel_type = Some(ChannelTypeFeatures::from_le_bytes(vec![0x00, 0x10, 0x40, 0x00])),
        Refusal::ChannelTypeDiffers { side: SIDE },
    );
}

// req: B2-ACC-S-08
#[test]
fn accept_asks_for_a_reserve_above_its_own_dust_limit() {
    let at = |reserve: u64| {
        move |a: &mut Accept| {
            a.config.dust_limit_satoshis = sat(5000);
            a.config.channel_reserve_satoshis = sat(reserve);
        }
    };
    accept_leaves(at(5000));
    accept_stays(
        at(4999),
        Refusal::DustLimitAboveOwnReserve {
            side: SIDE,
            dust_limit_satoshis: sat(5000),
            channel_reserve_satoshis: sat(4999),
        },
    );
}

// req: B2-ACC-S-09, B2-SHUT-S-05
#[test]
fn accept_always_has_an_upfront_script_empty_or_valid() {
    accept_leaves(|a| a.script = Some(ScriptBuf::from([&[0x00, 20][..], &[7; 20]].concat())));
    accept_stays(|a| a.script = None, Refusal::UpfrontShutdownScriptMissing { side: SIDE });
    accept_stays(
        |a| a.script = Some(ScriptBuf::from(vec![0x6a])),
        Refusal::UpfrontShutdownScriptInvalid { side: SIDE, length: 1 },
    );
}

// req: B2-ACC-S-10, B2-ACC-R-07, B1-TYP-B-02
#[test]
fn accept_is_not_what_any_peer_has_to_refuse() {
    accept_leaves(|a| a.config.dust_limit_satoshis = sat(354));
    accept_stays(
        |a| a.config.dust_limit_satoshis = sat(353),
        Refusal::DustLimitTooSmall { side: SIDE, dust_limit_satoshis: sat(353), min: sat(354) },
    );
    accept_stays(
        |a| a.config.max_accepted_htlcs = 484,
        Refusal::MaxAcceptedHtlcsTooLarge { side: SIDE, max_accepted_htlcs: 484, max: 483 },
    );
    let max = 2_100_000_000_000_000_000;
    accept_leaves(|a| a.config.max_htlc_value_in_flight_msat = msat(max));
    accept_stays(
        |a| a.config.max_htlc_value_in_flight_msat = msat(max + 1),
        Refusal::AmountAboveSupply {
            side: SIDE,
            field: "max_htlc_value_in_flight_msat",
            amount: max + 1,
            max,
        },
    );
}

// req: B2-OPEN-R-22, B2-ACC-R-11
#[test]
fn accept_leaves_somebody_above_either_reserve() {
    let at = |open: u64, accept: u64| {
        good_accept()
            .with(|p| {
                p.open.push_msat = msat(600_000_000);
                p.open.config.channel_reserve_satoshis = sat(open);
            })
            .answered(|a| a.config.channel_reserve_satoshis = sat(accept))
    };
    sends(&at(10_000, 599_999), Stage::SendAcceptChannel);
    sends(&at(599_999, 10_000), Stage::SendAcceptChannel);
    let neither = |side| Refusal::NeitherAboveReserve {
        side,
        opener: sat(396_530),
        accepter: sat(600_000),
        channel_reserve_satoshis: sat(600_000),
    };
    keeps(&at(10_000, 600_000), Stage::SendAcceptChannel, neither(SIDE));
    // With the opener's own reserve, it is the opener who has to ask for less.
    let verdict = at(600_000, 10_000).judge(Stage::SendAcceptChannel);
    assert_eq!(verdict, Err(neither(Side::Remote)));
}
