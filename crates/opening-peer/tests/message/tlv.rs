//! The rules of TLV streams, in the extensions of our messages.

use lightning::util::ser::{BigSize, Readable, Writeable};
use serde_json::Value;

use super::*;

/// `tests/vectors/bolt1-vectors.json`; its `source` tells where it is from.
pub(crate) fn vectors() -> Value {
    serde_json::from_str(include_str!("../vectors/bolt1-vectors.json")).unwrap()
}

fn hex_of<'v>(vector: &'v Value, field: &str) -> &'v str {
    vector[field].as_str().unwrap()
}

// req: B1-TLV-B-01
#[test]
fn bigsize_is_as_in_the_vectors() {
    let vectors = vectors();
    for vector in vectors["bigsize_decoding"].as_array().unwrap() {
        let encoded = bytes(hex_of(vector, "bytes"));
        let decoded = BigSize::read(&mut &encoded[..]).ok().map(|size| size.0);
        let expected = vector.get("exp_error").is_none().then(|| vector["value"].as_u64().unwrap());
        assert_eq!(decoded, expected, "{vector}");
    }
    for vector in vectors["bigsize_encoding"].as_array().unwrap() {
        assert_eq!(
            BigSize(vector["value"].as_u64().unwrap()).encode(),
            bytes(hex_of(vector, "bytes"))
        );
    }
}

// req: B1-TLV-B-01, B1-MSG-R-07, B1-TLV-R-02, B1-TLV-R-03, B1-TLV-R-04, B1-TLV-R-08, B1-TLV-R-09
#[test]
fn streams_of_the_vectors_that_no_namespace_decides_end_the_same_in_every_message() {
    let (mut good, mut bad) = (0, 0);
    for vector in vectors()["tlv_streams"].as_array().unwrap() {
        // Some are about record types of the vectors' own namespaces, which no message of ours has.
        let of_any_namespace = vector["namespaces"].as_array().unwrap().len() == 2;
        let of_unknown_odd_types =
            hex_of(vector, "hex").starts_with("1f00") || hex_of(vector, "hex").starts_with("ffff");
        if !of_any_namespace && !of_unknown_odd_types {
            continue;
        }
        let stream = bytes(hex_of(vector, "hex"));
        let messages =
            one_of_each().into_iter().filter(|message| ![1, 17, 18, 19].contains(&message[1]));
        for message in messages {
            let payload = match message[1] {
                32 => OPEN_CHANNEL_PAYLOAD,
                33 => ACCEPT_CHANNEL_PAYLOAD,
                36 => CHANNEL_READY_PAYLOAD,
                _ => message.len(),
            };
            let outcome = extended(&message[..payload], &stream);
            if vector["valid"].as_bool().unwrap() {
                outcome.unwrap();
                good += 1;
            } else {
                assert_invalid_extension(outcome);
                bad += 1;
            }
        }
    }
    // 10 messages, with 7 good and 16 bad streams.
    assert_eq!((good, bad), (70, 160));
}

// req: B1-MSG-B-04, B1-TLV-R-01
#[test]
fn an_extension_may_be_absent_or_end_with_a_record() {
    assert_eq!(open_with("").unwrap().common_fields.channel_type, None);
    let open = open_with("000001021000").unwrap();
    assert_eq!(open.common_fields.shutdown_scriptpubkey.unwrap().len(), 0);
    let created = bytes(golden::FUNDING_CREATED);
    assert_eq!(extended(&created, &[]), extended(&created, &[0x1f, 1, 0xaa]));
}

// req: B1-MSG-R-06
#[test]
fn an_odd_record_changes_nothing_in_any_message() {
    for message in one_of_each() {
        assert_eq!(extended(&message, &bytes("fd0fff02aabb")), decode(&message));
    }
}

// req: B1-MSG-R-06
#[test]
fn messages_without_records_may_have_any_bytes_behind_them() {
    for message in one_of_each().into_iter().filter(|message| [1, 17, 18, 19].contains(&message[1]))
    {
        assert_eq!(extended(&message, &[0, 0, 0xfd]), decode(&message));
    }
}

// req: B1-TLV-R-02
#[test]
fn lengths_and_types_that_are_not_minimal_are_refused() {
    for extension in
        ["fd0001021000", "01fd00021000", "fe00000001021000", "01ff00000000000000021000"]
    {
        assert_invalid_extension(open_with(extension));
    }
}

// req: B1-TLV-R-03
#[test]
fn records_out_of_order_or_twice_are_refused() {
    for extension in ["010210000000", "0102100001021000", "1f001f00", "00000000"] {
        assert_invalid_extension(open_with(extension));
    }
}

