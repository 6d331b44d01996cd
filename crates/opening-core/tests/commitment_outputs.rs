//! Who gets what in the first commitments: balances, fee, dust, anchors, order.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod channel;

use bitcoin::hashes::Hash;
use bitcoin::{Amount, OutPoint, ScriptBuf, Txid};
use channel::{Channel, SIDES, Secrets, msat, sat};
use opening_core::commitment::{ANCHOR_VALUE, opener_cost};
use opening_core::keys::{derive_public_key, derive_revocation_public_key};
use opening_core::{
    ChannelType, Commitment, CommitmentError, CommitmentFormat, FeeratePerKw, PenaltyBase, Side,
};

const TYPES: [ChannelType; 2] = [ChannelType::STATIC_REMOTEKEY, ChannelType::ANCHORS];

/// Satoshis that the opener pays in [`Channel::of`]: 724 or 1124 at 2500, and the anchors.
fn cost(channel_type: ChannelType) -> u64 {
    if channel_type.has_anchors() { 2810 + 660 } else { 1810 }
}

fn value(commitment: &Commitment, index: Option<usize>) -> Option<u64> {
    index.map(|index| commitment.transaction.output[index].value.to_sat())
}

/// Satoshis of `to_local` and `to_remote`; `None` where there is no output.
fn values(commitment: &Commitment) -> (Option<u64>, Option<u64>) {
    (value(commitment, commitment.to_local), value(commitment, commitment.to_remote))
}

/// What the miner gets.
fn fee(commitment: &Commitment) -> u64 {
    let outputs = &commitment.transaction.output;
    (commitment.funding_satoshis - outputs.iter().map(|output| output.value).sum()).to_sat()
}

/// Satoshis that go to the fee beside a trimmed balance: of the anchor that is not there either.
fn anchor(channel_type: ChannelType) -> u64 {
    if channel_type.has_anchors() { 330 } else { 0 }
}

/// The channel with the push that leaves the opener, on both transactions, so much.
fn opener_keeps(channel_type: ChannelType, opener_satoshis: u64) -> Channel {
    let push = 1_000_000 - cost(channel_type) - opener_satoshis;
    Channel::of(channel_type).with(|p| p.push_msat = msat(push * 1000))
}

fn pushed(channel_type: ChannelType, push_msat: u64) -> Channel {
    Channel::of(channel_type).with(|p| p.push_msat = msat(push_msat))
}

// req: B2-OPEN-B-02, B3-FEE-B-03, B3-CON-B-02
#[test]
fn push_is_the_fundees_and_the_cost_the_funders_in_both_transactions() {
    for channel_type in TYPES {
        for opener in SIDES {
            let channel = pushed(channel_type, 300_000_000).with(|p| p.opener = opener);
            let (funder, fundee) = (Some(700_000 - cost(channel_type)), Some(300_000));
            let by_opener = channel.first_commitment(opener);
            assert_eq!(values(&by_opener), (funder, fundee), "{channel_type}, {opener:?} opens");
            let by_accepter = channel.first_commitment(opener.other());
            assert_eq!(values(&by_accepter), (fundee, funder), "{channel_type}, {opener:?} opens");
        }
    }
}

// req: B3-OUT-B-01
#[test]
fn each_balance_is_rounded_down_to_a_satoshi() {
    for channel_type in TYPES {
        let cost = cost(channel_type);
        // Half a satoshi goes to the fee.
        let commitment = pushed(channel_type, 1_000_500).first_commitment(Side::Local);
        assert_eq!(values(&commitment), (Some(998_999 - cost), Some(1000)));
        assert_eq!(fee(&commitment) - 1, if channel_type.has_anchors() { 2810 } else { 1810 });

        let channel = pushed(channel_type, 1999);
        let commitment = channel.first_commitment(Side::Local);
        assert_eq!(values(&commitment), (Some(999_998 - cost), None), "1 sat is dust");
        let channel = channel.with(|p| p.local.config.dust_limit_satoshis = Amount::ONE_SAT);
        let commitment = channel.first_commitment(Side::Local);
        assert_eq!(values(&commitment), (Some(999_998 - cost), Some(1)));
    }
}

