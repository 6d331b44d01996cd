//! The messages between lightningd and openingd.

use std::sync::Arc;

use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::PublicKey;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::{Amount, Network, OutPoint, ScriptBuf};
use lightning::ln::types::ChannelId;
use lightning::types::features::ChannelTypeFeatures;
use opening_core::{
    ChannelConfig, ChannelKeys, ChannelType, FeeratePerKw, FeerateRange, Limits, MilliSatoshi,
    NegotiatedFeatures, PenaltyBase, Profile, Terms,
};
use opening_peer::Ask;
use opening_peer::negotiation::Context;

use crate::recording::{LIGHTNINGD, Recording};
use crate::wire::{Body, RecordedTransaction};

/// The places in which Core Lightning has feature bits: `init` is the first.
const FEATURE_PLACES: usize = 9;

/// 6000, `openingd_init`: what both roles begin with.
pub(crate) struct Init {
    chain_hash: ChainHash,
    features: Arc<NegotiatedFeatures>,
    config: ChannelConfig,
    max_to_self_delay: u32,
    min_effective_htlc_capacity: MilliSatoshi,
    pub(crate) keys: ChannelKeys,
    minimum_depth: u32,
    feerates: FeerateRange,
}

impl Init {
    pub(crate) fn of(recording: &Recording) -> Self {
        let mut body = Body::of(recording.read(LIGHTNINGD, 6000), 6000);
        let chain_hash = ChainHash::from(body.array());
        let local = body.features();
        for _ in 1..FEATURE_PLACES {
            body.counted();
        }
        let init = Self {
            chain_hash,
            features: Arc::new(NegotiatedFeatures { local, remote: body.features() }),
            config: body.config().0,
            max_to_self_delay: body.u32(),
            min_effective_htlc_capacity: body.msat(),
            keys: body.keys(),
            minimum_depth: body.u32(),
            feerates: FeerateRange { min: body.feerate(), max: body.feerate() },
        };
        assert_eq!(body.optional(Body::array::<32>), None, "dev_temporary_channel_id");
        assert!(!body.bool(), "allowdustreserve");
        assert!(!body.bool(), "dev_accept_any_channel_type");
        body.end();
        init
    }

    /// What it means to our rules.
    pub(crate) fn context(&self, profile: Profile) -> Arc<Context> {
        let mut limits = Limits::for_network(Network::Regtest);
        limits.profile = profile;
        limits.max_to_self_delay = self.max_to_self_delay.try_into().unwrap();
        limits.min_effective_htlc_capacity = self.min_effective_htlc_capacity.to_amount_floor();
        limits.dust_limit_satoshis = self.config.dust_limit_satoshis;
        limits.to_self_delay = self.config.to_self_delay;
        limits.max_accepted_htlcs = self.config.max_accepted_htlcs;
        limits.htlc_minimum_msat = self.config.htlc_minimum_msat;
        limits.minimum_depth = self.minimum_depth;
        Arc::new(Context {
            chain_hash: self.chain_hash,
            features: self.features.clone(),
            limits,
            feerates: Some(self.feerates),
        })
    }
}

/// 6002, `openingd_funder_start`: the channel that lightningd wants.
pub(crate) struct FunderStart {
    pub(crate) ask: Ask,
    pub(crate) temporary_channel_id: ChannelId,
    /// Where lightningd's wallet finds the key of the upfront script.
    pub(crate) upfront_shutdown_wallet_index: Option<u32>,
}

impl FunderStart {
    pub(crate) fn of(recording: &Recording) -> Self {
        let mut body = Body::of(recording.read(LIGHTNINGD, 6002), 6002);
        let (funding_satoshis, push_msat) = (body.sat(), body.msat());
        let upfront_shutdown_script = body.script();
        let upfront_shutdown_wallet_index = body.optional(Body::u32);
        let (feerate_per_kw, anchor_feerate_per_kw) = (body.feerate(), body.feerate());
        let temporary_channel_id = ChannelId(body.array());
        let channel_flags = body.u8();
        assert_eq!(body.optional(Body::sat), None, "reserve");
        let channel_type = ChannelType::from_features(&body.channel_type()).unwrap();
        body.end();
        // lightningd gives both feerates, and openingd takes the one that goes with the type.
        let feerate_per_kw =
            if channel_type.has_anchors() { anchor_feerate_per_kw } else { feerate_per_kw };
        Self {
            ask: Ask {
                funding_satoshis,
                push_msat,
                feerate_per_kw,
                announce_channel: channel_flags == 1,
                channel_type: Some(channel_type),
                upfront_shutdown_script,
            },
            temporary_channel_id,
            upfront_shutdown_wallet_index,
        }
    }
}

