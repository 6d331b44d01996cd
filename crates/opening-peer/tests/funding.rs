//! The funding transaction that the node brings: what does not fund the channel stays here.

// Clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

mod common;
mod faulty;

use bitcoin::hashes::Hash;
use bitcoin::psbt::Psbt;
use bitcoin::{Amount, OutPoint, ScriptBuf, Transaction, TxOut, Txid, Witness};
use common::{ask, funding_transaction, node_id, signed};
use faulty::{From, Party, Wire, connect_faulty, settle};
use lightning::ln::msgs::FundingCreated;
use opening_core::FundingOutput;
use opening_peer::message::{Message, decode, encode};
use opening_peer::session::{CompleteError, PendingFunding};
use opening_peer::testing::{EVERY, Fault, Faults};
use opening_peer::{Ask, FundingTransaction};

async fn pending() -> (PendingFunding, Party, Party, Wire) {
    let (funder, fundee, wire) = connect_faulty(From::Funder, &Faults::none()).await;
    let pending = funder.session.open(ask()).await.unwrap().accepted().await.unwrap();
    (pending, funder, fundee, wire)
}

fn funding_created(wire: &Wire) -> FundingCreated {
    let said = wire.said(From::Funder).into_iter();
    let created = said.filter_map(|message| match message {
        Message::FundingCreated(message) => Some(message),
        _ => None,
    });
    let [created] = <[_; 1]>::try_from(created.collect::<Vec<_>>()).unwrap();
    created
}

fn p2wpkh() -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&bitcoin::WPubkeyHash::from_byte_array([3; 20]))
}

fn p2sh() -> ScriptBuf {
    ScriptBuf::new_p2sh(&bitcoin::ScriptHash::from_byte_array([3; 20]))
}

fn p2pkh() -> ScriptBuf {
    ScriptBuf::new_p2pkh(&bitcoin::PubkeyHash::from_byte_array([3; 20]))
}

fn spent(script_pubkey: ScriptBuf) -> Option<TxOut> {
    Some(TxOut { value: Amount::from_sat(2_000_000), script_pubkey })
}

fn unsigned(output: &FundingOutput) -> Transaction {
    let mut transaction = funding_transaction(output, 0);
    transaction.input[0].witness = Witness::new();
    transaction
}

/// A PSBT whose only input spends this.
fn psbt(output: &FundingOutput, script_pubkey: ScriptBuf) -> Psbt {
    let mut psbt = Psbt::from_unsigned_tx(unsigned(output)).unwrap();
    psbt.inputs[0].witness_utxo = spent(script_pubkey);
    psbt
}

/// A PSBT whose only input shows the whole transaction that it spends from.
fn psbt_with_previous(output: &FundingOutput, script_pubkey: ScriptBuf) -> Psbt {
    let mut previous = funding_transaction(output, 0);
    previous.output = vec![spent(script_pubkey).unwrap()];
    let mut transaction = unsigned(output);
    transaction.input[0].previous_output = OutPoint { txid: previous.compute_txid(), vout: 0 };
    let mut psbt = Psbt::from_unsigned_tx(transaction).unwrap();
    psbt.inputs[0].non_witness_utxo = Some(previous);
    psbt
}

fn of_psbt(psbt: Psbt) -> FundingTransaction {
    FundingTransaction::Psbt(Box::new(psbt))
}

fn changed(output: &FundingOutput, change: impl FnOnce(&mut Transaction)) -> FundingTransaction {
    let mut transaction = funding_transaction(output, 0);
    change(&mut transaction);
    FundingTransaction::Signed(transaction)
}

fn changed_psbt(output: &FundingOutput, change: impl FnOnce(&mut Psbt)) -> FundingTransaction {
    let mut psbt = psbt(output, p2wpkh());
    change(&mut psbt);
    of_psbt(psbt)
}

