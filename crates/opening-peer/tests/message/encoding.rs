//! Layouts: which bytes stand where.

use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use bitcoin::{Network, ScriptBuf};
use lightning::ln::msgs::{CommonAcceptChannelFields, CommonOpenChannelFields};
use lightning::ln::types::ChannelId;
use lightning::types::features::ChannelTypeFeatures;
use opening_peer::message::channel_id_of;

use super::*;

fn point(byte: u8) -> PublicKey {
    SecretKey::from_slice(&[byte; 32]).unwrap().public_key(&Secp256k1::new())
}

// req: B2-OPEN-B-01, B2-ACC-B-01, B2-FC-B-01, B2-FS-B-01, B1-MSG-B-03
#[test]
fn recorded_messages_decode_and_encode_to_the_same_bytes() {
    for recorded in golden::ALL.map(bytes).into_iter().chain(one_of_each()) {
        let message = decode(&recorded).unwrap();
        if !matches!(message, Message::Init(_)) {
            assert_eq!(encode_again(&message), recorded);
        }
    }
}

// req: B1-MSG-B-01, B1-MSG-B-02, B2-OPEN-B-01, B1-TYP-B-05, B1-TLV-S-06
#[test]
fn open_channel_has_each_field_big_endian_in_its_place() {
    let open = msgs::OpenChannel {
        common_fields: CommonOpenChannelFields {
            chain_hash: ChainHash::using_genesis_block_const(Network::Bitcoin),
            temporary_channel_id: ChannelId([0xa1; 32]),
            funding_satoshis: 0x0102030405060708,
            dust_limit_satoshis: 0x2122232425262728,
            max_htlc_value_in_flight_msat: 0x3132333435363738,
            htlc_minimum_msat: 0x5152535455565758,
            commitment_feerate_sat_per_1000_weight: 0x61626364,
            to_self_delay: 0x7172,
            max_accepted_htlcs: 0x8182,
            funding_pubkey: point(1),
            revocation_basepoint: point(2),
            payment_basepoint: point(3),
            delayed_payment_basepoint: point(4),
            htlc_basepoint: point(5),
            first_per_commitment_point: point(6),
            channel_flags: 0x91,
            shutdown_scriptpubkey: Some(ScriptBuf::from_bytes(bytes(
                "0014abababababababababababababababababababab",
            ))),
            channel_type: Some(ChannelTypeFeatures::only_static_remote_key()),
        },
        push_msat: 0x1112131415161718,
        channel_reserve_satoshis: 0x4142434445464748,
    };
    let points: String = (1..=6).map(|byte| point(byte).to_string()).collect();
    let expected = [
        "0020",
        "6fe28c0ab6f1b372c1a6a246ae63f74f931e8365e15a089c68d6190000000000",
        &"a1".repeat(32),
        "0102030405060708",
        "1112131415161718",
        "2122232425262728",
        "3132333435363738",
        "4142434445464748",
        "5152535455565758",
        "61626364",
        "7172",
        "8182",
        &points,
        "91",
        "00160014abababababababababababababababababababab",
        "01021000",
    ];
    assert_eq!(hex::encode(encode(&open)), expected.concat());
    assert_eq!(decode(&bytes(&expected.concat())), Ok(Message::OpenChannel(Box::new(open))));
}

// req: B1-MSG-B-01, B2-ACC-B-01
#[test]
fn accept_channel_has_each_field_big_endian_in_its_place() {
    let accept = msgs::AcceptChannel {
        common_fields: CommonAcceptChannelFields {
            temporary_channel_id: ChannelId([0xa1; 32]),
            dust_limit_satoshis: 0x2122232425262728,
            max_htlc_value_in_flight_msat: 0x3132333435363738,
            htlc_minimum_msat: 0x5152535455565758,
            minimum_depth: 0x61626364,
            to_self_delay: 0x7172,
            max_accepted_htlcs: 0x8182,
            funding_pubkey: point(1),
            revocation_basepoint: point(2),
            payment_basepoint: point(3),
            delayed_payment_basepoint: point(4),
            htlc_basepoint: point(5),
            first_per_commitment_point: point(6),
            shutdown_scriptpubkey: Some(ScriptBuf::new()),
            channel_type: Some(ChannelTypeFeatures::anchors_zero_htlc_fee_and_dependencies()),
        },
        channel_reserve_satoshis: 0x4142434445464748,
    };
    let points: String = (1..=6).map(|byte| point(byte).to_string()).collect();
    let expected = [
        "0021",
        &"a1".repeat(32),
        "2122232425262728",
        "3132333435363738",
        "4142434445464748",
        "5152535455565758",
        "61626364",
        "7172",
        "8182",
        &points,
        "0000",
        "0103401000",
    ];
    assert_eq!(hex::encode(encode(&accept)), expected.concat());
    assert_eq!(decode(&bytes(&expected.concat())), Ok(Message::AcceptChannel(Box::new(accept))));
}

// req: B2-CR-B-01, B1-TYP-B-08, B1-MSG-B-01
#[test]
fn channel_ready_has_an_alias_or_none() {
    let start =
        ["0024", &"c1".repeat(32), &open_channel().common_fields.htlc_basepoint.to_string()]
            .concat();
    // Block 539268, transaction 845, output 1.
    let alias = (539_268 << 40) | (845 << 16) | 1;
    for (message, extension) in
        [(channel_ready(None), ""), (channel_ready(Some(alias)), "0108083a8400034d0001")]
    {
        let expected = bytes(&[&start, extension].concat());
        assert_eq!(encode(&message), expected);
        assert_eq!(decode(&expected), Ok(Message::ChannelReady(message)));
    }
}

