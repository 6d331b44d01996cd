//! What the other tests stand on: the chain refuses what Bitcoin refuses, the wallet signs what
//! it built, and LDK opens channels with itself over the same sockets and the same chain.

#![allow(clippy::unwrap_used)]

use std::collections::HashSet;

use bitcoin::absolute::LockTime;
use bitcoin::opcodes::OP_TRUE;
use bitcoin::script::Builder;
use bitcoin::{
    Amount, FeeRate, OutPoint, Psbt, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness,
    transaction,
};
use lightning::ln::channel_state::ChannelDetails;
use lightning::types::features::ChannelTypeFeatures;
use opening_core::FundingOutput;
use opening_examples::chain::{RegtestChain, Rejected};
use opening_examples::ldk_node::{Inbound, LdkAsk, LdkNode};
use opening_examples::wallet::Wallet;
use opening_peer::{Funding, FundingTransaction, WalletError};

/// What every coinbase of the chain pays.
const SUBSIDY: Amount = Amount::from_sat(50 * 100_000_000);

/// The script of outputs that anyone may spend, so that these tests need no keys.
fn anyone() -> Builder {
    Builder::new().push_opcode(OP_TRUE)
}

/// Mines a coinbase that [`spend`] can spend when it is mature.
fn mine_coin(chain: &RegtestChain) -> OutPoint {
    let block = chain.mine_to(anyone().into_script().to_p2wsh());
    OutPoint { txid: block.txdata[0].compute_txid(), vout: 0 }
}

/// The same with the blocks on top that make it mature.
fn mine_mature_coin(chain: &RegtestChain) -> OutPoint {
    let coin = mine_coin(chain);
    for _ in 0..99 {
        chain.mine();
    }
    coin
}

/// Spends outputs of [`anyone`], with no fee unless `value` leaves one.
fn spend(coins: &[OutPoint], value: Amount, lock_time: LockTime) -> Transaction {
    let input = |coin: &OutPoint| TxIn {
        previous_output: *coin,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::ENABLE_LOCKTIME_NO_RBF,
        witness: Witness::from_slice(&[anyone().into_bytes()]),
    };
    Transaction {
        version: transaction::Version::TWO,
        lock_time,
        input: coins.iter().map(input).collect(),
        output: vec![TxOut { value, script_pubkey: anyone().into_script().to_p2wsh() }],
    }
}

fn funding_output() -> FundingOutput {
    let script_pubkey = anyone().into_script().to_p2wsh();
    FundingOutput { value: Amount::from_sat(1_000_000), script_pubkey }
}

fn feerate() -> FeeRate {
    FeeRate::from_sat_per_kwu(1250)
}

#[test]
fn every_block_has_work_and_follows_the_last() {
    let chain = RegtestChain::default();
    chain.mine();
    chain.mine();
    let blocks: Vec<_> = (0..=chain.height()).map(|height| chain.block(height).unwrap()).collect();
    assert_eq!(blocks.len(), 3);
    for pair in blocks.windows(2) {
        assert_eq!(pair[1].header.prev_blockhash, pair[0].block_hash());
        pair[1].header.validate_pow(pair[0].header.target()).unwrap();
        assert!(pair[1].check_merkle_root());
    }
}

#[test]
fn the_same_steps_make_the_same_chain() {
    let tip_after_a_spend = || {
        let chain = RegtestChain::default();
        let coin = mine_mature_coin(&chain);
        chain.broadcast(&spend(&[coin], SUBSIDY, LockTime::ZERO)).unwrap();
        chain.mine().block_hash()
    };
    assert_eq!(tip_after_a_spend(), tip_after_a_spend());
}

