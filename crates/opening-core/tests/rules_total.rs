//! Whatever the numbers: no rule panics, and what is accepted can be paid and built.

mod common;

use std::collections::BTreeSet;

use bitcoin::constants::ChainHash;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use bitcoin::{Amount, OutPoint, ScriptBuf, Txid};
use common::{Accept, Case, PROFILES, bits, good_accept, msat, negotiate, per_kw, sat};
use lightning_types::features::ChannelTypeFeatures;
use opening_core::commitment::{Balances, opener_cost};
use opening_core::limits::Announcement;
use opening_core::rules::rules;
use opening_core::{
    ChannelConfig, ChannelKeys, ChannelParameters, ChannelType, ChannelTypes, Feature,
    FeerateRange, Limits, Party, Profile, Refusal, Role, Side, Stage, Terms, explain, judge,
};
use proptest::prelude::*;
use proptest::sample::select;

/// The variants of [`Refusal`], each with a code of its own.
const REASONS: usize = 43;

const SUPPLY: u64 = 2_100_000_000_000_000;

/// Mostly what passes somewhere, often an edge, sometimes anything.
fn amounts(good: Vec<u64>) -> impl Strategy<Value = u64> {
    let edges = vec![
        0,
        1,
        353,
        354,
        355,
        1000,
        3470,
        10_000,
        16_777_215,
        16_777_216,
        SUPPLY,
        SUPPLY + 1,
        SUPPLY * 1000,
        SUPPLY * 1000 + 1,
        u64::MAX / 1000,
        u64::MAX / 1000 + 1,
        u64::MAX - 660,
        u64::MAX,
    ];
    prop_oneof![12 => select(good), 2 => select(edges), 1 => any::<u64>()]
}

fn small<T: Copy + std::fmt::Debug + Arbitrary + 'static>(
    good: Vec<T>,
) -> impl Strategy<Value = T> {
    prop_oneof![12 => select(good), 1 => any::<T>()]
}

fn configs() -> impl Strategy<Value = ChannelConfig> {
    (
        amounts(vec![354, 546, 1000]),
        amounts(vec![1_000_000, 1_000_000_000, u64::MAX]),
        amounts(vec![1000, 10_000]),
        amounts(vec![0, 1, 1000]),
        small(vec![6, 144, 2016]),
        small(vec![1, 30, 483]),
    )
        .prop_map(|(dust, in_flight, reserve, minimum, delay, htlcs)| ChannelConfig {
            dust_limit_satoshis: sat(dust),
            max_htlc_value_in_flight_msat: msat(in_flight),
            channel_reserve_satoshis: sat(reserve),
            htlc_minimum_msat: msat(minimum),
            to_self_delay: delay,
            max_accepted_htlcs: htlcs,
        })
}

fn types() -> impl Strategy<Value = Option<ChannelTypeFeatures>> {
    let defined = select(ChannelType::all().to_vec()).prop_map(|kind| Some(kind.to_features()));
    let any = prop::collection::vec(any::<u8>(), 0..9)
        .prop_map(|flags| Some(ChannelTypeFeatures::from_le_bytes(flags)));
    prop_oneof![12 => defined, 1 => any, 1 => Just(None)]
}

fn scripts() -> impl Strategy<Value = Option<ScriptBuf>> {
    let any = prop::collection::vec(any::<u8>(), 0..50).prop_map(|bytes| Some(bytes.into()));
    prop_oneof![6 => Just(Some(ScriptBuf::new())), 1 => any, 1 => Just(None)]
}

/// Mostly all of them.
fn channel_types() -> impl Strategy<Value = u8> {
    prop_oneof![6 => Just(u8::MAX), 1 => any::<u8>()]
}

fn limits() -> impl Strategy<Value = Limits> {
    (
        select(PROFILES.to_vec()),
        (amounts(vec![0, 10_000]), amounts(vec![SUPPLY])),
        (amounts(vec![10_000]), amounts(vec![0]), amounts(vec![SUPPLY]), amounts(vec![0])),
        (amounts(vec![354, 546]), amounts(vec![1]), amounts(vec![0, 546])),
        (small(vec![20, 100]), small(vec![1, 2]), small(vec![100])),
        (small(vec![2016]), small(vec![144]), any::<bool>(), channel_types()),
    )
        .prop_map(|(profile, funding, accepted, ours, percents, rest)| {
            let mut limits = good_accept().limits;
            limits.profile = profile;
            (limits.min_funding_satoshis, limits.max_funding_satoshis) =
                (sat(funding.0), sat(funding.1));
            limits.max_dust_limit_satoshis = sat(accepted.0);
            limits.min_htlc_value_in_flight_msat = msat(accepted.1);
            limits.max_htlc_minimum_msat = msat(accepted.2);
            limits.min_effective_htlc_capacity = sat(accepted.3);
            limits.dust_limit_satoshis = sat(ours.0);
            limits.htlc_minimum_msat = msat(ours.1);
            limits.channel_reserve_floor = sat(ours.2);
            limits.max_channel_reserve_percent = percents.0;
            limits.channel_reserve_percent = percents.1;
            limits.max_htlc_value_in_flight_percent = percents.2;
            limits.max_to_self_delay = rest.0;
            limits.min_to_self_delay = rest.0 / 20;
            limits.max_minimum_depth = rest.1;
            limits.trust_zeroconf = rest.2;
            limits.channel_types = ChannelTypes::from_bits(rest.3);
            limits
        })
}

