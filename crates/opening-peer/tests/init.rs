//! The first message of a connection, both ways.

// Clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

mod common;
mod faulty;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::Network;
use bitcoin::constants::ChainHash;
use common::{ask, node_id};
use faulty::{Log, Raw, RawFunder, faulty_node, features_with, open_channel_message, settle};
use lightning::ln::msgs::{Init, OpenChannel};
use lightning::types::features::InitFeatures;
use opening_core::features::{offers, requires};
use opening_core::{ChannelType, Feature};
use opening_peer::message::{Message, decode, encode};
use opening_peer::session::{Greeting, StartError, default_features};
use opening_peer::testing::Faults;
use opening_peer::transport::in_memory_pair;
use opening_peer::{Ask, Openings, Session};
use tokio::task::JoinHandle;

const FEATURES: [Feature; 9] = [
    Feature::UpfrontShutdownScript,
    Feature::StaticRemotekey,
    Feature::LargeChannels,
    Feature::Anchors,
    Feature::ShutdownAnysegwit,
    Feature::DualFund,
    Feature::ScidAlias,
    Feature::Zeroconf,
    Feature::SimpleClose,
];

fn bits(features: &InitFeatures) -> Vec<u16> {
    let bytes = features.le_flags().iter().zip(0u16..);
    bytes
        .flat_map(|(byte, at)| {
            (0..8).filter(move |bit| byte >> bit & 1 == 1).map(move |bit| at * 8 + bit)
        })
        .collect()
}

/// A session that waits for the peer's `init`.
type Starting = JoinHandle<Result<Session, StartError>>;

/// A node with these features and the far end of a connection that it is beginning.
fn begin(
    features: InitFeatures,
    address: Option<&str>,
) -> (Starting, Raw, Arc<Openings>, Arc<Log>) {
    let mut made = faulty_node(2, &Faults::none());
    made.node.features = features;
    begin_with(made, address)
}

fn begin_with(
    made: faulty::Made,
    address: Option<&str>,
) -> (Starting, Raw, Arc<Openings>, Arc<Log>) {
    let openings = common::openings(made.node);
    let (ours, theirs) = in_memory_pair();
    let (reader, writer) = theirs.split();
    let peer_address = address.map(|address| address.parse::<SocketAddr>().unwrap());
    let greeting = Greeting { peer_address, first_message: None };
    let starting = Session::start(openings.clone(), node_id(7), ours, greeting);
    (tokio::spawn(starting), Raw { reader, writer }, openings, made.log)
}

fn init_of(features: InitFeatures) -> Init {
    Init { features, networks: None, remote_network_address: None }
}

/// What comes of a peer's `init` with these features, if ours has the defaults.
async fn start_with(theirs: &Init) -> Result<Session, StartError> {
    let (starting, mut raw, ..) = begin(default_features(), None);
    raw.send(theirs).await;
    let result = starting.await.unwrap();
    if result.is_err() {
        assert!(matches!(raw.receive().await, Some(Message::Init(_))));
        assert_eq!(raw.receive().await, None, "closed without another word");
    }
    result
}

fn code(result: Result<Session, StartError>) -> Option<&'static str> {
    result.err().map(|error| error.code())
}

/// The fields of our own `init`: globalfeatures, features, TLV records.
async fn our_init(
    features: InitFeatures,
    address: Option<&str>,
) -> (Vec<u8>, Vec<u8>, Vec<(u8, Vec<u8>)>) {
    let (_starting, mut raw, ..) = begin(features, address);
    let bytes = raw.reader.read().await.unwrap().unwrap();
    let mut rest = &bytes[..];
    let mut take = |length: usize| {
        let (taken, left) = rest.split_at(length);
        rest = left;
        taken.to_vec()
    };
    assert_eq!(take(2), [0, 16]);
    let length = take(2);
    let global = take(usize::from(u16::from_be_bytes([length[0], length[1]])));
    let length = take(2);
    let local = take(usize::from(u16::from_be_bytes([length[0], length[1]])));
    let mut records = Vec::new();
    while !rest.is_empty() {
        let (record_type, length) = (rest[0], usize::from(rest[1]));
        records.push((record_type, rest[2..2 + length].to_vec()));
        rest = &rest[2 + length..];
    }
    (global, local, records)
}