#[test]
fn a_broadcast_transaction_is_in_the_next_block() {
    let chain = RegtestChain::default();
    let coin = mine_mature_coin(&chain);
    let transaction = spend(&[coin], SUBSIDY, LockTime::ZERO);
    let txid = chain.broadcast(&transaction).unwrap();
    assert!(chain.find(&txid).is_none(), "not before it is mined");
    assert_eq!(chain.broadcast(&transaction).unwrap(), txid, "once more does no harm");
    let block = chain.mine();
    assert_eq!(block.txdata[1..], *std::slice::from_ref(&transaction));
    assert_eq!(chain.broadcast(&transaction).unwrap(), txid, "nor when it is mined");
    assert_eq!(chain.find(&txid), Some((transaction, chain.height(), 1)));
}

#[test]
fn a_coinbase_is_spent_after_a_hundred_blocks_and_not_earlier() {
    let chain = RegtestChain::default();
    let coin = mine_coin(&chain);
    let transaction = spend(&[coin], SUBSIDY, LockTime::ZERO);
    for _ in 0..98 {
        chain.mine();
    }
    // The next block would be the 99th after its own.
    let early = chain.broadcast(&transaction);
    assert!(matches!(early, Err(Rejected::ImmatureCoinbase(of)) if of == coin), "{early:?}");
    chain.mine();
    chain.broadcast(&transaction).unwrap();
}

#[test]
fn a_coin_is_spent_once() {
    let chain = RegtestChain::default();
    let coin = mine_mature_coin(&chain);
    chain.broadcast(&spend(&[coin], SUBSIDY, LockTime::ZERO)).unwrap();
    let other = spend(&[coin], SUBSIDY - Amount::ONE_SAT, LockTime::ZERO);
    for when in ["while the first one waits", "when the first one is mined"] {
        let again = chain.broadcast(&other);
        assert!(
            matches!(again, Err(Rejected::MissingInput(of)) if of == coin),
            "{when}: {again:?}"
        );
        chain.mine();
    }
}

#[test]
fn amounts_do_not_grow() {
    let chain = RegtestChain::default();
    let coin = mine_mature_coin(&chain);
    let more = chain.broadcast(&spend(&[coin], SUBSIDY + Amount::ONE_SAT, LockTime::ZERO));
    assert!(matches!(more, Err(Rejected::Inflation)), "{more:?}");
    chain.broadcast(&spend(&[coin], SUBSIDY, LockTime::ZERO)).unwrap();
}

#[test]
fn an_input_counts_once() {
    let chain = RegtestChain::default();
    let coin = mine_mature_coin(&chain);
    let twice = chain.broadcast(&spend(&[coin, coin], SUBSIDY * 2, LockTime::ZERO));
    assert!(matches!(twice, Err(Rejected::Malformed)), "{twice:?}");
}

#[test]
fn amounts_beyond_any_are_refused() {
    let chain = RegtestChain::default();
    let coin = mine_mature_coin(&chain);
    let mut transaction = spend(&[coin], Amount::from_sat(u64::MAX), LockTime::ZERO);
    transaction.output.push(transaction.output[0].clone());
    let refused = chain.broadcast(&transaction);
    assert!(matches!(refused, Err(Rejected::Inflation)), "{refused:?}");
}

#[test]
fn a_lock_time_is_waited_for() {
    let chain = RegtestChain::default();
    let coin = mine_mature_coin(&chain);
    let lock_time = LockTime::from_height(chain.height() + 1).unwrap();
    let transaction = spend(&[coin], SUBSIDY, lock_time);
    let early = chain.broadcast(&transaction);
    assert!(matches!(early, Err(Rejected::NotFinal)), "{early:?}");
    chain.mine();
    chain.broadcast(&transaction).unwrap();
}

#[test]
fn the_wallet_signs_what_it_built() {
    let chain = RegtestChain::default();
    let wallet = Wallet::mined([3; 32], &chain);
    let unsigned = wallet.build_unsigned(&[funding_output()], feerate()).unwrap();
    let built = unsigned.unsigned_tx.clone();
    assert!(built.input.iter().all(|input| input.witness.is_empty()), "not signed yet");
    assert!(built.output.iter().any(|output| {
        output.value == funding_output().value
            && output.script_pubkey == funding_output().script_pubkey
    }));
    let refused = chain.broadcast(&built);
    assert!(matches!(refused, Err(Rejected::Script(_))), "worth nothing unsigned: {refused:?}");

    let signed = wallet.sign(unsigned).unwrap();
    assert_eq!(signed.compute_txid(), built.compute_txid());
    chain.broadcast(&signed).unwrap();
}

