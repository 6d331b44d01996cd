//! Whole openings between two nodes of ours.

mod common;

use common::{ask, confirmation, connect, funding_transaction, node, signed};
use opening_core::{ChannelType, MilliSatoshi, Role};
use opening_peer::FundingTransaction;

// req: B2-EST-B-02, B2-EST-B-03, B2-EST-B-04
#[tokio::test]
async fn both_ends_open_the_same_channel_and_reach_channel_ready() {
    let (funder, fundee) = connect(node(1), node(2)).await;
    let pending = funder.session.open(ask()).await.unwrap().accepted().await.unwrap();
    let output = pending.needed().output.clone();
    let mut signing = pending.complete(signed(&output)).await.unwrap();
    let (opened, permit) = signing.opened().await.unwrap();
    assert_eq!(permit.txid(), opened.parameters.funding_outpoint.txid);

    let theirs = fundee.seen.opened().await;
    assert_eq!(theirs.channel_id, opened.channel_id);
    assert_eq!(theirs.role(), Role::Fundee);
    assert_eq!(theirs.local_commitment.transaction, opened.remote_commitment.transaction);
    assert_eq!(theirs.remote_commitment.transaction, opened.local_commitment.transaction);
    assert_eq!(opened.parameters.channel_type, ChannelType::ANCHORS);

    let transaction = funding_transaction(&output, 0);
    let at = |depth| confirmation(&transaction, depth);
    funder.openings.confirmed(opened.channel_id, at(2)).await.unwrap();
    fundee.openings.confirmed(opened.channel_id, at(2)).await.unwrap();
    assert!(!funder.seen.lines().iter().any(|line| line.ends_with("ready")));
    funder.openings.confirmed(opened.channel_id, at(3)).await.unwrap();
    fundee.openings.confirmed(opened.channel_id, at(3)).await.unwrap();

    let (ours, theirs) = (funder.seen.ready().await, fundee.seen.ready().await);
    assert_eq!(ours.local.second_per_commitment_point, theirs.remote.second_per_commitment_point);
    assert_eq!(ours.remote.alias, theirs.local.alias);
    assert_eq!(ours.short_channel_id.unwrap().to_string(), "102x1x0");
    assert_eq!((funder.openings.pending(), fundee.openings.pending()), (0, 0));
}

#[tokio::test]
async fn a_push_is_the_fundees_from_the_start() {
    let (funder, fundee) = connect(node(1), node(2)).await;
    let push = MilliSatoshi::from_msat(200_000_999);
    let ask = opening_peer::Ask { push_msat: push, ..ask() };
    let pending = funder.session.open(ask).await.unwrap().accepted().await.unwrap();
    let transaction = funding_transaction(&pending.needed().output, 3);
    let mut signing = pending.complete(FundingTransaction::Signed(transaction)).await.unwrap();
    let (opened, _permit) = signing.opened().await.unwrap();
    assert_eq!(opened.parameters.funding_outpoint.vout, 3);
    let theirs = fundee.seen.opened().await;
    let to_local = theirs.local_commitment.to_local.unwrap();
    let value = theirs.local_commitment.transaction.output[to_local].value;
    assert_eq!(value.to_sat(), 200_000);
}

/// Far more than the connection holds, both ways at once, and an opening in the middle of it.
#[tokio::test]
async fn gossip_both_ways_stops_neither_side_nor_an_opening() {
    let (one, other) = connect(node(1), node(2)).await;
    // channel_update: the node on the other side does nothing with it.
    let gossip = [vec![1, 2], vec![0; 60_000]].concat();
    let send = |session: opening_peer::Session, gossip: Vec<u8>| async move {
        for _ in 0..40 {
            session.send(gossip.clone()).await.unwrap();
        }
    };
    let opening = async {
        let pending = one.session.open(ask()).await.unwrap().accepted().await.unwrap();
        let output = pending.needed().output.clone();
        pending.complete(signed(&output)).await.unwrap().opened().await.unwrap()
    };
    let both = async {
        tokio::join!(
            send(one.session.clone(), gossip.clone()),
            send(other.session.clone(), gossip.clone()),
            opening,
        )
    };
    let ((), (), (opened, _permit)) =
        tokio::time::timeout(std::time::Duration::from_secs(10), both).await.unwrap();
    assert_eq!(other.seen.opened().await.channel_id, opened.channel_id);
}
