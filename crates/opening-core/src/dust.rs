//! Dust, as Bitcoin Core's relay policy has it.

use bitcoin::{Amount, Script};

/// Satoshis below which Bitcoin Core does not relay an output to `script_pubkey`, at its default
/// dust feerate of 3 sat/vB (B3-DUST-B-01 to B3-DUST-B-07).
pub fn dust_threshold(script_pubkey: &Script) -> Amount {
    script_pubkey.minimal_non_dust()
}

#[cfg(test)]
mod tests {
    use bitcoin::ScriptBuf;

    use super::*;

    fn threshold(start: &[u8], length: usize) -> u64 {
        let mut script = start.to_vec();
        script.resize(length, 7);
        dust_threshold(&ScriptBuf::from(script)).to_sat()
    }

    // req: B3-DUST-B-01, B3-DUST-B-02
    #[test]
    fn outputs_to_hashes_cost_a_signature_to_spend() {
        assert_eq!(threshold(&[0x76, 0xa9, 20], 25), 546);
        assert_eq!(threshold(&[0xa9, 20], 23), 540);
    }

    // req: B3-DUST-B-03, B3-DUST-B-04, B3-DUST-B-05, B3-DUST-B-06
    #[test]
    fn witness_outputs_are_cheaper() {
        assert_eq!(threshold(&[0x00, 20], 22), 294);
        assert_eq!(threshold(&[0x00, 32], 34), 330);
        assert_eq!(threshold(&[0x51, 2, 0x4e, 0x73], 4), 240);
        assert_eq!(threshold(&[0x60, 40], 42), 354);
        assert_eq!(crate::limits::DUST_LIMIT_FLOOR.to_sat(), threshold(&[0x51, 40], 42));
    }

    // req: B3-DUST-B-07
    #[test]
    fn op_return_is_never_dust() {
        assert_eq!(threshold(&[0x6a], 1), 0);
        assert_eq!(threshold(&[0x6a, 75], 77), 0);
    }
}
