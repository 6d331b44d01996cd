//! One node's openings, shared by the sessions with all of its peers.
//!
//! Limits count here, at receipt; funding outpoints and channel ids are claimed here, so that no
//! two channels of the node share one.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bitcoin::Network;
use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::PublicKey;
use lightning::ln::types::ChannelId;
use lightning::types::features::InitFeatures;
use opening_core::{NegotiatedFeatures, ShortChannelId};
use opening_signer::{ChannelRef, Hsm};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::failure::Failure;
use crate::negotiation::Context;
use crate::node::{Entropy, Events, OpeningOnly, Policy, RestOfNode, SystemEntropy};
use crate::session::default_features;
use crate::store::{ChannelStore, StoreError};

/// How many inbound openings may be pending, counted when `open_channel` is received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// With one peer.  Default: 4.
    pub pending_per_peer: u32,
    /// With all peers.  Default: 1000.
    pub pending_in_all: u32,
    /// New ones in a second from one peer; `None` is no limit.  Default: 10.
    pub opens_per_second: Option<u32>,
}

impl Default for Capacity {
    fn default() -> Self {
        Self { pending_per_peer: 4, pending_in_all: 1000, opens_per_second: Some(10) }
    }
}

/// How long each party may take.  None of them ends a channel that is saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// The peer's next message.  Default: 60 s.
    pub peer: Duration,
    /// The policy's answer.  Default: 15 s.
    pub policy: Duration,
    /// The wallet's funding transaction.  Default: 10 min.
    pub wallet: Duration,
    /// One call to the signer, retries included.  Default: 60 s.
    pub signer: Duration,
    /// One call to the store.  Default: 30 s.
    pub store: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            peer: Duration::from_secs(60),
            policy: Duration::from_secs(15),
            wallet: Duration::from_secs(600),
            signer: Duration::from_secs(60),
            store: Duration::from_secs(30),
        }
    }
}

impl Deadlines {
    /// No clock counts to the end of a [`Duration`].
    const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

    fn countable(self) -> Self {
        let Self { peer, policy, wallet, signer, store } = self;
        let countable = |deadline: Duration| deadline.min(Self::LONGEST);
        Self {
            peer: countable(peer),
            policy: countable(policy),
            wallet: countable(wallet),
            signer: countable(signer),
            store: countable(store),
        }
    }
}

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
            deadlines: Deadlines::default(),
        }
    }
}

/// Shared by all sessions of a node.
pub struct Openings {
    pub(crate) node: Node,
    counts: Mutex<Counts>,
    names: Mutex<Names>,
    dbids: tokio::sync::Mutex<Dbids>,
}

/// Channel references are reserved durably this many at a time: a restart skips the rest.
const DBID_BLOCK: u64 = 64;

/// Numbers for channel references.
struct Dbids {
    /// Reserved and not given out yet.
    left: Range<u64>,
    /// The reservation under way.  There is one at a time, and whoever comes next waits for the
    /// same: a store that does not answer is not asked again and again.
    reserving: Option<JoinHandle<Result<Range<u64>, StoreError>>>,
}

/// Aliases that entropy may give in vain before it is held to be broken.
const ALIAS_TRIES: usize = 8;

#[derive(Default)]
struct Counts {
    in_all: u32,
    of_peer: HashMap<PublicKey, PeerCount>,
}

#[derive(Default)]
struct PeerCount {
    pending: u32,
    /// Begin of the running second and the openings that began in it.
    second: Option<(Instant, u32)>,
}

impl Counts {
    /// A peer that comes, opens and goes must leave nothing behind.  The scan is rare: it waits
    /// until there are twice as many peers remembered as openings may be pending.
    fn forget_idle_peers(&mut self, now: Instant, capacity: Capacity) {
        if self.of_peer.len() / 2 > capacity.pending_in_all as usize {
            self.of_peer.retain(|_, count| count.pending > 0 || count.is_in_second(now));
        }
    }
}

impl PeerCount {
    fn is_in_second(&self, now: Instant) -> bool {
        self.second.is_some_and(|(begin, _)| now.duration_since(begin) < Duration::from_secs(1))
    }