// req: B2-OPEN-B-05, B3-OUT-B-02, B3-TRIM-B-04, B3-TRIM-B-05, B3-CON-B-04
#[test]
fn to_remote_is_there_from_the_owners_dust_limit_on() {
    for channel_type in TYPES {
        let whole = fee(&pushed(channel_type, 2_000_000).first_commitment(Side::Local));
        let channel = |push: u64| {
            pushed(channel_type, push * 1000).with(|p| {
                p.local.config.dust_limit_satoshis = sat(1000);
                p.remote.config.dust_limit_satoshis = sat(600);
            })
        };
        let opener = |push: u64| Some(1_000_000 - push - cost(channel_type));
        let trimmed = channel(999).first_commitment(Side::Local);
        assert_eq!(values(&trimmed), (opener(999), None));
        assert_eq!(
            fee(&trimmed),
            whole + 999 + anchor(channel_type),
            "what is trimmed goes to the fee"
        );
        let present = channel(1000).first_commitment(Side::Local);
        assert_eq!(values(&present), (opener(1000), Some(1000)));
        assert_eq!(fee(&present), whole);
    }
}

// req: B2-OPEN-B-05, B3-OUT-B-02, B3-TRIM-B-02, B3-TRIM-B-03, B3-CON-B-03
#[test]
fn to_local_is_there_from_the_owners_dust_limit_on() {
    for channel_type in TYPES {
        let channel = |push: u64| {
            pushed(channel_type, push * 1000).with(|p| {
                p.local.config.dust_limit_satoshis = sat(1000);
                p.remote.config.dust_limit_satoshis = sat(600);
            })
        };
        // The fundee's own transaction, with the fundee's limit.
        let opener = |push: u64| Some(1_000_000 - push - cost(channel_type));
        let trimmed = channel(599).first_commitment(Side::Remote);
        assert_eq!(values(&trimmed), (None, opener(599)));
        let present = channel(600).first_commitment(Side::Remote);
        assert_eq!(values(&present), (Some(600), opener(600)));
        assert_eq!(fee(&trimmed) - fee(&present), 599 + anchor(channel_type));
    }
}

// req: B3-TRIM-B-01, B3-OUT-B-02, B3-FEE-B-04, B3-CON-B-01
#[test]
fn the_funder_is_trimmed_after_it_has_paid() {
    for channel_type in TYPES {
        for owner in SIDES {
            let trimmed = opener_keeps(channel_type, 353).first_commitment(owner);
            let present = opener_keeps(channel_type, 354).first_commitment(owner);
            let opener = |commitment| {
                let (to_local, to_remote) = values(commitment);
                if owner == Side::Local { to_local } else { to_remote }
            };
            assert_eq!(opener(&trimmed), None, "{channel_type}, owner {owner:?}");
            assert_eq!(opener(&present), Some(354), "{channel_type}, owner {owner:?}");
            assert_eq!(fee(&trimmed) - fee(&present), 353 + anchor(channel_type));
        }
    }
}

// req: B3-FEE-B-01, B3-FEE-B-02, B3-FEE-B-03
#[test]
fn a_missing_output_lowers_neither_fee_nor_cost() {
    let cases = [
        (ChannelType::STATIC_REMOTEKEY, 253, 183),
        (ChannelType::STATIC_REMOTEKEY, 15_000, 10_860),
        (ChannelType::ANCHORS, 253, 284 + 660),
        (ChannelType::ANCHORS, 15_000, 16_860 + 660),
    ];
    for (channel_type, rate, cost) in cases {
        let feerate_per_kw = FeeratePerKw::new(rate);
        assert_eq!(opener_cost(feerate_per_kw, channel_type.commitment_format), sat(cost));
        for (push_sat, missing) in [(0, 1), (500_000, 0)] {
            let channel = pushed(channel_type, push_sat * 1000);
            let channel = channel.with(|p| p.feerate_per_kw = feerate_per_kw);
            let commitment = channel.first_commitment(Side::Local);
            let (to_local, _) = values(&commitment);
            assert_eq!(to_local, Some(1_000_000 - push_sat - cost), "{channel_type} at {rate}");
            // the anchor that is not there is paid for, and goes to the miner.
            let spare = missing * anchor(channel_type);
            assert_eq!(fee(&commitment), cost - 2 * anchor(channel_type) + spare);
        }
    }
}

