//! `open_channel` that a fundee does not take.

use std::sync::Arc;

use bitcoin::ScriptBuf;
use lightning::ln::msgs::{OpenChannel, Shutdown};
use lightning::ln::types::ChannelId;
use lightning::types::features::ChannelTypeFeatures;
use opening_core::{ChannelType, MilliSatoshi, Refusal, Role, Side};
use opening_peer::message::encode;
use opening_peer::negotiation::NegotiationError;
use opening_peer::node::{AcceptWithin, Bounds};
use opening_peer::session::default_features;
use opening_peer::{Failure, Stage};

use crate::common::here::Here;
use crate::common::raw_peer::{RawPeer, made_up_outpoint};
use crate::common::{ask, regtest_bounds};
use crate::{ID, offer_refused, offer_refused_by, refused};

// req: B2-OPEN-R-13, B1-ERR-S-03, B1-ERR-S-04, B2-EST-B-05, B0-CH-B-02
#[tokio::test]
async fn an_unknown_chain_is_refused() {
    offer_refused(
        |open| open.common_fields.chain_hash = bitcoin::Network::Signet.chain_hash(),
        "unknown-chain",
        "chain_hash f61eee3b63a380a477a063af32b2bbc97c9ff9f01f2c4225e973988108000000 is unknown",
    )
    .await;
}

// req: B2-OPEN-R-14
#[tokio::test]
async fn a_push_above_the_funding_is_refused() {
    let failed = offer_refused(
        |open| open.push_msat = 1_000_000_001,
        "push-msat-exceeds-funding",
        "push_msat 1000000001 exceeds funding_satoshis 1000000",
    )
    .await;
    assert!(matches!(
        &*failed.failure,
        Failure::Negotiation(NegotiationError::Refused(Refusal::PushExceedsFunding {
            side: Side::Remote,
            ..
        }))
    ));
}

// incident: CLN #9225
// req: B2-OPEN-R-14, B1-TYP-B-04
#[tokio::test]
async fn a_push_of_all_the_millisatoshis_a_u64_has_is_refused() {
    offer_refused(
        |open| open.push_msat = u64::MAX,
        "push-msat-exceeds-funding",
        "push_msat 18446744073709551615 exceeds funding_satoshis 1000000",
    )
    .await;
}

// req: B2-OPEN-R-15
#[tokio::test]
async fn a_delay_beyond_ours_is_refused() {
    offer_refused(
        |open| open.common_fields.to_self_delay = 2017,
        "to-self-delay-too-large",
        "to_self_delay 2017 is above 2016",
    )
    .await;
}

// req: B2-OPEN-R-16
#[tokio::test]
async fn more_htlcs_than_can_be_relayed_are_refused() {
    offer_refused(
        |open| open.common_fields.max_accepted_htlcs = 484,
        "max-accepted-htlcs-too-large",
        "max_accepted_htlcs 484 is above 483",
    )
    .await;
}

// incident: LND #11201
// incident: LND #11149
// req: B2-OPEN-R-17
#[tokio::test]
async fn a_feerate_out_of_bounds_is_refused() {
    let feerate = |feerate| {
        move |open: &mut OpenChannel| {
            open.common_fields.commitment_feerate_sat_per_1000_weight = feerate;
        }
    };
    let (small, large) = ("feerate-per-kw-too-small", "feerate-per-kw-too-large");
    offer_refused(feerate(252), small, "feerate_per_kw 252 is below 253").await;
    offer_refused(feerate(0), small, "feerate_per_kw 0 is below 253").await;
    offer_refused(feerate(100_001), large, "feerate_per_kw 100001 is above 100000").await;
    offer_refused(feerate(u32::MAX), large, "feerate_per_kw 4294967295 is above 100000").await;
}

// incident: LND #7034
// req: B2-OPEN-R-17
#[tokio::test]
async fn without_an_estimate_no_feerate_is_accepted_and_nobody_learns_why() {
    let mut bounds = regtest_bounds();
    bounds.feerates = None;
    let failed = offer_refused_by(
        |node| node.policy = Arc::new(AcceptWithin(bounds)),
        |_| {},
        "no-fee-estimate",
        "feerate_per_kw 1250 cannot be accepted",
    )
    .await;
    assert_eq!(failed.role, Role::Fundee);
}

