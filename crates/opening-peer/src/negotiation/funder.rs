//! The side that sends `open_channel` and pays.
//!
//! ```text
//!  WaitForKeys
//!    | ---------- open_channel ----------> |
//!  WaitForAcceptChannel                    |
//!    | <--------- accept_channel --------- |
//!  WaitForFunding, WaitForSignature        |
//!    | --------- funding_created --------> |
//!  WaitForFundingSigned                    |
//!    | <--------- funding_signed --------- |
//!  WaitForValidation
//!  Held<BroadcastPermit>
//! ```

use std::sync::Arc;

use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::{Amount, OutPoint, Script, ScriptBuf, Transaction};
use lightning::ln::msgs::{AcceptChannel, FundingCreated, FundingSigned, OpenChannel};
use lightning::ln::types::ChannelId;
use opening_core::rules::{self, Stage};
use opening_core::{
    ChannelConfig, ChannelParameters, ChannelType, FeeratePerKw, FundingOutput, GoodSignature,
    MilliSatoshi, Offer, Party, Refusal, Side,
};
use opening_signer::{ChannelSetup, CommitmentRequest};

use super::mapping::{self, Offered};
use super::{
    BroadcastPermit, Context, FirstCommitments, Held, LocalKeys, NegotiationError, Opened, fundee,
    secp,
};

/// The channel that the node wants.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Satoshis, the channel's capacity.
    pub funding_satoshis: Amount,
    /// Millisatoshis given to the peer, unconditionally (B2-OPEN-B-02).
    pub push_msat: MilliSatoshi,
    /// sat per 1000 weight units of the commitment transactions.
    pub feerate_per_kw: FeeratePerKw,
    /// Whether both sides will announce the channel.
    pub announce_channel: bool,
    /// The type to ask for; by default the best that both sides offer.
    pub channel_type: Option<ChannelType>,
    /// The script that our closing output must pay, whoever holds our keys then.
    pub upfront_shutdown_script: Option<ScriptBuf>,
}

impl Ask {
    /// A channel that nobody else will hear of, of the best type that both offer, with nothing
    /// pushed and no closing script fixed.
    pub fn new(funding_satoshis: Amount, feerate_per_kw: FeeratePerKw) -> Self {
        Self {
            funding_satoshis,
            push_msat: MilliSatoshi::ZERO,
            feerate_per_kw,
            announce_channel: false,
            channel_type: None,
            upfront_shutdown_script: None,
        }
    }
}

/// The ask is within the BOLT and our limits: the signer may be asked for keys.
#[derive(Debug)]
pub struct WaitForKeys {
    ask: Ask,
    channel_type: ChannelType,
    config: ChannelConfig,
    context: Arc<Context>,
}

/// Judges what we are about to ask for.
pub fn offer(ask: Ask, context: Arc<Context>) -> Result<WaitForKeys, Refusal> {
    let best = || ChannelType::best_of(&context.features, context.limits.channel_types);
    let channel_type = ask.channel_type.unwrap_or_else(best);
    let config = context.limits.config_for_open(ask.funding_satoshis);
    let features = channel_type.to_features();
    let offer = Offer {
        chain_hash: context.chain_hash,
        funding_satoshis: ask.funding_satoshis,
        push_msat: ask.push_msat,
        feerate_per_kw: ask.feerate_per_kw,
        announce_channel: ask.announce_channel,
        channel_type: Some(&features),
        config,
        upfront_shutdown_script: Some(
            ask.upfront_shutdown_script.as_deref().unwrap_or(Script::new()),
        ),
    };
    rules::judge(Stage::SendOpenChannel, &context.proposal(offer, None))?;
    Ok(WaitForKeys { ask, channel_type, config, context })
}

