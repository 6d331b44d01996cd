//! The side that answers `open_channel`.
//!
//! ```text
//!    | ---------- open_channel ----------> |
//!    |                          WaitForTerms, WaitForKeys
//!    | <--------- accept_channel --------- |
//!    |                          WaitForFundingCreated
//!    | --------- funding_created --------> |
//!    |                          WaitForSignature
//!    |                          Held<FundingSigned>
//!    | <--------- funding_signed --------- |
//! ```

use std::sync::Arc;

use bitcoin::constants::ChainHash;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::{OutPoint, ScriptBuf, Txid};
use lightning::ln::msgs::{AcceptChannel, FundingCreated, FundingSigned, OpenChannel};
use lightning::ln::types::ChannelId;
use opening_core::rules::{self, Stage};
use opening_core::{
    ChannelConfig, ChannelParameters, ChannelType, GoodSignature, Offer, Party, Refusal, Side,
    Terms,
};
use opening_signer::{ChannelRef, ChannelSetup, CommitmentRequest};

use super::mapping::{self, Offered};
use super::{Context, FirstCommitments, Held, LocalKeys, NegotiationError, Opened, secp};

/// An offer that breaks no rule: the node now decides.
#[derive(Debug)]
pub struct WaitForTerms {
    open_channel: Box<OpenChannel>,
    channel_type: ChannelType,
    context: Arc<Context>,
}

/// Judges the peer's offer.
pub fn open_channel(
    open_channel: Box<OpenChannel>,
    context: Arc<Context>,
) -> Result<WaitForTerms, Refusal> {
    let offer = mapping::offer(&open_channel);
    rules::judge(Stage::ReceiveOpenChannel, &context.proposal(offer, None))?;
    let channel_type = offer
        .channel_type
        .and_then(ChannelType::from_features)
        .expect("judged: the channel type is there and defined");
    Ok(WaitForTerms { open_channel, channel_type, context })
}

impl WaitForTerms {
    /// What the peer offers.
    pub fn offer(&self) -> Offer<'_> {
        mapping::offer(&self.open_channel)
    }

    /// The type that it offers.
    pub fn channel_type(&self) -> ChannelType {
        self.channel_type
    }

    /// The node's terms, which are judged like the peer's: a policy that asks for the impossible
    /// is refused before the peer or the signer hears of it.
    pub fn terms(self, terms: &Terms) -> Result<WaitForKeys, Refusal> {
        let Self { open_channel, channel_type, context } = self;
        let offer = mapping::offer(&open_channel);
        let answer = context.limits.answer(&offer, terms);
        rules::judge(Stage::SendAcceptChannel, &context.proposal(offer, Some(answer)))?;
        let config = answer.config;
        let minimum_depth = answer.minimum_depth;
        let offered = Offered {
            temporary_channel_id: open_channel.common_fields.temporary_channel_id,
            funding_satoshis: offer.funding_satoshis,
            push_msat: offer.push_msat,
            feerate_per_kw: offer.feerate_per_kw,
            announce_channel: offer.announce_channel,
            channel_type,
        };
        let remote_script = open_channel.common_fields.shutdown_scriptpubkey.as_ref();
        Ok(WaitForKeys {
            remote: mapping::opener(&open_channel),
            remote_shutdown_script: context.binding_script(remote_script),
            local_shutdown_script: terms.upfront_shutdown_script.clone(),
            offered,
            config,
            minimum_depth,
            context,
        })
    }
}

/// Accepted: the signer may be asked for keys.
#[derive(Debug)]
pub struct WaitForKeys {
    offered: Offered,
    remote: Party,
    config: ChannelConfig,
    minimum_depth: u32,
    local_shutdown_script: Option<ScriptBuf>,
    remote_shutdown_script: Option<ScriptBuf>,
    context: Arc<Context>,
}

impl WaitForKeys {
    /// The signer gave the channel's keys: `accept_channel` can be sent.
    pub fn keys(self, local: LocalKeys) -> (AcceptChannel, WaitForFundingCreated) {
        let party = local.party(self.config);
        let script = self.local_shutdown_script.as_ref();
        let message = mapping::accept_channel(&self.offered, self.minimum_depth, &party, script);
        let state = WaitForFundingCreated {
            reference: local.reference,
            chain_hash: self.context.chain_hash,
            local_shutdown_script: self.context.binding_script(script),
            offered: self.offered,
            local: party,
            remote: self.remote,
            minimum_depth: self.minimum_depth,
            remote_shutdown_script: self.remote_shutdown_script,
        };
        (message, state)
    }
}

