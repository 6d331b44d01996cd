//! BOLT 8 from the outside: over streams, as a peer sees it, and with the acts as bytes.

// Clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

mod by_hand;
mod handshake;
mod messages;
mod vectors;

use std::time::Duration;

use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use opening_peer::transport::Transport;
use opening_peer::transport::bolt8::{self, EphemeralKey};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

const LIMIT: Duration = Duration::from_secs(10);

/// The node secrets and ephemeral keys of the vectors, repeated bytes all.
const INITIATOR: u8 = 0x11;
const INITIATOR_EPHEMERAL: u8 = 0x12;
const RESPONDER: u8 = 0x21;
const RESPONDER_EPHEMERAL: u8 = 0x22;

fn secret(byte: u8) -> SecretKey {
    SecretKey::from_slice(&[byte; 32]).unwrap()
}

fn node_id(byte: u8) -> PublicKey {
    secret(byte).public_key(&Secp256k1::new())
}

fn ephemeral(byte: u8) -> EphemeralKey {
    EphemeralKey::fixed(secret(byte))
}

/// Both ends of a finished handshake with the keys of the vectors, over streams of `capacity` bytes.
async fn transports(capacity: usize) -> (Transport, Transport) {
    let (one, other) = tokio::io::duplex(capacity);
    let (ours, theirs) = (secret(INITIATOR), secret(RESPONDER));
    let (initiator, responder) = tokio::join!(
        bolt8::connect(one, &ours, node_id(RESPONDER), ephemeral(INITIATOR_EPHEMERAL), LIMIT),
        bolt8::accept(other, &theirs, ephemeral(RESPONDER_EPHEMERAL), LIMIT),
    );
    let (responder, who) = responder.unwrap();
    assert_eq!(who, node_id(INITIATOR));
    (initiator.unwrap(), responder)
}

/// An initiator's transport, and the bare stream of a peer that has finished the handshake with it.
///
/// The keys and the acts are those of the vectors, so that what follows on the stream is known byte by byte.
async fn initiator_and_stream() -> (Transport, DuplexStream) {
    let vector = &vectors::all()["initiator"][0];
    let (stream, mut peer) = tokio::io::duplex(1 << 20);
    let ours = secret(INITIATOR);
    let (transport, ()) = tokio::join!(
        bolt8::connect(stream, &ours, node_id(RESPONDER), ephemeral(INITIATOR_EPHEMERAL), LIMIT),
        async {
            peer.read_exact(&mut [0; 50]).await.unwrap();
            peer.write_all(&vectors::bytes(&vector["act_two"]["input"])).await.unwrap();
            peer.read_exact(&mut [0; 66]).await.unwrap();
        }
    );
    (transport.unwrap(), peer)
}

/// A responder's transport, and the bare stream of an initiator of the vectors.
async fn responder_and_stream() -> (Transport, DuplexStream) {
    let vector = &vectors::all()["responder"][0];
    let (stream, mut peer) = tokio::io::duplex(1 << 20);
    let ours = secret(RESPONDER);
    peer.write_all(&vectors::bytes(&vector["act_one"]["input"])).await.unwrap();
    peer.write_all(&vectors::bytes(&vector["act_three"]["input"])).await.unwrap();
    let (transport, who) =
        bolt8::accept(stream, &ours, ephemeral(RESPONDER_EPHEMERAL), LIMIT).await.unwrap();
    assert_eq!(who, node_id(INITIATOR));
    peer.read_exact(&mut [0; 50]).await.unwrap();
    (transport, peer)
}

/// What the other side wrote until it closed the stream.
async fn written(stream: &mut DuplexStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    tokio::time::timeout(LIMIT, stream.read_to_end(&mut bytes))
        .await
        .expect("the stream was not closed")
        .unwrap();
    bytes
}
