//! Every commitment held against LDK's `CommitmentTransaction`, and its signed form against
//! Bitcoin's consensus code.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod channel;

use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash;
use bitcoin::{Amount, OutPoint, Transaction, Txid};
use channel::{Channel, SIDES, Secrets, mirrored, msat, sat};
use lightning::ln::chan_utils::{
    ChannelPublicKeys, ChannelTransactionParameters, CommitmentTransaction,
    CounterpartyChannelTransactionParameters, make_funding_redeemscript,
};
use opening_core::commitment::MAX_COMMITMENT_NUMBER;
use opening_core::{
    ChannelKeys, ChannelParameters, ChannelType, CommitmentError, CommitmentFormat, FeeratePerKw,
    Party, Side,
};
use proptest::prelude::*;
use proptest::sample::select;

/// Where the balances stand against fee, anchors and dust.
#[derive(Clone, Debug)]
enum Push {
    Nothing,
    /// This part of 2^32 of the funding.
    Part(u32),
    /// All but so many millisatoshis.
    AllBut(u64),
    /// The opener keeps what it has to pay, its own dust limit or the other's, and so much more.
    Edge(Side, i64),
    /// As many millisatoshis as the dust limit of this side, and so many more.
    Dust(Side, i64),
}

#[derive(Clone, Debug)]
struct Case {
    local_seed: [u8; 32],
    remote_seed: [u8; 32],
    channel_type: ChannelType,
    opener: Side,
    outpoint: ([u8; 32], u16),
    funding_satoshis: u64,
    push: Push,
    feerate_per_kw: u32,
    dust_limit_satoshis: [u64; 2],
    to_self_delay: [u16; 2],
    number: u64,
}

fn sides() -> impl Strategy<Value = Side> {
    select(&SIDES[..])
}

fn pushes() -> impl Strategy<Value = Push> {
    prop_oneof![
        Just(Push::Nothing),
        any::<u32>().prop_map(Push::Part),
        (0..3000_u64).prop_map(Push::AllBut),
        (sides(), -2000..2000_i64).prop_map(|(side, more)| Push::Edge(side, more)),
        (sides(), -2000..2000_i64).prop_map(|(side, more)| Push::Dust(side, more)),
    ]
}

fn delays() -> impl Strategy<Value = u16> {
    let shapes = [1, 16, 17, 127, 128, 144, 255, 256, 2016, 32_767, 32_768, 65_535];
    prop_oneof![select(shapes.to_vec()), any::<u16>()]
}

// From one satoshi up: the rules ask for 354, and with 0 LDK drops what BOLT 3 keeps, outputs of
// nothing.
fn dust_limits() -> impl Strategy<Value = u64> {
    prop_oneof![select(vec![1, 329, 330, 331, 354, 546, 1000]), 1..=20_000_u64]
}

fn fundings() -> impl Strategy<Value = u64> {
    prop_oneof![
        1..=10_000_u64,
        10_000..=100_000_u64,
        100_000..=16_777_215_u64,
        16_777_216..=Amount::MAX_MONEY.to_sat()
    ]
}

fn feerates() -> impl Strategy<Value = u32> {
    prop_oneof![select(vec![0, 1, 253, 2500]), 253..=25_000_u32, any::<u32>()]
}

prop_compose! {
    fn cases()(
        (local_seed, remote_seed, outpoint) in any::<([u8; 32], [u8; 32], ([u8; 32], u16))>(),
        channel_type in select(ChannelType::all().to_vec()),
        opener in sides(),
        (funding_satoshis, push, feerate_per_kw) in (fundings(), pushes(), feerates()),
        dust_limit_satoshis in [dust_limits(), dust_limits()],
        to_self_delay in [delays(), delays()],
        number in prop_oneof![Just(0), 0..=MAX_COMMITMENT_NUMBER],
    ) -> Case {
        Case {
            local_seed, remote_seed, channel_type, opener, outpoint, funding_satoshis, push,
            feerate_per_kw, dust_limit_satoshis, to_self_delay, number,
        }
    }
}