#[derive(Clone, Copy, Debug)]
enum Oddity {
    None,
    DualFund,
    NoFeatures,
    OtherChain,
    PublicOnly,
    NoHtlcs,
}

impl Oddity {
    const ALL: [Self; 5] =
        [Self::DualFund, Self::NoFeatures, Self::OtherChain, Self::PublicOnly, Self::NoHtlcs];

    fn happens_to(self, case: &mut Case) {
        match self {
            Self::None => {}
            Self::DualFund => negotiate(&mut case.features, Feature::DualFund),
            Self::NoFeatures => case.features.remote = bits(&[]),
            Self::OtherChain => case.chain_hash = ChainHash::BITCOIN,
            Self::PublicOnly => case.limits.announcement = Announcement::PublicOnly,
            Self::NoHtlcs => {
                case.open.config.max_accepted_htlcs = 0;
                if let Some(accept) = &mut case.accept {
                    accept.config.max_accepted_htlcs = 0;
                }
            }
        }
    }
}

fn cases() -> impl Strategy<Value = Case> {
    let open = (
        amounts(vec![20_000, 100_000, 1_000_000, 20_000_000]),
        amounts(vec![0, 0, 500, 15_000_000, 90_000_000]),
        small(vec![253, 2500, 25_000]),
        any::<bool>(),
        types(),
        configs(),
        scripts(),
    );
    let accept = (small(vec![0, 1, 3, 144]), any::<bool>(), types(), configs(), scripts());
    let feerates = prop_oneof![
        6 => Just(Some((253, 25_000))),
        1 => any::<Option<(u32, u32)>>(),
    ];
    // One time in eight something of the surroundings is wrong too.
    let oddities = prop_oneof![7 => Just(Oddity::None), 1 => select(Oddity::ALL.to_vec())];
    (open, accept, limits(), feerates, any::<bool>(), oddities).prop_map(
        |(open, accept, limits, feerates, large, oddity)| {
            let mut case = good_accept();
            case.open.funding_satoshis = sat(open.0);
            case.open.push_msat = msat(open.1);
            case.open.feerate_per_kw = per_kw(open.2);
            case.open.announce_channel = open.3;
            case.open.channel_type = open.4;
            case.open.config = open.5;
            case.open.script = open.6;
            let channel_type = if accept.1 { case.open.channel_type.clone() } else { accept.2 };
            case.accept = Some(Accept {
                minimum_depth: accept.0,
                channel_type,
                config: accept.3,
                script: accept.4,
            });
            case.limits = limits;
            case.feerates =
                feerates.map(|(min, max)| FeerateRange { min: per_kw(min), max: per_kw(max) });
            if large {
                negotiate(&mut case.features, Feature::LargeChannels);
            }
            oddity.happens_to(&mut case);
            case
        },
    )
}

fn party(seed: u8, config: ChannelConfig) -> Party {
    let secp = Secp256k1::new();
    let key = |n: u8| {
        let secret = SecretKey::from_slice(&[seed + n; 32]).expect("in range");
        PublicKey::from_secret_key(&secp, &secret)
    };
    let keys = ChannelKeys {
        funding_pubkey: key(0),
        revocation_basepoint: key(1),
        payment_basepoint: key(2),
        delayed_payment_basepoint: key(3),
        htlc_basepoint: key(4),
    };
    Party { config, keys, first_per_commitment_point: key(5) }
}

/// What an accepted case leads to: the opener pays, and both commitments stand.
fn can_be_built(case: &Case, stage: Stage) {
    let offer = case.offer();
    let channel_type = offer.defined_channel_type().expect("accepted");
    let cost = opener_cost(offer.feerate_per_kw, channel_type.commitment_format);
    let balances = Balances::after_cost(offer.funding_satoshis, offer.push_msat, cost);
    assert!(balances.is_ok(), "{balances:?}");

    let accepter = match (&case.accept, stage) {
        (_, Stage::SendOpenChannel) => offer.config,
        (Some(accept), _) => accept.config,
        (None, _) => {
            let terms = Terms::default();
            case.limits.config_for_accept(offer.funding_satoshis, &offer.config, &terms)
        }
    };
    let (opener, accepter) = (party(1, offer.config), party(11, accepter));
    let (local, remote) =
        if stage.role() == Role::Funder { (opener, accepter) } else { (accepter, opener) };
    let parameters = ChannelParameters {
        opener: stage.role().opener(),
        funding_outpoint: OutPoint { txid: Txid::from_byte_array([7; 32]), vout: 0 },
        funding_satoshis: offer.funding_satoshis,
        push_msat: offer.push_msat,
        feerate_per_kw: offer.feerate_per_kw,
        channel_type,
        local,
        remote,
    };
    let secp = Secp256k1::new();
    for owner in [Side::Local, Side::Remote] {
        let commitment = parameters.first_commitment(&secp, owner).expect("accepted");
        let outputs = &commitment.transaction.output;
        assert!(commitment.to_local.is_some() || commitment.to_remote.is_some());
        let total: Amount = outputs.iter().map(|output| output.value).sum();
        assert!(total <= offer.funding_satoshis);
    }
}

