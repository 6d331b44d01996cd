//! A peer that refuses a type is offered a lesser one, if the policy wants that.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use async_trait::async_trait;
use bitcoin::secp256k1::PublicKey;
use common::here::Here;
use common::raw_peer::RawPeer;
use common::{ask, node_id, regtest_bounds};
use opening_core::ChannelType;
use opening_peer::Ask;
use opening_peer::node::{AcceptWithin, Bounds, Decision, OfferDetails, Policy};
use opening_peer::session::{PendingFunding, open_downgrading};

/// What a policy does about a refusal.
type Downgrade = fn(ChannelType) -> Option<ChannelType>;

struct Stubborn(Downgrade);

#[async_trait]
impl Policy for Stubborn {
    async fn bounds(&self, _peer: &PublicKey) -> Bounds {
        regtest_bounds()
    }

    async fn decide(&self, _peer: &PublicKey, _offer: &OfferDetails<'_>) -> Decision {
        unreachable!("nobody offers us anything")
    }

    fn downgrade(&self, peer: &PublicKey, refused: ChannelType) -> Option<ChannelType> {
        assert_eq!(*peer, node_id(2));
        (self.0)(refused)
    }
}

const ANCHORS_ALIAS: ChannelType = ChannelType { scid_alias: true, ..ChannelType::ANCHORS };

/// Offers, to a peer that takes only this type: what was offered, and what came of it.
async fn offered(
    first: Option<ChannelType>,
    policy: Arc<dyn Policy>,
    taken: ChannelType,
) -> (Vec<ChannelType>, Result<PendingFunding, &'static str>) {
    offered_by(Here::new(), first, policy, taken).await
}

async fn offered_by(
    here: Here,
    first: Option<ChannelType>,
    policy: Arc<dyn Policy>,
    taken: ChannelType,
) -> (Vec<ChannelType>, Result<PendingFunding, &'static str>) {
    let (mut peer, session) = RawPeer::connect(&here.openings, 2).await;
    let ask = Ask { channel_type: first, ..ask() };
    let asking = tokio::spawn(async move {
        let result = open_downgrading(&session, ask, &*policy).await;
        (result.map_err(|failed| failed.failure.code()), session)
    });
    let mut types = Vec::new();
    loop {
        if asking.is_finished() {
            break;
        }
        let open = tokio::select! {
            open = peer.expect_open_channel() => open,
            () = async { while !asking.is_finished() { tokio::task::yield_now().await } } => break,
        };
        let features = open.common_fields.channel_type.clone().unwrap();
        let offered = ChannelType::from_features(&features).unwrap();
        types.push(offered);
        if offered == taken {
            peer.send(&peer.accept_channel(&open)).await;
        } else {
            peer.send_error(open.common_fields.temporary_channel_id, "unsuitable").await;
        }
    }
    let (result, _session) = asking.await.unwrap();
    (types, result)
}

#[tokio::test]
async fn the_type_gets_less_until_the_peer_takes_it() {
    let policy: Arc<dyn Policy> = Arc::new(Stubborn(ChannelType::lesser));
    let (types, result) = offered(None, policy.clone(), ChannelType::STATIC_REMOTEKEY).await;
    assert_eq!(types, [ChannelType::ANCHORS, ChannelType::STATIC_REMOTEKEY]);
    assert!(result.is_ok());
    let (types, result) =
        offered(Some(ANCHORS_ALIAS), policy.clone(), ChannelType::STATIC_REMOTEKEY).await;
    let all = [ANCHORS_ALIAS, ChannelType::ANCHORS, ChannelType::STATIC_REMOTEKEY];
    assert_eq!(types, all);
    assert!(result.is_ok());
    let (types, result) = offered(Some(ANCHORS_ALIAS), policy, ANCHORS_ALIAS).await;
    assert_eq!(types, [ANCHORS_ALIAS]);
    assert!(result.is_ok());
}

#[tokio::test]
async fn a_peer_that_takes_nothing_hears_each_type_once() {
    let zeroconf = ChannelType { zeroconf: true, ..ChannelType::STATIC_REMOTEKEY };
    let policy = Stubborn(ChannelType::lesser);
    let (types, result) = offered(None, Arc::new(policy), zeroconf).await;
    assert_eq!(types, [ChannelType::ANCHORS, ChannelType::STATIC_REMOTEKEY]);
    assert_eq!(result.unwrap_err(), "peer-error");
    // A policy that goes in circles.
    let circles: Downgrade = |refused| {
        let is_anchors = refused == ChannelType::ANCHORS;
        Some(if is_anchors { ChannelType::STATIC_REMOTEKEY } else { ChannelType::ANCHORS })
    };
    let (types, result) = offered(None, Arc::new(Stubborn(circles)), zeroconf).await;
    assert_eq!(types.len(), 2);
    assert!(result.is_err());
}

#[tokio::test]
async fn without_a_policy_for_it_a_refusal_is_the_end() {
    let policy = AcceptWithin(regtest_bounds());
    let (types, result) = offered(None, Arc::new(policy), ChannelType::STATIC_REMOTEKEY).await;
    assert_eq!(types, [ChannelType::ANCHORS]);
    assert_eq!(result.unwrap_err(), "peer-error");
}

/// A signer that takes static remote keys only.
fn with_a_plain_signer() -> Here {
    let mut bounds = regtest_bounds();
    bounds.limits.channel_types = [ChannelType::STATIC_REMOTEKEY].into_iter().collect();
    Here::with(|node| node.policy = Arc::new(AcceptWithin(bounds)))
}

#[tokio::test]
async fn a_type_that_our_own_side_does_not_take_is_not_offered() {
    let lesser: Arc<dyn Policy> = Arc::new(Stubborn(ChannelType::lesser));
    let plain = ChannelType::STATIC_REMOTEKEY;
    for first in [None, Some(ANCHORS_ALIAS), Some(plain)] {
        let (types, result) = offered_by(with_a_plain_signer(), first, lesser.clone(), plain).await;
        assert_eq!(types, [plain]);
        assert!(result.is_ok());
    }
    let never: Arc<dyn Policy> = Arc::new(Stubborn(|_| None));
    let (types, result) =
        offered_by(with_a_plain_signer(), Some(ANCHORS_ALIAS), never, plain).await;
    assert_eq!((types, result.err()), (vec![], Some("channel-type-not-accepted")));
}

/// Without a type of its own an ask gets the best that is taken.
#[tokio::test]
async fn an_ask_for_any_type_gets_the_best_that_is_taken() {
    let here = with_a_plain_signer();
    let (mut peer, session) = RawPeer::connect(&here.openings, 2).await;
    let _opening = session.open(ask()).await.unwrap();
    let open = peer.expect_open_channel().await;
    let offered = open.common_fields.channel_type.unwrap();
    assert_eq!(ChannelType::from_features(&offered), Some(ChannelType::STATIC_REMOTEKEY));
}
