//! What a signer is told, as bytes.
//!
//! A setup crosses once.  A commitment crosses as its number, its point and its transaction: the
//! signer's side builds the same commitment out of the setup that it has, and the bytes must be
//! equal.

use bitcoin::consensus::encode;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{PublicKey, Secp256k1, Verification};
use bitcoin::{Amount, OutPoint, ScriptBuf, Txid};
use opening_core::{
    ChannelConfig, ChannelKeys, ChannelParameters, ChannelType, Commitment, FeeratePerKw,
    MilliSatoshi, Party, Side,
};

use crate::error::{HsmError, HsmResult};
use crate::remote::codec::{Malformed, Reader, Write};
use crate::request::{ChannelSetup, CommitmentRequest};

/// Bytes.  Every script that a channel may be closed to is shorter.
const MAX_SCRIPT: usize = 520;
/// Bytes.  A first commitment has one input and at most four outputs.
const MAX_TRANSACTION: usize = 1024;

/// A [`ChannelSetup`] without the chain, which the connection has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setup {
    pub(super) parameters: ChannelParameters,
    pub(super) local_shutdown_script: Option<ScriptBuf>,
    pub(super) remote_shutdown_script: Option<ScriptBuf>,
}

/// The commitment that a call is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// Of the setup's parameters: [`parameters_hash`].
    parameters_hash: [u8; 32],
    number: u64,
    per_commitment_point: PublicKey,
    transaction: Vec<u8>,
}

impl Setup {
    pub(super) fn new(setup: &ChannelSetup) -> HsmResult<Self> {
        let scripts = [&setup.local_shutdown_script, &setup.remote_shutdown_script];
        if scripts.into_iter().flatten().any(|script| script.len() > MAX_SCRIPT) {
            return Err(invalid(format!("a shutdown script exceeds {MAX_SCRIPT} bytes")));
        }
        Ok(Self {
            parameters: setup.parameters.clone(),
            local_shutdown_script: setup.local_shutdown_script.clone(),
            remote_shutdown_script: setup.remote_shutdown_script.clone(),
        })
    }

    pub(super) fn put(&self, message: &mut Vec<u8>) {
        put_parameters(message, &self.parameters);
        for script in [&self.local_shutdown_script, &self.remote_shutdown_script] {
            message.put_bool(script.is_some());
            if let Some(script) = script {
                message.put_short_bytes(script.as_bytes());
            }
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            parameters: parameters(reader)?,
            local_shutdown_script: shutdown_script(reader)?,
            remote_shutdown_script: shutdown_script(reader)?,
        })
    }
}

impl Asked {
    /// Refuses at the node what the signer's side could not see: it builds its own commitment.
    pub(super) fn new(owner: Side, request: &CommitmentRequest<'_>) -> HsmResult<Self> {
        let CommitmentRequest { parameters, commitment, per_commitment_point, .. } = request;
        if commitment.owner != owner {
            return Err(invalid("the commitment belongs to the other side"));
        }
        if commitment.funding_satoshis != parameters.funding_satoshis
            || commitment.funding_witness_script != parameters.funding_witness_script()
        {
            return Err(invalid("amount or script of the funding output are not the channel's"));
        }
        let transaction = encode::serialize(&commitment.transaction);
        if transaction.len() > MAX_TRANSACTION {
            return Err(invalid(format!("the transaction exceeds {MAX_TRANSACTION} bytes")));
        }
        Ok(Self {
            parameters_hash: parameters_hash(parameters),
            number: commitment.number,
            per_commitment_point: *per_commitment_point,
            transaction,
        })
    }

    pub(super) fn put(&self, message: &mut Vec<u8>) {
        message.put(&self.parameters_hash);
        message.put_u64(self.number);
        message.put_public_key(&self.per_commitment_point);
        message.put_short_bytes(&self.transaction);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let parameters_hash = reader.array("the parameters' hash")?;
        let number = reader.u64("the commitment number")?;
        let per_commitment_point = reader.public_key("the per-commitment point")?;
        let transaction = reader.short_bytes("the transaction")?;
        if transaction.len() > MAX_TRANSACTION {
            return Err(Malformed::Invalid("the transaction"));
        }
        let transaction = transaction.into();
        Ok(Self { parameters_hash, number, per_commitment_point, transaction })
    }

    pub(super) fn per_commitment_point(&self) -> PublicKey {
        self.per_commitment_point
    }

    /// The commitment that the setup gives, which must be what was asked for.
    pub(super) fn rebuild<C: Verification>(
        &self,
        secp: &Secp256k1<C>,
        setup: &ChannelSetup,
        owner: Side,
    ) -> HsmResult<Commitment> {
        if self.parameters_hash != parameters_hash(&setup.parameters) {
            return Err(invalid("its parameters are not those of the setup"));
        }
        let rebuilt = setup
            .parameters
            .commitment(secp, owner, self.number, &self.per_commitment_point)
            .map_err(|reason| refused("commitment-unbuildable", reason.to_string()))?;
        if encode::serialize(&rebuilt.transaction) != self.transaction {
            let txid = rebuilt.transaction.compute_txid();
            let detail =
                format!("asked for another transaction than {txid}, which the setup gives");
            return Err(refused("transaction-differs", detail));
        }
        Ok(rebuilt)
    }
}

/// Tells whether both sides speak of the same parameters.
fn parameters_hash(parameters: &ChannelParameters) -> [u8; 32] {
    let mut bytes = Vec::with_capacity(768);
    put_parameters(&mut bytes, parameters);
    sha256::Hash::hash(&bytes).to_byte_array()
}

