//! `--hsm`: a signer in another process or on another machine.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::Network;
use bitcoin::constants::ChainHash;
use opening_signer::remote::tls::{Fingerprint, Identity, TlsDialer, TlsSocket};
use opening_signer::remote::unix::UnixDialer;
use opening_signer::remote::{Connect, EnvelopeOptions, EnvelopedHsm, HsmdConfig, HsmdHsm};
use opening_signer::{Hsm, HsmError, Verified};

use super::options::OptionsError;
use crate::hsmd::{identity, is_host_and_port, is_socket_path};

/// For the first connection: who starts both at once need not care which is first.  Longer than one
/// attempt, so that the log has its reason by then.
const START_PATIENCE: Duration = Duration::from_secs(15);

/// A signer elsewhere, for as long as the node runs.
pub struct RemoteSigner {
    hsm: Arc<dyn Hsm>,
    /// The same, where it wants to hear that the node stops.
    enveloped: Option<Arc<Verified<EnvelopedHsm>>>,
}

impl RemoteSigner {
    pub(super) fn hsm(&self) -> Arc<dyn Hsm> {
        self.hsm.clone()
    }

    /// Tells it that the node stops; takes a second at most.
    pub(super) async fn close(&self) {
        if let Some(enveloped) = &self.enveloped {
            enveloped.inner().close().await;
        }
    }
}

/// Where a signer is, as `--hsm` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    /// `unix:PATH`.
    Unix(PathBuf),
    /// `tls:HOST:PORT`.
    Tls(String),
    /// `tls-listen:IP:PORT`: the signer dials.
    TlsListen(SocketAddr),
    /// `hsmd:PATH`: hsmd's wire on a Unix socket.
    Hsmd(PathBuf),
}

impl Address {
    /// Where nobody can ever be is refused here, not waited for.
    pub(super) fn parse(text: &str) -> Result<Self, OptionsError> {
        let bad = |what| OptionsError::BadOption(format!("--hsm={text} is no {what}"));
        match text.split_once(':') {
            Some((kind @ ("unix" | "hsmd"), path)) => {
                let path = PathBuf::from(path);
                match kind {
                    _ if !is_socket_path(&path) => Err(bad("path that a socket can have")),
                    "unix" => Ok(Self::Unix(path)),
                    _ => Ok(Self::Hsmd(path)),
                }
            }
            Some(("tls", address)) if is_host_and_port(address) => Ok(Self::Tls(address.into())),
            Some(("tls", _)) => Err(bad("host and port to dial")),
            Some(("tls-listen", address)) => match address.parse() {
                Ok(address) => Ok(Self::TlsListen(address)),
                Err(_) => Err(bad("IP address and port to listen at")),
            },
            _ => {
                let forms = "unix:PATH, hsmd:PATH, tls:HOST:PORT and tls-listen:IP:PORT";
                Err(OptionsError::NotBuiltIn(format!("--hsm={text} is none of {forms}")))
            }
        }
    }

    /// Connects; `pinned` is our key and the signer's fingerprint, for TLS.
    pub(super) async fn connect(
        &self,
        network: Network,
        pinned: (Option<&Path>, Option<Fingerprint>),
    ) -> Result<RemoteSigner, OptionsError> {
        let connecting = self.try_connect(network, pinned);
        tokio::time::timeout(START_PATIENCE, connecting).await.unwrap_or_else(|_| {
            let reason =
                format!("nobody answers within {START_PATIENCE:?}: the log has the reasons");
            Err(OptionsError::Signer(HsmError::Unavailable(reason)))
        })
    }

    async fn try_connect(
        &self,
        network: Network,
        pinned: (Option<&Path>, Option<Fingerprint>),
    ) -> Result<RemoteSigner, OptionsError> {
        let options = EnvelopeOptions::new(ChainHash::using_genesis_block(network));
        match self {
            Self::Unix(path) => enveloped(UnixDialer::new(path), options).await,
            Self::Hsmd(path) => {
                let connected = HsmdHsm::connect(path, HsmdConfig::new(network)).await;
                let hsm = Arc::new(connected.map_err(OptionsError::Signer)?);
                Ok(RemoteSigner { hsm, enveloped: None })
            }
            Self::Tls(address) => {
                let (identity, peer) = pins(pinned)?;
                let dialer = TlsDialer::new(&identity, peer, address)
                    .map_err(|error| OptionsError::Io(format!("--hsm=tls:{address}"), error))?;
                enveloped(dialer, options).await
            }
            Self::TlsListen(address) => {
                let (identity, peer) = pins(pinned)?;
                let failed = |error| OptionsError::Io(format!("--hsm=tls-listen:{address}"), error);
                let socket = TlsSocket::bind(&identity, peer, *address).await.map_err(failed)?;
                // The port may have been left to the system.
                let address = socket.local_addr().map_err(failed)?;
                let ours = identity.fingerprint();
                log::info!("waiting for the signer at {address}, with the key {ours}");
                enveloped(socket, options).await
            }
        }
    }
}

fn pins(
    pinned: (Option<&Path>, Option<Fingerprint>),
) -> Result<(Identity, Fingerprint), OptionsError> {
    let (Some(key), Some(peer)) = pinned else {
        let why = "--hsm=tls:… and --hsm=tls-listen:… need --hsm-key and --hsm-peer";
        return Err(OptionsError::Contradiction(why));
    };
    Ok((identity("--hsm-key", key).map_err(OptionsError::SignersKey)?, peer))
}

async fn enveloped(
    connector: impl Connect,
    options: EnvelopeOptions,
) -> Result<RemoteSigner, OptionsError> {
    let connected = EnvelopedHsm::connect(connector, options).await;
    let hsm = Arc::new(connected.map_err(OptionsError::Signer)?);
    Ok(RemoteSigner { hsm: hsm.clone(), enveloped: Some(hsm) })
}
