//! An hsmd that speaks version 5, where the point of commitment n + 2 comes with the secret of
//! commitment n, as Core Lightning's does.

use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bitcoin::Network;
use bitcoin::secp256k1::{Secp256k1, SecretKey};
use opening_core::Side;
use opening_signer::remote::{HsmdConfig, HsmdHsm};
use opening_signer::{ChannelRef, CommitmentRequest, Enforcement, Hsm};

use crate::pair::{node_id, party, reason, setup, signer};
use crate::recorded::{FUNDER, read};
use crate::scripted::{START_UP, Wire, kind, reply};

/// Of which commitments the points were asked for.
type Asked = Arc<Mutex<Vec<u64>>>;

fn serve(mut wire: Wire, version: u8, asked: &Asked) {
    while let Some(request) = wire.read() {
        let answer = match kind(&request) {
            11 => {
                let mut greeting = reply(START_UP, 114);
                greeting[2..6].copy_from_slice(&[0, 0, 0, version]);
                greeting
            }
            18 => {
                let number = u64::from_be_bytes(request[2..].try_into().unwrap());
                asked.lock().unwrap().push(number);
                point(number, version)
            }
            // It refuses to validate.
            35 => return,
            other => reply(FUNDER, other + 100),
        };
        wire.write(&answer);
        if kind(&request) == 9 {
            let (channel, asked) = (wire.pass(), asked.clone());
            std::thread::spawn(move || serve(channel, version, &asked));
        }
    }
}

fn point(number: u64, version: u8) -> Vec<u8> {
    if number == 0 {
        return reply(FUNDER, 118);
    }
    let byte = u8::try_from(number).unwrap();
    let point = SecretKey::from_slice(&[byte; 32]).unwrap().public_key(&Secp256k1::new());
    let secret = if version < 6 && number >= 2 { [1; 33].to_vec() } else { vec![0] };
    [&118_u16.to_be_bytes()[..], &point.serialize(), &secret].concat()
}

async fn connect(version: u8) -> (HsmdHsm, Asked) {
    let (client, server) = UnixStream::pair().unwrap();
    let asked = Asked::default();
    let telling = asked.clone();
    // The thread ends with the client.
    std::thread::spawn(move || serve(Wire(server), version, &telling));
    let deadline = Duration::from_secs(5);
    let config = HsmdConfig { deadline, ..HsmdConfig::new(Network::Regtest) };
    (HsmdHsm::over(client, config).await.unwrap(), asked)
}

#[tokio::test]
async fn a_point_that_comes_with_a_secret_is_never_asked_for() {
    let (hsm, asked) = connect(5).await;
    let channel = hsm.channel(ChannelRef { peer: node_id(8), dbid: 1 }).await.unwrap();
    for number in [0, 1] {
        channel.per_commitment_point(number).await.unwrap();
    }
    for number in [2, 3, (1 << 48) - 1] {
        let refused = channel.per_commitment_point(number).await;
        assert_eq!(reason(refused), "point-with-secret");
    }
    assert_eq!(*asked.lock().unwrap(), [0, 1]);
}

#[tokio::test]
async fn a_point_without_a_secret_is_asked_for() {
    let (hsm, asked) = connect(6).await;
    let channel = hsm.channel(ChannelRef { peer: node_id(8), dbid: 1 }).await.unwrap();
    for number in [0, 1, 2, 3] {
        channel.per_commitment_point(number).await.unwrap();
    }
    assert_eq!(*asked.lock().unwrap(), [0, 1, 2, 3]);
}

/// Whether it validated before cannot be told at version 5: its refusal is one.
#[tokio::test]
async fn a_refusal_to_validate_is_not_asked_about_where_that_would_give_a_secret() {
    let (hsm, asked) = connect(5).await;
    let reference = ChannelRef { peer: node_id(8), dbid: 1 };
    let channel = hsm.channel(reference).await.unwrap();
    let known = signer(7, Enforcement::Blind, &Arc::default());
    let ours = party(&*known.channel(reference).await.unwrap()).await;
    let recorded = read(FUNDER, ours.config);
    let parameters = &recorded.parameters;
    channel.setup(&setup(parameters.clone())).await.unwrap();
    let own = parameters.first_commitment(&Secp256k1::new(), Side::Local).unwrap();
    let validate = CommitmentRequest::first(parameters, &own);
    let validated = channel.validate_holder_commitment(&validate, &recorded.holder_signature).await;
    assert_eq!(reason(validated), "connection-closed");
    assert_eq!(*asked.lock().unwrap(), [0]);
}
