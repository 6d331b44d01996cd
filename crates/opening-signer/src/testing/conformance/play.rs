//! One channel between the signer that is checked and a peer that does everything right.

use std::sync::Arc;

use bitcoin::consensus::encode::serialize;
use bitcoin::constants::ChainHash;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{PublicKey, Secp256k1};
use bitcoin::{Amount, OutPoint, Txid};
use opening_core::{
    ChannelConfig, ChannelParameters, ChannelType, Commitment, FeeratePerKw, MilliSatoshi, Party,
    Side,
};

use super::{Subject, hex};
use crate::error::{HsmError, HsmResult};
use crate::hsm::{ChannelHsm, Hsm};
use crate::info::Bounds;
use crate::local::{HsmSecret, LocalHsm};
use crate::request::{ChannelRef, ChannelSetup, CommitmentRequest};

/// Why a check was not passed.
#[derive(Clone, Debug)]
pub(super) enum Wrong {
    /// The signer cannot be asked this.
    NotApplicable(&'static str),
    /// It did what it should refuse.
    Allowed(String),
    /// The same, and what it was asked, in hexadecimal.
    AllowedRequest { detail: String, request: String },
    /// It did something wrong, or not what it should.
    Broken { detail: String, request: Option<String> },
}

impl Wrong {
    pub(super) fn new(detail: impl Into<String>) -> Self {
        Self::Broken { detail: detail.into(), request: None }
    }
}

pub(super) type Checked<T = ()> = Result<T, Wrong>;

/// The secret of a peer that holds no money.
const PEER: [u8; 32] = [0xc0; 32];

/// Satoshis in the channel, where the signer takes so many.
const FUNDING: Amount = Amount::from_sat(1_000_000);

/// The parts of one check.
pub(super) struct Stage {
    subject: Arc<Subject>,
    node: u32,
    hsm: Option<Arc<dyn Hsm>>,
    peer: LocalHsm,
    pub(super) bounds: Bounds,
}

impl Stage {
    pub(super) async fn new(subject: Arc<Subject>, node: u32) -> Checked<Self> {
        let hsm = subject.start(node).await?;
        let bounds = hsm.info().bounds;
        let peer = LocalHsm::blind(&HsmSecret::new(PEER));
        Ok(Self { subject, node, hsm: Some(hsm), peer, bounds })
    }

    pub(super) fn hsm(&self) -> &Arc<dyn Hsm> {
        self.hsm.as_ref().expect("a signer that does not start again ends the check")
    }

    /// The signer is stopped and started again.
    pub(super) async fn restart(&mut self) -> Checked {
        // The old one goes first: two over one store is not what is asked.
        self.hsm = None;
        self.hsm = Some(self.subject.start(self.node).await?);
        Ok(())
    }

    pub(super) fn reference(dbid: u64) -> ChannelRef {
        Self::reference_with(PEER, dbid)
    }

    /// With another peer.
    pub(super) fn reference_with(peer: [u8; 32], dbid: u64) -> ChannelRef {
        let peer = HsmSecret::new(peer).node_key().public_key(&Secp256k1::signing_only());
        ChannelRef { peer, dbid }
    }

    /// What it gave.
    pub(super) fn good<T>(&self, what: &str, answer: HsmResult<T>) -> Checked<T> {
        answer.map_err(|error| {
            self.note(&error);
            Wrong::new(format!("{what}: {error}"))
        })
    }

    /// What it should not give.
    pub(super) fn refused<T>(&self, what: &str, answer: HsmResult<T>) -> Checked {
        match answer {
            Ok(_) => Err(Wrong::Allowed(format!("{what}: it did it"))),
            Err(error) => self.is_refusal(what, &error),
        }
    }

    fn is_refusal(&self, what: &str, error: &HsmError) -> Checked {
        self.note(error);
        match error {
            HsmError::Refused { .. }
            | HsmError::InvalidRequest(_)
            | HsmError::BadCounterpartySignature => Ok(()),
            other => Err(Wrong::new(format!("{what}: not refused, but: {other}"))),
        }
    }

    fn note(&self, error: &HsmError) {
        self.subject.said().extend([error.to_string(), format!("{error:?}")]);
    }

    /// A new channel of the usual kind, which the signer has named and nothing else.
    pub(super) async fn channel(&self, opener: Side, dbid: u64) -> Checked<Play<'_>> {
        self.channel_with(opener, dbid, |_| {}).await
    }

