//! Each message's bytes, as `docs/signer-wire.md` writes them.

use bitcoin::constants::ChainHash;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use bitcoin::{Amount, OutPoint, ScriptBuf, Txid};
use opening_core::{
    ChannelConfig, ChannelKeys, ChannelParameters, ChannelType, FeeratePerKw, FeerateRange,
    MilliSatoshi, Party, Side,
};

use super::body::{Asked, Setup};
use super::hello::{NodeHello, SignerHello};
use super::messages::{Answer, Body, FromNode, FromSigner, Request};
use crate::error::HsmError;
use crate::info::{Bounds, Enforcement, Info, Pipelining};
use crate::request::{ChannelRef, ChannelSetup, CommitmentRequest};

const SPECIFICATION: &str = include_str!("../../../../../docs/signer-wire.md");

/// The bytes of the block that begins with "```hex NAME"; what follows a `#` explains them.
fn example(name: &str) -> Vec<u8> {
    let start = format!("```hex {name}\n");
    let (_, block) = SPECIFICATION.split_once(&start).unwrap_or_else(|| panic!("no {name}"));
    let (block, _) = block.split_once("```").unwrap();
    let digits: String = block
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default())
        .flat_map(str::chars)
        .filter(|c| !c.is_whitespace())
        .collect();
    hex::decode(digits).unwrap()
}

fn key(byte: u8) -> PublicKey {
    SecretKey::from_slice(&[byte; 32]).unwrap().public_key(&Secp256k1::new())
}

fn keys(first: u8) -> ChannelKeys {
    ChannelKeys {
        funding_pubkey: key(first),
        revocation_basepoint: key(first + 1),
        payment_basepoint: key(first + 2),
        delayed_payment_basepoint: key(first + 3),
        htlc_basepoint: key(first + 4),
    }
}

fn party(first: u8, to_self_delay: u16) -> Party {
    Party {
        config: ChannelConfig {
            dust_limit_satoshis: Amount::from_sat(354),
            max_htlc_value_in_flight_msat: MilliSatoshi::from_msat(1_000_000_000),
            channel_reserve_satoshis: Amount::from_sat(10_000),
            htlc_minimum_msat: MilliSatoshi::from_msat(1),
            to_self_delay,
            max_accepted_htlcs: 483,
        },
        keys: keys(first),
        first_per_commitment_point: key(first + 5),
    }
}

fn setup() -> ChannelSetup {
    ChannelSetup {
        parameters: ChannelParameters {
            opener: Side::Local,
            funding_outpoint: OutPoint { txid: Txid::from_byte_array([9; 32]), vout: 1 },
            funding_satoshis: Amount::from_sat(1_000_000),
            push_msat: MilliSatoshi::from_msat(200_000_000),
            feerate_per_kw: FeeratePerKw::new(1250),
            channel_type: ChannelType::ANCHORS,
            local: party(0x11, 144),
            remote: party(0x21, 720),
        },
        chain_hash: ChainHash::REGTEST,
        local_shutdown_script: None,
        remote_shutdown_script: Some(ScriptBuf::from([&[0, 20][..], &[0xab; 20]].concat())),
    }
}

fn asked(owner: Side) -> Box<Asked> {
    let parameters = setup().parameters;
    let commitment = parameters.first_commitment(&Secp256k1::new(), owner).unwrap();
    Box::new(Asked::new(owner, &CommitmentRequest::first(&parameters, &commitment)).unwrap())
}

fn signature() -> Signature {
    Signature::from_compact(&[1; 64]).unwrap()
}

fn request(id: u64, after: u64, body: Body) -> FromNode {
    let channel = ChannelRef { peer: key(0x31), dbid: 7 };
    FromNode::Request(Request::new(id, channel, after, body))
}

fn from_node() -> Vec<(&'static str, FromNode)> {
    let setup = Box::new(Setup::new(&setup()).unwrap());
    let validate = Body::ValidateHolderCommitment(asked(Side::Local), signature());
    let sign = Body::SignCounterpartyCommitment(asked(Side::Remote));
    vec![
        ("channel", request(1, 0, Body::Channel)),
        ("pubkeys", request(2, 0, Body::Pubkeys)),
        ("per_commitment_point", request(3, 0, Body::PerCommitmentPoint(0))),
        ("setup", request(4, 0, Body::Setup(setup))),
        ("sign_counterparty_commitment", request(5, 4, sign)),
        ("validate_holder_commitment", request(6, 0, validate)),
        ("sign_holder_commitment", request(7, 0, Body::SignHolderCommitment(asked(Side::Local)))),
        ("forget_channel", request(8, 0, Body::ForgetChannel)),
        ("ping", FromNode::Ping(1)),
    ]
}

