//! `--hsm`: a signer in another process or on another machine.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::Network;
use bitcoin::constants::ChainHash;
use opening_signer::remote::tls::{Fingerprint, Identity, TlsDialer, TlsSocket};
use opening_signer::remote::unix::UnixDialer;
use opening_signer::remote::{EnvelopeOptions, EnvelopedHsm, HsmdConfig, HsmdHsm};
use opening_signer::{Hsm, HsmError, HsmResult};

use super::options::OptionsError;
use crate::hsmd::identity;

/// For the first connection: who starts both at once need not care which is first.  Longer than one
/// attempt, so that the log has its reason by then.
const START_PATIENCE: Duration = Duration::from_secs(15);

/// Where a signer is, as `--hsm` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    /// `unix:PATH`.
    Unix(PathBuf),
    /// `tls:HOST:PORT`.
    Tls(String),
    /// `tls-listen:HOST:PORT`: the signer dials.
    TlsListen(String),
    /// `hsmd:PATH`: hsmd's wire on a Unix socket.
    Hsmd(PathBuf),
    /// What this program does not have.
    Other(String),
}

impl Address {
    pub(super) fn parse(text: &str) -> Self {
        match text.split_once(':') {
            Some(("unix", path)) => Self::Unix(path.into()),
            Some(("tls", address)) => Self::Tls(address.into()),
            Some(("tls-listen", address)) => Self::TlsListen(address.into()),
            Some(("hsmd", path)) => Self::Hsmd(path.into()),
            _ => Self::Other(text.into()),
        }
    }

    /// Connects; `pinned` is our key and the signer's fingerprint, for TLS.
    pub(super) async fn connect(
        &self,
        network: Network,
        pinned: (Option<&Path>, Option<Fingerprint>),
    ) -> Result<Arc<dyn Hsm>, OptionsError> {
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
    ) -> Result<Arc<dyn Hsm>, OptionsError> {
        let options = EnvelopeOptions::new(ChainHash::using_genesis_block(network));
        match self {
            Self::Unix(path) => found(EnvelopedHsm::connect(UnixDialer::new(path), options).await),
            Self::Hsmd(path) => found(HsmdHsm::connect(path, HsmdConfig::new(network)).await),
            Self::Tls(address) => {
                let (identity, peer) = pins(pinned)?;
                let dialer = TlsDialer::new(&identity, peer, address)
                    .map_err(|error| OptionsError::Io(format!("--hsm=tls:{address}"), error))?;
                found(EnvelopedHsm::connect(dialer, options).await)
            }
            Self::TlsListen(address) => {
                let (identity, peer) = pins(pinned)?;
                let failed = |error| OptionsError::Io(format!("--hsm=tls-listen:{address}"), error);
                let parsed = address.parse().map_err(|error| failed(io::Error::other(error)))?;
                let socket = TlsSocket::bind(&identity, peer, parsed).await.map_err(failed)?;
                found(EnvelopedHsm::connect(socket, options).await)
            }
            Self::Other(text) => Err(OptionsError::NotBuiltIn(format!("a signer at {text}"))),
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

fn found(connected: HsmResult<impl Hsm>) -> Result<Arc<dyn Hsm>, OptionsError> {
    Ok(Arc::new(connected.map_err(OptionsError::Signer)?))
}
