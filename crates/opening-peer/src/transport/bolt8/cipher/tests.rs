use std::collections::BTreeMap;

use chacha20poly1305::aead::Aead;
use chacha20poly1305::aead::Payload;
use serde_json::Value;

use super::*;
use crate::transport::framing::{FrameDecoder, FrameEncoder};

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../../../tests/vectors/bolt8-vectors.json")).unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

fn secret(value: &Value) -> Secret {
    Secret::new(bytes(value).try_into().unwrap())
}

/// The initiator's sending direction of the vectors.
fn sending() -> CipherState {
    let setup = &vectors()["message_encryption"]["key_setup"];
    CipherState::new(secret(&setup["sk"]), secret(&setup["ck"]))
}

/// Every AEAD call that the vectors list, wherever it stands.
fn aead_calls(value: &Value, found: &mut Vec<Value>) {
    match value {
        Value::Object(object) if object.contains_key("nonce") => found.push(value.clone()),
        // Comments of the text that belong to an older encoding; the vectors' own note says so.
        Value::Object(object) => object
            .iter()
            .filter(|(key, _)| *key != "stale_text_comments")
            .for_each(|(_, inner)| aead_calls(inner, found)),
        Value::Array(array) => array.iter().for_each(|inner| aead_calls(inner, found)),
        _ => {}
    }
}

// req: B8-HS-B-04, B8-HS-B-12, B8-TR-B-04
#[test]
fn each_aead_call_of_the_vectors_reproduces() {
    let mut calls = Vec::new();
    aead_calls(&vectors(), &mut calls);
    let mut kinds = BTreeMap::new();
    for call in &calls {
        let key = secret(&call["key"]);
        let ad = bytes(&call["ad"]);
        let nonce = bytes(&call["nonce"]);
        let counter = u64::from_le_bytes(nonce[4..].try_into().unwrap());
        assert_eq!(nonce_bytes(counter).as_slice(), nonce, "{call}");

        let kind = call.get("op").or(call.get("part")).and_then(Value::as_str).unwrap();
        *kinds.entry(kind).or_insert(0) += 1;
        let plaintext = call.get("plaintext").or(call.get("cleartext"));
        let mut text = match (plaintext, call.get("ciphertext")) {
            (Some(plaintext), _) => bytes(plaintext),
            (None, Some(ciphertext)) => {
                decrypt(&key, counter, &ad, &mut bytes(ciphertext)).unwrap().to_vec()
            }
            (None, None) => panic!("{call}"),
        };
        if call.get("part").is_some() {
            assert!(ad.is_empty(), "messages have no associated data");
        }
        let mac = encrypt(&key, counter, &ad, &mut text);
        if let Some(ciphertext) = call.get("ciphertext") {
            assert_eq!([&text[..], &mac].concat(), bytes(ciphertext), "{call}");
        }
    }
    // Handshake calls of both success vectors, "act3 bad rs", and two messages.
    assert_eq!(
        kinds,
        BTreeMap::from([("body", 2), ("decryptWithAD", 5), ("encryptWithAD", 4), ("length", 2)])
    );
}

// req: B8-HS-B-04
#[test]
fn the_example_of_rfc_8439_reproduces() {
    let key: Vec<u8> = (0x80..=0x9f).collect();
    let nonce = hex::decode("070000004041424344454647").unwrap();
    let aad = hex::decode("50515253c0c1c2c3c4c5c6c7").unwrap();
    let msg = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, \
        sunscreen would be it.";
    let expected = "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b\
        1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc\
        3ff4def08e4b7a9de576d26586cec64b61161ae10b594f09e26a7e902ecbd0600691";
    let cipher = ChaCha20Poly1305::new(Key::from_slice(&key));
    let encrypted = cipher.encrypt(Nonce::from_slice(&nonce), Payload { msg, aad: &aad }).unwrap();
    assert_eq!(hex::encode(encrypted), expected);
}

// req: B8-HS-B-12
#[test]
fn the_nonce_is_four_zeros_and_a_little_endian_counter() {
    assert_eq!(hex::encode(nonce_bytes(1)), "000000000100000000000000");
    assert_eq!(hex::encode(nonce_bytes(0x0102)), "000000000201000000000000");
}

