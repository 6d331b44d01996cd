//! The public keys of the channels that were asked for last.
//!
//! A fundee asks for its channel on each of the two messages of an opening, and keeps nothing of
//! the signer's between them.  Without this the second message would cost the six keys again.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::public::Public;
use crate::request::ChannelRef;

/// So many channels, about half a kilobyte each: a flood of offers only costs the time of those
/// keys that it drives out.
const CAPACITY: usize = 1024;

#[derive(Default)]
pub(super) struct Recent {
    channels: HashMap<ChannelRef, Arc<Public>>,
    /// Oldest first.
    order: VecDeque<ChannelRef>,
}

impl Recent {
    pub(super) fn get(&self, reference: &ChannelRef) -> Option<Arc<Public>> {
        self.channels.get(reference).cloned()
    }

    pub(super) fn insert(&mut self, reference: ChannelRef, public: Arc<Public>) {
        // Two calls at once derive the same keys.
        if self.channels.insert(reference, public).is_some() {
            return;
        }
        self.order.push_back(reference);
        if self.order.len() > CAPACITY
            && let Some(oldest) = self.order.pop_front()
        {
            self.channels.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::secp256k1::{Secp256k1, SecretKey};
    use opening_core::ChannelKeys;

    use super::*;

    #[test]
    fn the_last_ones_are_there_and_no_more() {
        let secp = Secp256k1::new();
        let key = SecretKey::from_slice(&[1; 32]).unwrap().public_key(&secp);
        let keys = ChannelKeys {
            funding_pubkey: key,
            revocation_basepoint: key,
            payment_basepoint: key,
            delayed_payment_basepoint: key,
            htlc_basepoint: key,
        };
        let public = Arc::new(Public { keys, first_per_commitment_point: key });
        let reference = |dbid: usize| ChannelRef { peer: key, dbid: dbid as u64 };
        let mut recent = Recent::default();
        for dbid in 1..=2 * CAPACITY {
            recent.insert(reference(dbid), public.clone());
            recent.insert(reference(dbid), public.clone());
            assert!(recent.get(&reference(dbid)).is_some());
        }
        assert!(recent.get(&reference(CAPACITY)).is_none());
        assert!(recent.get(&reference(CAPACITY + 1)).is_some());
        assert_eq!((recent.channels.len(), recent.order.len()), (CAPACITY, CAPACITY));
    }
}