// req: B2-OPEN-R-19
#[tokio::test]
async fn a_dust_limit_above_its_own_reserve_is_refused() {
    offer_refused(
        |open| open.channel_reserve_satoshis = 545,
        "dust-limit-above-own-reserve",
        "dust_limit_satoshis 546 is above channel_reserve_satoshis 545",
    )
    .await;
}

// req: B2-OPEN-R-20
#[tokio::test]
async fn a_dust_limit_below_the_relay_floor_is_refused() {
    offer_refused(
        |open| open.common_fields.dust_limit_satoshis = 353,
        "dust-limit-satoshis-too-small",
        "dust_limit_satoshis 353 is below 354",
    )
    .await;
}

// incident: eclair #3383
// incident: CLN #9491
// req: B2-OPEN-R-21
#[tokio::test]
async fn an_opener_who_cannot_pay_the_fee_is_refused() {
    offer_refused(
        |open| open.push_msat = 999_000_000,
        "fee-unaffordable",
        "the opener has 1000 sat, fee and anchors need 2065 sat, short of 1065 sat",
    )
    .await;
}

// incident: LND #5523
// incident: LND #6505
// req: B2-OPEN-R-22
#[tokio::test]
async fn balances_below_the_reserve_are_refused() {
    let mut bounds = regtest_bounds();
    bounds.limits.max_channel_reserve_percent = 100;
    offer_refused_by(
        |node| node.policy = Arc::new(AcceptWithin(bounds)),
        |open| {
            open.common_fields.funding_satoshis = 20_000;
            open.push_msat = 9_000_000;
            open.channel_reserve_satoshis = 10_000;
        },
        "neither-above-reserve",
        "balances 8935 and 9000 sat are both at or below channel_reserve_satoshis 10000",
    )
    .await;
}

// req: B2-OPEN-R-23
#[tokio::test]
async fn a_large_channel_is_refused_without_the_feature() {
    offer_refused_by(
        |node| node.features.clear_wumbo(),
        |open| open.common_fields.funding_satoshis = 16_777_216,
        "large-channel-unsupported",
        "funding_satoshis 16777216 is above 16777215 without option_support_large_channel",
    )
    .await;
}

// incident: LDK panics (missing type)
// req: B2-OPEN-R-02
#[tokio::test]
async fn an_offer_without_a_channel_type_is_refused() {
    let no_type = |open: &mut OpenChannel| open.common_fields.channel_type = None;
    offer_refused(no_type, "channel-type-missing", "channel_type is missing").await;
    let no_tlvs = |open: &mut OpenChannel| {
        open.common_fields.channel_type = None;
        open.common_fields.shutdown_scriptpubkey = None;
    };
    offer_refused(no_tlvs, "channel-type-missing", "channel_type is missing").await;
}

// req: B2-OPEN-R-24, B2-TYPE-B-01
#[tokio::test]
async fn an_undefined_or_padded_channel_type_is_refused() {
    // Big-endian: empty, odd bit, anchors alone, an unknown bit, a leading zero byte.
    for flags in ["", "2000", "400000", "411000", "00401000"] {
        let flags = hex::decode(flags).unwrap().into_iter().rev().collect();
        let features = ChannelTypeFeatures::from_le_bytes(flags);
        offer_refused(
            |open| open.common_fields.channel_type = Some(features),
            "channel-type-undefined",
            "channel_type is not a defined type",
        )
        .await;
    }
}

// incident: CLN #6155
// req: B2-OPEN-R-24
#[tokio::test]
async fn a_channel_type_that_was_not_negotiated_is_refused() {
    offer_refused_by(
        |node| node.features.clear_anchors_zero_fee_htlc_tx(),
        |_| {},
        "channel-type-not-negotiated",
        "channel_type has feature 22, which is not negotiated",
    )
    .await;
}

