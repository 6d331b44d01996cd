//! The messages of hsmd's wire that opening a channel takes, in both directions.
//!
//! Each begins with its type.  The layouts are those of Core Lightning's `hsmd_wire.csv`, versions 5
//! and 6 of the wire, which differ in messages that are not here.

use bitcoin::hashes::Hash;
use bitcoin::secp256k1::PublicKey;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::{Amount, OutPoint, ScriptBuf, Txid};
use lightning::types::features::ChannelTypeFeatures;
use opening_core::{ChannelKeys, ChannelType, MilliSatoshi};

use super::psbt::BitcoinTx;
use super::value::{HsmdReader, HsmdWrite};
use crate::remote::codec::{Malformed, Reader, Write};
use crate::remote::envelope::is_hello;
use crate::request::ChannelRef;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    Init(Init),
    InitReply(InitReply),
    InitFailure(String),
    NewChannel(ChannelRef),
    NewChannelReply,
    GetChannelBasepoints(ChannelRef),
    GetChannelBasepointsReply(ChannelKeys),
    ClientHsmfd { reference: ChannelRef, permissions: u64 },
    ClientHsmfdReply,
    GetPerCommitmentPoint(u64),
    GetPerCommitmentPointReply(PublicKey),
    SetupChannel(Box<SetupChannel>),
    SetupChannelReply,
    SignRemoteCommitmentTx(Box<SignRemoteCommitmentTx>),
    SignTxReply(Signature),
    ValidateCommitmentTx(Box<ValidateCommitmentTx>),
    ValidateCommitmentTxReply { next_per_commitment_point: PublicKey },
    SignCommitmentTx(Box<SignCommitmentTx>),
    SignCommitmentTxReply(Signature),
    CheckPubkey { index: u32, key: PublicKey },
    CheckPubkeyReply(bool),
    ForgetChannel(ChannelRef),
    ForgetChannelReply,
}

/// 11: what the signer is told first.  No secret is ever sent: it has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Init {
    /// Version bytes of extended public and private keys: they tell a main network.
    pub(super) bip32_versions: [u32; 2],
    pub(super) genesis_hash: [u8; 32],
    pub(super) min_version: u32,
    pub(super) max_version: u32,
}

/// 114: what it says of itself.  Keys of wallet and invoices are not for here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InitReply {
    pub(super) version: u32,
    /// Types of the requests that it knows.
    pub(super) capabilities: Vec<u32>,
    pub(super) node_id: PublicKey,
    pub(super) bolt12_key: PublicKey,
}

/// 31.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SetupChannel {
    pub(super) is_outbound: bool,
    pub(super) channel_value: Amount,
    pub(super) push_value: MilliSatoshi,
    pub(super) funding_outpoint: OutPoint,
    /// Blocks: what we ask of the peer, not what we have to bear.
    pub(super) local_to_self_delay: u16,
    pub(super) local_shutdown_script: Option<ScriptBuf>,
    pub(super) remote_keys: ChannelKeys,
    /// Blocks: what the peer asks of us.
    pub(super) remote_to_self_delay: u16,
    pub(super) remote_shutdown_script: Option<ScriptBuf>,
    pub(super) channel_type: ChannelType,
}

/// 19.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SignRemoteCommitmentTx {
    pub(super) tx: BitcoinTx,
    pub(super) remote_funding_key: PublicKey,
    pub(super) remote_per_commitment_point: PublicKey,
    pub(super) number: u64,
    /// sat per 1000 weight units; Core Lightning gives 0 for commitment 0.
    pub(super) feerate: u32,
}

/// 35.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ValidateCommitmentTx {
    pub(super) tx: BitcoinTx,
    pub(super) number: u64,
    /// As in 19.
    pub(super) feerate: u32,
    pub(super) signature: Signature,
}

/// 5.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SignCommitmentTx {
    pub(super) reference: ChannelRef,
    pub(super) tx: BitcoinTx,
    pub(super) remote_funding_key: PublicKey,
    pub(super) number: u64,
}

