//! What hsmd's wire does not tell of a channel, and where it is found.
//!
//! `setup_channel` names neither the feerate nor the dust limits nor the peer's first point, and an
//! [`Hsm`](crate::Hsm) is told all of them at once.  The point comes with the first request to sign
//! the peer's commitment; the rest follows from that transaction.  So an [`Hsm`](crate::Hsm) hears
//! of the setup then, and of a validation that came before it: until then the peer's signature is
//! verified here.

use std::sync::Arc;

use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{All, PublicKey, Secp256k1};
use bitcoin::{Amount, Transaction};
use opening_core::commitment::{ANCHOR_VALUE, commitment_weight};
use opening_core::{
    ChannelConfig, ChannelParameters, Commitment, FeeratePerKw, MilliSatoshi, Party, Side,
};

use super::message::{SetupChannel, SignRemoteCommitmentTx, ValidateCommitmentTx};
use crate::error::{HsmError, HsmResult};
use crate::hsm::ChannelHsm;
use crate::info::Bounds;
use crate::request::{ChannelSetup, CommitmentRequest};

/// What bounds the trimming where the transaction does not tell: BOLT 2's smallest.
const USUAL_DUST_LIMIT: Amount = Amount::from_sat(354);

/// One channel that is served.
pub(super) struct Served {
    channel: Arc<dyn ChannelHsm>,
    chain_hash: ChainHash,
    asked: Option<SetupChannel>,
    /// What it was completed to, once the signer has it.
    setup: Option<ChannelSetup>,
    /// Our commitment, with the peer's good signature, of which the signer has not heard yet.
    to_validate: Option<(Transaction, Signature)>,
}

impl Served {
    pub(super) fn new(channel: Arc<dyn ChannelHsm>, chain_hash: ChainHash) -> Self {
        Self { channel, chain_hash, asked: None, setup: None, to_validate: None }
    }

    pub(super) fn channel(&self) -> &dyn ChannelHsm {
        &*self.channel
    }

    /// 31.
    pub(super) fn set_up(&mut self, asked: SetupChannel, bounds: &Bounds) -> HsmResult<()> {
        is_within(&asked, bounds)?;
        match self.asked.get_or_insert_with(|| asked.clone()) {
            same if *same == asked => Ok(()),
            _ => Err(refused("setup-differs", "the channel was set up with other content before")),
        }
    }

    /// 19.
    pub(super) async fn sign_remote(
        &mut self,
        secp: &Secp256k1<All>,
        request: &SignRemoteCommitmentTx,
    ) -> HsmResult<Signature> {
        let asked = self.asked()?;
        if request.remote_funding_key != asked.remote_keys.funding_pubkey {
            return Err(invalid("the peer's funding key is not the setup's"));
        }
        first(request.number)?;
        let theirs = &request.tx.transaction;
        let point = request.remote_per_commitment_point;
        let setup = match &self.setup {
            Some(setup) => setup.clone(),
            None => self.complete(theirs, point).await?,
        };
        let commitment = rebuild(secp, &setup, Side::Remote, theirs)?;
        if let Some((ours, _)) = &self.to_validate {
            // Both tell the same, or the signer does not hear of it.
            rebuild(secp, &setup, Side::Local, ours)?;
        }
        let asked = CommitmentRequest {
            per_commitment_point: point,
            ..CommitmentRequest::first(&setup.parameters, &commitment)
        };
        self.channel.setup(&setup).await?;
        if let Some((ours, signature)) = &self.to_validate {
            self.tell_validated(secp, &setup, ours, signature).await?;
            self.to_validate = None;
        }
        let signature = self.channel.sign_counterparty_commitment(&asked).await?;
        self.setup = Some(setup);
        Ok(signature)
    }

