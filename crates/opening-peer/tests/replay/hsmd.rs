//! The messages between openingd and hsmd.

use bitcoin::secp256k1::PublicKey;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::{Amount, OutPoint, ScriptBuf};
use lightning::types::features::ChannelTypeFeatures;
use opening_core::{ChannelKeys, MilliSatoshi};

use crate::recording::{HSMD, Recording};
use crate::wire::{Body, RecordedTransaction};

/// 18 and 118, `hsmd_get_per_commitment_point`: the point of commitment 0.
pub(crate) fn first_per_commitment_point(recording: &Recording) -> PublicKey {
    let mut request = Body::of(recording.written(HSMD, 18), 18);
    assert_eq!(request.u64(), 0);
    request.end();
    let mut reply = Body::of(recording.read(HSMD, 118), 118);
    let point = reply.point();
    assert_eq!(reply.optional(Body::array::<32>), None, "old_commitment_secret");
    reply.end();
    point
}

/// 31, `hsmd_setup_channel`.
#[derive(Debug)]
pub(crate) struct SetupChannel {
    pub(crate) is_outbound: bool,
    pub(crate) channel_value: Amount,
    pub(crate) push_value: MilliSatoshi,
    pub(crate) funding: OutPoint,
    /// The delay that the node asked for, not the one that it has to bear.
    pub(crate) local_to_self_delay: u16,
    pub(crate) local_shutdown_script: Option<ScriptBuf>,
    pub(crate) local_shutdown_wallet_index: Option<u32>,
    pub(crate) remote_keys: ChannelKeys,
    pub(crate) remote_to_self_delay: u16,
    pub(crate) remote_shutdown_script: Option<ScriptBuf>,
    pub(crate) channel_type: ChannelTypeFeatures,
}

impl SetupChannel {
    pub(crate) fn of(recording: &Recording) -> Self {
        let mut body = Body::of(recording.written(HSMD, 31), 31);
        let setup = Self {
            is_outbound: body.bool(),
            channel_value: body.sat(),
            push_value: body.msat(),
            funding: OutPoint { txid: body.txid(), vout: body.u16().into() },
            local_to_self_delay: body.u16(),
            local_shutdown_script: body.script(),
            local_shutdown_wallet_index: body.optional(Body::u32),
            remote_keys: body.keys(),
            remote_to_self_delay: body.u16(),
            remote_shutdown_script: body.script(),
            channel_type: body.channel_type(),
        };
        body.end();
        Body::of(recording.read(HSMD, 131), 131).end();
        setup
    }
}

/// 19 and 112, `hsmd_sign_remote_commitment_tx`.
pub(crate) struct SignRemoteCommitment {
    pub(crate) transaction: RecordedTransaction,
    pub(crate) remote_funding_key: PublicKey,
    pub(crate) remote_per_commit: PublicKey,
    pub(crate) commit_num: u64,
    pub(crate) feerate: u32,
    pub(crate) signature: Signature,
}

impl SignRemoteCommitment {
    pub(crate) fn of(recording: &Recording) -> Self {
        let mut body = Body::of(recording.written(HSMD, 19), 19);
        let transaction = body.transaction();
        let (remote_funding_key, remote_per_commit) = (body.point(), body.point());
        assert!(body.bool(), "option_static_remotekey");
        let commit_num = body.u64();
        assert_eq!(body.u16(), 0, "num_htlcs");
        let feerate = body.u32();
        body.end();
        let mut reply = Body::of(recording.read(HSMD, 112), 112);
        let signature = reply.signature();
        reply.end();
        Self { transaction, remote_funding_key, remote_per_commit, commit_num, feerate, signature }
    }
}

/// 35 and 135, `hsmd_validate_commitment_tx`.
pub(crate) struct ValidateCommitment {
    pub(crate) transaction: RecordedTransaction,
    pub(crate) commit_num: u64,
    pub(crate) feerate: u32,
    pub(crate) signature: Signature,
    pub(crate) next_per_commitment_point: PublicKey,
}

impl ValidateCommitment {
    pub(crate) fn of(recording: &Recording) -> Self {
        let mut body = Body::of(recording.written(HSMD, 35), 35);
        let transaction = body.transaction();
        assert_eq!(body.u16(), 0, "num_htlcs");
        let (commit_num, feerate) = (body.u64(), body.u32());
        let signature = body.signature();
        assert_eq!(body.u16(), 0, "num_htlc_sigs");
        body.end();
        let mut reply = Body::of(recording.read(HSMD, 135), 135);
        assert_eq!(reply.optional(Body::array::<32>), None, "old_commitment_secret");
        let next_per_commitment_point = reply.point();
        reply.end();
        Self { transaction, commit_num, feerate, signature, next_per_commitment_point }
    }
}
