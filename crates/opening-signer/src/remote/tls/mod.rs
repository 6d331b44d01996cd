//! TLS between a node and its signer on another machine.
//!
//! Both ends show a certificate that they made themselves, and each accepts one key: the one whose
//! [`Fingerprint`] its operator has written down.  There is no authority and no host name to be
//! wrong about.  TLS 1.3 only.  Either side may dial: a signer behind a firewall dials its node.
//!
//! Plain TCP is not offered, not even on the loopback device, where every user of the machine could
//! connect: that is what [`unix`](super::unix) is for.

mod crowd;
mod dialled;
mod identity;
mod pin;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::version::TLS13;
use rustls::{AlertDescription, CertificateError, ClientConfig, ServerConfig};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, server};

use self::crowd::Crowd;
pub use self::dialled::DialledStream;
use self::dialled::is_about_key;
pub use self::identity::{Fingerprint, Identity};
use self::pin::{Pin, provider};
use super::{Connect, Stream};

/// For the handshake.
const PATIENCE: Duration = Duration::from_secs(10);
/// Stands in the handshake, where nobody reads it.
const NAME: &str = "opening";

/// Dials the other side, each time anew.
#[derive(Clone)]
pub struct TlsDialer {
    connector: TlsConnector,
    address: String,
    ours: Fingerprint,
}

impl TlsDialer {
    /// Dials `address` (host and port) as `identity`, and accepts nobody but `peer` there.
    pub fn new(identity: &Identity, peer: Fingerprint, address: &str) -> io::Result<Self> {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pin::new(peer)))
            .with_client_auth_cert(vec![identity.certificate()], identity.key())
            .map_err(io::Error::other)?;
        // Each connection proves both keys.
        config.resumption = Resumption::disabled();
        let connector = TlsConnector::from(Arc::new(config));
        Ok(Self { connector, address: address.into(), ours: identity.fingerprint() })
    }

    /// Fails if nobody answers, or somebody else.  May be dropped while it is awaited.
    pub async fn dial(&self) -> io::Result<DialledStream> {
        let dialling = async {
            let stream = TcpStream::connect(&self.address).await?;
            stream.set_nodelay(true)?;
            let name = ServerName::try_from(NAME).expect("the constant is a name");
            self.connector.connect(name, stream).await
        };
        let dialled = timeout(PATIENCE, dialling).await.unwrap_or_else(|_| Err(too_slow()));
        let stream = dialled.map_err(|error| explain(&error, &self.address, self.ours))?;
        Ok(DialledStream::new(stream, self.address.clone(), self.ours))
    }
}

#[async_trait]
impl Connect for TlsDialer {
    async fn connect(&mut self) -> io::Result<Box<dyn Stream>> {
        Ok(Box::new(self.dial().await?))
    }
}

impl fmt::Debug for TlsDialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsDialer").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Waits for the other side to dial.
pub struct TlsSocket {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    ours: Fingerprint,
    handshakes: Crowd<server::TlsStream<TcpStream>>,
}

impl TlsSocket {
    /// Listens at `address` as `identity`, and accepts nobody but `peer`.
    pub async fn bind(
        identity: &Identity,
        peer: Fingerprint,
        address: SocketAddr,
    ) -> io::Result<Self> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(io::Error::other)?
            .with_client_cert_verifier(Arc::new(Pin::new(peer)))
            .with_single_cert(vec![identity.certificate()], identity.key())
            .map_err(io::Error::other)?;
        config.send_tls13_tickets = 0;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(address).await.map_err(|error| {
            io::Error::new(error.kind(), format!("cannot listen at {address}: {error}"))
        })?;
        let ours = identity.fingerprint();
        Ok(Self { listener, acceptor, ours, handshakes: Crowd::new() })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The next connection of the right one; others are closed, and logged.  64 handshakes are under
    /// way at once; beyond, the oldest of the address that has most is closed, so that strangers keep
    /// nobody out.  May be dropped while it is awaited.
    pub async fn accept(&mut self) -> io::Result<server::TlsStream<TcpStream>> {
        loop {
            tokio::select! {
                stream = self.handshakes.next() => return Ok(stream),
                accepted = self.listener.accept() => {
                    let (stream, from) = accepted?;
                    let acceptor = self.acceptor.clone();
                    self.handshakes.begin(from, handshake(acceptor, stream, from, self.ours));
                }
            }
        }
    }
}

#[async_trait]
impl Connect for TlsSocket {
    async fn connect(&mut self) -> io::Result<Box<dyn Stream>> {
        Ok(Box::new(self.accept().await?))
    }
}

impl fmt::Debug for TlsSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsSocket").field("listener", &self.listener).finish_non_exhaustive()
    }
}

async fn handshake(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    from: SocketAddr,
    ours: Fingerprint,
) -> io::Result<server::TlsStream<TcpStream>> {
    let accepting = async {
        stream.set_nodelay(true)?;
        match acceptor.accept(stream).into_fallible().await {
            Ok(stream) => Ok(stream),
            Err((error, mut stream)) => {
                // What the other side is told about it is already written.
                drop(stream.shutdown().await);
                Err(error)
            }
        }
    };
    let accepted = timeout(PATIENCE, accepting).await.unwrap_or_else(|_| Err(too_slow()));
    accepted.map_err(|error| explain(&error, &from.to_string(), ours))
}

fn too_slow() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the handshake takes too long")
}

/// Our own reason, without the words that rustls puts around it.
fn explain(error: &io::Error, with: &str, ours: Fingerprint) -> io::Error {
    if alert(error).is_some_and(is_about_key) {
        return denied(with, ours);
    }
    let (kind, reason) = match tls_error(error) {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(other))) => {
            (io::ErrorKind::PermissionDenied, other.0.to_string())
        }
        _ => (error.kind(), error.to_string()),
    };
    io::Error::new(kind, format!("no TLS with {with}: {reason}"))
}

/// The other side does not take us for the one that it waits for.
fn denied(with: &str, ours: Fingerprint) -> io::Error {
    let reason = format!(
        "no TLS with {with}: the other side does not accept our key, {ours}; \
         its log says which one it expects"
    );
    io::Error::new(io::ErrorKind::PermissionDenied, reason)
}

/// By which the other side ended the connection.
fn alert(error: &io::Error) -> Option<AlertDescription> {
    match tls_error(error)? {
        rustls::Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}