    /// The same, of another kind.
    pub(super) async fn channel_with(
        &self,
        opener: Side,
        dbid: u64,
        change: impl Fn(&mut ChannelParameters),
    ) -> Checked<Play<'_>> {
        let reference = Self::reference(dbid);
        let channel = self.good("channel", self.hsm().channel(reference).await)?;
        let our_id = Self::reference_with([0xc1; 32], dbid);
        let peer = self.good("the peer's channel", self.peer.channel(our_id).await)?;
        let (local, remote) = (self.party(&*channel).await?, self.party(&*peer).await?);
        let mut txid = [0xfd; 32];
        txid[..8].copy_from_slice(&dbid.to_be_bytes());
        let mut parameters = ChannelParameters {
            opener,
            funding_outpoint: OutPoint { txid: Txid::from_byte_array(txid), vout: 1 },
            funding_satoshis: FUNDING.min(self.bounds.max_funding_satoshis),
            push_msat: MilliSatoshi::from_msat(200_000_000),
            feerate_per_kw: self.feerate(),
            channel_type: self.channel_type()?,
            local,
            remote,
        };
        change(&mut parameters);
        let chain_hash = ChainHash::using_genesis_block(self.subject.network);
        let setup = ChannelSetup {
            parameters,
            chain_hash,
            local_shutdown_script: None,
            remote_shutdown_script: None,
        };
        Ok(Play { stage: self, channel, peer, setup })
    }

    fn feerate(&self) -> FeeratePerKw {
        let feerates = &self.bounds.feerates;
        FeeratePerKw::new(1000).max(feerates.min).min(feerates.max)
    }

    fn channel_type(&self) -> Checked<ChannelType> {
        let usual = [ChannelType::ANCHORS, ChannelType::STATIC_REMOTEKEY];
        let taken = usual.into_iter().find(|usual| self.bounds.channel_types.contains(*usual));
        taken.ok_or(Wrong::NotApplicable("it takes no usual channel type"))
    }

    async fn party(&self, channel: &dyn ChannelHsm) -> Checked<Party> {
        let delays = &self.bounds.to_self_delay;
        Ok(Party {
            config: ChannelConfig {
                dust_limit_satoshis: Amount::from_sat(354),
                max_htlc_value_in_flight_msat: MilliSatoshi::from_msat(1_000_000_000),
                channel_reserve_satoshis: Amount::from_sat(10_000),
                htlc_minimum_msat: MilliSatoshi::from_msat(1),
                to_self_delay: 144.max(*delays.start()).min(*delays.end()),
                max_accepted_htlcs: 30,
            },
            keys: self.good("pubkeys", channel.pubkeys().await)?,
            first_per_commitment_point: self
                .good("per_commitment_point(0)", channel.per_commitment_point(0).await)?,
        })
    }
}

/// One channel of the signer's, with its peer.
pub(super) struct Play<'a> {
    pub(super) stage: &'a Stage,
    pub(super) channel: Arc<dyn ChannelHsm>,
    peer: Arc<dyn ChannelHsm>,
    pub(super) setup: ChannelSetup,
}

impl Play<'_> {
    pub(super) fn commitment(&self, owner: Side) -> Checked<Commitment> {
        let built = self.setup.parameters.first_commitment(&Secp256k1::new(), owner);
        built.map_err(|error| Wrong::new(format!("the suite cannot build a commitment: {error}")))
    }

    pub(super) async fn set_up(&self) -> Checked {
        self.stage.good("setup", self.channel.setup(&self.setup).await)
    }

    /// The peer's signature on our commitment.
    pub(super) async fn signature_of_peer(&self) -> Checked<Signature> {
        let parameters = &self.setup.parameters;
        let mirrored = ChannelSetup {
            parameters: ChannelParameters {
                opener: parameters.opener.other(),
                local: parameters.remote,
                remote: parameters.local,
                ..parameters.clone()
            },
            ..self.setup.clone()
        };
        self.stage.good("the peer's setup", self.peer.setup(&mirrored).await)?;
        let theirs = mirrored.parameters.first_commitment(&Secp256k1::new(), Side::Remote);
        let theirs = theirs.map_err(|error| Wrong::new(error.to_string()))?;
        let request = CommitmentRequest::first(&mirrored.parameters, &theirs);
        let signed = self.peer.sign_counterparty_commitment(&request).await;
        self.stage.good("the peer's signature", signed)
    }

    /// Has our commitment validated.
    pub(super) async fn validate(&self) -> Checked {
        let signature = self.signature_of_peer().await?;
        let own = self.commitment(Side::Local)?;
        let request = CommitmentRequest::first(&self.setup.parameters, &own);
        let validated = self.channel.validate_holder_commitment(&request, &signature).await;
        self.stage.good("validate_holder_commitment", validated)
    }

    /// Has the peer's commitment signed; the signature is a good one.
    pub(super) async fn sign(&self) -> Checked<Signature> {
        let theirs = self.commitment(Side::Remote)?;
        let request = CommitmentRequest::first(&self.setup.parameters, &theirs);
        let signed = self.channel.sign_counterparty_commitment(&request).await;
        let signature = self.stage.good("sign_counterparty_commitment", signed)?;
        self.is_ours(&theirs, &signature)?;
        Ok(signature)
    }

    pub(super) fn is_ours(&self, commitment: &Commitment, signature: &Signature) -> Checked {
        let key = &self.setup.parameters.local.keys.funding_pubkey;
        if commitment.is_signed_by(&Secp256k1::verification_only(), signature, key) {
            self.stage.subject.signed(signature);
            return Ok(());
        }
        let request = Some(bytes(commitment));
        let detail = "its signature does not verify, or has a high S".into();
        Err(Wrong::Broken { detail, request })
    }

    /// Everything that an opening asks for, in its order.
    pub(super) async fn open(&self) -> Checked {
        self.set_up().await?;
        match self.setup.parameters.opener {
            Side::Local => {
                self.sign().await?;
                self.validate().await
            }
            Side::Remote => {
                self.validate().await?;
                self.sign().await.map(drop)
            }
        }
    }

    /// What the signer should not sign for the peer.
    pub(super) async fn sign_refused(
        &self,
        what: &str,
        commitment: &Commitment,
        point: PublicKey,
    ) -> Checked {
        let parameters = &self.setup.parameters;
        let request =
            CommitmentRequest { parameters, commitment, per_commitment_point: point, proof: None };
        match self.channel.sign_counterparty_commitment(&request).await {
            Ok(_) => Err(Wrong::AllowedRequest {
                detail: format!("{what}: it signed"),
                request: bytes(commitment),
            }),
            Err(error) => self.stage.is_refusal(what, &error),
        }
    }

    pub(super) fn point_of_peer(&self) -> PublicKey {
        self.setup.parameters.remote.first_per_commitment_point
    }
}

/// A request's transaction.
fn bytes(commitment: &Commitment) -> String {
    hex(&serialize(&commitment.transaction))
}
