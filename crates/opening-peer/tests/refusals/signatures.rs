//! `funding_created` and `funding_signed` that make no channel.

use bitcoin::hashes::Hash;
use bitcoin::secp256k1::constants::CURVE_ORDER;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{Message, Secp256k1, SecretKey};
use bitcoin::{OutPoint, Txid, consensus};
use lightning::ln::msgs::FundingSigned;
use opening_core::{Role, Side};
use opening_peer::Stage;
use opening_peer::message::encode;

use crate::common::here::Here;
use crate::common::raw_peer::{RawPeer, channel_id, made_up_outpoint, outpoint, parameters};
use crate::common::{ask, signed};
use crate::{ID, refused};

/// Plays a fundee's part of an opening up to `funding_created`, and asserts what follows the
/// `funding_signed` that `change` spoils.
async fn signature_refused(change: impl FnOnce(&RawPeer, &mut Vec<u8>)) {
    let here = Here::new();
    let (mut peer, session) = RawPeer::connect(&here.openings, 2).await;
    let opening = session.open(ask()).await.unwrap();
    let open = peer.expect_open_channel().await;
    let accept = peer.accept_channel(&open);
    peer.send(&accept).await;
    let pending = opening.accepted().await.unwrap();
    let funding = signed(&pending.needed().output);
    let mut signing = pending.complete(funding).await.unwrap();
    let created = peer.expect_funding_created().await;
    let id = channel_id(outpoint(&created));
    let agreed = parameters(Role::Fundee, &open, &accept, outpoint(&created));
    peer.assert_signed(&agreed, &created.signature);

    let mut bytes = encode(&peer.funding_signed(&open, &accept, &created));
    change(&peer, &mut bytes);
    peer.send_bytes(&bytes).await;
    let text = peer.expect_error(id).await;
    let checked = peer.commitment(&agreed, Side::Remote).transaction;
    assert!(text.ends_with(&consensus::encode::serialize_hex(&checked)), "{text}");
    let failed = signing.opened().await.unwrap_err();
    assert_eq!((failed.failure.code(), failed.stage), ("bad-signature", Stage::Validation));
    assert_eq!(failed.channel_id, Some(id));
    here.failed().await;
    assert_eq!(here.saved().await, []);
    here.can_open(&session, &mut peer).await;
}

/// Spoils the signature that ends a message.
type Spoil = fn(&RawPeer, &mut [u8]);

/// Signatures that are none: flipped bits, another digest, a high S, r or s of zero or beyond the
/// order.
const BAD_SIGNATURES: [Spoil; 9] = [
    |_, signature| signature[63] ^= 1,
    |_, signature| signature[0] ^= 1,
    |peer, signature| {
        let digest = Message::from_digest([7; 32]);
        let secp = Secp256k1::new();
        let other = secp.sign_ecdsa(&digest, &peer.secret_key(1));
        signature.copy_from_slice(&other.serialize_compact());
    },
    |_, signature| {
        let s = SecretKey::from_slice(&signature[32..]).unwrap().negate();
        signature[32..].copy_from_slice(&s[..]);
        assert!(Signature::from_compact(signature).is_ok());
    },
    |_, signature| signature[..32].fill(0),
    |_, signature| signature[32..].fill(0),
    |_, signature| signature.fill(0),
    |_, signature| signature[..32].fill(0xff),
    |_, signature| signature[32..].copy_from_slice(&CURVE_ORDER),
];

// req: B2-FS-R-01, B1-ERR-S-02, B1-ERR-S-10, B2-FS-R-02
#[tokio::test]
async fn funding_signed_with_a_bad_signature_gives_no_permit() {
    for spoil in BAD_SIGNATURES {
        signature_refused(|peer, bytes| spoil(peer, &mut bytes[34..98])).await;
    }
}

// req: B2-FC-R-01, B1-ERR-S-03, B1-ERR-S-10
#[tokio::test]
async fn funding_created_with_a_bad_signature_opens_nothing() {
    let here = Here::new();
    let (mut peer, _session) = RawPeer::connect(&here.openings, 2).await;
    for spoil in BAD_SIGNATURES {
        let open = peer.open_channel(ID);
        peer.send(&open).await;
        let accept = peer.expect_accept_channel(ID).await;
        let outpoint = made_up_outpoint(1, 0);
        let mut bytes = encode(&peer.funding_created(&open, &accept, outpoint));
        spoil(&peer, &mut bytes[68..132]);
        let agreed = parameters(Role::Funder, &open, &accept, outpoint);
        let checked = peer.commitment(&agreed, Side::Remote).transaction;
        let text = format!(
            "signature is not one of the peer's funding key over our commitment transaction {}",
            consensus::encode::serialize_hex(&checked)
        );
        let failed = refused(&here, &mut peer, &bytes, "bad-signature", &text).await;
        assert_eq!(failed.channel_id, Some(channel_id(outpoint)));
    }
    // The outpoint was not taken by those who could not sign for it.
    peer.open(&peer.open_channel(ID), made_up_outpoint(1, 0)).await;
    assert_eq!(here.saved().await, [channel_id(made_up_outpoint(1, 0))]);
}