// req: B1-MSG-B-01
#[test]
fn the_short_messages_have_their_fields_in_their_places() {
    let channel_id = ChannelId([0xc1; 32]);
    let id = "c1".repeat(32);
    let scriptpubkey = ScriptBuf::from_bytes(vec![0x51, 0x02, 0xaa, 0xbb]);
    assert_eq!(
        hex::encode(encode(&msgs::Shutdown { channel_id, scriptpubkey })),
        ["0026", &id, "00045102aabb"].concat()
    );
    assert_eq!(
        hex::encode(encode(&msgs::Ping { ponglen: 0x0102, byteslen: 3 })),
        "001201020003000000"
    );
    assert_eq!(hex::encode(encode(&msgs::Pong { byteslen: 2 })), "001300020000");
    let mut reestablish = channel_reestablish();
    reestablish.next_local_commitment_number = 0x0102030405060708;
    reestablish.next_remote_commitment_number = 0x1112131415161718;
    reestablish.your_last_per_commitment_secret = [0x5e; 32];
    let point = reestablish.my_current_per_commitment_point.to_string();
    let expected =
        ["0088", &id, "0102030405060708", "1112131415161718", &"5e".repeat(32), &point].concat();
    assert_eq!(hex::encode(encode(&reestablish)), expected);
}

/// A signature of BOLT 3, Appendix C, in DER and as r and s.
const DER: &str = "3045022100c3127b33dcc741dd6b05b1e63cbd1a9a7d816f37af9b6756fa2376b056f03237\
    0220408b96279808fe57eb7e463710804cdf4f108388bc5cf722d8c848d2c7f9f3b0";
const COMPACT: &str = "c3127b33dcc741dd6b05b1e63cbd1a9a7d816f37af9b6756fa2376b056f03237\
    408b96279808fe57eb7e463710804cdf4f108388bc5cf722d8c848d2c7f9f3b0";

// req: B1-TYP-B-06, B3-SIG-B-02, B2-FC-B-01, B2-FS-B-01
#[test]
fn signatures_are_r_and_s_alone() {
    let signature = Signature::from_der(&bytes(DER)).unwrap();
    let created = msgs::FundingCreated {
        temporary_channel_id: ChannelId([0xa1; 32]),
        funding_txid: "00000000000000000000000000000000000000000000000000000000000000ff"
            .parse()
            .unwrap(),
        funding_output_index: 0x0102,
        signature,
    };
    // The txid as in an input: the reverse of what is displayed.
    let expected = ["0022", &"a1".repeat(32), "ff", &"00".repeat(31), "0102", COMPACT].concat();
    assert_eq!(hex::encode(encode(&created)), expected);
    assert_eq!(expected.len() / 2, 132);
    assert_eq!(decode(&bytes(&expected)), Ok(Message::FundingCreated(created)));

    let signed = msgs::FundingSigned { channel_id: ChannelId([0xc1; 32]), signature };
    let expected = ["0023", &"c1".repeat(32), COMPACT].concat();
    assert_eq!(hex::encode(encode(&signed)), expected);
    assert_eq!(expected.len() / 2, 98);
    assert_eq!(decode(&bytes(&expected)), Ok(Message::FundingSigned(signed)));
}

// req: B1-MSG-B-05
#[test]
fn more_than_65535_bytes_are_not_a_message() {
    let mut long = bytes(golden::FUNDING_SIGNED);
    // An unknown odd record fills the message up.
    long.extend([&[0xfd, 0x01, 0x01, 0xfd][..], &(65535_u16 - 98 - 6).to_be_bytes()].concat());
    long.resize(65535, 0);
    assert!(matches!(decode(&long), Ok(Message::FundingSigned(_))));
    long.push(0);
    let undecodable = decode(&long).unwrap_err();
    assert_eq!(
        (undecodable.kind, undecodable.code()),
        (UndecodableKind::TooLong, "message-too-long")
    );
    assert_eq!(undecodable.consequence(), Consequence::Close(None));
}

#[test]
fn the_channel_of_any_message_of_bolt_2_is_found() {
    let body: Vec<u8> = (0..96).collect();
    let id = |from: usize| ChannelId(body[from..from + 32].try_into().unwrap());
    for type_number in 0_u16..1000 {
        let message = [&type_number.to_be_bytes()[..], &body].concat();
        let expected = match type_number {
            32 | 64 => Some(id(32)),
            32..=255 => Some(id(0)),
            _ => None,
        };
        assert_eq!(channel_id_of(&message), expected);
        let known_at = if matches!(type_number, 32 | 64) { 66 } else { 34 };
        assert_eq!(channel_id_of(&message[..known_at]), expected);
        assert_eq!(channel_id_of(&message[..known_at - 1]), None);
    }
    assert_eq!(channel_id_of(&[]), None);
    assert_eq!(channel_id_of(&[0]), None);
}

#[test]
fn types_that_are_not_known_here_are_left_to_the_caller() {
    for type_number in [0_u16, 2, 37, 39, 64, 80, 128, 133, 256, 258, 0x7ffe, 0x7fff, 0xffff] {
        let message = [&type_number.to_be_bytes()[..], b"whatever"].concat();
        assert_eq!(decode(&message), Ok(Message::Other { type_number }));
    }
}