/// Seeds of failures belong into a test of their own, not into a file beside this one.
fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

fn is_presentable(refusal: &Refusal) {
    let text = refusal.to_string();
    let printable = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
    assert!(!text.is_empty() && text.bytes().all(printable), "{text:?}");
    assert!(text.len() <= 200, "{text}");
    let kebab = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    assert!(refusal.code().bytes().all(kebab), "{}", refusal.code());
    assert!(!refusal.cites().is_empty());
}

proptest! {
    #![proptest_config(config(4000))]

    // incident: CLN #9225
    // req: B2-OPEN-R-14, B2-OPEN-R-21
    #[test]
    fn no_number_panics_and_accepted_channels_can_be_paid_and_built(case in cases()) {
        for stage in Stage::ALL {
            let mut case = case.clone();
            if matches!(stage, Stage::SendOpenChannel | Stage::ReceiveOpenChannel) {
                case.accept = None;
            }
            let proposal = case.proposal();
            let all = explain(stage, &proposal);
            let first = all.first().map(|(_, refusal)| refusal.clone());
            prop_assert_eq!(judge(stage, &proposal).err(), first);
            all.iter().for_each(|(_, refusal)| is_presentable(refusal));
            if all.is_empty() {
                can_be_built(&case, stage);
            }
        }
    }
}

/// What a fundee with the same limits may still dislike: knobs, and what its own reserve leaves.
const MATTERS_OF_POLICY: [&str; 13] = [
    "channel-type-not-accepted",
    "to-self-delay-too-small",
    "announcement-unwanted",
    "funding-satoshis-too-small",
    "htlc-minimum-msat-too-large",
    "htlc-minimum-msat-above-capacity",
    "max-htlc-value-in-flight-msat-too-small",
    "channel-reserve-satoshis-too-large",
    "max-accepted-htlcs-too-small",
    "dust-limit-satoshis-too-large",
    "to-self-delay-too-large",
    "zeroconf-untrusted",
    "reserves-exceed-funding",
];

proptest! {
    #![proptest_config(config(2000))]

    // req: B2-OPEN-S-05, B2-OPEN-S-08, B2-OPEN-S-14, B2-OPEN-S-17
    #[test]
    fn what_we_offer_no_fundee_has_to_refuse(case in cases()) {
        let mut case = case.with(|p| {
            p.accept = None;
            p.limits.profile = Profile::Strict;
        });
        if case.judge(Stage::SendOpenChannel).is_ok() {
            std::mem::swap(&mut case.features.local, &mut case.features.remote);
            // A fundee's own dust limit would be its own mistake.
            case.limits.dust_limit_satoshis = sat(354);
            for code in case.codes(Stage::ReceiveOpenChannel) {
                prop_assert!(MATTERS_OF_POLICY.contains(&code), "{}", code);
            }
        }
    }
}

#[test]
fn the_generator_accepts_at_every_stage_and_reaches_every_reason() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let (mut accepted, mut codes) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..4000 {
        let mut case = cases().new_tree(&mut runner).expect("no filters").current();
        for stage in Stage::ALL {
            if case.judge(stage).is_ok() {
                accepted.insert(format!("{:?} {stage:?}", case.limits.profile));
            }
            codes.extend(case.codes(stage));
        }
        case.accept = None;
        codes.extend(case.codes(Stage::SendAcceptChannel));
    }
    assert_eq!(accepted.len(), 8, "{accepted:?}");
    assert_eq!(codes.len(), REASONS, "{codes:?}");
}

#[test]
fn every_rule_has_a_name_and_cites_something() {
    for profile in PROFILES {
        for stage in Stage::ALL {
            let names: Vec<_> = rules(profile, stage).iter().map(|rule| rule.name).collect();
            let unique: BTreeSet<_> = names.iter().collect();
            assert_eq!(names.len(), unique.len(), "{profile:?} {stage:?}: {names:?}");
            assert!(rules(profile, stage).iter().all(|rule| !rule.cites.is_empty()));
        }
    }
    assert_eq!(Profile::default(), Profile::Strict);
}

// req: B2-OPEN-R-17, B2-OPEN-R-21
#[test]
fn the_largest_feerate_does_not_overflow() {
    for feerate in [0, u32::MAX] {
        let case = good_accept().with(|p| {
            p.open.feerate_per_kw = per_kw(feerate);
            p.feerates = Some(FeerateRange { min: per_kw(0), max: per_kw(u32::MAX) });
        });
        for stage in Stage::ALL {
            let verdict = case.judge(stage).map_err(|refusal| refusal.code());
            assert_eq!(verdict, if feerate == 0 { Ok(()) } else { Err("fee-unaffordable") });
        }
    }
}
