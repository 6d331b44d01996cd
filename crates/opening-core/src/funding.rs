//! The funding output, and the channel's id that follows from it.

use alloc::vec::Vec;

use bitcoin::hashes::Hash;
use bitcoin::opcodes::all::{OP_CHECKMULTISIG, OP_PUSHNUM_2};
use bitcoin::script::Builder;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{Amount, OutPoint, ScriptBuf, TxOut};

/// Bytes of every funding witness script: three opcodes and two pushed keys.
const WITNESS_SCRIPT_LENGTH: usize = 71;

/// The 2-of-2 witness script of the funding output, lesser key first (B3-FUND-B-01, B3-FUND-B-02).
pub fn funding_witness_script(one: &PublicKey, other: &PublicKey) -> ScriptBuf {
    let (one, other) = (one.serialize(), other.serialize());
    let (first, second) = if one <= other { (one, other) } else { (other, one) };
    // Sized exactly: each pending channel keeps two of them.
    Builder::from(Vec::with_capacity(WITNESS_SCRIPT_LENGTH))
        .push_opcode(OP_PUSHNUM_2)
        .push_slice(first)
        .push_slice(second)
        .push_opcode(OP_PUSHNUM_2)
        .push_opcode(OP_CHECKMULTISIG)
        .into_script()
}

/// What the funding transaction has to pay: exactly this amount to exactly this script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FundingOutput {
    /// Satoshis, all of the channel's capacity.
    pub value: Amount,
    /// The P2WSH script of the 2-of-2.
    pub script_pubkey: ScriptBuf,
}

impl FundingOutput {
    /// The output that both funding keys control together.
    pub fn new(value: Amount, one: &PublicKey, other: &PublicKey) -> Self {
        Self { value, script_pubkey: funding_witness_script(one, other).to_p2wsh() }
    }

    /// Whether `output` is this one: script and amount both.
    pub fn is_paid_by(&self, output: &TxOut) -> bool {
        output.value == self.value && output.script_pubkey == self.script_pubkey
    }
}

/// The `channel_id` of a channel whose funding outpoint is known: the txid as on the wire, its
/// last two bytes XORed with the output index, big-endian (B2-CID-B-01).
///
/// `None` for an index beyond 16 bits, which no message can carry.
pub fn channel_id(outpoint: OutPoint) -> Option<[u8; 32]> {
    let index = u16::try_from(outpoint.vout).ok()?.to_be_bytes();
    let mut id = outpoint.txid.to_byte_array();
    id[30] ^= index[0];
    id[31] ^= index[1];
    Some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    // From BOLT 3, Appendix B.
    const LOCAL: &str = "023da092f6980e58d2c037173180e9a465476026ee50f96695963e8efe436f54eb";
    const REMOTE: &str = "030e9f7b623d2ccc7c9bd44d66d5ce21ce504c0acf6385a132cec6d3c39fa711c1";

    fn key(hex: &str) -> PublicKey {
        hex.parse().unwrap()
    }

    // req: B3-FUND-B-01, B3-FUND-B-02
    #[test]
    fn witness_script_has_the_lesser_key_first_whoever_is_named_first() {
        let script = funding_witness_script(&key(LOCAL), &key(REMOTE));
        assert_eq!(script.to_hex_string(), format!("5221{LOCAL}21{REMOTE}52ae"));
        assert_eq!(script.len(), WITNESS_SCRIPT_LENGTH);
        assert_eq!(funding_witness_script(&key(REMOTE), &key(LOCAL)), script);
    }

    // req: B3-FUND-B-01
    #[test]
    fn only_the_exact_script_and_amount_pay_the_funding_output() {
        let value = Amount::from_sat(10_000_000);
        let funding = FundingOutput::new(value, &key(LOCAL), &key(REMOTE));
        let script_pubkey = funding.script_pubkey.clone();
        assert!(funding.is_paid_by(&TxOut { value, script_pubkey: script_pubkey.clone() }));
        for value in [value - Amount::ONE_SAT, value + Amount::ONE_SAT] {
            assert!(!funding.is_paid_by(&TxOut { value, script_pubkey: script_pubkey.clone() }));
        }
        let script_pubkey = funding_witness_script(&key(LOCAL), &key(REMOTE));
        assert!(!funding.is_paid_by(&TxOut { value, script_pubkey }), "the script unhashed");
    }

    // req: B2-CID-B-01
    #[test]
    fn channel_id_is_the_txid_with_the_index_in_its_last_two_bytes() {
        let bytes = core::array::from_fn(|place| 0xa0 ^ place as u8);
        let txid = bitcoin::Txid::from_byte_array(bytes);
        for (vout, [first, second]) in [
            (0, [0, 0]),
            (1, [0, 1]),
            (0x0102, [1, 2]),
            (0xff00, [0xff, 0]),
            (0xffff, [0xff, 0xff]),
        ] {
            let mut expected = bytes;
            expected[30] ^= first;
            expected[31] ^= second;
            assert_eq!(channel_id(OutPoint { txid, vout }), Some(expected), "index {vout}");
            let index = u16::try_from(vout).unwrap();
            let outpoint = lightning::chain::transaction::OutPoint { txid, index };
            let theirs = lightning::ln::types::ChannelId::v1_from_funding_outpoint(outpoint);
            assert_eq!(theirs.0, expected, "index {vout}");
        }
        for vout in [0x1_0000, u32::MAX] {
            assert_eq!(channel_id(OutPoint { txid, vout }), None);
        }
    }
}
