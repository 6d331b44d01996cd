//! What the node's wallet brings as funding transaction, and whether it funds the channel.

use std::collections::HashSet;

use bitcoin::hashes::Hash;
use bitcoin::{OutPoint, Psbt, Transaction, TxOut, Txid};
use opening_core::FundingOutput;

use crate::negotiation::{BroadcastPermit, Opened};

/// A funding transaction that is not broadcast yet.
#[derive(Clone, Debug)]
pub enum FundingTransaction {
    /// Signed: every input shows by its witness that its txid cannot change.
    Signed(Transaction),
    /// Unsigned or partly signed: every input shows the segwit output that it spends, by itself
    /// or in the whole previous transaction.
    Psbt(Box<Psbt>),
    /// For a wallet that shows nothing.  The wallet answers for amount, script, index and
    /// segwit inputs: a mistake here loses the funds.
    Outpoint(OutPoint),
}

/// Why a transaction does not fund the channel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FundingError {
    /// No output pays exactly the channel's amount to its script (B2-FC-S-04).
    #[error("no output of the funding transaction pays {0} to the funding script")]
    NoFundingOutput(bitcoin::Amount),
    /// The output's index does not fit into `funding_output_index`.
    #[error("the funding output has index {0}, beyond 65535")]
    IndexTooLarge(usize),
    /// An input whose spending can still change the txid (B2-FC-S-02, B2-FC-S-06).
    #[error("input {0} of the funding transaction is not shown to be a segwit one")]
    InputNotSegwit(usize),
    /// A transaction without inputs.
    #[error("the funding transaction has no inputs")]
    NoInputs,
    /// A bare outpoint tells only one place, and a batch needs more.
    #[error("a batch needs the whole transaction, not an outpoint")]
    OutpointOfBatch,
    /// An outpoint of zeros, which names no transaction.
    #[error("no transaction has the id {}", Txid::all_zeros())]
    ZeroTxid,
}

impl FundingError {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoFundingOutput(_) => "no-funding-output",
            Self::IndexTooLarge(_) => "funding-index-too-large",
            Self::InputNotSegwit(_) => "funding-input-not-segwit",
            Self::NoInputs => "funding-without-inputs",
            Self::OutpointOfBatch => "funding-outpoint-of-batch",
            Self::ZeroTxid => "funding-txid-zero",
        }
    }
}

impl FundingTransaction {
    /// The outpoint at which this transaction pays `output`.
    pub fn outpoint(&self, output: &FundingOutput) -> Result<OutPoint, FundingError> {
        let outpoints = self.outpoints(std::slice::from_ref(output))?;
        Ok(outpoints.into_iter().next().expect("one for each output"))
    }

    /// The outpoints at which this transaction pays `outputs`, each at a place of its own.
    pub fn outpoints(&self, outputs: &[FundingOutput]) -> Result<Vec<OutPoint>, FundingError> {
        let transaction = match self {
            Self::Outpoint(outpoint) if outputs.len() == 1 => {
                return Ok(vec![possible(*outpoint)?]);
            }
            Self::Outpoint(_) => return Err(FundingError::OutpointOfBatch),
            Self::Signed(transaction) => transaction,
            Self::Psbt(psbt) => &psbt.unsigned_tx,
        };
        if transaction.input.is_empty() {
            return Err(FundingError::NoInputs);
        }
        if let Some(index) = self.first_malleable_input() {
            return Err(FundingError::InputNotSegwit(index));
        }
        let txid = transaction.compute_txid();
        let mut taken = HashSet::new();
        let place = |output: &FundingOutput| {
            let mut places = transaction.output.iter().enumerate();
            let place =
                places.find(|(index, paid)| output.is_paid_by(paid) && !taken.contains(index));
            let (index, _) = place.ok_or(FundingError::NoFundingOutput(output.value))?;
            taken.insert(index);
            let vout = u16::try_from(index).map_err(|_| FundingError::IndexTooLarge(index))?;
            Ok(OutPoint { txid, vout: vout.into() })
        };
        outputs.iter().map(place).collect()
    }

    /// What a record says about the transaction of a channel that this node funds.
    ///
    /// A record keeps no PSBT.  What was one comes back as a PSBT of the same unsigned
    /// transaction, which shows no output that it spends: the wallet knows its own.
    pub fn of(opened: &Opened) -> Self {
        match &opened.funding_transaction {
            None => Self::Outpoint(opened.parameters.funding_outpoint),
            Some(transaction) => match Psbt::from_unsigned_tx(transaction.clone()) {
                Ok(psbt) => Self::Psbt(Box::new(psbt)),
                // Its inputs are signed.
                Err(_) => Self::Signed(transaction.clone()),
            },
        }
    }

    /// Its id, which signing does not change.
    pub fn txid(&self) -> Txid {
        match self {
            Self::Signed(transaction) => transaction.compute_txid(),
            Self::Psbt(psbt) => psbt.unsigned_tx.compute_txid(),
            Self::Outpoint(outpoint) => outpoint.txid,
        }
    }

    /// Whether this is the transaction that the permit is for.
    pub fn is_permitted_by(&self, permit: &BroadcastPermit) -> bool {
        permit.txid() == self.txid()
    }

    /// The transaction, if the wallet showed one.
    pub fn into_transaction(self) -> Option<Transaction> {
        match self {
            Self::Signed(transaction) => Some(transaction),
            Self::Psbt(psbt) => Some(psbt.unsigned_tx),
            Self::Outpoint(_) => None,
        }
    }

    fn first_malleable_input(&self) -> Option<usize> {
        match self {
            Self::Signed(transaction) => transaction
                .input
                .iter()
                .position(|input| input.witness.is_empty() || !input.script_sig.is_empty()),
            Self::Psbt(psbt) => {
                // Its fields are public: there may be fewer maps than inputs.
                let inputs = 0..psbt.unsigned_tx.input.len();
                inputs.into_iter().find(|&index| !keeps_txid(psbt, index))
            }
            Self::Outpoint(_) => None,
        }
    }
}

/// An outpoint that `funding_created` can say.
fn possible(outpoint: OutPoint) -> Result<OutPoint, FundingError> {
    if outpoint.txid == Txid::all_zeros() {
        return Err(FundingError::ZeroTxid);
    }
    match u16::try_from(outpoint.vout) {
        Ok(_) => Ok(outpoint),
        Err(_) => Err(FundingError::IndexTooLarge(outpoint.vout as usize)),
    }
}

/// Whether signing this input leaves the txid as it is.  A P2SH-wrapped segwit input gets a
/// script_sig with its signature, which changes it: only native ones will do.
fn keeps_txid(psbt: &Psbt, index: usize) -> bool {
    let Some(input) = psbt.inputs.get(index) else { return false };
    let unsigned = &psbt.unsigned_tx.input[index];
    let is_bare = unsigned.script_sig.is_empty()
        && input.final_script_sig.as_ref().is_none_or(|script_sig| script_sig.is_empty());
    // The whole previous transaction is what can be checked: its id stands in the outpoint.
    let spent = match &input.non_witness_utxo {
        Some(previous) => output_at(previous, unsigned.previous_output),
        None => input.witness_utxo.as_ref(),
    };
    is_bare && spent.is_some_and(|spent| spent.script_pubkey.is_witness_program())
}

fn output_at(transaction: &Transaction, outpoint: OutPoint) -> Option<&TxOut> {
    if transaction.compute_txid() != outpoint.txid {
        return None;
    }
    transaction.output.get(usize::try_from(outpoint.vout).ok()?)
}
