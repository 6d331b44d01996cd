//! How everything stands, in every stage, and what the log says of it.

// Clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use common::here::Here;
use common::raw_peer::{RawPeer, channel_id, made_up_outpoint};
use common::{ask, confirmation, funding_transaction, node_id};
use lightning::ln::msgs::ChannelReady;
use lightning::ln::types::ChannelId;
use opening_core::Role;
use opening_peer::failure::Stage;
use opening_peer::node::PublicText;
use opening_peer::openings::{LastFailure, Under};
use opening_peer::{Event, FundingTransaction};

const ID: ChannelId = ChannelId([0x55; 32]);
const PEER: u8 = 2;

async fn only(here: &Here) -> Under {
    let status = here.openings.status().await;
    assert!(status.failures.is_empty(), "{status:?}");
    let [under] = status.under_way[..] else { panic!("{status:?}") };
    assert_eq!(under.peer, node_id(PEER));
    under
}

/// The one opening has come so far; the events tell the same.
async fn stands(here: &Here, role: Role, stage: Stage, id: Option<ChannelId>) {
    let came = |event: &Event| {
        matches!(event, Event::Progress { stage: it, .. } if *it == stage)
            .then(|| event.to_string())
    };
    let line = here.seen.find(came).await;
    assert!(line.contains(&stage.to_string()), "{line}");
    let under = only(here).await;
    assert_eq!((under.role, under.stage, under.channel_id), (role, stage, id));
}

async fn ready_of(peer: &RawPeer, channel_id: ChannelId) -> ChannelReady {
    let next_per_commitment_point = peer.point(9);
    ChannelReady { channel_id, next_per_commitment_point, short_channel_id_alias: None }
}

#[tokio::test]
async fn every_stage_of_a_funder_is_shown() {
    let here = Here::new();
    let (mut peer, session) = RawPeer::connect(&here.openings, PEER).await;
    here.valves.keys.shut();
    let opening = tokio::spawn({
        let session = session.clone();
        async move { session.open(ask()).await.unwrap() }
    });
    here.valves.keys.reached().await;
    stands(&here, Role::Funder, Stage::Keys, None).await;
    here.valves.keys.open();
    let opening = opening.await.unwrap();
    let open = peer.expect_open_channel().await;
    stands(&here, Role::Funder, Stage::AcceptChannel, None).await;
    let accept = peer.accept_channel(&open);
    peer.send(&accept).await;
    let pending = opening.accepted().await.unwrap();
    stands(&here, Role::Funder, Stage::Funding, None).await;
    assert_eq!(only(&here).await.temporary_channel_id, pending.temporary_channel_id());

    here.valves.sign.shut();
    let transaction = funding_transaction(&pending.needed().output, 0);
    let funding = FundingTransaction::Signed(transaction.clone());
    let completing = tokio::spawn(pending.complete(funding));
    here.valves.sign.reached().await;
    let id = Some(ChannelId(
        opening_core::channel_id(bitcoin::OutPoint { txid: transaction.compute_txid(), vout: 0 })
            .unwrap(),
    ));
    stands(&here, Role::Funder, Stage::Signature, id).await;
    here.valves.sign.open();
    let mut signing = completing.await.unwrap().unwrap();
    let created = peer.expect_funding_created().await;
    stands(&here, Role::Funder, Stage::FundingSigned, id).await;
    here.valves.validate.shut();
    here.valves.save.shut();
    peer.send(&peer.funding_signed(&open, &accept, &created)).await;
    here.valves.validate.reached().await;
    stands(&here, Role::Funder, Stage::Validation, id).await;
    here.valves.validate.open();
    here.valves.save.reached().await;
    stands(&here, Role::Funder, Stage::Save, id).await;
    here.valves.save.open();
    let (opened, _permit) = signing.opened().await.unwrap();
    stands(&here, Role::Funder, Stage::Depth, id).await;
    here.openings.confirmed(opened.channel_id, confirmation(&transaction, 3)).await.unwrap();
    stands(&here, Role::Funder, Stage::ChannelReady, id).await;
    peer.send(&ready_of(&peer, opened.channel_id).await).await;
    here.seen.ready().await;
    let under = only(&here).await;
    assert_eq!((under.stage, under.channel_id), (Stage::Ready, id));
    here.openings.release(&opened.channel_id).await.unwrap();
    assert!(here.openings.status().await.under_way.is_empty());
}

