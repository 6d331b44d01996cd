//! The client says byte for byte what Core Lightning said, and takes what its hsmd answered.

use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;

use bitcoin::Network;
use bitcoin::secp256k1::Secp256k1;
use opening_core::Side;
use opening_signer::remote::{HsmdConfig, HsmdHsm};
use opening_signer::{ChannelRef, CommitmentRequest, Hsm};

use crate::pair::{node_id, party, setup};
use crate::recorded::{FUNDEE, FUNDER, read};
use crate::scripted::{FORGET, START_UP, Wire, kind};

/// Which connection, and which recorded request and reply on it.
type Exchange = (String, Vec<u8>, Vec<u8>);

/// The requests of an opening in the recorded order, each with its reply.  `check_pubkey` and what
/// other daemons ask are left out.
fn exchanges(recording: &str) -> Vec<Exchange> {
    let openings = [9, 10, 11, 18, 19, 30, 31, 34, 35];
    let lines: Vec<Vec<&str>> = recording.lines().map(|line| line.split(' ').collect()).collect();
    let messages: Vec<_> =
        lines.iter().filter(|line| line.len() == 7 && line[0] != "fd0").collect();
    let mut exchanges: Vec<Exchange> = Vec::new();
    for (index, line) in messages.iter().enumerate() {
        let is_request = line[1] == "<" && openings.contains(&line[3].parse::<u16>().unwrap());
        if !is_request {
            continue;
        }
        let reply = messages[index + 1..].iter().find(|reply| reply[0] == line[0]).unwrap();
        assert_eq!(reply[1], ">");
        let [request, reply] = [line, reply].map(|line| hex::decode(line[6]).unwrap());
        exchanges.push((line[0].into(), request, reply));
    }
    exchanges
}

/// Those up to the point of commitment 1, which channeld asked for on a connection of its own.
fn opening(recording: &str) -> Vec<Exchange> {
    let mut exchanges = exchanges(recording);
    let next = exchanges
        .iter()
        .position(|(_, request, _)| kind(request) == 18 && request.ends_with(&[1]))
        .unwrap();
    exchanges.truncate(next + 1);
    // Its own connection is the same as openingd's here.
    exchanges.retain(|(_, request, _)| {
        !(kind(request) == 9 && request.ends_with(&447_u64.to_be_bytes()))
    });
    exchanges
}

/// Plays hsmd: each request must be the recorded one.  Gives the number of requests that came after
/// `init`.
fn play(script: Vec<Exchange>) -> (UnixStream, JoinHandle<usize>) {
    let (client, server) = UnixStream::pair().unwrap();
    let playing = std::thread::spawn(move || {
        let (mut root, mut channel) = (Wire(server), None);
        let mut requests = 0;
        for (connection, request, reply) in script {
            let wire = if connection == "fd3" { &mut root } else { channel.as_mut().unwrap() };
            let asked = wire.read().unwrap();
            assert_eq!(hex::encode(&asked), hex::encode(&request), "request {}", kind(&request));
            wire.write(&reply);
            requests += usize::from(kind(&request) != 11);
            if kind(&reply) == 109 {
                channel = Some(root.pass());
            }
        }
        requests
    });
    (client, playing)
}

/// 30, 10, 9, 18, 31, two of 19 and 35, 18: what the wire takes one after the other.
const REQUESTS: usize = 8;

async fn replay(recording: &'static str, peer: u8) {
    let script = [exchanges(START_UP), opening(recording)].concat();
    let (socket, playing) = play(script);
    let hsm = HsmdHsm::over(socket, HsmdConfig::new(Network::Regtest)).await.unwrap();
    let secp = Secp256k1::new();
    let channel = hsm.channel(ChannelRef { peer: node_id(peer), dbid: 1 }).await.unwrap();
    let ours = party(&*channel).await;
    let recorded = read(recording, ours.config);
    assert_eq!(recorded.parameters.local, ours);
    channel.setup(&setup(recorded.parameters.clone())).await.unwrap();

    let parameters = &recorded.parameters;
    let theirs = parameters.first_commitment(&secp, Side::Remote).unwrap();
    let own = parameters.first_commitment(&secp, Side::Local).unwrap();
    let sign = CommitmentRequest::first(parameters, &theirs);
    let validate = CommitmentRequest::first(parameters, &own);
    let validated = || channel.validate_holder_commitment(&validate, &recorded.holder_signature);
    if parameters.opener == Side::Remote {
        validated().await.unwrap();
    }
    let signature = channel.sign_counterparty_commitment(&sign).await.unwrap();
    assert_eq!(signature, recorded.counterparty_signature);
    if parameters.opener == Side::Local {
        validated().await.unwrap();
    }
    assert_eq!(channel.per_commitment_point(1).await.unwrap(), recorded.next_point);
    assert_eq!(playing.join().unwrap(), REQUESTS);
}

// req: B2-FC-S-05
#[tokio::test]
async fn a_funder_asks_hsmd_what_lightningd_asked_in_eight_requests() {
    replay(FUNDER, 8).await;
}

// req: B2-FS-S-02
#[tokio::test]
async fn a_fundee_asks_hsmd_what_lightningd_asked_in_eight_requests() {
    // Its node id is not in the recording of the other node's start.
    replay(FUNDEE, 7).await;
}

#[tokio::test]
async fn a_channel_is_forgotten_as_lightningd_does() {
    let (socket, playing) = play([exchanges(START_UP), exchanges(FORGET)].concat());
    let hsm = HsmdHsm::over(socket, HsmdConfig::new(Network::Regtest)).await.unwrap();
    assert_eq!(hsm.node_id(), Ok(node_id(7)));
    hsm.forget_channel(ChannelRef { peer: node_id(8), dbid: 5 }).await.unwrap();
    assert_eq!(playing.join().unwrap(), 1);
}
