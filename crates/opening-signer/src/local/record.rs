//! What a signature binds a signer to.

use bitcoin::ScriptBuf;
use bitcoin::hashes::{Hash, HashEngine, sha256};
use opening_core::{ChannelConfig, ChannelKeys, ChannelParameters, Commitment, Party, Side};

use crate::request::ChannelSetup;

/// Everything that a channel is made of, as a digest: after a restart the same may be signed again
/// and nothing else.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Record(pub(super) [u8; 32]);

impl Record {
    /// Of a channel and both its first commitments.
    pub(super) fn of(setup: &ChannelSetup, commitments: &[Commitment; 2]) -> Self {
        Self(digest(setup, commitments).to_byte_array())
    }
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
