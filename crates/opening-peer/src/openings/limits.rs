//! How much of this node its peers may take: counted when `open_channel` is received.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bitcoin::secp256k1::PublicKey;
use tokio::time::Instant;

use super::{Openings, lock};
use crate::failure::Failure;

/// Peers that are remembered without a look whether there is something to remember of them.
const FEW_PEERS: usize = 1024;

/// How many inbound openings may be pending, counted when `open_channel` is received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// With one peer.  Default: 4.
    pub pending_per_peer: u32,
    /// With all peers.  Default: 1000.
    pub pending_in_all: u32,
    /// New ones in a second from one peer; `None` is no limit.  Default: 10.
    pub opens_per_second: Option<u32>,
    /// Saved channels that one peer opened and whose funding has never confirmed.  Default: 100.
    pub unconfirmed_per_peer: u32,
    /// The same with all peers.  Default: 10,000.
    pub unconfirmed_in_all: u32,
}

impl Default for Capacity {
    fn default() -> Self {
        Self {
            pending_per_peer: 4,
            pending_in_all: 1000,
            opens_per_second: Some(10),
            unconfirmed_per_peer: 100,
            unconfirmed_in_all: 10_000,
        }
    }
}

/// How long each party may take.  None of them ends a channel that is saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// The peer's next message, where it needs nobody else for it.  Default: 60 s.
    pub peer: Duration,
    /// The peer's `funding_created`, for which it asks its wallet and its signer, and both may wait
    /// for somebody's hand.  Default: 15 min, which is `wallet` and a few calls of `signer` of a
    /// funder with these defaults.
    // What waits meanwhile is about a kilobyte and keeps its place in `Capacity`.
    pub funding_created: Duration,
    /// The policy's answer.  Default: 15 s.
    pub policy: Duration,
    /// The wallet's funding transaction.  Default: 10 min.
    pub wallet: Duration,
    /// One call to the signer, or all that go out together, retries included.  Default: 60 s.
    pub signer: Duration,
    /// One call to the store.  Default: 30 s.
    pub store: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            peer: Duration::from_secs(60),
            funding_created: Duration::from_secs(900),
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

    pub(super) fn countable(self) -> Self {
        let Self { peer, funding_created, policy, wallet, signer, store } = self;
        let countable = |deadline: Duration| deadline.min(Self::LONGEST);
        Self {
            peer: countable(peer),
            funding_created: countable(funding_created),
            policy: countable(policy),
            wallet: countable(wallet),
            signer: countable(signer),
            store: countable(store),
        }
    }
}

/// What is counted.
#[derive(Default)]
pub(super) struct Counts {
    pending: u32,
    unconfirmed: u32,
    of_peer: HashMap<PublicKey, PeerCount>,
    /// Peers in `of_peer` at which those that are idle are looked for.
    look_for_idle_at: usize,
    /// Peers that only their own limits bind.
    allowed: HashSet<PublicKey>,
}

#[derive(Default)]
struct PeerCount {
    pending: u32,
    unconfirmed: u32,
    /// Those of them that take a place of others: the peer was not on the allow-list.
    unconfirmed_in_all: u32,
    /// Begin of the running second and the openings that began in it.
    second: Option<(Instant, u32)>,
}

impl Counts {
    pub(super) fn allowing(allowed: HashSet<PublicKey>) -> Mutex<Self> {
        Mutex::new(Self { allowed, ..Self::default() })
    }

    /// A peer that comes, opens and goes must leave nothing behind.  Between two scans the number
    /// of peers doubles, so that the scan costs each new peer the same.
    fn forget_idle_peers(&mut self, now: Instant) {
        if self.of_peer.len() >= self.look_for_idle_at {
            self.of_peer.retain(|_, count| count.is_counted() || count.is_in_second(now));
            let twice = FEW_PEERS.max(2 * self.of_peer.len());
            self.of_peer.shrink_to(twice);
            self.look_for_idle_at = twice;
        }
    }

    /// An offer of this peer is here, whatever comes of it.
    fn begin(&mut self, peer: PublicKey, capacity: Capacity) -> Result<(), Failure> {
        let now = Instant::now();
        self.forget_idle_peers(now);
        match capacity.opens_per_second {
            Some(limit) if !self.allowed.contains(&peer) => {
                self.of_peer.entry(peer).or_default().begin(now, limit)
            }
            _ => Ok(()),
        }
    }

    /// Whether one more is within what all peers together may have.
    fn room_in_all(&self, capacity: Capacity) -> Result<(), Failure> {
        if self.pending >= capacity.pending_in_all {
            return Err(Failure::TooManyPending(capacity.pending_in_all));
        }
        // What is pending may all be saved.
        if self.unconfirmed.saturating_add(self.pending) >= capacity.unconfirmed_in_all {
            return Err(Failure::TooManyUnconfirmed(capacity.unconfirmed_in_all));
        }
        Ok(())
    }
}