/// Fee and anchors, by arithmetic of its own.
fn cost(parameters: &ChannelParameters) -> i128 {
    let (weight, anchors) = match parameters.channel_type.commitment_format {
        CommitmentFormat::StaticRemotekey => (724, 0),
        CommitmentFormat::Anchors => (1124, 660),
    };
    i128::from(parameters.feerate_per_kw.to_sat_per_kw()) * weight / 1000 + anchors
}

fn dust_limit(parameters: &ChannelParameters, side: Side) -> i128 {
    parameters.party(side).config.dust_limit_satoshis.to_sat().into()
}

impl Case {
    fn channel(&self) -> Channel {
        let (local, remote) =
            (Secrets::from_seed(self.local_seed), Secrets::from_seed(self.remote_seed));
        Channel::between(local, remote, self.channel_type).with(|p| {
            let (txid, vout) = self.outpoint;
            p.opener = self.opener;
            p.funding_outpoint = OutPoint { txid: Txid::from_byte_array(txid), vout: vout.into() };
            p.funding_satoshis = sat(self.funding_satoshis);
            p.feerate_per_kw = FeeratePerKw::new(self.feerate_per_kw);
            for (index, party) in [&mut p.local, &mut p.remote].into_iter().enumerate() {
                party.config.dust_limit_satoshis = sat(self.dust_limit_satoshis[index]);
                party.config.to_self_delay = self.to_self_delay[index];
            }
            p.push_msat = self.push_msat(p);
        })
    }

    fn push_msat(&self, parameters: &ChannelParameters) -> opening_core::MilliSatoshi {
        let all = i128::from(self.funding_satoshis) * 1000;
        let push = match self.push {
            Push::Nothing => 0,
            Push::Part(part) => (all * i128::from(part)) >> 32,
            Push::AllBut(kept) => all - i128::from(kept),
            Push::Edge(side, more) => {
                all - (cost(parameters) + dust_limit(parameters, side)) * 1000 - i128::from(more)
            }
            Push::Dust(side, more) => dust_limit(parameters, side) * 1000 + i128::from(more),
        };
        msat(push.clamp(0, all).try_into().unwrap())
    }
}

/// `to_local` and `to_remote` of the owner's transaction, 0 where trimmed; or why there is none.
fn expected_values(
    parameters: &ChannelParameters,
    owner: Side,
) -> Result<(u64, u64), CommitmentError> {
    let all = i128::from(parameters.funding_satoshis.to_sat()) * 1000;
    let push = i128::from(parameters.push_msat.to_msat());
    let available = (all - push) / 1000;
    let needed = cost(parameters);
    let amount = |value: i128| sat(value.try_into().unwrap());
    if available < needed {
        let (available, needed) = (amount(available), amount(needed));
        return Err(CommitmentError::Unaffordable { available, needed });
    }
    let balance = |side| if side == parameters.opener { available - needed } else { push / 1000 };
    let dust_limit = dust_limit(parameters, owner);
    let trimmed = |value: i128| if value < dust_limit { 0 } else { value.try_into().unwrap() };
    match (trimmed(balance(owner)), trimmed(balance(owner.other()))) {
        (0, 0) => Err(CommitmentError::NoOutputs { dust_limit_satoshis: amount(dust_limit) }),
        values => Ok(values),
    }
}

fn ldk_keys(keys: &ChannelKeys) -> ChannelPublicKeys {
    ChannelPublicKeys {
        funding_pubkey: keys.funding_pubkey,
        revocation_basepoint: keys.revocation_basepoint.into(),
        payment_point: keys.payment_basepoint,
        delayed_payment_basepoint: keys.delayed_payment_basepoint.into(),
        htlc_basepoint: keys.htlc_basepoint.into(),
    }
}