// incident: CLN #4416
// req: B2-FC-R-01
#[tokio::test]
async fn a_signature_over_another_outpoints_commitment_opens_nothing() {
    let here = Here::new();
    let (mut peer, _session) = RawPeer::connect(&here.openings, 2).await;
    let open = peer.open_channel(ID);
    peer.send(&open).await;
    let accept = peer.expect_accept_channel(ID).await;
    let mut created = peer.funding_created(&open, &accept, made_up_outpoint(1, 0));
    created.funding_output_index = 1;
    peer.send(&created).await;
    assert!(peer.expect_error(ID).await.starts_with("signature is not one of the peer's"));
    assert_eq!(here.failed().await.failure.code(), "bad-signature");
    assert_eq!(here.saved().await, []);
    here.forgot_theirs(&mut peer, ID).await;
}

/// Opens up to `funding_created` with this outpoint, which is refused.
async fn outpoint_refused(
    here: &Here,
    peer: &mut RawPeer,
    outpoint: OutPoint,
    code: &str,
    text: &str,
) {
    let open = peer.open_channel(ID);
    peer.send(&open).await;
    let accept = peer.expect_accept_channel(ID).await;
    peer.send(&peer.funding_created(&open, &accept, outpoint)).await;
    assert_eq!(peer.expect_error(ID).await, text);
    assert_eq!(here.failed().await.failure.code(), code);
    here.forgot_theirs(peer, ID).await;
}

// incident: CLN #9530
// req: B2-FC-R-01
#[tokio::test]
async fn a_zero_txid_opens_nothing() {
    let here = Here::new();
    let (mut peer, _session) = RawPeer::connect(&here.openings, 2).await;
    let outpoint = OutPoint { txid: Txid::all_zeros(), vout: 1 };
    let text = format!("{outpoint} cannot be a funding outpoint");
    outpoint_refused(&here, &mut peer, outpoint, "impossible-outpoint", &text).await;
    assert_eq!(here.saved().await, []);
}

// incident: CLN #9274
// incident: eclair #3337
// incident: LDK panics (reused outpoint)
// req: B2-CID-B-01
#[tokio::test]
async fn an_outpoint_in_use_with_any_peer_is_refused() {
    let here = Here::new();
    let (mut one, _one) = RawPeer::connect(&here.openings, 2).await;
    let (mut other, _other) = RawPeer::connect(&here.openings, 3).await;
    let used = made_up_outpoint(1, 0);
    one.open(&one.open_channel(ID), used).await;
    // Another output of another transaction, whose channel_id is the same.
    let mut txid = used.txid.to_byte_array();
    txid[31] ^= 5;
    let collision = OutPoint { txid: Txid::from_byte_array(txid), vout: 5 };
    assert_eq!(channel_id(used), channel_id(collision));
    for outpoint in [used, collision] {
        for peer in [&mut one, &mut other] {
            let text = "the funding outpoint is in use";
            outpoint_refused(&here, peer, outpoint, "outpoint-in-use", text).await;
        }
    }
    assert_eq!(here.saved().await, [channel_id(used)]);
}

// req: B1-ERR-S-05
#[tokio::test]
async fn funding_signed_for_another_channel_leaves_the_opening_pending() {
    let here = Here::new();
    let (mut peer, session) = RawPeer::connect(&here.openings, 2).await;
    let opening = session.open(ask()).await.unwrap();
    let open = peer.expect_open_channel().await;
    let accept = peer.accept_channel(&open);
    peer.send(&accept).await;
    let pending = opening.accepted().await.unwrap();
    let funding = signed(&pending.needed().output);
    let mut signing = pending.complete(funding).await.unwrap();
    let created = peer.expect_funding_created().await;
    let right = peer.funding_signed(&open, &accept, &created);
    peer.send(&FundingSigned { channel_id: ID, ..right.clone() }).await;
    assert_eq!(peer.expect_error(ID).await, "no such channel");
    assert_eq!(here.saved().await, []);
    peer.send(&right).await;
    let (_opened, _permit) = signing.opened().await.unwrap();
    here.can_open(&session, &mut peer).await;
}
