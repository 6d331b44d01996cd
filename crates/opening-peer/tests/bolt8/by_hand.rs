//! A peer written against the cryptographic libraries alone, sharing no line with ours.

use bitcoin::secp256k1::ecdh::SharedSecret;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, KeyInit, Nonce};
use hkdf::Hkdf;
use opening_peer::transport::bolt8::{self, HandshakeError};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{INITIATOR, LIMIT, RESPONDER, ephemeral, node_id, secret, written};

fn aead(key: &[u8], counter: u8, aad: &[u8], msg: &[u8]) -> Vec<u8> {
    let nonce = [0, 0, 0, 0, counter, 0, 0, 0, 0, 0, 0, 0];
    ChaCha20Poly1305::new(Key::from_slice(key))
        .encrypt(Nonce::from_slice(&nonce), Payload { msg, aad })
        .unwrap()
}

fn hash(first: &[u8], second: &[u8]) -> Vec<u8> {
    Sha256::new().chain_update(first).chain_update(second).finalize().to_vec()
}

fn hkdf(salt: &[u8], input: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut output = [0; 64];
    Hkdf::<Sha256>::new(Some(salt), input).expand(&[], &mut output).unwrap();
    (output[..32].to_vec(), output[32..].to_vec())
}

fn dh(secret: &SecretKey, point: &PublicKey) -> [u8; 32] {
    SharedSecret::new(point, secret).secret_bytes()
}

/// What our responder says to an initiator of another Noise; the message that it got where it accepts.
async fn meet(name: &str, prologue: &str) -> Result<Vec<u8>, (HandshakeError, Vec<u8>)> {
    let (stream, mut peer) = tokio::io::duplex(4096);
    let accepting = tokio::spawn(async move {
        let ours = secret(RESPONDER);
        bolt8::accept(stream, &ours, ephemeral(0x33), LIMIT).await
    });
    let (s, e) = (secret(INITIATOR), secret(0x44));
    let public = |key: &SecretKey| key.public_key(&Secp256k1::new()).serialize();
    let rs = node_id(RESPONDER);

    let ck = hash(name.as_bytes(), &[]);
    let h = hash(&hash(&ck, prologue.as_bytes()), &rs.serialize());
    let h = hash(&h, &public(&e));
    let (ck, k1) = hkdf(&ck, &dh(&e, &rs));
    let tag = aead(&k1, 0, &h, &[]);
    let h = hash(&h, &tag);
    peer.write_all(&[&[0], &public(&e)[..], &tag].concat()).await.unwrap();

    let mut act_two = [0; 50];
    if peer.read_exact(&mut act_two).await.is_err() {
        return Err((accepting.await.unwrap().err().unwrap(), written(&mut peer).await));
    }
    let re = PublicKey::from_slice(&act_two[1..34]).unwrap();
    let h = hash(&h, &act_two[1..34]);
    let (ck, k2) = hkdf(&ck, &dh(&e, &re));
    assert_eq!(act_two[34..], aead(&k2, 0, &h, &[]));
    let h = hash(&h, &act_two[34..]);

    let c = aead(&k2, 1, &h, &public(&s));
    let h = hash(&h, &c);
    let (ck, k3) = hkdf(&ck, &dh(&s, &re));
    let (sending, receiving) = hkdf(&ck, &[]);
    let frame = [aead(&sending, 0, &[], &[0, 5]), aead(&sending, 1, &[], b"noise")].concat();
    peer.write_all(&[&[0], &c[..], &aead(&k3, 0, &h, &[]), &frame].concat()).await.unwrap();

    let (mut transport, who) = accepting.await.unwrap().map_err(|error| (error, vec![]))?;
    assert_eq!(who, node_id(INITIATOR));
    let message = transport.reader.read().await.unwrap().unwrap();
    transport.writer.queue(b"answer").unwrap();
    transport.writer.flush().await.unwrap();
    let mut answer = [0; 2 + 16 + 6 + 16];
    peer.read_exact(&mut answer).await.unwrap();
    assert_eq!(
        answer[..],
        [aead(&receiving, 0, &[], &[0, 6]), aead(&receiving, 1, &[], b"answer")].concat()
    );
    Ok(message)
}

// req: B8-TR-B-10, B8-HS-B-10, B8-HS-B-11, B8-HS-B-14, B8-TR-B-04
#[tokio::test]
async fn a_peer_made_of_the_libraries_alone_is_understood() {
    assert_eq!(meet("Noise_XK_secp256k1_ChaChaPoly_SHA256", "lightning").await.unwrap(), b"noise");
}

// req: B8-HS-B-06
#[tokio::test]
async fn another_protocol_name_or_prologue_fails_at_once() {
    for (name, prologue) in [
        ("Noise_XK_secp256k1_ChaChaPoly_SHA512", "lightning"),
        ("Noise_XK_secp256k1_ChaChaPoly_SHA256", "lightning\0"),
        ("Noise_XK_secp256k1_ChaChaPoly_SHA256", ""),
    ] {
        let (error, replied) = meet(name, prologue).await.unwrap_err();
        assert_eq!(error.to_string(), "ACT1_BAD_TAG");
        assert!(replied.is_empty());
    }
}
