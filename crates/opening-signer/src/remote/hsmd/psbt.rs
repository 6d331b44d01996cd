//! A transaction on hsmd's wire: its bytes, and a PSBT that tells what they do not.
//!
//! The PSBT is written field by field as Core Lightning writes it, which is not as a library does:
//! the funding keys stand in the order of the transaction's owner, and a signer may have been built
//! to take nothing else.

use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{PublicKey, Secp256k1, Verification};
use bitcoin::{Psbt, ScriptBuf, Transaction, TxOut};

use crate::error::{HsmError, HsmResult};
use crate::remote::codec::Malformed;
use crate::request::CommitmentRequest;

const MAGIC: [u8; 5] = *b"psbt\xff";
/// Ends the fields that are about one thing.
const SEPARATOR: u8 = 0;

// Types of fields, of the whole, of an input, of an output.
const UNSIGNED_TX: u8 = 0x00;
const WITNESS_UTXO: u8 = 0x01;
const INPUT_WITNESS_SCRIPT: u8 = 0x05;
const INPUT_BIP32_DERIVATION: u8 = 0x06;
const OUTPUT_WITNESS_SCRIPT: u8 = 0x01;

/// A transaction and its PSBT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BitcoinTx {
    pub(super) transaction: Transaction,
    psbt: Vec<u8>,
}

impl BitcoinTx {
    /// A commitment as hsmd wants to see it.
    pub(super) fn of<C: Verification>(
        secp: &Secp256k1<C>,
        request: &CommitmentRequest<'_>,
    ) -> HsmResult<Self> {
        let CommitmentRequest { parameters, commitment, per_commitment_point, .. } = request;
        let output_scripts = parameters
            .output_witness_scripts(secp, commitment, per_commitment_point)
            .map_err(|error| HsmError::InvalidRequest(error.to_string()))?;
        let owner = commitment.owner;
        let keys = [owner, owner.other()].map(|side| parameters.party(side).keys.funding_pubkey);
        let spent = TxOut {
            value: commitment.funding_satoshis,
            script_pubkey: commitment.funding_witness_script.to_p2wsh(),
        };

        let transaction = commitment.transaction.clone();
        let mut psbt = MAGIC.to_vec();
        put_field(&mut psbt, &[UNSIGNED_TX], &serialize(&transaction));
        psbt.push(SEPARATOR);
        put_field(&mut psbt, &[WITNESS_UTXO], &serialize(&spent));
        let script = commitment.funding_witness_script.as_bytes();
        put_field(&mut psbt, &[INPUT_WITNESS_SCRIPT], script);
        keys.iter().for_each(|key| put_funding_key(&mut psbt, key));
        psbt.push(SEPARATOR);
        for script in &output_scripts {
            if let Some(script) = script {
                put_field(&mut psbt, &[OUTPUT_WITNESS_SCRIPT], script.as_bytes());
            }
            psbt.push(SEPARATOR);
        }
        Ok(Self { transaction, psbt })
    }

    pub(super) fn read(transaction: &[u8], psbt: &[u8]) -> Result<Self, Malformed> {
        const WHAT: &str = "a transaction";
        let transaction = deserialize(transaction).map_err(|_| Malformed::Invalid(WHAT))?;
        let parsed = Psbt::deserialize(psbt).map_err(|_| Malformed::Invalid("a PSBT"))?;
        if parsed.unsigned_tx != transaction {
            return Err(Malformed::Invalid("a PSBT's transaction"));
        }
        // Else a digest over another amount would be signed.
        if parsed.inputs.iter().any(|input| input.witness_utxo.is_none()) {
            return Err(Malformed::Invalid("a PSBT's input"));
        }
        Ok(Self { transaction, psbt: psbt.to_vec() })
    }

    pub(super) fn transaction_bytes(&self) -> Vec<u8> {
        serialize(&self.transaction)
    }

    pub(super) fn psbt(&self) -> &[u8] {
        &self.psbt
    }
}

/// The key, and a path from itself to itself.
fn put_funding_key(psbt: &mut Vec<u8>, key: &PublicKey) {
    let bytes = key.serialize();
    let fingerprint = bitcoin::hashes::hash160::Hash::hash(&bytes).to_byte_array();
    let mut field = [INPUT_BIP32_DERIVATION; 1 + 33];
    field[1..].copy_from_slice(&bytes);
    let mut path = [0; 4 + 4];
    path[..4].copy_from_slice(&fingerprint[..4]);
    put_field(psbt, &field, &path);
}

fn put_field(psbt: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    // A field's bytes with their count in front are what consensus encoding makes of a script.
    psbt.extend_from_slice(&serialize(&ScriptBuf::from_bytes(key.to_vec())));
    psbt.extend_from_slice(&serialize(&ScriptBuf::from_bytes(value.to_vec())));
}
