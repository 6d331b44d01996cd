//! Signers of LDK behind the boundary.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[allow(dead_code, reason = "shared with other tests")]
#[path = "../signer/flow.rs"]
mod flow;
#[allow(dead_code, reason = "shared with other tests")]
#[path = "../signer/pair.rs"]
mod pair;
#[allow(dead_code, reason = "shared with other tests")]
#[path = "../signer/store.rs"]
mod store;
mod wayward;

use std::sync::Arc;

use bitcoin::Network;
use bitcoin::secp256k1::Secp256k1;
use lightning::sign::{ChannelSigner, KeysManager, SignerProvider};
use opening_core::Side;
use opening_signer::ldk::{LdkHsm, channel_keys_id};
use opening_signer::testing::conformance::{Subject, conformance};
use opening_signer::{ChannelRef, Enforcement, Hsm, HsmError};

use crate::flow::SHAPES;
use crate::pair::{node_id, reason, signer};
use crate::wayward::{Ways, Wayward};

/// A provider as an LDK node starts it: the same seed, another time.
fn keys(seed: u8, started: u64) -> Arc<KeysManager> {
    Arc::new(KeysManager::new(&[seed; 32], started, 7, true))
}

#[tokio::test]
async fn keys_manager_conforms() {
    let lives = std::sync::atomic::AtomicU64::new(1);
    let subject = Subject::new("KeysManager", Network::Regtest, move |node| {
        let started = lives.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let hsm = LdkHsm::new(keys(u8::try_from(node).unwrap(), started));
        async move { Ok(Arc::new(hsm) as Arc<dyn Hsm>) }
    });
    let subject = (0..100).fold(subject, |subject, byte| subject.with_secret([byte; 32]));
    let report = conformance(subject).await;
    assert!(report.is_pass(), "{report}");
}

#[tokio::test]
async fn channels_of_every_shape_open_in_both_roles() {
    let (near, far) = (LdkHsm::new(keys(7, 1)), LdkHsm::new(keys(8, 1)));
    let local = signer(8, Enforcement::Validating, &Arc::default());
    for (dbid, shape) in (1..).zip(SHAPES) {
        flow::open([&near, &far], dbid, shape).await;
        flow::open([&near, &local], 100 + dbid, shape).await;
    }
}

// req: B3-SEC-B-05
#[tokio::test]
async fn keys_and_points_are_ldks_own_by_a_name_that_follows_from_the_reference() {
    let secp = Secp256k1::new();
    let reference = ChannelRef { peer: node_id(8), dbid: 5 };
    let provider = keys(7, 1);
    let channel = LdkHsm::new(provider.clone()).channel(reference).await.unwrap();
    let ours = provider.derive_channel_signer(channel_keys_id(reference));
    let keys = channel.pubkeys().await.unwrap();
    assert_eq!(keys.funding_pubkey, ours.pubkeys(&secp).funding_pubkey);
    assert_eq!(keys.htlc_basepoint, ours.pubkeys(&secp).htlc_basepoint.to_public_key());
    for number in [0, 1, 2, (1 << 48) - 1] {
        let index = (1 << 48) - 1 - number;
        let point = ours.get_per_commitment_point(index, &secp).unwrap();
        assert_eq!(channel.per_commitment_point(number).await, Ok(point));
    }
    assert_eq!(reason(channel.per_commitment_point(1 << 48).await), "signer-invalid-request");

    let other = [ChannelRef { dbid: 6, ..reference }, ChannelRef { peer: node_id(9), dbid: 5 }];
    for other in other {
        assert_ne!(channel_keys_id(other), channel_keys_id(reference));
    }
}

/// Fixed: a node that is updated has to find its money.
#[test]
fn the_name_of_a_channels_keys_never_changes() {
    let reference = ChannelRef { peer: node_id(8), dbid: 1 };
    let id = hex::encode(channel_keys_id(reference));
    assert_eq!(id, "dfe622a0daf8a909d064b2a2aef7b92791227c35958044dde2b32800c6954f46");
}

