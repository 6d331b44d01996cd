//! Our messages to the peer.

use bitcoin::hashes::Hash;
use opening_core::Feature;

use crate::openingd::{Fundee, FunderStartReply, GotOffer};
use crate::recording::{CLOSE_TO, PEER, PLAIN, Recording};
use crate::{Node, each_as_fundee, each_as_funder};

#[track_caller]
fn assert_bytes(ours: &[u8], openingds: &[u8], name: &str) {
    assert_eq!(hex::encode(ours), hex::encode(openingds), "{name}");
}

// req: B2-OPEN-B-01, B2-OPEN-S-01, B2-OPEN-S-06, B2-OPEN-S-09, B2-OPEN-S-10, B2-OPEN-S-12
// req: B2-OPEN-S-13, B2-OPEN-S-15, B2-TYPE-B-02, B2-TYPE-B-03, B1-TLV-S-01
#[test]
fn open_channel_equals_openingds() {
    each_as_funder(|name, recording, ours| {
        assert_bytes(&ours.open_channel, recording.written(PEER, 32), name);
    });
}

// req: B2-OPEN-S-10, B2-OPEN-S-12, B2-OPEN-S-13, B2-OPEN-S-15
#[test]
fn the_extension_is_a_script_that_may_be_empty_and_the_type_in_this_order() {
    for (pair, extension) in [
        (PLAIN, "0000\x200103401000"),
        (CLOSE_TO, "0016\x20001487d6309bcb410b121262556c79351f0c3b0ad9d4\x200103401000"),
    ] {
        let recording = Recording::parse(pair.funder);
        let ours = Node::recorded(&recording).fund(&recording).open_channel;
        let fixed_part = 2 + 319;
        assert_eq!(hex::encode(&ours[fixed_part..]), extension.replace(' ', ""), "{}", pair.name);
    }
}

// req: B2-ACC-B-01, B2-ACC-B-02, B2-ACC-S-05, B2-ACC-S-06, B2-ACC-S-09, B2-TYPE-B-02
// req: B2-TYPE-B-03, B1-TLV-S-01
#[test]
fn accept_channel_equals_openingds() {
    each_as_fundee(|name, recording, ours| {
        assert_bytes(&ours.accept_channel, recording.written(PEER, 33), name);
    });
}

// req: B2-FC-B-01, B2-FC-S-01
#[test]
fn funding_created_equals_openingds() {
    each_as_funder(|name, recording, ours| {
        assert_bytes(&ours.funding_created, recording.written(PEER, 34), name);
        // the bytes of the txid stand as they do in an input.
        let txid = ours.opened.parameters.funding_outpoint.txid.to_byte_array();
        assert_bytes(&ours.funding_created[2 + 32..][..32], &txid, name);
    });
}

// req: B2-FS-B-01, B2-FS-S-01
#[test]
fn funding_signed_equals_openingds() {
    each_as_fundee(|name, recording, ours| {
        let openingds = Fundee::of(recording).funding_signed;
        assert_bytes(&ours.funding_signed, &openingds, name);
    });
}

// req: B3-FUND-B-01, B3-FUND-B-02
#[test]
fn the_wallet_is_told_to_pay_what_openingd_tells_it() {
    each_as_funder(|name, recording, ours| {
        let reply = FunderStartReply::of(recording);
        let parameters = &ours.opened.parameters;
        assert_eq!(ours.funding_output.script_pubkey, reply.script_pubkey, "{name}");
        assert_eq!(ours.funding_output.value, parameters.funding_satoshis, "{name}");
        assert_eq!(ours.opened.funding_output(), ours.funding_output, "{name}");
        assert_eq!(parameters.channel_type.to_features(), reply.channel_type, "{name}");
        let features = &Node::recorded(recording).context.features;
        let negotiated = features.negotiated(Feature::UpfrontShutdownScript);
        assert_eq!(negotiated, reply.upfront_shutdown_negotiated, "{name}");
    });
}

#[test]
fn the_node_is_asked_about_the_offer_that_lightningd_is_asked_about() {
    each_as_fundee(|name, recording, _| {
        let waiting = Node::recorded(recording).consider(recording).unwrap();
        let (ours, openingds) = (waiting.offer(), GotOffer::of(recording));
        assert_eq!(ours.funding_satoshis, openingds.funding_satoshis, "{name}");
        assert_eq!(ours.push_msat, openingds.push_msat, "{name}");
        assert_eq!(ours.config, openingds.config, "{name}");
        assert_eq!(ours.feerate_per_kw, openingds.feerate_per_kw, "{name}");
        assert_eq!(u8::from(ours.announce_channel), openingds.channel_flags, "{name}");
        assert_eq!(ours.channel_type, Some(&openingds.channel_type), "{name}");
        assert_eq!(waiting.channel_type().to_features(), openingds.channel_type, "{name}");
        let script = ours.upfront_shutdown_script.filter(|script| !script.is_empty());
        assert_eq!(script, openingds.upfront_shutdown_script.as_deref(), "{name}");
    });
}
