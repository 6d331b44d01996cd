//! An opened channel in LDK's types says the same as in ours.

// Clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

mod common;
mod faulty;

use bitcoin::Amount;
use bitcoin::secp256k1::Secp256k1;
use common::{ask, regtest_bounds, signed};
use faulty::{connect, node_within};
use lightning::chain::transaction::OutPoint;
use lightning::ln::chan_utils::make_funding_redeemscript;
use opening_core::commitment::opener_cost;
use opening_core::{ChannelType, CommitmentFormat, FeeratePerKw, MilliSatoshi, Role};
use opening_peer::testing::Faults;
use opening_peer::{Ask, Opened};

const FUNDING: Amount = Amount::from_sat(1_000_000);
const FEERATE: FeeratePerKw = FeeratePerKw::new(1250);

/// What is pushed, in satoshis: nothing, less than dust, half, all but dust.
fn pushes(format: CommitmentFormat) -> [u64; 4] {
    let cost = opener_cost(FEERATE, format).to_sat();
    [0, 353, 500_000, FUNDING.to_sat() - cost - 353]
}

/// The channel as both sides have it, funder first.
async fn open(channel_type: ChannelType, push_satoshis: u64) -> [Opened; 2] {
    let mut bounds = regtest_bounds();
    bounds.limits.trust_zeroconf = true;
    let funder = node_within(1, &Faults::none(), bounds.clone());
    // Unlike the funder's, so that one cannot be mistaken for the other.
    (bounds.limits.to_self_delay, bounds.limits.dust_limit_satoshis) = (99, Amount::from_sat(600));
    let fundee = node_within(2, &Faults::none(), bounds);
    let (funder, fundee, _wire) = connect(funder, fundee).await;
    let ask = Ask {
        funding_satoshis: FUNDING,
        feerate_per_kw: FEERATE,
        push_msat: MilliSatoshi::from_msat(push_satoshis * 1000 + 999),
        channel_type: Some(channel_type),
        ..ask()
    };
    let pending = funder.session.open(ask).await.unwrap().accepted().await.unwrap();
    let funding = signed(&pending.needed().output);
    let (ours, _permit) = pending.complete(funding).await.unwrap().opened().await.unwrap();
    let theirs = fundee.log.opened().await;
    [(*ours).clone(), (*theirs).clone()]
}

// req: B2-FS-B-02, B2-FC-S-05, B2-FS-S-02
#[tokio::test]
async fn ldk_builds_our_commitment_byte_by_byte_and_takes_the_peers_signature() {
    let secp = Secp256k1::new();
    let mut outputs = Vec::new();
    for channel_type in ChannelType::all() {
        for push in pushes(channel_type.commitment_format) {
            for opened in open(channel_type, push).await {
                let case = format!("{channel_type:?} {push} {:?}", opened.role());
                let parameters = opened.channel_transaction_parameters();
                let holder = opened.holder_commitment_transaction();
                let directed = parameters.as_holder_broadcastable();
                let verified = holder.verify(&directed, &secp).expect(&case);
                let built = verified.built_transaction();
                assert_eq!(built.transaction, opened.local_commitment.transaction, "{case}");
                let theirs = parameters.counterparty_parameters.as_ref().unwrap();
                let script = make_funding_redeemscript(
                    &parameters.holder_pubkeys.funding_pubkey,
                    &theirs.pubkeys.funding_pubkey,
                );
                let sighash = built.get_sighash_all(&script, FUNDING.to_sat());
                let key = &theirs.pubkeys.funding_pubkey;
                secp.verify_ecdsa(&sighash, &holder.counterparty_sig, key).expect(&case);
                outputs.push(built.transaction.output.len());
            }
        }
    }
    // Trimmed on one side or the other, and with anchors or without.
    outputs.sort_unstable();
    outputs.dedup();
    assert_eq!(outputs, [1, 2, 4]);
}

#[tokio::test]
async fn the_parameters_are_the_channels() {
    for opened in open(ChannelType::ANCHORS, 500_000).await {
        let parameters = opened.channel_transaction_parameters();
        let (local, remote) = (&opened.parameters.local, &opened.parameters.remote);
        assert_eq!(parameters.is_outbound_from_holder, opened.role() == Role::Funder);
        assert_eq!(parameters.holder_selected_contest_delay, local.config.to_self_delay);
        assert_eq!(parameters.channel_value_satoshis, FUNDING.to_sat());
        assert_eq!(parameters.channel_type_features, ChannelType::ANCHORS.to_features());
        let outpoint = opened.parameters.funding_outpoint;
        let index = u16::try_from(outpoint.vout).unwrap();
        assert_eq!(parameters.funding_outpoint, Some(OutPoint { txid: outpoint.txid, index }));
        let ours = &parameters.holder_pubkeys;
        assert_eq!(ours.funding_pubkey, local.keys.funding_pubkey);
        assert_eq!(ours.payment_point, local.keys.payment_basepoint);
        assert_eq!(ours.revocation_basepoint.0, local.keys.revocation_basepoint);
        assert_eq!(ours.delayed_payment_basepoint.0, local.keys.delayed_payment_basepoint);
        assert_eq!(ours.htlc_basepoint.0, local.keys.htlc_basepoint);
        let theirs = parameters.counterparty_parameters.as_ref().unwrap();
        assert_eq!(theirs.selected_contest_delay, remote.config.to_self_delay);
        assert_eq!(theirs.pubkeys.funding_pubkey, remote.keys.funding_pubkey);
        assert_eq!(theirs.pubkeys.payment_point, remote.keys.payment_basepoint);
    }
}
