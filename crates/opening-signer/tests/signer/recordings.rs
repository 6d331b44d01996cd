//! Core Lightning's hsmd at work, and our signer asked for the same.

use std::sync::Arc;

use bitcoin::secp256k1::Secp256k1;
use opening_core::Side;
use opening_signer::{ChannelHsm, ChannelRef, CommitmentRequest, Enforcement, Hsm};

use crate::pair::{node_id, party, setup, signer};
use crate::recorded::{FUNDEE, FUNDER, Recording, read};

/// Has our signer do what hsmd did, in both enforcements.
async fn replay(recording: &str, secret: u8, peer: u8) {
    let secp = Secp256k1::new();
    for enforcement in crate::pair::BOTH {
        let hsm = signer(secret, enforcement, &Arc::default());
        let reference = ChannelRef { peer: node_id(peer), dbid: 1 };
        let channel = hsm.channel(reference).await.unwrap();
        let ours = party(&*channel).await;
        let recorded = read(recording, ours.config);
        let parameters = &recorded.parameters;
        assert_eq!(parameters.local, ours, "keys and first point");
        let next = channel.per_commitment_point(1).await.unwrap();
        assert_eq!(next, recorded.next_point);

        let theirs = parameters.first_commitment(&secp, Side::Remote).unwrap();
        let own = parameters.first_commitment(&secp, Side::Local).unwrap();
        assert_eq!(theirs.transaction, recorded.counterparty);
        assert_eq!(own.transaction, recorded.holder);

        channel.setup(&setup(parameters.clone())).await.unwrap();
        let validate = CommitmentRequest::first(parameters, &own);
        let sign = CommitmentRequest::first(parameters, &theirs);
        // The fundee validates first; to a funder the order is no matter.
        channel.validate_holder_commitment(&validate, &recorded.holder_signature).await.unwrap();
        let signature = channel.sign_counterparty_commitment(&sign).await.unwrap();
        let funding_pubkey = &ours.keys.funding_pubkey;
        // hsmd grinds differently, so both verify and need not be equal.
        for signature in [signature, recorded.counterparty_signature] {
            assert!(theirs.is_signed_by(&secp, &signature, funding_pubkey));
        }
        let swapped = channel.validate_holder_commitment(&validate, &signature).await;
        assert_eq!(crate::pair::reason(swapped), "signer-bad-counterparty-signature");
    }
}

// req: B2-FC-S-05
#[tokio::test]
async fn funders_keys_points_and_signatures_are_those_of_hsmd() {
    replay(FUNDER, 7, 8).await;
}

// req: B2-FS-S-02
#[tokio::test]
async fn fundees_keys_points_and_signatures_are_those_of_hsmd() {
    replay(FUNDEE, 8, 7).await;
}

/// Each recorded signature is what the other recording validates: the two nodes made one channel.
#[tokio::test]
async fn our_signers_answers_satisfy_the_other_side_of_the_recording() {
    let mut ends: Vec<(Arc<dyn ChannelHsm>, Recording)> = Vec::new();
    for (recording, secret, peer) in [(FUNDER, 7, 8), (FUNDEE, 8, 7)] {
        let hsm = signer(secret, Enforcement::Blind, &Arc::default());
        let reference = ChannelRef { peer: node_id(peer), dbid: 1 };
        let channel = hsm.channel(reference).await.unwrap();
        let recorded = read(recording, party(&*channel).await.config);
        channel.setup(&setup(recorded.parameters.clone())).await.unwrap();
        ends.push((channel, recorded));
    }
    let secp = Secp256k1::new();
    for (one, other) in [(0, 1), (1, 0)] {
        let (signing, validating) = (&ends[one], &ends[other]);
        let theirs = signing.1.parameters.first_commitment(&secp, Side::Remote).unwrap();
        let request = CommitmentRequest::first(&signing.1.parameters, &theirs);
        let signature = signing.0.sign_counterparty_commitment(&request).await.unwrap();
        let own = validating.1.parameters.first_commitment(&secp, Side::Local).unwrap();
        let request = CommitmentRequest::first(&validating.1.parameters, &own);
        validating.0.validate_holder_commitment(&request, &signature).await.unwrap();
        assert_eq!(validating.1.holder_signature, signing.1.counterparty_signature);
    }
}