    /// 35; gives the next point.
    pub(super) async fn validate(
        &mut self,
        secp: &Secp256k1<All>,
        request: &ValidateCommitmentTx,
    ) -> HsmResult<PublicKey> {
        first(request.number)?;
        let (ours, signature) = (&request.tx.transaction, &request.signature);
        match &self.setup {
            Some(setup) => self.tell_validated(secp, setup, ours, signature).await?,
            None => {
                self.verify(secp, ours, signature).await?;
                self.to_validate = Some((ours.clone(), *signature));
            }
        }
        self.channel.per_commitment_point(1).await
    }

    /// 5.
    pub(super) async fn sign_ours(
        &self,
        secp: &Secp256k1<All>,
        transaction: &Transaction,
        number: u64,
    ) -> HsmResult<Signature> {
        first(number)?;
        let setup = self.setup.as_ref().ok_or_else(|| {
            refused(
                "setup-missing",
                "the peer's commitment, which completes the setup, comes first",
            )
        })?;
        let commitment = rebuild(secp, setup, Side::Local, transaction)?;
        let request = CommitmentRequest::first(&setup.parameters, &commitment);
        self.channel.sign_holder_commitment(&request).await
    }

    fn asked(&self) -> HsmResult<&SetupChannel> {
        let missing = || refused("setup-missing", "setup comes before signing and validating");
        self.asked.as_ref().ok_or_else(missing)
    }

    async fn tell_validated(
        &self,
        secp: &Secp256k1<All>,
        setup: &ChannelSetup,
        ours: &Transaction,
        signature: &Signature,
    ) -> HsmResult<()> {
        let commitment = rebuild(secp, setup, Side::Local, ours)?;
        let request = CommitmentRequest::first(&setup.parameters, &commitment);
        self.channel.validate_holder_commitment(&request, signature).await
    }

    /// The peer's signature, before the signer can.
    async fn verify(
        &self,
        secp: &Secp256k1<All>,
        ours: &Transaction,
        signature: &Signature,
    ) -> HsmResult<()> {
        let asked = self.asked()?;
        let spends = |tx: &Transaction| matches!(&tx.input[..], [one] if one.previous_output == asked.funding_outpoint);
        if !spends(ours) {
            return Err(invalid("the transaction does not spend the funding output"));
        }
        let local = self.channel.pubkeys().await?.funding_pubkey;
        let remote = asked.remote_keys.funding_pubkey;
        let commitment = Commitment {
            owner: Side::Local,
            number: 0,
            transaction: ours.clone(),
            to_local: None,
            to_remote: None,
            funding_witness_script: opening_core::funding::funding_witness_script(&local, &remote),
            funding_satoshis: asked.channel_value,
        };
        if commitment.is_signed_by(secp, signature, &remote) {
            Ok(())
        } else {
            Err(HsmError::BadCounterpartySignature)
        }
    }

    /// What the signer is told of the channel: what was asked for, and what the peer's commitment
    /// tells.
    async fn complete(&self, theirs: &Transaction, point: PublicKey) -> HsmResult<ChannelSetup> {
        let asked = self.asked()?;
        let keys = self.channel.pubkeys().await?;
        let first_per_commitment_point = self.channel.per_commitment_point(0).await?;
        let local = Party {
            config: config(USUAL_DUST_LIMIT, asked.local_to_self_delay),
            keys,
            first_per_commitment_point,
        };
        let remote = Party {
            config: config(USUAL_DUST_LIMIT, asked.remote_to_self_delay),
            keys: asked.remote_keys,
            first_per_commitment_point: point,
        };
        let mut parameters = ChannelParameters {
            opener: if asked.is_outbound { Side::Local } else { Side::Remote },
            funding_outpoint: asked.funding_outpoint,
            funding_satoshis: asked.channel_value,
            push_msat: asked.push_value,
            feerate_per_kw: FeeratePerKw::new(0),
            channel_type: asked.channel_type,
            local,
            remote,
        };
        parameters.feerate_per_kw = feerate(&parameters, theirs)?;
        Ok(ChannelSetup {
            parameters,
            chain_hash: self.chain_hash,
            local_shutdown_script: asked.local_shutdown_script.clone(),
            remote_shutdown_script: asked.remote_shutdown_script.clone(),
        })
    }
}

