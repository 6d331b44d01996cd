//! Where the connection comes from, and what happens when it ends there.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::Network;
use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::PublicKey;
use bitcoin::secp256k1::ecdsa::Signature;
use lightning_persister::fs_store::FilesystemStore;
use opening_core::{ChannelKeys, Side};
use opening_signer::remote::unix::SignerSocket;
use opening_signer::remote::{HsmdConfig, HsmdHsm, HsmdIdentity, serve_hsmd};
use opening_signer::{
    ChannelHsm, ChannelRef, ChannelSetup, CommitmentRequest, Enforcement, Hsm, HsmResult, Info,
    LocalHsm,
};
use tokio::task::JoinHandle;

use crate::flow::{self, SHAPES};
use crate::pair::{node, node_id, policy, reason, signer};

const DIRECTORY: &str = "OPENING_TEST_HSMD_DIRECTORY";
/// In the directory: the process ends when it has signed for the first time.
const DIE: &str = "die-after-signing";
/// In the directory: what it signed, one digest in a line.
const SIGNED: &str = "signed";

fn identity() -> HsmdIdentity {
    HsmdIdentity { node_id: node_id(8), chain_hash: ChainHash::REGTEST }
}

/// A validating signer that writes down what it signs, and may die of it.
struct Mortal {
    inner: LocalHsm,
    directory: std::path::PathBuf,
}

struct MortalChannel(Arc<dyn ChannelHsm>, std::path::PathBuf);

#[async_trait]
impl Hsm for Mortal {
    fn info(&self) -> Info {
        self.inner.info()
    }

    async fn channel(&self, reference: ChannelRef) -> HsmResult<Arc<dyn ChannelHsm>> {
        let inner = self.inner.channel(reference).await?;
        Ok(Arc::new(MortalChannel(inner, self.directory.clone())))
    }

    async fn forget_channel(&self, reference: ChannelRef) -> HsmResult<()> {
        self.inner.forget_channel(reference).await
    }
}

#[async_trait]
impl ChannelHsm for MortalChannel {
    async fn pubkeys(&self) -> HsmResult<ChannelKeys> {
        self.0.pubkeys().await
    }

    async fn per_commitment_point(&self, number: u64) -> HsmResult<PublicKey> {
        self.0.per_commitment_point(number).await
    }

    async fn setup(&self, setup: &ChannelSetup) -> HsmResult<()> {
        self.0.setup(setup).await
    }

    async fn sign_counterparty_commitment(
        &self,
        request: &CommitmentRequest<'_>,
    ) -> HsmResult<Signature> {
        let signature = self.0.sign_counterparty_commitment(request).await?;
        let path = self.1.join(SIGNED);
        let mut signed = std::fs::read_to_string(&path).unwrap_or_default();
        signed += &format!("{}\n", request.commitment.sighash());
        std::fs::write(path, signed).unwrap();
        if std::fs::remove_file(self.1.join(DIE)).is_ok() {
            std::process::exit(3);
        }
        Ok(signature)
    }

    async fn validate_holder_commitment(
        &self,
        request: &CommitmentRequest<'_>,
        signature: &Signature,
    ) -> HsmResult<()> {
        self.0.validate_holder_commitment(request, signature).await
    }

    async fn sign_holder_commitment(
        &self,
        request: &CommitmentRequest<'_>,
    ) -> HsmResult<Signature> {
        self.0.sign_holder_commitment(request).await
    }
}

/// The program that the tests below start: this test again, in a process whose standard input is
/// the socket.  Without the variable it is no such process.
#[tokio::test]
async fn serves_as_a_child() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let directory = std::path::PathBuf::from(directory);
    let store = FilesystemStore::new(directory.join("store"));
    let inner = LocalHsm::validating(&node(8), policy(), Arc::new(store));
    let socket = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    let hsm = Arc::new(Mortal { inner, directory });
    serve_hsmd(hsm, identity(), socket).await.unwrap();
}

async fn spawn(directory: &Path) -> HsmResult<HsmdHsm> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "sources::serves_as_a_child"]).env(DIRECTORY, directory);
    command.stdout(std::process::Stdio::null());
    HsmdHsm::spawn(command, HsmdConfig::new(Network::Regtest)).await
}

/// The reply to a signature is lost with the process that gave it; the next process signs the same
/// bytes, and the caller never knows.
#[tokio::test]
async fn a_child_that_dies_after_signing_is_started_again_and_signs_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let far = spawn(directory.path()).await.unwrap();
    let near = signer(7, Enforcement::Validating, &Arc::default());
    flow::open([&near, &far], 1, SHAPES[0]).await;
    std::fs::write(directory.path().join(DIE), "").unwrap();
    flow::open([&near, &far], 2, SHAPES[2]).await;
    assert!(!directory.path().join(DIE).exists(), "it did not die");
    flow::open([&far, &near], 3, SHAPES[5]).await;

    let signed = std::fs::read_to_string(directory.path().join(SIGNED)).unwrap();
    let signed: Vec<_> = signed.lines().collect();
    assert_eq!(signed[..2].iter().filter(|it| **it == signed[0]).count(), 2, "for the way out");
    let second: Vec<_> = signed[2..].iter().filter(|it| **it == signed[2]).collect();
    assert!(second.len() >= 2, "the lost one was asked for again");
    let distinct: std::collections::BTreeSet<_> = signed.iter().collect();
    assert_eq!(distinct.len(), 3, "one commitment of each channel: {signed:?}");
}

