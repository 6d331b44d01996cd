//! A channel as bytes: version, checksum, then TLV records that may grow.

#![allow(clippy::drop_non_drop, reason = "LDK's macros drop what needs no drop")]

use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::PublicKey;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::{Amount, OutPoint, ScriptBuf, Transaction, Txid};
use lightning::impl_writeable_tlv_based;
use lightning::ln::types::ChannelId;
use lightning::types::features::ChannelTypeFeatures;
use lightning::util::ser::{Readable, Writeable};
use opening_core::{
    ChannelConfig, ChannelKeys, ChannelParameters, ChannelType, FeeratePerKw, MilliSatoshi, Party,
    ShortChannelId, Side,
};
use opening_signer::ChannelRef;

use super::StoreError;
use crate::negotiation::Opened;
use crate::negotiation::ready::{ChannelFailure, Exit, LocalReady, Progress};

/// The newest version that this program writes and reads.
const VERSION: u8 = 1;
const CHECKSUM: usize = 32;

/// Prefixes version and checksum, so that a torn or foreign entry is known for what it is.
pub(super) fn seal(payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + CHECKSUM + payload.len());
    bytes.push(VERSION);
    bytes.extend_from_slice(sha256::Hash::hash(payload).as_byte_array());
    bytes.extend_from_slice(payload);
    bytes
}

/// The payload of what [`seal`] made.
pub(super) fn unseal<'a>(key: &str, bytes: &'a [u8]) -> Result<&'a [u8], StoreError> {
    let damaged = |defect: &str| StoreError::Damaged { key: key.into(), defect: defect.into() };
    let (&version, rest) = bytes.split_first().ok_or_else(|| damaged("empty"))?;
    if version != VERSION {
        return Err(StoreError::UnknownVersion { key: key.into(), version, known: VERSION });
    }
    let (checksum, payload) =
        rest.split_first_chunk::<CHECKSUM>().ok_or_else(|| damaged("shorter than its checksum"))?;
    if sha256::Hash::hash(payload).as_byte_array() != checksum {
        return Err(damaged("its checksum does not match"));
    }
    Ok(payload)
}

struct PartyRecord {
    funding_pubkey: PublicKey,
    revocation_basepoint: PublicKey,
    payment_basepoint: PublicKey,
    delayed_payment_basepoint: PublicKey,
    htlc_basepoint: PublicKey,
    first_per_commitment_point: PublicKey,
    dust_limit_satoshis: u64,
    max_htlc_value_in_flight_msat: u64,
    channel_reserve_satoshis: u64,
    htlc_minimum_msat: u64,
    to_self_delay: u16,
    max_accepted_htlcs: u16,
}

impl_writeable_tlv_based!(PartyRecord, {
    (0, funding_pubkey, required),
    (2, revocation_basepoint, required),
    (4, payment_basepoint, required),
    (6, delayed_payment_basepoint, required),
    (8, htlc_basepoint, required),
    (10, first_per_commitment_point, required),
    (12, dust_limit_satoshis, required),
    (14, max_htlc_value_in_flight_msat, required),
    (16, channel_reserve_satoshis, required),
    (18, htlc_minimum_msat, required),
    (20, to_self_delay, required),
    (22, max_accepted_htlcs, required),
});

/// What both first commitments follow from, and both signatures: the transactions themselves are
/// built again.
struct Record {
    peer: PublicKey,
    dbid: u64,
    temporary_channel_id: ChannelId,
    we_opened: bool,
    funding_txid: Txid,
    funding_output_index: u32,
    funding_satoshis: u64,
    push_msat: u64,
    feerate_per_kw: u32,
    channel_type: ChannelTypeFeatures,
    local: PartyRecord,
    remote: PartyRecord,
    announce_channel: bool,
    minimum_depth: u32,
    local_shutdown_script: Option<ScriptBuf>,
    remote_shutdown_script: Option<ScriptBuf>,
    local_signature: Signature,
    remote_signature: Signature,
    funding_transaction: Option<Transaction>,
    batch: Vec<ChannelId>,
}

impl_writeable_tlv_based!(Record, {
    (0, peer, required),
    (2, dbid, required),
    (4, temporary_channel_id, required),
    (6, we_opened, required),
    (8, funding_txid, required),
    (10, funding_output_index, required),
    (12, funding_satoshis, required),
    (14, push_msat, required),
    (16, feerate_per_kw, required),
    (18, channel_type, required),
    (20, local, required),
    (22, remote, required),
    (24, announce_channel, required),
    (26, minimum_depth, required),
    (28, local_shutdown_script, option),
    (30, remote_shutdown_script, option),
    (32, local_signature, required),
    (34, remote_signature, required),
    (36, funding_transaction, option),
    (38, batch, optional_vec),
});

