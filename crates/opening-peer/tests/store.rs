//! What is saved comes back as it was, or is named as damaged.

// Clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use bitcoin::hashes::Hash;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{Message, PublicKey, Secp256k1, SecretKey};
use bitcoin::{Amount, OutPoint, ScriptBuf, Witness};
use common::{funding_transaction, node_id};
use lightning::ln::types::ChannelId;
use opening_core::{
    ChannelConfig, ChannelKeys, ChannelParameters, ChannelType, FeeratePerKw, MilliSatoshi, Party,
    ShortChannelId, Side,
};
use opening_peer::Opened;
use opening_peer::negotiation::ready::{ChannelFailure, Exit, LocalReady, Progress};
use opening_peer::store::{ChannelStore, KvChannelStore, MemoryStore, StoreError, Stored};
use opening_signer::ChannelRef;
use proptest::prelude::*;
use tempfile::TempDir;

/// Numbers from which every field of a channel is made.
type Seeds = (u64, u64, u8, u8);

fn key(seed: u64, place: u8) -> PublicKey {
    let mut bytes = [place; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    SecretKey::from_slice(&bytes).unwrap().public_key(&Secp256k1::new())
}

fn signature(seed: u64) -> Signature {
    let secret = SecretKey::from_slice(&[9; 32]).unwrap();
    let mut digest = [1; 32];
    digest[..8].copy_from_slice(&seed.to_be_bytes());
    Secp256k1::new().sign_ecdsa(&Message::from_digest(digest), &secret)
}

fn party(seed: u64, place: u8) -> Party {
    let small = u16::try_from(seed % 1000).unwrap();
    Party {
        config: ChannelConfig {
            dust_limit_satoshis: Amount::from_sat(354 + seed % 200),
            max_htlc_value_in_flight_msat: MilliSatoshi::from_msat(seed),
            channel_reserve_satoshis: Amount::from_sat(seed % 100_000),
            htlc_minimum_msat: MilliSatoshi::from_msat(seed.rotate_left(7)),
            to_self_delay: small + 1,
            max_accepted_htlcs: 483 - small % 483,
        },
        keys: ChannelKeys {
            funding_pubkey: key(seed, place),
            revocation_basepoint: key(seed, place + 1),
            payment_basepoint: key(seed, place + 2),
            delayed_payment_basepoint: key(seed, place + 3),
            htlc_basepoint: key(seed, place + 4),
        },
        first_per_commitment_point: key(seed, place + 5),
    }
}

/// A channel whose fields all depend on the seeds.
fn channel((one, other, kind, shape): Seeds) -> Opened {
    let funding_satoshis = Amount::from_sat(1_000_000 + one % (1 << 40));
    let script = |byte| ScriptBuf::new_p2wpkh(&bitcoin::WPubkeyHash::from_byte_array([byte; 20]));
    let mut parameters = ChannelParameters {
        opener: if shape & 1 == 0 { Side::Local } else { Side::Remote },
        funding_outpoint: OutPoint::null(),
        funding_satoshis,
        push_msat: MilliSatoshi::from_msat(other % 500_000_000),
        feerate_per_kw: FeeratePerKw::new(253 + u32::from(kind) * 10),
        channel_type: ChannelType::all()[usize::from(kind % 8)],
        local: party(one, 1),
        remote: party(other, 11),
    };
    let output = opening_core::FundingOutput::new(
        funding_satoshis,
        &parameters.local.keys.funding_pubkey,
        &parameters.remote.keys.funding_pubkey,
    );
    let index = usize::from(kind);
    let mut transaction = funding_transaction(&output, index);
    if shape & 2 != 0 {
        // Unsigned, as it comes out of a PSBT.
        transaction.input[0].witness = Witness::new();
    }
    let txid = transaction.compute_txid();
    parameters.funding_outpoint = OutPoint { txid, vout: index.try_into().unwrap() };
    let secp = Secp256k1::new();
    Opened {
        reference: ChannelRef { peer: node_id(5), dbid: other },
        temporary_channel_id: ChannelId([kind; 32]),
        channel_id: ChannelId(opening_core::channel_id(parameters.funding_outpoint).unwrap()),
        announce_channel: shape & 4 != 0,
        minimum_depth: u32::from(kind),
        local_shutdown_script: (shape & 8 != 0).then(|| script(1)),
        remote_shutdown_script: (shape & 16 != 0).then(|| script(2)),
        local_commitment: parameters.first_commitment(&secp, Side::Local).unwrap(),
        remote_commitment: parameters.first_commitment(&secp, Side::Remote).unwrap(),
        remote_signature: signature(one),
        local_signature: signature(other),
        funding_transaction: (shape & 32 != 0).then_some(transaction),
        batch: vec![ChannelId([shape; 32]); usize::from(shape & 3)],
        parameters,
    }
}

fn sorted(mut channels: Vec<Opened>) -> Vec<Opened> {
    channels.sort_by_key(|channel| channel.channel_id.0);
    channels
}

async fn load(store: &impl ChannelStore) -> Vec<Opened> {
    let loaded = store.load_all().await.unwrap();
    sorted(loaded.into_iter().map(|entry| entry.stored.unwrap().opened).collect())
}

/// What every store does.  `reopen` gives what is left of it after the program has ended; a store
/// that keeps nothing gives itself.
async fn keeps_channels<S: ChannelStore>(store: S, reopen: impl Fn(S) -> S) {
    assert_eq!(load(&store).await, []);
    let channels: Vec<_> =
        (0u8..16).map(|kind| channel((u64::from(kind) * 77, 3, kind, kind * 5))).collect();
    for channel in &channels {
        store.save(channel).await.unwrap();
    }
    let store = reopen(store);
    assert_eq!(load(&store).await, sorted(channels.clone()));
    // Again is the same once; another channel does not take its place.
    store.save(&channels[0]).await.unwrap();
    let reference = ChannelRef { dbid: 99, ..channels[0].reference };
    let other = Opened { reference, ..channels[0].clone() };
    let error = store.save(&other).await.unwrap_err();
    assert_eq!(error.code(), "store-occupied");
    assert!(error.to_string().contains(&other.channel_id.to_string()), "{error}");
    assert_eq!(load(&store).await, sorted(channels.clone()));
    store.remove(&channels[3].channel_id).await.unwrap();
    store.remove(&channels[3].channel_id).await.unwrap();
    store.remove(&ChannelId([0xcc; 32])).await.unwrap();
    let store = reopen(store);
    let left = load(&store).await;
    assert_eq!(left.len(), 15);
    assert!(left.iter().all(|channel| channel.channel_id != channels[3].channel_id));
}

async fn never_repeats_a_dbid<S: ChannelStore>(store: S, reopen: impl Fn(S) -> S) {
    let mut store = store;
    let mut given = BTreeSet::new();
    for count in [1, 64, 0, 7, 64, 1] {
        let (one, other) = tokio::join!(store.reserve_dbids(count), store.reserve_dbids(count));
        for range in [one.unwrap(), other.unwrap()] {
            assert_eq!(range.end - range.start, count);
            for dbid in range {
                assert!(dbid >= 1, "0 names no channel");
                assert!(given.insert(dbid), "{dbid} was given before");
            }
        }
        store = reopen(store);
    }
    // What is beyond the last number is refused, and nothing is lost by it.
    assert!(matches!(store.reserve_dbids(u64::MAX).await, Err(StoreError::Exhausted)));
    let left = u64::MAX - 1 - given.last().unwrap();
    assert!(matches!(store.reserve_dbids(left + 1).await, Err(StoreError::Exhausted)));
    assert_eq!(store.reserve_dbids(left).await.unwrap().end, u64::MAX);
    assert!(matches!(store.reserve_dbids(1).await, Err(StoreError::Exhausted)));
}

#[tokio::test]
async fn a_memory_store_does_what_a_store_does() {
    keeps_channels(MemoryStore::default(), |store| store).await;
    never_repeats_a_dbid(MemoryStore::default(), |store| store).await;
}

#[tokio::test]
async fn a_directory_does_what_a_store_does() {
    for _ in 0..2 {
        let directory = TempDir::new().unwrap();
        // Not there yet, and one deeper.
        let path = directory.path().join("node/channels");
        let open = || KvChannelStore::in_directory(&path).unwrap();
        keeps_channels(open(), |_| open()).await;
        never_repeats_a_dbid(open(), |_| open()).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_channel_comes_back_as_it_was(
        one in any::<u64>(),
        other in any::<u64>(),
        kind in any::<u8>(),
        shape in any::<u8>(),
    ) {
        let channel = channel((one, other, kind, shape));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let directory = TempDir::new().unwrap();
            let store = KvChannelStore::in_directory(directory.path()).unwrap();
            store.save(&channel).await.unwrap();
            let reopened = KvChannelStore::in_directory(directory.path()).unwrap();
            prop_assert_eq!(load(&reopened).await, [channel]);
            Ok(())
        })?;
    }
}

