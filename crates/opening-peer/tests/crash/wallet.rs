//! What a node's own code does to open channels: a wallet that broadcasts against a permit.

use bitcoin::{Transaction, TxOut};
use opening_core::FundingOutput;
use opening_peer::session::CompleteError;
use opening_peer::{BroadcastPermit, Failed, FundingTransaction, Session};
use std::sync::Arc;

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
    pub async fn open(self, sessions: Vec<Session>) -> Result<(), Failed> {
        match &sessions[..] {
            [session] => self.open_one(session).await,
            // Several peers: one transaction funds a channel with each.
            _ => unimplemented!("batch"),
        }
    }

    async fn open_one(self, session: &Session) -> Result<(), Failed> {
        let crash = &self.watch.crash;
        let opening = crash.around("asking to open", session.open(self.scenario.ask())).await?;
        let pending = crash.around("waiting to be accepted", opening.accepted()).await?;
        let output = pending.needed().output.clone();
        let building = async { pays(&[output]) };
        let transaction = crash.around("building the funding transaction", building).await;
        let funding = FundingTransaction::Signed(transaction.clone());
        let completing = crash.around("naming the funding transaction", pending.complete(funding));
        let mut signing = match completing.await {
            Ok(signing) => signing,
            Err((CompleteError::Failed(failed), None)) => return Err(failed),
            Err(other) => panic!("{other:?}"),
        };
        let (_, permit) = crash.around("waiting for the permit", signing.opened()).await?;
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

/// A transaction that pays all of them.
fn pays(outputs: &[FundingOutput]) -> Transaction {
    let mut transaction = funding_transaction(&outputs[0], 1);
    let others = outputs[1..].iter().map(|output| TxOut {
        value: output.value,
        script_pubkey: output.script_pubkey.clone(),
    });
    transaction.output.extend(others);
    transaction
}