/// Everything that does not fund `output`, with its code.
fn wrong(output: &FundingOutput) -> Vec<(&'static str, &'static str, FundingTransaction)> {
    let segwit = "funding-input-not-segwit";
    let missing = "no-funding-output";
    let outpoint = |txid, vout| FundingTransaction::Outpoint(OutPoint { txid, vout });
    vec![
        ("a satoshi less", missing, changed(output, |it| it.output[0].value -= Amount::ONE_SAT)),
        ("a satoshi more", missing, changed(output, |it| it.output[0].value += Amount::ONE_SAT)),
        ("another script", missing, changed(output, |it| it.output[0].script_pubkey = p2wpkh())),
        ("no output", missing, changed(output, |it| it.output.clear())),
        ("no input", "funding-without-inputs", changed(output, |it| it.input.clear())),
        ("no witness", segwit, changed(output, |it| it.input[0].witness = Witness::new())),
        (
            "a second input without witness",
            segwit,
            changed(output, |it| {
                let mut second = it.input[0].clone();
                second.witness = Witness::new();
                it.input.push(second);
            }),
        ),
        (
            "a wrapped segwit input",
            segwit,
            changed(output, |it| it.input[0].script_sig = ScriptBuf::from(vec![0x16, 0, 0x14])),
        ),
        (
            "index 65536",
            "funding-index-too-large",
            FundingTransaction::Signed(funding_transaction(output, 65_536)),
        ),
        ("psbt: wrapped segwit", segwit, of_psbt(psbt(output, p2sh()))),
        ("psbt: legacy", segwit, of_psbt(psbt(output, p2pkh()))),
        (
            "psbt: nothing shown",
            segwit,
            changed_psbt(output, |it| it.inputs[0].witness_utxo = None),
        ),
        (
            "psbt: another script",
            missing,
            changed_psbt(output, |it| it.unsigned_tx.output[0].script_pubkey = p2wpkh()),
        ),
        ("psbt: fewer maps than inputs", segwit, changed_psbt(output, |it| it.inputs.clear())),
        (
            "psbt: a second input that shows nothing",
            segwit,
            changed_psbt(output, |it| {
                it.unsigned_tx.input.push(it.unsigned_tx.input[0].clone());
                it.inputs.push(bitcoin::psbt::Input::default());
            }),
        ),
        (
            "psbt: script_sig in the unsigned transaction",
            segwit,
            changed_psbt(output, |it| {
                it.unsigned_tx.input[0].script_sig = ScriptBuf::from(vec![0x51]);
            }),
        ),
        (
            "psbt: a final script_sig",
            segwit,
            changed_psbt(output, |it| {
                it.inputs[0].final_script_sig = Some(ScriptBuf::from(vec![0x16, 0, 0x14]));
            }),
        ),
        ("psbt: legacy previous transaction", segwit, of_psbt(psbt_with_previous(output, p2pkh()))),
        (
            "psbt: the previous transaction belies the output shown",
            segwit,
            of_psbt({
                let mut psbt = psbt_with_previous(output, p2pkh());
                psbt.inputs[0].witness_utxo = spent(p2wpkh());
                psbt
            }),
        ),
        (
            "psbt: another previous transaction",
            segwit,
            of_psbt({
                let mut psbt = psbt_with_previous(output, p2wpkh());
                psbt.unsigned_tx.input[0].previous_output.txid = Txid::from_byte_array([8; 32]);
                psbt
            }),
        ),
        ("outpoint of zeros", "funding-txid-zero", outpoint(Txid::all_zeros(), 0)),
        (
            "outpoint 65536",
            "funding-index-too-large",
            outpoint(Txid::from_byte_array([1; 32]), 65_536),
        ),
    ]
}

// req: B2-FC-S-02, B2-FC-S-04, B2-FC-S-06
#[tokio::test]
async fn a_transaction_that_does_not_fund_the_channel_is_refused_here_and_the_opening_waits() {
    let (mut waiting, funder, fundee, wire) = pending().await;
    let output = waiting.needed().output.clone();
    for (case, code, funding) in wrong(&output) {
        let (error, again) = waiting.complete(funding).await.unwrap_err();
        let CompleteError::Funding(error) = error else { panic!("{case}: {error}") };
        assert_eq!(error.code(), code, "{case}");
        waiting = again.unwrap();
    }
    settle().await;
    assert_eq!(wire.types(From::Funder), [16, 32], "the peer heard of it");
    assert_eq!((funder.log.failures(), fundee.log.failures()), (vec![], vec![]));
    let mut signing = waiting.complete(signed(&output)).await.unwrap();
    let _permit = signing.opened().await.unwrap();
}