/// A directory with two channels, and the file of the first.
async fn two_channels() -> (TempDir, [Opened; 2], PathBuf) {
    let directory = TempDir::new().unwrap();
    let store = KvChannelStore::in_directory(directory.path()).unwrap();
    let channels = [channel((5, 6, 1, 63)), channel((7, 8, 2, 63))];
    for channel in &channels {
        store.save(channel).await.unwrap();
    }
    let file = file_of(directory.path(), &channels[0].channel_id);
    (directory, channels, file)
}

fn file_of(directory: &Path, id: &ChannelId) -> PathBuf {
    directory.join("opening/channels").join(id.to_string())
}

/// The error for the first channel's entry; the second is as it was.
async fn first_is_damaged(directory: &TempDir, channels: &[Opened; 2]) -> StoreError {
    let store = KvChannelStore::in_directory(directory.path()).unwrap();
    let (sound, damaged): (Vec<_>, Vec<_>) =
        store.load_all().await.unwrap().into_iter().partition(|entry| entry.stored.is_ok());
    let sound: Vec<_> = sound.into_iter().map(|entry| entry.stored.unwrap().opened).collect();
    assert_eq!(sound, channels[1..]);
    let [entry] = <[_; 1]>::try_from(damaged).unwrap();
    assert_eq!(entry.channel_id(), Some(channels[0].channel_id));
    let error = entry.stored.unwrap_err();
    assert!(error.to_string().contains(&channels[0].channel_id.to_string()), "{error}");
    error
}