impl Message {
    pub(super) const fn type_number(&self) -> u16 {
        match self {
            Self::SignCommitmentTx(_) => 5,
            Self::ClientHsmfd { .. } => 9,
            Self::GetChannelBasepoints(_) => 10,
            Self::Init(_) => 11,
            Self::GetPerCommitmentPoint(_) => 18,
            Self::SignRemoteCommitmentTx(_) => 19,
            Self::CheckPubkey { .. } => 28,
            Self::NewChannel(_) => 30,
            Self::SetupChannel(_) => 31,
            Self::ForgetChannel(_) => 34,
            Self::ValidateCommitmentTx(_) => 35,
            Self::SignCommitmentTxReply(_) => 105,
            Self::ClientHsmfdReply => 109,
            Self::GetChannelBasepointsReply(_) => 110,
            Self::SignTxReply(_) => 112,
            Self::InitReply(_) => 114,
            Self::InitFailure(_) => 115,
            Self::GetPerCommitmentPointReply(_) => 118,
            Self::CheckPubkeyReply(_) => 128,
            Self::NewChannelReply => 130,
            Self::SetupChannelReply => 131,
            Self::ForgetChannelReply => 134,
            Self::ValidateCommitmentTxReply { .. } => 135,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut to = Vec::new();
        to.put_u16(self.type_number());
        match self {
            Self::Init(init) => init.write(&mut to),
            Self::InitReply(reply) => reply.write(&mut to),
            Self::InitFailure(text) => {
                to.put_u32(INIT_FAILED);
                to.put_text(text);
            }
            Self::NewChannel(reference)
            | Self::GetChannelBasepoints(reference)
            | Self::ForgetChannel(reference) => to.put_reference(*reference),
            Self::GetChannelBasepointsReply(keys) => to.put_keys(keys),
            Self::ClientHsmfd { reference, permissions } => {
                to.put_reference(*reference);
                to.put_u64(*permissions);
            }
            Self::GetPerCommitmentPoint(number) => to.put_u64(*number),
            Self::GetPerCommitmentPointReply(point) => {
                to.put_public_key(point);
                to.put_bool(false); // old_commitment_secret
            }
            Self::SetupChannel(setup) => setup.write(&mut to),
            Self::SignRemoteCommitmentTx(request) => request.write(&mut to),
            Self::SignTxReply(signature) | Self::SignCommitmentTxReply(signature) => {
                to.put_signature(signature);
            }
            Self::ValidateCommitmentTx(request) => request.write(&mut to),
            Self::ValidateCommitmentTxReply { next_per_commitment_point } => {
                to.put_bool(false); // old_commitment_secret
                to.put_public_key(next_per_commitment_point);
            }
            Self::SignCommitmentTx(request) => request.write(&mut to),
            Self::CheckPubkey { index, key } => {
                to.put_u32(*index);
                to.put_public_key(key);
            }
            Self::CheckPubkeyReply(ok) => to.put_bool(*ok),
            Self::NewChannelReply
            | Self::ClientHsmfdReply
            | Self::SetupChannelReply
            | Self::ForgetChannelReply => {}
        }
        to
    }

    /// Fails for types that are not here, for what means nothing, and for replies that carry a
    /// secret where opening a channel must not learn one.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        if is_hello(bytes) {
            return Err(Malformed::OtherWire("the enveloped wire, not hsmd's"));
        }
        let from = &mut Reader::new(bytes);
        let message = match from.u16("a message's type")? {
            5 => Self::SignCommitmentTx(Box::new(SignCommitmentTx::read(from)?)),
            9 => Self::ClientHsmfd {
                reference: from.reference()?,
                permissions: from.u64("permissions")?,
            },
            10 => Self::GetChannelBasepoints(from.reference()?),
            11 => Self::Init(Init::read(from)?),
            18 => Self::GetPerCommitmentPoint(from.u64("n")?),
            19 => Self::SignRemoteCommitmentTx(Box::new(SignRemoteCommitmentTx::read(from)?)),
            28 => Self::CheckPubkey { index: from.u32("index")?, key: from.public_key("pubkey")? },
            30 => Self::NewChannel(from.reference()?),
            31 => Self::SetupChannel(Box::new(SetupChannel::read(from)?)),
            34 => Self::ForgetChannel(from.reference()?),
            35 => Self::ValidateCommitmentTx(Box::new(ValidateCommitmentTx::read(from)?)),
            105 => Self::SignCommitmentTxReply(from.signature("sig")?),
            109 => Self::ClientHsmfdReply,
            110 => Self::GetChannelBasepointsReply(from.keys()?),
            112 => Self::SignTxReply(from.signature("sig")?),
            114 => Self::InitReply(InitReply::read(from)?),
            115 => {
                from.u32("error_code")?;
                Self::InitFailure(from.text("error_message")?)
            }
            118 => {
                let point = from.public_key("per_commitment_point")?;
                from.no_secret("old_commitment_secret")?;
                Self::GetPerCommitmentPointReply(point)
            }
            128 => Self::CheckPubkeyReply(from.bool("ok")?),
            130 => Self::NewChannelReply,
            131 => Self::SetupChannelReply,
            134 => Self::ForgetChannelReply,
            135 => {
                from.no_secret("old_commitment_secret")?;
                let next_per_commitment_point = from.public_key("next_per_commitment_point")?;
                Self::ValidateCommitmentTxReply { next_per_commitment_point }
            }
            _ => return Err(Malformed::Invalid("a message's type")),
        };
        from.end()?;
        Ok(message)
    }
}

