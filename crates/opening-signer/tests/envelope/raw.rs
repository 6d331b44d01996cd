//! The wire's bytes, written by hand: one end that keeps to nothing.

use std::time::Duration;

use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::PublicKey;
use opening_signer::{Bounds, Enforcement, Info, Pipelining};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::world::reference;

pub(crate) struct Raw(pub(crate) DuplexStream);

impl Raw {
    pub(crate) async fn send(&mut self, message: &[u8]) {
        let length = u32::try_from(message.len()).unwrap();
        self.bytes(&[&length.to_be_bytes()[..], message].concat()).await;
    }

    pub(crate) async fn bytes(&mut self, bytes: &[u8]) {
        // The other side may have closed already.
        drop(self.0.write_all(bytes).await);
    }

    /// `None` once the other side has closed.
    pub(crate) async fn receive(&mut self) -> Option<Vec<u8>> {
        let length = self.0.read_u32().await.ok()?;
        let mut message = vec![0; usize::try_from(length).unwrap()];
        self.0.read_exact(&mut message).await.ok()?;
        Some(message)
    }

    /// As a node, with the signer's answer.
    pub(crate) async fn greet(&mut self) -> Vec<u8> {
        self.send(&node_hello(1, 1, ChainHash::REGTEST)).await;
        self.receive().await.unwrap()
    }

    /// As a signer; leaves the node's hello behind.
    pub(crate) async fn answer_hello(&mut self, hello: &[u8]) {
        self.receive().await.unwrap();
        self.send(hello).await;
    }

    pub(crate) async fn is_closed(&mut self) -> bool {
        let closed = async { while self.receive().await.is_some() {} };
        tokio::time::timeout(Duration::from_secs(60), closed).await.is_ok()
    }
}

fn hello(kind: u8, min: u16, max: u16, chain: ChainHash) -> Vec<u8> {
    let mut message = vec![0, kind];
    message.extend(b"opensign");
    message.extend(min.to_be_bytes());
    message.extend(max.to_be_bytes());
    message.extend(chain.to_bytes());
    message
}

pub(crate) fn node_hello(min: u16, max: u16, chain: ChainHash) -> Vec<u8> {
    hello(1, min, max, chain)
}

/// Says of itself what [`info`] has.
pub(crate) fn signer_hello(min: u16, max: u16, chain: ChainHash, at_once: u32) -> Vec<u8> {
    let mut message = hello(2, min, max, chain);
    message.push(0);
    message.extend(bitcoin::Amount::MAX_MONEY.to_sat().to_be_bytes());
    message.extend([0, 0, 0xff, 0xff]);
    message.extend([0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    message.extend([0xff, 1]);
    message.extend(at_once.to_be_bytes());
    message
}

pub(crate) fn info() -> Info {
    let pipelining = Pipelining::InOrder;
    Info { enforcement: Enforcement::Blind, bounds: Bounds::none(), pipelining }
}

pub(crate) fn good_hello() -> Vec<u8> {
    signer_hello(1, 1, ChainHash::REGTEST, 100)
}

pub(crate) fn request(id: u64, dbid: u64, number: u16, body: &[u8]) -> Vec<u8> {
    let peer: PublicKey = reference(dbid).peer;
    let mut message = vec![0, 3];
    message.extend(id.to_be_bytes());
    message.extend(peer.serialize());
    message.extend(dbid.to_be_bytes());
    message.extend([[0; 8], id.to_be_bytes()].concat());
    message.extend([0; 8]);
    message.extend(number.to_be_bytes());
    message.extend(body);
    message
}

pub(crate) fn reply(id: u64, number: u16, body: &[u8]) -> Vec<u8> {
    let mut message = vec![0, 4];
    message.extend(id.to_be_bytes());
    message.extend(number.to_be_bytes());
    message.extend(body);
    message
}

/// The id of a request as the node wrote it.
pub(crate) fn id_of(request: &[u8]) -> u64 {
    assert_eq!(request[..2], [0, 3]);
    u64::from_be_bytes(request[2..10].try_into().unwrap())
}
