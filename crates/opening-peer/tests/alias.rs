//! Aliases, and channels that are used before they confirm.

// Clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bitcoin::secp256k1::PublicKey;
use common::lasting::{Funded, Lasting, PEER};
use common::raw_peer::RawPeer;
use common::{node_id, regtest_bounds};
use lightning::ln::msgs::OpenChannel;
use lightning::ln::types::ChannelId;
use opening_core::{ChannelType, ShortChannelId, Terms};
use opening_peer::message::Message;
use opening_peer::node::{Bounds, Decision, Entropy, OfferDetails, Policy};
use opening_peer::openings::ConfirmError;
use opening_peer::{Event, Node};

const ZEROCONF: ChannelType = ChannelType { zeroconf: true, ..ChannelType::ANCHORS };
const PRIVATE: ChannelType = ChannelType { scid_alias: true, ..ChannelType::ANCHORS };

/// Where the funding output of every test's channel is.
fn place() -> ShortChannelId {
    ShortChannelId::new(102, 1, 0).unwrap()
}

fn typed(channel_type: ChannelType) -> impl Fn(&mut OpenChannel) {
    move |open| open.common_fields.channel_type = Some(channel_type.to_features())
}

/// Gives these numbers, then repeats the last.
struct Script(Mutex<VecDeque<u64>>);

impl Entropy for Script {
    fn bytes(&self) -> [u8; 32] {
        let mut script = self.0.lock().unwrap();
        let next = if script.len() > 1 { script.pop_front() } else { script.front().copied() };
        let mut bytes = [0x77; 32];
        bytes[..8].copy_from_slice(&next.unwrap().to_be_bytes());
        bytes
    }
}

fn scripted(numbers: &'static [u64]) -> impl Fn(&mut Node) {
    move |node| {
        node.entropy = Arc::new(Script(Mutex::new(numbers.iter().copied().collect())));
    }
}

async fn alias_said(peer: &mut RawPeer, channel: &Funded) -> ShortChannelId {
    let said = peer.expect_channel_ready(channel.id).await;
    ShortChannelId::from_u64(said.short_channel_id_alias.unwrap())
}

// req: B2-CR-S-09, B2-CR-S-11
#[tokio::test]
async fn every_alias_ever_given_names_the_channel_here_and_after_a_restart() {
    let mut node = Lasting::new().await;
    let (mut peer, session) = node.connect().await;
    let channel = node.they_fund(&mut peer, |_| {}).await;
    let early = node.openings.new_alias(channel.id).await;
    assert_eq!(early, Err(ConfirmError::NotReady), "before our first channel_ready");
    node.confirm(&channel, 3).await.unwrap();
    let first = peer.expect_channel_ready(channel.id).await;
    let mut aliases = vec![ShortChannelId::from_u64(first.short_channel_id_alias.unwrap())];
    for _ in 0..3 {
        let alias = node.openings.new_alias(channel.id).await.unwrap();
        let again = peer.expect_channel_ready(channel.id).await;
        assert_eq!(again.short_channel_id_alias, Some(alias.to_u64()));
        assert_eq!(again.next_per_commitment_point, first.next_per_commitment_point);
        assert!(!aliases.contains(&alias));
        aliases.push(alias);
    }
    // In use, too.
    peer.send(&peer.channel_ready(channel.id)).await;
    node.ready(&channel).await;
    aliases.push(node.openings.new_alias(channel.id).await.unwrap());
    assert_eq!(alias_said(&mut peer, &channel).await, aliases[4]);
    peer.expect_silence().await;
    drop((peer, session));
    for _ in 0..2 {
        for alias in &aliases {
            assert_eq!(node.openings.channel_known_as(*alias), Some(channel.id));
        }
        assert_eq!(node.openings.channel_known_as(ShortChannelId::from_u64(1)), None);
        node.restart().await;
    }
    let unknown = node.openings.new_alias(ChannelId([9; 32])).await;
    assert_eq!(unknown, Err(ConfirmError::UnknownChannel));
}

