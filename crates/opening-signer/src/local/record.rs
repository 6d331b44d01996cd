//! The one durable record of a channel: written before its first signature leaves.
//!
//! It binds the channel's reference to everything that the channel is made of, so that after a
//! restart the same may be signed again and nothing else.

use std::sync::Arc;

use bitcoin::ScriptBuf;
use bitcoin::hashes::{Hash, HashEngine, sha256};
use lightning::io;
use lightning::util::persist::KVStore;
use opening_core::{ChannelConfig, ChannelKeys, ChannelParameters, Commitment, Party, Side};

use super::rule;
use crate::error::{HsmError, HsmResult};
use crate::request::{ChannelRef, ChannelSetup};

const NAMESPACE: &str = "opening_signer";
const CHANNELS: &str = "channels";

/// Version 1, then a digest.
const LENGTH: usize = 1 + 32;
const VERSION: u8 = 1;

/// What a signature binds the signer to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Record([u8; LENGTH]);

impl Record {
    /// Of a channel and both its first commitments.
    pub(super) fn of(setup: &ChannelSetup, commitments: &[Commitment; 2]) -> Self {
        let mut record = [VERSION; LENGTH];
        record[1..].copy_from_slice(&digest(setup, commitments).to_byte_array());
        Self(record)
    }
}

/// The records of all channels.
pub(super) struct Records(pub(super) Arc<dyn KVStore + Send + Sync>);

impl Records {
    /// Whether `record` is there.  Another one for the same channel is a refusal.
    pub(super) async fn contains(&self, reference: ChannelRef, record: &Record) -> HsmResult<bool> {
        match self.0.read(NAMESPACE, CHANNELS, &key(reference)).await {
            Ok(kept) if kept == record.0 => Ok(true),
            Ok(kept) if kept.len() == LENGTH && kept[0] == VERSION => Err(rule::setup_differs()),
            Ok(_) => Err(HsmError::Storage("its record of the channel is damaged".into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(HsmError::Storage(error.to_string())),
        }
    }

    /// Returns when `record` would survive a crash.
    pub(super) async fn keep(&self, reference: ChannelRef, record: &Record) -> HsmResult<()> {
        let writing = self.0.write(NAMESPACE, CHANNELS, &key(reference), record.0.to_vec());
        writing.await.map_err(|error| HsmError::Storage(error.to_string()))
    }
}

fn key(reference: ChannelRef) -> String {
    format!("{}_{}", reference.peer, reference.dbid)
}

// Destructured, so that a new field does not compile until it is bound too.
fn digest(setup: &ChannelSetup, commitments: &[Commitment; 2]) -> sha256::Hash {
    let ChannelSetup { parameters, chain_hash, local_shutdown_script, remote_shutdown_script } =
        setup;
    let ChannelParameters {
        opener,
        funding_outpoint,
        funding_satoshis,
        push_msat,
        feerate_per_kw,
        channel_type,
        local,
        remote,
    } = parameters;
    let mut engine = sha256::Hash::engine();
    engine.input(b"opening-signer channel");
    engine.input(chain_hash.as_bytes());
    engine.input(&[match opener {
        Side::Local => 0,
        Side::Remote => 1,
    }]);
    engine.input(&funding_outpoint.txid.to_byte_array());
    engine.input(&funding_outpoint.vout.to_be_bytes());
    engine.input(&funding_satoshis.to_sat().to_be_bytes());
    engine.input(&push_msat.to_msat().to_be_bytes());
    engine.input(&feerate_per_kw.to_sat_per_kw().to_be_bytes());
    input_bytes(&mut engine, channel_type.to_features().le_flags());
    input_party(&mut engine, local);
    input_party(&mut engine, remote);
    input_script(&mut engine, local_shutdown_script.as_ref());
    input_script(&mut engine, remote_shutdown_script.as_ref());
    for commitment in commitments {
        engine.input(commitment.sighash().as_ref());
    }
    sha256::Hash::from_engine(engine)
}

fn input_party(engine: &mut sha256::HashEngine, party: &Party) {
    let Party { config, keys, first_per_commitment_point } = party;
    let ChannelConfig {
        dust_limit_satoshis,
        max_htlc_value_in_flight_msat,
        channel_reserve_satoshis,
        htlc_minimum_msat,
        to_self_delay,
        max_accepted_htlcs,
    } = config;
    let ChannelKeys {
        funding_pubkey,
        revocation_basepoint,
        payment_basepoint,
        delayed_payment_basepoint,
        htlc_basepoint,
    } = keys;
    engine.input(&dust_limit_satoshis.to_sat().to_be_bytes());
    engine.input(&max_htlc_value_in_flight_msat.to_msat().to_be_bytes());
    engine.input(&channel_reserve_satoshis.to_sat().to_be_bytes());
    engine.input(&htlc_minimum_msat.to_msat().to_be_bytes());
    engine.input(&to_self_delay.to_be_bytes());
    engine.input(&max_accepted_htlcs.to_be_bytes());
    for point in [
        funding_pubkey,
        revocation_basepoint,
        payment_basepoint,
        delayed_payment_basepoint,
        htlc_basepoint,
        first_per_commitment_point,
    ] {
        engine.input(&point.serialize());
    }
}

fn input_script(engine: &mut sha256::HashEngine, script: Option<&ScriptBuf>) {
    engine.input(&[u8::from(script.is_some())]);
    input_bytes(engine, script.map_or(&[], |script| script.as_bytes()));
}

fn input_bytes(engine: &mut sha256::HashEngine, bytes: &[u8]) {
    engine.input(&(bytes.len() as u64).to_be_bytes());
    engine.input(bytes);
}
