//! A node and a signer that do not speak the same wire: each says which one it has met.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::Network;
use bitcoin::constants::ChainHash;
use opening_signer::remote::unix::{SignerSocket, UnixDialer};
use opening_signer::remote::{
    EnvelopeOptions, EnvelopeServer, EnvelopedHsm, HsmdConfig, HsmdHsm, HsmdIdentity, LinkError,
    serve_hsmd,
};
use opening_signer::{Enforcement, Hsm};

use crate::pair::{node_id, signer};

fn hsm() -> Arc<dyn Hsm> {
    Arc::new(signer(8, Enforcement::Blind, &Arc::default()))
}

fn socket(directory: &Path) -> SignerSocket {
    SignerSocket::bind(&directory.join("private/signer")).unwrap()
}

#[tokio::test]
async fn a_node_on_hsmds_wire_meets_the_enveloped_one() {
    let directory = tempfile::tempdir().unwrap();
    let socket = socket(directory.path());
    let path = socket.path().to_path_buf();
    let serving = tokio::spawn(async move {
        let stream = socket.accept().await.unwrap();
        let server = EnvelopeServer::new(hsm(), ChainHash::REGTEST);
        server.serve(stream, std::future::pending()).await
    });
    let error = HsmdHsm::connect(&path, HsmdConfig::new(Network::Regtest)).await.unwrap_err();
    assert_eq!(error.code(), "signer-protocol");
    assert!(error.to_string().contains("the enveloped wire, not hsmd's"), "{error}");
    let Err(LinkError::Malformed(reason)) = serving.await.unwrap() else { panic!("it serves") };
    assert!(reason.contains("hsmd's wire, not the enveloped one"), "{reason}");
}

#[tokio::test]
async fn a_node_on_the_enveloped_wire_meets_hsmds() {
    let directory = tempfile::tempdir().unwrap();
    let socket = socket(directory.path());
    let path = socket.path().to_path_buf();
    let serving = tokio::spawn(async move {
        let stream = socket.accept().await.unwrap().into_std().unwrap();
        let identity = HsmdIdentity { node_id: node_id(8), chain_hash: ChainHash::REGTEST };
        // Whoever connects again waits.
        (serve_hsmd(hsm(), identity, stream).await, socket)
    });
    let deadline = Duration::from_millis(500);
    let options = EnvelopeOptions { deadline, ..EnvelopeOptions::new(ChainHash::REGTEST) };
    let connecting = EnvelopedHsm::connect(UnixDialer::new(path), options).await;
    let error = connecting.map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("(is it hsmd's wire?)"), "{error}");
    let (served, _socket) = serving.await.unwrap();
    let error = served.unwrap_err().to_string();
    assert!(error.contains("the enveloped wire, not hsmd's"), "{error}");
}
