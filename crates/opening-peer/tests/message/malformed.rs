//! Messages cut short, keys that are none, signatures that are none.

use opening_peer::message::channel_id_of;

use super::*;

/// Bytes of a message before its extension.
fn payload_length(message: &[u8]) -> usize {
    match message[1] {
        32 => OPEN_CHANNEL_PAYLOAD,
        33 => ACCEPT_CHANNEL_PAYLOAD,
        36 => CHANNEL_READY_PAYLOAD,
        // No extension in these examples.
        _ => message.len(),
    }
}

// req: B1-MSG-R-04, B1-MSG-R-05, B1-MSG-B-02, B2-OPEN-B-01, B2-ACC-B-01, B2-FC-B-01, B2-FS-B-01, B2-CR-B-01
#[test]
fn a_message_cut_anywhere_in_its_fields_closes_the_connection_with_an_error_for_its_channel() {
    for message in one_of_each() {
        for length in 0..payload_length(&message) {
            let cut = &message[..length];
            let undecodable = decode(cut).unwrap_err();
            let expected =
                if length < 2 { UndecodableKind::NoType } else { UndecodableKind::Truncated };
            assert_eq!(undecodable.kind, expected, "{} of {}", length, hex::encode(&message));
            // Documented choice: the channel that the message got to name is told.
            assert_eq!(undecodable.channel_id, channel_id_of(cut));
            assert_eq!(undecodable.consequence(), Consequence::Close(channel_id_of(cut)));
        }
    }
}

// req: B1-MSG-R-07, B1-TLV-R-01, B1-TLV-R-04
#[test]
fn an_extension_cut_inside_a_record_closes_the_connection() {
    for message in
        [golden::OPEN_CHANNEL, golden::CLOSE_TO_OPEN_CHANNEL, golden::ACCEPT_CHANNEL].map(bytes)
    {
        let payload = payload_length(&message);
        let first_record_end = payload + 2 + usize::from(message[payload + 1]);
        for length in payload..message.len() {
            let outcome = decode(&message[..length]);
            if length == payload || length == first_record_end {
                outcome.unwrap();
            } else {
                assert_invalid_extension(outcome);
            }
        }
    }
}

/// Encodings that are no compressed point: wrong prefix, x without a point, x beyond the field.
fn bad_keys(good: &[u8]) -> Vec<Vec<u8>> {
    let with = |prefix: u8, x: &[u8]| [&[prefix], x].concat();
    let mut five = [0; 32];
    five[31] = 5;
    vec![
        with(0x04, &good[1..]),
        with(0x05, &good[1..]),
        with(0x00, &good[1..]),
        with(0x02, &five),
        with(0x03, &[0; 32]),
        with(0x02, &[0xff; 32]),
    ]
}

// req: B2-OPEN-R-18, B2-ACC-R-08, B1-TYP-B-07
#[test]
fn a_key_that_is_no_point_fails_the_channel_and_the_connection_stays() {
    let names = [
        "funding_pubkey",
        "revocation_basepoint",
        "payment_basepoint",
        "delayed_payment_basepoint",
        "htlc_basepoint",
        "first_per_commitment_point",
    ];
    let cases = [(golden::OPEN_CHANNEL, 122), (golden::ACCEPT_CHANNEL, 74)]
        .map(|(hex, first)| (bytes(hex), first));
    for (message, first) in cases {
        let channel_id = channel_id_of(&message).unwrap();
        for (index, field) in names.into_iter().enumerate() {
            let place = first + 33 * index..first + 33 * (index + 1);
            for bad in bad_keys(&message[place.clone()]) {
                let mut message = message.clone();
                message[place.clone()].copy_from_slice(&bad);
                let undecodable = decode(&message).unwrap_err();
                assert_eq!(undecodable.kind, UndecodableKind::InvalidKey { field });
                assert_eq!(undecodable.code(), "message-invalid-key");
                assert_eq!(undecodable.consequence(), Consequence::FailChannel(channel_id));
                assert!(undecodable.to_string().ends_with(&format!("{field} is not a valid key")));
            }
        }
    }
}

// req: B1-TYP-B-07
#[test]
fn later_points_are_judged_alike() {
    for (mut message, offset, field) in [
        (encode(&channel_ready(Some(1))), 34, "second_per_commitment_point"),
        (encode(&channel_reestablish()), 82, "my_current_per_commitment_point"),
    ] {
        for bad in bad_keys(&message[offset..offset + 33]) {
            message[offset..offset + 33].copy_from_slice(&bad);
            let undecodable = decode(&message).unwrap_err();
            assert_eq!(undecodable.kind, UndecodableKind::InvalidKey { field });
            assert_eq!(undecodable.consequence(), Consequence::FailChannel(ChannelId([0xc1; 32])));
        }
    }
}

#[test]
fn the_first_bad_key_is_named_and_before_a_bad_extension() {
    let mut message = bytes(golden::OPEN_CHANNEL);
    message[122] = 9;
    message[155] = 9;
    message.extend([2, 0]);
    assert_eq!(
        decode(&message).unwrap_err().kind,
        UndecodableKind::InvalidKey { field: "funding_pubkey" }
    );
}

#[test]
fn a_signature_out_of_range_fails_the_channel_and_the_connection_stays() {
    for (message, offset) in [(golden::FUNDING_CREATED, 68), (golden::FUNDING_SIGNED, 34)] {
        for number in [offset, offset + 32] {
            let mut message = bytes(message);
            message[number..number + 32].fill(0xff);
            let undecodable = decode(&message).unwrap_err();
            assert_eq!(
                (undecodable.kind, undecodable.code()),
                (UndecodableKind::InvalidSignature, "message-invalid-signature")
            );
            assert_eq!(
                undecodable.consequence(),
                Consequence::FailChannel(channel_id_of(&message).unwrap())
            );
        }
    }
}

#[test]
fn what_is_wrong_is_said_with_the_messages_name() {
    assert_eq!(decode(&[]).unwrap_err().to_string(), "message: too short for a type");
    assert_eq!(decode(&[0, 34]).unwrap_err().to_string(), "funding_created: truncated");
    assert_eq!(open_with("0200").unwrap_err().to_string(), "open_channel: invalid extension");
}