#[test]
fn a_bad_signature_is_refused() {
    let chain = RegtestChain::default();
    let wallet = Wallet::mined([3; 32], &chain);
    let signed =
        wallet.sign(wallet.build_unsigned(&[funding_output()], feerate()).unwrap()).unwrap();
    let mut forged = signed.clone();
    // The signature was made over this amount.
    forged.output[0].value -= Amount::ONE_SAT;
    let refused = chain.broadcast(&forged);
    assert!(matches!(refused, Err(Rejected::Script(_))), "{refused:?}");
    chain.broadcast(&signed).unwrap();
}

#[test]
fn no_two_fundings_share_a_coin() {
    let chain = RegtestChain::default();
    let wallet = Wallet::mined([3; 32], &chain);
    // As many as there are coins: the wallet picks at random, and two would rarely collide.
    let built: Vec<_> =
        (0..10).map(|_| wallet.build_unsigned(&[funding_output()], feerate()).unwrap()).collect();
    let coins: HashSet<_> =
        built.iter().map(|psbt| psbt.unsigned_tx.input[0].previous_output).collect();
    assert_eq!(coins.len(), built.len());
    // Signed in the other order: none waits for another.
    for unsigned in built.into_iter().rev() {
        chain.broadcast(&wallet.sign(unsigned).unwrap()).unwrap();
    }
}

#[tokio::test]
async fn a_released_coin_funds_again() {
    let chain = RegtestChain::default();
    let wallet = Wallet::mined([3; 32], &chain);
    let outputs = [funding_output(), funding_output()];
    let mut built = Vec::new();
    while let Ok(transaction) = wallet.build(&outputs).await {
        built.push(transaction);
    }
    assert_eq!(built.len(), 10);
    wallet.release(&built[3]).await.unwrap();
    let FundingTransaction::Psbt(again) = wallet.build(&outputs).await.unwrap() else { panic!() };
    assert_ne!(again.unsigned_tx.compute_txid(), built[3].txid(), "the change is another");
    chain.broadcast(&wallet.sign(*again).unwrap()).unwrap();
    let none = wallet.build(&outputs).await;
    assert!(matches!(none, Err(WalletError::InsufficientFunds)), "one coin was released");
}

#[test]
fn what_a_record_keeps_is_signed() {
    let chain = RegtestChain::default();
    let built = Wallet::mined([3; 32], &chain).build_unsigned(&[funding_output()], feerate());
    // The wallet of another process: the same keys, and what is on the chain.
    let wallet = Wallet::mined([3; 32], &chain);
    let kept = Psbt::from_unsigned_tx(built.unwrap().unsigned_tx).unwrap();
    chain.broadcast(&wallet.sign(kept).unwrap()).unwrap();
}

#[test]
fn the_change_of_mined_fundings_is_spent_again() {
    let chain = RegtestChain::default();
    let wallet = Wallet::mined([3; 32], &chain);
    // More than the wallet has coins.
    for _ in 0..12 {
        let unsigned = wallet.build_unsigned(&[funding_output()], feerate()).unwrap();
        chain.broadcast(&wallet.sign(unsigned).unwrap()).unwrap();
        chain.mine();
    }
}

/// A wallet that cannot pay ends the opening, not the node.
#[tokio::test]
async fn ldk_survives_an_empty_wallet() {
    let chain = RegtestChain::default();
    let wallet = Wallet::mined([3; 32], &chain);
    while wallet.build_unsigned(&[funding_output()], feerate()).is_ok() {}
    let start = |seed| LdkNode::start([seed; 32], chain.clone(), wallet.clone(), Inbound::Accept);
    let (funder, fundee) = (start(1).await.unwrap(), start(2).await.unwrap());
    funder.connect(fundee.node_id(), fundee.address()).await.unwrap();
    for _ in 0..2 {
        let ask = LdkAsk {
            funding_satoshis: 1_000_000,
            push_msat: 0,
            anchors: true,
            announce_channel: false,
        };
        let id = funder.open_channel(fundee.node_id(), ask).unwrap();
        assert!(funder.closure_reason(id).await.is_some());
    }
}

