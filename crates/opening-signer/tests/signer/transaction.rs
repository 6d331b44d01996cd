//! Which transactions are signed: one, and with a validating signer the right one.

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, TxOut, Txid, Witness};
use opening_core::{Commitment, Side};
use opening_signer::Enforcement;

use crate::pair::{Pair, reason};

type Change = fn(&mut Commitment);

/// What no signer signs: a commitment that does not spend the channel's funding output.
const FUNDING: [(&str, Change); 6] = [
    ("txid", |c| c.transaction.input[0].previous_output.txid = Txid::from_byte_array([8; 32])),
    ("output index", |c| c.transaction.input[0].previous_output.vout = 0),
    ("no input", |c| c.transaction.input.clear()),
    ("another input", |c| {
        let mut input = c.transaction.input[0].clone();
        input.previous_output = OutPoint { txid: Txid::from_byte_array([8; 32]), vout: 0 };
        c.transaction.input.push(input);
    }),
    ("amount spent", |c| c.funding_satoshis = Amount::from_sat(1_000_001)),
    ("script spent", |c| c.funding_witness_script = ScriptBuf::new()),
];

/// What only a validating signer sees.
const CONTENT: [(&str, Change); 10] = [
    ("version", |c| c.transaction.version = Version::ONE),
    ("lock time", |c| c.transaction.lock_time = LockTime::ZERO),
    ("sequence", |c| c.transaction.input[0].sequence = Sequence::MAX),
    ("amount", |c| c.transaction.output[3].value -= Amount::from_sat(1)),
    ("anchor", |c| c.transaction.output[0].value -= Amount::from_sat(1)),
    ("script", |c| c.transaction.output[3].script_pubkey = ScriptBuf::new()),
    ("order", |c| c.transaction.output.swap(0, 1)),
    ("output less", |c| drop(c.transaction.output.pop())),
    ("output more", |c| {
        c.transaction.output.push(TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::new() });
    }),
    ("witness", |c| c.transaction.input[0].witness = Witness::from_slice(&[[1]])),
];

fn changed(commitment: &Commitment, change: Change) -> Commitment {
    let mut changed = commitment.clone();
    change(&mut changed);
    assert_ne!(changed, *commitment);
    changed
}

#[tokio::test]
async fn validating_signer_signs_no_transaction_but_the_rebuilt_one() {
    let Pair { funder, .. } = Pair::set_up(Enforcement::Validating).await;
    let theirs = funder.commitment(Side::Remote);
    for (name, change) in FUNDING.into_iter().chain(CONTENT) {
        let answer = funder.sign(&changed(&theirs, change)).await;
        assert_eq!(reason(answer), "transaction-differs", "{name}");
    }
    // Where the delayed output stands is part of the answer to a cheat.
    let answer = funder.sign(&changed(&theirs, |c| c.to_local = None)).await;
    assert_eq!(reason(answer), "transaction-differs");
    assert_eq!(funder.store.writes(), 0);
    funder.sign(&theirs).await.unwrap();
}

#[tokio::test]
async fn validating_signer_validates_no_transaction_but_the_rebuilt_one() {
    let Pair { funder, fundee } = Pair::set_up(Enforcement::Validating).await;
    let good = funder.sign(&funder.commitment(Side::Remote)).await.unwrap();
    let own = fundee.commitment(Side::Local);
    for (name, change) in FUNDING.into_iter().chain(CONTENT) {
        let answer = fundee.validate(&changed(&own, change), &good).await;
        assert_eq!(reason(answer), "transaction-differs", "{name}");
    }
    fundee.validate(&own, &good).await.unwrap();
    let answer = fundee.sign_own(&changed(&own, CONTENT[3].1)).await;
    assert_eq!(reason(answer), "transaction-differs");
}

#[tokio::test]
async fn blind_signer_signs_only_what_spends_the_funding_output() {
    let Pair { funder, .. } = Pair::set_up(Enforcement::Blind).await;
    let theirs = funder.commitment(Side::Remote);
    for (name, change) in FUNDING {
        let answer = funder.sign(&changed(&theirs, change)).await;
        assert_eq!(reason(answer), "signer-invalid-request", "{name}");
    }
    funder.sign(&theirs).await.unwrap();
}

#[tokio::test]
async fn blind_signer_signs_one_commitment_0_whatever_it_is() {
    let theirs = Pair::set_up(Enforcement::Blind).await.funder.commitment(Side::Remote);
    // The witness is not signed for.
    for (name, change) in &CONTENT[..9] {
        let Pair { funder, .. } = Pair::set_up(Enforcement::Blind).await;
        let odd = changed(&theirs, *change);
        let first = funder.sign(&odd).await.unwrap();
        assert_eq!(reason(funder.sign(&theirs).await), "second-commitment", "{name}");
        assert_eq!(funder.sign(&odd).await.unwrap(), first, "{name}");
    }
}

#[tokio::test]
async fn blind_signer_keeps_to_the_commitment_that_it_validated() {
    let Pair { funder, fundee } = Pair::set_up(Enforcement::Blind).await;
    let own = fundee.commitment(Side::Local);
    let odd = changed(&own, CONTENT[3].1);
    let good = funder.sign(&funder.commitment(Side::Remote)).await.unwrap();

    let Pair { funder: again, .. } = Pair::set_up(Enforcement::Blind).await;
    let over_odd = again.sign(&changed(&again.commitment(Side::Remote), CONTENT[3].1)).await;
    let over_odd = over_odd.unwrap();

    fundee.validate(&own, &good).await.unwrap();
    assert_eq!(reason(fundee.validate(&odd, &over_odd).await), "second-commitment");
    assert_eq!(reason(fundee.sign_own(&odd).await), "second-commitment");
    fundee.sign_own(&own).await.unwrap();
}
