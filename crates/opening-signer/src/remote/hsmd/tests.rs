//! The codec against recordings of Core Lightning's hsmd, and against its layouts where there are
//! none.

use bitcoin::consensus::encode::serialize;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};

use super::message::{Init, Message, SignCommitmentTx};
use crate::remote::codec::Malformed;
use crate::request::ChannelRef;

const RECORDINGS: [&str; 4] = [
    include_str!("../../../tests/vectors/hsmd-start-up.msgs"),
    include_str!("../../../tests/vectors/hsmd-open-funder.msgs"),
    include_str!("../../../tests/vectors/hsmd-open-fundee.msgs"),
    include_str!("../../../tests/vectors/hsmd-forget.msgs"),
];
const LAYOUTS: &str = include_str!("../../../tests/vectors/hsmd-layouts.csv");

/// What an opening says, both ways.
const TYPES: [u16; 20] =
    [9, 10, 11, 18, 19, 28, 30, 31, 34, 35, 109, 110, 112, 114, 118, 128, 130, 131, 134, 135];

/// Every recorded message that an opening says.
fn recorded() -> Vec<Vec<u8>> {
    let lines = RECORDINGS.iter().flat_map(|recording| recording.lines());
    let frames = lines.filter(|line| line.starts_with("fd") && line.contains(" type "));
    let bytes = frames.map(|line| hex::decode(line.rsplit(' ').next().unwrap()).unwrap());
    bytes.filter(|bytes| TYPES.contains(&kind(bytes))).collect()
}

fn kind(message: &[u8]) -> u16 {
    u16::from_be_bytes([message[0], message[1]])
}

fn key(byte: u8) -> PublicKey {
    SecretKey::from_slice(&[byte; 32]).unwrap().public_key(&Secp256k1::new())
}

#[test]
fn every_recorded_message_is_read_and_written_as_it_was() {
    let recorded = recorded();
    for number in TYPES {
        assert!(recorded.iter().any(|bytes| kind(bytes) == number), "no recording of {number}");
    }
    for bytes in &recorded {
        let message = Message::decode(bytes).unwrap();
        assert_eq!(message.type_number(), kind(bytes));
        // What stands for the wallet and its extensions is not kept.
        if kind(bytes) != 114 {
            assert_eq!(hex::encode(message.encode()), hex::encode(bytes));
        }
    }
}

#[test]
fn the_recorded_greeting_says_who_the_node_is() {
    let recorded = recorded();
    let find = |number| recorded.iter().find(|bytes| kind(bytes) == number).unwrap();
    let Ok(Message::Init(init)) = Message::decode(find(11)) else { panic!() };
    let genesis_hash = bitcoin::constants::ChainHash::REGTEST.to_bytes();
    let bip32_versions = [0x0435_87cf, 0x0435_8394];
    assert_eq!(init, Init { bip32_versions, genesis_hash, min_version: 5, max_version: 6 });

    let Ok(Message::InitReply(reply)) = Message::decode(find(114)) else { panic!() };
    assert_eq!((reply.version, reply.capabilities.len()), (6, 13));
    let node = crate::HsmSecret::new([7; 32]).node_key().public_key(&Secp256k1::new());
    assert_eq!(reply.node_id, node);
    let answered = Message::InitReply(reply);
    assert_eq!(Message::decode(&answered.encode()), Ok(answered));
}

#[test]
fn a_message_that_is_cut_or_too_long_is_none() {
    for mut bytes in recorded() {
        let number = kind(&bytes);
        for length in 0..bytes.len() {
            // What may follow is extensions: without them the greeting is one all the same.
            let is_whole = number == 114 && length >= 2 + 4 + 2 + 13 * 4 + 33 + 78 + 33;
            let read = Message::decode(&bytes[..length]);
            assert!(read.is_err() || is_whole, "{number} of {length} bytes");
        }
        bytes.push(0);
        assert!(Message::decode(&bytes).is_err(), "{number} with a byte more");
    }
}

/// Whatever a byte is changed to, reading ends.
#[test]
fn a_changed_byte_never_panics() {
    for bytes in recorded() {
        for index in 0..bytes.len() {
            for change in [0x01, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[index] ^= change;
                if let Ok(message) = Message::decode(&changed) {
                    let _ = message.encode();
                }
            }
        }
    }
}

#[test]
fn a_secret_in_a_reply_is_refused_and_not_shown() {
    let (point, secret) = (key(3).serialize(), [0x5a; 32]);
    let with_point = [&118_u16.to_be_bytes()[..], &point, &[1], &secret].concat();
    let validated = [&135_u16.to_be_bytes()[..], &[1], &secret, &point].concat();
    for reply in [with_point, validated] {
        let error = Message::decode(&reply).unwrap_err();
        assert_eq!(error, Malformed::Secret("old_commitment_secret"));
        assert!(!error.to_string().contains("5a5a") && !error.to_string().contains("90, 90"));
    }
}