fn party_record(party: &Party) -> PartyRecord {
    let Party { config, keys, first_per_commitment_point } = *party;
    PartyRecord {
        funding_pubkey: keys.funding_pubkey,
        revocation_basepoint: keys.revocation_basepoint,
        payment_basepoint: keys.payment_basepoint,
        delayed_payment_basepoint: keys.delayed_payment_basepoint,
        htlc_basepoint: keys.htlc_basepoint,
        first_per_commitment_point,
        dust_limit_satoshis: config.dust_limit_satoshis.to_sat(),
        max_htlc_value_in_flight_msat: config.max_htlc_value_in_flight_msat.to_msat(),
        channel_reserve_satoshis: config.channel_reserve_satoshis.to_sat(),
        htlc_minimum_msat: config.htlc_minimum_msat.to_msat(),
        to_self_delay: config.to_self_delay,
        max_accepted_htlcs: config.max_accepted_htlcs,
    }
}

fn party(record: &PartyRecord) -> Party {
    Party {
        config: ChannelConfig {
            dust_limit_satoshis: Amount::from_sat(record.dust_limit_satoshis),
            max_htlc_value_in_flight_msat: MilliSatoshi::from_msat(
                record.max_htlc_value_in_flight_msat,
            ),
            channel_reserve_satoshis: Amount::from_sat(record.channel_reserve_satoshis),
            htlc_minimum_msat: MilliSatoshi::from_msat(record.htlc_minimum_msat),
            to_self_delay: record.to_self_delay,
            max_accepted_htlcs: record.max_accepted_htlcs,
        },
        keys: ChannelKeys {
            funding_pubkey: record.funding_pubkey,
            revocation_basepoint: record.revocation_basepoint,
            payment_basepoint: record.payment_basepoint,
            delayed_payment_basepoint: record.delayed_payment_basepoint,
            htlc_basepoint: record.htlc_basepoint,
        },
        first_per_commitment_point: record.first_per_commitment_point,
    }
}

/// The bytes of a channel.
pub(super) fn encode(opened: &Opened) -> Vec<u8> {
    let ChannelParameters { funding_outpoint, ref local, ref remote, .. } = opened.parameters;
    let parameters = &opened.parameters;
    let record = Record {
        peer: opened.reference.peer,
        dbid: opened.reference.dbid,
        temporary_channel_id: opened.temporary_channel_id,
        we_opened: parameters.opener == Side::Local,
        funding_txid: funding_outpoint.txid,
        funding_output_index: funding_outpoint.vout,
        funding_satoshis: parameters.funding_satoshis.to_sat(),
        push_msat: parameters.push_msat.to_msat(),
        feerate_per_kw: parameters.feerate_per_kw.to_sat_per_kw(),
        channel_type: parameters.channel_type.to_features(),
        local: party_record(local),
        remote: party_record(remote),
        announce_channel: opened.announce_channel,
        minimum_depth: opened.minimum_depth,
        local_shutdown_script: opened.local_shutdown_script.clone(),
        remote_shutdown_script: opened.remote_shutdown_script.clone(),
        local_signature: opened.local_signature,
        remote_signature: opened.remote_signature,
        funding_transaction: opened.funding_transaction.clone(),
        batch: opened.batch.clone(),
    };
    seal(&record.encode())
}

/// The whole of what was sealed.
fn read_sealed<T: Readable>(key: &str, bytes: &[u8]) -> Result<T, StoreError> {
    let damaged = |defect: String| StoreError::Damaged { key: key.into(), defect };
    let mut payload = unseal(key, bytes)?;
    let record = Readable::read(&mut payload).map_err(|error| damaged(format!("{error:?}")))?;
    if !payload.is_empty() {
        return Err(damaged("it goes on after its end".into()));
    }
    Ok(record)
}

