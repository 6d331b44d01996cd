//! The socket file and who may use it.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::constants::ChainHash;
use opening_signer::remote::unix::{SignerSocket, UnixDialer, connect};
use opening_signer::remote::{EnvelopeServer, EnvelopedHsm};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::world::{Fate, Scripted, Shared, open, options};

/// Ours alone, whatever the umask is.
fn private() -> TempDir {
    let base = TempDir::new().unwrap();
    fs::set_permissions(base.path(), Permissions::from_mode(0o700)).unwrap();
    base
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn the_socket_and_its_directory_are_ours_alone_and_it_goes_with_us() {
    let base = private();
    let path = base.path().join("new/deeper/signer.sock");
    let socket = SignerSocket::bind(&path).unwrap();
    assert_eq!(socket.path(), path);
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    assert_eq!(mode(&base.path().join("new")), 0o700);

    let (near, far) = tokio::join!(connect(&path), socket.accept());
    near.unwrap().write_all(b"hello").await.unwrap();
    let mut read = Vec::new();
    far.unwrap().read_to_end(&mut read).await.unwrap();
    assert_eq!(read, b"hello");

    drop(socket);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_directory_that_others_can_enter_is_refused() {
    let base = private();
    let path = base.path().join("signer.sock");
    for (open, what) in [(0o701, "0701"), (0o750, "0750"), (0o777, "0777")] {
        fs::set_permissions(base.path(), Permissions::from_mode(open)).unwrap();
        let error = SignerSocket::bind(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert!(error.to_string().contains(what), "{error}");
        assert!(error.to_string().contains("chmod 700"), "{error}");
        assert!(!path.exists());
    }
    fs::set_permissions(base.path(), Permissions::from_mode(0o700)).unwrap();
    SignerSocket::bind(&path).unwrap();
}

#[tokio::test]
async fn a_link_to_a_directory_is_refused() {
    let base = private();
    fs::create_dir(base.path().join("real")).unwrap();
    fs::set_permissions(base.path().join("real"), Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::symlink("real", base.path().join("link")).unwrap();
    let error = SignerSocket::bind(&base.path().join("link/signer.sock")).unwrap_err();
    assert!(error.to_string().contains("is not a directory"), "{error}");
}

#[tokio::test]
async fn what_a_dead_process_left_is_replaced() {
    let base = private();
    let path = base.path().join("signer.sock");
    // The standard library leaves the file where it is.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let error = connect(&path).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);

    let socket = SignerSocket::bind(&path).unwrap();
    let (near, far) = tokio::join!(connect(&path), socket.accept());
    near.unwrap();
    far.unwrap();
}

#[tokio::test]
async fn a_living_one_is_not_replaced() {
    let base = private();
    let path = base.path().join("signer.sock");
    let socket = SignerSocket::bind(&path).unwrap();
    let error = SignerSocket::bind(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(error.to_string().contains("another process listens"), "{error}");
    // Neither the refusal nor its end has taken the file away.
    assert!(path.exists());
    drop(socket);
    SignerSocket::bind(&path).unwrap();
}

#[tokio::test]
async fn a_file_that_is_no_socket_stays() {
    let base = private();
    let path = base.path().join("signer.sock");
    fs::write(&path, "precious").unwrap();
    let error = SignerSocket::bind(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(fs::read(&path).unwrap(), b"precious");
}

#[tokio::test]
async fn the_socket_of_a_successor_stays() {
    let base = private();
    let path = base.path().join("signer.sock");
    let first = SignerSocket::bind(&path).unwrap();
    fs::rename(&path, base.path().join("moved.sock")).unwrap();
    let second = SignerSocket::bind(&path).unwrap();
    drop(first);
    assert!(path.exists());
    drop(second);
    assert!(!path.exists());
}

#[tokio::test]
async fn without_a_listener_the_error_names_the_path() {
    let base = private();
    let path = base.path().join("signer.sock");
    let error = connect(&path).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("signer.sock"), "{error}");
}

fn server() -> EnvelopeServer {
    let signer = Scripted::new(|_| Fate::After(Duration::from_millis(5)));
    EnvelopeServer::new(Arc::new(Shared(signer)), ChainHash::REGTEST)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_dials_its_signer_and_opens_many_channels_at_once() {
    let base = private();
    let path = base.path().join("signer.sock");
    let socket = SignerSocket::bind(&path).unwrap();
    tokio::spawn(async move {
        let stream = socket.accept().await.unwrap();
        server().serve(stream, std::future::pending()).await
    });
    let hsm = EnvelopedHsm::connect(UnixDialer::new(&path), options()).await.unwrap();
    let hsm = Arc::new(hsm);
    let mut openings = JoinSet::new();
    for dbid in 1..=200 {
        let hsm = Arc::clone(&hsm);
        openings.spawn(async move { open(&*hsm, dbid).await.unwrap() });
    }
    assert_eq!(openings.join_all().await.len(), 200);
}

#[tokio::test]
async fn a_signer_dials_its_node() {
    let base = private();
    let path = base.path().join("node.sock");
    let socket = SignerSocket::bind(&path).unwrap();
    tokio::spawn(async move {
        let stream = connect(&path).await.unwrap();
        server().serve(stream, std::future::pending()).await
    });
    let hsm = EnvelopedHsm::connect(socket, options()).await.unwrap();
    open(&hsm, 1).await.unwrap();
}
