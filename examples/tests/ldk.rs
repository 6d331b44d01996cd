//! Opening channels with LDK's `ChannelManager` over TCP, in both directions.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use bitcoin::{Amount, Network};
use lightning::events::ClosureReason;
use opening_core::{ChannelType, FeeratePerKw, Limits, MilliSatoshi, Role};
use opening_examples::chain::RegtestChain;
use opening_examples::ldk_node::{Inbound, LdkAsk, LdkNode};
use opening_examples::our_node::OurNode;
use opening_examples::wallet::Wallet;
use opening_peer::session::Batch;
use opening_peer::store::MemoryStore;
use opening_peer::wallet::Funding;
use opening_peer::{Ask, Opened};

struct Stage {
    chain: RegtestChain,
    wallet: Wallet,
    ldk: LdkNode,
    ours: Arc<OurNode>,
}

async fn stage(inbound: Inbound) -> Stage {
    let chain = RegtestChain::default();
    let wallet = Wallet::mined([3; 32], &chain);
    let ldk = LdkNode::start([2; 32], chain.clone(), wallet.clone(), inbound).await.unwrap();
    let ours = OurNode::start([1; 32], chain.clone()).await.unwrap();
    Stage { chain, wallet, ldk, ours }
}

fn ask(channel_type: ChannelType, push_msat: u64) -> Ask {
    Ask {
        funding_satoshis: Amount::from_sat(1_000_000),
        push_msat: MilliSatoshi::from_msat(push_msat),
        feerate_per_kw: FeeratePerKw::new(1250),
        announce_channel: false,
        channel_type: Some(channel_type),
        upfront_shutdown_script: None,
    }
}

impl Stage {
    /// Mines until both ends have the channel in use, and holds LDK's view against ours.
    async fn mine_until_ready(&self, opened: &Opened) {
        for _ in 0..6 {
            self.chain.mine();
        }
        let ready = self.ours.recorder().ready(opened).await.unwrap();
        assert_eq!(ready.opened.channel_id, opened.channel_id);
        let theirs = self
            .ldk
            .channel(|channel| channel.channel_id == opened.channel_id && channel.is_usable)
            .await
            .unwrap();
        let parameters = &opened.parameters;
        assert_eq!(theirs.channel_value_satoshis, parameters.funding_satoshis.to_sat());
        assert_eq!(theirs.channel_type, Some(parameters.channel_type.to_features()));
        assert_eq!(theirs.is_outbound, opened.role() == Role::Fundee);
        assert_eq!(theirs.counterparty.node_id, self.ours.node_id());
        assert_eq!(
            theirs.short_channel_id,
            ready.short_channel_id.map(|id| id.to_u64()),
            "both know where the funding output is"
        );
        assert_eq!(
            theirs.counterparty.unspendable_punishment_reserve,
            parameters.remote.config.channel_reserve_satoshis.to_sat()
        );
        // LDK's names for them are those of payments: inbound ones use the alias that we gave.
        assert_eq!(theirs.inbound_scid_alias, ready.local.alias.map(|alias| alias.to_u64()));
        assert_eq!(theirs.outbound_scid_alias, ready.remote.alias.map(|alias| alias.to_u64()));
        assert_eq!(self.ours.pending(), 0);
    }
}

async fn we_open(channel_type: ChannelType, push_msat: u64) {
    let stage = stage(Inbound::Accept).await;
    let session = stage.ours.connect(stage.ldk.node_id(), stage.ldk.address()).await.unwrap();
    let ask = ask(channel_type, push_msat);
    let (opened, transaction) =
        stage.ours.open_channel(&session, ask, &stage.wallet).await.unwrap();
    assert_eq!(transaction.compute_txid(), opened.parameters.funding_outpoint.txid);
    stage.mine_until_ready(&opened).await;
    // What LDK can spend is what was pushed, less the reserve that we ask of it.
    let theirs = stage.ldk.channels().pop().unwrap();
    let reserve = theirs.unspendable_punishment_reserve.unwrap() * 1000;
    assert_eq!(theirs.outbound_capacity_msat, push_msat.saturating_sub(reserve));
}

