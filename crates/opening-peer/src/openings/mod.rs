//! One node's openings, shared by the sessions with all of its peers.
//!
//! * `limits`: what peers may take, counted at receipt.
//! * `names` and `references`: ids that may be given only once.
//! * `peers`: who is connected; a new connection ends the old one's openings.
//! * `keep`: a save, and what is done while nobody knows whether it was one.
//! * `channels`: opened channels until the node takes them over.
//! * `claims`: what peers say that we revoked, until it is judged.
//! * `evidence`: what the chain says of them; `records`: what became of them, made durable.
//! * `ends`: every way in which an opened channel ends before that.
//! * `restore`: what the store kept, after a restart.

mod channels;
mod claims;
mod ends;
mod evidence;
mod keep;
mod limits;
mod names;
mod peers;
mod records;
mod references;
mod restore;
mod status;

use std::collections::HashSet;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bitcoin::Network;
use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::PublicKey;
use lightning::types::features::InitFeatures;
use opening_core::NegotiatedFeatures;
use opening_signer::Hsm;
use tokio::time::timeout;

pub(crate) use self::channels::Step;
pub use self::ends::{AbandonError, ReleaseError, SignError};
pub use self::evidence::ConfirmError;
pub use self::limits::{Capacity, Deadlines};
pub(crate) use self::limits::{Guest, Slot};
pub(crate) use self::peers::{Life, Link};
pub(crate) use self::references::Reference;
pub use self::restore::Restored;
pub use self::status::{LastFailure, Status, Under};
use crate::event::Event;
use crate::failure::Failure;
use crate::negotiation::Context;
use crate::node::{Entropy, Events, OpeningOnly, Policy, RestOfNode, SystemEntropy};
use crate::session::default_features;
use crate::store::ChannelStore;

/// The node's side of every opening.
#[derive(Clone)]
pub struct Node {
    /// The chain to open channels on.
    pub network: Network,
    /// What our `init` offers; [`crate::session::default_features`] is the library's own set.
    pub features: InitFeatures,
    /// Signs.
    pub hsm: Arc<dyn Hsm>,
    /// Decides.
    pub policy: Arc<dyn Policy>,
    /// Keeps.
    pub store: Arc<dyn ChannelStore>,
    /// Is told.
    pub events: Arc<dyn Events>,
    /// Gives random bytes.
    pub entropy: Arc<dyn Entropy>,
    /// Does everything else.
    pub rest: Arc<dyn RestOfNode>,
    /// How many inbound openings may be pending.
    pub capacity: Capacity,
    /// Peers that open even where others have taken all places; see [`Openings::allow`].
    pub allowed: HashSet<PublicKey>,
    /// How long each party may take.
    pub deadlines: Deadlines,
}

impl Node {
    /// A node that does nothing but open channels, with the defaults of everything else.
    pub fn new(
        network: Network,
        hsm: Arc<dyn Hsm>,
        policy: Arc<dyn Policy>,
        store: Arc<dyn ChannelStore>,
        events: Arc<dyn Events>,
    ) -> Self {
        Self {
            network,
            features: default_features(),
            hsm,
            policy,
            store,
            events,
            entropy: Arc::new(SystemEntropy),
            rest: Arc::new(OpeningOnly),
            capacity: Capacity::default(),
            allowed: HashSet::new(),
            deadlines: Deadlines::default(),
        }
    }
}

/// Shared by all sessions of a node.
pub struct Openings {
    pub(crate) node: Node,
    counts: Mutex<limits::Counts>,
    names: Mutex<names::Names>,
    dbids: tokio::sync::Mutex<references::Dbids>,
    to_forget: Mutex<references::ToForget>,
    peers: Mutex<peers::Peers>,
    channels: Mutex<channels::Channels>,
    failures: Mutex<status::Failures>,
    is_stopping: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing here can be left half-changed by a panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Openings {
    fn empty(mut node: Node) -> Self {
        node.deadlines = node.deadlines.countable();
        Self {
            counts: limits::Counts::allowing(std::mem::take(&mut node.allowed)),
            node,
            names: Mutex::default(),
            dbids: tokio::sync::Mutex::default(),
            to_forget: Mutex::default(),
            peers: Mutex::default(),
            channels: Mutex::default(),
            failures: Mutex::default(),
            is_stopping: AtomicBool::new(false),
        }
    }

    pub(crate) fn chain_hash(&self) -> ChainHash {
        self.node.network.chain_hash()
    }

    pub(crate) fn tell(&self, peer: &PublicKey, event: Event) {
        log::debug!("{peer}: {event}");
        self.node.events.event(peer, event);
    }

    /// By what an opening with this peer is judged now: the policy's bounds, narrowed to what the
    /// signer will do, so that nobody builds a transaction that the signer refuses.  A signer that
    /// is down refuses at once.
    pub(crate) async fn context(
        &self,
        peer: &PublicKey,
        features: &Arc<NegotiatedFeatures>,
    ) -> Result<Context, Failure> {
        self.node.hsm.health().map_err(Failure::SignerDown)?;
        let deadline = self.node.deadlines.policy;
        let mut bounds = timeout(deadline, self.node.policy.bounds(peer))
            .await
            .map_err(|_| Failure::PolicySilent(deadline))?;
        self.node.hsm.info().narrow(&mut bounds.limits, bounds.feerates.as_mut());
        Ok(Context {
            chain_hash: self.chain_hash(),
            features: features.clone(),
            limits: bounds.limits,
            feerates: bounds.feerates,
        })
    }
}