fn anchors(commitment: &Commitment) -> Vec<&ScriptBuf> {
    let main = [commitment.to_local, commitment.to_remote];
    let outputs = commitment.transaction.output.iter().enumerate();
    let rest = outputs.filter(|(index, _)| !main.contains(&Some(*index)));
    rest.map(|(_, output)| {
        assert_eq!(output.value, ANCHOR_VALUE);
        &output.script_pubkey
    })
    .collect()
}

// req: B3-OUT-B-06, B3-OUT-B-07, B3-OUT-B-08, B3-CON-B-05, B3-CON-B-06, B3-ORD-B-02
#[test]
fn each_balance_that_is_there_brings_its_sides_anchor() {
    let both = pushed(ChannelType::ANCHORS, 500_000_000);
    let only_opener = pushed(ChannelType::ANCHORS, 0);
    let only_accepter = opener_keeps(ChannelType::ANCHORS, 0);
    // An anchor is never dust, whatever the limit is.
    let coarse = both.clone().with(|p| {
        p.local.config.dust_limit_satoshis = sat(10_000);
        p.remote.config.dust_limit_satoshis = sat(10_000);
    });
    for (channel, of) in [
        (both, &SIDES[..]),
        (coarse, &SIDES[..]),
        (only_opener, &[Side::Local]),
        (only_accepter, &[Side::Remote]),
    ] {
        let script = |side: &Side| {
            let key = channel.parameters.party(*side).keys.funding_pubkey;
            lightning::ln::chan_utils::get_keyed_anchor_redeemscript(&key).to_p2wsh()
        };
        let mut expected: Vec<_> = of.iter().map(script).collect();
        expected.sort();
        for owner in SIDES {
            let commitment = channel.first_commitment(owner);
            assert_eq!(ANCHOR_VALUE, sat(330));
            assert_eq!(anchors(&commitment), expected.iter().collect::<Vec<_>>(), "{owner:?}");
        }
    }
}

// req: B2-FS-B-02, B3-OUT-B-04, B3-OUT-B-05
#[test]
fn the_channel_type_decides_the_form_of_both_transactions() {
    for channel_type in ChannelType::all() {
        let channel = pushed(channel_type, 500_000_000);
        for owner in SIDES {
            let commitment = channel.first_commitment(owner);
            let script =
                &commitment.transaction.output[commitment.to_remote.unwrap()].script_pubkey;
            let opener =
                if owner == Side::Local { commitment.to_local } else { commitment.to_remote };
            let opener = value(&commitment, opener).unwrap();
            match channel_type.commitment_format {
                CommitmentFormat::StaticRemotekey => {
                    assert!(script.is_p2wpkh() && anchors(&commitment).is_empty());
                    assert_eq!(500_000 - opener, 1810);
                }
                CommitmentFormat::Anchors => {
                    assert!(script.is_p2wsh() && anchors(&commitment).len() == 2);
                    assert_eq!(500_000 - opener, 2810 + 660);
                }
            }
        }
    }
}

/// By LDK's script: what `owner`'s `to_local` pays to with this delay.
fn to_local_script_pubkey(channel: &Channel, owner: Side, delay: u16) -> ScriptBuf {
    use lightning::ln::chan_utils::get_revokeable_redeemscript;
    use lightning::ln::channel_keys::{DelayedPaymentKey, RevocationKey};

    let (own, counter) = (channel.parameters.party(owner), channel.parameters.party(owner.other()));
    let point = &own.first_per_commitment_point;
    let base = &counter.keys.revocation_basepoint;
    let revocation = derive_revocation_public_key(&channel.secp, base, point).unwrap();
    let delayed = derive_public_key(&channel.secp, &own.keys.delayed_payment_basepoint, point);
    let delayed = DelayedPaymentKey(delayed.unwrap());
    get_revokeable_redeemscript(&RevocationKey(revocation), delay, &delayed).to_p2wsh()
}

