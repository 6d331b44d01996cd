//! `accept_channel` that a funder does not take.

use lightning::types::features::ChannelTypeFeatures;
use opening_core::ChannelType;

use crate::common::ask;
use crate::common::here::Here;
use crate::common::raw_peer::RawPeer;
use crate::{ID, answer_refused};

// req: B2-ACC-R-02, B1-ERR-S-02, B1-ERR-S-04
#[tokio::test]
async fn a_reserve_below_our_dust_limit_is_refused() {
    answer_refused(
        |accept| {
            accept.channel_reserve_satoshis = 353;
            accept.common_fields.dust_limit_satoshis = 354;
        },
        "reserve-below-dust-limit",
        "channel_reserve_satoshis 353 of accept_channel is below dust_limit_satoshis 354 of \
         open_channel",
    )
    .await;
}

// req: B2-ACC-R-03
#[tokio::test]
async fn a_dust_limit_above_the_reserve_we_asked_for_is_refused() {
    answer_refused(
        |accept| {
            accept.common_fields.dust_limit_satoshis = 10_001;
            accept.channel_reserve_satoshis = 10_001;
        },
        "dust-limit-above-reserve",
        "dust_limit_satoshis 10001 of accept_channel is above channel_reserve_satoshis 10000 of \
         open_channel",
    )
    .await;
}

// req: B2-ACC-R-04
#[tokio::test]
async fn an_answer_without_a_channel_type_is_refused() {
    answer_refused(
        |accept| accept.common_fields.channel_type = None,
        "channel-type-missing",
        "channel_type is missing",
    )
    .await;
}

// req: B2-ACC-R-05
#[tokio::test]
async fn another_channel_type_than_ours_is_refused() {
    let padded = ChannelTypeFeatures::from_le_bytes(vec![0, 0x10, 0x40, 0]);
    let others =
        [ChannelType::STATIC_REMOTEKEY.to_features(), ChannelTypeFeatures::empty(), padded];
    for features in others {
        answer_refused(
            |accept| accept.common_fields.channel_type = Some(features),
            "channel-type-differs",
            "channel_type of accept_channel differs from that of open_channel",
        )
        .await;
    }
}

// incident: CLN #9439
// incident: LND #7217
// req: B2-ACC-R-01, B2-ACC-R-06, B2-ACC-R-07, B2-ACC-R-09, B2-ACC-R-10, B2-ACC-R-12
#[tokio::test]
async fn an_answer_out_of_bounds_is_refused() {
    answer_refused(
        |accept| accept.common_fields.minimum_depth = 145,
        "minimum-depth-too-large",
        "minimum_depth 145 is above 144",
    )
    .await;
    answer_refused(
        |accept| accept.common_fields.to_self_delay = 2017,
        "to-self-delay-too-large",
        "to_self_delay 2017 is above 2016",
    )
    .await;
    answer_refused(
        |accept| accept.common_fields.max_accepted_htlcs = 484,
        "max-accepted-htlcs-too-large",
        "max_accepted_htlcs 484 is above 483",
    )
    .await;
    answer_refused(
        |accept| accept.channel_reserve_satoshis = 545,
        "dust-limit-above-own-reserve",
        "dust_limit_satoshis 546 is above channel_reserve_satoshis 545",
    )
    .await;
    answer_refused(
        |accept| accept.common_fields.dust_limit_satoshis = 353,
        "dust-limit-satoshis-too-small",
        "dust_limit_satoshis 353 is below 354",
    )
    .await;
    answer_refused(
        |accept| accept.common_fields.max_accepted_htlcs = 0,
        "max-accepted-htlcs-too-small",
        "max_accepted_htlcs 0 is below 1",
    )
    .await;
}

// req: B2-ACC-B-02, B1-ERR-S-05
#[tokio::test]
async fn an_answer_to_nothing_leaves_the_opening_pending() {
    let here = Here::new();
    let (mut peer, session) = RawPeer::connect(&here.openings, 2).await;
    let opening = session.open(ask()).await.unwrap();
    let open = peer.expect_open_channel().await;
    let accept = peer.accept_channel(&open);
    let mut other = accept.clone();
    other.common_fields.temporary_channel_id = ID;
    peer.send(&other).await;
    assert_eq!(peer.expect_error(ID).await, "no such channel");
    // the opening with the right id goes on.
    peer.send(&accept).await;
    let _pending = opening.accepted().await.unwrap();
}