fn from_signer() -> Vec<(&'static str, FromSigner)> {
    let reply = |id, answer| FromSigner::Reply(id, Ok(answer));
    let refused = HsmError::Refused { tag: "push-too-large".into(), detail: "no".into() };
    vec![
        ("channel reply", reply(1, Answer::Channel)),
        ("pubkeys reply", reply(2, Answer::Pubkeys(Box::new(keys(0x11))))),
        ("per_commitment_point reply", reply(3, Answer::PerCommitmentPoint(key(0x16)))),
        ("setup reply", reply(4, Answer::Setup)),
        (
            "sign_counterparty_commitment reply",
            reply(5, Answer::SignCounterpartyCommitment(signature())),
        ),
        ("validate_holder_commitment reply", reply(6, Answer::ValidateHolderCommitment)),
        ("sign_holder_commitment reply", reply(7, Answer::SignHolderCommitment(signature()))),
        ("forget_channel reply", reply(8, Answer::ForgetChannel)),
        ("error reply", FromSigner::Reply(4, Err(refused))),
        ("pong", FromSigner::Pong(1)),
    ]
}

fn node_hello() -> NodeHello {
    NodeHello { chain_hash: ChainHash::REGTEST }
}

fn signer_hello() -> SignerHello {
    SignerHello {
        chain_hash: ChainHash::REGTEST,
        info: Info {
            enforcement: Enforcement::Validating,
            bounds: Bounds {
                max_funding_satoshis: Amount::from_sat(1_000_000_000),
                to_self_delay: 144..=2016,
                feerates: FeerateRange {
                    min: FeeratePerKw::new(253),
                    max: FeeratePerKw::new(25_000),
                },
                channel_types: [ChannelType::STATIC_REMOTEKEY, ChannelType::ANCHORS]
                    .into_iter()
                    .collect(),
            },
            pipelining: Pipelining::InOrder,
        },
        max_in_flight: 4096,
    }
}

/// Every beginning of the message and every longer one is an error, and no change of a byte makes
/// the decoder panic.
fn no_other_length<T, E>(name: &str, message: &[u8], decode: impl Fn(&[u8]) -> Result<T, E>) {
    for length in 0..message.len() {
        assert!(decode(&message[..length]).is_err(), "{name}, {length} bytes");
    }
    for more in 0..=255 {
        assert!(decode(&[message, &[more]].concat()).is_err(), "{name} and {more}");
    }
    for index in 0..message.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut changed = message.to_vec();
            changed[index] ^= flip;
            drop(decode(&changed));
        }
    }
}

#[test]
fn what_a_node_sends_is_what_the_specification_shows() {
    for (name, message) in from_node() {
        let bytes = example(name);
        assert_eq!(hex::encode(message.encode()), hex::encode(&bytes), "{name}");
        assert_eq!(FromNode::decode(&bytes), Ok(message), "{name}");
        no_other_length(name, &bytes, FromNode::decode);
    }
}

#[test]
fn what_a_signer_sends_is_what_the_specification_shows() {
    for (name, message) in from_signer() {
        let bytes = example(name);
        assert_eq!(hex::encode(message.encode()), hex::encode(&bytes), "{name}");
        assert_eq!(FromSigner::decode(&bytes), Ok(message), "{name}");
        no_other_length(name, &bytes, FromSigner::decode);
    }
}

#[test]
fn the_hellos_are_what_the_specification_shows() {
    let bytes = example("node hello");
    assert_eq!(hex::encode(node_hello().encode()), hex::encode(&bytes));
    assert_eq!(NodeHello::decode(&bytes), Ok(node_hello()));
    no_other_length("node hello", &bytes, NodeHello::decode);

    let bytes = example("signer hello");
    assert_eq!(hex::encode(signer_hello().encode()), hex::encode(&bytes));
    assert_eq!(SignerHello::decode(&bytes), Ok(signer_hello()));
    no_other_length("signer hello", &bytes, SignerHello::decode);
}

#[test]
fn the_server_builds_the_commitment_that_was_asked_for() {
    let secp = Secp256k1::new();
    for owner in [Side::Local, Side::Remote] {
        let rebuilt = asked(owner).rebuild(&secp, &setup(), owner).unwrap();
        assert_eq!(rebuilt, setup().parameters.first_commitment(&secp, owner).unwrap());
        asked(owner).rebuild(&secp, &setup(), owner.other()).unwrap_err();
    }
}

#[test]
fn scripts_are_taken_up_to_their_limit() {
    let mut of = setup();
    for (length, taken) in [(0, true), (520, true), (521, false)] {
        of.local_shutdown_script = Some(ScriptBuf::from(vec![0; length]));
        let sent = Setup::new(&of);
        assert_eq!(sent.is_ok(), taken, "{length}");
        if let Ok(sent) = sent {
            let message = request(1, 0, Body::Setup(Box::new(sent)));
            assert_eq!(FromNode::decode(&message.encode()), Ok(message));
        }
    }
}
