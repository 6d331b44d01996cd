//! The funding output, and the channel's id that follows from it.

use bitcoin::hashes::Hash;
use bitcoin::opcodes::all::{OP_CHECKMULTISIG, OP_PUSHNUM_2};
use bitcoin::script::Builder;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{Amount, OutPoint, ScriptBuf, TxOut};

/// The 2-of-2 witness script of the funding output, lesser key first (B3-FUND-B-01, B3-FUND-B-02).
pub fn funding_witness_script(one: &PublicKey, other: &PublicKey) -> ScriptBuf {
    let (one, other) = (one.serialize(), other.serialize());
    let (first, second) = if one <= other { (one, other) } else { (other, one) };
    Builder::new()
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
