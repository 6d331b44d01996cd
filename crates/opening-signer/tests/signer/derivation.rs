//! Keys and points, against those of VLS, Core Lightning and BOLT 3.

use std::collections::HashSet;

use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use lightning::ln::chan_utils::build_commitment_secret;
use opening_signer::{ChannelRef, ChannelSecrets, Hsm, HsmSecret, LocalHsm};
use serde_json::Value;

use crate::pair::{node, node_id, reason};

const VECTORS: &str = include_str!("../vectors/hsm-vectors.json");

fn point(value: &Value) -> PublicKey {
    value.as_str().unwrap().parse().unwrap()
}

fn fixed(shachain_seed: [u8; 32]) -> ChannelSecrets {
    let key = |byte| SecretKey::from_slice(&[byte; 32]).unwrap();
    ChannelSecrets {
        funding: key(1),
        revocation: key(2),
        payment: key(3),
        delayed_payment: key(4),
        htlc: key(5),
        shachain_seed,
    }
}

#[tokio::test]
async fn channels_have_the_keys_that_core_lightning_derives() {
    let vectors: Value = serde_json::from_str(VECTORS).unwrap();
    let secret = hex::decode(vectors["hsm_secret"].as_str().unwrap()).unwrap();
    let hsm = LocalHsm::blind(&HsmSecret::new(<[u8; 32]>::try_from(secret).unwrap()));
    let channels = vectors["channels"].as_array().unwrap();
    assert_eq!(channels.len(), 4);
    for vector in channels {
        let dbid = vector["dbid"].as_u64().unwrap();
        let reference = ChannelRef { peer: point(&vectors["peer_id"]), dbid };
        let channel = hsm.channel(reference).await.unwrap();
        let keys = channel.pubkeys().await.unwrap();
        assert_eq!(keys.funding_pubkey, point(&vector["funding_pubkey"]));
        assert_eq!(keys.revocation_basepoint, point(&vector["revocation_basepoint"]));
        assert_eq!(keys.payment_basepoint, point(&vector["payment_basepoint"]));
        assert_eq!(keys.htlc_basepoint, point(&vector["htlc_basepoint"]));
        assert_eq!(keys.delayed_payment_basepoint, point(&vector["delayed_payment_basepoint"]));
        let first = channel.per_commitment_point(0).await.unwrap();
        assert_eq!(first, point(&vector["first_per_commitment_point"]));
    }
}

#[test]
fn the_node_has_the_identity_that_core_lightning_derives() {
    assert!(node_id(7).to_string().starts_with("0201334abc0119523c756dfcf75c884d"));
    assert!(node_id(8).to_string().starts_with("028d6af286a6d1fa96a9873798cbe630"));
}

/// The secrets of index 2^48 − 1 are those of BOLT 3, Appendix D.
// req: B3-SEC-B-04, B2-OPEN-S-07, B2-ACC-S-07
#[tokio::test]
async fn first_point_comes_from_the_secret_with_the_highest_index() {
    let secp = Secp256k1::new();
    let first_secrets = [
        (0x00, "02a40c85b6f28da08dfdbe0926c53fab2de6d28c10301f8f7c4073d5e42e3148"),
        (0xff, "7cc854b54e3e0dcdb010d7a3fee464a9687be6e8db3be6854c475621e007a5dc"),
    ];
    for (byte, first) in first_secrets {
        let hsm = LocalHsm::with_channel_secrets(fixed([byte; 32]));
        let channel = hsm.channel(ChannelRef { peer: node_id(8), dbid: 1 }).await.unwrap();
        let secret: SecretKey = first.parse().unwrap();
        assert_eq!(channel.per_commitment_point(0).await.unwrap(), secret.public_key(&secp));

        for number in [0, 1, 2, (1 << 48) - 1] {
            let secret = build_commitment_secret(&[byte; 32], (1 << 48) - 1 - number);
            let point = SecretKey::from_slice(&secret).map(|secret| secret.public_key(&secp));
            // The seed of zeros gives no key for index 0, which a random seed never does.
            if let Ok(point) = point {
                assert_eq!(channel.per_commitment_point(number).await.unwrap(), point);
            }
        }
    }
}

#[tokio::test]
async fn no_point_is_beyond_the_last_commitment() {
    let hsm = LocalHsm::blind(&node(7));
    let channel = hsm.channel(ChannelRef { peer: node_id(8), dbid: 1 }).await.unwrap();
    channel.per_commitment_point((1 << 48) - 1).await.unwrap();
    for number in [1 << 48, u64::MAX] {
        let answer = channel.per_commitment_point(number).await;
        assert_eq!(reason(answer), "signer-invalid-request");
    }
}

// req: B3-SEC-B-01
#[tokio::test]
async fn every_channel_of_every_node_has_its_own_seed_and_keys() {
    let mut seen = HashSet::new();
    // The node's 32 bytes are the caller's, from its entropy: another secret, other seeds.
    for secret in [7, 8] {
        let hsm = LocalHsm::blind(&node(secret));
        for peer in [9, 10] {
            for dbid in [1, 2, u64::MAX] {
                let reference = ChannelRef { peer: node_id(peer), dbid };
                let channel = hsm.channel(reference).await.unwrap();
                let keys = channel.pubkeys().await.unwrap();
                for point in [
                    keys.funding_pubkey,
                    keys.revocation_basepoint,
                    keys.payment_basepoint,
                    keys.delayed_payment_basepoint,
                    keys.htlc_basepoint,
                    channel.per_commitment_point(0).await.unwrap(),
                    channel.per_commitment_point(1).await.unwrap(),
                ] {
                    assert!(seen.insert(point), "{reference:?} shares a point");
                }
                let again = hsm.channel(reference).await.unwrap();
                assert_eq!(again.pubkeys().await.unwrap(), keys);
            }
        }
    }
}

#[tokio::test]
async fn given_secrets_serve_every_channel() {
    let secp = Secp256k1::new();
    let hsm = LocalHsm::with_channel_secrets(fixed([6; 32]));
    for (peer, dbid) in [(8, 1), (9, 2)] {
        let channel = hsm.channel(ChannelRef { peer: node_id(peer), dbid }).await.unwrap();
        let keys = channel.pubkeys().await.unwrap();
        let public = |byte| SecretKey::from_slice(&[byte; 32]).unwrap().public_key(&secp);
        assert_eq!(keys.funding_pubkey, public(1));
        assert_eq!(keys.revocation_basepoint, public(2));
        assert_eq!(keys.payment_basepoint, public(3));
        assert_eq!(keys.delayed_payment_basepoint, public(4));
        assert_eq!(keys.htlc_basepoint, public(5));
    }
}

#[tokio::test]
async fn dbid_0_names_no_channel() {
    let hsm = LocalHsm::blind(&node(7));
    let answer = hsm.channel(ChannelRef { peer: node_id(8), dbid: 0 }).await;
    assert_eq!(reason(answer), "signer-invalid-request");
    hsm.channel(ChannelRef { peer: node_id(8), dbid: 1 }).await.unwrap();
}
