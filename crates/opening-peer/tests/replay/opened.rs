//! The opened channel, beside what openingd hands to lightningd.

use opening_core::{MilliSatoshi, Role};
use opening_peer::Opened;

use crate::openingd::{Common, Fundee, FunderReply, FunderStart};
use crate::recording::PEER;
use crate::{each_as_fundee, each_as_funder};

/// What both roles' messages say, but for the penalty base.
fn assert_common(name: &str, openingds: &Common, ours: &Opened) {
    let remote = &ours.parameters.remote;
    assert_eq!(remote.config, openingds.their_config, "{name}");
    // No message tells it, so openingd does not know it of the peer.
    assert_eq!(openingds.their_max_dust_htlc_exposure, MilliSatoshi::ZERO, "{name}");
    openingds.first_commit.assert_is(&ours.local_commitment, name);
    assert_eq!(ours.remote_signature, openingds.first_commit_sig, "{name}");
    assert_eq!(remote.keys, openingds.their_keys, "{name}");
    assert_eq!(remote.first_per_commitment_point, openingds.their_per_commit_point, "{name}");
    assert_eq!(ours.parameters.funding_outpoint, openingds.funding, "{name}");
}

#[test]
fn funder_hands_over_what_openingd_does_in_6101() {
    each_as_funder(|name, recording, funder| {
        let (openingds, ours) = (FunderReply::of(recording), funder.opened);
        assert_common(name, &openingds.common, &ours);
        assert_eq!(ours.role(), Role::Funder, "{name}");
        assert_eq!(Some(ours.minimum_depth), openingds.common.minimum_depth, "{name}");
        assert_eq!(ours.parameters.feerate_per_kw, openingds.feerate_per_kw, "{name}");
        let local = &ours.parameters.local;
        let asked = openingds.our_channel_reserve_satoshis;
        assert_eq!(local.config.channel_reserve_satoshis, asked, "{name}");
        assert_eq!(ours.remote_shutdown_script, openingds.remote_shutdown_script, "{name}");
        assert_eq!(ours.parameters.channel_type.to_features(), openingds.channel_type, "{name}");

        // lightningd knows the rest, because it asked for it.
        let start = FunderStart::of(recording);
        assert_eq!(ours.temporary_channel_id, start.temporary_channel_id, "{name}");
        assert_eq!(ours.local_shutdown_script, start.ask.upfront_shutdown_script, "{name}");
        assert_eq!(ours.announce_channel, start.ask.announce_channel, "{name}");

        // openingd's PSBT has the peer's signature in it.
        let psbt = &openingds.common.first_commit.psbt;
        let key = bitcoin::PublicKey::new(ours.parameters.remote.keys.funding_pubkey);
        let signature = psbt.inputs[0].partial_sigs.get(&key).unwrap();
        assert_eq!(signature.signature, ours.remote_signature, "{name}");
    });
}

#[test]
fn fundee_hands_over_what_openingd_does_in_6003() {
    each_as_fundee(|name, recording, fundee| {
        let (openingds, ours) = (Fundee::of(recording), fundee.opened);
        assert_common(name, &openingds.common, &ours);
        assert_eq!(ours.role(), Role::Fundee, "{name}");
        assert_eq!(ours.penalty_base(), openingds.common.penalty_base, "{name}");
        let parameters = &ours.parameters;
        assert_eq!(parameters.funding_satoshis, openingds.funding_satoshis, "{name}");
        assert_eq!(parameters.push_msat, openingds.push_msat, "{name}");
        assert_eq!(u8::from(ours.announce_channel), openingds.channel_flags, "{name}");
        assert_eq!(parameters.feerate_per_kw, openingds.feerate_per_kw, "{name}");
        let asked = openingds.our_channel_reserve_satoshis;
        assert_eq!(parameters.local.config.channel_reserve_satoshis, asked, "{name}");
        assert_eq!(ours.local_shutdown_script, openingds.local_shutdown_script, "{name}");
        assert_eq!(ours.remote_shutdown_script, openingds.remote_shutdown_script, "{name}");
        assert_eq!(parameters.channel_type.to_features(), openingds.channel_type, "{name}");

        // lightningd decided about the depth, and knows the id from the peer.
        assert_eq!(ours.minimum_depth, 1, "{name}");
        assert_eq!(ours.temporary_channel_id.0[..], recording.read(PEER, 34)[2..34], "{name}");
        assert_eq!(ours.channel_id.0[..], openingds.funding_signed[2..34], "{name}");
    });
}

#[test]
fn funder_finds_the_output_to_punish_where_openingd_does() {
    each_as_funder(|name, recording, funder| {
        // Without a push there is none, and openingd takes another one for it: see `stances`.
        if name == "push" || name == "static-remotekey" {
            let openingds = FunderReply::of(recording).common.penalty_base;
            assert_eq!(funder.opened.penalty_base(), openingds, "{name}");
            assert_eq!(openingds.is_some(), name == "push", "{name}");
        }
    });
}