// req: B2-CR-S-09, B2-CR-S-10
#[tokio::test]
async fn the_real_id_names_a_channel_unless_its_type_hides_it() {
    for (channel_type, is_known) in [(ChannelType::ANCHORS, true), (PRIVATE, false)] {
        let node = Lasting::new().await;
        let (mut peer, _session) = node.connect().await;
        let channel = node.they_fund(&mut peer, typed(channel_type)).await;
        assert_eq!(node.openings.channel_known_as(place()), None);
        node.confirm(&channel, 3).await.unwrap();
        let alias = alias_said(&mut peer, &channel).await;
        let known = node.openings.channel_known_as(place());
        assert_eq!(known, is_known.then_some(channel.id));
        assert_eq!(node.openings.channel_known_as(alias), Some(channel.id));
        // It is where it was: out of the chain there is no such place.
        node.openings.unconfirmed(&channel.id).unwrap();
        assert_eq!(node.openings.channel_known_as(place()), None);
        assert_eq!(node.openings.channel_known_as(alias), Some(channel.id));
    }
}

// req: B2-CR-R-01, B2-CR-R-02, B7-UPD-B-01, B7-UPD-B-02
#[tokio::test]
async fn others_pay_by_the_peers_latest_alias_and_never_by_a_hidden_real_id() {
    let (one, other) = (ShortChannelId::from_u64(0x1111), ShortChannelId::from_u64(0x2222));
    for channel_type in [ChannelType::ANCHORS, PRIVATE] {
        for aliases in [&[][..], &[one], &[one, other]] {
            let node = Lasting::new().await;
            let (mut peer, _session) = node.connect().await;
            let channel = node.they_fund(&mut peer, typed(channel_type)).await;
            // They come before our own: each may be used, the last one is.
            for alias in aliases {
                peer.send(&peer.channel_ready_as(channel.id, *alias)).await;
                peer.expect_silence().await;
            }
            node.confirm(&channel, 3).await.unwrap();
            peer.expect_channel_ready(channel.id).await;
            if aliases.is_empty() {
                // Nothing that others may be told, before the peer has said channel_ready.
                peer.expect_silence().await;
                assert_eq!(node.readies(), 0);
                peer.send(&peer.channel_ready(channel.id)).await;
            }
            let ready = node.ready(&channel).await;
            assert_eq!(ready.short_channel_id, Some(place()));
            let real = (channel_type == ChannelType::ANCHORS).then(place);
            assert_eq!(ready.route_hint(), aliases.last().copied().or(real));
        }
    }
}

// req: B2-CR-S-08
#[tokio::test]
async fn an_alias_is_never_another_channels_nor_a_real_id_of_this_node() {
    const REAL: u64 = (102 << 40) | (1 << 16);
    assert_eq!(REAL, place().to_u64());
    const ELSEWHERE: u64 = 0xe15e;
    let numbers = &[0xa, 0xa, REAL, ELSEWHERE, 0xb, 0xb, 0xa, ELSEWHERE, 0xc];
    let node = Lasting::with(scripted(numbers)).await;
    node.openings.taken_short_channel_ids([ShortChannelId::from_u64(ELSEWHERE)]);
    let (mut peer, _session) = node.connect().await;
    let (mut other, _other_session) = RawPeer::connect(&node.openings, PEER + 1).await;
    let one = node.they_fund(&mut peer, |_| {}).await;
    let two = node.they_fund(&mut other, |_| {}).await;
    node.confirm(&one, 3).await.unwrap();
    assert_eq!(alias_said(&mut peer, &one).await, ShortChannelId::from_u64(0xa));
    node.confirm(&two, 3).await.unwrap();
    assert_eq!(alias_said(&mut other, &two).await, ShortChannelId::from_u64(0xb));
    let more = node.openings.new_alias(two.id).await.unwrap();
    assert_eq!(more, ShortChannelId::from_u64(0xc));
    assert_eq!(alias_said(&mut other, &two).await, more);
    // Entropy that gives nothing else any more is named, and no alias is given twice.
    assert_eq!(node.openings.new_alias(one.id).await, Err(ConfirmError::NotReady));
    peer.expect_silence().await;
    assert_eq!(node.openings.channel_known_as(more), Some(two.id));
}

/// Trusts some peers, asks others to wait, and turns the rest away.
struct ByPeer;

const TRUSTED: u8 = 31;
const CAUTIOUS: u8 = 32;
const REFUSED: u8 = 33;

#[async_trait]
impl Policy for ByPeer {
    async fn bounds(&self, peer: &PublicKey) -> Bounds {
        let mut bounds = regtest_bounds();
        bounds.limits.trust_zeroconf = *peer == node_id(TRUSTED);
        if *peer == node_id(CAUTIOUS) {
            bounds.limits.minimum_depth = 6;
        }
        bounds
    }