// req: B2-OPEN-R-24
#[tokio::test]
async fn an_announced_channel_known_by_alias_only_is_refused() {
    offer_refused(
        |open| {
            let channel_type = ChannelType { scid_alias: true, ..ChannelType::ANCHORS };
            open.common_fields.channel_type = Some(channel_type.to_features());
            open.common_fields.channel_flags = 1;
        },
        "scid-alias-announced",
        "channel_type has option_scid_alias together with announce_channel",
    )
    .await;
}

// req: B2-OPEN-R-25
#[tokio::test]
async fn zeroconf_from_a_stranger_is_refused() {
    offer_refused(
        |open| {
            let channel_type = ChannelType { zeroconf: true, ..ChannelType::ANCHORS };
            open.common_fields.channel_type = Some(channel_type.to_features());
        },
        "zeroconf-untrusted",
        "channel_type has option_zeroconf, which is not accepted",
    )
    .await;
}

type Change = fn(&mut OpenChannel);

// incident: LND #7217
// incident: ldk-node #247
// incident: LDK #3090
// req: B2-OPEN-R-07, B2-OPEN-R-08, B2-OPEN-R-09, B2-OPEN-R-10, B2-OPEN-R-11, B2-OPEN-R-12
#[tokio::test]
async fn what_this_node_considers_too_small_or_too_large_is_refused() {
    let mut limits = regtest_bounds().limits;
    limits.max_htlc_minimum_msat = MilliSatoshi::from_msat(1000);
    limits.min_htlc_value_in_flight_msat = MilliSatoshi::from_msat(5000);
    limits.min_accepted_htlcs = 10;
    let bounds = Bounds { limits, ..regtest_bounds() };
    let cases: [(Change, &str, &str); 6] = [
        (
            |open| open.common_fields.funding_satoshis = 9999,
            "funding-satoshis-too-small",
            "funding_satoshis 9999 is below 10000",
        ),
        (
            |open| open.common_fields.htlc_minimum_msat = 1001,
            "htlc-minimum-msat-too-large",
            "htlc_minimum_msat 1001 is above 1000",
        ),
        (
            |open| open.common_fields.max_htlc_value_in_flight_msat = 4999,
            "max-htlc-value-in-flight-msat-too-small",
            "max_htlc_value_in_flight_msat 4999 is below 5000",
        ),
        (
            |open| open.channel_reserve_satoshis = 200_001,
            "channel-reserve-satoshis-too-large",
            "channel_reserve_satoshis 200001 is above 200000",
        ),
        (
            |open| open.common_fields.max_accepted_htlcs = 9,
            "max-accepted-htlcs-too-small",
            "max_accepted_htlcs 9 is below 10",
        ),
        (
            |open| {
                open.common_fields.dust_limit_satoshis = 10_001;
                open.channel_reserve_satoshis = 10_001;
            },
            "dust-limit-satoshis-too-large",
            "dust_limit_satoshis 10001 is above 10000",
        ),
    ];
    for (change, code, text) in cases {
        let policy = Arc::new(AcceptWithin(bounds.clone()));
        offer_refused_by(|node| node.policy = policy, change, code, text).await;
    }
}

// req: B2-OPEN-R-06
#[tokio::test]
async fn a_private_channel_is_refused_where_only_public_ones_are_wanted() {
    let mut bounds = regtest_bounds();
    bounds.limits.announcement = opening_core::limits::Announcement::PublicOnly;
    offer_refused_by(
        |node| node.policy = Arc::new(AcceptWithin(bounds)),
        |_| {},
        "announcement-unwanted",
        "announce_channel 0 is not accepted",
    )
    .await;
}

// req: B2-OPEN-S-10
#[tokio::test]
async fn an_upfront_script_of_no_valid_form_is_refused() {
    offer_refused(
        |open| open.common_fields.shutdown_scriptpubkey = Some(ScriptBuf::from(vec![0x6a; 25])),
        "upfront-shutdown-script-invalid",
        "upfront_shutdown_script of 25 bytes has no valid form",
    )
    .await;
}

