//! A wallet that funds channels: it builds without signing, and signs only when it may.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bdk_wallet::error::CreateTxError;
use bdk_wallet::signer::SignerError;
use bdk_wallet::{KeychainKind, SignOptions, Wallet as BdkWallet};
use bitcoin::bip32::Xpriv;
use bitcoin::{FeeRate, Network, Psbt, Transaction};
use opening_core::FundingOutput;

use crate::chain::RegtestChain;

/// Coinbase outputs that a new wallet owns, each mature.
const COINS: u32 = 10;

/// A `wpkh` wallet on the embedded chain; clones share it.
#[derive(Clone)]
pub struct Wallet {
    keys: Arc<Mutex<BdkWallet>>,
    chain: RegtestChain,
}

/// Why the wallet did not pay.
#[derive(Debug, thiserror::Error)]
pub enum WalletError {
    /// It cannot build the transaction.
    #[error(transparent)]
    Build(#[from] CreateTxError),
    /// It cannot sign it.
    #[error(transparent)]
    Sign(#[from] SignerError),
    /// An input is left unsigned.
    #[error("the wallet cannot sign every input")]
    Unfinished,
    /// The signed transaction is not the one that was built.
    #[error(transparent)]
    Extract(#[from] Box<bitcoin::psbt::ExtractTxError>),
}

impl Wallet {
    /// A wallet with this seed that mines its first coins.
    pub fn mined(seed: [u8; 32], chain: &RegtestChain) -> Self {
        let master = Xpriv::new_master(Network::Regtest, &seed).expect("a seed of 32 bytes");
        let descriptor = |branch: u32| format!("wpkh({master}/84h/1h/0h/{branch}/*)");
        let mut wallet = BdkWallet::create(descriptor(0), descriptor(1))
            .network(Network::Regtest)
            .create_wallet_no_persist()
            .expect("the descriptors are well formed");
        for _ in 0..COINS {
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

    /// Builds, unsigned, a transaction that pays `output`: its txid is final, because every input
    /// is a segwit one.
    pub fn build(&self, output: &FundingOutput, feerate: FeeRate) -> Result<Psbt, WalletError> {
        // The change of earlier transactions is spendable when they are mined.
        self.sync(&self.chain);
        let mut wallet = self.wallet();
        let mut builder = wallet.build_tx();
        builder
            .add_recipient(output.script_pubkey.clone(), output.value)
            .fee_rate(feerate)
            .exclude_unconfirmed();
        let psbt = builder.finish()?;
        // Its coins are spoken for: another channel must not be funded with them.
        let spent = psbt.unsigned_tx.clone();
        wallet.apply_unconfirmed_txs([(spent, 0)]);
        Ok(psbt)
    }

    /// Signs what was built.
    pub fn sign(&self, mut psbt: Psbt) -> Result<Transaction, WalletError> {
        let options = SignOptions::default();
        if !self.wallet().sign(&mut psbt, options)? {
            return Err(WalletError::Unfinished);
        }
        Ok(psbt.extract_tx().map_err(Box::new)?)
    }
}
