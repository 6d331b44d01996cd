//! `init`, decoded more leniently than LDK does: an address of a new kind must not cost the connection.

use bitcoin::constants::ChainHash;
use lightning::ln::msgs::{DecodeError, Init, SocketAddress};
use lightning::types::features::InitFeatures;
use lightning::util::ser::{BigSize, Readable};

const NETWORKS: u64 = 1;
const REMOTE_ADDR: u64 = 3;

/// The body of an `init`.
pub(super) fn read(mut body: &[u8]) -> Result<Init, DecodeError> {
    let globalfeatures: InitFeatures = Readable::read(&mut body)?;
    let features: InitFeatures = Readable::read(&mut body)?;
    let mut init =
        Init { features: features | globalfeatures, networks: None, remote_network_address: None };
    let mut last_type = None;
    while !body.is_empty() {
        let (record_type, value) = record(&mut body)?;
        if last_type.is_some_and(|last| record_type <= last) {
            return Err(DecodeError::InvalidValue);
        }
        last_type = Some(record_type);
        match record_type {
            NETWORKS => init.networks = Some(networks(value)?),
            REMOTE_ADDR => init.remote_network_address = remote_addr(value)?,
            unknown if unknown % 2 == 0 => return Err(DecodeError::UnknownRequiredFeature),
            _ => {}
        }
    }
    Ok(init)
}

/// The next TLV record: its type and its value.  BigSize refuses what is not minimal (B1-TLV-R-02).
fn record<'b>(stream: &mut &'b [u8]) -> Result<(u64, &'b [u8]), DecodeError> {
    let BigSize(record_type) = Readable::read(stream)?;
    let BigSize(length) = Readable::read(stream)?;
    let length = usize::try_from(length).map_err(|_| DecodeError::ShortRead)?;
    let (value, rest) = stream.split_at_checked(length).ok_or(DecodeError::ShortRead)?;
    *stream = rest;
    Ok((record_type, value))
}

fn networks(value: &[u8]) -> Result<Vec<ChainHash>, DecodeError> {
    let (chains, []) = value.as_chunks() else { return Err(DecodeError::InvalidValue) };
    Ok(chains.iter().map(|&chain| ChainHash::from(chain)).collect())
}

/// Our own address as the peer sees it; `None` where it is of a kind unknown here, as nobody has to use it (B1-INIT-R-08).
fn remote_addr(mut value: &[u8]) -> Result<Option<SocketAddress>, DecodeError> {
    let address: Result<SocketAddress, u8> = Readable::read(&mut value)?;
    match address {
        Ok(address) if value.is_empty() => Ok(Some(address)),
        Ok(_) => Err(DecodeError::InvalidValue),
        Err(_unknown_kind) => Ok(None),
    }
}
