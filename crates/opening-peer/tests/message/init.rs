//! `init`: both bitmaps, networks, the address that the peer sees us at.

use bitcoin::constants::ChainHash;
use lightning::ln::msgs::{Init, SocketAddress};
use lightning::types::features::InitFeatures;

use super::*;

fn init(features: &str) -> Init {
    let features = InitFeatures::from_be_bytes(bytes(features));
    Init { features, networks: None, remote_network_address: None }
}

fn decoded(hex: &str) -> Result<Init, Undecodable> {
    match decode(&bytes(hex))? {
        Message::Init(init) => Ok(init),
        other => panic!("{other:?}"),
    }
}

// req: B1-TLV-B-01, B1-MSG-R-07
#[test]
fn extensions_of_the_vectors_end_as_they_say() {
    let vectors = tlv::vectors();
    let vectors = vectors["init_extension"].as_array().unwrap();
    assert_eq!(vectors.len(), 5);
    for vector in vectors {
        let outcome = decoded(vector["hex"].as_str().unwrap());
        if vector["valid"].as_bool().unwrap() {
            assert_eq!(outcome.unwrap(), init(""));
        } else {
            assert_invalid_extension(outcome);
        }
    }
}

// req: B1-INIT-B-02, B1-INIT-S-05
#[test]
fn features_take_whole_bytes_and_no_more_than_they_need() {
    // Bit 8 alone, then bits 22 and 12, then none.
    assert_eq!(hex::encode(encode(&init("0100"))), "00100002010000020100");
    assert_eq!(hex::encode(encode(&init("401000"))), "0010000210000003401000");
    assert_eq!(hex::encode(encode(&init(""))), "001000000000");
    let mut features = InitFeatures::empty();
    features.set_static_remote_key_optional();
    features.set_anchors_zero_fee_htlc_tx_optional();
    features.clear_anchors_zero_fee_htlc_tx();
    let cleared = encode(&Init { features, networks: None, remote_network_address: None });
    assert_eq!(hex::encode(cleared), "00100002200000022000");
}

// req: B1-INIT-S-04
#[test]
fn globalfeatures_hold_nothing_above_bit_13() {
    // Bits 0 to 23, all set.
    assert_eq!(hex::encode(encode(&init("ffffff"))), "001000023fff0003ffffff");
}

// req: B1-INIT-R-02
#[test]
fn both_bitmaps_are_one() {
    let both = decoded("0010000210000003401000").unwrap();
    assert_eq!(both.features.le_flags(), [0x00, 0x10, 0x40]);
    // Bit 12 in the first alone, bits 0 and 22 in the second: aligned at their ends.
    let apart = decoded("0010000210000003400001").unwrap();
    assert_eq!(apart.features.le_flags(), [0x01, 0x10, 0x40]);
    assert!(apart.features.requires_static_remote_key());
    let longer_first = decoded("0010000340000000020001").unwrap();
    assert_eq!(longer_first.features.le_flags(), [0x01, 0x00, 0x40]);
}

// req: B1-INIT-R-04
#[test]
fn unknown_odd_features_are_no_reason_to_refuse() {
    // Bit 1001: 126 bytes.
    let features = ["02", &"00".repeat(125)].concat();
    assert!(
        !decoded(&["00100000007e", &features].concat()).unwrap().features.requires_unknown_bits()
    );
}

// req: B1-INIT-S-06, B1-TLV-R-06
#[test]
fn networks_are_whole_chain_hashes() {
    let chain = ChainHash::using_genesis_block_const(bitcoin::Network::Regtest);
    let mut ours = init("");
    ours.networks = Some(vec![chain]);
    let encoded = encode(&ours);
    assert_eq!(
        hex::encode(&encoded),
        ["0010000000000120", &hex::encode(chain.as_bytes())].concat()
    );
    assert_eq!(decode(&encoded), Ok(Message::Init(ours)));

    let two = ["0010000000000140", &"aa".repeat(32), &"bb".repeat(32)].concat();
    let expected = vec![ChainHash::from([0xaa; 32]), ChainHash::from([0xbb; 32])];
    assert_eq!(decoded(&two).unwrap().networks, Some(expected));
    assert_eq!(decoded("0010000000000100").unwrap().networks, Some(vec![]));
    for length in [1, 31, 33, 63] {
        assert_invalid_extension(decoded(&format!(
            "00100000000001{length:02x}{}",
            "aa".repeat(length)
        )));
    }
}

// req: B1-INIT-S-08, B1-INIT-R-08
#[test]
fn an_address_is_a_type_and_its_data() {
    let mut ours = init("");
    ours.remote_network_address = Some(SocketAddress::TcpIpV4 { addr: [127, 0, 0, 1], port: 9735 });
    let encoded = encode(&ours);
    assert_eq!(hex::encode(&encoded), "0010000000000307017f0000012607");
    assert_eq!(decode(&encoded), Ok(Message::Init(ours)));
    // Of a kind that nobody has defined yet: passed over.
    assert_eq!(decoded("001000000000030463aabbcc").unwrap(), init(""));
    // Too short, too long, or none.
    for extension in ["0306017f0000012607", "0308017f000001260700", "0300"] {
        assert_invalid_extension(decoded(&["001000000000", extension].concat()));
    }
}

// req: B1-TLV-R-02, B1-TLV-R-03, B1-TLV-R-04, B1-TLV-R-08, B1-TLV-R-09
#[test]
fn the_stream_obeys_the_same_rules_as_every_other() {
    let chain = "cc".repeat(32);
    for (extension, good) in [
        (format!("0120{chain}0500fd010100"), true),
        (format!("fd000120{chain}"), false),
        (format!("01fd0020{chain}"), false),
        (format!("0120{chain}0120{chain}"), false),
        (format!("05000120{chain}"), false),
        (format!("0120{chain}0200"), false),
        ("01ffffffffffffffffff".to_owned(), false),
        ("05ff7fffffffffffffff".to_owned(), false),
    ] {
        let outcome = decoded(&["001000000000", &extension].concat());
        if good {
            assert_eq!(outcome.unwrap().networks, Some(vec![ChainHash::from([0xcc; 32])]));
        } else {
            assert_invalid_extension(outcome);
        }
    }
}