async fn ldk_opens(anchors: bool, push_msat: u64) {
    let stage = stage(Inbound::Accept).await;
    stage.ldk.connect(stage.ours.node_id(), stage.ours.address()).await.unwrap();
    let ask = LdkAsk { funding_satoshis: 800_000, push_msat, anchors, announce_channel: false };
    stage.ldk.open_channel(stage.ours.node_id(), ask).unwrap();
    let opened = stage.ours.recorder().opened(0).await.unwrap();
    assert_eq!(opened.parameters.push_msat.to_msat(), push_msat);
    assert_eq!(opened.parameters.channel_type.has_anchors(), anchors);
    // LDK broadcasts when it has our signature.
    stage.chain.accepted(opened.parameters.funding_outpoint.txid).await.unwrap();
    stage.mine_until_ready(&opened).await;
}

// req: B2-TYPE-B-02, B2-EST-B-04, B2-FS-B-02
#[tokio::test]
async fn we_open_static_remotekey() {
    we_open(ChannelType::STATIC_REMOTEKEY, 0).await;
}

// req: B2-OPEN-B-02
#[tokio::test]
async fn we_open_static_remotekey_with_push() {
    we_open(ChannelType::STATIC_REMOTEKEY, 100_000_000).await;
}

// req: B2-TYPE-B-03, B2-EST-B-04, B2-FS-B-02, B2-OPEN-B-03
#[tokio::test]
async fn we_open_anchors() {
    we_open(ChannelType::ANCHORS, 0).await;
}

// req: B2-OPEN-B-02
#[tokio::test]
async fn we_open_anchors_with_push() {
    we_open(ChannelType::ANCHORS, 100_000_000).await;
}

#[tokio::test]
async fn ldk_opens_static_remotekey() {
    ldk_opens(false, 0).await;
}

#[tokio::test]
async fn ldk_opens_static_remotekey_with_push() {
    ldk_opens(false, 50_000_000).await;
}

#[tokio::test]
async fn ldk_opens_anchors() {
    ldk_opens(true, 0).await;
}

#[tokio::test]
async fn ldk_opens_anchors_with_push() {
    ldk_opens(true, 50_000_000).await;
}

