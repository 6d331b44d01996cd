//! What a node's own code does to open channels: a wallet that broadcasts against a permit.

use std::sync::Arc;

use bitcoin::{Transaction, TxOut};
use opening_core::FundingOutput;
use opening_peer::session::{Batch, CompleteBatchError, CompleteError};
use opening_peer::{BroadcastPermit, FundingTransaction, Session};

use crate::common::funding_transaction;
use crate::disk::Disk;
use crate::machine::Scenario;
use crate::parts::Watch;

/// The node's own code, which dies with it.
#[derive(Clone)]
pub struct Wallet {
    pub scenario: Scenario,
    pub watch: Watch,
    pub disk: Arc<Disk>,
}

impl Wallet {
    /// Opens what the scenario asks for.  `sessions` are with its peers, in order.
    pub async fn open(self, sessions: Vec<Session>) -> Result<(), String> {
        match &sessions[..] {
            [session] => self.open_one(session).await,
            _ => self.open_batch(&sessions).await,
        }
    }

    async fn open_one(self, session: &Session) -> Result<(), String> {
        let crash = &self.watch.crash;
        let opening = crash.around("asking to open", session.open(self.scenario.ask())).await;
        let opening = opening.map_err(text)?;
        let pending = crash.around("waiting to be accepted", opening.accepted()).await;
        let pending = pending.map_err(text)?;
        let output = pending.needed().output.clone();
        let building = async { pays(&[output]) };
        let transaction = crash.around("building the funding transaction", building).await;
        let funding = FundingTransaction::Signed(transaction.clone());
        let completing = crash.around("naming the funding transaction", pending.complete(funding));
        let mut signing = match completing.await {
            Ok(signing) => signing,
            Err((CompleteError::Failed(failed), None)) => return Err(text(failed)),
            Err(other) => panic!("{other:?}"),
        };
        let opened = crash.around("waiting for the permit", signing.opened());
        let (_, permit) = opened.await.map_err(text)?;
        self.broadcast(transaction, permit).await;
        Ok(())
    }

    /// One transaction funds a channel with each.
    async fn open_batch(self, sessions: &[Session]) -> Result<(), String> {
        let crash = &self.watch.crash;
        let mut accepted = Vec::new();
        for session in sessions {
            let opening = session.open(self.scenario.ask());
            let opening = crash.around("asking to open", opening).await.map_err(text)?;
            let pending = crash.around("waiting to be accepted", opening.accepted()).await;
            accepted.push(pending.map_err(text)?);
        }
        let batch = Batch::new(accepted);
        let building = async { pays(&batch.outputs()) };
        let transaction = crash.around("building the funding transaction", building).await;
        let funding = FundingTransaction::Signed(transaction.clone());
        let completing = crash.around("naming the funding transaction", batch.complete(funding));
        let mut signing = match completing.await {
            Ok(signing) => signing,
            Err((CompleteBatchError::Failed(failed), None)) => return Err(text(failed)),
            Err(other) => panic!("{other:?}"),
        };
        let opened = crash.around("waiting for the permit", signing.opened());
        let (_, permit) = opened.await.map_err(text)?;
        self.broadcast(transaction, permit).await;
        Ok(())
    }

    pub async fn broadcast(&self, transaction: Transaction, permit: BroadcastPermit) {
        let Watch { node, crash, ledger } = &self.watch;
        assert_eq!(permit.txid(), transaction.compute_txid());
        let broadcasting = async {
            ledger.broadcasts(*node, &self.disk, transaction, self.scenario.peers);
        };
        crash.around("broadcasting", broadcasting).await;
    }
}

fn text(failed: impl ToString) -> String {
    failed.to_string()
}

/// A transaction that pays all of them.
fn pays(outputs: &[FundingOutput]) -> Transaction {
    let mut transaction = funding_transaction(&outputs[0], 1);
    let others = outputs[1..]
        .iter()
        .map(|output| TxOut { value: output.value, script_pubkey: output.script_pubkey.clone() });
    transaction.output.extend(others);
    transaction
}
