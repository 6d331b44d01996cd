//! Connections of our nodes: TCP on 127.0.0.1 and BOLT 8.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use opening_peer::transport::bolt8::EphemeralKey;
use opening_peer::transport::tcp;
use opening_peer::{Greeting, Openings, Session};
use opening_signer::HsmSecret;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// How long TCP and BOLT 8 may take together.
const CONNECT: Duration = Duration::from_secs(10);

/// One side of connections to come.
#[derive(Clone)]
pub(super) struct End {
    /// Where its tasks run.
    pub runtime: Handle,
    /// The node.
    pub openings: Arc<Openings>,
}

/// A node's secret; each number has another.
pub(super) fn secret(number: u32) -> SecretKey {
    let mut bytes = [7; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    HsmSecret::new(bytes).node_key()
}

/// Both ends of a new connection, each of which has an identity that belongs to the number: so two
/// nodes have as many connections as there are numbers.
pub(super) async fn connect(near: &End, far: &End, number: u32) -> (Session, Session) {
    let (our_secret, their_secret) = (secret(2 * number), secret(2 * number + 1));
    let [our_id, their_id] = [our_secret, their_secret].map(id);
    let (tell_address, address) = oneshot::channel();
    let openings = far.openings.clone();
    let accepting = far.runtime.spawn(async move {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has ports");
        let address = listener.local_addr().expect("it is bound");
        tell_address.send(address).expect("it is awaited");
        let (stream, _) = listener.accept().await.expect("somebody connects");
        let accepted = tcp::accept(stream, &their_secret, EphemeralKey::random(), CONNECT).await;
        let (transport, _) = accepted.expect("both speak BOLT 8");
        Session::start(openings, our_id, transport, Greeting::default()).await
    });
    let address = address.await.expect("it is told");
    let openings = near.openings.clone();
    let connecting = near.runtime.spawn(async move {
        let key = EphemeralKey::random();
        let connected = tcp::connect(address, &our_secret, their_id, key, CONNECT).await;
        let transport = connected.expect("both speak BOLT 8");
        Session::start(openings, their_id, transport, Greeting::default()).await
    });
    let [ours, theirs] = [connecting.await, accepting.await].map(|started| {
        let started = started.expect("nothing panics");
        started.expect("two of our own nodes understand each other")
    });
    (ours, theirs)
}

fn id(secret: SecretKey) -> PublicKey {
    secret.public_key(&Secp256k1::signing_only())
}
