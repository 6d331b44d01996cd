//! Each rule of a validating signer, broken by as little as possible and just kept.

use std::collections::BTreeSet;

use bitcoin::constants::ChainHash;
use bitcoin::{Amount, Network, ScriptBuf};
use opening_core::{ChannelType, FeeratePerKw, MilliSatoshi, Side};
use opening_signer::{
    Bounds, ChannelSetup, Enforcement, Hsm, HsmResult, LocalHsm, Rule, SigningPolicy,
};

use crate::pair::{End, Pair, node, policy, reason};

/// A policy with a bound of each kind.
fn bounded() -> SigningPolicy {
    let bounds = Bounds {
        max_funding_satoshis: Amount::from_sat(1_000_000),
        channel_types: [ChannelType::ANCHORS].into_iter().collect(),
        to_self_delay: 6..=144,
        ..policy().bounds
    };
    SigningPolicy { bounds, shutdown_scripts: Some(vec![script(1)]), ..policy() }
}

fn script(byte: u8) -> ScriptBuf {
    ScriptBuf::from_bytes([&[0x00, 0x14][..], &[byte; 20]].concat())
}

type Change = fn(&mut ChannelSetup);

/// What a setup may not be, and what it may just be.
const AT_SETUP: [(Rule, Change, Change); 14] = [
    (
        Rule::WrongChain,
        |setup| setup.chain_hash = ChainHash::TESTNET3,
        |setup| setup.chain_hash = ChainHash::REGTEST,
    ),
    (
        Rule::FundingTooLarge,
        |setup| setup.parameters.funding_satoshis = Amount::from_sat(1_000_001),
        |setup| setup.parameters.funding_satoshis = Amount::from_sat(1_000_000),
    ),
    (
        Rule::ChannelTypeNotSigned,
        |setup| setup.parameters.channel_type = ChannelType::STATIC_REMOTEKEY,
        |setup| setup.parameters.channel_type = ChannelType::ANCHORS,
    ),
    (
        Rule::FeerateOutOfBounds,
        |setup| setup.parameters.feerate_per_kw = FeeratePerKw::new(252),
        |setup| setup.parameters.feerate_per_kw = FeeratePerKw::new(253),
    ),
    (
        Rule::FeerateOutOfBounds,
        |setup| setup.parameters.feerate_per_kw = FeeratePerKw::new(25_001),
        |setup| setup.parameters.feerate_per_kw = FeeratePerKw::new(25_000),
    ),
    (
        Rule::DelayOutOfBounds,
        |setup| setup.parameters.local.config.to_self_delay = 5,
        |setup| setup.parameters.local.config.to_self_delay = 6,
    ),
    (
        Rule::DelayOutOfBounds,
        |setup| setup.parameters.local.config.to_self_delay = 145,
        |setup| setup.parameters.local.config.to_self_delay = 144,
    ),
    (
        Rule::DelayOutOfBounds,
        |setup| setup.parameters.remote.config.to_self_delay = 5,
        |setup| setup.parameters.remote.config.to_self_delay = 6,
    ),
    (
        Rule::DelayOutOfBounds,
        |setup| setup.parameters.remote.config.to_self_delay = 145,
        |setup| setup.parameters.remote.config.to_self_delay = 144,
    ),
    (
        Rule::DustLimitTooSmall,
        |setup| setup.parameters.local.config.dust_limit_satoshis = Amount::from_sat(353),
        |setup| setup.parameters.local.config.dust_limit_satoshis = Amount::from_sat(354),
    ),
    (
        Rule::DustLimitTooSmall,
        |setup| setup.parameters.remote.config.dust_limit_satoshis = Amount::from_sat(353),
        |setup| setup.parameters.remote.config.dust_limit_satoshis = Amount::from_sat(354),
    ),
    (
        Rule::CommitmentUnbuildable,
        |setup| setup.parameters.push_msat = MilliSatoshi::from_msat(1_000_000_001),
        // Fee and anchors have to be paid too, to the millisatoshi.
        |setup| setup.parameters.push_msat = MilliSatoshi::from_msat(1_000_000_000 - 2_065_000),
    ),
    (
        Rule::CommitmentUnbuildable,
        |setup| setup.parameters.push_msat = MilliSatoshi::from_msat(1_000_000_001 - 2_065_000),
        |setup| setup.parameters.push_msat = MilliSatoshi::ZERO,
    ),
    (
        Rule::ShutdownScriptNotOurs,
        |setup| setup.local_shutdown_script = Some(script(2)),
        |setup| setup.local_shutdown_script = Some(script(1)),
    ),
];

