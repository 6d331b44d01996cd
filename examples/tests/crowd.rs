//! A crowd of peers around one node, over TCP, with LDK's nodes among them: everyone opens with it
//! and it with everyone, at the same time.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::sync::Arc;

use bitcoin::{Amount, Txid};
use futures::future::join_all;
use opening_core::{FeeratePerKw, MilliSatoshi, Role};
use opening_examples::chain::RegtestChain;
use opening_examples::ldk_node::{Inbound, LdkAsk, LdkNode};
use opening_examples::our_node::OurNode;
use opening_examples::wallet::Wallet;
use opening_peer::{Ask, Event, Opened};

const LDK_PEERS: u8 = 6;
const OUR_PEERS: u8 = 194;

/// Amounts that no other opening of the crowd has: satoshis, and millisatoshis pushed.
fn amounts(peer: u8, role_of_hub: Role) -> (u64, u64) {
    let which = u64::from(peer) * 2 + u64::from(role_of_hub == Role::Fundee);
    (500_000 + which, 1000 * (10_000 + which))
}

fn ask((funding_satoshis, push_msat): (u64, u64)) -> Ask {
    Ask {
        push_msat: MilliSatoshi::from_msat(push_msat),
        ..Ask::new(Amount::from_sat(funding_satoshis), FeeratePerKw::new(1250))
    }
}

struct Crowd {
    chain: RegtestChain,
    hub: Arc<OurNode>,
    /// The hub's own.
    wallet: Wallet,
}

impl Crowd {
    /// The channel that the hub has with this peer in this role, once it is opened.
    async fn opened(&self, peer: bitcoin::secp256k1::PublicKey, role: Role) -> Arc<Opened> {
        let found = |event: &Event| match event {
            Event::Opened(it) if it.reference.peer == peer && it.role() == role => Some(it.clone()),
            _ => None,
        };
        self.hub.recorder().find(0, found).await.unwrap()
    }

    fn assert_amounts(&self, opened: &Opened, (funding_satoshis, push_msat): (u64, u64)) {
        let parameters = &opened.parameters;
        assert_eq!(parameters.funding_satoshis.to_sat(), funding_satoshis);
        assert_eq!(parameters.push_msat.to_msat(), push_msat);
    }

    /// Both directions with a node of LDK's.
    async fn with_ldk(&self, number: u8, ldk: &LdkNode) -> [Arc<Opened>; 2] {
        let session = self.hub.connect(ldk.node_id(), ldk.address()).await.unwrap();
        ldk.connected(self.hub.node_id()).await.unwrap();
        let (ours, theirs) = (amounts(number, Role::Funder), amounts(number, Role::Fundee));
        let theirs_ask = LdkAsk {
            funding_satoshis: theirs.0,
            push_msat: theirs.1,
            anchors: true,
            announce_channel: false,
        };
        let their_opening = async {
            ldk.open_channel(self.hub.node_id(), theirs_ask).unwrap();
            let opened = self.opened(ldk.node_id(), Role::Fundee).await;
            let txid = opened.parameters.funding_outpoint.txid;
            self.chain.accepted(txid).await.unwrap();
            opened
        };
        let our_opening = self.hub.open_channel(&session, ask(ours), &self.wallet);
        let (our_opening, their_opened) = tokio::join!(our_opening, their_opening);
        let (our_opened, _) = our_opening.unwrap();
        self.assert_amounts(&our_opened, ours);
        self.assert_amounts(&their_opened, theirs);
        [our_opened, their_opened]
    }

