//! Per-commitment secrets (BOLT 3, "Per-commitment Secret Requirements").
//!
//! Seeds and secrets pass through here as plain bytes: whoever calls guards and erases them.
//! No secret of index 0 is ever to be revealed: it is the seed itself.

use bitcoin::hashes::{Hash, sha256};

use crate::commitment::MAX_COMMITMENT_NUMBER;

/// The index of the secret of commitment `number`: the first one is 2^48 − 1 (B3-SEC-B-04).
/// `None` beyond the last commitment (B3-SEC-B-03).
pub const fn secret_index(number: u64) -> Option<u64> {
    MAX_COMMITMENT_NUMBER.checked_sub(number)
}

/// The secret with this index, of which the lower 48 bits count (B3-SEC-B-05).
pub fn generate_from_seed(seed: &[u8; 32], index: u64) -> [u8; 32] {
    let mut secret = *seed;
    for bit in (0..48).rev() {
        if index >> bit & 1 == 1 {
            secret[bit / 8] ^= 1 << (bit % 8);
            secret = sha256::Hash::hash(&secret).to_byte_array();
        }
    }
    secret
}