    /// Counts one more in the running second, unless that would be beyond `limit`.
    fn begin(&mut self, now: Instant, limit: u32) -> Result<(), Failure> {
        let (begin, begun) = match self.second {
            Some(second) if self.is_in_second(now) => second,
            _ => (now, 0),
        };
        if begun >= limit {
            return Err(Failure::TooFast(limit));
        }
        self.second = Some((begin, begun + 1));
        Ok(())
    }
}

/// Names that may be given only once.
#[derive(Default)]
struct Names {
    /// Of every channel, and of every opening that has got so far.
    channel_ids: HashSet<ChannelId>,
    /// Of channels that are saved, and with whom each is.
    channels: HashMap<ChannelId, PublicKey>,
    /// The aliases given, and the real ones seen.
    short_channel_ids: HashSet<ShortChannelId>,
}

/// A place among the pending inbound openings, given back when dropped.
pub(crate) struct Slot {
    openings: Arc<Openings>,
    peer: PublicKey,
}

/// A channel id that no other opening of the node may use, given back when dropped unless its
/// save has begun.
pub(crate) struct Claim {
    openings: Arc<Openings>,
    channel_id: ChannelId,
    kept: bool,
}

/// A channel reference that the signer may have heard of.  Dropped before the save has begun, it
/// makes the signer forget the channel: an opening that fails must cost it nothing.
pub(crate) struct Reference {
    openings: Arc<Openings>,
    name: ChannelRef,
    kept: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing here can be left half-changed by a panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Openings {
    /// The openings of `node`, which keeps the channels of `known` already, each with its peer:
    /// all that its store has, or their outpoints could be used again.
    pub fn new(
        mut node: Node,
        known: impl IntoIterator<Item = (ChannelId, PublicKey)>,
    ) -> Arc<Self> {
        node.deadlines = node.deadlines.countable();
        let channels: HashMap<_, _> = known.into_iter().collect();
        let channel_ids = channels.keys().copied().collect();
        let names = Names { channel_ids, channels, ..Names::default() };
        Arc::new(Self {
            node,
            counts: Mutex::default(),
            names: Mutex::new(names),
            dbids: tokio::sync::Mutex::new(Dbids { left: 0..0, reserving: None }),
        })
    }

    /// Inbound openings pending with all peers.
    pub fn pending(&self) -> u32 {
        lock(&self.counts).in_all
    }

    /// A channel is saved: from now on no message about it is about nothing.
    pub(crate) fn saved(&self, channel_id: ChannelId, peer: PublicKey) {
        lock(&self.names).channels.insert(channel_id, peer);
    }

    /// Whether this node has the channel with this peer, whichever session opened it.
    // Not with anyone: a stranger must not learn which outpoints are channels of ours.
    pub(crate) fn has_channel(&self, peer: &PublicKey, channel_id: &ChannelId) -> bool {
        lock(&self.names).channels.get(channel_id) == Some(peer)
    }

    pub(crate) fn chain_hash(&self) -> ChainHash {
        self.node.network.chain_hash()
    }

    /// Counts a new inbound opening, before anything else is done about it.
    pub(crate) fn admit(self: &Arc<Self>, peer: PublicKey) -> Result<Slot, Failure> {
        let capacity = self.node.capacity;
        let now = Instant::now();
        let mut counts = lock(&self.counts);
        counts.forget_idle_peers(now, capacity);
        if counts.in_all >= capacity.pending_in_all {
            return Err(Failure::TooManyPending(capacity.pending_in_all));
        }
        let of_peer = counts.of_peer.entry(peer).or_default();
        if of_peer.pending >= capacity.pending_per_peer {
            return Err(Failure::TooManyPendingWithPeer(capacity.pending_per_peer));
        }
        if let Some(limit) = capacity.opens_per_second {
            of_peer.begin(now, limit)?;
        }
        of_peer.pending += 1;
        counts.in_all += 1;
        Ok(Slot { openings: self.clone(), peer })
    }

    /// Takes a channel id for one opening (B2-CID-B-01; LDK and eclair both met peers that
    /// used an outpoint twice).
    pub(crate) fn claim(self: &Arc<Self>, channel_id: ChannelId) -> Result<Claim, Failure> {
        if lock(&self.names).channel_ids.insert(channel_id) {
            Ok(Claim { openings: self.clone(), channel_id, kept: false })
        } else {
            Err(Failure::OutpointInUse(channel_id))
        }
    }

    /// An alias unlike every other that this node gave, and unlike the real short channel ids
    /// that it has seen (B2-CR-S-06, B2-CR-S-07, B2-CR-S-08).
    pub(crate) fn alias(&self) -> Result<ShortChannelId, Failure> {
        let mut names = lock(&self.names);
        let random = || {
            let bytes = self.node.entropy.bytes();
            let (first, _) = bytes.split_first_chunk().expect("8 of 32 bytes");
            ShortChannelId::from_u64(u64::from_be_bytes(*first))
        };
        (0..ALIAS_TRIES)
            .map(|_| random())
            .find(|alias| names.short_channel_ids.insert(*alias))
            .ok_or(Failure::EntropyRepeats)
    }

    /// A channel is at this place of the chain: no alias may say the same.
    pub(crate) fn seen(&self, short_channel_id: ShortChannelId) {
        lock(&self.names).short_channel_ids.insert(short_channel_id);
    }

    /// A name for a new channel that the signer has never heard.
    pub(crate) async fn reference(
        self: &Arc<Self>,
        peer: PublicKey,
    ) -> Result<Reference, StoreError> {
        let deadline = self.node.deadlines.store;
        // Waiting in line counts: else the last of many would wait many times as long.
        let dbid = timeout(deadline, self.next_dbid()).await;
        let dbid = dbid.map_err(|_| StoreError::Silent(deadline))??;
        let name = ChannelRef { peer, dbid };
        Ok(Reference { openings: self.clone(), name, kept: false })
    }

    async fn next_dbid(&self) -> Result<u64, StoreError> {
        let Dbids { left, reserving } = &mut *self.dbids.lock().await;
        if left.is_empty() {
            // A task of its own: nobody's deadline may cut it short between its read and its write.
            let under_way = reserving.get_or_insert_with(|| {
                let store = self.node.store.clone();
                tokio::spawn(async move { store.reserve_dbids(DBID_BLOCK).await })
            });
            let reserved = under_way.await;
            *reserving = None;
            *left = reserved.map_err(|_| StoreError::Interrupted)??;
        }
        left.next().ok_or(StoreError::Exhausted)
    }

    /// By what an opening with this peer is judged now: the policy's bounds, narrowed to what the
    /// signer will do, so that nobody builds a transaction that the signer refuses.
    pub(crate) async fn context(
        &self,
        peer: &PublicKey,
        features: &NegotiatedFeatures,
    ) -> Result<Context, Failure> {
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

impl Claim {
    /// The channel is about to be saved: its id stays taken for as long as the node runs.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }
}

impl Reference {
    /// The signer's name for the channel.
    pub(crate) fn name(&self) -> ChannelRef {
        self.name
    }

    /// The channel is about to be saved: the signer is to remember it.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        // Without a runtime the process is going down, and the signer's memory with it.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.kept {
            return;
        }
        let (hsm, name) = (self.openings.node.hsm.clone(), self.name);
        let deadline = self.openings.node.deadlines.signer;
        runtime.spawn(async move {
            match timeout(deadline, hsm.forget_channel(name)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => log::warn!("the signer keeps {name:?}: {error}"),
                Err(_) => log::warn!("the signer does not answer whether it forgets {name:?}"),
            }
        });
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.kept {
            lock(&self.openings.names).channel_ids.remove(&self.channel_id);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut counts = lock(&self.openings.counts);
        counts.in_all -= 1;
        let Some(of_peer) = counts.of_peer.get_mut(&self.peer) else { return };
        of_peer.pending -= 1;
        // Without a rate limit there is nothing left to remember of the peer.
        if of_peer.pending == 0 && of_peer.second.is_none() {
            counts.of_peer.remove(&self.peer);
        }
    }
}