#[tokio::test]
async fn an_entry_cut_short_anywhere_is_named_and_the_others_load() {
    let (directory, channels, file) = two_channels().await;
    let whole = std::fs::read(&file).unwrap();
    for length in 0..whole.len() {
        std::fs::write(&file, &whole[..length]).unwrap();
        let error = first_is_damaged(&directory, &channels).await;
        assert_eq!(error.code(), "store-damaged", "{length}");
    }
    std::fs::write(&file, [&whole[..], &[0]].concat()).unwrap();
    assert_eq!(first_is_damaged(&directory, &channels).await.code(), "store-damaged");
}

#[tokio::test]
async fn an_entry_with_a_flipped_bit_anywhere_is_named_and_the_others_load() {
    let (directory, channels, file) = two_channels().await;
    let whole = std::fs::read(&file).unwrap();
    for place in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[place] ^= 1 << (place % 8);
        std::fs::write(&file, &flipped).unwrap();
        let expected = if place == 0 { "store-unknown-version" } else { "store-damaged" };
        assert_eq!(first_is_damaged(&directory, &channels).await.code(), expected, "{place}");
    }
}

#[tokio::test]
async fn an_entry_of_a_later_version_is_told_from_a_damaged_one() {
    let (directory, channels, file) = two_channels().await;
    let mut bytes = std::fs::read(&file).unwrap();
    assert_eq!(bytes[0], 1);
    bytes[0] = 2;
    std::fs::write(&file, &bytes).unwrap();
    let error = first_is_damaged(&directory, &channels).await;
    assert!(matches!(error, StoreError::UnknownVersion { version: 2, known: 1, .. }), "{error}");
}

/// With its checksum right, so that only what is inside can tell.
fn sealed(payload: &[u8]) -> Vec<u8> {
    let checksum = bitcoin::hashes::sha256::Hash::hash(payload);
    [&[1], &checksum.as_byte_array()[..], payload].concat()
}