// req: B2-OPEN-R-05
#[tokio::test]
async fn open_channel_is_refused_where_dual_funding_is_negotiated() {
    let here = Here::with(|node| node.features.set_dual_fund_optional());
    let mut features = default_features();
    features.set_dual_fund_optional();
    let (mut peer, session) = RawPeer::connect_offering(&here.openings, 2, features).await;
    peer.send(&peer.open_channel(ID)).await;
    let text = "option_dual_fund is negotiated, which rules out open_channel";
    assert_eq!(peer.expect_error(ID).await, text);
    assert_eq!(here.failed().await.failure.code(), "dual-fund-negotiated");
    assert_eq!(here.openings.pending(), 0);
    // Nor does this node begin one: the peer hears nothing of it.
    let failed = session.open(ask()).await.unwrap_err();
    assert_eq!((failed.failure.code(), failed.stage), ("dual-fund-negotiated", Stage::Keys));
    peer.expect_silence().await;
}

// req: B2-OPEN-R-01, B2-OPEN-B-06
#[tokio::test]
async fn undefined_channel_flags_are_ignored() {
    for (flags, announce) in [(0xfe, false), (0xff, true), (0, false), (1, true)] {
        let here = Here::new();
        let (mut peer, _session) = RawPeer::connect(&here.openings, 2).await;
        let mut open = peer.open_channel(ID);
        open.common_fields.channel_flags = flags;
        peer.open(&open, made_up_outpoint(1, 0)).await;
        assert_eq!(here.seen.opened().await.announce_channel, announce);
        here.forgot_theirs(&mut peer, ID).await;
    }
}

// req: B2-OPEN-R-03, B2-OPEN-R-04
#[tokio::test]
async fn after_a_reconnection_an_offer_without_funding_is_gone() {
    let here = Here::new();
    let (mut peer, _session) = RawPeer::connect(&here.openings, 2).await;
    let open = peer.open_channel(ID);
    peer.send(&open).await;
    let accept = peer.expect_accept_channel(ID).await;
    let created = peer.funding_created(&open, &accept, made_up_outpoint(1, 0));
    peer.disconnect().await;
    assert_eq!(here.failed().await.failure.code(), "disconnected");
    here.nothing_pending().await;

    let (mut peer, _session) = RawPeer::connect(&here.openings, 2).await;
    peer.send(&created).await;
    assert_eq!(peer.expect_error(ID).await, "no such channel");
    for id in [ID, ChannelId([0x2d; 32])] {
        here.forgot_theirs(&mut peer, id).await;
    }
    assert_eq!(here.saved().await, []);
}

// req: B2-OPEN-R-03
#[tokio::test]
async fn an_id_in_use_ends_the_opening_that_uses_it() {
    let here = Here::new();
    let (mut peer, _session) = RawPeer::connect(&here.openings, 2).await;
    let open = peer.open_channel(ID);
    peer.send(&open).await;
    peer.expect_accept_channel(ID).await;
    let text = "temporary_channel_id is in use";
    let code = "duplicate-temporary-channel-id";
    let failed = refused(&here, &mut peer, &encode(&open), code, text).await;
    assert_eq!(failed.stage, Stage::FundingCreated);
}

// req: B2-SHUT-R-01
#[tokio::test]
async fn shutdown_before_the_funding_fails_the_opening_in_both_roles() {
    let shutdown = |channel_id| Shutdown { channel_id, scriptpubkey: ScriptBuf::new() };
    let here = Here::new();
    let (mut peer, session) = RawPeer::connect(&here.openings, 2).await;
    peer.send(&peer.open_channel(ID)).await;
    peer.expect_accept_channel(ID).await;
    let (code, text) = ("message-out-of-order", "unexpected shutdown");
    peer.send(&shutdown(ID)).await;
    assert_eq!(peer.expect_error(ID).await, text);
    assert_eq!(here.failed().await.failure.code(), code);
    here.forgot_theirs(&mut peer, ID).await;

    let opening = session.open(ask()).await.unwrap();
    let id = peer.expect_open_channel().await.common_fields.temporary_channel_id;
    peer.send(&shutdown(id)).await;
    assert_eq!(peer.expect_error(id).await, text);
    assert_eq!(opening.accepted().await.unwrap_err().failure.code(), code);
    here.failed().await;
    here.can_open(&session, &mut peer).await;
}
