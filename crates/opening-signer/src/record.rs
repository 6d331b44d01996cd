//! What a validating signer keeps of a channel: which commitment 0 it signed.

use std::sync::Arc;

use bitcoin::hashes::{Hash, sha256};
use lightning::io::ErrorKind;
use lightning::util::persist::KVStore;

use crate::error::{HsmError, HsmResult};
use crate::hsm::ChannelRef;

/// What a signature commits to.
pub(crate) type Digest = [u8; 32];

const NAMESPACE: &str = "signer";
const SIGNED: &str = "signed";
const VERSION: u8 = 1;
/// Version, digest, checksum of both.
const LENGTH: usize = 1 + 32 + 32;

/// One channel's entry in the signer's store.
pub(crate) struct Record {
    store: Arc<dyn KVStore + Send + Sync>,
    key: String,
    signed: Option<Digest>,
}

impl Record {
    /// Reads what is known of the channel.
    pub(crate) async fn open(
        store: Arc<dyn KVStore + Send + Sync>,
        reference: ChannelRef,
    ) -> HsmResult<Self> {
        let key = format!("{}-{}", reference.peer, reference.dbid);
        let signed = match store.read(NAMESPACE, SIGNED, &key).await {
            Ok(bytes) => Some(decode(&bytes).ok_or_else(|| {
                // Signing on would risk a second, different signature.
                let text = format!("the signer's record {key} is damaged");
                HsmError::Unavailable(text)
            })?),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(HsmError::Unavailable(format!("the signer's store: {error}"))),
        };
        Ok(Self { store, key, signed })
    }

    /// The commitment 0 of the peer that was signed before the last restart.
    pub(crate) fn signed(&self) -> Option<Digest> {
        self.signed
    }

    /// Notes, durably, the commitment that is about to be signed.
    pub(crate) async fn write(&self, digest: Digest) -> HsmResult<()> {
        let writing = self.store.write(NAMESPACE, SIGNED, &self.key, encode(&digest));
        writing.await.map_err(|error| HsmError::Unavailable(format!("the signer's store: {error}")))
    }
}

fn encode(digest: &Digest) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(LENGTH);
    bytes.push(VERSION);
    bytes.extend_from_slice(digest);
    let checksum = sha256::Hash::hash(&bytes);
    bytes.extend_from_slice(checksum.as_byte_array());
    bytes
}

fn decode(bytes: &[u8]) -> Option<Digest> {
    let digest = *bytes.get(1..)?.first_chunk()?;
    (bytes == encode(&digest)).then_some(digest)
}
