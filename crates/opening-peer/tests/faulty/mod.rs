//! Nodes with faulty parts, a wire that can be watched, and a peer that says what a test wants.

// Every test file compiles its own copy and uses a part of it.
#![allow(dead_code, unreachable_pub, unused_imports)]
// Clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

mod log;
mod opened;
mod raw;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use opening_peer::node::{AcceptWithin, Bounds};
use opening_peer::session::{CompleteError, Opening};
use opening_peer::store::{ChannelStore, MemoryStore, StoreError};
use opening_peer::testing::{Faults, FaultyPolicy, FaultyStore, MockHsm};
use opening_peer::{BroadcastPermit, Capacity, Failed, Greeting, Node, Opened, Openings, Session};
use opening_signer::testing::Transcript;
use opening_signer::{HsmError, HsmSecret, LocalHsm};

pub use self::log::Log;
pub use self::opened::{Open, opened_between};
pub use self::raw::{Raw, RawFunder, features_with, open_channel_message};
pub use self::wire::{From, Wire};
use crate::common::{ask, node_id, regtest_bounds, signed};

/// Every call of an opening.
pub const HSM_CALLS: [&str; 6] = [
    "channel",
    "pubkeys",
    "per_commitment_point",
    "setup",
    "sign_counterparty_commitment",
    "validate_holder_commitment",
];

/// A node with its parts in the test's hand.
pub struct Made {
    pub node: Node,
    pub log: Arc<Log>,
    pub store: Arc<FaultyStore<MemoryStore>>,
    pub transcript: Transcript,
}

/// A node whose store, policy and signer share one plan of faults.
pub fn faulty_node(secret: u8, faults: &Faults) -> Made {
    node_within(secret, faults, regtest_bounds())
}

pub fn node_within(secret: u8, faults: &Faults, bounds: Bounds) -> Made {
    let log = Arc::new(Log::default());
    let store = Arc::new(FaultyStore::new(MemoryStore::default(), faults.clone()));
    let local_hsm = Arc::new(LocalHsm::blind(&HsmSecret::new([secret; 32])));
    let hsm = MockHsm::new(local_hsm, faults.clone())
        .failing_with(HsmError::Indeterminate("SECRET REASON".into()));
    let transcript = hsm.transcript();
    let node = Node {
        capacity: Capacity { opens_per_second: None, ..Capacity::default() },
        ..Node::new(
            bitcoin::Network::Regtest,
            Arc::new(hsm),
            Arc::new(FaultyPolicy::new(AcceptWithin(bounds), faults.clone())),
            store.clone(),
            log.clone(),
        )
    };
    Made { node, log, store, transcript }
}

/// One end of a watched connection.
pub struct Party {
    pub openings: Arc<Openings>,
    pub log: Arc<Log>,
    pub store: Arc<FaultyStore<MemoryStore>>,
    pub transcript: Transcript,
    pub session: Session,
}

impl Party {
    /// The channels that are kept.
    pub async fn kept(&self) -> Vec<Opened> {
        let channels = self.store.load_all().await.unwrap();
        channels.into_iter().map(|entry| entry.stored.unwrap().opened).collect()
    }
}

/// A funder and a fundee, and the wire between them.
pub async fn connect(funder: Made, fundee: Made) -> (Party, Party, Wire) {
    let (wire, funder_end, fundee_end) = Wire::new();
    let (one, other) = (crate::common::openings(funder.node), crate::common::openings(fundee.node));
    let (a, b) = tokio::join!(
        Session::start(one.clone(), node_id(2), funder_end, Greeting::default()),
        Session::start(other.clone(), node_id(1), fundee_end, Greeting::default()),
    );
    let party = |openings, session, log, store, transcript| Party {
        openings,
        log,
        store,
        transcript,
        session,
    };
    (
        party(one, a.unwrap(), funder.log, funder.store, funder.transcript),
        party(other, b.unwrap(), fundee.log, fundee.store, fundee.transcript),
        wire,
    )
}

/// Two nodes of which one has faults.
pub async fn connect_faulty(which: From, faults: &Faults) -> (Party, Party, Wire) {
    let none = Faults::none();
    let (funder, fundee) = match which {
        From::Funder => (faults, &none),
        From::Fundee => (&none, faults),
    };
    connect(faulty_node(1, funder), faulty_node(2, fundee)).await
}

/// A whole opening as the funder's node sees it.
pub async fn open(funder: &Party) -> Result<(Arc<Opened>, BroadcastPermit), Failed> {
    finish(funder.session.open(ask()).await?).await
}

/// From `open_channel` to the permit.
pub async fn finish(opening: Opening) -> Result<(Arc<Opened>, BroadcastPermit), Failed> {
    let pending = opening.accepted().await?;
    let funding = signed(&pending.needed().output);
    match pending.complete(funding).await {
        Ok(mut signing) => signing.opened().await,
        Err((CompleteError::Failed(failed), None)) => Err(failed),
        Err(other) => panic!("{other:?}"),
    }
}

/// Lets everything happen that can happen without the clock.
pub async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

/// Waits for what comes of a state that no event tells; the clock must be paused or the wait short.
pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..5000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("never so: {what}");
}