/// The rules that are broken after a setup; `rules.rs` and `transaction.rs` break each of them.
const LATER: [Rule; 7] = [
    Rule::SetupMissing,
    Rule::SetupDiffers,
    Rule::CommitmentNumber,
    Rule::SecondCommitment,
    Rule::NotValidated,
    Rule::FundeeValidatesFirst,
    Rule::TransactionDiffers,
];

/// A channel of which nothing was told yet, with a signer of this policy.
async fn named(policy: SigningPolicy) -> End {
    let Pair { mut funder, .. } = Pair::new(Enforcement::Validating).await;
    funder.hsm = LocalHsm::validating(&node(7), policy, funder.store.clone());
    funder.channel = funder.hsm.channel(funder.reference).await.unwrap();
    funder
}

async fn set_up(policy: SigningPolicy, change: Change) -> (End, HsmResult<()>) {
    let mut end = named(policy).await;
    change(&mut end.setup);
    let answer = end.channel.setup(&end.setup).await;
    (end, answer)
}

#[tokio::test]
async fn each_rule_refuses_what_breaks_it_at_the_setup_and_takes_what_just_does_not() {
    for (index, (rule, breaks, keeps)) in AT_SETUP.into_iter().enumerate() {
        let (mut end, refused) = set_up(bounded(), breaks).await;
        assert_eq!(reason(refused), rule.tag(), "{index}");
        // Nothing is left of it: the same reference takes what is right.
        keeps(&mut end.setup);
        let (_, taken) = set_up(bounded(), keeps).await;
        assert_eq!(taken, Ok(()), "{index}: {rule:?}");
    }
}

#[tokio::test]
async fn a_refused_setup_leaves_the_reference_free() {
    let end = named(bounded()).await;
    let mut wrong = end.setup.clone();
    wrong.parameters.funding_satoshis = Amount::from_sat(1_000_001);
    assert_eq!(reason(end.channel.setup(&wrong).await), "funding-too-large");
    end.channel.setup(&end.setup).await.unwrap();
    end.sign(&end.commitment(Side::Remote)).await.unwrap();
    assert_eq!(end.store.writes(), 1);
}

#[tokio::test]
async fn a_channel_of_any_kind_may_be_named_by_the_node_that_asks_a_blind_signer() {
    for (_, breaks, _) in AT_SETUP {
        let Pair { mut funder, .. } = Pair::new(Enforcement::Blind).await;
        breaks(&mut funder.setup);
        assert_eq!(funder.channel.setup(&funder.setup).await, Ok(()));
    }
}

#[test]
fn every_rule_is_broken_by_a_test() {
    let broken: BTreeSet<Rule> = AT_SETUP.into_iter().map(|(rule, ..)| rule).chain(LATER).collect();
    assert_eq!(broken, Rule::ALL.into_iter().collect());
    let tags: BTreeSet<_> = Rule::ALL.into_iter().map(Rule::tag).collect();
    assert_eq!(tags.len(), Rule::ALL.len());
    let tests = [include_str!("rules.rs"), include_str!("transaction.rs")].concat();
    for rule in LATER {
        assert!(tests.contains(&format!("\"{}\"", rule.tag())), "{rule:?}");
    }
}

#[tokio::test]
async fn the_defaults_are_those_of_the_network() {
    for (network, shortest) in [(Network::Bitcoin, 144), (Network::Regtest, 4)] {
        let policy = SigningPolicy::for_network(network);
        assert_eq!(policy.bounds.to_self_delay, shortest..=2016);
        assert_eq!(policy.bounds.max_funding_satoshis, Amount::from_int_btc(10));
        assert_eq!(policy.shutdown_scripts, None);
        let hsm = LocalHsm::validating(
            &node(7),
            policy.clone(),
            std::sync::Arc::<crate::store::MemoryStore>::default(),
        );
        assert_eq!(hsm.info().bounds, policy.bounds);
    }
    assert_eq!(LocalHsm::blind(&node(7)).info().bounds, Bounds::none());
}

#[tokio::test]
async fn any_script_may_be_closed_to_where_no_list_is_given() {
    let (_, taken) = set_up(policy(), |setup| setup.local_shutdown_script = Some(script(2))).await;
    assert_eq!(taken, Ok(()));
    let (_, none) = set_up(bounded(), |setup| setup.local_shutdown_script = None).await;
    assert_eq!(none, Ok(()));
    // The peer's is the peer's business.
    let theirs: Change = |setup| setup.remote_shutdown_script = Some(script(2));
    assert_eq!(set_up(bounded(), theirs).await.1, Ok(()));
}
