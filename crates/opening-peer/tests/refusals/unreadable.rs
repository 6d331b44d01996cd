//! Messages that cannot be read, in part or at all.

use lightning::ln::msgs::OpenChannel;
use lightning::ln::types::ChannelId;
use opening_peer::message::encode;

use crate::common::ask;
use crate::common::here::Here;
use crate::common::raw_peer::{RawPeer, made_up_outpoint};
use crate::{ID, answer_bytes_refused, refused};

/// Encodings that are no compressed key: uncompressed and unknown prefixes, an x off the curve,
/// an x beyond the field.
fn not_keys() -> [[u8; 33]; 4] {
    let key = |prefix, x: [u8; 32]| {
        let mut bytes = [prefix; 33];
        bytes[1..].copy_from_slice(&x);
        bytes
    };
    // y² = 5³ + 7 has no root.
    let mut five = [0; 32];
    five[31] = 5;
    [key(4, [1; 32]), key(0, [1; 32]), key(2, five), key(3, [0xff; 32])]
}

const KEYS: [&str; 6] = [
    "funding_pubkey",
    "revocation_basepoint",
    "payment_basepoint",
    "delayed_payment_basepoint",
    "htlc_basepoint",
    "first_per_commitment_point",
];

// req: B2-OPEN-R-18
#[tokio::test]
async fn an_invalid_key_in_open_channel_is_refused_and_the_connection_stays() {
    let here = Here::new();
    let (mut peer, _session) = RawPeer::connect(&here.openings, 2).await;
    for (number, field) in KEYS.into_iter().enumerate() {
        for bad in not_keys() {
            let mut bytes = encode(&peer.open_channel(ID));
            bytes[122 + 33 * number..][..33].copy_from_slice(&bad);
            let text = format!("open_channel: {field} is not a valid key");
            refused(&here, &mut peer, &bytes, "message-invalid-key", &text).await;
        }
    }
}

// req: B2-ACC-R-08
#[tokio::test]
async fn an_invalid_key_in_accept_channel_is_refused_and_the_connection_stays() {
    for (number, field) in KEYS.into_iter().enumerate() {
        for bad in not_keys() {
            let text = format!("accept_channel: {field} is not a valid key");
            let answer = |peer: &RawPeer, open: &OpenChannel| {
                let mut bytes = encode(&peer.accept_channel(open));
                bytes[74 + 33 * number..][..33].copy_from_slice(&bad);
                bytes
            };
            answer_bytes_refused(answer, "message-invalid-key", &text).await;
        }
    }
}

// req: B1-MSG-R-04, B1-MSG-R-05, B1-MSG-R-07, B1-MSG-R-08, B1-ERR-S-08
#[tokio::test]
async fn a_message_that_cannot_be_read_is_answered_and_closes_the_connection() {
    let open = |peer: &RawPeer| encode(&peer.open_channel(ID));
    let with = |mut bytes: Vec<u8>, extension: &[u8]| {
        bytes.extend_from_slice(extension);
        bytes
    };
    let truncated = "open_channel: truncated";
    let invalid = "open_channel: invalid extension";
    let peer_of = |here: &Here| {
        let openings = here.openings.clone();
        async move { RawPeer::connect(&openings, 2).await }
    };
    for (cut, extension, text) in [
        // Up to the last byte of the fixed part.
        (320, &[][..], truncated),
        (66, &[], truncated),
        // A record that ends too soon, an unknown even one, one out of order.
        (usize::MAX, &[3, 5, 0], invalid),
        (usize::MAX, &[4, 0], invalid),
        (usize::MAX, &[0, 0], invalid),
    ] {
        let here = Here::new();
        let (mut peer, _session) = peer_of(&here).await;
        let bytes = open(&peer);
        let bytes = with(bytes[..cut.min(bytes.len())].to_vec(), extension);
        peer.send_bytes(&bytes).await;
        assert_eq!(peer.expect_error(ID).await, text);
        peer.expect_closed().await;
        assert_eq!(here.failed().await.failure.code(), code_of(text));
        here.nothing_pending().await;
    }
    // Without an id there is no channel to name.
    for (bytes, text) in [
        (open(&peer_of(&Here::new()).await.0)[..65].to_vec(), truncated),
        (vec![0], "message: too short for a type"),
        (vec![0, 18, 0], "ping: truncated"),
    ] {
        let here = Here::new();
        let (mut peer, _session) = peer_of(&here).await;
        peer.send_bytes(&bytes).await;
        assert_eq!(peer.expect_warning(ChannelId([0; 32])).await, text);
        peer.expect_closed().await;
        here.nothing_pending().await;
    }
}