impl WaitForKeys {
    /// The signer gave the channel's keys: `open_channel` can be sent.
    pub fn keys(self, local: LocalKeys, temporary_channel_id: ChannelId) -> WaitForAcceptChannel {
        let Self { ask, channel_type, config, context } = self;
        let offered = Offered {
            temporary_channel_id,
            funding_satoshis: ask.funding_satoshis,
            push_msat: ask.push_msat,
            feerate_per_kw: ask.feerate_per_kw,
            announce_channel: ask.announce_channel,
            channel_type,
        };
        let party = local.party(config);
        let script = ask.upfront_shutdown_script;
        let open_channel =
            mapping::open_channel(&offered, context.chain_hash, &party, script.as_ref());
        let local_shutdown_script = context.binding_script(script.as_ref());
        WaitForAcceptChannel { open_channel, offered, local, local_shutdown_script, context }
    }
}

/// `open_channel` is made; once it is out, the peer's answer can come.
#[derive(Debug)]
pub struct WaitForAcceptChannel {
    // Kept whole, because the answer is judged against it.  Only our own openings cost this much.
    open_channel: OpenChannel,
    offered: Offered,
    local: LocalKeys,
    local_shutdown_script: Option<ScriptBuf>,
    context: Arc<Context>,
}

impl WaitForAcceptChannel {
    /// The message to send.
    pub fn open_channel(&self) -> &OpenChannel {
        &self.open_channel
    }

    /// Judges the peer's answer; on success the funding output is known.
    pub fn accept_channel(self, message: &AcceptChannel) -> Result<WaitForFunding, Refusal> {
        let Self { open_channel, offered, local, local_shutdown_script, context } = self;
        let (offer, answer) = (mapping::offer(&open_channel), mapping::answer(message));
        rules::judge(Stage::ReceiveAcceptChannel, &context.proposal(offer, Some(answer)))?;
        let minimum_depth = answer.effective_minimum_depth();
        let remote_script = message.common_fields.shutdown_scriptpubkey.as_ref();
        Ok(WaitForFunding {
            local: local.party(offer.config),
            remote: mapping::accepter(message),
            remote_shutdown_script: context.binding_script(remote_script),
            reference: local.reference,
            chain_hash: context.chain_hash,
            offered,
            minimum_depth,
            local_shutdown_script,
        })
    }
}

/// What is remembered of a funding transaction.
#[derive(Clone, Debug, Default)]
pub struct Funding {
    /// As the wallet showed it, if it did.
    pub transaction: Option<Transaction>,
    /// The other channels that it funds.
    pub batch: Vec<ChannelId>,
}

/// The peer accepted: the node's wallet is to build the funding transaction.
#[derive(Debug)]
pub struct WaitForFunding {
    reference: opening_signer::ChannelRef,
    chain_hash: bitcoin::constants::ChainHash,
    offered: Offered,
    local: Party,
    remote: Party,
    minimum_depth: u32,
    local_shutdown_script: Option<ScriptBuf>,
    remote_shutdown_script: Option<ScriptBuf>,
}

impl WaitForFunding {
    /// What the funding transaction has to pay.
    pub fn funding_output(&self) -> FundingOutput {
        FundingOutput::new(
            self.offered.funding_satoshis,
            &self.local.keys.funding_pubkey,
            &self.remote.keys.funding_pubkey,
        )
    }

    /// Whether the peer is bound to close to a script of its own choice.
    pub fn remote_shutdown_script(&self) -> Option<&ScriptBuf> {
        self.remote_shutdown_script.as_ref()
    }

    /// The wallet built the funding transaction.  It must not be broadcast yet (B2-FC-S-03).
    pub fn funding(self, outpoint: OutPoint) -> Result<WaitForSignature, NegotiationError> {
        let channel_id = fundee::channel_id(outpoint)?;
        let parameters = ChannelParameters {
            opener: Side::Local,
            funding_outpoint: outpoint,
            funding_satoshis: self.offered.funding_satoshis,
            push_msat: self.offered.push_msat,
            feerate_per_kw: self.offered.feerate_per_kw,
            channel_type: self.offered.channel_type,
            local: self.local,
            remote: self.remote,
        };
        let commitments = FirstCommitments::build(&parameters)?;
        let setup = ChannelSetup {
            parameters,
            chain_hash: self.chain_hash,
            local_shutdown_script: self.local_shutdown_script,
            remote_shutdown_script: self.remote_shutdown_script,
        };
        Ok(WaitForSignature {
            reference: self.reference,
            offered: self.offered,
            minimum_depth: self.minimum_depth,
            channel_id,
            setup,
            commitments,
        })
    }
}

