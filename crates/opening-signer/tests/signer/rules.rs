//! The order of calls, and one channel for each reference.

use bitcoin::ScriptBuf;
use bitcoin::secp256k1::{Secp256k1, ecdsa::Signature};
use opening_core::{FeeratePerKw, MilliSatoshi, Side};
use opening_signer::{CommitmentRequest, Enforcement, Hsm, HsmError};

use crate::pair::{BOTH, End, Pair, reason};

// req: B2-FC-S-05, B2-FS-S-02
#[tokio::test]
async fn two_signers_open_a_channel() {
    let secp = Secp256k1::new();
    for enforcement in BOTH {
        let Pair { funder, fundee } = Pair::set_up(enforcement).await;
        let (funders, fundees) = (funder.commitment(Side::Local), fundee.commitment(Side::Local));

        // Each signs what the other built by itself.
        let funding_created = funder.sign(&funder.commitment(Side::Remote)).await.unwrap();
        fundee.validate(&fundees, &funding_created).await.unwrap();
        let funding_signed = fundee.sign(&fundee.commitment(Side::Remote)).await.unwrap();
        funder.validate(&funders, &funding_signed).await.unwrap();

        let funder_key = &funder.setup.parameters.local.keys.funding_pubkey;
        let fundee_key = &fundee.setup.parameters.local.keys.funding_pubkey;
        assert!(fundees.is_signed_by(&secp, &funding_created, funder_key));
        assert!(funders.is_signed_by(&secp, &funding_signed, fundee_key));
        assert_low(&funding_created);
        assert_low(&funding_signed);

        let way_out = funder.sign_own(&funders).await.unwrap();
        assert!(funders.is_signed_by(&secp, &way_out, funder_key));
        assert_low(&way_out);
    }
}

/// Neither half begins with a set bit, and S is the smaller of two.
#[track_caller]
fn assert_low(signature: &Signature) {
    assert!(signature.serialize_compact()[0] < 0x80, "high R");
    let mut low = *signature;
    low.normalize_s();
    assert_eq!(low, *signature, "high S");
}

// req: B2-FC-R-01, B2-FS-R-01
#[tokio::test]
async fn a_proof_stands_for_its_own_signature_only() {
    let secp = Secp256k1::new();
    for enforcement in BOTH {
        let Pair { funder, fundee } = Pair::set_up(enforcement).await;
        let ours = fundee.commitment(Side::Local);
        let good = funder.sign(&funder.commitment(Side::Remote)).await.unwrap();
        let their_key = &funder.setup.parameters.local.keys.funding_pubkey;
        let proof = ours.good_signature(&secp, &good, their_key);
        assert!(proof.is_some());

        let first = CommitmentRequest::first(&fundee.setup.parameters, &ours);
        let proved = CommitmentRequest { proof, ..first };
        let bad = Signature::from_compact(&[1; 64]).unwrap();
        let refused = fundee.channel.validate_holder_commitment(&proved, &bad).await;
        assert!(matches!(refused, Err(HsmError::BadCounterpartySignature)), "{refused:?}");
        fundee.channel.validate_holder_commitment(&proved, &good).await.unwrap();
        fundee.sign_own(&ours).await.unwrap();
    }
}

#[tokio::test]
async fn nothing_is_signed_or_validated_before_setup() {
    for enforcement in BOTH {
        let Pair { funder, .. } = Pair::new(enforcement).await;
        let (own, theirs) = (funder.commitment(Side::Local), funder.commitment(Side::Remote));
        let signature = Signature::from_compact(&[1; 64]).unwrap();
        assert_eq!(reason(funder.sign(&theirs).await), "setup-missing");
        assert_eq!(reason(funder.validate(&own, &signature).await), "setup-missing");
        assert_eq!(reason(funder.sign_own(&own).await), "setup-missing");
        funder.channel.setup(&funder.setup).await.unwrap();
        funder.sign(&theirs).await.unwrap();
    }
}

#[tokio::test]
async fn setup_is_repeated_but_not_changed() {
    for enforcement in BOTH {
        let Pair { funder, .. } = Pair::set_up(enforcement).await;
        funder.channel.setup(&funder.setup).await.unwrap();

        let mut fee = funder.setup.clone();
        fee.parameters.feerate_per_kw = FeeratePerKw::new(1251);
        let mut script = funder.setup.clone();
        script.remote_shutdown_script = Some(ScriptBuf::from_bytes(vec![0]));
        for changed in [fee, script] {
            assert_eq!(reason(funder.channel.setup(&changed).await), "setup-differs");
            // Through another handle too.
            let again = funder.hsm.channel(funder.reference).await.unwrap();
            assert_eq!(reason(again.setup(&changed).await), "setup-differs");
        }
        funder.sign(&funder.commitment(Side::Remote)).await.unwrap();
    }
}

#[tokio::test]
async fn setup_is_about_the_keys_and_the_point_of_the_channel() {
    for enforcement in BOTH {
        let Pair { funder, fundee } = Pair::new(enforcement).await;
        let remote = funder.setup.parameters.remote;

        let mut keys = funder.setup.clone();
        keys.parameters.local.keys.htlc_basepoint = remote.keys.htlc_basepoint;
        assert_eq!(reason(funder.channel.setup(&keys).await), "signer-invalid-request");

        let mut point = funder.setup.clone();
        point.parameters.local.first_per_commitment_point = remote.first_per_commitment_point;
        assert_eq!(reason(funder.channel.setup(&point).await), "signer-invalid-request");

        assert_eq!(reason(funder.channel.setup(&fundee.setup).await), "signer-invalid-request");
        funder.channel.setup(&funder.setup).await.unwrap();
    }
}