#[test]
fn a_secret_in_the_greeting_is_refused() {
    let init =
        Init { bip32_versions: [1, 2], genesis_hash: [3; 32], min_version: 5, max_version: 6 };
    let plain = Message::Init(init).encode();
    let flags = 2 + 8 + 32;
    assert_eq!(plain[flags..flags + 5], [0; 5]);
    for flag in flags..flags + 5 {
        let mut bytes = plain.clone();
        bytes[flag] = 1;
        assert!(matches!(Message::decode(&bytes), Err(Malformed::Secret(_))), "{flag}");
    }
    let passphrase = [&plain[..], &[1, 2, b'x', 0]].concat();
    assert_eq!(Message::decode(&passphrase), Err(Malformed::Invalid("a TLV record's type")));
    let unknown = [&plain[..], &[3, 1, 9]].concat();
    assert_eq!(Message::decode(&unknown), Ok(Message::Init(init)));
}

#[test]
fn only_sighash_all_and_no_htlcs_are_read() {
    let sign = recorded().into_iter().find(|bytes| kind(bytes) == 112).unwrap();
    let mut single = sign.clone();
    *single.last_mut().unwrap() = 3;
    assert_eq!(Message::decode(&single), Err(Malformed::Invalid("sig")));

    let mut request = recorded().into_iter().find(|bytes| kind(bytes) == 19).unwrap();
    let count = request.len() - 4 - 2;
    assert_eq!(request[count..count + 2], [0, 0]);
    request[count + 1] = 1;
    assert_eq!(Message::decode(&request), Err(Malformed::Invalid("num_htlcs")));
}

/// What the layout's fields are made of, in its order.
fn laid_out(name: &str, number: u16, field: impl Fn(&str) -> Vec<u8>) -> Vec<u8> {
    let mut lines = LAYOUTS.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let head = lines.find(|line| line[..2] == ["msgtype", name]).unwrap();
    assert_eq!(head[2], number.to_string());
    let fields = lines.take_while(|line| line[0] == "msgdata");
    let mut bytes = number.to_be_bytes().to_vec();
    fields.for_each(|line| bytes.extend(field(&line[2..4].join(" "))));
    bytes
}

// No node that opens channels asked for it while it was recorded.
#[test]
fn the_messages_that_no_recording_has_follow_their_layout() {
    let request = recorded().into_iter().find(|bytes| kind(bytes) == 35).unwrap();
    let Ok(Message::ValidateCommitmentTx(validate)) = Message::decode(&request) else { panic!() };
    let tx = validate.tx.clone();
    let behind_length =
        |bytes: &[u8]| [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat();
    let expected = laid_out("hsmd_sign_commitment_tx", 5, |field| match field {
        "peer_id node_id" => key(1).serialize().to_vec(),
        "channel_dbid u64" => 7_u64.to_be_bytes().to_vec(),
        "tx bitcoin_tx" => {
            let transaction = behind_length(&serialize(&tx.transaction));
            [transaction, behind_length(tx.psbt())].concat()
        }
        "remote_funding_key pubkey" => key(2).serialize().to_vec(),
        "commit_num u64" => 0_u64.to_be_bytes().to_vec(),
        other => panic!("{other}"),
    });
    let message = Message::SignCommitmentTx(Box::new(SignCommitmentTx {
        reference: ChannelRef { peer: key(1), dbid: 7 },
        tx: tx.clone(),
        remote_funding_key: key(2),
        number: 0,
    }));
    assert_eq!(message.encode(), expected);
    assert_eq!(Message::decode(&expected), Ok(message));

    let signature: Signature = validate.signature;
    let expected = laid_out("hsmd_sign_commitment_tx_reply", 105, |field| match field {
        "sig bitcoin_signature" => [&signature.serialize_compact()[..], &[1]].concat(),
        other => panic!("{other}"),
    });
    let message = Message::SignCommitmentTxReply(signature);
    assert_eq!(message.encode(), expected);
    assert_eq!(Message::decode(&expected), Ok(message));

    let expected = laid_out("hsmd_init_reply_failure", 115, |field| match field {
        "error_code u32" => 1_u32.to_be_bytes().to_vec(),
        "error_message wirestring" => b"no\0".to_vec(),
        other => panic!("{other}"),
    });
    let message = Message::InitFailure("no".into());
    assert_eq!(message.encode(), expected);
    assert_eq!(Message::decode(&expected), Ok(message));
}
