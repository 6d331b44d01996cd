//! A wallet that funds channels: it builds without signing, and signs only when it may.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bdk_wallet::error::CreateTxError;
use bdk_wallet::{KeychainKind, SignOptions, Wallet as BdkWallet};
use bitcoin::bip32::Xpriv;
use bitcoin::{FeeRate, Network, Psbt, Transaction};
use opening_core::FundingOutput;
use opening_peer::{BroadcastPermit, Funding, FundingTransaction, WalletError};

use crate::chain::RegtestChain;

/// Coinbase outputs that a new wallet owns, each mature.
const COINS: u32 = 10;

/// What funding transactions pay.  A node would ask its fee estimator.
const FEERATE: FeeRate = FeeRate::from_sat_per_kwu(1250);

/// When a transaction that was built was seen, in the wallet's eyes, and when it was seen to be
/// gone: all that counts is that this is later.
const RESERVED: u64 = 0;
const RELEASED: u64 = 1;

/// A `wpkh` wallet on the embedded chain; clones share it.
#[derive(Clone)]
pub struct Wallet {
    keys: Arc<Mutex<BdkWallet>>,
    chain: RegtestChain,
}

impl Wallet {
    /// A wallet with this seed that mines its first coins.
    pub fn mined(seed: [u8; 32], chain: &RegtestChain) -> Self {
        Self::with_coins(seed, chain, COINS)
    }

    /// The same with this many coins: each pays for one transaction until a block is mined.
    pub fn with_coins(seed: [u8; 32], chain: &RegtestChain, coins: u32) -> Self {
        let master = Xpriv::new_master(Network::Regtest, &seed).expect("a seed of 32 bytes");
        let descriptor = |branch: u32| format!("wpkh({master}/84h/1h/0h/{branch}/*)");
        let mut wallet = BdkWallet::create(descriptor(0), descriptor(1))
            .network(Network::Regtest)
            .create_wallet_no_persist()
            .expect("the descriptors are well formed");
        for _ in 0..coins {
            let address = wallet.reveal_next_address(KeychainKind::External);
            chain.mine_to(address.script_pubkey());
        }
        // A coinbase may be spent when a hundred blocks are on top.
        for _ in 0..100 {
            chain.mine();
        }
        let wallet = Self { keys: Arc::new(Mutex::new(wallet)), chain: chain.clone() };
        wallet.sync(chain);
        wallet
    }

    fn wallet(&self) -> MutexGuard<'_, BdkWallet> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the blocks that are new since last time.
    pub fn sync(&self, chain: &RegtestChain) {
        let mut wallet = self.wallet();
        for height in wallet.latest_checkpoint().height() + 1..=chain.height() {
            let block = chain.block(height).expect("blocks up to the tip are there");
            wallet.apply_block(&block, height).expect("the chain never reorganises");
        }
    }

    /// Builds, unsigned, a transaction that pays `outputs`: its txid is final, because every input
    /// is a segwit one.
    pub fn build_unsigned(
        &self,
        outputs: &[FundingOutput],
        feerate: FeeRate,
    ) -> Result<Psbt, WalletError> {
        // The change of earlier transactions is spendable when they are mined.
        self.sync(&self.chain);
        let mut wallet = self.wallet();
        let mut builder = wallet.build_tx();
        builder.fee_rate(feerate).exclude_unconfirmed();
        for output in outputs {
            builder.add_recipient(output.script_pubkey.clone(), output.value);
        }
        let psbt = builder.finish().map_err(|error| match error {
            CreateTxError::CoinSelection(_) => WalletError::InsufficientFunds,
            other => WalletError::Build(other.into()),
        })?;
        // Its coins are spoken for: another channel must not be funded with them.
        let spent = psbt.unsigned_tx.clone();
        wallet.apply_unconfirmed_txs([(spent, RESERVED)]);
        Ok(psbt)
    }

    /// Signs what was built.
    pub fn sign(&self, mut psbt: Psbt) -> Result<Transaction, WalletError> {
        let wallet = self.wallet();
        // A record shows no outputs spent: they are in this wallet's own transactions.
        for (input, map) in psbt.unsigned_tx.input.iter().zip(&mut psbt.inputs) {
            let previous = wallet.get_tx(input.previous_output.txid);
            map.non_witness_utxo =
                previous.map(|previous| Transaction::clone(&previous.tx_node.tx));
        }
        let signed = wallet.sign(&mut psbt, SignOptions::default());
        if !signed.map_err(|error| WalletError::Sign(error.into()))? {
            return Err(WalletError::Sign("an input is not this wallet's".into()));
        }
        psbt.extract_tx().map_err(|error| WalletError::Sign(error.into()))
    }
}

#[async_trait]
impl Funding for Wallet {
    async fn build(&self, outputs: &[FundingOutput]) -> Result<FundingTransaction, WalletError> {
        let psbt = self.build_unsigned(outputs, FEERATE)?;
        Ok(FundingTransaction::Psbt(Box::new(psbt)))
    }

    async fn sign_and_broadcast(
        &self,
        permit: &BroadcastPermit,
        built: &FundingTransaction,
    ) -> Result<Transaction, WalletError> {
        let FundingTransaction::Psbt(psbt) = built else {
            return Err(WalletError::Sign("this wallet builds PSBTs".into()));
        };
        if !built.is_permitted_by(permit) {
            return Err(WalletError::NotPermitted);
        }
        let transaction = self.sign((**psbt).clone())?;
        self.chain.broadcast(&transaction).map_err(|error| WalletError::Broadcast(error.into()))?;
        Ok(transaction)
    }

    async fn release(&self, built: &FundingTransaction) -> Result<(), WalletError> {
        self.wallet().apply_evicted_txs([(built.txid(), RELEASED)]);
        Ok(())
    }
}
