//! What this node sends keeps to the rules that it holds others to.

use std::sync::Arc;

use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::{Secp256k1, SecretKey};
use lightning::ln::msgs::ChannelReady;
use opening_core::{ChannelType, Role};
use opening_peer::message::{Message, encode};
use opening_peer::{Ask, Event, FundingTransaction};
use opening_signer::{ChannelSecrets, LocalHsm};

use crate::ID;
use crate::common::here::Here;
use crate::common::raw_peer::{RawPeer, channel_id, made_up_outpoint, outpoint, parameters};
use crate::common::{ask, confirmation, funding_transaction};

// req: B2-FC-S-01, B2-FC-S-04, B2-FC-S-05, B2-FC-S-02
#[tokio::test]
async fn our_funding_created_names_the_output_and_signs_for_it() {
    for index in [0, 1, 300] {
        let here = Here::new();
        let (mut peer, session) = RawPeer::connect(&here.openings, 2).await;
        let opening = session.open(ask()).await.unwrap();
        let open = peer.expect_open_channel().await;
        let accept = peer.accept_channel(&open);
        peer.send(&accept).await;
        let pending = opening.accepted().await.unwrap();
        let transaction = funding_transaction(&pending.needed().output, index);
        let funding = FundingTransaction::Signed(transaction.clone());
        let mut signing = pending.complete(funding).await.unwrap();
        let created = peer.expect_funding_created().await;
        let temporary_id = open.common_fields.temporary_channel_id;
        assert_eq!(created.temporary_channel_id, temporary_id);
        assert_eq!(created.funding_txid, transaction.compute_txid());
        assert_eq!(usize::from(created.funding_output_index), index);
        let agreed = parameters(Role::Fundee, &open, &accept, outpoint(&created));
        peer.assert_signed(&agreed, &created.signature);
        peer.send(&peer.funding_signed(&open, &accept, &created)).await;
        let (opened, permit) = signing.opened().await.unwrap();
        assert_eq!(permit.txid(), created.funding_txid);
        assert_eq!(opened.funding_transaction, Some(transaction));
        here.can_open(&session, &mut peer).await;
    }
}

// req: B2-FS-S-01, B2-FS-S-02, B2-FS-B-02
#[tokio::test]
async fn our_funding_signed_names_the_channel_and_signs_for_it() {
    let types = [ChannelType::ANCHORS, ChannelType::STATIC_REMOTEKEY];
    for (channel_type, vout) in types.into_iter().zip([0, 258]) {
        let here = Here::new();
        let (mut peer, _session) = RawPeer::connect(&here.openings, 2).await;
        let mut open = peer.open_channel(ID);
        open.common_fields.channel_type = Some(channel_type.to_features());
        let outpoint = made_up_outpoint(4, vout);
        // `open` verifies the signature over the commitment of this type.
        let signed = peer.open(&open, outpoint).await;
        assert_eq!(signed.channel_id, channel_id(outpoint));
        assert_eq!(here.saved().await, [signed.channel_id]);
        here.forgot_theirs(&mut peer, ID).await;
    }
}

// req: B2-OPEN-S-06, B2-OPEN-S-09, B2-OPEN-S-12, B2-OPEN-S-13, B2-OPEN-S-15, B2-CID-B-02
#[tokio::test]
async fn our_open_channel_keeps_to_the_senders_rules() {
    let here = Here::new();
    let (mut peer, session) = RawPeer::connect(&here.openings, 2).await;
    let mut ids = Vec::new();
    for announce_channel in [false, true] {
        for channel_type in [ChannelType::ANCHORS, ChannelType::STATIC_REMOTEKEY] {
            let ask = Ask { announce_channel, channel_type: Some(channel_type), ..ask() };
            let opening = session.open(ask).await.unwrap();
            let open = peer.expect_open_channel().await;
            let bytes = peer.heard.last().unwrap();
            // Had one of the keys been none, it would not have been decoded.
            assert_eq!(bytes[320] & 0xfe, 0);
            assert_eq!(bytes[320] & 1 != 0, announce_channel);
            // TLV 0 is empty, TLV 1 is the type: its first byte is not zero.
            assert_eq!(bytes[321..324], [0, 0, 1]);
            assert_ne!(bytes[325], 0);
            let flags: Vec<u8> = bytes[325..].iter().rev().copied().collect();
            assert_eq!(channel_type.to_features().le_flags(), &flags);
            assert_eq!(open.common_fields.temporary_channel_id, opening.temporary_channel_id());
            ids.push(opening.temporary_channel_id());
            drop(opening);
            let text = peer.expect_error(*ids.last().unwrap()).await;
            assert_eq!(text, "channel opening cancelled");
            here.failed().await;
        }
    }
    ids.sort_by_key(|id| id.0);
    ids.dedup();
    assert_eq!(ids.len(), 4);
    here.can_open(&session, &mut peer).await;
}