// req: B8-TR-B-05, B8-TR-B-07
#[test]
fn keys_rotate_as_in_the_vectors_after_a_thousand_operations() {
    let vectors = vectors();
    let mut cipher = sending();
    for rotation in vectors["message_encryption"]["rotations"].as_array().unwrap() {
        for operation in 0..OPERATIONS_PER_KEY {
            cipher.encrypt(&mut []);
            assert_eq!(cipher.nonce, operation + 1);
            assert_eq!(cipher.key, secret(&rotation["k_old"]));
            assert_eq!(cipher.chaining_key, secret(&rotation["ck_old"]));
        }
        // Nonce 1000 is never used: the next operation is the first of the next key.
        let mut next = [0; 2];
        let mac = cipher.encrypt(&mut next);
        let mut expected = [0; 2];
        assert_eq!(mac, encrypt(&secret(&rotation["k_new"]), 0, &[], &mut expected));
        assert_eq!(next, expected);
        assert_eq!(cipher.key, secret(&rotation["k_new"]));
        assert_eq!(cipher.chaining_key, secret(&rotation["ck_new"]));
        cipher.nonce = 0;
    }
}

// req: B8-TR-B-08
#[test]
fn a_direction_holds_one_key_one_chaining_key_and_nothing_older() {
    assert_eq!(size_of::<CipherState>(), 32 + 32 + size_of::<u64>());
}

// req: B8-TR-B-06
#[test]
fn a_quiet_direction_keeps_its_first_key() {
    let setup = &vectors()["message_encryption"]["key_setup"];
    let mut encoder = FrameEncoder::Bolt8(sending());
    let mut quiet =
        FrameEncoder::Bolt8(CipherState::new(secret(&setup["rk"]), secret(&setup["ck"])));
    quiet.append(b"hello", &mut Vec::new()).unwrap();
    for _ in 0..501 {
        encoder.append(b"hello", &mut Vec::new()).unwrap();
    }
    let (FrameEncoder::Bolt8(busy), FrameEncoder::Bolt8(quiet)) = (encoder, quiet) else {
        unreachable!()
    };
    assert_eq!(busy.nonce, 2);
    assert_ne!(busy.key, secret(&setup["sk"]));
    assert_ne!(busy.chaining_key, secret(&setup["ck"]));
    assert_eq!((quiet.nonce, quiet.key), (2, secret(&setup["rk"])));
}

// req: B8-TR-B-02, B8-TR-B-03
#[test]
fn the_length_is_a_big_endian_count_of_the_message_alone() {
    for (length, prefix) in [(255_usize, [0x00, 0xff]), (256, [0x01, 0x00]), (65535, [0xff, 0xff])]
    {
        let mut frame = Vec::new();
        FrameEncoder::Bolt8(sending()).append(&vec![7; length], &mut frame).unwrap();
        assert_eq!(frame.len(), 2 + 16 + length + 16);
        let mut receiver = sending();
        assert_eq!(receiver.decrypt(&mut frame[..18]).unwrap(), prefix);
        assert_eq!(receiver.decrypt(&mut frame[18..]).unwrap(), vec![7; length]);
    }
}

// req: B8-TR-S-01
#[test]
fn a_message_too_long_uses_no_nonce_and_no_buffer() {
    let mut encoder = FrameEncoder::Bolt8(sending());
    let mut frames = Vec::new();
    assert_eq!(
        encoder.append(&[0; 65536], &mut frames).unwrap_err().code(),
        "transport-message-too-long"
    );
    let FrameEncoder::Bolt8(cipher) = encoder else { unreachable!() };
    assert_eq!((cipher.nonce, frames.len()), (0, 0));
}

// req: B8-TR-S-02, B8-TR-S-03, B8-TR-R-02, B8-TR-R-04
#[test]
fn each_of_the_two_operations_of_a_message_takes_a_nonce() {
    let mut encoder = FrameEncoder::Bolt8(sending());
    let mut decoder = FrameDecoder::Bolt8(sending());
    let nonce = |decoder: &FrameDecoder| match decoder {
        FrameDecoder::Bolt8(cipher) => cipher.nonce,
        FrameDecoder::LengthPrefix => unreachable!(),
    };
    for message in 0..3 {
        let mut frame = Vec::new();
        encoder.append(b"hello", &mut frame).unwrap();
        let FrameEncoder::Bolt8(sender) = &encoder else { unreachable!() };
        assert_eq!(sender.nonce, 2 * message + 2);
        assert_eq!(decoder.header(&mut frame[..18]).unwrap(), 5 + 16);
        assert_eq!(nonce(&decoder), 2 * message + 1);
        assert_eq!(decoder.body(&mut frame[18..]).unwrap(), b"hello");
        assert_eq!(nonce(&decoder), 2 * message + 2);
    }
}