/// The channel that `bytes` hold.
pub(super) fn decode(key: &str, bytes: &[u8]) -> Result<Opened, StoreError> {
    let damaged = |defect: String| StoreError::Damaged { key: key.into(), defect };
    let record: Record = read_sealed(key, bytes)?;
    let channel_type = ChannelType::from_features(&record.channel_type)
        .ok_or_else(|| damaged("its channel type is undefined".into()))?;
    let parameters = ChannelParameters {
        opener: if record.we_opened { Side::Local } else { Side::Remote },
        funding_outpoint: OutPoint { txid: record.funding_txid, vout: record.funding_output_index },
        funding_satoshis: Amount::from_sat(record.funding_satoshis),
        push_msat: MilliSatoshi::from_msat(record.push_msat),
        feerate_per_kw: FeeratePerKw::new(record.feerate_per_kw),
        channel_type,
        local: party(&record.local),
        remote: party(&record.remote),
    };
    let (channel_id, local_commitment, remote_commitment) =
        Opened::rebuild(&parameters).map_err(|error| damaged(error.to_string()))?;
    // A copy under another name would be a second channel with the same keys.
    if channel_id.to_string() != key {
        return Err(damaged(format!("it holds channel {channel_id}")));
    }
    Ok(Opened {
        reference: ChannelRef { peer: record.peer, dbid: record.dbid },
        temporary_channel_id: record.temporary_channel_id,
        channel_id,
        parameters,
        announce_channel: record.announce_channel,
        minimum_depth: record.minimum_depth,
        local_shutdown_script: record.local_shutdown_script,
        remote_shutdown_script: record.remote_shutdown_script,
        local_commitment,
        remote_commitment,
        remote_signature: record.remote_signature,
        local_signature: record.local_signature,
        funding_transaction: record.funding_transaction,
        batch: record.batch,
    })
}

/// What became of a channel.  It names the channel's reference: what is left of a channel that was
/// removed says nothing about a later one on the same outpoint.
struct ProgressRecord {
    dbid: u64,
    waiting_since: Option<u32>,
    was_confirmed: bool,
    second_per_commitment_point: Option<PublicKey>,
    alias: Option<u64>,
    earlier_aliases: Vec<u64>,
    local_shutdown: Option<ScriptBuf>,
    failed: Option<String>,
    exit: Option<u8>,
    is_batch_saved: bool,
}

impl_writeable_tlv_based!(ProgressRecord, {
    (0, dbid, required),
    (2, waiting_since, option),
    (4, was_confirmed, required),
    (6, second_per_commitment_point, option),
    (8, alias, option),
    (10, earlier_aliases, optional_vec),
    (12, local_shutdown, option),
    (14, failed, option),
    (16, exit, option),
    (18, is_batch_saved, required),
});

const EXITS: [Exit; 4] = [Exit::Broadcast, Exit::Watch, Exit::AwaitPeer, Exit::Nothing];

fn exit_number(exit: Exit) -> u8 {
    match exit {
        Exit::Broadcast => 0,
        Exit::Watch => 1,
        Exit::AwaitPeer => 2,
        Exit::Nothing => 3,
    }
}

/// The bytes of what became of a channel.
pub(super) fn encode_progress(opened: &Opened, progress: &Progress) -> Vec<u8> {
    let Progress { local, earlier_aliases, failed, .. } = progress;
    let record = ProgressRecord {
        dbid: opened.reference.dbid,
        waiting_since: progress.waiting_since,
        was_confirmed: progress.was_confirmed,
        second_per_commitment_point: local.map(|local| local.second_per_commitment_point),
        alias: local.and_then(|local| local.alias).map(ShortChannelId::to_u64),
        earlier_aliases: earlier_aliases.iter().map(|alias| alias.to_u64()).collect(),
        local_shutdown: progress.local_shutdown.clone(),
        failed: failed.as_ref().map(|failure| failure.reason.clone()),
        exit: failed.as_ref().map(|failure| exit_number(failure.exit)),
        is_batch_saved: progress.is_batch_saved,
    };
    seal(&record.encode())
}

/// What became of `opened`, as `bytes` tell.
pub(super) fn decode_progress(
    key: &str,
    opened: &Opened,
    bytes: &[u8],
) -> Result<Progress, StoreError> {
    let record: ProgressRecord = read_sealed(key, bytes)?;
    if record.dbid != opened.reference.dbid {
        return Ok(Progress::default());
    }
    let damaged = |defect: String| StoreError::Damaged { key: key.into(), defect };
    let failed = match (record.failed, record.exit) {
        (None, None) => None,
        (Some(reason), Some(number)) => {
            let exit = EXITS.into_iter().find(|exit| exit_number(*exit) == number);
            let undefined = || damaged(format!("its way out {number} is undefined"));
            Some(ChannelFailure { reason, exit: exit.ok_or_else(undefined)? })
        }
        _ => return Err(damaged("half a failure".into())),
    };
    let alias = record.alias.map(ShortChannelId::from_u64);
    let local_ready =
        |second_per_commitment_point| LocalReady { second_per_commitment_point, alias };
    Ok(Progress {
        waiting_since: record.waiting_since,
        was_confirmed: record.was_confirmed,
        local: record.second_per_commitment_point.map(local_ready),
        earlier_aliases: record.earlier_aliases.into_iter().map(ShortChannelId::from_u64).collect(),
        local_shutdown: record.local_shutdown,
        failed,
        is_batch_saved: record.is_batch_saved,
    })
}
