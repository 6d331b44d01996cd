//! Names that a node may give only once: channel ids and short channel ids.

use std::collections::HashSet;
use std::sync::Arc;

use bitcoin::Txid;
use lightning::ln::types::ChannelId;
use opening_core::ShortChannelId;

use super::{Openings, lock};
use crate::failure::Failure;

/// Aliases that entropy may give in vain before it is held to be broken.
const ALIAS_TRIES: usize = 8;

#[derive(Default)]
pub(super) struct Names {
    /// Of every channel, and of every opening that has got so far.
    channel_ids: HashSet<ChannelId>,
    /// The aliases given, and the real ones seen.
    short_channel_ids: HashSet<ShortChannelId>,
    /// Transactions of batches that failed.
    condemned: HashSet<Txid>,
}

/// A channel id that no other opening of the node may use, given back when dropped unless its
/// save has begun.
pub(crate) struct Claim {
    openings: Arc<Openings>,
    channel_id: ChannelId,
    kept: bool,
}

impl Openings {
    /// Channels that the store has: no opening may use their outpoints.
    pub(super) fn taken(&self, channel_ids: impl IntoIterator<Item = ChannelId>) {
        lock(&self.names).channel_ids.extend(channel_ids);
    }

    /// Short channel ids that the node uses elsewhere: no alias may say the same (B2-CR-S-08).
    pub fn taken_short_channel_ids(&self, ids: impl IntoIterator<Item = ShortChannelId>) {
        lock(&self.names).short_channel_ids.extend(ids);
    }

    /// Takes a channel id for one opening (B2-CID-B-01; LDK and eclair both met peers that
    /// used an outpoint twice).
    pub(crate) fn claim(self: &Arc<Self>, channel_id: ChannelId) -> Result<Claim, Failure> {
        if !self.node.rest.uses(&channel_id) && lock(&self.names).channel_ids.insert(channel_id) {
            Ok(Claim { openings: self.clone(), channel_id, kept: false })
        } else {
            Err(Failure::OutpointInUse(channel_id))
        }
    }

    /// The transaction must never be broadcast from here: only some of its channels exist.
    pub(super) fn condemn(&self, txid: Txid) {
        lock(&self.names).condemned.insert(txid);
    }

    /// Whether an opening may be funded by this transaction.
    pub(crate) fn may_fund(&self, txid: Txid) -> Result<(), Failure> {
        if lock(&self.names).condemned.contains(&txid) {
            return Err(Failure::Condemned(txid));
        }
        Ok(())
    }

    /// An alias unlike every other that this node gave, and unlike the real short channel ids
    /// that it has seen (B2-CR-S-06, B2-CR-S-07, B2-CR-S-08).
    pub(super) fn alias(&self) -> Result<ShortChannelId, Failure> {
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
}

impl Claim {
    /// The channel is about to be saved: its id stays taken for as long as the node runs.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.kept {
            lock(&self.openings.names).channel_ids.remove(&self.channel_id);
        }
    }
}