/// hsmd's own code for a failed start.
const INIT_FAILED: u32 = 1;

/// Of an extended public key.
const EXTENDED_KEY: usize = 78;

impl Init {
    fn write(&self, to: &mut Vec<u8>) {
        let Self { bip32_versions, genesis_hash, min_version, max_version } = self;
        bip32_versions.iter().for_each(|version| to.put_u32(*version));
        to.put(genesis_hash);
        // Encryption key, node key, BIP 32 seed, channel secrets, their shachain seed.
        (0..5).for_each(|_| to.put_bool(false));
        to.put_u32(*min_version);
        to.put_u32(*max_version);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let bip32_versions = [from.u32("bip32_key_version")?, from.u32("bip32_key_version")?];
        let genesis_hash = from.array("chainparams")?;
        for what in [
            "hsm_encryption_key",
            "dev_force_privkey",
            "dev_force_bip32_seed",
            "dev_force_channel_secrets",
            "dev_force_channel_secrets_shaseed",
        ] {
            from.no_secret(what)?;
        }
        let min_version = from.u32("hsm_wire_min_version")?;
        let max_version = from.u32("hsm_wire_max_version")?;
        // A passphrase (1) would have to be used: whoever sends it relies on it.
        from.skip_tlvs(|number| number % 2 == 1 && number != 1)?;
        Ok(Self { bip32_versions, genesis_hash, min_version, max_version })
    }
}

impl InitReply {
    fn write(&self, to: &mut Vec<u8>) {
        to.put_u32(self.version);
        to.put_u16(u16::try_from(self.capabilities.len()).expect("a few types"));
        self.capabilities.iter().for_each(|number| to.put_u32(*number));
        to.put_public_key(&self.node_id);
        to.put(&[0; EXTENDED_KEY]);
        to.put_public_key(&self.bolt12_key);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let version = from.u32("hsm_version")?;
        let count = from.u16("num_hsm_capabilities")?;
        let bytes = from.bytes(usize::from(count) * 4, "hsm_capabilities")?;
        let (numbers, _) = bytes.as_chunks();
        let capabilities = numbers.iter().map(|number| u32::from_be_bytes(*number)).collect();
        let node_id = from.public_key("node_id")?;
        from.bytes(EXTENDED_KEY, "bip32")?;
        let bolt12_key = from.public_key("bolt12")?;
        // The kind of the secret (1) and a base for wallet keys (2) are known and not needed.
        from.skip_tlvs(|number| number % 2 == 1 || number == 2)?;
        Ok(Self { version, capabilities, node_id, bolt12_key })
    }
}

