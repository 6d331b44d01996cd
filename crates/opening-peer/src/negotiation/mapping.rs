//! Between LDK's messages and the types of `opening-core`: the only place that knows both.

use bitcoin::constants::ChainHash;
use bitcoin::{Amount, ScriptBuf};
use lightning::ln::msgs::{
    AcceptChannel, CommonAcceptChannelFields, CommonOpenChannelFields, OpenChannel,
};
use lightning::ln::types::ChannelId;
use opening_core::{
    Answer, ChannelConfig, ChannelKeys, ChannelType, FeeratePerKw, MilliSatoshi, Offer, Party,
};

/// Bit 0 of `channel_flags` (B2-OPEN-B-06).
const ANNOUNCE_CHANNEL: u8 = 1;

/// What `open_channel` fixes for the whole opening.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offered {
    pub(super) temporary_channel_id: ChannelId,
    pub(super) funding_satoshis: Amount,
    pub(super) push_msat: MilliSatoshi,
    pub(super) feerate_per_kw: FeeratePerKw,
    pub(super) announce_channel: bool,
    pub(super) channel_type: ChannelType,
}

// LDK gives the two messages two types with the same fields: only a macro can read both.
macro_rules! config {
    ($message:expr) => {{
        let common = &$message.common_fields;
        ChannelConfig {
            dust_limit_satoshis: Amount::from_sat(common.dust_limit_satoshis),
            max_htlc_value_in_flight_msat: MilliSatoshi::from_msat(
                common.max_htlc_value_in_flight_msat,
            ),
            channel_reserve_satoshis: Amount::from_sat($message.channel_reserve_satoshis),
            htlc_minimum_msat: MilliSatoshi::from_msat(common.htlc_minimum_msat),
            to_self_delay: common.to_self_delay,
            max_accepted_htlcs: common.max_accepted_htlcs,
        }
    }};
}

macro_rules! party {
    ($message:expr) => {{
        let common = &$message.common_fields;
        Party {
            config: config!($message),
            keys: ChannelKeys {
                funding_pubkey: common.funding_pubkey,
                revocation_basepoint: common.revocation_basepoint,
                payment_basepoint: common.payment_basepoint,
                delayed_payment_basepoint: common.delayed_payment_basepoint,
                htlc_basepoint: common.htlc_basepoint,
            },
            first_per_commitment_point: common.first_per_commitment_point,
        }
    }};
}

pub(super) fn offer(message: &OpenChannel) -> Offer<'_> {
    let common = &message.common_fields;
    Offer {
        chain_hash: common.chain_hash,
        funding_satoshis: Amount::from_sat(common.funding_satoshis),
        push_msat: MilliSatoshi::from_msat(message.push_msat),
        feerate_per_kw: FeeratePerKw::new(common.commitment_feerate_sat_per_1000_weight),
        announce_channel: common.channel_flags & ANNOUNCE_CHANNEL != 0,
        channel_type: common.channel_type.as_ref(),
        config: config!(message),
        upfront_shutdown_script: common.shutdown_scriptpubkey.as_deref(),
    }
}

pub(super) fn opener(message: &OpenChannel) -> Party {
    party!(message)
}

pub(super) fn answer(message: &AcceptChannel) -> Answer<'_> {
    let common = &message.common_fields;
    Answer {
        minimum_depth: common.minimum_depth,
        channel_type: common.channel_type.as_ref(),
        config: config!(message),
        upfront_shutdown_script: common.shutdown_scriptpubkey.as_deref(),
    }
}

pub(super) fn accepter(message: &AcceptChannel) -> Party {
    party!(message)
}

pub(super) fn open_channel(
    offered: &Offered,
    chain_hash: ChainHash,
    opener: &Party,
    upfront_shutdown_script: Option<&ScriptBuf>,
) -> OpenChannel {
    let Party { config, keys, first_per_commitment_point } = opener;
    OpenChannel {
        common_fields: CommonOpenChannelFields {
            chain_hash,
            temporary_channel_id: offered.temporary_channel_id,
            funding_satoshis: offered.funding_satoshis.to_sat(),
            dust_limit_satoshis: config.dust_limit_satoshis.to_sat(),
            max_htlc_value_in_flight_msat: config.max_htlc_value_in_flight_msat.to_msat(),
            htlc_minimum_msat: config.htlc_minimum_msat.to_msat(),
            commitment_feerate_sat_per_1000_weight: offered.feerate_per_kw.to_sat_per_kw(),
            to_self_delay: config.to_self_delay,
            max_accepted_htlcs: config.max_accepted_htlcs,
            funding_pubkey: keys.funding_pubkey,
            revocation_basepoint: keys.revocation_basepoint,
            payment_basepoint: keys.payment_basepoint,
            delayed_payment_basepoint: keys.delayed_payment_basepoint,
            htlc_basepoint: keys.htlc_basepoint,
            first_per_commitment_point: *first_per_commitment_point,
            channel_flags: if offered.announce_channel { ANNOUNCE_CHANNEL } else { 0 },
            shutdown_scriptpubkey: present(upfront_shutdown_script),
            channel_type: Some(offered.channel_type.to_features()),
        },
        push_msat: offered.push_msat.to_msat(),
        channel_reserve_satoshis: config.channel_reserve_satoshis.to_sat(),
    }
}

pub(super) fn accept_channel(
    offered: &Offered,
    minimum_depth: u32,
    accepter: &Party,
    upfront_shutdown_script: Option<&ScriptBuf>,
) -> AcceptChannel {
    let Party { config, keys, first_per_commitment_point } = accepter;
    AcceptChannel {
        common_fields: CommonAcceptChannelFields {
            temporary_channel_id: offered.temporary_channel_id,
            dust_limit_satoshis: config.dust_limit_satoshis.to_sat(),
            max_htlc_value_in_flight_msat: config.max_htlc_value_in_flight_msat.to_msat(),
            htlc_minimum_msat: config.htlc_minimum_msat.to_msat(),
            minimum_depth,
            to_self_delay: config.to_self_delay,
            max_accepted_htlcs: config.max_accepted_htlcs,
            funding_pubkey: keys.funding_pubkey,
            revocation_basepoint: keys.revocation_basepoint,
            payment_basepoint: keys.payment_basepoint,
            delayed_payment_basepoint: keys.delayed_payment_basepoint,
            htlc_basepoint: keys.htlc_basepoint,
            first_per_commitment_point: *first_per_commitment_point,
            shutdown_scriptpubkey: present(upfront_shutdown_script),
            channel_type: Some(offered.channel_type.to_features()),
        },
        channel_reserve_satoshis: config.channel_reserve_satoshis.to_sat(),
    }
}

/// TLV 0 stands in every message of ours, empty where there is no script: it must accompany the
/// channel type (B2-OPEN-S-12, B2-ACC-S-09, A-09).
fn present(script: Option<&ScriptBuf>) -> Option<ScriptBuf> {
    Some(script.cloned().unwrap_or_default())
}
