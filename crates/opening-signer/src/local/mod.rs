//! A signer in this process.

mod channel;
#[cfg(feature = "testing")]
mod fixed;
mod memory;
mod policy;
mod public;
mod recent;
mod record;
mod records;
pub(crate) mod rule;
mod secret;

use core::fmt;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bitcoin::secp256k1::{All, Secp256k1};
use lightning::util::persist::KVStore;

use self::channel::LocalChannel;
#[cfg(feature = "testing")]
pub use self::fixed::ChannelSecrets;
use self::memory::Memory;
pub use self::policy::SigningPolicy;
use self::public::Public;
use self::recent::Recent;
use self::records::Records;
pub use self::rule::Rule;
pub use self::secret::HsmSecret;
use self::secret::{ChannelRoot, ChannelSecretBytes};
use crate::error::HsmResult;
use crate::hsm::{ChannelHsm, Hsm};
use crate::info::{Bounds, Enforcement, Info, Pipelining};
use crate::memory::invalid;
use crate::request::ChannelRef;

/// A signer in this process, with the keys that Core Lightning's hsmd derives from the same
/// [`HsmSecret`].
///
/// Blind or validating, it wants `setup` before it signs, checks that a request is about the
/// channel that was set up, verifies the peer's signature, signs one commitment 0 for each channel
/// and side, and signs its own only after the peer's signature was good.  Its signatures are low-S
/// and low-R, and the same for the same transaction.
pub struct LocalHsm {
    shared: Arc<Shared>,
}

struct Shared {
    secp: Secp256k1<All>,
    root: ChannelRoot,
    validating: Option<Validating>,
    /// The channels that were set up.
    // In boxes, so that a map that grows does not copy them.
    channels: Mutex<HashMap<ChannelRef, Box<Memory>>>,
    recent: Mutex<Recent>,
}

/// What only a validating signer has.
struct Validating {
    policy: SigningPolicy,
    records: Records,
}

impl Shared {
    fn channels(&self) -> MutexGuard<'_, HashMap<ChannelRef, Box<Memory>>> {
        // Nothing is left half-changed by a panic: each change is one assignment.
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        // Cached keys stay those of their channel.
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What all may know of the channel whose secrets these are.
    fn public(&self, reference: ChannelRef, secrets: &ChannelSecretBytes) -> Arc<Public> {
        if let Some(public) = self.recent().get(&reference) {
            return public;
        }
        let public = Arc::new(Public::derive(&self.secp, secrets));
        self.recent().insert(reference, Arc::clone(&public));
        public
    }
}

impl LocalHsm {
    /// Protects the keys only: its memory ends with the process, and the node's store is what is
    /// left of a channel.
    pub fn blind(secret: &HsmSecret) -> Self {
        Self::new(secret.channel_root(), None)
    }

    /// Rebuilds each commitment from the channel's setup and signs it only if every byte is equal;
    /// as fundee only after its own was validated.  What it does not sign for, by its `policy` and
    /// the other [`Rule`]s, it refuses at the setup.
    ///
    /// One record of each channel is in `store` before the first signature leaves, which must be
    /// durable when its `write` returns.  After a restart with the same store a channel can be
    /// signed again with identical bytes, and not differently.  One signer at a time has a store.
    ///
    /// A store that lost records makes every setup and every signature end in
    /// [`Storage`](crate::HsmError::Storage), and [`health`](Hsm::health) says so.  It is noticed
    ///
    /// * while the signer runs, when the last record that it kept is gone: at the next record, and
    ///   at the next signature of that channel;
    /// * after a start, at the first setup, when fewer records are there than the record of the
    ///   highest `dbid` has counted: some were lost and a later one was not.
    ///
    /// It is not noticed when after a start all that is there was there together at one moment (an
    /// older copy of the whole store, an empty one): only somebody else could know of the rest.
    /// Then a reference whose record was lost takes another setup.  Nor is it noticed when single
    /// records vanish from a store while the signer runs, before the next start, or when the copy
    /// was made between two writes that were under way together.
    ///
    /// The way on is a store with all records, or another secret.
    pub fn validating(
        secret: &HsmSecret,
        policy: SigningPolicy,
        store: Arc<dyn KVStore + Send + Sync>,
    ) -> Self {
        Self::new(secret.channel_root(), Some(Validating { policy, records: Records::new(store) }))
    }

    /// A blind signer whose channels all have these secrets.  For tests: two channels with the
    /// same keys are one theft away from each other.
    #[cfg(feature = "testing")]
    pub fn with_channel_secrets(secrets: ChannelSecrets) -> Self {
        Self::new(secrets.into_root(), None)
    }

    fn new(root: ChannelRoot, validating: Option<Validating>) -> Self {
        let mut secp = Secp256k1::new();
        secp.seeded_randomize(&root.blinding());
        let (channels, recent) = (Mutex::default(), Mutex::default());
        Self { shared: Arc::new(Shared { secp, root, validating, channels, recent }) }
    }

    fn enforcement(&self) -> Enforcement {
        match self.shared.validating {
            None => Enforcement::Blind,
            Some(_) => Enforcement::Validating,
        }
    }

    fn bounds(&self) -> Bounds {
        let validating = self.shared.validating.as_ref();
        validating.map_or_else(Bounds::none, |validating| validating.policy.bounds.clone())
    }
}

impl fmt::Debug for LocalHsm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalHsm")
            .field("enforcement", &self.enforcement())
            .field("channels", &self.shared.channels().len())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Hsm for LocalHsm {
    fn info(&self) -> Info {
        Info {
            enforcement: self.enforcement(),
            bounds: self.bounds(),
            pipelining: Pipelining::OneByOne,
        }
    }

    /// Bad once the store was seen to have lost records.
    fn health(&self) -> HsmResult<()> {
        let validating = self.shared.validating.as_ref();
        validating.map_or(Ok(()), |validating| validating.records.health())
    }

    async fn channel(&self, reference: ChannelRef) -> HsmResult<Arc<dyn ChannelHsm>> {
        if reference.dbid == 0 {
            return Err(invalid("dbid 0 names no channel"));
        }
        Ok(Arc::new(LocalChannel::new(Arc::clone(&self.shared), reference)))
    }

    async fn forget_channel(&self, reference: ChannelRef) -> HsmResult<()> {
        // The durable record stays: it is small, and it is what keeps the reference used up.
        self.shared.channels().remove(&reference);
        Ok(())
    }
}