#[tokio::test]
async fn an_entry_that_is_no_channel_in_spite_of_its_checksum_is_named() {
    let (directory, channels, file) = two_channels().await;
    let whole = std::fs::read(&file).unwrap();
    let payload = &whole[33..];
    // Every byte of the payload, flipped and sealed again: an error or another channel, no panic.
    let store = KvChannelStore::in_directory(directory.path()).unwrap();
    for place in 0..payload.len() {
        let mut flipped = payload.to_vec();
        flipped[place] ^= 1 << (place % 8);
        std::fs::write(&file, sealed(&flipped)).unwrap();
        assert_eq!(store.load_all().await.unwrap().len(), 2);
    }
    for payload in [&[][..], &[0], &payload[..payload.len() - 1], &[payload, &[0]].concat()] {
        std::fs::write(&file, sealed(payload)).unwrap();
        assert_eq!(first_is_damaged(&directory, &channels).await.code(), "store-damaged");
    }
}

#[tokio::test]
async fn a_copy_under_another_name_is_not_a_second_channel() {
    let (directory, channels, file) = two_channels().await;
    std::fs::copy(file_of(directory.path(), &channels[1].channel_id), &file).unwrap();
    let error = first_is_damaged(&directory, &channels).await;
    assert_eq!(error.code(), "store-damaged");
    assert!(error.to_string().contains(&channels[1].channel_id.to_string()), "{error}");
}

#[tokio::test]
async fn a_damaged_count_of_references_gives_none_instead_of_old_ones() {
    let directory = TempDir::new().unwrap();
    let store = KvChannelStore::in_directory(directory.path()).unwrap();
    assert_eq!(store.reserve_dbids(64).await.unwrap(), 1..65);
    let file = directory.path().join("opening/dbid/reserved");
    let whole = std::fs::read(&file).unwrap();
    for length in 0..whole.len() {
        std::fs::write(&file, &whole[..length]).unwrap();
        assert_eq!(store.reserve_dbids(1).await.unwrap_err().code(), "store-damaged");
        let mut flipped = whole.clone();
        flipped[length] ^= 1;
        std::fs::write(&file, &flipped).unwrap();
        assert!(store.reserve_dbids(1).await.is_err());
    }
    std::fs::write(&file, sealed(&[0; 9])).unwrap();
    assert_eq!(store.reserve_dbids(1).await.unwrap_err().code(), "store-damaged");
    std::fs::write(&file, &whole).unwrap();
    assert_eq!(store.reserve_dbids(1).await.unwrap(), 65..66);
}

#[tokio::test]
async fn a_directory_that_cannot_be_used_is_named() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = KvChannelStore::in_directory(&file).err().unwrap();
    assert_eq!(error.code(), "store-directory");
    assert!(error.to_string().contains("file"), "{error}");
    // The place for channels is taken by a file: the save fails and says so.
    std::fs::write(directory.path().join("opening"), "").unwrap();
    let store = KvChannelStore::in_directory(directory.path()).unwrap();
    assert_eq!(store.save(&channel((1, 2, 3, 4))).await.unwrap_err().code(), "store-io");
    assert_eq!(store.reserve_dbids(1).await.unwrap_err().code(), "store-io");
}

fn progress_of(parts: (Option<u32>, u8, u64, Option<String>)) -> Progress {
    let (waiting_since, shape, number, reason) = parts;
    let has = |bit: u8| shape & (1 << bit) != 0;
    let exits = [Exit::Broadcast, Exit::Watch, Exit::AwaitPeer, Exit::Nothing];
    let exit = exits[usize::from(shape % 4)];
    let alias = has(2).then(|| ShortChannelId::from_u64(number));
    let earlier = (0..u64::from(shape % 3)).map(|more| ShortChannelId::from_u64(number ^ more));
    Progress {
        waiting_since,
        was_confirmed: has(3),
        local: has(4)
            .then(|| LocalReady { second_per_commitment_point: key(number, shape / 2 + 1), alias }),
        earlier_aliases: earlier.collect(),
        local_shutdown: has(5).then(|| ScriptBuf::from(vec![shape; usize::from(shape)])),
        failed: reason.map(|reason| ChannelFailure { reason, exit }),
        is_batch_saved: has(6),
    }
}

fn some_progress() -> Progress {
    progress_of((Some(7), 0b0111_1101, 9, Some("a reason".into())))
}