#[tokio::test]
async fn validating_signer_refuses_a_setup_without_commitments() {
    for enforcement in BOTH {
        let Pair { funder, .. } = Pair::new(enforcement).await;
        let mut setup = funder.setup.clone();
        setup.parameters.push_msat = MilliSatoshi::from_msat(1_000_000_001);
        let answer = funder.channel.setup(&setup).await;
        match enforcement {
            Enforcement::Blind => answer.unwrap(),
            Enforcement::Validating => assert_eq!(reason(answer), "commitment-unbuildable"),
        }
    }
}

#[tokio::test]
async fn bad_counterparty_signature_is_found_by_blind_signers_too() {
    for enforcement in BOTH {
        let Pair { funder, fundee } = Pair::set_up(enforcement).await;
        let good = funder.sign(&funder.commitment(Side::Remote)).await.unwrap();
        let own = fundee.commitment(Side::Local);

        let mut high_s = good.serialize_compact();
        negate_s(&mut high_s);
        let mut other_r = good.serialize_compact();
        other_r[31] ^= 1;
        for bytes in [high_s, other_r, [1; 64]] {
            let bad = Signature::from_compact(&bytes).unwrap();
            let answer = fundee.validate(&own, &bad).await;
            assert_eq!(reason(answer), "signer-bad-counterparty-signature");
            assert_eq!(reason(fundee.sign_own(&own).await), "not-validated");
        }
        fundee.validate(&own, &good).await.unwrap();
        fundee.validate(&own, &good).await.unwrap();
        fundee.sign_own(&own).await.unwrap();
    }
}

/// S becomes the curve's order minus S.
fn negate_s(signature: &mut [u8; 64]) {
    let negated = bitcoin::secp256k1::SecretKey::from_slice(&signature[32..]).unwrap().negate();
    signature[32..].copy_from_slice(&negated.secret_bytes());
}

#[tokio::test]
async fn own_commitment_is_signed_only_after_its_validation() {
    for enforcement in BOTH {
        let Pair { funder, fundee } = Pair::set_up(enforcement).await;
        let signature = funder.sign(&funder.commitment(Side::Remote)).await.unwrap();
        let own = fundee.commitment(Side::Local);
        assert_eq!(reason(fundee.sign_own(&own).await), "not-validated");
        fundee.validate(&own, &signature).await.unwrap();
        fundee.sign_own(&own).await.unwrap();
    }
}

#[tokio::test]
async fn validating_fundee_signs_after_its_own_commitment_is_validated() {
    for enforcement in BOTH {
        let Pair { funder, fundee } = Pair::set_up(enforcement).await;
        let theirs = fundee.commitment(Side::Remote);
        let early = fundee.sign(&theirs).await;
        match enforcement {
            Enforcement::Blind => assert!(early.is_ok()),
            Enforcement::Validating => assert_eq!(reason(early), "fundee-validates-first"),
        }
        let signature = funder.sign(&funder.commitment(Side::Remote)).await.unwrap();
        fundee.validate(&fundee.commitment(Side::Local), &signature).await.unwrap();
        fundee.sign(&theirs).await.unwrap();
    }
}

#[tokio::test]
async fn only_commitment_0_is_signed() {
    for enforcement in BOTH {
        let Pair { funder, .. } = Pair::set_up(enforcement).await;
        let mut commitment = funder.commitment(Side::Remote);
        commitment.number = 1;
        assert_eq!(reason(funder.sign(&commitment).await), "commitment-number");
        commitment.number = 0;
        funder.sign(&commitment).await.unwrap();
    }
}

#[tokio::test]
async fn a_request_is_about_the_channel_that_was_set_up() {
    for enforcement in BOTH {
        let Pair { funder, .. } = Pair::set_up(enforcement).await;
        let (own, theirs) = (funder.commitment(Side::Local), funder.commitment(Side::Remote));
        let parameters = &funder.setup.parameters;

        let mut other = parameters.clone();
        other.push_msat = MilliSatoshi::from_msat(200_000_001);
        let good = CommitmentRequest::first(parameters, &theirs);
        let local_point = parameters.local.first_per_commitment_point;
        let own_disguised = CommitmentRequest {
            commitment: &own,
            per_commitment_point: good.per_commitment_point,
            ..good
        };
        for bad in [
            CommitmentRequest::first(parameters, &own),
            own_disguised,
            CommitmentRequest { parameters: &other, ..good },
            CommitmentRequest { per_commitment_point: local_point, ..good },
        ] {
            let answer = funder.channel.sign_counterparty_commitment(&bad).await;
            assert_eq!(reason(answer), "signer-invalid-request");
        }
        let signature = funder.channel.sign_counterparty_commitment(&good).await.unwrap();
        assert_eq!(reason(funder.validate(&theirs, &signature).await), "signer-invalid-request");
    }
}

#[tokio::test]
async fn a_forgotten_channel_is_not_begun_again_with_a_validating_signer() {
    for enforcement in BOTH {
        let Pair { funder, .. } = Pair::set_up(enforcement).await;
        let End { hsm, reference, channel, setup, .. } = &funder;
        let first = funder.sign(&funder.commitment(Side::Remote)).await.unwrap();
        hsm.forget_channel(*reference).await.unwrap();
        assert_eq!(reason(funder.sign(&funder.commitment(Side::Remote)).await), "setup-missing");

        let mut changed = setup.clone();
        changed.parameters.feerate_per_kw = FeeratePerKw::new(1251);
        let answer = channel.setup(&changed).await;
        match enforcement {
            // The node's store is its memory.
            Enforcement::Blind => answer.unwrap(),
            Enforcement::Validating => {
                assert_eq!(reason(answer), "setup-differs");
                channel.setup(setup).await.unwrap();
                let again = funder.sign(&funder.commitment(Side::Remote)).await.unwrap();
                assert_eq!(again, first);
            }
        }
    }
}
