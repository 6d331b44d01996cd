//! One channel between two signers, seen from both ends.

use std::sync::Arc;

use bitcoin::constants::ChainHash;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{PublicKey, Secp256k1};
use bitcoin::{Amount, OutPoint, Txid};
use opening_core::{
    ChannelConfig, ChannelParameters, ChannelType, Commitment, FeeratePerKw, MilliSatoshi, Party,
    Side,
};
use opening_signer::{
    ChannelHsm, ChannelRef, ChannelSetup, CommitmentRequest, Enforcement, Hsm, HsmError, HsmResult,
    HsmSecret, LocalHsm, SigningPolicy,
};

use crate::store::MemoryStore;

pub(crate) const BOTH: [Enforcement; 2] = [Enforcement::Blind, Enforcement::Validating];

pub(crate) fn node(byte: u8) -> HsmSecret {
    HsmSecret::new([byte; 32])
}

pub(crate) fn node_id(byte: u8) -> PublicKey {
    node(byte).node_key().public_key(&Secp256k1::new())
}

/// What validating signers are told here.
pub(crate) fn policy() -> SigningPolicy {
    SigningPolicy::for_network(bitcoin::Network::Regtest)
}

pub(crate) fn signer(byte: u8, enforcement: Enforcement, store: &Arc<MemoryStore>) -> LocalHsm {
    match enforcement {
        Enforcement::Blind => LocalHsm::blind(&node(byte)),
        Enforcement::Validating => LocalHsm::validating(&node(byte), policy(), store.clone()),
    }
}

/// One end of the channel.
pub(crate) struct End {
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) hsm: LocalHsm,
    pub(crate) reference: ChannelRef,
    pub(crate) channel: Arc<dyn ChannelHsm>,
    pub(crate) setup: ChannelSetup,
}

pub(crate) struct Pair {
    pub(crate) funder: End,
    pub(crate) fundee: End,
}

impl Pair {
    /// A million satoshis, a fifth of them pushed; nothing was told to the signers yet.
    pub(crate) async fn new(enforcement: Enforcement) -> Self {
        let stores = [Arc::<MemoryStore>::default(), Arc::default()];
        let hsms = [signer(7, enforcement, &stores[0]), signer(8, enforcement, &stores[1])];
        let references = [8, 7].map(|peer| ChannelRef { peer: node_id(peer), dbid: 1 });
        let channels = [
            hsms[0].channel(references[0]).await.unwrap(),
            hsms[1].channel(references[1]).await.unwrap(),
        ];
        let parameters = ChannelParameters {
            opener: Side::Local,
            funding_outpoint: OutPoint { txid: Txid::from_byte_array([9; 32]), vout: 1 },
            funding_satoshis: Amount::from_sat(1_000_000),
            push_msat: MilliSatoshi::from_msat(200_000_000),
            feerate_per_kw: FeeratePerKw::new(1250),
            channel_type: ChannelType::ANCHORS,
            local: party(&*channels[0]).await,
            remote: party(&*channels[1]).await,
        };
        let mirrored = ChannelParameters {
            opener: Side::Remote,
            local: parameters.remote,
            remote: parameters.local,
            ..parameters.clone()
        };
        let [funder, fundee] = [parameters, mirrored].map(setup);
        let [funder_store, fundee_store] = stores;
        let [funder_hsm, fundee_hsm] = hsms;
        let [funder_channel, fundee_channel] = channels;
        Self {
            funder: End {
                store: funder_store,
                hsm: funder_hsm,
                reference: references[0],
                channel: funder_channel,
                setup: funder,
            },
            fundee: End {
                store: fundee_store,
                hsm: fundee_hsm,
                reference: references[1],
                channel: fundee_channel,
                setup: fundee,
            },
        }
    }

    /// The same, both signers set up.
    pub(crate) async fn set_up(enforcement: Enforcement) -> Self {
        let pair = Self::new(enforcement).await;
        pair.funder.channel.setup(&pair.funder.setup).await.unwrap();
        pair.fundee.channel.setup(&pair.fundee.setup).await.unwrap();
        pair
    }
}

pub(crate) fn setup(parameters: ChannelParameters) -> ChannelSetup {
    ChannelSetup {
        parameters,
        chain_hash: ChainHash::REGTEST,
        local_shutdown_script: None,
        remote_shutdown_script: None,
    }
}

pub(crate) async fn party(channel: &dyn ChannelHsm) -> Party {
    Party {
        config: ChannelConfig {
            dust_limit_satoshis: Amount::from_sat(546),
            max_htlc_value_in_flight_msat: MilliSatoshi::from_msat(u64::MAX),
            channel_reserve_satoshis: Amount::from_sat(10_000),
            htlc_minimum_msat: MilliSatoshi::ZERO,
            to_self_delay: 6,
            max_accepted_htlcs: 483,
        },
        keys: channel.pubkeys().await.unwrap(),
        first_per_commitment_point: channel.per_commitment_point(0).await.unwrap(),
    }
}

impl End {
    /// The first commitment of the side, as it should be.
    pub(crate) fn commitment(&self, owner: Side) -> Commitment {
        self.setup.parameters.first_commitment(&Secp256k1::new(), owner).unwrap()
    }

    pub(crate) async fn sign(&self, commitment: &Commitment) -> HsmResult<Signature> {
        let request = CommitmentRequest::first(&self.setup.parameters, commitment);
        self.channel.sign_counterparty_commitment(&request).await
    }

    pub(crate) async fn validate(
        &self,
        commitment: &Commitment,
        theirs: &Signature,
    ) -> HsmResult<()> {
        let request = CommitmentRequest::first(&self.setup.parameters, commitment);
        self.channel.validate_holder_commitment(&request, theirs).await
    }

    pub(crate) async fn sign_own(&self, commitment: &Commitment) -> HsmResult<Signature> {
        let request = CommitmentRequest::first(&self.setup.parameters, commitment);
        self.channel.sign_holder_commitment(&request).await
    }
}

/// The tag of a refusal, the code of any other error.
#[track_caller]
pub(crate) fn reason<T>(result: HsmResult<T>) -> String {
    match result.map(|_| ()).unwrap_err() {
        HsmError::Refused { tag, .. } => tag,
        other => other.code().into(),
    }
}