impl SetupChannel {
    fn write(&self, to: &mut Vec<u8>) {
        to.put_bool(self.is_outbound);
        to.put_u64(self.channel_value.to_sat());
        to.put_u64(self.push_value.to_msat());
        to.put(&self.funding_outpoint.txid.to_byte_array());
        let vout = u16::try_from(self.funding_outpoint.vout);
        to.put_u16(vout.expect("an outpoint with a larger index is refused before"));
        to.put_u16(self.local_to_self_delay);
        to.put_script(self.local_shutdown_script.as_deref());
        to.put_bool(false); // local_shutdown_wallet_index
        to.put_keys(&self.remote_keys);
        to.put_u16(self.remote_to_self_delay);
        to.put_script(self.remote_shutdown_script.as_deref());
        // Bitmaps of features are big-endian on the wire.
        let mut features = self.channel_type.to_features().le_flags().to_vec();
        features.reverse();
        to.put_short_bytes(&features);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let is_outbound = from.bool("is_outbound")?;
        let channel_value = Amount::from_sat(from.u64("channel_value")?);
        let push_value = MilliSatoshi::from_msat(from.u64("push_value")?);
        let txid = Txid::from_byte_array(from.array("funding_txid")?);
        let vout = from.u16("funding_txout")?.into();
        let local_to_self_delay = from.u16("local_to_self_delay")?;
        let local_shutdown_script = from.script("local_shutdown_script")?;
        if from.bool("local_shutdown_wallet_index")? {
            from.u32("local_shutdown_wallet_index")?;
        }
        let remote_keys = from.keys()?;
        let remote_to_self_delay = from.u16("remote_to_self_delay")?;
        let remote_shutdown_script = from.script("remote_shutdown_script")?;
        let mut features = from.short_bytes("channel_type")?.to_vec();
        features.reverse();
        let channel_type =
            ChannelType::from_features(&ChannelTypeFeatures::from_le_bytes(features))
                .ok_or(Malformed::Invalid("channel_type"))?;
        Ok(Self {
            is_outbound,
            channel_value,
            push_value,
            funding_outpoint: OutPoint { txid, vout },
            local_to_self_delay,
            local_shutdown_script,
            remote_keys,
            remote_to_self_delay,
            remote_shutdown_script,
            channel_type,
        })
    }
}

impl SignRemoteCommitmentTx {
    fn write(&self, to: &mut Vec<u8>) {
        to.put_tx(&self.tx);
        to.put_public_key(&self.remote_funding_key);
        to.put_public_key(&self.remote_per_commitment_point);
        to.put_bool(true); // option_static_remotekey
        to.put_u64(self.number);
        to.put_u16(0); // num_htlcs
        to.put_u32(self.feerate);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let tx = from.tx()?;
        let remote_funding_key = from.public_key("remote_funding_key")?;
        let remote_per_commitment_point = from.public_key("remote_per_commit")?;
        if !from.bool("option_static_remotekey")? {
            return Err(Malformed::Invalid("option_static_remotekey"));
        }
        let number = from.u64("commit_num")?;
        from.none("num_htlcs")?;
        let feerate = from.u32("feerate")?;
        Ok(Self { tx, remote_funding_key, remote_per_commitment_point, number, feerate })
    }
}

impl ValidateCommitmentTx {
    fn write(&self, to: &mut Vec<u8>) {
        to.put_tx(&self.tx);
        to.put_u16(0); // num_htlcs
        to.put_u64(self.number);
        to.put_u32(self.feerate);
        to.put_signature(&self.signature);
        to.put_u16(0); // num_htlc_sigs
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let tx = from.tx()?;
        from.none("num_htlcs")?;
        let (number, feerate) = (from.u64("commit_num")?, from.u32("feerate")?);
        let signature = from.signature("sig")?;
        from.none("num_htlc_sigs")?;
        Ok(Self { tx, number, feerate, signature })
    }
}

impl SignCommitmentTx {
    fn write(&self, to: &mut Vec<u8>) {
        to.put_reference(self.reference);
        to.put_tx(&self.tx);
        to.put_public_key(&self.remote_funding_key);
        to.put_u64(self.number);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            reference: from.reference()?,
            tx: from.tx()?,
            remote_funding_key: from.public_key("remote_funding_key")?,
            number: from.u64("commit_num")?,
        })
    }
}
