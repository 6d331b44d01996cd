//! A connection that we dialled, and that the other side may still refuse.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::AlertDescription;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client;

use super::{Fingerprint, alert, denied};

/// A connection that was dialled.
///
/// In TLS 1.3 who dials is done before the other side has looked at its key: that the key is refused
/// is what the first read fails with ([`PermissionDenied`](io::ErrorKind::PermissionDenied)).
pub struct DialledStream {
    stream: client::TlsStream<TcpStream>,
    address: String,
    ours: Fingerprint,
    /// The other side has sent something.
    is_accepted: bool,
}

impl DialledStream {
    pub(super) fn new(
        stream: client::TlsStream<TcpStream>,
        address: String,
        ours: Fingerprint,
    ) -> Self {
        Self { stream, address, ours, is_accepted: false }
    }

    /// Whatever the other side can still dislike is our key.
    fn is_refusal(&self, error: &io::Error) -> bool {
        !self.is_accepted
            && alert(error).is_some_and(|alert| {
                is_about_key(alert) || alert == AlertDescription::HandshakeFailure
            })
    }
}

/// What an implementation of TLS says to a certificate that it does not accept.
pub(super) fn is_about_key(alert: AlertDescription) -> bool {
    use AlertDescription::{
        AccessDenied, BadCertificate, CertificateUnknown, UnknownCA, UnsupportedCertificate,
    };
    matches!(
        alert,
        AccessDenied | BadCertificate | CertificateUnknown | UnknownCA | UnsupportedCertificate
    )
}

impl fmt::Debug for DialledStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DialledStream").field("address", &self.address).finish_non_exhaustive()
    }
}

impl AsyncRead for DialledStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match ready!(Pin::new(&mut self.stream).poll_read(context, buffer)) {
            Ok(()) => {
                self.is_accepted |= buffer.filled().len() > before;
                Poll::Ready(Ok(()))
            }
            Err(error) if self.is_refusal(&error) => {
                Poll::Ready(Err(denied(&self.address, self.ours)))
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

impl AsyncWrite for DialledStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