// req: B2-OPEN-B-04, B3-KEY-B-02, B3-KEY-B-07, B3-OUT-B-03
#[test]
fn the_others_to_self_delay_is_the_one_that_binds() {
    for channel_type in TYPES {
        let channel = pushed(channel_type, 500_000_000).with(|p| {
            p.local.config.to_self_delay = 144;
            p.remote.config.to_self_delay = 720;
        });
        for (owner, delay) in [(Side::Local, 720), (Side::Remote, 144)] {
            assert_eq!(channel.parameters.to_self_delay_of(owner), delay);
            let commitment = channel.first_commitment(owner);
            let script = &commitment.transaction.output[commitment.to_local.unwrap()].script_pubkey;
            assert_eq!(*script, to_local_script_pubkey(&channel, owner, delay), "{owner:?}");
        }
    }
}

// req: B2-OPEN-B-03
#[test]
fn the_others_channel_reserve_is_the_one_that_binds() {
    let Channel { parameters, .. } = Channel::of(ChannelType::ANCHORS).with(|p| {
        p.local.config.channel_reserve_satoshis = sat(10_000);
        p.remote.config.channel_reserve_satoshis = sat(25_000);
    });
    assert_eq!(parameters.channel_reserve_of(Side::Local), sat(25_000));
    assert_eq!(parameters.channel_reserve_of(Side::Remote), sat(10_000));
}

// req: B3-KEY-B-05
#[test]
fn to_remote_pays_the_counterpartys_payment_basepoint_untweaked() {
    use lightning::ln::chan_utils::get_countersigner_payment_script;

    for channel_type in TYPES {
        let channel = pushed(channel_type, 500_000_000);
        for owner in SIDES {
            let key = &channel.parameters.party(owner.other()).keys.payment_basepoint;
            let expected = get_countersigner_payment_script(&channel_type.to_features(), key);
            let commitment = channel.first_commitment(owner);
            let output = &commitment.transaction.output[commitment.to_remote.unwrap()];
            assert_eq!(output.script_pubkey, expected, "{channel_type}, owner {owner:?}");
        }
    }
}

// req: B3-ORD-B-01, B3-CON-B-07
#[test]
fn the_smaller_balance_comes_first_whosesoever_it_is() {
    for channel_type in TYPES {
        let anchors = if channel_type.has_anchors() { 2 } else { 0 };
        for (push_msat, to_local, to_remote) in [(400_000_000, 1, 0), (600_000_000, 0, 1)] {
            let commitment = pushed(channel_type, push_msat).first_commitment(Side::Local);
            assert_eq!(commitment.to_local, Some(anchors + to_local));
            assert_eq!(commitment.to_remote, Some(anchors + to_remote));
        }
    }
}

// req: B3-ORD-B-02
#[test]
fn equal_balances_and_anchors_are_ordered_by_their_scripts() {
    for channel_type in TYPES {
        let half = (1_000_000 - cost(channel_type)) / 2;
        let (mut orders, mut anchor_orders) = ([0; 2], [0; 2]);
        for seed in 0..20 {
            let (local, remote) =
                (Secrets::from_seed([seed; 32]), Secrets::from_seed([seed + 100; 32]));
            let channel = Channel::between(local, remote, channel_type)
                .with(|p| p.push_msat = msat((1_000_000 - cost(channel_type) - half) * 1000));
            let commitment = channel.first_commitment(Side::Local);
            assert_eq!(values(&commitment), (Some(half), Some(half)));
            let outputs = &commitment.transaction.output;
            for pair in outputs.windows(2) {
                let order = pair[0].value.cmp(&pair[1].value);
                let scripts = [&pair[0], &pair[1]].map(|output| output.script_pubkey.as_bytes());
                assert!(order.then(scripts[0].cmp(scripts[1])).is_lt());
            }
            orders[usize::from(commitment.to_local < commitment.to_remote)] += 1;
            if let [first, _] = anchors(&commitment)[..] {
                let key = channel.parameters.local.keys.funding_pubkey;
                let script = lightning::ln::chan_utils::get_keyed_anchor_redeemscript(&key);
                anchor_orders[usize::from(*first == script.to_p2wsh())] += 1;
            }
        }
        // P2WPKH is 0014…, always before the 0020… of P2WSH; between scripts of one form, chance.
        match channel_type.commitment_format {
            CommitmentFormat::StaticRemotekey => assert_eq!(orders, [20, 0]),
            CommitmentFormat::Anchors => {
                assert!(orders.iter().chain(&anchor_orders).all(|&count| count > 0));
            }
        }
    }
}