/// What can be told from the setup alone need not wait for the first commitment.
fn is_within(asked: &SetupChannel, bounds: &Bounds) -> HsmResult<()> {
    let delays = [asked.local_to_self_delay, asked.remote_to_self_delay];
    if asked.push_value.to_amount_floor() >= asked.channel_value {
        Err(invalid("all is pushed, and nothing left for the fee"))
    } else if asked.channel_value > bounds.max_funding_satoshis
        || !bounds.channel_types.contains(asked.channel_type)
        || !delays.iter().all(|delay| bounds.to_self_delay.contains(delay))
    {
        Err(refused("out-of-bounds", "size, type or a delay is not within the signer's bounds"))
    } else {
        Ok(())
    }
}

/// What no commitment 0 depends on is left out: it bounds HTLCs.
fn config(dust_limit_satoshis: Amount, to_self_delay: u16) -> ChannelConfig {
    ChannelConfig {
        dust_limit_satoshis,
        max_htlc_value_in_flight_msat: MilliSatoshi::from_msat(0),
        channel_reserve_satoshis: Amount::ZERO,
        htlc_minimum_msat: MilliSatoshi::from_msat(0),
        to_self_delay,
        max_accepted_htlcs: 0,
    }
}

/// The lowest feerate by which the opener has what `theirs` leaves it.
fn feerate(parameters: &ChannelParameters, theirs: &Transaction) -> HsmResult<FeeratePerKw> {
    let unclear = || invalid("the peer's commitment does not tell the feerate");
    let format = parameters.channel_type.commitment_format;
    let is_anchor =
        |amount: Amount| parameters.channel_type.has_anchors() && amount == ANCHOR_VALUE;
    let balances =
        theirs.output.iter().map(|output| output.value).filter(|value| !is_anchor(*value));
    let pushed = parameters.push_msat.to_amount_floor();
    let mut of_opener: Vec<_> = balances.collect();
    if let Some(place) = of_opener.iter().position(|value| *value == pushed) {
        of_opener.swap_remove(place);
    }
    let [of_opener] = of_opener[..] else { return Err(unclear()) };
    let before = parameters.funding_satoshis.to_sat().checked_sub(
        // A push that is no whole satoshi takes the next one from the opener.
        parameters.push_msat.to_msat().div_ceil(1000),
    );
    let anchors = if parameters.channel_type.has_anchors() { 2 * ANCHOR_VALUE.to_sat() } else { 0 };
    let fee = before
        .and_then(|before| before.checked_sub(of_opener.to_sat())?.checked_sub(anchors))
        .ok_or_else(unclear)?;
    let weight = commitment_weight(format).to_wu();
    let feerate = fee.checked_mul(1000).ok_or_else(unclear)?.div_ceil(weight);
    u32::try_from(feerate).map(FeeratePerKw::new).map_err(|_| unclear())
}

/// The commitment that the setup gives, which must be what was sent.
fn rebuild(
    secp: &Secp256k1<All>,
    setup: &ChannelSetup,
    owner: Side,
    sent: &Transaction,
) -> HsmResult<Commitment> {
    let rebuilt = setup.parameters.first_commitment(secp, owner);
    let rebuilt = rebuilt.map_err(|error| refused("commitment-unbuildable", &error.to_string()))?;
    if rebuilt.transaction == *sent {
        return Ok(rebuilt);
    }
    let (asked, gives) = (sent.compute_txid(), rebuilt.transaction.compute_txid());
    let detail = format!("asked for transaction {asked}, the setup gives {gives}");
    Err(refused("transaction-differs", &detail))
}

fn first(number: u64) -> HsmResult<()> {
    match number {
        0 => Ok(()),
        other => {
            let detail = format!("asked for commitment {other}, opening takes only 0");
            Err(refused("commitment-number", &detail))
        }
    }
}

fn invalid(reason: &str) -> HsmError {
    HsmError::InvalidRequest(reason.into())
}

fn refused(tag: &str, detail: &str) -> HsmError {
    HsmError::Refused { tag: tag.into(), detail: detail.into() }
}