/// 6102, `openingd_funder_start_reply`: what the wallet is to pay.
pub(crate) struct FunderStartReply {
    pub(crate) script_pubkey: ScriptBuf,
    pub(crate) upfront_shutdown_negotiated: bool,
    pub(crate) channel_type: ChannelTypeFeatures,
}

impl FunderStartReply {
    pub(crate) fn of(recording: &Recording) -> Self {
        let mut body = Body::of(recording.written(LIGHTNINGD, 6102), 6102);
        let length = body.u8();
        let reply = Self {
            script_pubkey: ScriptBuf::from_bytes(body.bytes(length.into()).to_vec()),
            upfront_shutdown_negotiated: body.bool(),
            channel_type: body.channel_type(),
        };
        body.end();
        reply
    }
}

/// 6012, `openingd_funder_complete`: the outpoint in the wallet's transaction.
pub(crate) fn funding_outpoint(recording: &Recording) -> OutPoint {
    let mut body = Body::of(recording.read(LIGHTNINGD, 6012), 6012);
    let outpoint = OutPoint { txid: body.txid(), vout: body.u16().into() };
    body.channel_type();
    body.end();
    outpoint
}

/// 6005, `openingd_got_offer`: what the fundee's lightningd is asked about.
pub(crate) struct GotOffer {
    pub(crate) funding_satoshis: Amount,
    pub(crate) push_msat: MilliSatoshi,
    pub(crate) config: ChannelConfig,
    pub(crate) feerate_per_kw: FeeratePerKw,
    pub(crate) channel_flags: u8,
    pub(crate) upfront_shutdown_script: Option<ScriptBuf>,
    pub(crate) channel_type: ChannelTypeFeatures,
}

impl GotOffer {
    pub(crate) fn of(recording: &Recording) -> Self {
        let mut body = Body::of(recording.written(LIGHTNINGD, 6005), 6005);
        let (funding_satoshis, push_msat) = (body.sat(), body.msat());
        let (dust_limit_satoshis, max_htlc_value_in_flight_msat) = (body.sat(), body.msat());
        let (channel_reserve_satoshis, htlc_minimum_msat) = (body.sat(), body.msat());
        let feerate_per_kw = body.feerate();
        let config = ChannelConfig {
            dust_limit_satoshis,
            max_htlc_value_in_flight_msat,
            channel_reserve_satoshis,
            htlc_minimum_msat,
            to_self_delay: body.u16(),
            max_accepted_htlcs: body.u16(),
        };
        let offer = Self {
            funding_satoshis,
            push_msat,
            config,
            feerate_per_kw,
            channel_flags: body.u8(),
            upfront_shutdown_script: body.script(),
            channel_type: body.channel_type(),
        };
        body.end();
        offer
    }
}

/// 6105, `openingd_got_offer_reply`: the terms on which lightningd accepts.
pub(crate) fn terms(recording: &Recording) -> Terms {
    let mut body = Body::of(recording.read(LIGHTNINGD, 6105), 6105);
    assert!(!body.bool(), "rejection");
    let mut terms = Terms::default();
    terms.upfront_shutdown_script = body.script();
    assert_eq!(body.optional(Body::u32), None, "our_shutdown_wallet_index");
    terms.channel_reserve_satoshis = body.optional(Body::sat);
    terms.minimum_depth = Some(body.u32());
    body.end();
    terms
}

/// What 6101 and 6003 begin with, about the peer and our first commitment.
pub(crate) struct Common {
    pub(crate) their_config: ChannelConfig,
    pub(crate) their_max_dust_htlc_exposure: MilliSatoshi,
    pub(crate) first_commit: RecordedTransaction,
    pub(crate) penalty_base: Option<PenaltyBase>,
    pub(crate) first_commit_sig: Signature,
    pub(crate) their_keys: ChannelKeys,
    pub(crate) their_per_commit_point: PublicKey,
    /// Of the funder only, who has it from the peer.
    pub(crate) minimum_depth: Option<u32>,
    pub(crate) funding: OutPoint,
}