#[tokio::test]
async fn not_yet_is_deferred_and_the_same_call_succeeds_later() {
    let ways = Ways::default();
    let near = LdkHsm::new(Arc::new(Wayward(keys(7, 1), ways.clone())));
    let far = signer(8, Enforcement::Blind, &Arc::default());
    let [funder, fundee] = flow::name([&near, &far], 1, SHAPES[2]).await;
    ways.not_yet(true);
    assert_eq!(funder.channel.per_commitment_point(1).await, Err(HsmError::Deferred));
    assert_eq!(funder.channel.setup(&funder.setup).await, Err(HsmError::Deferred));
    ways.not_yet(false);
    funder.channel.setup(&funder.setup).await.unwrap();

    let theirs = funder.commitment(Side::Remote);
    let request = funder.request(&theirs);
    ways.not_yet(true);
    for _ in 0..3 {
        let answer = funder.channel.sign_counterparty_commitment(&request).await;
        assert_eq!(answer, Err(HsmError::Deferred));
    }
    ways.not_yet(false);
    let signature = funder.channel.sign_counterparty_commitment(&request).await.unwrap();
    let again = funder.channel.sign_counterparty_commitment(&request).await.unwrap();
    assert_eq!(signature, again);
    drop(fundee);
}

#[tokio::test]
async fn a_wrong_signature_of_ldks_does_not_get_out() {
    let ways = Ways::default();
    let near = LdkHsm::new(Arc::new(Wayward(keys(7, 1), ways.clone())));
    let far = signer(8, Enforcement::Blind, &Arc::default());
    let [funder, _] = flow::name([&near, &far], 1, SHAPES[2]).await;
    funder.channel.setup(&funder.setup).await.unwrap();
    let theirs = funder.commitment(Side::Remote);
    ways.wrong(true);
    let answer = funder.channel.sign_counterparty_commitment(&funder.request(&theirs)).await;
    assert_eq!(reason(answer), "signer-protocol");
    ways.wrong(false);
    funder.channel.sign_counterparty_commitment(&funder.request(&theirs)).await.unwrap();
}

#[tokio::test]
async fn what_ldk_does_not_validate_is_refused() {
    let ways = Ways::default();
    let near = LdkHsm::new(Arc::new(Wayward(keys(7, 1), ways.clone())));
    let far = signer(8, Enforcement::Blind, &Arc::default());
    let [fundee, funder] = flow::name([&near, &far], 1, SHAPES[2]).await;
    fundee.channel.setup(&fundee.setup).await.unwrap();
    funder.channel.setup(&funder.setup).await.unwrap();
    let ours = fundee.commitment(Side::Local);
    let theirs = funder.commitment(Side::Remote);
    let signature =
        funder.channel.sign_counterparty_commitment(&funder.request(&theirs)).await.unwrap();
    ways.refuse(true);
    let request = fundee.request(&ours);
    let validated = fundee.channel.validate_holder_commitment(&request, &signature).await;
    assert_eq!(reason(validated), "ldk-validation");
    // What was not validated is not signed.
    assert_eq!(reason(fundee.channel.sign_holder_commitment(&request).await), "not-validated");
    ways.refuse(false);
    fundee.channel.validate_holder_commitment(&request, &signature).await.unwrap();
    fundee.channel.sign_holder_commitment(&request).await.unwrap();
}

/// Parameters of which LDK makes another transaction than we did.
#[tokio::test]
async fn a_transaction_that_ldk_builds_otherwise_is_not_signed() {
    let near = LdkHsm::new(keys(7, 1));
    let far = signer(8, Enforcement::Blind, &Arc::default());
    let [funder, _] = flow::name([&near, &far], 1, SHAPES[2]).await;
    funder.channel.setup(&funder.setup).await.unwrap();
    let mut theirs = funder.commitment(Side::Remote);
    theirs.transaction.output.reverse();
    let answer = funder.channel.sign_counterparty_commitment(&funder.request(&theirs)).await;
    assert_eq!(reason(answer), "signer-invalid-request");
}

#[tokio::test]
async fn what_it_shows_of_itself_is_no_secret() {
    let near = LdkHsm::new(keys(7, 1));
    assert_eq!(format!("{near:?}"), "LdkHsm { enforcement: Blind, channels: 0, .. }");
}