    async fn decide(&self, _peer: &PublicKey, _offer: &OfferDetails<'_>) -> Decision {
        Decision::Accept(Terms::default())
    }
}

async fn by_peer() -> Lasting {
    Lasting::with(|node| node.policy = Arc::new(ByPeer)).await
}

// req: B2-OPEN-R-25, B2-ACC-S-01, B2-CR-S-02
#[tokio::test]
async fn the_policy_says_whom_it_trusts_with_an_unconfirmed_channel() {
    let node = by_peer().await;
    for (secret, plain_depth) in [(TRUSTED, 3), (CAUTIOUS, 6), (REFUSED, 3)] {
        let (mut peer, _session) = RawPeer::connect(&node.openings, secret).await;
        let id = ChannelId([0xd0; 32]);
        let mut open = peer.open_channel(id);
        typed(ZEROCONF)(&mut open);
        peer.send(&open).await;
        match peer.receive().await {
            Message::AcceptChannel(accept) => {
                assert_eq!((secret, accept.common_fields.minimum_depth), (TRUSTED, 0));
                peer.send_error(id, "enough").await;
            }
            Message::Error(error) => {
                assert_ne!(secret, TRUSTED);
                assert_eq!(error.channel_id, id);
            }
            other => panic!("{other:?}"),
        }
        // Without the type nobody is trusted, but everyone may wait.
        let open = peer.open_channel(ChannelId([0xd1; 32]));
        peer.send(&open).await;
        let accept = peer.expect_accept_channel(open.common_fields.temporary_channel_id).await;
        assert_eq!(accept.common_fields.minimum_depth, plain_depth);
    }
    let codes = node.seen.all(|event| match event {
        // What was only accepted ends with its connection.
        Event::Failed(failed) => Some(failed.failure.code()).filter(|code| *code != "cancelled"),
        _ => None,
    });
    assert_eq!(codes, ["peer-error", "zeroconf-untrusted", "zeroconf-untrusted"]);
}

// req: B2-CR-S-02, B2-CR-S-04
#[tokio::test]
async fn a_zeroconf_channel_is_used_by_alias_until_it_has_a_place() {
    let node = by_peer().await;
    let (mut peer, _session) = RawPeer::connect(&node.openings, TRUSTED).await;
    let channel = node.they_fund(&mut peer, typed(ZEROCONF)).await;
    // Right behind funding_signed.
    let alias = alias_said(&mut peer, &channel).await;
    let theirs = ShortChannelId::from_u64(0x5555);
    peer.send(&peer.channel_ready_as(channel.id, theirs)).await;
    let ready = node.ready(&channel).await;
    assert_eq!((ready.short_channel_id, ready.route_hint()), (None, Some(theirs)));
    assert_eq!(node.openings.channel_known_as(alias), Some(channel.id));
    node.confirm(&channel, 1).await.unwrap();
    assert_eq!(node.openings.channel_known_as(place()), Some(channel.id));
    node.openings.unconfirmed(&channel.id).unwrap();
    assert_eq!(node.openings.channel_known_as(place()), None);
    assert_eq!(node.openings.channel_known_as(alias), Some(channel.id));
    peer.expect_silence().await;
    assert_eq!((node.readies(), node.ends()), (1, vec![]));
}

/// Used at once, it is nevertheless checked when it confirms: the peer may have named any outpoint.
// req: B2-CR-S-01
#[tokio::test]
async fn a_zeroconf_channel_that_turns_out_to_be_none_fails() {
    let node = by_peer().await;
    let (mut peer, _session) = RawPeer::connect(&node.openings, TRUSTED).await;
    let fund = |output: &opening_core::FundingOutput, index| {
        let mut transaction = common::funding_transaction(output, index);
        transaction.output[0].value -= bitcoin::Amount::ONE_SAT;
        transaction
    };
    let channel = node.they_fund_by(&mut peer, typed(ZEROCONF), fund).await;
    peer.expect_channel_ready(channel.id).await;
    assert!(node.confirm(&channel, 1).await.is_err());
    peer.expect_error(channel.id).await;
    assert_eq!(node.ends(), ["wrong-funding-output"]);
    peer.send(&peer.channel_ready(channel.id)).await;
    peer.expect_silence().await;
    assert_eq!(node.readies(), 0);
}
