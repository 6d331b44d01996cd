//! TLS with pinned keys.

use std::fs::{self, Permissions};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::constants::ChainHash;
use opening_signer::remote::tls::{Fingerprint, Identity, TlsDialer, TlsSocket};
use opening_signer::remote::{EnvelopeServer, EnvelopedHsm, LinkError};
use opening_signer::{Hsm, HsmError};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::raw::node_hello;
use crate::world::{Fate, Scripted, Shared, open, options};

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

struct Pair {
    _files: TempDir,
    node: Identity,
    signer: Identity,
}

fn pair() -> Pair {
    let files = TempDir::new().unwrap();
    let identity = |name| Identity::load_or_create(&files.path().join(name)).unwrap();
    let (node, signer) = (identity("node.pem"), identity("signer.pem"));
    Pair { node, signer, _files: files }
}

async fn listen(identity: &Identity, peer: Fingerprint) -> (TlsSocket, String) {
    let socket = TlsSocket::bind(identity, peer, ANY_PORT).await.unwrap();
    let address = socket.local_addr().unwrap().to_string();
    (socket, address)
}

fn server() -> EnvelopeServer {
    EnvelopeServer::new(Arc::new(Shared(Scripted::new(|_| Fate::Go))), ChainHash::REGTEST)
}

#[tokio::test]
async fn a_node_dials_its_signer() {
    let Pair { node, signer, _files } = pair();
    let (mut socket, address) = listen(&signer, node.fingerprint()).await;
    tokio::spawn(async move {
        let stream = socket.accept().await.unwrap();
        server().serve(stream, std::future::pending()).await
    });
    let dialer = TlsDialer::new(&node, signer.fingerprint(), &address).unwrap();
    let hsm = EnvelopedHsm::connect(dialer, options()).await.unwrap();
    open(&hsm, 1).await.unwrap();
    hsm.health().unwrap();
}

/// A signer tells a node that stops from a line that breaks, and a node its signer.
#[tokio::test]
async fn an_end_that_is_meant_is_announced() {
    for is_dropped in [false, true] {
        let Pair { node, signer, _files } = pair();
        let (mut socket, address) = listen(&signer, node.fingerprint()).await;
        let serving = tokio::spawn(async move {
            let stream = socket.accept().await.unwrap();
            server().serve(stream, std::future::pending()).await
        });
        let dialer = TlsDialer::new(&node, signer.fingerprint(), &address).unwrap();
        let hsm = EnvelopedHsm::connect(dialer, options()).await.unwrap();
        if !is_dropped {
            hsm.inner().close().await;
            let health = hsm.health().unwrap_err().to_string();
            assert!(health.contains("closed by the node itself"), "{health}");
        }
        drop(hsm);
        assert_eq!(serving.await.unwrap(), Ok(()));
    }

    let Pair { node, signer, _files } = pair();
    let (mut socket, address) = listen(&signer, node.fingerprint()).await;
    let serving = tokio::spawn(async move {
        let stream = socket.accept().await.unwrap();
        server().serve(stream, tokio::time::sleep(Duration::from_millis(200))).await
    });
    let dialer = TlsDialer::new(&node, signer.fingerprint(), &address).unwrap();
    let hsm = EnvelopedHsm::connect(dialer, options()).await.unwrap();
    assert_eq!(serving.await.unwrap(), Ok(()));
    while hsm.health().is_ok() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let health = hsm.health().unwrap_err().to_string();
    assert!(health.contains("the signer closed the connection"), "{health}");
}

/// A process that is killed.
#[tokio::test]
async fn an_end_without_a_word_is_told_from_one_that_is_meant() {
    let Pair { node, signer, _files } = pair();
    let (mut socket, address) = listen(&signer, node.fingerprint()).await;
    let serving = tokio::spawn(async move {
        let stream = socket.accept().await.unwrap();
        server().serve(stream, std::future::pending()).await
    });
    let dialer = TlsDialer::new(&node, signer.fingerprint(), &address).unwrap();
    let mut near = dialer.dial().await.unwrap();
    near.write_all(&[&[0, 0, 0, 46][..], &node_hello(1, 1, ChainHash::REGTEST)].concat())
        .await
        .unwrap();
    near.flush().await.unwrap();
    let mut hello = vec![0; 4];
    near.read_exact(&mut hello).await.unwrap();
    drop(near);
    let lost = LinkError::Lost("the connection ended without a word".into());
    assert_eq!(serving.await.unwrap(), Err(lost));
}

