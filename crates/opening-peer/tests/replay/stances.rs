//! Where a stance of ours differs from openingd's, each under its name.

use bitcoin::Amount;
use opening_core::Profile;

use crate::hsmd::{SetupChannel, SignRemoteCommitment};
use crate::node::{Node, peer};
use crate::openingd::{Fundee, FunderReply, FunderStart};
use crate::recording::{CLOSE_TO, OPENED, PEER, PLAIN, Recording};

/// Without a push the peer has no delayed output that could be punished.  openingd says it is
/// the only anchor there is: ours.  The revocation key does not spend it.
// req: B3-OUT-B-06
#[test]
fn an_anchor_is_not_the_output_to_punish() {
    for pair in [PLAIN, CLOSE_TO] {
        let recording = Recording::parse(pair.funder);
        let ours = Node::recorded(&recording).fund(&recording).opened;
        let openingds = FunderReply::of(&recording).common.penalty_base.unwrap();
        assert_eq!(ours.penalty_base(), None, "{}", pair.name);

        let transaction = &ours.remote_commitment.transaction;
        assert_eq!(openingds.outpoint.txid, transaction.compute_txid());
        assert_eq!((openingds.outpoint.vout, openingds.amount), (0, Amount::from_sat(330)));
        let psbt = SignRemoteCommitment::of(&recording).transaction.psbt;
        let script = psbt.outputs[0].witness_script.clone().unwrap();
        assert_eq!(script.to_p2wsh(), transaction.output[0].script_pubkey);
        let our_funding_key = ours.parameters.local.keys.funding_pubkey.serialize();
        assert_eq!(script.as_bytes()[1..34], our_funding_key, "{}", pair.name);
    }
}

/// A wallet index is lightningd's business, and nothing that a signer in general knows.
#[test]
fn the_signer_is_not_told_where_the_wallet_has_the_upfront_script_from() {
    let recording = Recording::parse(CLOSE_TO.funder);
    let setup = SetupChannel::of(&recording);
    let start = FunderStart::of(&recording);
    assert_eq!(setup.local_shutdown_wallet_index, Some(4));
    assert_eq!(setup.local_shutdown_wallet_index, start.upfront_shutdown_wallet_index);
    // Our setup has the script and no place for the index.
    let ours = Node::recorded(&recording).fund(&recording).signer.setup;
    assert_eq!(ours.local_shutdown_script, setup.local_shutdown_script);
}

/// Where both nodes offer zero-conf, openingd says that it waits for its own depth, though the type
/// is another.  We wait for the fundee's, before which it sends no `channel_ready`.
#[test]
fn the_funder_waits_for_the_depth_that_the_fundee_asks_for() {
    let recording = Recording::parse(PLAIN.funder);
    assert!(recording.log().contains("We negotiated option_zeroconf, using our minimum_depth=1"));
    let mut accept_channel = peer::accept_channel(&recording);
    accept_channel.common_fields.minimum_depth = 6;
    let ours = Node::recorded(&recording).fund_against(&recording, &accept_channel).opened;
    assert_eq!(ours.minimum_depth, 6);
}

/// openingd announces 2^64 - 1 for `max_htlc_value_in_flight_msat`.  With the BOLT's rules we
/// announce what there is, and take openingd's for no bound.
#[test]
fn with_the_bolts_rules_only_the_value_in_flight_differs() {
    for pair in OPENED {
        let recording = Recording::parse(pair.funder);
        let ours = Node::with_rules_of(Profile::Strict, &recording).fund(&recording);
        let openingds = recording.written(PEER, 32);
        assert_only_value_in_flight_differs(pair.name, 90, &ours.open_channel, openingds);
        assert_eq!(hex::encode(ours.funding_created), hex::encode(recording.written(PEER, 34)));

        let recording = Recording::parse(pair.fundee);
        let ours = Node::with_rules_of(Profile::Strict, &recording).be_funded(&recording);
        let openingds = recording.written(PEER, 33);
        assert_only_value_in_flight_differs(pair.name, 42, &ours.accept_channel, openingds);
        let openingds = Fundee::of(&recording).funding_signed;
        assert_eq!(hex::encode(ours.funding_signed), hex::encode(openingds), "{}", pair.name);
    }
}

/// The field stands at `place` in the message.
#[track_caller]
fn assert_only_value_in_flight_differs(name: &str, place: usize, ours: &[u8], openingds: &[u8]) {
    let field = place..place + 8;
    assert_eq!(ours[field.clone()], 1_000_000_000_u64.to_be_bytes(), "{name}");
    assert_eq!(openingds[field.clone()], u64::MAX.to_be_bytes(), "{name}");
    let mut made_equal = ours.to_vec();
    made_equal[field.clone()].copy_from_slice(&openingds[field]);
    assert_eq!(hex::encode(made_equal), hex::encode(openingds), "{name}");
}
