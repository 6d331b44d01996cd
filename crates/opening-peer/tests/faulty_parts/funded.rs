//! Openings with a wallet that goes wrong: whose coins are reserved, free or spent in the end.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::{Amount, Transaction};
use opening_core::FundingOutput;
use opening_peer::testing::{EVERY, Fault, Faults, FaultyFunding, TestWallet};
use opening_peer::transport::in_memory_pair;
use opening_peer::wallet::NotBroadcast;
use opening_peer::{
    BroadcastPermit, FundError, Funding, FundingTransaction, Opened, WalletError, fund,
};

use crate::common::ask;
use crate::faulty::{faulty_node, until};
use crate::{Side, connect};

const COINS: usize = 3;

fn wallet(faults: &Faults) -> FaultyFunding<TestWallet> {
    FaultyFunding::new(TestWallet::with_coins(3), faults.clone())
}

/// Two nodes whose parts have these faults; the wallet is not among them.
async fn nodes(funder: &Faults, fundee: &Faults) -> (Side, Side) {
    connect(faulty_node(1, funder), faulty_node(2, fundee), in_memory_pair()).await
}

async fn healthy_nodes() -> (Side, Side) {
    nodes(&Faults::none(), &Faults::none()).await
}

async fn fund_with(
    funder: &Side,
    wallet: &dyn Funding,
) -> Result<(Arc<Opened>, Transaction), FundError> {
    fund(funder.session(), ask(), wallet).await
}

/// Coins that nobody has a claim on, and transactions broadcast.
fn free_and_broadcast(wallet: &FaultyFunding<TestWallet>) -> (usize, usize) {
    (wallet.inner().free(), wallet.inner().broadcast().len())
}

// req: B2-FC-S-03
#[tokio::test]
async fn a_wallet_pays_for_a_channel_and_once() {
    let (funder, fundee) = healthy_nodes().await;
    let faults = Faults::none();
    let wallet = wallet(&faults);
    let (opened, transaction) = fund_with(&funder, &wallet).await.unwrap();
    assert_eq!(fundee.log.opened().await.channel_id, opened.channel_id);
    let outpoint = opened.parameters.funding_outpoint;
    assert_eq!(outpoint.txid, transaction.compute_txid());
    assert!(opened.funding_output().is_paid_by(&transaction.output[outpoint.vout as usize]));
    assert!(transaction.input.iter().all(|input| !input.witness.is_empty()), "signed");
    let kept = opened.funding_transaction.as_ref().unwrap();
    assert!(kept.input.iter().all(|input| input.witness.is_empty()), "not signed yet");
    assert_eq!(wallet.inner().broadcast(), [transaction]);
    assert_eq!(free_and_broadcast(&wallet), (COINS - 1, 1));
    assert_eq!((faults.calls("build"), faults.calls("release")), (1, 0));
}

#[tokio::test]
async fn the_second_transaction_is_not_built() {
    let (funder, fundee) = healthy_nodes().await;
    let faults = Faults::none().at("build", 2, Fault::FailBefore);
    let wallet = wallet(&faults);
    fund_with(&funder, &wallet).await.unwrap();
    let error = fund_with(&funder, &wallet).await.unwrap_err();
    assert_eq!(error.code(), "wallet-build");
    // The peer is told, and nothing of it is left.
    until("the fundee has heard", || fundee.log.failures().len() == 1).await;
    assert_eq!(fundee.log.failures(), [("funding-created", "peer-error")]);
    assert_eq!(fundee.log.error_received().await, "channel opening cancelled");
    assert_eq!(funder.log.failures(), [("funding", "cancelled")]);
    assert_eq!(free_and_broadcast(&wallet), (COINS - 1, 1));
    fund_with(&funder, &wallet).await.unwrap();
}

#[tokio::test]
async fn a_wallet_without_coins() {
    let (funder, _fundee) = healthy_nodes().await;
    let error = fund_with(&funder, &TestWallet::with_coins(0)).await.unwrap_err();
    assert_eq!(error.code(), "wallet-insufficient-funds");
    assert_eq!(funder.log.failed().await.failure.code(), "cancelled");
}

