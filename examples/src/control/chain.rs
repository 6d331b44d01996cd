//! The chain, as far as the driver tells it.

use std::collections::HashMap;

use bitcoin::{Transaction, Txid};
use opening_peer::Opened;
use opening_peer::negotiation::ready::Confirmation;

use super::command::Refused;

/// Blocks of this run after which a driver that never said `synced` is taken to have shown all:
/// as many as a funding transaction has time to confirm.
const SYNCED_BY_ITSELF: u32 = 2016;

/// What the driver told of the chain in this run of the program.
pub(super) struct Chain {
    height: u32,
    /// Every transaction in a block: height and index.
    mined: HashMap<Txid, (Transaction, u32, u32)>,
    /// Blocks connected since the start.
    connected: u32,
    /// Channels came back from the store that may have confirmed while the program did not run, and
    /// the driver has not said yet that it has shown everything.
    is_behind: bool,
}

impl Chain {
    pub(super) fn at(height: u32) -> Self {
        Self { height, mined: HashMap::new(), connected: 0, is_behind: false }
    }

    pub(super) fn height(&self) -> u32 {
        self.height
    }

    /// A channel is back whose funding transaction may be in a block by now.
    pub(super) fn fall_behind(&mut self) {
        self.is_behind = true;
    }

    /// The driver has shown every block that matters.
    pub(super) fn synced(&mut self) {
        self.is_behind = false;
    }

    /// Whether the blocks that a funding transaction takes may be counted: before the driver has
    /// shown what confirmed, a channel must not be forgotten because it seems not to have.
    pub(super) fn is_synced(&self) -> bool {
        !self.is_behind || self.connected >= SYNCED_BY_ITSELF
    }

    pub(super) fn connect(
        &mut self,
        height: u32,
        transactions: Vec<Transaction>,
    ) -> Result<(), Refused> {
        if Some(height) != self.height.checked_add(1) {
            return Err(self.wrong_height());
        }
        self.height = height;
        self.connected = self.connected.saturating_add(1);
        self.mine(height, transactions);
        Ok(())
    }

    /// A block that was connected before this run.
    pub(super) fn past(
        &mut self,
        height: u32,
        transactions: Vec<Transaction>,
    ) -> Result<(), Refused> {
        if height > self.height {
            return Err(self.wrong_height());
        }
        self.mine(height, transactions);
        Ok(())
    }

    fn mine(&mut self, height: u32, transactions: Vec<Transaction>) {
        for (transaction, index) in transactions.into_iter().zip(1..) {
            self.mined.insert(transaction.compute_txid(), (transaction, height, index));
        }
    }

    /// Takes the block at the tip back; tells which transactions are in no block any more.
    pub(super) fn disconnect(&mut self, height: u32) -> Result<Vec<Txid>, Refused> {
        let below = self.height.checked_sub(1).filter(|_| height == self.height);
        self.height = below.ok_or_else(|| self.wrong_height())?;
        let taken_back = self.mined.extract_if(|_, (_, mined, _)| *mined == height);
        Ok(taken_back.map(|(txid, _)| txid).collect())
    }

    fn wrong_height(&self) -> Refused {
        Refused::new("wrong-height", format!("the tip is at {}", self.height))
    }

    /// How deep a channel's funding transaction is, if it is in a block.
    pub(super) fn confirmation(&self, opened: &Opened) -> Option<Confirmation> {
        self.evidence(&opened.parameters.funding_outpoint.txid)
    }

    /// A transaction in a block that spends an input of the funding transaction: the deepest one.
    pub(super) fn conflict(&self, opened: &Opened) -> Option<Confirmation> {
        let funding = opened.funding_transaction.as_ref()?;
        let inputs: Vec<_> = funding.input.iter().map(|input| input.previous_output).collect();
        let conflicts = self.mined.iter().filter(|(txid, (transaction, ..))| {
            **txid != opened.parameters.funding_outpoint.txid
                && transaction.input.iter().any(|input| inputs.contains(&input.previous_output))
        });
        let (txid, _) = conflicts.min_by_key(|(_, (_, height, _))| *height)?;
        self.evidence(txid)
    }

    fn evidence(&self, txid: &Txid) -> Option<Confirmation> {
        let (transaction, block_height, transaction_index) = self.mined.get(txid)?;
        Some(Confirmation {
            transaction: transaction.clone(),
            block_height: *block_height,
            transaction_index: *transaction_index,
            // At least 1: what is mined is at the tip or below it.
            depth: self.height.saturating_sub(*block_height).saturating_add(1),
        })
    }
}
