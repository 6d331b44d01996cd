//! What a validating signer keeps, when, and what it does after a restart.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bitcoin::secp256k1::Secp256k1;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::{Amount, OutPoint, ScriptBuf, Txid};
use lightning_persister::fs_store::FilesystemStore;
use opening_core::{ChannelType, CommitmentFormat, FeeratePerKw, MilliSatoshi, Side};
use opening_signer::{ChannelSetup, Enforcement, Hsm, HsmError, LocalHsm};

use crate::pair::{End, Pair, node, node_id, policy, reason, signer};

/// The same node with the same store, all memory gone.
pub(crate) async fn restarted(end: End) -> End {
    let byte = if end.reference.peer == node_id(8) { 7 } else { 8 };
    let hsm = signer(byte, Enforcement::Validating, &end.store);
    let channel = hsm.channel(end.reference).await.unwrap();
    End { hsm, channel, ..end }
}

#[tokio::test]
async fn one_record_is_written_and_before_the_first_signature() {
    let Pair { funder, fundee } = Pair::set_up(Enforcement::Validating).await;
    assert_eq!(funder.store.writes(), 0);
    let created = funder.sign(&funder.commitment(Side::Remote)).await.unwrap();
    assert_eq!(funder.store.writes(), 1);

    fundee.validate(&fundee.commitment(Side::Local), &created).await.unwrap();
    assert_eq!(fundee.store.writes(), 0);
    fundee.sign_own(&fundee.commitment(Side::Local)).await.unwrap();
    assert_eq!(fundee.store.writes(), 1);
    let signed = fundee.sign(&fundee.commitment(Side::Remote)).await.unwrap();
    assert_eq!(fundee.store.writes(), 1);

    funder.validate(&funder.commitment(Side::Local), &signed).await.unwrap();
    funder.sign(&funder.commitment(Side::Remote)).await.unwrap();
    funder.sign_own(&funder.commitment(Side::Local)).await.unwrap();
    assert_eq!(funder.store.writes(), 1);
}

#[tokio::test]
async fn no_signature_leaves_while_the_store_fails() {
    let Pair { funder, .. } = Pair::set_up(Enforcement::Validating).await;
    let theirs = funder.commitment(Side::Remote);
    funder.store.fails.store(true, Ordering::SeqCst);
    assert_eq!(reason(funder.sign(&theirs).await), "signer-storage");
    assert_eq!(reason(funder.sign(&theirs).await), "signer-storage");
    funder.store.fails.store(false, Ordering::SeqCst);
    funder.sign(&theirs).await.unwrap();
}

#[tokio::test]
async fn no_signature_leaves_while_the_store_stalls() {
    let Pair { funder, .. } = Pair::set_up(Enforcement::Validating).await;
    let theirs = funder.commitment(Side::Remote);
    funder.store.stalls.store(true, Ordering::SeqCst);
    tokio::select! {
        biased;
        _ = funder.sign(&theirs) => panic!("a signature left before its record was kept"),
        () = tokio::task::yield_now() => {}
    }
    // The call was dropped half-way; the same call again is as good as new.
    funder.store.stalls.store(false, Ordering::SeqCst);
    funder.sign(&theirs).await.unwrap();
    assert_eq!(funder.store.entries.lock().unwrap().len(), 1);
}

/// What an end does, in its order.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Sign,
    Validate,
    SignOwn,
}

