//! What may only happen once a channel is saved, held by a value instead of by memory.

use std::collections::HashSet;
use std::sync::Arc;

use bitcoin::Txid;
use lightning::ln::types::ChannelId;

use super::opened::Opened;

/// Proof that a channel was saved durably.  Only [`save`](crate::store::save) makes one.
#[derive(Debug)]
pub struct Saved {
    channel_id: ChannelId,
}

impl Saved {
    pub(crate) fn new(channel_id: ChannelId) -> Self {
        Self { channel_id }
    }
}

/// Leave to broadcast a funding transaction: for every channel that it funds the peer's signature
/// on our first commitment is verified and saved (B2-FC-S-03, B2-FS-R-02).
#[must_use = "a funder who never broadcasts leaves the peer with a dead channel"]
#[derive(Debug)]
pub struct BroadcastPermit {
    txid: Txid,
    is_first: bool,
}

impl BroadcastPermit {
    pub(super) fn first(opened: &Opened) -> Self {
        Self { txid: opened.parameters.funding_outpoint.txid, is_first: true }
    }

    /// Once more, after a restart or for whoever lost the first one.
    pub(crate) fn again(opened: &Opened) -> Self {
        Self { txid: opened.parameters.funding_outpoint.txid, is_first: false }
    }

    /// The transaction that may be broadcast.
    pub fn txid(&self) -> Txid {
        self.txid
    }

    /// Whether no other permit was given before this one.
    pub(crate) fn is_first(&self) -> bool {
        self.is_first
    }
}

/// A channel that is agreed on but not yet saved, and what saving it releases: the permit to
/// broadcast for the funder, `funding_signed` for the fundee.
#[must_use = "the channel exists for the peer once `inside` is used: save it first"]
#[derive(Debug)]
pub struct Held<T> {
    opened: Arc<Opened>,
    inside: T,
}

impl<T> Held<T> {
    pub(super) fn new(opened: Opened, inside: T) -> Self {
        Self { opened: Arc::new(opened), inside }
    }

    /// The channel to save.
    pub fn opened(&self) -> &Arc<Opened> {
        &self.opened
    }

    /// Releases what was held, against the proof that this channel is saved.
    ///
    /// # Panics
    ///
    /// If the proof is another channel's, or the channel is one of a batch: a bug of the caller.
    pub fn after(self, saved: Saved) -> (Arc<Opened>, T) {
        assert!(self.opened.batch.is_empty(), "a batch is released as a whole, by `join`");
        self.release(&saved)
    }

    fn release(self, saved: &Saved) -> (Arc<Opened>, T) {
        assert_eq!(saved.channel_id, self.opened.channel_id, "the proof is another channel's");
        (self.opened, self.inside)
    }
}

impl Held<BroadcastPermit> {
    /// Releases one permit for a transaction that funds several channels, against the proof for
    /// each of them that it is saved.
    ///
    /// # Panics
    ///
    /// If these are not all the channels of one transaction, or a proof is another channel's: a
    /// bug of the caller.
    pub fn join(all: Vec<(Self, Saved)>) -> (Vec<Arc<Opened>>, BroadcastPermit) {
        let ids: HashSet<_> = all.iter().map(|(held, _)| held.opened.channel_id).collect();
        let (mut channels, mut permit) = (Vec::with_capacity(all.len()), None);
        for (held, saved) in all {
            let mut known: HashSet<_> = held.opened.batch.iter().copied().collect();
            known.insert(held.opened.channel_id);
            assert_eq!(known, ids, "these are not the channels of one batch");
            let (opened, inside) = held.release(&saved);
            channels.push(opened);
            permit = Some(inside);
        }
        (channels, permit.expect("a batch has members"))
    }
}