impl PeerCount {
    fn is_counted(&self) -> bool {
        self.pending > 0 || self.unconfirmed > 0
    }

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

    /// Whether one more is within what the peer may have.
    fn room(&self, capacity: Capacity) -> Result<(), Failure> {
        if self.pending >= capacity.pending_per_peer {
            return Err(Failure::TooManyPendingWithPeer(capacity.pending_per_peer));
        }
        if self.unconfirmed.saturating_add(self.pending) >= capacity.unconfirmed_per_peer {
            return Err(Failure::TooManyUnconfirmedWithPeer(capacity.unconfirmed_per_peer));
        }
        Ok(())
    }
}

/// A peer of this node on one connection: what its openings are counted and named for.
// Each pending opening has two guards, which share this instead of the whole of it.
pub(crate) struct Guest {
    pub(crate) openings: Arc<Openings>,
    pub(crate) peer: PublicKey,
}

impl Guest {
    pub(crate) fn new(openings: Arc<Openings>, peer: PublicKey) -> Arc<Self> {
        Arc::new(Self { openings, peer })
    }

    /// Counts an offer that is refused whatever the limits say: it was one of this second.
    pub(crate) fn count_offer(&self) {
        let Self { openings, peer } = self;
        // Its own reason comes before that it was too fast.
        let _ = lock(&openings.counts).begin(*peer, openings.node.capacity);
    }

    /// Counts a new inbound opening, before anything else is done about it.
    pub(crate) fn admit(self: &Arc<Self>) -> Result<Slot, Failure> {
        let Self { openings, peer } = &**self;
        let capacity = openings.node.capacity;
        let mut counts = lock(&openings.counts);
        // The rate first: an offer that is refused counts, too.
        counts.begin(*peer, capacity)?;
        let is_in_all = !counts.allowed.contains(peer);
        let nothing = PeerCount::default();
        counts.of_peer.get(peer).unwrap_or(&nothing).room(capacity)?;
        if is_in_all {
            counts.room_in_all(capacity)?;
        }
        counts.of_peer.entry(*peer).or_default().pending += 1;
        counts.pending += u32::from(is_in_all);
        Ok(Slot { guest: self.clone(), is_in_all })
    }
}

/// A place among the pending inbound openings, given back when dropped.
pub(crate) struct Slot {
    guest: Arc<Guest>,
    /// Peers on the allow-list take no place of others.
    is_in_all: bool,
}

impl Openings {
    /// Inbound openings pending with all peers, those on the allow-list included.
    pub fn pending(&self) -> u32 {
        lock(&self.counts).of_peer.values().map(|count| count.pending).sum()
    }

    /// Puts peers on the allow-list: they open even where other peers have taken all places, and
    /// as fast as they like.  What one peer may have binds them, too.
    pub fn allow(&self, peers: impl IntoIterator<Item = PublicKey>) {
        lock(&self.counts).allowed.extend(peers);
    }

    /// Takes a peer off the allow-list.
    pub fn disallow(&self, peer: &PublicKey) {
        lock(&self.counts).allowed.remove(peer);
    }

    /// A channel that this peer opened is saved, and its funding has not confirmed yet.
    pub(super) fn count_unconfirmed(&self, peer: PublicKey) {
        let mut counts = lock(&self.counts);
        let in_all = u32::from(!counts.allowed.contains(&peer));
        counts.unconfirmed += in_all;
        let of_peer = counts.of_peer.entry(peer).or_default();
        of_peer.unconfirmed += 1;
        of_peer.unconfirmed_in_all += in_all;
    }

    /// It has confirmed, or is forgotten.
    pub(super) fn uncount_unconfirmed(&self, peer: &PublicKey) {
        let Counts { unconfirmed, of_peer, .. } = &mut *lock(&self.counts);
        let Some(of_peer) = of_peer.get_mut(peer) else { return };
        of_peer.unconfirmed -= 1;
        // Which one it is nobody remembers: those that take no place go first.
        if of_peer.unconfirmed_in_all > of_peer.unconfirmed {
            of_peer.unconfirmed_in_all -= 1;
            *unconfirmed -= 1;
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Guest { openings, peer } = &*self.guest;
        let mut counts = lock(&openings.counts);
        counts.pending -= u32::from(self.is_in_all);
        let Some(of_peer) = counts.of_peer.get_mut(peer) else { return };
        of_peer.pending -= 1;
        // Without a rate limit there is nothing left to remember of the peer.
        if !of_peer.is_counted() && of_peer.second.is_none() {
            counts.of_peer.remove(peer);
        }
    }
}