#[tokio::test]
async fn a_signer_dials_its_node() {
    let Pair { node, signer, _files } = pair();
    let (socket, address) = listen(&node, signer.fingerprint()).await;
    let dialer = TlsDialer::new(&signer, node.fingerprint(), &address).unwrap();
    tokio::spawn(async move {
        server().serve(dialer.dial().await.unwrap(), std::future::pending()).await
    });
    let hsm = EnvelopedHsm::connect(socket, options()).await.unwrap();
    open(&hsm, 1).await.unwrap();
}

#[tokio::test]
async fn a_wrong_key_where_we_dial_names_both_fingerprints() {
    let Pair { node, signer, _files } = pair();
    let expected = node.fingerprint();
    let (mut socket, address) = listen(&signer, node.fingerprint()).await;
    tokio::spawn(async move { socket.accept().await.map(|_| ()) });
    let dialer = TlsDialer::new(&node, expected, &address).unwrap();
    let text = dialer.dial().await.unwrap_err().to_string();
    assert!(text.contains(&signer.fingerprint().to_string()), "{text}");
    assert!(text.contains(&expected.to_string()) && text.contains(&address), "{text}");
}

#[tokio::test]
async fn a_wrong_key_that_dials_us_gets_nowhere_and_the_right_one_is_served() {
    let Pair { node, signer, _files } = pair();
    let stranger = pair();
    let (mut socket, address) = listen(&signer, node.fingerprint()).await;
    let accepting = tokio::spawn(async move { socket.accept().await });
    // One that says nothing keeps nobody out either.
    let _silent = TcpStream::connect(&address).await.unwrap();
    let wrong = TlsDialer::new(&stranger.node, signer.fingerprint(), &address).unwrap();
    // In TLS 1.3 who dials hears of the other side's refusal when it reads.
    let read: io::Result<u8> = async { wrong.dial().await?.read_u8().await }.await;
    let error = read.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    let text = error.to_string();
    assert!(text.contains("does not accept our key"), "{text}");
    assert!(text.contains(&stranger.node.fingerprint().to_string()), "{text}");
    assert!(!accepting.is_finished());

    let right = TlsDialer::new(&node, signer.fingerprint(), &address).unwrap();
    let mut near = right.dial().await.unwrap();
    near.write_all(b"x").await.unwrap();
    near.flush().await.unwrap();
    assert_eq!(accepting.await.unwrap().unwrap().read_u8().await.unwrap(), b'x');
}

/// It is told at once, and told what to compare.
#[tokio::test]
async fn a_node_whose_key_the_signer_does_not_expect_reads_that() {
    let Pair { node, signer, _files } = pair();
    let stranger = pair();
    let (mut socket, address) = listen(&signer, node.fingerprint()).await;
    tokio::spawn(async move { socket.accept().await.map(|_| ()) });
    let dialer = TlsDialer::new(&stranger.node, signer.fingerprint(), &address).unwrap();
    let error = EnvelopedHsm::connect(dialer, options()).await.map(|_| ()).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, HsmError::Unavailable(_)), "{text}");
    let ours = stranger.node.fingerprint().to_string();
    assert!(text.contains("link-denied") && text.contains(&ours), "{text}");
}

/// As many as there is room for, and more: from another address, and from that of the right one.
#[tokio::test]
async fn silent_strangers_do_not_keep_the_right_one_out() {
    let Pair { node, signer, _files } = pair();
    for from in [Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::LOCALHOST] {
        let (mut socket, address) = listen(&signer, node.fingerprint()).await;
        let accepting = tokio::spawn(async move { socket.accept().await });
        let mut strangers = Vec::new();
        for _ in 0..100 {
            let stranger = TcpSocket::new_v4().unwrap();
            stranger.bind(SocketAddr::new(from.into(), 0)).unwrap();
            strangers.push(stranger.connect(address.parse().unwrap()).await.unwrap());
        }
        let right = TlsDialer::new(&node, signer.fingerprint(), &address).unwrap();
        let dialled = tokio::time::timeout(Duration::from_secs(5), right.dial()).await;
        dialled.expect("it is kept out").unwrap();
        accepting.await.unwrap().unwrap();
    }
}