/// LDK's parameters, with `Side::Local` for its holder.
fn ldk_parameters(parameters: &ChannelParameters) -> ChannelTransactionParameters {
    let ChannelParameters { local, remote, funding_outpoint, .. } = parameters;
    let delay = |party: &Party| party.config.to_self_delay;
    ChannelTransactionParameters {
        holder_pubkeys: ldk_keys(&local.keys),
        holder_selected_contest_delay: delay(local),
        is_outbound_from_holder: parameters.opener == Side::Local,
        counterparty_parameters: Some(CounterpartyChannelTransactionParameters {
            pubkeys: ldk_keys(&remote.keys),
            selected_contest_delay: delay(remote),
        }),
        funding_outpoint: Some(lightning::chain::transaction::OutPoint {
            txid: funding_outpoint.txid,
            index: funding_outpoint.vout.try_into().unwrap(),
        }),
        splice_parent_funding_txid: None,
        channel_type_features: parameters.channel_type.to_features(),
        channel_value_satoshis: parameters.funding_satoshis.to_sat(),
    }
}

/// LDK's transaction and what it asks to be signed.
fn ldk_commitment(
    channel: &Channel,
    owner: Side,
    number: u64,
    (to_local, to_remote): (u64, u64),
) -> (Transaction, bitcoin::secp256k1::Message) {
    let parameters = ldk_parameters(&channel.parameters);
    let directed = match owner {
        Side::Local => parameters.as_holder_broadcastable(),
        Side::Remote => parameters.as_counterparty_broadcastable(),
    };
    let commitment = CommitmentTransaction::new(
        MAX_COMMITMENT_NUMBER - number, // LDK counts down.
        &channel.parameters.party(owner).first_per_commitment_point,
        to_local,
        to_remote,
        channel.parameters.feerate_per_kw.to_sat_per_kw(),
        Vec::new(),
        &directed,
        &channel.secp,
    );
    let built = commitment.trust().built_transaction().clone();
    let [local, remote] = SIDES.map(|side| channel.parameters.party(side).keys.funding_pubkey);
    let script = make_funding_redeemscript(&local, &remote);
    let sighash = built.get_sighash_all(&script, channel.parameters.funding_satoshis.to_sat());
    (built.transaction, sighash)
}

fn equals_ldk(channel: &Channel, owner: Side, number: u64) -> Result<bool, TestCaseError> {
    let Channel { secp, parameters, .. } = channel;
    let point = &parameters.party(owner).first_per_commitment_point;
    let ours = parameters.commitment(secp, owner, number, point);
    let theirs = mirrored(parameters).commitment(secp, owner.other(), number, point);
    prop_assert_eq!(
        ours.as_ref().map(|ours| &ours.transaction),
        theirs.as_ref().map(|theirs| &theirs.transaction)
    );
    let values = match expected_values(parameters, owner) {
        Ok(values) => values,
        Err(refusal) => {
            prop_assert_eq!(ours, Err(refusal));
            return Ok(false);
        }
    };
    let ours = ours.expect("the values are affordable");
    let (transaction, sighash) = ldk_commitment(channel, owner, number, values);
    prop_assert_eq!(serialize(&ours.transaction), serialize(&transaction));
    prop_assert_eq!(ours.sighash(), sighash);

    let outputs = &ours.transaction.output;
    let at = |index: Option<usize>| index.map_or(0, |index| outputs[index].value.to_sat());
    prop_assert_eq!((at(ours.to_local), at(ours.to_remote)), values);
    prop_assert!(outputs.is_sorted_by_key(|output| (output.value, &output.script_pubkey)));
    prop_assert_eq!(channel.accepted_by_consensus(&ours), Ok(()));
    Ok(true)
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(700))]

    // req: B3-CTX-B-01, B3-CTX-B-03, B3-CTX-B-04, B3-CTX-B-06, B3-CTX-B-07, B3-CTX-B-08, B3-ORD-B-01
    // req: B3-ORD-B-02, B3-OUT-B-02, B3-OUT-B-03, B3-OUT-B-06, B3-OUT-B-07, B3-OUT-B-08, B3-KEY-B-02
    // req: B3-KEY-B-05, B3-KEY-B-07, B3-FUND-B-02, B3-SEG-B-01, B3-SEG-B-02, B3-SIG-B-01
    // req: B2-FS-B-02, B2-OPEN-B-04, B2-OPEN-B-05
    #[test]
    fn every_commitment_is_ldks_and_stands_before_consensus(case in cases()) {
        let channel = case.channel();
        for owner in SIDES {
            equals_ldk(&channel, owner, case.number)?;
        }
    }
}