/// `accept_channel` is out.  This is all that a pending inbound opening costs: plain fields, no
/// message, no task.
#[derive(Debug)]
pub struct WaitForFundingCreated {
    reference: ChannelRef,
    chain_hash: ChainHash,
    offered: Offered,
    local: Party,
    remote: Party,
    minimum_depth: u32,
    local_shutdown_script: Option<ScriptBuf>,
    remote_shutdown_script: Option<ScriptBuf>,
}

/// The `channel_id` of an outpoint that a peer or a wallet names.
pub(super) fn channel_id(outpoint: OutPoint) -> Result<ChannelId, NegotiationError> {
    let id = opening_core::channel_id(outpoint);
    match id {
        // No transaction has the id of zeros; Core Lightning's openingd aborted on it (#9530).  A
        // channel id of zeros means all channels in `error` (B1-ERR-S-01).
        Some(id) if outpoint.txid != Txid::all_zeros() && id != [0; 32] => Ok(ChannelId(id)),
        _ => Err(NegotiationError::ImpossibleOutpoint(outpoint)),
    }
}

impl WaitForFundingCreated {
    /// Checks the peer's signature on our first commitment (B2-FC-R-01).
    pub fn funding_created(
        self,
        message: &FundingCreated,
    ) -> Result<WaitForSignature, NegotiationError> {
        let outpoint =
            OutPoint { txid: message.funding_txid, vout: message.funding_output_index.into() };
        let channel_id = channel_id(outpoint)?;
        let parameters = ChannelParameters {
            opener: Side::Remote,
            funding_outpoint: outpoint,
            funding_satoshis: self.offered.funding_satoshis,
            push_msat: self.offered.push_msat,
            feerate_per_kw: self.offered.feerate_per_kw,
            channel_type: self.offered.channel_type,
            local: self.local,
            remote: self.remote,
        };
        let commitments = FirstCommitments::build(&parameters)?;
        let their_key = &parameters.remote.keys.funding_pubkey;
        let proof = commitments.local.good_signature(secp(), &message.signature, their_key);
        let Some(remote_signature) = proof else {
            let transaction = Box::new(commitments.local.transaction);
            return Err(NegotiationError::BadSignature { transaction });
        };
        Ok(WaitForSignature {
            reference: self.reference,
            offered: self.offered,
            minimum_depth: self.minimum_depth,
            channel_id,
            setup: ChannelSetup {
                parameters,
                chain_hash: self.chain_hash,
                local_shutdown_script: self.local_shutdown_script,
                remote_shutdown_script: self.remote_shutdown_script,
            },
            commitments,
            remote_signature,
        })
    }
}

/// The peer's signature is good: the signer is to hold it before it signs the peer's commitment.
#[derive(Debug)]
pub struct WaitForSignature {
    reference: ChannelRef,
    offered: Offered,
    minimum_depth: u32,
    channel_id: ChannelId,
    setup: ChannelSetup,
    commitments: FirstCommitments,
    remote_signature: GoodSignature,
}

impl WaitForSignature {
    /// The id of the channel from now on.
    pub fn channel_id(&self) -> ChannelId {
        self.channel_id
    }

    /// What the signer is told before it validates and signs.
    pub fn setup(&self) -> &ChannelSetup {
        &self.setup
    }

    /// Our first commitment.
    pub fn local_commitment(&self) -> CommitmentRequest<'_> {
        CommitmentRequest {
            proof: Some(self.remote_signature),
            ..CommitmentRequest::first(&self.setup.parameters, &self.commitments.local)
        }
    }

    /// The peer's signature on it.
    pub fn remote_signature(&self) -> &Signature {
        self.remote_signature.signature()
    }

    /// The transaction to sign for the peer.
    pub fn remote_commitment(&self) -> CommitmentRequest<'_> {
        CommitmentRequest::first(&self.setup.parameters, &self.commitments.remote)
    }

    /// The signer holds the peer's signature for good and signed: once the channel is saved,
    /// `funding_signed` may be sent.
    pub fn signature(self, signature: Signature) -> Held<FundingSigned> {
        let WaitForSignature {
            reference,
            offered,
            minimum_depth,
            channel_id,
            setup,
            commitments,
            remote_signature,
        } = self;
        let opened = Opened {
            reference,
            temporary_channel_id: offered.temporary_channel_id,
            channel_id,
            parameters: setup.parameters,
            announce_channel: offered.announce_channel,
            minimum_depth,
            local_shutdown_script: setup.local_shutdown_script,
            remote_shutdown_script: setup.remote_shutdown_script,
            local_commitment: commitments.local,
            remote_commitment: commitments.remote,
            remote_signature: *remote_signature.signature(),
            local_signature: signature,
            funding_transaction: None,
            batch: Vec::new(),
        };
        Held::new(opened, FundingSigned { channel_id, signature })
    }
}
