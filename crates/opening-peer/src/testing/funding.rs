//! A wallet that goes wrong, and one without a chain.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, OutPoint, Psbt, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, WPubkeyHash,
    Witness,
};
use opening_core::FundingOutput;

use super::Faults;
use crate::funding::FundingTransaction;
use crate::negotiation::BroadcastPermit;
use crate::wallet::{Funding, WalletError, WalletSource};

/// Another wallet, whose calls go wrong by the names of their methods.
#[derive(Debug)]
pub struct FaultyFunding<W> {
    inner: W,
    faults: Faults,
}

impl<W> FaultyFunding<W> {
    /// `inner`, with these faults.
    pub fn new(inner: W, faults: Faults) -> Self {
        Self { inner, faults }
    }

    /// The wallet behind the faults.
    pub fn inner(&self) -> &W {
        &self.inner
    }
}

fn on_purpose() -> WalletSource {
    "on purpose".into()
}

#[async_trait]
impl<W: Funding> Funding for FaultyFunding<W> {
    async fn build(&self, outputs: &[FundingOutput]) -> Result<FundingTransaction, WalletError> {
        let failure = || WalletError::Build(on_purpose());
        self.faults.around("build", self.inner.build(outputs), failure).await
    }

    async fn sign_and_broadcast(
        &self,
        permit: &BroadcastPermit,
        built: &FundingTransaction,
    ) -> Result<Transaction, WalletError> {
        let act = self.inner.sign_and_broadcast(permit, built);
        let failure = || WalletError::Broadcast(on_purpose());
        self.faults.around("sign_and_broadcast", act, failure).await
    }

    async fn release(&self, built: &FundingTransaction) -> Result<(), WalletError> {
        let failure = || WalletError::Release(on_purpose());
        self.faults.around("release", self.inner.release(built), failure).await
    }
}

/// A wallet with coins that exist nowhere else: what it signs satisfies this library, and no
/// Bitcoin node.
#[derive(Debug)]
pub struct TestWallet(Mutex<Coins>);

/// Coins by the number that makes their outpoint.
#[derive(Debug, Default)]
struct Coins {
    free: BTreeSet<u32>,
    reserved: HashMap<Txid, u32>,
    broadcast: Vec<Transaction>,
}

/// What every transaction pays for itself.
const FEE: Amount = Amount::from_sat(1000);

impl TestWallet {
    /// A wallet that can pay for so many transactions, of any amount.
    pub fn with_coins(count: u32) -> Self {
        Self(Mutex::new(Coins { free: (0..count).collect(), ..Coins::default() }))
    }

    /// How many coins are neither reserved nor spent.
    pub fn free(&self) -> usize {
        self.coins().free.len()
    }

    /// What was broadcast, each transaction once.
    pub fn broadcast(&self) -> Vec<Transaction> {
        self.coins().broadcast.clone()
    }

    fn coins(&self) -> MutexGuard<'_, Coins> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An output that looks like one of a wallet's, and is just large enough.
fn coin(outputs: &[FundingOutput]) -> Option<TxOut> {
    let value = outputs.iter().try_fold(FEE, |sum, output| sum.checked_add(output.value))?;
    let script_pubkey = ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([7; 20]));
    Some(TxOut { value, script_pubkey })
}

fn spend(number: u32, outputs: &[FundingOutput]) -> Transaction {
    let paid = |output: &FundingOutput| TxOut {
        value: output.value,
        script_pubkey: output.script_pubkey.clone(),
    };
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint { txid: Txid::from_byte_array([7; 32]), vout: number },
            script_sig: ScriptBuf::new(),
            sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
            witness: Witness::new(),
        }],
        output: outputs.iter().map(paid).collect(),
    }
}

#[async_trait]
impl Funding for TestWallet {
    async fn build(&self, outputs: &[FundingOutput]) -> Result<FundingTransaction, WalletError> {
        let coin = coin(outputs).ok_or(WalletError::InsufficientFunds)?;
        let mut coins = self.coins();
        let number = coins.free.pop_first().ok_or(WalletError::InsufficientFunds)?;
        let unsigned = spend(number, outputs);
        coins.reserved.insert(unsigned.compute_txid(), number);
        let mut psbt =
            Psbt::from_unsigned_tx(unsigned).map_err(|error| WalletError::Build(error.into()))?;
        psbt.inputs[0].witness_utxo = Some(coin);
        Ok(FundingTransaction::Psbt(Box::new(psbt)))
    }

    async fn sign_and_broadcast(
        &self,
        permit: &BroadcastPermit,
        built: &FundingTransaction,
    ) -> Result<Transaction, WalletError> {
        if !built.is_permitted_by(permit) {
            return Err(WalletError::NotPermitted);
        }
        let not_ours = || WalletError::Sign("it is not this wallet's".into());
        let mut transaction = built.clone().into_transaction().ok_or_else(not_ours)?;
        for input in &mut transaction.input {
            input.witness = Witness::from_slice(&[[1; 64]]);
        }
        let mut coins = self.coins();
        // After a restart the coin is still among the free ones.
        for input in &transaction.input {
            coins.free.remove(&input.previous_output.vout);
        }
        coins.reserved.remove(&built.txid());
        if !coins.broadcast.contains(&transaction) {
            coins.broadcast.push(transaction.clone());
        }
        Ok(transaction)
    }

    async fn release(&self, built: &FundingTransaction) -> Result<(), WalletError> {
        let mut coins = self.coins();
        if let Some(number) = coins.reserved.remove(&built.txid()) {
            coins.free.insert(number);
        }
        Ok(())
    }
}