#[tokio::test(start_paused = true)]
async fn a_wallet_that_builds_too_slowly_or_never() {
    for (fault, seconds) in
        [(Fault::Delay(Duration::from_secs(601)), 600), (Fault::StallAfter, 600)]
    {
        let mut made = (faulty_node(1, &Faults::none()), faulty_node(2, &Faults::none()));
        made.1.node.deadlines.peer = Duration::from_secs(24 * 60 * 60);
        let (funder, _fundee) = connect(made.0, made.1, in_memory_pair()).await;
        let wallet = wallet(&Faults::none().at("build", 1, fault));
        let begin = tokio::time::Instant::now();
        let error = fund_with(&funder, &wallet).await.unwrap_err();
        assert_eq!(error.code(), "wallet-silent");
        assert_eq!(begin.elapsed().as_secs(), seconds);
        fund_with(&funder, &wallet).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_opening_that_ends_does_not_wait_for_the_wallet() {
    let (funder, mut fundee) = healthy_nodes().await;
    let faults = Faults::none().at("build", 1, Fault::StallBefore);
    let wallet = wallet(&faults);
    let leaving = async {
        faults.struck().await;
        fundee.session.take().unwrap().close().await;
    };
    let (result, ()) = tokio::join!(fund_with(&funder, &wallet), leaving);
    assert_eq!(result.unwrap_err().code(), "peer-error");
    assert_eq!(free_and_broadcast(&wallet), (COINS, 0));
}

/// A wallet that pays one satoshi less.
struct Stingy(TestWallet);

#[async_trait]
impl Funding for Stingy {
    async fn build(&self, outputs: &[FundingOutput]) -> Result<FundingTransaction, WalletError> {
        let less = |output: &FundingOutput| FundingOutput {
            value: output.value - Amount::ONE_SAT,
            script_pubkey: output.script_pubkey.clone(),
        };
        self.0.build(&outputs.iter().map(less).collect::<Vec<_>>()).await
    }

    async fn sign_and_broadcast(
        &self,
        permit: &BroadcastPermit,
        built: &FundingTransaction,
    ) -> Result<Transaction, WalletError> {
        self.0.sign_and_broadcast(permit, built).await
    }

    async fn release(&self, built: &FundingTransaction) -> Result<(), WalletError> {
        self.0.release(built).await
    }
}

#[tokio::test]
async fn a_transaction_that_does_not_fund_the_channel_is_released() {
    let (funder, _fundee) = healthy_nodes().await;
    let wallet = Stingy(TestWallet::with_coins(1));
    let error = fund_with(&funder, &wallet).await.unwrap_err();
    assert_eq!(error.code(), "no-funding-output");
    assert_eq!((wallet.0.free(), wallet.0.broadcast().len()), (1, 0));
    assert_eq!(funder.log.failed().await.failure.code(), "cancelled");
}

#[tokio::test(start_paused = true)]
async fn what_ends_before_the_save_releases() {
    let none = Faults::none();
    let fails = |call| Faults::none().at(call, 1, Fault::FailBefore);
    for (funder_faults, fundee_faults, code) in [
        (&fails("sign_counterparty_commitment"), &none, "signer-indeterminate"),
        (&fails("validate_holder_commitment"), &none, "signer-indeterminate"),
        (&none, &fails("setup"), "peer-error"),
        (&none, &fails("save"), "peer-error"),
    ] {
        let (funder, fundee) = nodes(funder_faults, fundee_faults).await;
        let faults = Faults::none();
        let wallet = wallet(&faults);
        let error = fund_with(&funder, &wallet).await.unwrap_err();
        assert_eq!(error.code(), code);
        assert_eq!(free_and_broadcast(&wallet), (COINS, 0), "{code}");
        assert_eq!((faults.calls("release"), faults.calls("sign_and_broadcast")), (1, 0));
        assert_eq!((funder.kept().await, fundee.openings.pending()), (0, 0));
    }
}

#[tokio::test]
async fn a_release_that_fails_hides_nothing() {
    let (funder, _fundee) =
        nodes(&Faults::none(), &Faults::none().at("setup", 1, Fault::FailBefore)).await;
    let wallet = wallet(&Faults::none().at("release", EVERY, Fault::FailBefore));
    let error = fund_with(&funder, &wallet).await.unwrap_err();
    assert_eq!(error.code(), "peer-error");
    assert_eq!(free_and_broadcast(&wallet), (COINS - 1, 0));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_released_or_signed_while_a_save_is_in_doubt() {
    let (funder, _fundee) =
        nodes(&Faults::none().at("save", 1, Fault::StallAfter), &Faults::none()).await;
    let faults = Faults::none();
    let wallet = wallet(&faults);
    let funding =
        tokio::time::timeout(std::time::Duration::from_secs(100_000), fund_with(&funder, &wallet));
    assert!(funding.await.is_err());
    assert_eq!(free_and_broadcast(&wallet), (COINS - 1, 0));
    assert_eq!((faults.calls("release"), faults.calls("sign_and_broadcast")), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_save_that_failed_and_is_not_there_releases() {
    let (funder, _fundee) =
        nodes(&Faults::none().at("save", 1, Fault::FailBefore), &Faults::none()).await;
    let wallet = wallet(&Faults::none());
    let error = fund_with(&funder, &wallet).await.unwrap_err();
    assert_eq!(error.code(), "store-io");
    assert_eq!(free_and_broadcast(&wallet), (COINS, 0));
    assert_eq!(funder.kept().await, 0);
}

#[tokio::test]
async fn what_was_not_broadcast_is_broadcast_later() {
    for fault in [Fault::FailBefore, Fault::FailAfter] {
        let (funder, _fundee) = healthy_nodes().await;
        let wallet = wallet(&Faults::none().at("sign_and_broadcast", 1, fault));
        let error = fund_with(&funder, &wallet).await.unwrap_err();
        assert_eq!(error.code(), "wallet-broadcast");
        let FundError::NotBroadcast(not_broadcast) = error else { panic!("{error}") };
        let NotBroadcast { opened, permit, built, .. } = *not_broadcast;
        assert_eq!(funder.kept().await, 1, "the channel is there");
        assert_eq!(funder.log.failures(), []);
        let transaction = wallet.sign_and_broadcast(&permit, &built).await.unwrap();
        assert_eq!(transaction.compute_txid(), opened.parameters.funding_outpoint.txid);
        assert_eq!(free_and_broadcast(&wallet), (COINS - 1, 1), "{fault:?}");
    }
}

#[tokio::test]
async fn a_process_that_died_with_the_permit_broadcasts_what_its_record_says() {
    let (funder, _fundee) = healthy_nodes().await;
    let dying = wallet(&Faults::none().at("sign_and_broadcast", 1, Fault::FailBefore));
    let error = fund_with(&funder, &dying).await.unwrap_err();
    let FundError::NotBroadcast(not_broadcast) = error else { panic!("{error}") };
    let NotBroadcast { opened, permit, built, .. } = *not_broadcast;

    let restarted = wallet(&Faults::none());
    let kept = FundingTransaction::of(&opened);
    let FundingTransaction::Psbt(psbt) = &kept else { panic!("{kept:?}") };
    assert!(psbt.inputs.iter().all(|input| input.witness_utxo.is_none()));
    assert_eq!(kept.txid(), built.txid());
    let transaction = restarted.sign_and_broadcast(&permit, &kept).await.unwrap();
    assert_eq!(transaction.compute_txid(), opened.parameters.funding_outpoint.txid);
    assert_eq!(free_and_broadcast(&restarted), (COINS - 1, 1), "its coin funds nothing else");
}

#[tokio::test]
async fn a_permit_is_for_one_transaction() {
    let (funder, _fundee) = healthy_nodes().await;
    let wallet = TestWallet::with_coins(2);
    let (opened, permit) = funder.open().await.unwrap();
    let other = wallet.build(&[opened.funding_output()]).await.unwrap();
    assert!(!other.is_permitted_by(&permit));
    let refused = wallet.sign_and_broadcast(&permit, &other).await;
    assert_eq!(refused.unwrap_err().code(), "wallet-not-permitted");
    assert_eq!(wallet.broadcast(), []);
    // A transaction that came signed is kept signed.
    let kept = FundingTransaction::of(&opened);
    assert!(matches!(kept, FundingTransaction::Signed(_)));
    assert!(kept.is_permitted_by(&permit));
}

#[tokio::test]
async fn a_record_of_a_wallet_that_shows_nothing() {
    let (funder, _fundee) = healthy_nodes().await;
    let (opened, permit) = funder.open().await.unwrap();
    let opened = Opened { funding_transaction: None, ..(*opened).clone() };
    let kept = FundingTransaction::of(&opened);
    let outpoint = opened.parameters.funding_outpoint;
    assert!(matches!(kept, FundingTransaction::Outpoint(named) if named == outpoint));
    assert!(kept.is_permitted_by(&permit));
    let not_signed = TestWallet::with_coins(1).sign_and_broadcast(&permit, &kept).await;
    assert_eq!(not_signed.unwrap_err().code(), "wallet-sign");
}

#[tokio::test]
async fn one_transaction_pays_for_many() {
    let wallet = TestWallet::with_coins(1);
    let output = |value| {
        let key = crate::common::node_id(9);
        FundingOutput::new(Amount::from_sat(value), &key, &key)
    };
    let built = wallet.build(&[output(1), output(2)]).await.unwrap();
    let paid = [output(1), output(2)].map(|output| built.outpoint(&output).unwrap().vout);
    assert_eq!(paid, [0, 1]);
    let too_much = [output(1), FundingOutput { value: Amount::MAX, ..output(1) }];
    let error = wallet.build(&too_much).await.unwrap_err();
    assert_eq!(error.code(), "wallet-insufficient-funds");
}

#[tokio::test(start_paused = true)]
async fn dropping_cancels_and_keeps_what_is_reserved() {
    let (funder, fundee) =
        nodes(&Faults::none(), &Faults::none().at("setup", 1, Fault::StallBefore)).await;
    let faults = Faults::none();
    let wallet = wallet(&faults);
    let funding = fund_with(&funder, &wallet);
    let dropped = tokio::time::timeout(Duration::from_secs(30), funding).await;
    assert!(dropped.is_err());
    assert_eq!(funder.log.failed().await.failure.code(), "cancelled");
    assert_eq!(fundee.log.failed().await.failure.code(), "peer-error");
    assert_eq!(free_and_broadcast(&wallet), (COINS - 1, 0));
    assert_eq!(faults.calls("release"), 0);
}
