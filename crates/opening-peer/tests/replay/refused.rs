//! The open that openingd refused.

use opening_core::{Profile, Refusal, Side};
use opening_peer::Failure;
use opening_peer::message::{Message, decode, encode};

use crate::node::Node;
use crate::openingd;
use crate::recording::{PEER, REFUSED_CAPACITY, Recording};

/// The text of openingd's `error`, which is about `open_channel`'s id.
fn text_of(error: &[u8], open_channel: &[u8]) -> String {
    let Ok(Message::Error(error)) = decode(error) else { panic!("not an error") };
    assert_eq!(error.channel_id.0[..], open_channel[2 + 32..][..32]);
    error.data
}

#[test]
fn the_fundee_refuses_by_openingds_rule_with_its_numbers() {
    let recording = Recording::parse(REFUSED_CAPACITY.fundee);
    let refusal = Node::recorded(&recording).consider(&recording).unwrap_err();
    assert_eq!(refusal.code(), "capacity-too-small");
    assert_eq!(refusal.cites(), ["openingd:R8"]);
    let Refusal::CapacityTooSmall { side: Side::Remote, capacity, min } = refusal else {
        panic!("{refusal:?}");
    };
    let (capacity, min) = (capacity.to_sat(), min.to_sat());
    let openingds = format!("channel capacity is {capacity}sat, which is below {min}sat");
    let reason = openingd::failure(&recording);
    assert!(reason.ends_with(&openingds), "{reason}");
}

/// Ours names the field that is too small and the bound, openingd's all that goes into the sum.
#[test]
fn the_funder_reads_another_text_than_openingds() {
    let recording = Recording::parse(REFUSED_CAPACITY.fundee);
    let refusal = Node::recorded(&recording).consider(&recording).unwrap_err();
    let ours = Failure::from(refusal).reply();
    assert_eq!(ours.as_deref(), Some("a capacity of 389935 sat is below 500000"));
    let openingds = text_of(recording.written(PEER, 17), recording.read(PEER, 32));
    let reason = openingd::failure(&recording);
    assert_eq!(openingds, format!("You gave bad parameters: {reason}"));
}

/// What is left after reserves and fee is openingd's measure; the BOLT knows none such.
#[test]
fn the_bolts_rules_accept_the_offer() {
    let recording = Recording::parse(REFUSED_CAPACITY.fundee);
    let node = Node::with_rules_of(Profile::Strict, &recording);
    assert_eq!(node.consider(&recording).err(), None);
}

// req: B2-OPEN-B-01
#[test]
fn the_funder_offers_what_openingd_does_and_ends_with_the_peers_text() {
    let recording = Recording::parse(REFUSED_CAPACITY.funder);
    let (open_channel, _) = Node::recorded(&recording).open_channel(&recording);
    let ours = encode(&open_channel);
    assert_eq!(hex::encode(&ours), hex::encode(recording.written(PEER, 32)));

    let text = text_of(recording.read(PEER, 17), &ours);
    let id = open_channel.common_fields.temporary_channel_id;
    let openingds = format!("They sent ERROR channel {id}: {text}");
    assert_eq!(openingd::failure(&recording), openingds);
    // The operator's line is ours; the peer's words in it are all there.
    let failure = Failure::PeerError(text.clone());
    assert_eq!(failure.to_string(), format!("the peer ended it: {text}"));
    assert_eq!(failure.reply(), None);
}
