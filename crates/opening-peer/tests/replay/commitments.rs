//! Both first commitments, and the signatures on them.

use bitcoin::Amount;
use bitcoin::secp256k1::Secp256k1;
use opening_core::{ChannelParameters, Side};
use opening_signer::ChannelSetup;

use crate::hsmd::{SetupChannel, SignRemoteCommitment, ValidateCommitment};
use crate::node::AskedOfSigner;
use crate::openingd::{Fundee, FunderReply};
use crate::recording::{PLAIN, PUSH, Recording, STATIC_REMOTEKEY};
use crate::{Node, each_as_fundee, each_as_funder};

/// That the signer is told and asked what hsmd is.
fn assert_asked(name: &str, recording: &Recording, ours: &AskedOfSigner) {
    assert_set_up(name, &SetupChannel::of(recording), &ours.setup);

    let (sign, validate) = (SignRemoteCommitment::of(recording), ValidateCommitment::of(recording));
    let asked = &ours.asked_to_sign;
    sign.transaction.assert_is(&asked.commitment, name);
    assert_eq!(asked.commitment.owner, Side::Remote, "{name}");
    assert_eq!(asked.commitment.number, sign.commit_num, "{name}");
    assert_eq!(asked.per_commitment_point, sign.remote_per_commit, "{name}");
    let remote_funding_key = ours.setup.parameters.remote.keys.funding_pubkey;
    assert_eq!(remote_funding_key, sign.remote_funding_key, "{name}");

    let asked = &ours.asked_to_validate;
    validate.transaction.assert_is(&asked.commitment, name);
    assert_eq!(asked.commitment.owner, Side::Local, "{name}");
    assert_eq!(asked.commitment.number, validate.commit_num, "{name}");

    // hsmd wants the feerate for HTLCs, and there are none: openingd says 0 where we say the truth.
    assert_eq!((sign.feerate, validate.feerate), (0, 0), "{name}");
    assert_ne!(ours.setup.parameters.feerate_per_kw.to_sat_per_kw(), 0, "{name}");
}

fn assert_set_up(name: &str, hsmd: &SetupChannel, ours: &ChannelSetup) {
    let ChannelSetup { parameters, local_shutdown_script, remote_shutdown_script, .. } = ours;
    let ChannelParameters { opener, local, remote, .. } = parameters;
    assert_eq!(*opener == Side::Local, hsmd.is_outbound, "{name}");
    assert_eq!(parameters.funding_satoshis, hsmd.channel_value, "{name}");
    assert_eq!(parameters.push_msat, hsmd.push_value, "{name}");
    assert_eq!(parameters.funding_outpoint, hsmd.funding, "{name}");
    assert_eq!(local.config.to_self_delay, hsmd.local_to_self_delay, "{name}");
    assert_eq!(*local_shutdown_script, hsmd.local_shutdown_script, "{name}");
    assert_eq!(remote.keys, hsmd.remote_keys, "{name}");
    assert_eq!(remote.config.to_self_delay, hsmd.remote_to_self_delay, "{name}");
    assert_eq!(*remote_shutdown_script, hsmd.remote_shutdown_script, "{name}");
    assert_eq!(parameters.channel_type.to_features(), hsmd.channel_type, "{name}");
}

// req: B3-ORD-B-01, B3-ORD-B-02, B3-CTX-B-01, B3-CTX-B-02, B3-CTX-B-03, B3-CTX-B-04, B3-CTX-B-05
// req: B3-CTX-B-06, B3-CTX-B-08, B3-OUT-B-03, B3-OUT-B-04, B3-OUT-B-05, B3-OUT-B-07, B3-OUT-B-08
// req: B3-FEE-B-01, B3-FEE-B-03, B3-CON-B-01, B3-CON-B-02, B3-CON-B-07
// req: B3-KEY-B-02, B3-KEY-B-05, B3-KEY-B-07, B2-FS-B-02
#[test]
fn funder_asks_its_signer_for_what_openingd_asks_hsmd() {
    each_as_funder(|name, recording, ours| {
        assert_asked(name, recording, &ours.signer);
        assert_eq!(ours.opened.local_commitment, ours.signer.asked_to_validate.commitment);
        assert_eq!(ours.opened.remote_commitment, ours.signer.asked_to_sign.commitment);
        FunderReply::of(recording)
            .common
            .first_commit
            .assert_is(&ours.opened.local_commitment, name);
    });
}