fn code_of(text: &str) -> &'static str {
    if text.ends_with("truncated") { "message-truncated" } else { "message-invalid-extension" }
}

// req: B1-MSG-R-04, B1-MSG-R-05
#[tokio::test]
async fn truncated_at_any_byte_each_opening_message_ends_its_opening() {
    for length in (2..132).step_by(13) {
        let here = Here::new();
        let (mut peer, _session) = RawPeer::connect(&here.openings, 2).await;
        let open = peer.open_channel(ID);
        peer.send(&open).await;
        let accept = peer.expect_accept_channel(ID).await;
        let created = encode(&peer.funding_created(&open, &accept, made_up_outpoint(1, 0)));
        peer.send_bytes(&created[..length]).await;
        let id = if length < 34 { ChannelId([0; 32]) } else { ID };
        let text = match id {
            ID => peer.expect_error(ID).await,
            id => peer.expect_warning(id).await,
        };
        assert_eq!(text, "funding_created: truncated");
        peer.expect_closed().await;
        let code = if id == ID { "message-truncated" } else { "disconnected" };
        assert_eq!(here.failed().await.failure.code(), code);
        here.nothing_pending().await;
        assert_eq!(here.saved().await, []);
    }
}

// req: B1-MSG-R-06, B1-MSG-R-01
#[tokio::test]
async fn an_odd_record_that_nobody_knows_changes_nothing() {
    let here = Here::new();
    let (mut peer, _session) = RawPeer::connect(&here.openings, 2).await;
    let open = peer.open_channel(ID);
    let odd = [0xfd, 0x01, 0x01, 2, 9, 9];
    peer.send_bytes(&[&encode(&open)[..], &odd].concat()).await;
    let accept = peer.expect_accept_channel(ID).await;
    let created = peer.funding_created(&open, &accept, made_up_outpoint(1, 0));
    peer.send_bytes(&[&encode(&created)[..], &odd].concat()).await;
    peer.expect_funding_signed().await;
    here.forgot_theirs(&mut peer, ID).await;
}

// req: B1-MSG-R-04, B1-MSG-R-05, B1-MSG-R-07, B1-MSG-R-08
#[tokio::test]
async fn an_answer_that_cannot_be_read_fails_our_opening_and_closes_the_connection() {
    for (extension, text) in [
        (None, "accept_channel: truncated"),
        (Some([4, 0]), "accept_channel: invalid extension"),
        (Some([3, 9]), "accept_channel: invalid extension"),
    ] {
        let here = Here::new();
        let (mut peer, session) = RawPeer::connect(&here.openings, 2).await;
        let opening = session.open(ask()).await.unwrap();
        let open = peer.expect_open_channel().await;
        let mut bytes = encode(&peer.accept_channel(&open));
        match extension {
            Some(extension) => bytes.extend(extension),
            None => bytes.truncate(271),
        }
        peer.send_bytes(&bytes).await;
        assert_eq!(peer.expect_error(open.common_fields.temporary_channel_id).await, text);
        peer.expect_closed().await;
        assert_eq!(opening.accepted().await.unwrap_err().failure.code(), code_of(text));
        here.nothing_pending().await;
    }
}