// req: B1-TLV-R-04
#[test]
fn a_length_beyond_the_message_is_refused() {
    for extension in [
        "000500000000",
        "0102",
        "1fffffffffffffffffff",
        "00ffffffffffffffffff",
        "01ff7fffffffffffffff1000",
    ] {
        assert_invalid_extension(open_with(extension));
    }
}

// req: B1-TLV-R-05
#[test]
fn known_records_end_where_their_length_says() {
    let script = ["0014", &"ab".repeat(20)].concat();
    let open = open_with(&format!("0016{script}01021000")).unwrap();
    assert_eq!(hex::encode(open.common_fields.shutdown_scriptpubkey.unwrap().as_bytes()), script);
    assert!(open.common_fields.channel_type.unwrap().requires_static_remote_key());
}

// req: B1-TLV-R-06
#[test]
fn a_short_channel_id_has_eight_bytes() {
    let payload = &encode(&channel_ready(None))[..];
    for length in (0..20).filter(|length| *length != 8) {
        assert_invalid_extension(extended(
            payload,
            &[&[1, length][..], &vec![1; length.into()]].concat(),
        ));
    }
    extended(payload, &[&[1, 8][..], &[1; 8]].concat()).unwrap();
}

// req: B1-TLV-R-08, B1-TLV-B-02
#[test]
fn unknown_even_records_are_refused() {
    for extension in ["0200", "0400", "fd100000", "fe0001000000", "00000102100002021000"] {
        assert_invalid_extension(open_with(extension));
        let accept = &bytes(golden::ACCEPT_CHANNEL)[..ACCEPT_CHANNEL_PAYLOAD];
        assert_invalid_extension(extended(accept, &bytes(extension)));
    }
    for extension in ["0000", "0200", "fe0001000000"] {
        assert_invalid_extension(extended(&encode(&channel_ready(None)), &bytes(extension)));
        assert_invalid_extension(extended(&bytes(golden::FUNDING_CREATED), &bytes(extension)));
        assert_invalid_extension(extended(&bytes(golden::FUNDING_SIGNED), &bytes(extension)));
    }
}

// req: B1-TLV-R-09, B1-TLV-B-02
#[test]
fn unknown_odd_records_are_passed_over() {
    let plain = open_with("000001021000").unwrap();
    for extension in
        ["0000010210000302aabb", "0000010210000300fd10010155", "000001021000fe000100010199"]
    {
        assert_eq!(open_with(extension).unwrap(), plain);
    }
}

// req: B1-MSG-R-07, B1-MSG-R-08
#[test]
fn an_invalid_extension_is_answered_for_the_channel_that_was_named() {
    let undecodable = open_with("0200").unwrap_err();
    let id = open_channel().common_fields.temporary_channel_id;
    // Documented choice: the channel fails with the connection.
    assert_eq!(undecodable.consequence(), Consequence::Close(Some(id)));
}

// req: B1-TLV-S-01, B1-MSG-S-03
#[test]
fn the_only_even_record_sent_is_the_upfront_script_and_it_comes_first() {
    let mut open = open_channel();
    let types = |encoded: &[u8]| {
        let mut stream = encoded;
        let mut types = Vec::new();
        while !stream.is_empty() {
            types.push(stream[0]);
            stream = &stream[2 + usize::from(stream[1])..];
        }
        types
    };
    assert_eq!(types(&encode(&open)[OPEN_CHANNEL_PAYLOAD..]), [0, 1]);
    open.common_fields.shutdown_scriptpubkey = None;
    assert_eq!(types(&encode(&open)[OPEN_CHANNEL_PAYLOAD..]), [1]);
    assert_eq!(types(&encode(&accept_channel())[ACCEPT_CHANNEL_PAYLOAD..]), [0, 1]);
    assert_eq!(types(&encode(&channel_ready(Some(1)))[CHANNEL_READY_PAYLOAD..]), [1]);
}

// req: B1-TLV-S-02
#[test]
fn lengths_are_sent_in_the_fewest_bytes() {
    let mut open = open_channel();
    for (length, prefix) in
        [(0, "00"), (252, "fc"), (253, "fd00fd"), (65535, "fdffff"), (65536, "fe00010000")]
    {
        open.common_fields.shutdown_scriptpubkey = Some(vec![0x51; length].into());
        let encoded = hex::encode(&encode(&open)[OPEN_CHANNEL_PAYLOAD..]);
        assert!(encoded.starts_with(&format!("00{prefix}")));
        assert_eq!(encoded.len(), 2 * (1 + prefix.len() / 2 + length + 5));
    }
}