// req: B2-FC-S-01, B2-FC-S-02, B2-FC-S-04, B2-FS-S-01, B2-CID-B-01
#[tokio::test]
async fn funding_created_names_the_output_wherever_it_is() {
    for index in [0, 1, 258, 300, 65_535] {
        let (waiting, _funder, _fundee, wire) = pending().await;
        let temporary_channel_id = waiting.temporary_channel_id();
        let transaction = funding_transaction(&waiting.needed().output, index);
        // The id does not depend on the witness.
        let mut bare = transaction.clone();
        bare.input[0].witness = Witness::new();
        let txid = bare.compute_txid();
        let mut signing = waiting.complete(FundingTransaction::Signed(transaction)).await.unwrap();
        let (opened, _permit) = signing.opened().await.unwrap();
        let message = funding_created(&wire);
        assert_eq!(message.temporary_channel_id, temporary_channel_id);
        assert_eq!(message.funding_txid, txid);
        assert_eq!(usize::from(message.funding_output_index), index);
        let mut expected = txid.to_byte_array();
        expected[30] ^= message.funding_output_index.to_be_bytes()[0];
        expected[31] ^= message.funding_output_index.to_be_bytes()[1];
        assert_eq!(opened.channel_id.0, expected);
        let signed = wire.said(From::Fundee).into_iter().find_map(|message| match message {
            Message::FundingSigned(message) => Some(message.channel_id),
            _ => None,
        });
        assert_eq!(signed, Some(opened.channel_id));
    }
}

// req: B2-FC-S-02, B2-FC-S-06
#[tokio::test]
async fn an_unsigned_transaction_funds_a_channel_if_all_its_inputs_are_native_segwit() {
    let p2tr = ScriptBuf::from_hex(&format!("5120{}", "11".repeat(32))).unwrap();
    let p2wsh = ScriptBuf::new_p2wsh(&bitcoin::WScriptHash::from_byte_array([4; 32]));
    for script in [p2wpkh(), p2wsh, p2tr] {
        for build in [psbt, psbt_with_previous] {
            let (waiting, _funder, _fundee, wire) = pending().await;
            let psbt = build(&waiting.needed().output, script.clone());
            let transaction = psbt.unsigned_tx.clone();
            let mut signing = waiting.complete(of_psbt(psbt)).await.unwrap();
            let (opened, _permit) = signing.opened().await.unwrap();
            assert_eq!(funding_created(&wire).funding_txid, transaction.compute_txid());
            assert_eq!(opened.funding_transaction, Some(transaction));
        }
    }
}

#[tokio::test]
async fn an_outpoint_is_taken_at_the_wallets_word() {
    let (waiting, _funder, _fundee, _wire) = pending().await;
    let outpoint = OutPoint { txid: Txid::from_byte_array([5; 32]), vout: 65_535 };
    let mut signing = waiting.complete(FundingTransaction::Outpoint(outpoint)).await.unwrap();
    let (opened, _permit) = signing.opened().await.unwrap();
    assert_eq!(opened.parameters.funding_outpoint, outpoint);
    assert_eq!(opened.funding_transaction, None);
}

// req: B2-FC-B-01
#[tokio::test]
async fn funding_created_is_130_bytes_behind_its_type_and_not_one_less() {
    let (waiting, _funder, _fundee, wire) = pending().await;
    let temporary_channel_id = waiting.temporary_channel_id();
    let funding = FundingTransaction::Signed(funding_transaction(&waiting.needed().output, 0x0102));
    let _permit = waiting.complete(funding).await.unwrap().opened().await.unwrap();
    let message = funding_created(&wire);
    let bytes = encode(&message);
    let mut expected = vec![0, 34];
    expected.extend(temporary_channel_id.0);
    expected.extend(message.funding_txid.to_byte_array());
    expected.extend([1, 2]);
    expected.extend(message.signature.serialize_compact());
    assert_eq!((bytes.len(), bytes), (132, expected.clone()));
    for length in 2..expected.len() {
        assert!(decode(&expected[..length]).is_err(), "{length}");
    }
}

/// Where the node stops following an opening.
#[derive(Clone, Copy, Debug)]
enum Moment {
    Open,
    Opening,
    Accepted,
    PendingFunding,
    Complete,
    PendingSignature,
    Opened,
}