// req: B2-ACC-S-05, B2-ACC-S-06, B2-ACC-S-09, B2-ACC-B-02
#[tokio::test]
async fn our_accept_channel_keeps_to_the_senders_rules() {
    let here = Here::new();
    let (mut peer, _session) = RawPeer::connect(&here.openings, 2).await;
    for defined in ChannelType::all().into_iter().filter(|defined| !defined.zeroconf) {
        let mut open = peer.open_channel(ID);
        open.common_fields.channel_type = Some(defined.to_features());
        peer.send(&open).await;
        let accept = peer.expect_accept_channel(ID).await;
        let offered = encode(&open);
        let bytes = peer.heard.last().unwrap();
        // Both TLVs, byte for byte those of the offer: an empty script and the type.
        assert_eq!(bytes[272..], offered[321..]);
        assert_eq!(accept.common_fields.channel_type, open.common_fields.channel_type);
        peer.send_error(ID, "enough").await;
        here.failed().await;
    }
    here.forgot_theirs(&mut peer, ID).await;
}

// req: B2-OPEN-S-07, B2-ACC-S-07
#[tokio::test]
async fn both_first_points_come_from_the_known_seed() {
    let key = |number| SecretKey::from_slice(&[number; 32]).unwrap();
    let seed = [0x5e; 32];
    let secrets = ChannelSecrets {
        funding: key(11),
        revocation: key(12),
        payment: key(13),
        delayed_payment: key(14),
        htlc: key(15),
        shachain_seed: seed,
    };
    let hsm = LocalHsm::with_channel_secrets(secrets);
    let here = Here::with(|node| node.hsm = Arc::new(hsm));
    let (mut peer, session) = RawPeer::connect(&here.openings, 2).await;
    let secp = Secp256k1::new();
    let secret = SecretKey::from_slice(&generate_from_seed(seed, (1 << 48) - 1)).unwrap();
    let first = secret.public_key(&secp);
    let opening = session.open(ask()).await.unwrap();
    let open = peer.expect_open_channel().await.common_fields;
    peer.send(&peer.open_channel(ID)).await;
    let accept = peer.expect_accept_channel(ID).await.common_fields;
    for point in [open.first_per_commitment_point, accept.first_per_commitment_point] {
        assert_eq!(point, first);
    }
    for (number, ours) in [
        (11, open.funding_pubkey),
        (12, open.revocation_basepoint),
        (13, open.payment_basepoint),
        (14, accept.delayed_payment_basepoint),
        (15, accept.htlc_basepoint),
    ] {
        assert_eq!(ours, key(number).public_key(&secp));
    }
    drop(opening);
    peer.send_error(ID, "enough").await;
    here.nothing_pending().await;
}

/// BOLT 3's generation of a per-commitment secret.
fn generate_from_seed(seed: [u8; 32], index: u64) -> [u8; 32] {
    (0..48).rev().filter(|bit| index >> bit & 1 == 1).fold(seed, |mut value, bit| {
        value[bit / 8] ^= 1 << (bit % 8);
        sha256::Hash::hash(&value).to_byte_array()
    })
}

// req: B2-OPEN-R-26, B1-MSG-S-04
#[tokio::test]
async fn a_push_counts_only_once_the_funding_is_deep_enough() {
    let here = Here::new();
    let (mut peer, _session) = RawPeer::connect(&here.openings, 2).await;
    let open = peer.open_channel(ID);
    peer.send(&open).await;
    let accept = peer.expect_accept_channel(ID).await;
    let agreed = parameters(Role::Funder, &open, &accept, made_up_outpoint(1, 0));
    let output = opening_core::FundingOutput::new(
        agreed.funding_satoshis,
        &agreed.local.keys.funding_pubkey,
        &agreed.remote.keys.funding_pubkey,
    );
    let transaction = funding_transaction(&output, 0);
    let outpoint = bitcoin::OutPoint { txid: transaction.compute_txid(), vout: 0 };
    peer.send(&peer.funding_created(&open, &accept, outpoint)).await;
    let id = peer.expect_funding_signed().await.channel_id;
    peer.send(&ChannelReady {
        channel_id: id,
        next_per_commitment_point: peer.point(7),
        short_channel_id_alias: None,
    })
    .await;
    // The peer says that the channel can be used, and still it cannot.
    here.openings.confirmed(id, confirmation(&transaction, 2)).await.unwrap();
    peer.expect_silence().await;
    let is_ready = |event: &Event| matches!(event, Event::Ready(_));
    assert_eq!(here.seen.count(is_ready), 0);
    here.openings.confirmed(id, confirmation(&transaction, 3)).await.unwrap();
    // An alias goes along, because option_scid_alias is negotiated.
    match peer.receive().await {
        Message::ChannelReady(message) => assert!(message.short_channel_id_alias.is_some()),
        other => panic!("{other:?}"),
    }
    let ready = here.seen.ready().await;
    assert_eq!(ready.opened.parameters.push_msat.to_msat(), open.push_msat);
    here.forgot_theirs(&mut peer, ID).await;
}
