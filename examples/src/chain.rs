//! A regtest chain in memory, strict about scripts: Bitcoin Core's own consensus code checks
//! every input.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bitcoin::absolute::{Height, LockTime, Time};
use bitcoin::amount::CheckedSum;
use bitcoin::block::{Header, Version};
use bitcoin::blockdata::constants::genesis_block;
use bitcoin::script::Builder;
use bitcoin::{
    Amount, Block, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode, TxOut,
    Txid, Witness, merkle_tree, transaction,
};
use tokio::sync::watch;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

/// Blocks until a coinbase output may be spent.
const COINBASE_MATURITY: u32 = 100;
/// What the miner of every block gets.
const SUBSIDY: Amount = Amount::from_sat(50 * 100_000_000);
/// Nothing here takes longer, unless it never comes.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between blocks, so that runs repeat exactly.
const SECONDS_PER_BLOCK: u32 = 600;

/// Why a transaction is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum Rejected {
    /// It has no inputs, no outputs, or one input twice.
    #[error("not a well-formed transaction")]
    Malformed,
    /// An input spends what is not there, or not any more.
    #[error("input {0} is missing or spent")]
    MissingInput(OutPoint),
    /// A coinbase output that is too young.
    #[error("input {0} is an immature coinbase output")]
    ImmatureCoinbase(OutPoint),
    /// More goes out than comes in.
    #[error("outputs exceed inputs")]
    Inflation,
    /// The lock time lies in the future.
    #[error("lock time is not reached")]
    NotFinal,
    /// A script refuses.
    #[error("script: {0}")]
    Script(#[from] transaction::TxVerifyError),
}

/// A handle on the chain; clones share it.
#[derive(Clone)]
pub struct RegtestChain {
    state: Arc<Mutex<State>>,
    tip: watch::Sender<u32>,
    /// Changes with every transaction accepted.
    accepted: watch::Sender<usize>,
}

struct State {
    blocks: Vec<Block>,
    unspent: HashMap<OutPoint, Coin>,
    mempool: Vec<Transaction>,
}

struct Coin {
    output: TxOut,
    /// Of its block; `None` while in the mempool.
    height: Option<u32>,
    is_coinbase: bool,
}

impl Default for RegtestChain {
    fn default() -> Self {
        let genesis = genesis_block(Network::Regtest);
        let state = State { blocks: vec![genesis], unspent: HashMap::new(), mempool: Vec::new() };
        let (tip, accepted) = (watch::Sender::new(0), watch::Sender::new(0));
        Self { state: Arc::new(Mutex::new(state)), tip, accepted }
    }
}

impl RegtestChain {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Height of the newest block.
    pub fn height(&self) -> u32 {
        self.state().height()
    }

    /// The block at `height`.
    pub fn block(&self, height: u32) -> Option<Block> {
        self.state().blocks.get(usize::try_from(height).ok()?).cloned()
    }

    /// Changes with every block.
    pub fn tip(&self) -> watch::Receiver<u32> {
        self.tip.subscribe()
    }

    /// Where a transaction was mined: height and index in the block.
    pub fn find(&self, txid: &Txid) -> Option<(Transaction, u32, u32)> {
        let state = self.state();
        (0..).zip(&state.blocks).find_map(|(height, block)| {
            let found = (0..).zip(&block.txdata).find(|(_, mined)| mined.compute_txid() == *txid);
            found.map(|(index, mined)| (mined.clone(), height, index))
        })
    }

    /// Takes a transaction into the mempool.  One that is there already, or mined, is fine.
    pub fn broadcast(&self, transaction: &Transaction) -> Result<Txid, Rejected> {
        let txid = self.state().accept(transaction)?;
        self.accepted.send_modify(|accepted| *accepted += 1);
        Ok(txid)
    }

    /// Waits until a transaction is in the mempool.
    pub async fn accepted(&self, txid: Txid) -> Result<(), Elapsed> {
        let mut accepted = self.accepted.subscribe();
        let is_there = || self.state().mempool.iter().any(|known| known.compute_txid() == txid);
        let waiting = async { while !is_there() && accepted.changed().await.is_ok() {} };
        timeout(PATIENCE, waiting).await
    }

    /// Mines a block with the whole mempool, its subsidy to nobody.
    pub fn mine(&self) -> Block {
        self.mine_to(ScriptBuf::new_op_return([]))
    }

    /// Mines a block with the whole mempool, its subsidy to `miner`.
    pub fn mine_to(&self, miner: ScriptBuf) -> Block {
        let (block, height) = {
            let mut state = self.state();
            (state.mine(miner), state.height())
        };
        self.tip.send_replace(height);
        block
    }
}

impl State {
    fn height(&self) -> u32 {
        u32::try_from(self.blocks.len() - 1).expect("nobody mines 2^32 blocks")
    }

