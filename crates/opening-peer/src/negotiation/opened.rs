//! A channel whose first commitments both sides have signed.

use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::{ScriptBuf, Transaction};
use lightning::ln::types::ChannelId;
use opening_core::{ChannelParameters, Commitment, FundingOutput, PenaltyBase, Role, Side};
use opening_signer::ChannelRef;

use super::{FirstCommitments, NegotiationError, fundee};

/// All that the node needs to go on with the channel: every field of openingd's `funder_reply`
/// and `fundee` messages, and our signature.
#[derive(Clone, Debug, PartialEq)]
pub struct Opened {
    /// Under which name the signer knows the channel, and with whom it is.
    pub reference: ChannelRef,
    /// The id used until the funding outpoint was known.
    pub temporary_channel_id: ChannelId,
    /// The id from then on (B2-CID-B-01).
    pub channel_id: ChannelId,
    /// Both sides' configs, keys and points, funding, push, feerate and type.
    pub parameters: ChannelParameters,
    /// Whether both sides will announce the channel.
    pub announce_channel: bool,
    /// Blocks.  Depth of the funding transaction at which `channel_ready` is due; 0 for zero-conf.
    pub minimum_depth: u32,
    /// The script that our closing output must pay, if we committed to one.
    pub local_shutdown_script: Option<ScriptBuf>,
    /// The script that the peer's closing output must pay, if it committed to one.
    pub remote_shutdown_script: Option<ScriptBuf>,
    /// Our first commitment transaction, unsigned.
    pub local_commitment: Commitment,
    /// The peer's, unsigned.
    pub remote_commitment: Commitment,
    /// The peer's signature on our commitment: with it we can always leave.
    pub remote_signature: Signature,
    /// Our signature on the peer's commitment.
    pub local_signature: Signature,
    /// The funder's transaction as the wallet showed it, if it did; unsigned when it came as a
    /// PSBT.
    pub funding_transaction: Option<Transaction>,
    /// The other channels that the same transaction funds: it may not be broadcast before each of
    /// them is saved.
    pub batch: Vec<ChannelId>,
}

impl Opened {
    /// What a record need not hold, because it follows from the parameters: the channel's id, our
    /// first commitment and the peer's.
    pub(crate) fn rebuild(
        parameters: &ChannelParameters,
    ) -> Result<(ChannelId, Commitment, Commitment), NegotiationError> {
        let channel_id = fundee::channel_id(parameters.funding_outpoint)?;
        let FirstCommitments { local, remote } = FirstCommitments::build(parameters)?;
        Ok((channel_id, local, remote))
    }

    /// Our part in the opening.
    pub fn role(&self) -> Role {
        match self.parameters.opener {
            Side::Local => Role::Funder,
            Side::Remote => Role::Fundee,
        }
    }

    /// The output that the confirmed funding transaction must have at our outpoint.
    pub fn funding_output(&self) -> FundingOutput {
        let Self { parameters: ChannelParameters { local, remote, funding_satoshis, .. }, .. } =
            self;
        FundingOutput::new(
            *funding_satoshis,
            &local.keys.funding_pubkey,
            &remote.keys.funding_pubkey,
        )
    }

    /// Whether our first commitment pays us anything: there is something to lose.
    pub fn pays_us(&self) -> bool {
        self.local_commitment.to_local.is_some()
    }

    /// What it takes to punish the peer's first commitment once it is revoked; `None` if the peer
    /// has no delayed output in it.
    pub fn penalty_base(&self) -> Option<PenaltyBase> {
        self.remote_commitment.penalty_base()
    }
}