/// Stops at `moment`: by dropping what it has then, or by cancelling and then waiting.
async fn stop(at: Moment, by_dropping: bool) {
    use Moment::*;
    let case = format!("{at:?} {by_dropping}");
    // The call that keeps the opening at this moment for as long as the test wants.
    let (which, call) = match at {
        Open => (From::Funder, "bounds"),
        Opening | Accepted => (From::Fundee, "decide"),
        PendingFunding => (From::Funder, "nothing"),
        Complete => (From::Funder, "sign_counterparty_commitment"),
        PendingSignature | Opened => (From::Fundee, "sign_counterparty_commitment"),
    };
    let faults = Faults::none().at(call, EVERY, Fault::Hold);
    let (funder, fundee, wire) = connect_faulty(which, &faults).await;
    let session = funder.session.clone();
    let (canceller_out, canceller_in) = tokio::sync::oneshot::channel();
    let mut stopping = Box::pin(async move {
        let opening = session.open(ask()).await.map_err(|failed| failed.failure.code())?;
        let _ = canceller_out.send(opening.canceller());
        if matches!(at, Opening) {
            // Held, and never asked anything.
            let held = opening;
            std::future::pending::<()>().await;
            drop(held);
            unreachable!()
        }
        let pending = opening.accepted().await.map_err(|failed| failed.failure.code())?;
        if matches!(at, PendingFunding) {
            std::future::pending::<()>().await;
        }
        let funding = signed(&pending.needed().output);
        let completed = pending.complete(funding).await;
        let mut signing = completed.map_err(|(error, again)| {
            assert!(again.is_none());
            match error {
                CompleteError::Failed(failed) => failed.failure.code(),
                other => panic!("{other}"),
            }
        })?;
        if matches!(at, PendingSignature) {
            std::future::pending::<()>().await;
        }
        signing.opened().await.map(drop).map_err(|failed| failed.failure.code())
    });
    // As far as it gets.
    for _ in 0..300 {
        assert!(futures::poll!(&mut stopping).is_pending(), "{case}");
        tokio::task::yield_now().await;
    }
    if by_dropping {
        drop(stopping);
    } else {
        canceller_in.await.unwrap().cancel().await;
        if !matches!(at, Opening | PendingFunding | PendingSignature) {
            assert_eq!(stopping.await, Err("cancelled"), "{case}");
        }
    }
    settle().await;
    faults.release();
    settle().await;
    let stage = match at {
        // Not even begun for the peer, unless it was on its way already.
        Open => "accept-channel",
        Opening | Accepted => "accept-channel",
        PendingFunding => "funding",
        Complete => "signature",
        PendingSignature | Opened => "funding-signed",
    };
    assert_eq!(funder.log.failures(), [(stage, "cancelled")], "{case}");
    assert_eq!(wire.errors(From::Funder), ["channel opening cancelled"], "{case}");
    assert_eq!(fundee.openings.pending(), 0, "{case}");
    assert_eq!(fundee.log.failures().len(), 1, "{case}");
    assert_eq!((funder.kept().await, fundee.kept().await), (vec![], vec![]), "{case}");
    assert!(!wire.types(From::Fundee).contains(&35), "{case}");
    // The next one opens.
    let _permit = faulty::open(&funder).await.unwrap();
}

// req: B2-EST-B-05
#[tokio::test(start_paused = true)]
async fn an_opening_can_be_dropped_at_every_moment() {
    use Moment::*;
    for at in [Open, Opening, Accepted, PendingFunding, Complete, PendingSignature, Opened] {
        stop(at, true).await;
    }
}

// req: B2-EST-B-05
#[tokio::test(start_paused = true)]
async fn an_opening_can_be_cancelled_at_every_moment() {
    use Moment::*;
    for at in [Opening, Accepted, PendingFunding, Complete, PendingSignature, Opened] {
        stop(at, false).await;
    }
}

#[tokio::test]
async fn upfront_script_and_output_are_known_when_the_peer_has_accepted() {
    let (funder, fundee, wire) = connect_faulty(From::Funder, &Faults::none()).await;
    let ask = Ask { upfront_shutdown_script: Some(p2wpkh()), ..ask() };
    let waiting = funder.session.open(ask).await.unwrap().accepted().await.unwrap();
    assert_eq!(waiting.needed().output.value.to_sat(), 1_000_000);
    assert_eq!(waiting.needed().remote_shutdown_script, None);
    let funding = signed(&waiting.needed().output);
    let (opened, _permit) = waiting.complete(funding).await.unwrap().opened().await.unwrap();
    assert_eq!(opened.local_shutdown_script, Some(p2wpkh()));
    assert_eq!(fundee.log.opened().await.remote_shutdown_script, Some(p2wpkh()));
    assert_eq!(fundee.log.opened().await.reference.peer, node_id(1));
    drop(wire);
}