/// As OpenSSL writes it when told to speak nothing newer than TLS 1.2.
fn tls12_hello() -> Vec<u8> {
    let extensions: Vec<u8> = [
        &[0, 10, 0, 4, 0, 2, 0, 29][..],  // groups: x25519
        &[0, 11, 0, 2, 1, 0],             // point formats
        &[0, 13, 0, 6, 0, 4, 4, 3, 8, 7], // signatures: P-256, Ed25519
    ]
    .concat();
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.push(0);
    body.extend([0, 4, 0xc0, 0x2b, 0xcc, 0xa9]); // ECDHE-ECDSA with AES-128-GCM, ChaCha20
    body.extend([1, 0]);
    body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    body.extend(extensions);
    let mut handshake = vec![1, 0];
    handshake.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    handshake.extend(body);
    let mut record = vec![22, 3, 1];
    record.extend(u16::try_from(handshake.len()).unwrap().to_be_bytes());
    record.extend(handshake);
    record
}

#[tokio::test]
async fn tls_1_2_is_refused_by_who_listens() {
    let Pair { node, signer, _files } = pair();
    let (mut socket, address) = listen(&signer, node.fingerprint()).await;
    tokio::spawn(async move { socket.accept().await.map(|_| ()) });
    let mut old = TcpStream::connect(&address).await.unwrap();
    old.write_all(&tls12_hello()).await.unwrap();
    let mut alert = Vec::new();
    old.read_to_end(&mut alert).await.unwrap();
    // Fatal: protocol_version.
    assert_eq!(alert, [21, 3, 3, 0, 2, 2, 70]);
}

#[tokio::test]
async fn who_dials_offers_tls_1_3_and_nothing_older() {
    let Pair { node, signer, _files } = pair();
    let listener = tokio::net::TcpListener::bind(ANY_PORT).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let dialer = TlsDialer::new(&node, signer.fingerprint(), &address).unwrap();
    let listening = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut hello = vec![0; 5];
        stream.read_exact(&mut hello).await.unwrap();
        hello.resize(usize::from(u16::from_be_bytes([hello[3], hello[4]])), 0);
        stream.read_exact(&mut hello).await.unwrap();
        hello
    };
    let (dialled, hello) = tokio::join!(dialer.dial(), listening);
    dialled.unwrap_err();
    // supported_versions: one, 0x0304.
    let only = [0, 43, 0, 3, 2, 3, 4];
    assert!(hello.windows(only.len()).any(|window| window == only));
}

#[tokio::test]
async fn plain_text_gets_no_answer_but_an_alert() {
    let Pair { node, signer, _files } = pair();
    let (mut socket, address) = listen(&signer, node.fingerprint()).await;
    tokio::spawn(async move { socket.accept().await.map(|_| ()) });
    let mut plain = TcpStream::connect(&address).await.unwrap();
    plain.write_all(&[0, 0, 0, 44, 0, 1]).await.unwrap();
    plain.write_all(b"opensign").await.unwrap();
    let mut answer = Vec::new();
    // Reset or closed, but soon.
    let read = tokio::time::timeout(Duration::from_secs(30), plain.read_to_end(&mut answer));
    drop(read.await.unwrap());
    assert!(answer.len() <= 7, "{answer:?}");
}

#[test]
fn an_identity_stays_the_same_and_its_file_is_ours_alone() {
    let files = TempDir::new().unwrap();
    let path = files.path().join("signer.pem");
    let first = Identity::load_or_create(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let again = Identity::load_or_create(&path).unwrap();
    assert_eq!(again.fingerprint(), first.fingerprint());
    let pem = fs::read_to_string(&path).unwrap();
    let secret: String = pem.lines().nth(1).unwrap().into();
    assert!(!format!("{first:?}").contains(&secret));

    for mode in [0o640, 0o604, 0o610] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let error = Identity::load_or_create(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }
    fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
    Identity::load_or_create(&path).unwrap();
}

#[test]
fn a_file_that_is_no_key_is_refused_without_a_word_of_it() {
    let files = TempDir::new().unwrap();
    let path = files.path().join("signer.pem");
    for content in
        ["", "swordfish", "-----BEGIN PRIVATE KEY-----\nc3dvcmRmaXNo\n-----END PRIVATE KEY-----"]
    {
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let error = Identity::load_or_create(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let text = error.to_string();
        assert!(text.contains("signer.pem") && !text.contains("fish"), "{text}");
        // It may be somebody's, and stays.
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
    }
}

#[test]
fn a_fingerprint_is_64_hex_digits() {
    let text = "0123456789abcdef".repeat(4);
    let fingerprint: Fingerprint = text.parse().unwrap();
    assert_eq!(fingerprint.to_string(), text);
    assert_eq!(text.to_uppercase().parse(), Ok(fingerprint));
    for wrong in [&text[1..], &format!("{text}0"), &"g".repeat(64), ""] {
        wrong.parse::<Fingerprint>().unwrap_err();
    }
}