// req: B3-ORD-B-01, B3-ORD-B-02, B3-CTX-B-01, B3-CTX-B-02, B3-CTX-B-03, B3-CTX-B-04, B3-CTX-B-05
// req: B3-CTX-B-06, B3-CTX-B-08, B3-OUT-B-03, B3-OUT-B-04, B3-OUT-B-05, B3-OUT-B-07, B3-OUT-B-08
// req: B3-FEE-B-01, B3-FEE-B-03, B3-CON-B-01, B3-CON-B-02, B3-CON-B-07
// req: B3-KEY-B-02, B3-KEY-B-05, B3-KEY-B-07, B2-FS-B-02
#[test]
fn fundee_asks_its_signer_for_what_openingd_asks_hsmd() {
    each_as_fundee(|name, recording, ours| {
        assert_asked(name, recording, &ours.signer);
        assert_eq!(ours.opened.local_commitment, ours.signer.asked_to_validate.commitment);
        assert_eq!(ours.opened.remote_commitment, ours.signer.asked_to_sign.commitment);
        Fundee::of(recording).common.first_commit.assert_is(&ours.opened.local_commitment, name);
    });
}

// req: B2-OPEN-B-02, B3-OUT-B-06, B3-OUT-B-08, B3-FEE-B-02, B3-FEE-B-03, B3-CON-B-05, B3-CON-B-06
#[test]
fn amounts_are_as_recorded_for_each_type_with_and_without_a_push() {
    // 1250 × 1124 / 1000 is 1405, and two anchors of 330 are paid for wherever there is one;
    // 2500 × 724 / 1000 is 1810.
    for (pair, amounts) in [
        (PLAIN, &[330, 1_000_000 - 1405 - 660][..]),
        (PUSH, &[330, 330, 200_000, 800_000 - 1405 - 660]),
        (STATIC_REMOTEKEY, &[1_000_000 - 1810]),
    ] {
        let funder = Recording::parse(pair.funder);
        let fundee = Recording::parse(pair.fundee);
        let ours = Node::recorded(&funder).fund(&funder).opened;
        let theirs = Node::recorded(&fundee).be_funded(&fundee).opened;
        assert_eq!(ours.local_commitment.transaction, theirs.remote_commitment.transaction);
        assert_eq!(ours.remote_commitment.transaction, theirs.local_commitment.transaction);
        for commitment in [&ours.local_commitment, &ours.remote_commitment] {
            let outputs = commitment.transaction.output.iter();
            let paid: Vec<_> = outputs.map(|output| output.value).collect();
            let expected: Vec<_> = amounts.iter().map(|&sat| Amount::from_sat(sat)).collect();
            assert_eq!(paid, expected, "{} {:?}", pair.name, commitment.owner);
        }
    }
}

// req: B2-FC-S-05, B2-FS-S-02, B3-SIG-B-01, B3-SIG-B-02
#[test]
fn hsmds_signatures_verify_and_are_of_the_side_that_sent_them() {
    let secp = Secp256k1::new();
    each_as_funder(|name, recording, ours| {
        let parameters = &ours.opened.parameters;
        let (our_key, their_key) =
            (&parameters.local.keys.funding_pubkey, &parameters.remote.keys.funding_pubkey);
        let (local, remote) = (&ours.opened.local_commitment, &ours.opened.remote_commitment);
        let our_signature = SignRemoteCommitment::of(recording).signature;
        let their_signature = ValidateCommitment::of(recording).signature;
        assert_eq!(ours.opened.local_signature, our_signature, "{name}");
        assert_eq!(ours.opened.remote_signature, their_signature, "{name}");
        assert!(remote.is_signed_by(&secp, &our_signature, our_key), "{name}");
        assert!(local.is_signed_by(&secp, &their_signature, their_key), "{name}");
        assert!(!local.is_signed_by(&secp, &our_signature, our_key), "{name}");
        assert!(!remote.is_signed_by(&secp, &our_signature, their_key), "{name}");
    });
    each_as_fundee(|name, recording, ours| {
        let parameters = &ours.opened.parameters;
        let (local, remote) = (&ours.opened.local_commitment, &ours.opened.remote_commitment);
        let our_signature = SignRemoteCommitment::of(recording).signature;
        let their_signature = ValidateCommitment::of(recording).signature;
        assert_eq!(ours.opened.local_signature, our_signature, "{name}");
        assert_eq!(ours.opened.remote_signature, their_signature, "{name}");
        let our_key = &parameters.local.keys.funding_pubkey;
        assert!(remote.is_signed_by(&secp, &our_signature, our_key), "{name}");
        let their_key = &parameters.remote.keys.funding_pubkey;
        assert!(local.is_signed_by(&secp, &their_signature, their_key), "{name}");
    });
}