/// The same end up to `step`, the signer started anew before each call: what it was told is told
/// again, what it signed is the same again, and nothing else is signed.
async fn goes_through(mut end: End, steps: &[Step], theirs: &Signature) {
    let [own, remote] = [Side::Local, Side::Remote].map(|owner| end.commitment(owner));
    let mut signed: HashMap<Txid, Signature> = HashMap::new();
    for (index, step) in steps.iter().enumerate() {
        end = restarted(end).await;
        let mut other = end.setup.clone();
        other.parameters.feerate_per_kw = FeeratePerKw::new(1251);
        if !signed.is_empty() {
            assert_eq!(reason(end.channel.setup(&other).await), "setup-differs", "{step:?}");
        }
        end.channel.setup(&end.setup).await.unwrap();
        // Up to and with this one.
        for step in &steps[..=index] {
            let (commitment, signature) = match step {
                Step::Validate => {
                    end.validate(&own, theirs).await.unwrap();
                    continue;
                }
                Step::Sign => (&remote, end.sign(&remote).await.unwrap()),
                Step::SignOwn => (&own, end.sign_own(&own).await.unwrap()),
            };
            let txid = commitment.transaction.compute_txid();
            assert_eq!(*signed.entry(txid).or_insert(signature), signature);
        }
    }
    assert_eq!(signed.len(), 2);
    assert_eq!(end.store.entries.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_restart_at_each_step_forgets_nothing_in_either_role() {
    let Pair { funder, fundee } = Pair::set_up(Enforcement::Validating).await;
    let for_fundee = funder.sign(&funder.commitment(Side::Remote)).await.unwrap();
    fundee.validate(&fundee.commitment(Side::Local), &for_fundee).await.unwrap();
    let for_funder = fundee.sign(&fundee.commitment(Side::Remote)).await.unwrap();

    let Pair { funder, fundee } = Pair::new(Enforcement::Validating).await;
    goes_through(funder, &[Step::Sign, Step::Validate, Step::SignOwn], &for_funder).await;
    goes_through(fundee, &[Step::Validate, Step::Sign, Step::SignOwn], &for_fundee).await;
}

#[tokio::test]
async fn identical_bytes_are_signed_again_after_a_restart() {
    let Pair { funder, .. } = Pair::set_up(Enforcement::Validating).await;
    let theirs = funder.commitment(Side::Remote);
    let before = funder.sign(&theirs).await.unwrap();

    let funder = restarted(funder).await;
    assert_eq!(reason(funder.sign(&theirs).await), "setup-missing");
    funder.channel.setup(&funder.setup).await.unwrap();
    // What was read may not have been durable: whoever wrote it may have died before.
    let writes = funder.store.writes();
    assert_eq!(funder.sign(&theirs).await.unwrap(), before);
    assert_eq!(funder.store.writes(), writes + 1);
    assert_eq!(funder.sign(&theirs).await.unwrap(), before);
    assert_eq!(funder.store.writes(), writes + 1);
    assert_eq!(funder.store.entries.lock().unwrap().len(), 1);
    let answer = funder.sign_own(&funder.commitment(Side::Local)).await;
    assert_eq!(reason(answer), "not-validated");
}

/// One change for each thing that a channel is made of.
fn changes() -> Vec<fn(&mut ChannelSetup)> {
    vec![
        |s| s.chain_hash = bitcoin::constants::ChainHash::BITCOIN,
        |s| s.local_shutdown_script = Some(ScriptBuf::new()),
        |s| s.remote_shutdown_script = Some(ScriptBuf::new()),
        |s| s.parameters.opener = Side::Remote,
        |s| s.parameters.funding_outpoint = OutPoint { vout: 2, ..s.parameters.funding_outpoint },
        |s| s.parameters.funding_satoshis += Amount::from_sat(1),
        |s| s.parameters.push_msat = MilliSatoshi::from_msat(200_000_001),
        |s| s.parameters.feerate_per_kw = FeeratePerKw::new(1251),
        |s| s.parameters.channel_type = ChannelType::of(CommitmentFormat::StaticRemotekey),
        |s| s.parameters.channel_type.zeroconf = true,
        |s| s.parameters.local.config.to_self_delay = 7,
        |s| s.parameters.remote.config.to_self_delay = 7,
        |s| s.parameters.remote.config.dust_limit_satoshis = Amount::from_sat(547),
        |s| s.parameters.remote.config.channel_reserve_satoshis = Amount::from_sat(9_999),
        |s| s.parameters.remote.config.max_htlc_value_in_flight_msat = MilliSatoshi::ZERO,
        |s| s.parameters.remote.config.htlc_minimum_msat = MilliSatoshi::from_msat(1),
        |s| s.parameters.remote.config.max_accepted_htlcs = 482,
        |s| s.parameters.remote.keys.htlc_basepoint = s.parameters.local.keys.htlc_basepoint,
        |s| s.parameters.remote.keys.funding_pubkey = s.parameters.local.keys.htlc_basepoint,
        |s| {
            s.parameters.remote.first_per_commitment_point = s.parameters.local.keys.htlc_basepoint;
        },
    ]
}

#[tokio::test]
async fn a_reference_that_was_signed_for_takes_no_other_setup_after_a_restart() {
    let Pair { funder, .. } = Pair::set_up(Enforcement::Validating).await;
    funder.sign(&funder.commitment(Side::Remote)).await.unwrap();
    let funder = restarted(funder).await;
    for (index, change) in changes().into_iter().enumerate() {
        let mut setup = funder.setup.clone();
        change(&mut setup);
        let answer = funder.channel.setup(&setup).await;
        // Another chain is out of the question before anything is looked up.
        let is_ours = setup.chain_hash == funder.setup.chain_hash;
        let expected = if is_ours { "setup-differs" } else { "wrong-chain" };
        assert_eq!(reason(answer), expected, "change {index}");
    }
    assert_eq!(reason(funder.sign(&funder.commitment(Side::Remote)).await), "setup-missing");
    funder.channel.setup(&funder.setup).await.unwrap();
}

#[tokio::test]
async fn a_reference_that_was_only_set_up_is_free_after_a_restart() {
    let Pair { funder, .. } = Pair::set_up(Enforcement::Validating).await;
    let mut funder = restarted(funder).await;
    funder.setup.parameters.feerate_per_kw = FeeratePerKw::new(1251);
    funder.channel.setup(&funder.setup).await.unwrap();
    funder.sign(&funder.commitment(Side::Remote)).await.unwrap();
}

#[tokio::test]
async fn a_damaged_record_stops_the_channel() {
    let Pair { funder, .. } = Pair::set_up(Enforcement::Validating).await;
    funder.sign(&funder.commitment(Side::Remote)).await.unwrap();
    let funder = restarted(funder).await;
    let entries = Arc::clone(&funder.store.entries);
    let intact = entries.lock().unwrap().values().next().unwrap().clone();
    let (mut version, mut digest) = (intact.clone(), intact.clone());
    version[0] = 9;
    digest[20] ^= 1;
    let damages =
        [(vec![], "signer-storage"), (version, "signer-storage"), (digest, "setup-differs")];
    for (damaged, expected) in damages {
        *entries.lock().unwrap().values_mut().next().unwrap() = damaged;
        assert_eq!(reason(funder.channel.setup(&funder.setup).await), expected);
    }
    *entries.lock().unwrap().values_mut().next().unwrap() = intact;
    funder.channel.setup(&funder.setup).await.unwrap();
}

#[tokio::test]
async fn files_are_store_enough() {
    let directory = tempfile::tempdir().unwrap();
    let Pair { funder, .. } = Pair::new(Enforcement::Validating).await;
    let theirs = funder.commitment(Side::Remote);
    let open = || async {
        let store = FilesystemStore::new(directory.path().to_path_buf());
        let hsm = LocalHsm::validating(&node(7), policy(), Arc::new(store));
        hsm.channel(funder.reference).await.unwrap()
    };
    let first = End { channel: open().await, hsm: LocalHsm::blind(&node(7)), ..funder };
    first.channel.setup(&first.setup).await.unwrap();
    let before = first.sign(&theirs).await.unwrap();

    let store = FilesystemStore::new(directory.path().to_path_buf());
    let hsm = LocalHsm::validating(&node(7), policy(), Arc::new(store));
    let channel = hsm.channel(first.reference).await.unwrap();
    let second = End { channel, hsm, ..first };
    let mut other = second.setup.clone();
    other.parameters.feerate_per_kw = FeeratePerKw::new(1251);
    let answer = second.channel.setup(&other).await;
    assert!(matches!(answer, Err(HsmError::Refused { tag, .. }) if tag == "setup-differs"));
    second.channel.setup(&second.setup).await.unwrap();
    let after = second.sign(&theirs).await.unwrap();
    assert_eq!(after, before);
    let key = &second.setup.parameters.local.keys.funding_pubkey;
    assert!(theirs.is_signed_by(&Secp256k1::new(), &after, key));
}