#[tokio::test]
async fn a_program_that_cannot_be_started_or_ends_at_once_is_named() {
    let config = || HsmdConfig::new(Network::Regtest);
    let error = HsmdHsm::spawn(Command::new("/nonexistent/hsmd"), config()).await.unwrap_err();
    assert_eq!(error.code(), "signer-unavailable");
    assert!(error.to_string().contains("/nonexistent/hsmd"), "{error}");
    let error = HsmdHsm::spawn(Command::new("false"), config()).await.unwrap_err();
    assert_eq!(error.code(), "signer-unavailable");
    assert!(error.to_string().contains("exit status: 1"), "{error}");
}

#[tokio::test]
async fn a_path_where_nobody_listens_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nobody");
    let deadline = Duration::from_millis(300);
    let config = HsmdConfig { deadline, ..HsmdConfig::new(Network::Regtest) };
    let error = HsmdHsm::connect(&path, config).await.unwrap_err();
    assert_eq!(error.code(), "signer-unavailable");
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
}

/// Serves one node after the other, while it lives.
fn serve(path: &Path) -> JoinHandle<()> {
    serve_as(identity(), path)
}

fn serve_as(identity: HsmdIdentity, path: &Path) -> JoinHandle<()> {
    let socket = SignerSocket::bind(path).unwrap();
    let hsm: Arc<dyn Hsm> = Arc::new(signer(8, Enforcement::Blind, &Arc::default()));
    tokio::spawn(async move {
        loop {
            let stream = socket.accept().await.unwrap().into_std().unwrap();
            let _ = serve_hsmd(hsm.clone(), identity, stream).await;
        }
    })
}

async fn until(what: impl Fn() -> bool) {
    let waiting = async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("never");
}

#[tokio::test]
async fn a_signer_that_is_gone_ends_calls_at_their_deadline_and_one_that_is_back_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("private/hsmd");
    let serving = serve(&path);
    let deadline = Duration::from_millis(500);
    let config = HsmdConfig { deadline, ..HsmdConfig::new(Network::Regtest) };
    let far = HsmdHsm::connect(&path, config).await.unwrap();
    let near = signer(7, Enforcement::Blind, &Arc::default());
    let [_funder, fundee] = flow::name([&near, &far], 1, SHAPES[2]).await;
    fundee.channel.setup(&fundee.setup).await.unwrap();

    serving.abort();
    until(|| far.health().is_err()).await;
    // Neither is sent, so that both may be asked for again.
    let theirs = fundee.commitment(Side::Remote);
    let request = fundee.request(&theirs);
    let lost = fundee.channel.sign_counterparty_commitment(&request).await;
    assert_eq!(reason(lost), "signer-unavailable");
    let other = far.channel(ChannelRef { peer: node_id(7), dbid: 2 }).await.map(drop);
    assert_eq!(reason(other), "signer-unavailable");

    // Another process: it has forgotten the setup, and is told again.
    let _serving = serve(&path);
    until(|| far.health().is_ok()).await;
    fundee.channel.sign_counterparty_commitment(&request).await.unwrap();
    flow::open([&near, &far], 3, SHAPES[2]).await;
}

/// Its keys are not those of the channels that are under way.
#[tokio::test]
async fn a_signer_that_comes_back_with_another_secret_is_not_used() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("private/hsmd");
    let serving = serve(&path);
    let deadline = Duration::from_millis(300);
    let config = HsmdConfig { deadline, ..HsmdConfig::new(Network::Regtest) };
    let far = HsmdHsm::connect(&path, config).await.unwrap();
    serving.abort();
    until(|| far.health().is_err()).await;

    let other = serve_as(HsmdIdentity { node_id: node_id(9), ..identity() }, &path);
    let health = || far.health().err().map(|error| error.to_string()).unwrap_or_default();
    until(|| health().contains("another signer answers")).await;
    let reason = health();
    assert!([8, 9].iter().all(|byte| reason.contains(&node_id(*byte).to_string())), "{reason}");
    let named = far.channel(ChannelRef { peer: node_id(7), dbid: 1 }).await.map(drop);
    assert_eq!(named.unwrap_err().code(), "signer-unavailable");

    other.abort();
    // The socket goes with it.
    until(|| !path.exists()).await;
    let _serving = serve(&path);
    until(|| far.health().is_ok()).await;
}

#[tokio::test]
async fn an_inherited_socket_that_ends_leaves_a_signer_that_is_down_for_good() {
    let (client, server) = UnixStream::pair().unwrap();
    let hsm: Arc<dyn Hsm> = Arc::new(signer(8, Enforcement::Blind, &Arc::default()));
    let serving = tokio::spawn(serve_hsmd(hsm, identity(), server));
    let deadline = Duration::from_millis(300);
    let config = HsmdConfig { deadline, ..HsmdConfig::new(Network::Regtest) };
    let far = HsmdHsm::over(client, config).await.unwrap();
    serving.abort();
    until(|| far.health().is_err()).await;
    let named = far.channel(ChannelRef { peer: node_id(7), dbid: 1 }).await.map(drop);
    assert_eq!(reason(named), "signer-unavailable");
}

/// hsmd's own keys, and a signer that nobody sees through.
#[tokio::test]
async fn what_it_shows_of_itself_is_no_secret() {
    let directory = tempfile::tempdir().unwrap();
    let far = spawn(directory.path()).await.unwrap();
    assert_eq!(far.node_id(), Ok(node_id(8)));
    assert_eq!(far.check_pubkey(0, node_id(8)).await, Ok(false));
    let shown = format!("{far:?}");
    for secret in [[8; 32], node(8).node_key().secret_bytes()] {
        let list = format!("{secret:?}");
        assert!(!shown.contains(&hex::encode(secret)), "{shown}");
        assert!(!shown.contains(list.trim_matches(['[', ']'])), "{shown}");
    }
}