    fn accept(&mut self, transaction: &Transaction) -> Result<Txid, Rejected> {
        let txid = transaction.compute_txid();
        if self.knows(&txid) {
            return Ok(txid);
        }
        // The consensus library judges scripts only: all else that Bitcoin asks is asked here.
        if !is_well_formed(transaction) {
            return Err(Rejected::Malformed);
        }
        if !transaction.is_absolute_timelock_satisfied(self.lock_height(), self.lock_time()) {
            return Err(Rejected::NotFinal);
        }
        let available = self.spendable(transaction)?;
        let paid = transaction.output.iter().map(|output| output.value).checked_sum();
        if paid.is_none_or(|paid| paid > available) {
            return Err(Rejected::Inflation);
        }
        let spent = |outpoint: &OutPoint| Some(self.unspent.get(outpoint)?.output.clone());
        transaction.verify(spent)?;

        for input in &transaction.input {
            self.unspent.remove(&input.previous_output);
        }
        self.add_coins(transaction, None);
        self.mempool.push(transaction.clone());
        Ok(txid)
    }

    /// Whether it is in the mempool or in a block: a node may well broadcast once more.
    fn knows(&self, txid: &Txid) -> bool {
        let mined = self.blocks.iter().flat_map(|block| &block.txdata);
        self.mempool.iter().chain(mined).any(|known| known.compute_txid() == *txid)
    }

    /// What the inputs are worth, if the next block may spend them.
    fn spendable(&self, transaction: &Transaction) -> Result<Amount, Rejected> {
        let next_height = self.height() + 1;
        let mut available = Amount::ZERO;
        for input in &transaction.input {
            let outpoint = input.previous_output;
            let coin = self.unspent.get(&outpoint).ok_or(Rejected::MissingInput(outpoint))?;
            let depth = coin.height.map_or(0, |height| next_height - height);
            if coin.is_coinbase && depth < COINBASE_MATURITY {
                return Err(Rejected::ImmatureCoinbase(outpoint));
            }
            available += coin.output.value;
        }
        Ok(available)
    }

    fn lock_height(&self) -> Height {
        Height::from_consensus(self.height()).expect("nobody mines 500 million blocks")
    }

    /// The median time of the last eleven blocks (BIP 113).
    fn lock_time(&self) -> Time {
        let last = &self.blocks[self.blocks.len().saturating_sub(11)..];
        // Time only grows here, so that the median is in the middle.
        let median = last[last.len() / 2].header.time;
        Time::from_consensus(median).expect("regtest begins in 2011")
    }

    fn add_coins(&mut self, transaction: &Transaction, height: Option<u32>) {
        let txid = transaction.compute_txid();
        for (vout, output) in (0..).zip(&transaction.output) {
            let is_coinbase = transaction.is_coinbase();
            let coin = Coin { output: output.clone(), height, is_coinbase };
            self.unspent.insert(OutPoint { txid, vout }, coin);
        }
    }

    fn mine(&mut self, miner: ScriptBuf) -> Block {
        let height = self.height() + 1;
        let mut transactions = vec![coinbase(height, miner)];
        transactions.append(&mut self.mempool);
        for transaction in &transactions {
            self.add_coins(transaction, Some(height));
        }
        let previous = self.blocks.last().expect("there is a genesis block");
        let block = seal(previous, transactions);
        self.blocks.push(block.clone());
        block
    }
}

fn is_well_formed(transaction: &Transaction) -> bool {
    let mut seen = HashSet::new();
    let spends_once = transaction.input.iter().all(|input| seen.insert(input.previous_output));
    spends_once && !transaction.input.is_empty() && !transaction.output.is_empty()
}

fn coinbase(height: u32, miner: ScriptBuf) -> Transaction {
    Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            // The height makes it unlike every other coinbase (BIP 34).
            script_sig: Builder::new().push_int(height.into()).push_int(0).into_script(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: vec![TxOut { value: SUBSIDY, script_pubkey: miner }],
    }
}

/// A block on top of `previous`, with the little work that regtest asks for.
fn seal(previous: &Block, transactions: Vec<Transaction>) -> Block {
    let txids = transactions.iter().map(|transaction| transaction.compute_txid().to_raw_hash());
    let root = merkle_tree::calculate_root(txids).expect("there is a coinbase");
    let mut header = Header {
        version: Version::TWO,
        prev_blockhash: previous.block_hash(),
        merkle_root: TxMerkleNode::from_raw_hash(root),
        time: previous.header.time + SECONDS_PER_BLOCK,
        bits: previous.header.bits,
        nonce: 0,
    };
    while !has_work(&header) {
        header.nonce += 1;
    }
    Block { header, txdata: transactions }
}

fn has_work(header: &Header) -> bool {
    header.target().is_met_by(header.block_hash())
}