/// LDK retries with a lesser type after an `error`; a channel that is too small stays refused.
#[tokio::test]
async fn ldk_is_told_why_its_channel_is_refused() {
    let stage = stage(Inbound::Accept).await;
    stage.ldk.connect(stage.ours.node_id(), stage.ours.address()).await.unwrap();
    let ask =
        LdkAsk { funding_satoshis: 9_999, push_msat: 0, anchors: false, announce_channel: false };
    let id = stage.ldk.open_channel(stage.ours.node_id(), ask).unwrap();
    let failed = stage.ours.recorder().failed(0).await.unwrap();
    assert_eq!(failed.failure.code(), "funding-satoshis-too-small", "{failed}");
    match stage.ldk.closure_reason(id).await {
        Some(ClosureReason::CounterpartyForceClosed { peer_msg }) => {
            let text = peer_msg.to_string();
            assert!(text.contains("9999") && text.contains("10000"), "{text}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(stage.ours.pending(), 0);
}

/// Both use the channel before its funding transaction is in any block.
// req: B2-ACC-S-01, B2-OPEN-R-25
#[tokio::test]
async fn we_open_zeroconf_with_scid_alias() {
    let stage = stage(Inbound::TrustZeroconf).await;
    let session = stage.ours.connect(stage.ldk.node_id(), stage.ldk.address()).await.unwrap();
    let channel_type = ChannelType { scid_alias: true, zeroconf: true, ..ChannelType::ANCHORS };
    let ask = ask(channel_type, 0);
    let (opened, _) = stage.ours.open_channel(&session, ask, &stage.wallet).await.unwrap();
    assert_eq!(opened.minimum_depth, 0);
    let ready = stage.ours.recorder().ready(&opened).await.unwrap();
    assert_eq!(ready.short_channel_id, None);
    let theirs = stage
        .ldk
        .channel(|channel| channel.channel_id == opened.channel_id && channel.is_usable)
        .await
        .unwrap();
    assert_eq!(theirs.channel_type, Some(channel_type.to_features()));
    assert_eq!(theirs.short_channel_id, None, "nothing is mined");
    assert_eq!(theirs.inbound_scid_alias, ready.local.alias.map(|alias| alias.to_u64()));
}

/// Both remember the channel: `channel_reestablish` passes in both directions before anything
/// else, and the channel comes into use.
// req: B2-RE-B-02, B2-RE-B-06, B2-RE-B-08
#[tokio::test]
async fn a_channel_goes_on_with_ldk_over_a_new_connection() {
    for mined_while_apart in [0, 6] {
        let stage = stage(Inbound::Accept).await;
        let mut session =
            stage.ours.connect(stage.ldk.node_id(), stage.ldk.address()).await.unwrap();
        let ask = ask(ChannelType::ANCHORS, 0);
        let (opened, _) = stage.ours.open_channel(&session, ask, &stage.wallet).await.unwrap();
        session.close().await;
        for _ in 0..mined_while_apart {
            stage.chain.mine();
        }
        let _again = stage.ours.connect(stage.ldk.node_id(), stage.ldk.address()).await.unwrap();
        stage.mine_until_ready(&opened).await;
    }
}

/// LDK's channel, of which our node knows only what its store has.
// req: B2-RE-B-04, B2-RE-B-06, B2-RE-B-08
#[tokio::test]
async fn a_channel_of_ldk_goes_on_after_our_restart() {
    for mined_before in [0, 4] {
        let chain = RegtestChain::default();
        let wallet = Wallet::mined([3; 32], &chain);
        let ldk = LdkNode::start([2; 32], chain.clone(), wallet.clone(), Inbound::Accept);
        let ldk = ldk.await.unwrap();
        let store = Arc::new(MemoryStore::default());
        let start = || {
            let limits = Limits::for_network(Network::Regtest);
            OurNode::with_store([1; 32], chain.clone(), limits, store.clone())
        };
        let before = start().await.unwrap();
        ldk.connect(before.node_id(), before.address()).await.unwrap();
        let ask = LdkAsk {
            funding_satoshis: 800_000,
            push_msat: 0,
            anchors: true,
            announce_channel: false,
        };
        ldk.open_channel(before.node_id(), ask).unwrap();
        let opened = before.recorder().opened(0).await.unwrap();
        chain.accepted(opened.parameters.funding_outpoint.txid).await.unwrap();
        for _ in 0..mined_before {
            chain.mine();
        }
        // At depth 4 our channel_ready was made; LDK waits for 6, so that ours comes again.
        before.stop().await;

        let ours = start().await.unwrap();
        let _session = ours.connect(ldk.node_id(), ldk.address()).await.unwrap();
        let stage = Stage { chain, wallet, ldk, ours };
        stage.mine_until_ready(&opened).await;
    }
}

/// One transaction funds a channel with LDK and one with another node of ours.
#[tokio::test]
async fn a_batch_funds_channels_with_ldk_and_with_us() {
    let stage = stage(Inbound::Accept).await;
    let other = OurNode::start([4; 32], stage.chain.clone()).await.unwrap();
    let with_ldk = stage.ours.connect(stage.ldk.node_id(), stage.ldk.address()).await.unwrap();
    let with_other = stage.ours.connect(other.node_id(), other.address()).await.unwrap();
    let mut accepted = Vec::new();
    for (session, channel_type) in
        [(&with_ldk, ChannelType::ANCHORS), (&with_other, ChannelType::STATIC_REMOTEKEY)]
    {
        let opening = session.open(ask(channel_type, 0)).await.unwrap();
        accepted.push(opening.accepted().await.unwrap());
    }
    let batch = Batch::new(accepted);
    let built = stage.wallet.build(&batch.outputs()).await.unwrap();
    let mut pending = batch.complete(built.clone()).await.unwrap();
    let (channels, permit) = pending.opened().await.unwrap();
    assert_eq!(stage.ldk.channels().len(), 1);
    stage.wallet.sign_and_broadcast(&permit, &built).await.unwrap();
    stage.mine_until_ready(&channels[0]).await;
    for node in [&stage.ours, &other] {
        let ready = node.recorder().ready(&channels[1]).await.unwrap();
        assert_eq!(ready.opened.parameters.funding_outpoint.txid, permit.txid());
    }
}