fn put_parameters(message: &mut Vec<u8>, parameters: &ChannelParameters) {
    message.put_bool(parameters.opener == Side::Local);
    message.put(parameters.funding_outpoint.txid.as_byte_array());
    message.put_u32(parameters.funding_outpoint.vout);
    message.put_u64(parameters.funding_satoshis.to_sat());
    message.put_u64(parameters.push_msat.to_msat());
    message.put_u32(parameters.feerate_per_kw.to_sat_per_kw());
    let position = ChannelType::all().iter().position(|one| *one == parameters.channel_type);
    let position = position.expect("all of them are listed");
    message.put(&[u8::try_from(position).expect("there are eight")]);
    for party in [&parameters.local, &parameters.remote] {
        put_party(message, party);
    }
}

fn parameters(reader: &mut Reader<'_>) -> Result<ChannelParameters, Malformed> {
    let opener = match reader.bool("the opener")? {
        true => Side::Local,
        false => Side::Remote,
    };
    let txid = Txid::from_byte_array(reader.array("the funding txid")?);
    let vout = reader.u32("the funding output")?;
    let funding_satoshis = Amount::from_sat(reader.u64("the funding amount")?);
    let push_msat = MilliSatoshi::from_msat(reader.u64("the pushed amount")?);
    let feerate_per_kw = FeeratePerKw::new(reader.u32("the feerate")?);
    let position = usize::from(reader.u8("the channel type")?);
    let channel_type = ChannelType::all().get(position).copied();
    Ok(ChannelParameters {
        opener,
        funding_outpoint: OutPoint { txid, vout },
        funding_satoshis,
        push_msat,
        feerate_per_kw,
        channel_type: channel_type.ok_or(Malformed::Invalid("the channel type"))?,
        local: party(reader)?,
        remote: party(reader)?,
    })
}

fn put_party(message: &mut Vec<u8>, party: &Party) {
    let config = &party.config;
    message.put_u64(config.dust_limit_satoshis.to_sat());
    message.put_u64(config.max_htlc_value_in_flight_msat.to_msat());
    message.put_u64(config.channel_reserve_satoshis.to_sat());
    message.put_u64(config.htlc_minimum_msat.to_msat());
    message.put_u16(config.to_self_delay);
    message.put_u16(config.max_accepted_htlcs);
    put_keys(message, &party.keys);
    message.put_public_key(&party.first_per_commitment_point);
}

fn party(reader: &mut Reader<'_>) -> Result<Party, Malformed> {
    let config = ChannelConfig {
        dust_limit_satoshis: Amount::from_sat(reader.u64("dust_limit_satoshis")?),
        max_htlc_value_in_flight_msat: msat(reader, "max_htlc_value_in_flight_msat")?,
        channel_reserve_satoshis: Amount::from_sat(reader.u64("channel_reserve_satoshis")?),
        htlc_minimum_msat: msat(reader, "htlc_minimum_msat")?,
        to_self_delay: reader.u16("to_self_delay")?,
        max_accepted_htlcs: reader.u16("max_accepted_htlcs")?,
    };
    let keys = keys(reader)?;
    let first_per_commitment_point = reader.public_key("first_per_commitment_point")?;
    Ok(Party { config, keys, first_per_commitment_point })
}

fn msat(reader: &mut Reader<'_>, what: &'static str) -> Result<MilliSatoshi, Malformed> {
    reader.u64(what).map(MilliSatoshi::from_msat)
}

/// In hsmd's order, which is not BOLT 2's.
pub(super) fn put_keys(message: &mut Vec<u8>, keys: &ChannelKeys) {
    message.put_public_key(&keys.revocation_basepoint);
    message.put_public_key(&keys.payment_basepoint);
    message.put_public_key(&keys.htlc_basepoint);
    message.put_public_key(&keys.delayed_payment_basepoint);
    message.put_public_key(&keys.funding_pubkey);
}

pub(super) fn keys(reader: &mut Reader<'_>) -> Result<ChannelKeys, Malformed> {
    Ok(ChannelKeys {
        revocation_basepoint: reader.public_key("revocation_basepoint")?,
        payment_basepoint: reader.public_key("payment_basepoint")?,
        htlc_basepoint: reader.public_key("htlc_basepoint")?,
        delayed_payment_basepoint: reader.public_key("delayed_payment_basepoint")?,
        funding_pubkey: reader.public_key("funding_pubkey")?,
    })
}

pub(super) fn signature(reader: &mut Reader<'_>) -> Result<Signature, Malformed> {
    let bytes = reader.array::<64>("the signature")?;
    Signature::from_compact(&bytes).map_err(|_| Malformed::Invalid("the signature"))
}

fn shutdown_script(reader: &mut Reader<'_>) -> Result<Option<ScriptBuf>, Malformed> {
    if !reader.bool("whether there is a shutdown script")? {
        return Ok(None);
    }
    let script = reader.short_bytes("the shutdown script")?;
    if script.len() > MAX_SCRIPT {
        return Err(Malformed::Invalid("the shutdown script"));
    }
    Ok(Some(ScriptBuf::from(script.to_vec())))
}

pub(super) fn invalid(reason: impl Into<String>) -> HsmError {
    HsmError::InvalidRequest(reason.into())
}

pub(super) fn refused(tag: &str, detail: String) -> HsmError {
    HsmError::Refused { tag: tag.into(), detail }
}