/// The signer is to sign the peer's first commitment.
#[derive(Debug)]
pub struct WaitForSignature {
    reference: opening_signer::ChannelRef,
    offered: Offered,
    minimum_depth: u32,
    channel_id: ChannelId,
    setup: ChannelSetup,
    commitments: FirstCommitments,
}

impl WaitForSignature {
    /// The id of the channel from now on.
    pub fn channel_id(&self) -> ChannelId {
        self.channel_id
    }

    /// What the signer is told before it signs.
    pub fn setup(&self) -> &ChannelSetup {
        &self.setup
    }

    /// The transaction to sign for the peer.
    pub fn remote_commitment(&self) -> CommitmentRequest<'_> {
        CommitmentRequest::first(&self.setup.parameters, &self.commitments.remote)
    }

    /// The signer signed: `funding_created` can be sent.
    pub fn signature(self, signature: Signature) -> (FundingCreated, WaitForFundingSigned) {
        let outpoint = self.setup.parameters.funding_outpoint;
        let funding_created = FundingCreated {
            temporary_channel_id: self.offered.temporary_channel_id,
            funding_txid: outpoint.txid,
            funding_output_index: u16::try_from(outpoint.vout)
                .expect("checked in funding(): it has a channel_id"),
            signature,
        };
        (funding_created, WaitForFundingSigned { state: self, local_signature: signature })
    }
}

/// `funding_created` is out.
#[derive(Debug)]
pub struct WaitForFundingSigned {
    state: WaitForSignature,
    local_signature: Signature,
}

impl WaitForFundingSigned {
    /// Checks the peer's signature on our first commitment (B2-FS-R-01).
    pub fn funding_signed(
        self,
        message: &FundingSigned,
    ) -> Result<WaitForValidation, NegotiationError> {
        let Self { state, local_signature } = self;
        let local = &state.commitments.local;
        let their_key = &state.setup.parameters.remote.keys.funding_pubkey;
        let proof = local.good_signature(secp(), &message.signature, their_key);
        let Some(remote_signature) = proof else {
            let transaction = Box::new(local.transaction.clone());
            return Err(NegotiationError::BadSignature { transaction });
        };
        Ok(WaitForValidation { state, local_signature, remote_signature })
    }
}

/// The peer's signature is good: the signer is to hold it for the day we need it.
#[derive(Debug)]
pub struct WaitForValidation {
    state: WaitForSignature,
    local_signature: Signature,
    remote_signature: GoodSignature,
}

impl WaitForValidation {
    /// Our first commitment.
    pub fn local_commitment(&self) -> CommitmentRequest<'_> {
        CommitmentRequest {
            proof: Some(self.remote_signature),
            ..CommitmentRequest::first(&self.state.setup.parameters, &self.state.commitments.local)
        }
    }

    /// The peer's signature on it.
    pub fn remote_signature(&self) -> &Signature {
        self.remote_signature.signature()
    }

    /// The signer agrees: once the channel is saved, the funding transaction may be broadcast.
    ///
    /// `funding` is what the wallet showed of the transaction, and what else it funds.
    pub fn validated(self, funding: Funding) -> Held<BroadcastPermit> {
        let Self { state, local_signature, remote_signature } = self;
        let opened = Opened {
            reference: state.reference,
            temporary_channel_id: state.offered.temporary_channel_id,
            channel_id: state.channel_id,
            parameters: state.setup.parameters,
            announce_channel: state.offered.announce_channel,
            minimum_depth: state.minimum_depth,
            local_shutdown_script: state.setup.local_shutdown_script,
            remote_shutdown_script: state.setup.remote_shutdown_script,
            local_commitment: state.commitments.local,
            remote_commitment: state.commitments.remote,
            remote_signature: *remote_signature.signature(),
            local_signature,
            funding_transaction: funding.transaction,
            batch: funding.batch,
        };
        let permit = BroadcastPermit::first(&opened);
        Held::new(opened, permit)
    }
}