/// One LDK node opens to another; both have the channel in use after six blocks.
async fn ldk_opens_with_itself(anchors: bool, push_msat: u64, inbound: Inbound) {
    let chain = RegtestChain::default();
    let wallet = Wallet::mined([3; 32], &chain);
    let start = |seed| LdkNode::start([seed; 32], chain.clone(), wallet.clone(), inbound);
    let (funder, fundee) = (start(1).await.unwrap(), start(2).await.unwrap());
    funder.connect(fundee.node_id(), fundee.address()).await.unwrap();
    let ask = LdkAsk { funding_satoshis: 1_000_000, push_msat, anchors, announce_channel: false };
    funder.open_channel(fundee.node_id(), ask).unwrap();

    let funded = |channel: &ChannelDetails| channel.funding_txo.is_some();
    let funding = funder.channel(funded).await.unwrap().funding_txo.unwrap();
    fundee.channel(funded).await.unwrap();
    assert!(funder.channels().iter().chain(&fundee.channels()).all(|channel| !channel.is_usable));
    // LDK knows the outpoint before it has the peer's signature, and broadcasts after it.
    chain.accepted(funding.txid).await.unwrap();
    for _ in 0..6 {
        chain.mine();
    }
    let usable = |channel: &ChannelDetails| channel.is_usable;
    let ours = funder.channel(usable).await.unwrap();
    let theirs = fundee.channel(usable).await.unwrap();

    let channel_type = if anchors {
        ChannelTypeFeatures::anchors_zero_htlc_fee_and_dependencies()
    } else {
        ChannelTypeFeatures::only_static_remote_key()
    };
    for channel in [&ours, &theirs] {
        assert_eq!(channel.channel_value_satoshis, 1_000_000);
        assert_eq!(channel.channel_type.as_ref(), Some(&channel_type));
        assert_eq!(channel.funding_txo, Some(funding));
        assert!(channel.is_channel_ready);
    }
    assert!(ours.is_outbound && !theirs.is_outbound);
    // The fundee has what was pushed to it, and may use what is above its reserve.
    let reserve = theirs.unspendable_punishment_reserve.unwrap() * 1000;
    assert_eq!(theirs.outbound_capacity_msat, push_msat.saturating_sub(reserve));
    assert!(chain.find(&funding.txid).is_some());
}

#[tokio::test]
async fn ldk_opens_static_remotekey_with_itself() {
    ldk_opens_with_itself(false, 0, Inbound::Accept).await;
}

#[tokio::test]
async fn ldk_opens_static_remotekey_with_itself_with_push() {
    ldk_opens_with_itself(false, 100_000_000, Inbound::Accept).await;
}

#[tokio::test]
async fn ldk_opens_anchors_with_itself() {
    ldk_opens_with_itself(true, 0, Inbound::Accept).await;
}

#[tokio::test]
async fn ldk_opens_anchors_with_itself_with_push() {
    ldk_opens_with_itself(true, 100_000_000, Inbound::Accept).await;
}

/// Dropping a node hangs up, and its port refuses whoever comes later.
#[tokio::test]
async fn a_dropped_node_stops_listening() {
    let chain = RegtestChain::default();
    let wallet = Wallet::mined([3; 32], &chain);
    let start = |seed| LdkNode::start([seed; 32], chain.clone(), wallet.clone(), Inbound::Accept);
    let (staying, leaving) = (start(1).await.unwrap(), start(2).await.unwrap());
    let (node_id, address) = (leaving.node_id(), leaving.address());
    staying.connect(node_id, address).await.unwrap();
    drop(leaving);
    let refused = async {
        // The listener ends when its task next runs.
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(5), refused).await.unwrap();
}