/// What every store does with what becomes of a channel.
async fn keeps_progress<S: ChannelStore>(store: S, reopen: impl Fn(S) -> S) {
    let channels = [channel((5, 6, 1, 63)), channel((7, 8, 2, 62))];
    for channel in &channels {
        store.save(channel).await.unwrap();
    }
    let [one, other] = &channels;
    let kept = |stored: Option<Stored>| stored.unwrap().progress;
    let load = store.load(&one.channel_id).await.unwrap();
    assert_eq!(kept(load), Progress::default());
    for progress in [progress_of((None, 0b10000, 1, None)), some_progress()] {
        store.update(one, &progress).await.unwrap();
        assert_eq!(kept(store.load(&one.channel_id).await.unwrap()), progress);
    }
    // What is saved once more is the channel, not what became of it.
    store.save(one).await.unwrap();
    let store = reopen(store);
    let loaded = store.load(&one.channel_id).await.unwrap().unwrap();
    assert_eq!(loaded, Stored { opened: one.clone(), progress: some_progress() });
    assert_eq!(kept(store.load(&other.channel_id).await.unwrap()), Progress::default());
    assert_eq!(store.load_all().await.unwrap().len(), 2);
    // A later channel under the same id has nothing to do with it; nor has what comes too late.
    store.remove(&one.channel_id).await.unwrap();
    store.update(one, &some_progress()).await.unwrap();
    let store = reopen(store);
    assert_eq!(store.load(&one.channel_id).await.unwrap(), None);
    assert_eq!(store.load_all().await.unwrap().len(), 1);
    let reference = ChannelRef { dbid: 99, ..one.reference };
    let later = Opened { reference, ..one.clone() };
    store.save(&later).await.unwrap();
    let loaded = reopen(store).load(&one.channel_id).await.unwrap().unwrap();
    assert_eq!(loaded, Stored { opened: later, progress: Progress::default() });
}

#[tokio::test]
async fn every_store_keeps_what_becomes_of_a_channel() {
    keeps_progress(MemoryStore::default(), |store| store).await;
    let directory = TempDir::new().unwrap();
    let open = || KvChannelStore::in_directory(directory.path()).unwrap();
    keeps_progress(open(), |_| open()).await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn all_that_becomes_of_a_channel_comes_back_as_it_was(
        waiting_since in any::<Option<u32>>(),
        shape in any::<u8>(),
        number in any::<u64>(),
        reason in any::<Option<String>>(),
    ) {
        let progress = progress_of((waiting_since, shape, number, reason));
        let channel = channel((5, 6, 1, 63));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let directory = TempDir::new().unwrap();
            let store = KvChannelStore::in_directory(directory.path()).unwrap();
            store.save(&channel).await.unwrap();
            store.update(&channel, &progress).await.unwrap();
            let loaded = store.load(&channel.channel_id).await.unwrap().unwrap();
            prop_assert_eq!(loaded.progress, progress);
            Ok(())
        })?;
    }
}

/// Whether it has failed, or is closing, is then unknown: it must not go on as if it were new.
#[tokio::test]
async fn what_became_of_a_channel_and_cannot_be_read_is_named_and_the_others_load() {
    let (directory, channels, _) = two_channels().await;
    let store = KvChannelStore::in_directory(directory.path()).unwrap();
    for channel in &channels {
        store.update(channel, &some_progress()).await.unwrap();
    }
    let file = directory.path().join("opening/progress").join(channels[0].channel_id.to_string());
    let whole = std::fs::read(&file).unwrap();
    for length in 0..whole.len() {
        std::fs::write(&file, &whole[..length]).unwrap();
        let error = first_is_damaged(&directory, &channels).await;
        assert_eq!(error.code(), "store-damaged", "{length}");
        let mut flipped = whole.clone();
        flipped[length] ^= 1 << (length % 8);
        std::fs::write(&file, &flipped).unwrap();
        let expected = if length == 0 { "store-unknown-version" } else { "store-damaged" };
        assert_eq!(first_is_damaged(&directory, &channels).await.code(), expected, "{length}");
        // Sealed again: an error or something else, no panic.
        std::fs::write(&file, sealed(&flipped[33.min(length)..])).unwrap();
        assert_eq!(store.load_all().await.unwrap().len(), 2);
    }
    std::fs::write(&file, &whole).unwrap();
    assert_eq!(load(&store).await, sorted(channels.to_vec()));
}