// req: B2-OPEN-R-14, B2-OPEN-R-21
#[test]
fn what_cannot_be_paid_is_not_built() {
    for channel_type in TYPES {
        let needed = sat(cost(channel_type));
        let build = |channel: Channel| {
            SIDES.map(|owner| channel.parameters.first_commitment(&channel.secp, owner).err())
        };
        let kept = |satoshis| pushed(channel_type, (1_000_000 - satoshis) * 1000);
        assert_eq!(build(kept(needed.to_sat())), [None, None]);
        let available = needed - Amount::ONE_SAT;
        let refusal = CommitmentError::Unaffordable { available, needed };
        assert_eq!(build(kept(available.to_sat())), [Some(refusal.clone()), Some(refusal)]);

        let (push_msat, funding_satoshis) = (msat(1_000_000_001), sat(1_000_000));
        let refusal = CommitmentError::PushExceedsFunding { push_msat, funding_satoshis };
        let channel = pushed(channel_type, push_msat.to_msat());
        assert_eq!(build(channel), [Some(refusal.clone()), Some(refusal)]);
    }
}

// req: B1-TYP-B-03
#[test]
fn more_than_there_will_ever_be_is_not_built() {
    for channel_type in TYPES {
        let channel = |funding_satoshis| {
            Channel::of(channel_type).with(|p| p.funding_satoshis = funding_satoshis)
        };
        let most = channel(Amount::MAX_MONEY);
        assert_eq!(most.accepted_by_consensus(&most.first_commitment(Side::Local)), Ok(()));
        for funding_satoshis in [Amount::MAX_MONEY + Amount::ONE_SAT, sat(u64::MAX)] {
            let Channel { secp, parameters, .. } = channel(funding_satoshis);
            for owner in SIDES {
                assert_eq!(
                    parameters.first_commitment(&secp, owner),
                    Err(CommitmentError::FundingAboveSupply { funding_satoshis })
                );
            }
        }
    }
}

// incident: CLN #605
// req: B3-OUT-B-02
#[test]
fn a_commitment_without_outputs_is_not_built() {
    for channel_type in TYPES {
        let channel = Channel::of(channel_type).with(|p| {
            p.funding_satoshis = sat(cost(channel_type) + 353 + 353);
            p.push_msat = msat(353_999);
            p.remote.config.dust_limit_satoshis = sat(352);
        });
        let dust_limit_satoshis = sat(354);
        assert_eq!(
            channel.parameters.first_commitment(&channel.secp, Side::Local),
            Err(CommitmentError::NoOutputs { dust_limit_satoshis })
        );
        // The same balances stand where the owner has the lower limit.
        let commitment = channel.first_commitment(Side::Remote);
        assert_eq!(values(&commitment), (Some(353), Some(352)));
    }
}

#[test]
fn penalty_base_is_the_owners_delayed_output() {
    for channel_type in TYPES {
        let channel = pushed(channel_type, 400_000_000).with(|p| {
            p.funding_outpoint = OutPoint { txid: Txid::from_byte_array([3; 32]), vout: 5 };
        });
        for owner in SIDES {
            let commitment = channel.first_commitment(owner);
            let base: PenaltyBase = commitment.penalty_base().unwrap();
            assert_eq!(base.commitment_number, 0);
            assert_eq!(base.outpoint.txid, commitment.transaction.compute_txid());
            let output = &commitment.transaction.output[base.outpoint.vout as usize];
            assert_eq!(output.script_pubkey, to_local_script_pubkey(&channel, owner, 144));
            assert_eq!(base.amount, output.value);
        }
        // Without a push the fundee owns nothing that could be taken.
        assert_eq!(pushed(channel_type, 0).first_commitment(Side::Remote).penalty_base(), None);
    }
}