#[tokio::test]
async fn every_stage_of_a_fundee_is_shown() {
    let here = Here::new();
    let (mut peer, mut session) = RawPeer::connect(&here.openings, PEER).await;
    here.valves.decide.shut();
    let open = peer.open_channel(ID);
    peer.send(&open).await;
    here.valves.decide.reached().await;
    stands(&here, Role::Fundee, Stage::Decision, None).await;
    here.valves.decide.open();
    let accept = peer.expect_accept_channel(ID).await;
    stands(&here, Role::Fundee, Stage::FundingCreated, None).await;
    assert_eq!(only(&here).await.temporary_channel_id, ID);
    here.valves.validate.shut();
    here.valves.save.shut();
    let outpoint = made_up_outpoint(1, 0);
    let id = Some(channel_id(outpoint));
    peer.send(&peer.funding_created(&open, &accept, outpoint)).await;
    here.valves.validate.reached().await;
    stands(&here, Role::Fundee, Stage::Commitments, id).await;
    here.valves.validate.open();
    here.valves.save.reached().await;
    stands(&here, Role::Fundee, Stage::Save, id).await;
    here.valves.save.open();
    peer.expect_funding_signed().await;
    stands(&here, Role::Fundee, Stage::Depth, id).await;

    // What went wrong last is told after the connection has ended, and what goes on as well.
    here.openings.fail(&channel_id(outpoint), &PublicText::new("enough")).await.unwrap();
    peer.expect_error(channel_id(outpoint)).await;
    session.close().await;
    let status = here.openings.status().await;
    let [under] = status.under_way[..] else { panic!("{status:?}") };
    assert_eq!((under.stage, under.channel_id), (Stage::Failed, id));
    let [LastFailure::Ended(ended)] = &status.failures[..] else { panic!("{status:?}") };
    assert_eq!(ended.end.code(), "node-error");
}

/// openingd's billboard forgets with the daemon; this one is asked by operators who come later.
#[tokio::test]
async fn the_last_failure_with_each_peer_is_kept_after_it_has_gone() {
    let here = Here::new();
    for (secret, text) in [(2, "first"), (3, "other"), (2, "second")] {
        let (mut peer, mut session) = RawPeer::connect(&here.openings, secret).await;
        peer.send(&peer.open_channel(ID)).await;
        peer.expect_accept_channel(ID).await;
        peer.send_error(ID, text).await;
        here.failed().await;
        session.close().await;
    }
    let status = here.openings.status().await;
    assert!(status.under_way.is_empty());
    let told: Vec<_> = status
        .failures
        .iter()
        .map(|failure| match failure {
            LastFailure::Failed(peer, failed) => (*peer, failed.to_string()),
            other => panic!("{other:?}"),
        })
        .collect();
    let line = |text| {
        format!(
            "fundee {ID} failed: the peer ended it: {text} \
             (accepted, waiting for funding_created) [peer-error]"
        )
    };
    assert_eq!(told, [(node_id(3), line("other")), (node_id(2), line("second"))]);
}

/// However many fail, so many failures are kept: the newest.
#[tokio::test]
async fn failures_of_ever_new_peers_are_kept_up_to_a_bound() {
    let here = Here::new();
    let offer = {
        let (peer, _session) = RawPeer::connect(&here.openings, PEER).await;
        opening_peer::message::encode(&peer.open_channel(ChannelId([0; 32])))
    };
    let secp = bitcoin::secp256k1::Secp256k1::new();
    for number in 1..=1100u32 {
        let mut secret = [0x31; 32];
        secret[..4].copy_from_slice(&number.to_be_bytes());
        let secret = bitcoin::secp256k1::SecretKey::from_slice(&secret).unwrap();
        let (near, far) = opening_peer::transport::in_memory_pair();
        let features = opening_core::NegotiatedFeatures {
            local: opening_peer::session::default_features(),
            remote: opening_peer::session::default_features(),
        };
        let peer = secret.public_key(&secp);
        let _session = opening_peer::Session::adopt(here.openings.clone(), peer, features, near);
        let (_reader, mut writer) = far.split();
        writer.queue(&offer).unwrap();
        writer.flush().await.unwrap();
        assert_eq!(here.failed().await.failure.code(), "temporary-channel-id-taken");
        if number > 1000 {
            let failures = here.openings.status().await.failures;
            assert_eq!(failures.len(), 1000);
            assert_eq!(failures[999].peer(), peer);
        }
    }
}

/// A log that keeps the targets only.
struct Targets(Mutex<BTreeSet<String>>);

static TARGETS: Targets = Targets(Mutex::new(BTreeSet::new()));

impl log::Log for Targets {
    fn enabled(&self, _metadata: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        self.0.lock().unwrap().insert(record.target().to_owned());
    }

    fn flush(&self) {}
}

/// A filter on the crate's name catches all that the crate says.
#[tokio::test]
async fn every_line_of_the_log_is_under_the_crate_s_name() {
    log::set_logger(&TARGETS).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let here = Here::new();
    let (mut peer, mut session) = RawPeer::connect(&here.openings, PEER).await;
    let outpoint = made_up_outpoint(1, 0);
    peer.open(&peer.open_channel(ID), outpoint).await;
    peer.send(&peer.open_channel(ID)).await;
    peer.expect_accept_channel(ID).await;
    peer.send_error(ID, "enough").await;
    here.failed().await;
    here.openings.fail(&channel_id(outpoint), &PublicText::new("enough")).await.unwrap();
    peer.expect_error(channel_id(outpoint)).await;
    tokio::time::timeout(Duration::from_secs(20), session.close()).await.unwrap();
    let targets = TARGETS.0.lock().unwrap().clone();
    assert!(targets.len() > 1, "{targets:?}");
    for target in targets {
        assert!(target == "opening_peer" || target.starts_with("opening_peer::"), "{target}");
    }
}