#[test]
fn the_generator_reaches_every_form() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    use std::collections::BTreeMap;

    let mut runner = TestRunner::deterministic();
    let mut forms = BTreeMap::<_, u32>::new();
    for _ in 0..700 {
        let channel = cases().new_tree(&mut runner).expect("no filters").current().channel();
        for owner in SIDES {
            let form = match expected_values(&channel.parameters, owner) {
                Ok((0, _)) => "to_remote",
                Ok((_, 0)) => "to_local",
                Ok(_) => "both",
                Err(CommitmentError::NoOutputs { .. }) => "neither",
                Err(_) => "unaffordable",
            };
            let by_opener = owner == channel.parameters.opener;
            *forms
                .entry((channel.parameters.channel_type.has_anchors(), by_opener, form))
                .or_default() += 1;
        }
    }
    assert_eq!(forms.len(), 20, "{forms:#?}");
    assert!(forms.values().all(|&count| count >= 5), "{forms:#?}");
}

/// Numbers at which arithmetic breaks, and any other.
fn extremes() -> impl Strategy<Value = u64> {
    let max_money = Amount::MAX_MONEY.to_sat();
    let edges = vec![
        0,
        1,
        353,
        354,
        999,
        1000,
        max_money,
        max_money + 1,
        max_money * 1000,
        max_money * 1000 + 1,
        u64::MAX / 1000,
        u64::MAX / 1000 + 1,
        i64::MAX as u64,
        u64::MAX - 1,
        u64::MAX,
    ];
    prop_oneof![select(edges), any::<u64>(), (0..64_u32, any::<u64>()).prop_map(|(by, n)| n >> by)]
}

proptest! {
    #![proptest_config(config(2000))]

    // req: B2-OPEN-R-14, B3-FEE-B-01
    #[test]
    fn no_number_panics_and_none_makes_money(
        (funding_satoshis, push_msat) in (extremes(), extremes()),
        feerate_per_kw in prop_oneof![select(vec![0, u32::MAX]), any::<u32>()],
        dust_limit_satoshis in [extremes(), extremes()],
        number in extremes(),
        channel_type in select(ChannelType::all().to_vec()),
        opener in sides(),
    ) {
        let Channel { secp, parameters, .. } = Channel::of(channel_type).with(|p| {
            p.opener = opener;
            p.funding_satoshis = sat(funding_satoshis);
            p.push_msat = msat(push_msat);
            p.feerate_per_kw = FeeratePerKw::new(feerate_per_kw);
            p.local.config.dust_limit_satoshis = sat(dust_limit_satoshis[0]);
            p.remote.config.dust_limit_satoshis = sat(dust_limit_satoshis[1]);
        });
        for owner in SIDES {
            let point = &parameters.party(owner).first_per_commitment_point;
            match parameters.commitment(&secp, owner, number, point) {
                Ok(commitment) => {
                    prop_assert!(funding_satoshis <= Amount::MAX_MONEY.to_sat());
                    let outputs = &commitment.transaction.output;
                    prop_assert!(commitment.to_local.is_some() || commitment.to_remote.is_some());
                    let total: u128 =
                        outputs.iter().map(|output| u128::from(output.value.to_sat())).sum();
                    prop_assert!(total <= funding_satoshis.into());
                    commitment.sighash();
                    commitment.penalty_base();
                }
                Err(CommitmentError::NumberTooLarge(_)) => {
                    prop_assert!(number > MAX_COMMITMENT_NUMBER);
                }
                Err(refusal) => prop_assert!(!refusal.to_string().is_empty()),
            }
        }
    }
}