    /// Both directions with a node of ours.
    async fn with_ours(&self, number: u8, peer: &OurNode, wallet: &Wallet) -> [Arc<Opened>; 2] {
        let at_peer = peer.connect(self.hub.node_id(), self.hub.address()).await.unwrap();
        let at_hub = self.hub.session(&peer.node_id()).await.unwrap();
        let (ours, theirs) = (amounts(number, Role::Funder), amounts(number, Role::Fundee));
        let (our_opening, their_opening) = tokio::join!(
            self.hub.open_channel(&at_hub, ask(ours), &self.wallet),
            peer.open_channel(&at_peer, ask(theirs), wallet),
        );
        let (our_opened, _) = our_opening.unwrap();
        let (their_opened, _) = their_opening.unwrap();
        let at_hub = self.opened(peer.node_id(), Role::Fundee).await;
        assert_eq!(at_hub.channel_id, their_opened.channel_id);
        assert_eq!(at_hub.parameters.local, their_opened.parameters.remote);
        self.assert_amounts(&our_opened, ours);
        self.assert_amounts(&at_hub, theirs);
        [our_opened, at_hub]
    }
}

// req: B1-CONN-01
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ldk_peers_in_a_crowd_open_both_ways_with_one_node() {
    let chain = RegtestChain::default();
    let wallet = Wallet::with_coins([3; 32], &chain, u32::from(LDK_PEERS + OUR_PEERS));
    let peers_wallet = Wallet::with_coins([4; 32], &chain, u32::from(LDK_PEERS + OUR_PEERS));
    let hub = OurNode::start([1; 32], chain.clone()).await.unwrap();
    let crowd = Crowd { chain: chain.clone(), hub: hub.clone(), wallet };
    let (mut ldk, mut ours) = (Vec::new(), Vec::new());
    for number in 0..LDK_PEERS {
        let seed = [0x40 + number; 32];
        let wallet = peers_wallet.clone();
        ldk.push(LdkNode::start(seed, chain.clone(), wallet, Inbound::Accept).await.unwrap());
    }
    for number in 0..OUR_PEERS {
        let mut seed = [0x80; 32];
        seed[0] = number;
        ours.push(OurNode::start(seed, chain.clone()).await.unwrap());
    }

    let with_ldk = ldk.iter().zip(0..).map(|(peer, number)| crowd.with_ldk(number, peer));
    let with_ours = ours.iter().zip(LDK_PEERS..);
    let with_ours = with_ours.map(|(peer, number)| crowd.with_ours(number, peer, &peers_wallet));
    let (with_ldk, with_ours) = tokio::join!(join_all(with_ldk), join_all(with_ours));
    for _ in 0..6 {
        chain.mine();
    }

    let mut by_transaction: HashMap<Txid, Arc<Opened>> = HashMap::new();
    for opened in with_ldk.iter().chain(&with_ours).flatten() {
        let ready = hub.recorder().ready(opened).await.unwrap();
        assert_eq!(ready.opened, *opened);
        by_transaction.insert(opened.parameters.funding_outpoint.txid, opened.clone());
    }
    assert_eq!(by_transaction.len(), 2 * usize::from(LDK_PEERS + OUR_PEERS));
    for (peer, channels) in ldk.iter().zip(&with_ldk) {
        for opened in channels {
            let theirs = peer
                .channel(|it| it.channel_id == opened.channel_id && it.is_usable)
                .await
                .unwrap();
            let amount = opened.parameters.funding_satoshis.to_sat();
            assert_eq!(theirs.channel_value_satoshis, amount);
            assert_eq!(theirs.is_outbound, opened.role() == Role::Fundee);
            assert_eq!(theirs.counterparty.node_id, hub.node_id());
        }
        assert_eq!(peer.channels().len(), 2);
    }
    for (peer, channels) in ours.iter().zip(&with_ours) {
        for opened in channels {
            let ready = peer.recorder().ready(opened).await.unwrap();
            assert_eq!(ready.opened.parameters.remote, opened.parameters.local);
        }
    }
    assert_eq!(hub.pending(), 0);
    let failed = hub.recorder().since(0);
    assert!(!failed.iter().any(|seen| matches!(&*seen.event, Event::Failed(_) | Event::Ended(_))));
}