// req: B1-INIT-S-01, B1-INIT-R-01, B2-EST-B-01
#[tokio::test(start_paused = true)]
async fn our_init_comes_first_and_nothing_else_before_the_peers() {
    let (starting, mut raw, ..) = begin(default_features(), None);
    assert!(matches!(raw.receive().await, Some(Message::Init(_))));
    tokio::time::timeout(Duration::from_secs(59), raw.receive()).await.unwrap_err();
    assert!(!starting.is_finished(), "nobody can ask for an opening yet");
    raw.send(&init_of(default_features())).await;
    let session = starting.await.unwrap().unwrap();
    let opening = session.open(ask()).await.unwrap();
    let Some(Message::OpenChannel(message)) = raw.receive().await else { panic!() };
    assert_eq!(message.common_fields.temporary_channel_id, opening.temporary_channel_id());
}

// req: B1-INIT-R-01, B2-EST-B-01
#[tokio::test(start_paused = true)]
async fn an_offer_before_init_is_not_looked_at() {
    let (starting, mut raw, openings, log) = begin(default_features(), None);
    raw.send(&open_channel_message([1; 32]).await).await;
    raw.send(&init_of(default_features())).await;
    assert_eq!(code(starting.await.unwrap()), Some("init-missing"));
    assert!(matches!(raw.receive().await, Some(Message::Init(_))));
    assert_eq!(raw.receive().await, None);
    assert_eq!(openings.pending(), 0);
    assert_eq!(log.all(|event| Some(event.to_string())), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_peer_without_init_is_not_awaited_forever() {
    let (starting, raw, ..) = begin(default_features(), None);
    let begin_at = tokio::time::Instant::now();
    assert_eq!(code(starting.await.unwrap()), Some("init-silent"));
    assert_eq!(begin_at.elapsed().as_secs(), 60);
    drop(raw);
    let (starting, raw, ..) = begin(default_features(), None);
    drop(raw);
    assert!(matches!(starting.await.unwrap(), Err(StartError::Closed | StartError::Transport(_))));
    let (starting, mut raw, ..) = begin(default_features(), None);
    raw.send_bytes(&[0, 16, 0]).await;
    assert_eq!(code(starting.await.unwrap()), Some("message-truncated"));
}

// req: B1-INIT-S-02, B1-INIT-S-03, B9-FEAT-S-01, B9-FEAT-S-03, B9-FEAT-S-05, B9-FEAT-S-06, B9-FEAT-S-07
#[tokio::test]
async fn the_default_features_are_exactly_these_all_optional() {
    let (_, local, _) = our_init(default_features(), None).await;
    let sent = InitFeatures::from_be_bytes(local);
    assert_eq!(bits(&sent), [1, 5, 9, 13, 15, 19, 23, 27, 45, 47, 51]);
    // Zero-conf (51) comes with the alias (47) that it depends on.
    assert_eq!(opening_core::features::missing_dependency(&sent), None);
}

// req: B9-FEAT-S-02, B9-FEAT-S-03
#[tokio::test]
async fn a_required_feature_is_sent_as_its_even_bit_and_a_disabled_one_not_at_all() {
    let mut features = features_with(&[9, 13]);
    features.set_anchors_zero_fee_htlc_tx_required();
    let (_, local, _) = our_init(features, None).await;
    assert_eq!(bits(&InitFeatures::from_be_bytes(local)), [9, 13, 22]);
}

// req: B1-INIT-S-04, B1-INIT-S-05, B1-INIT-B-02
#[tokio::test]
async fn the_bitmaps_are_minimal_and_the_old_one_ends_at_bit_13() {
    for set in [vec![], vec![8], vec![1, 13], vec![1, 15, 23, 51]] {
        let (global, local, _) = our_init(features_with(&set), None).await;
        assert_eq!(bits(&InitFeatures::from_be_bytes(local.clone())), set);
        assert_ne!(local.first(), Some(&0), "{set:?}");
        let global = bits(&InitFeatures::from_be_bytes(global));
        assert!(global.iter().all(|bit| *bit <= 13 && set.contains(bit)), "{global:?}");
    }
    let (_, local, _) = our_init(features_with(&[8]), None).await;
    assert_eq!(local, [1, 0]);
}

// req: B1-INIT-S-06
#[tokio::test]
async fn networks_is_our_chain() {
    for network in [Network::Bitcoin, Network::Testnet, Network::Signet, Network::Regtest] {
        let mut made = faulty_node(2, &Faults::none());
        made.node.network = network;
        let (_starting, mut raw, ..) = begin_with(made, None);
        let Some(Message::Init(init)) = raw.receive().await else { panic!() };
        assert_eq!(init.networks, Some(vec![network.chain_hash()]));
    }
    let (_, _, records) = our_init(default_features(), None).await;
    assert_eq!(records, [(1, ChainHash::REGTEST.to_bytes().to_vec())]);
}

// req: B1-INIT-S-07, B1-INIT-S-08
#[tokio::test]
async fn an_incoming_peer_learns_its_public_address() {
    let v6 = [0x26, 0x07, 0xf8, 0xb0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    for (address, descriptor) in [
        ("8.8.4.4:9735", vec![1, 8, 8, 4, 4, 0x26, 0x07]),
        // What a socket for both families shows of an IPv4 peer.
        ("[::ffff:8.8.4.4]:9735", vec![1, 8, 8, 4, 4, 0x26, 0x07]),
        ("172.15.0.1:1", vec![1, 172, 15, 0, 1, 0, 1]),
        ("100.63.255.255:1", vec![1, 100, 63, 255, 255, 0, 1]),
        ("100.128.0.0:1", vec![1, 100, 128, 0, 0, 0, 1]),
        ("[2607:f8b0::1]:65535", [&[2][..], &v6, &[0xff, 0xff]].concat()),
    ] {
        let (_, _, records) = our_init(default_features(), Some(address)).await;
        assert_eq!(records.last(), Some(&(3, descriptor)), "{address}");
    }
    let (_, _, records) = our_init(default_features(), None).await;
    assert!(records.iter().all(|(record_type, _)| *record_type != 3));
}

// req: B1-INIT-S-09
#[tokio::test]
async fn a_private_address_stays_unsaid() {
    for address in [
        "10.0.0.1:9735",
        "172.16.0.1:9735",
        "172.31.255.255:9735",
        "192.168.1.1:9735",
        "127.0.0.1:9735",
        "169.254.0.1:9735",
        "100.64.0.1:9735",
        "100.127.255.255:9735",
        "0.0.0.0:9735",
        "255.255.255.255:9735",
        "224.0.0.1:9735",
        "192.0.2.1:9735",
        "[::]:9735",
        "[::1]:9735",
        "[::ffff:10.0.0.1]:9735",
        "[fc00::1]:9735",
        "[fd12:3456::1]:9735",
        "[fe80::1]:9735",
        "[fec0::1]:9735",
        "[ff02::1]:9735",
        "[2001:db8::1]:9735",
    ] {
        let (_, _, records) = our_init(default_features(), Some(address)).await;
        assert!(records.iter().all(|(record_type, _)| *record_type != 3), "{address}");
    }
}

/// An `init` whose two bitmaps are these.
fn init_bytes(global: &[u8], local: &[u8]) -> Vec<u8> {
    let length = |bytes: &[u8]| u16::try_from(bytes.len()).unwrap().to_be_bytes();
    [&[0, 16], &length(global)[..], global, &length(local)[..], local].concat()
}

// req: B1-INIT-R-02
#[tokio::test]
async fn both_bitmaps_of_the_peer_count() {
    let (starting, mut raw, ..) = begin(default_features(), None);
    // Bit 12 in the old one only, bit 23 in the new one, which is longer.
    raw.send_bytes(&init_bytes(&[0x10, 0], &[0x80, 0, 0])).await;
    let session = starting.await.unwrap().unwrap();
    assert_eq!(bits(&session.features().remote), [12, 23]);
    assert!(session.features().negotiated(Feature::StaticRemotekey));
    assert!(session.features().negotiated(Feature::Anchors));
}

// req: B1-INIT-R-03, B9-FEAT-S-08
#[tokio::test]
async fn what_the_peer_offers_decides_what_is_opened() {
    for (theirs, channel_type) in [
        (vec![13, 23, 45], ChannelType::ANCHORS),
        (vec![12, 22, 44], ChannelType::ANCHORS),
        (vec![13, 45], ChannelType::STATIC_REMOTEKEY),
        // Features that every node has by now need not be offered.
        (vec![], ChannelType::STATIC_REMOTEKEY),
    ] {
        let (starting, mut raw, ..) = begin(default_features(), None);
        raw.send(&init_of(features_with(&theirs))).await;
        assert!(matches!(raw.receive().await, Some(Message::Init(_))));
        let session = starting.await.unwrap().unwrap();
        let _opening = session.open(ask()).await.unwrap();
        let Some(Message::OpenChannel(message)) = raw.receive().await else { panic!() };
        let asked = message.common_fields.channel_type.as_ref().unwrap();
        assert_eq!(ChannelType::from_features(asked), Some(channel_type), "{theirs:?}");
    }
}

// req: B9-FEAT-S-08
#[tokio::test]
async fn a_peer_that_requires_or_leaves_out_what_everyone_has_opens_a_channel() {
    for theirs in [vec![], vec![0, 8, 12, 14, 44]] {
        let (starting, mut raw, _, log) = begin(default_features(), None);
        raw.send(&init_of(features_with(&theirs))).await;
        assert!(matches!(raw.receive().await, Some(Message::Init(_))));
        let _session = starting.await.unwrap().unwrap();
        let ask = Ask { channel_type: Some(ChannelType::STATIC_REMOTEKEY), ..ask() };
        let (offer, _) = RawFunder::offer(7, 1, [1; 32], ask).await;
        raw.send(&offer).await;
        assert!(matches!(raw.receive().await, Some(Message::AcceptChannel(_))), "{theirs:?}");
        assert_eq!(log.failures(), []);
    }
}

// req: B1-INIT-R-04
#[tokio::test]
async fn unknown_optional_features_are_ignored() {
    assert_eq!(code(start_with(&init_of(features_with(&[1001]))).await), None);
    assert_eq!(code(start_with(&init_of(features_with(&[3, 101, 2999]))).await), None);
}

// req: B1-INIT-R-05
#[tokio::test]
async fn unknown_required_features_close_the_connection() {
    for bit in [2, 28, 100, 1000] {
        let result = start_with(&init_of(features_with(&[13, bit]))).await;
        let error = result.err().unwrap();
        assert_eq!(error.code(), "init-requires-unknown-feature");
        assert!(error.to_string().contains(&format!("[{bit}]")), "{error}");
    }
}

// req: B1-INIT-R-06
#[tokio::test]
async fn a_peer_on_other_chains_only_is_left() {
    let on = |networks: &[ChainHash]| Init {
        networks: Some(networks.to_vec()),
        ..init_of(default_features())
    };
    let (bitcoin, regtest) = (ChainHash::BITCOIN, ChainHash::REGTEST);
    assert_eq!(code(start_with(&on(&[bitcoin])).await), Some("init-no-common-chain"));
    assert_eq!(code(start_with(&on(&[])).await), Some("init-no-common-chain"));
    assert_eq!(code(start_with(&on(&[bitcoin, regtest])).await), None);
    assert_eq!(code(start_with(&init_of(default_features())).await), None);
}

// req: B1-INIT-R-07
#[tokio::test]
async fn a_feature_without_the_one_it_depends_on_closes_the_connection() {
    for (theirs, expected) in [
        (vec![51], Some("init-missing-dependency")),
        (vec![50], Some("init-missing-dependency")),
        (vec![61], Some("init-missing-dependency")),
        (vec![51, 47], None),
        (vec![50, 46], None),
        (vec![61, 27], None),
        (vec![47], None),
    ] {
        let result = start_with(&init_of(features_with(&theirs))).await;
        assert_eq!(code(result), expected, "{theirs:?}");
    }
}

// req: B1-INIT-B-01
#[tokio::test]
async fn negotiated_is_what_both_offer_or_we_require() {
    for feature in [Feature::Anchors, Feature::LargeChannels, Feature::ShutdownAnysegwit] {
        let even = feature.even_bit();
        let (unset, odd, even) = (vec![], vec![even + 1], vec![even]);
        for (local, remote, negotiated) in [
            (&unset, &unset, false),
            (&unset, &odd, false),
            (&odd, &unset, false),
            (&odd, &odd, true),
            (&odd, &even, true),
            (&even, &unset, true),
            (&even, &odd, true),
            (&even, &even, true),
        ] {
            let (starting, mut raw, ..) = begin(features_with(local), None);
            raw.send(&init_of(features_with(remote))).await;
            let session = starting.await.unwrap().unwrap();
            assert_eq!(session.features().negotiated(feature), negotiated, "{local:?} {remote:?}");
        }
    }
}

// req: B9-FEAT-S-09, B9-FEAT-S-10, B9-FEAT-S-11, B9-FEAT-S-12, B9-FEAT-S-13, B9-FEAT-S-14, B9-FEAT-S-15, B9-FEAT-S-16
#[tokio::test]
async fn each_feature_has_its_bits_and_no_other() {
    let numbers = [4, 12, 18, 22, 26, 28, 46, 50, 60];
    for (feature, number) in FEATURES.into_iter().zip(numbers) {
        for bit in [number, number + 1] {
            // With what it depends on: 51 on 47, 61 on 27.
            let needed = match number {
                50 => Some(47),
                60 => Some(27),
                _ => None,
            };
            let theirs: Vec<_> = [Some(bit), needed].into_iter().flatten().collect();
            let (starting, mut raw, ..) = begin(features_with(&theirs), None);
            raw.send(&init_of(features_with(&theirs))).await;
            let session = starting.await.unwrap().unwrap();
            for other in FEATURES {
                let expected = theirs.iter().any(|bit| bit & !1 == other.even_bit());
                assert_eq!(session.features().negotiated(other), expected, "{bit} {other:?}");
            }
            assert_eq!(requires(&session.features().remote, feature), bit == number);
        }
    }
}

// req: B9-FEAT-S-04
#[tokio::test]
async fn channel_types_have_bits_of_features_for_channel_types_only() {
    for channel_type in ChannelType::all() {
        let (ask, features) =
            (Ask { channel_type: Some(channel_type), ..ask() }, default_features());
        let (starting, mut raw, ..) = begin(features, None);
        raw.send(&init_of(default_features())).await;
        assert!(matches!(raw.receive().await, Some(Message::Init(_))));
        let session = starting.await.unwrap().unwrap();
        let _opening = session.open(ask).await.unwrap();
        let Some(Message::OpenChannel(message)) = raw.receive().await else { panic!() };
        let sent = message.common_fields.channel_type.unwrap();
        let sent = InitFeatures::from_le_bytes(sent.le_flags().to_vec());
        assert!(bits(&sent).iter().all(|bit| [12, 22, 46, 50].contains(bit)), "{channel_type:?}");
    }
}

// req: B9-FEAT-R-01
#[tokio::test]
async fn both_bits_of_a_pair_count_as_required() {
    let session = start_with(&init_of(features_with(&[22, 23]))).await.unwrap();
    assert!(requires(&session.features().remote, Feature::Anchors));
    assert!(offers(&session.features().remote, Feature::Anchors));
    let result = start_with(&init_of(features_with(&[1000, 1001]))).await;
    assert_eq!(code(result), Some("init-requires-unknown-feature"));
}

#[tokio::test]
async fn a_second_init_says_nothing_new() {
    let (starting, mut raw, _, log) = begin(default_features(), None);
    raw.send(&init_of(default_features())).await;
    assert!(matches!(raw.receive().await, Some(Message::Init(_))));
    let session = starting.await.unwrap().unwrap();
    raw.send(&init_of(features_with(&[1000]))).await;
    let offer: OpenChannel = open_channel_message([1; 32]).await;
    raw.send(&offer).await;
    let Some(Message::AcceptChannel(accept)) = raw.receive().await else { panic!() };
    assert_eq!(accept.common_fields.temporary_channel_id.0, [1; 32]);
    assert_eq!(session.features().remote, default_features());
    settle().await;
    assert_eq!(log.failures(), []);
    assert!(matches!(decode(&encode(&offer)), Ok(Message::OpenChannel(_))));
}