impl Common {
    fn read(body: &mut Body<'_>, with_minimum_depth: bool) -> Self {
        let (their_config, their_max_dust_htlc_exposure) = body.config();
        let first_commit = body.transaction();
        let penalty_base = body.optional(|body| PenaltyBase {
            commitment_number: body.u64(),
            outpoint: body.outpoint(),
            amount: body.sat(),
        });
        let first_commit_sig = body.signature();
        let (revocation_basepoint, payment_basepoint) = (body.point(), body.point());
        let (htlc_basepoint, delayed_payment_basepoint) = (body.point(), body.point());
        let their_per_commit_point = body.point();
        let minimum_depth = with_minimum_depth.then(|| body.u32());
        let their_keys = ChannelKeys {
            funding_pubkey: body.point(),
            revocation_basepoint,
            payment_basepoint,
            delayed_payment_basepoint,
            htlc_basepoint,
        };
        Self {
            their_config,
            their_max_dust_htlc_exposure,
            first_commit,
            penalty_base,
            first_commit_sig,
            their_keys,
            their_per_commit_point,
            minimum_depth,
            funding: body.outpoint(),
        }
    }
}

/// 6101, `openingd_funder_reply`: the channel as the funder's lightningd gets it.
pub(crate) struct FunderReply {
    pub(crate) common: Common,
    pub(crate) feerate_per_kw: FeeratePerKw,
    pub(crate) our_channel_reserve_satoshis: Amount,
    pub(crate) remote_shutdown_script: Option<ScriptBuf>,
    pub(crate) channel_type: ChannelTypeFeatures,
}

impl FunderReply {
    pub(crate) fn of(recording: &Recording) -> Self {
        let mut body = Body::of(recording.written(LIGHTNINGD, 6101), 6101);
        let reply = Self {
            common: Common::read(&mut body, true),
            feerate_per_kw: body.feerate(),
            our_channel_reserve_satoshis: body.sat(),
            remote_shutdown_script: body.script(),
            channel_type: body.channel_type(),
        };
        body.end();
        reply
    }
}

/// 6003, `openingd_fundee`: the channel as the fundee's lightningd gets it.
pub(crate) struct Fundee {
    pub(crate) common: Common,
    pub(crate) funding_satoshis: Amount,
    pub(crate) push_msat: MilliSatoshi,
    pub(crate) channel_flags: u8,
    pub(crate) feerate_per_kw: FeeratePerKw,
    /// To be sent once the channel is saved.
    pub(crate) funding_signed: Vec<u8>,
    pub(crate) our_channel_reserve_satoshis: Amount,
    pub(crate) local_shutdown_script: Option<ScriptBuf>,
    pub(crate) remote_shutdown_script: Option<ScriptBuf>,
    pub(crate) channel_type: ChannelTypeFeatures,
}

impl Fundee {
    pub(crate) fn of(recording: &Recording) -> Self {
        let mut body = Body::of(recording.written(LIGHTNINGD, 6003), 6003);
        let fundee = Self {
            common: Common::read(&mut body, false),
            funding_satoshis: body.sat(),
            push_msat: body.msat(),
            channel_flags: body.u8(),
            feerate_per_kw: body.feerate(),
            funding_signed: body.counted().to_vec(),
            our_channel_reserve_satoshis: body.sat(),
            local_shutdown_script: body.script(),
            remote_shutdown_script: body.script(),
            channel_type: body.channel_type(),
        };
        body.end();
        fundee
    }
}

/// 6004, `openingd_failed`: why there is no channel.
pub(crate) fn failure(recording: &Recording) -> String {
    let mut body = Body::of(recording.written(LIGHTNINGD, 6004), 6004);
    let length = recording.written(LIGHTNINGD, 6004).len() - 2;
    let text = String::from_utf8(body.bytes(length).to_vec()).unwrap();
    text.strip_suffix('\0').unwrap().to_owned()
}
