//! One good channel, from which every test of the rules differs in one field.

#![allow(dead_code)] // Each test file uses its part.

use bitcoin::constants::ChainHash;
use bitcoin::{Amount, Network, ScriptBuf};
use lightning_types::features::{ChannelTypeFeatures, InitFeatures};
use opening_core::rules::rules;
use opening_core::{
    Answer, ChannelConfig, ChannelType, Feature, FeeratePerKw, FeerateRange, Limits, MilliSatoshi,
    NegotiatedFeatures, Offer, Profile, Proposal, Refusal, Stage, explain, judge,
};

pub(crate) fn sat(satoshis: u64) -> Amount {
    Amount::from_sat(satoshis)
}

pub(crate) fn msat(millisatoshis: u64) -> MilliSatoshi {
    MilliSatoshi::from_msat(millisatoshis)
}

pub(crate) fn per_kw(rate: u32) -> FeeratePerKw {
    FeeratePerKw::new(rate)
}

/// What [`Proposal`] borrows, owned.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) open: Open,
    pub(crate) accept: Option<Accept>,
    pub(crate) chain_hash: ChainHash,
    pub(crate) features: NegotiatedFeatures,
    pub(crate) limits: Limits,
    pub(crate) feerates: Option<FeerateRange>,
}

#[derive(Clone, Debug)]
pub(crate) struct Open {
    pub(crate) chain_hash: ChainHash,
    pub(crate) funding_satoshis: Amount,
    pub(crate) push_msat: MilliSatoshi,
    pub(crate) feerate_per_kw: FeeratePerKw,
    pub(crate) announce_channel: bool,
    pub(crate) channel_type: Option<ChannelTypeFeatures>,
    pub(crate) config: ChannelConfig,
    pub(crate) script: Option<ScriptBuf>,
}

#[derive(Clone, Debug)]
pub(crate) struct Accept {
    pub(crate) minimum_depth: u32,
    pub(crate) channel_type: Option<ChannelTypeFeatures>,
    pub(crate) config: ChannelConfig,
    pub(crate) script: Option<ScriptBuf>,
}

impl Case {
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// Changes the answer of a case that has one.
    pub(crate) fn answered(mut self, change: impl FnOnce(&mut Accept)) -> Self {
        change(self.accept.as_mut().expect("a case of accept_channel"));
        self
    }

    /// The type in both messages, and in the features of both sides.
    pub(crate) fn of_type(mut self, channel_type: ChannelType) -> Self {
        self.open.channel_type = Some(channel_type.to_features());
        if let Some(accept) = &mut self.accept {
            accept.channel_type = self.open.channel_type.clone();
            accept.minimum_depth = if channel_type.zeroconf { 0 } else { 3 };
        }
        self
    }

    pub(crate) fn offer(&self) -> Offer<'_> {
        let open = &self.open;
        Offer {
            chain_hash: open.chain_hash,
            funding_satoshis: open.funding_satoshis,
            push_msat: open.push_msat,
            feerate_per_kw: open.feerate_per_kw,
            announce_channel: open.announce_channel,
            channel_type: open.channel_type.as_ref(),
            config: open.config,
            upfront_shutdown_script: open.script.as_deref(),
        }
    }

    pub(crate) fn proposal(&self) -> Proposal<'_> {
        Proposal {
            offer: self.offer(),
            answer: self.accept.as_ref().map(|accept| Answer {
                minimum_depth: accept.minimum_depth,
                channel_type: accept.channel_type.as_ref(),
                config: accept.config,
                upfront_shutdown_script: accept.script.as_deref(),
            }),
            chain_hash: self.chain_hash,
            features: &self.features,
            limits: &self.limits,
            feerates: self.feerates,
        }
    }

    pub(crate) fn judge(&self, stage: Stage) -> Result<(), Refusal> {
        judge(stage, &self.proposal())
    }

    /// The codes of every violation.
    pub(crate) fn codes(&self, stage: Stage) -> Vec<&'static str> {
        explain(stage, &self.proposal()).iter().map(|(_, refusal)| refusal.code()).collect()
    }
}

/// Features with these bits.
pub(crate) fn bits(bits: &[u16]) -> InitFeatures {
    let mut flags = vec![0; 9];
    for bit in bits {
        flags[usize::from(bit / 8)] |= 1 << (bit % 8);
    }
    InitFeatures::from_le_bytes(flags)
}

/// Adds the feature as optional on both sides.
pub(crate) fn negotiate(features: &mut NegotiatedFeatures, feature: Feature) {
    for init in [&mut features.local, &mut features.remote] {
        let mut flags = init.le_flags().to_vec();
        let bit = feature.even_bit() + 1;
        flags[usize::from(bit / 8)] |= 1 << (bit % 8);
        *init = InitFeatures::from_le_bytes(flags);
    }
}

/// Takes the feature away from both sides.
pub(crate) fn forget(features: &mut NegotiatedFeatures, feature: Feature) {
    for init in [&mut features.local, &mut features.remote] {
        let mut flags = init.le_flags().to_vec();
        let bit = feature.even_bit();
        flags[usize::from(bit / 8)] &= !(0b11 << (bit % 8));
        *init = InitFeatures::from_le_bytes(flags);
    }
}

const CONFIG: ChannelConfig = ChannelConfig {
    dust_limit_satoshis: Amount::from_sat(354),
    max_htlc_value_in_flight_msat: MilliSatoshi::from_msat(1_000_000_000),
    channel_reserve_satoshis: Amount::from_sat(10_000),
    htlc_minimum_msat: MilliSatoshi::from_msat(1),
    to_self_delay: 144,
    max_accepted_htlcs: 483,
};

/// upfront_shutdown_script, anchors, shutdown_anysegwit, scid_alias, zeroconf.
const FEATURES: [u16; 5] = [5, 23, 27, 47, 51];

/// A private anchors channel of 1,000,000 sat, at 2500 sat per 1000 weight units.
pub(crate) fn good_open() -> Case {
    Case {
        open: Open {
            chain_hash: ChainHash::REGTEST,
            funding_satoshis: sat(1_000_000),
            push_msat: MilliSatoshi::ZERO,
            feerate_per_kw: per_kw(2500),
            announce_channel: false,
            channel_type: Some(ChannelType::ANCHORS.to_features()),
            config: CONFIG,
            script: Some(ScriptBuf::new()),
        },
        accept: None,
        chain_hash: ChainHash::REGTEST,
        features: NegotiatedFeatures { local: bits(&FEATURES), remote: bits(&FEATURES) },
        limits: Limits::for_network(Network::Regtest),
        feerates: Some(FeerateRange { min: per_kw(253), max: per_kw(25_000) }),
    }
}

/// The same, with its answer.
pub(crate) fn good_accept() -> Case {
    let mut case = good_open();
    case.accept = Some(Accept {
        minimum_depth: 3,
        channel_type: case.open.channel_type.clone(),
        config: CONFIG,
        script: Some(ScriptBuf::new()),
    });
    case
}

/// A good case for the stage.
pub(crate) fn good(stage: Stage) -> Case {
    match stage {
        Stage::SendOpenChannel | Stage::ReceiveOpenChannel => good_open(),
        Stage::SendAcceptChannel | Stage::ReceiveAcceptChannel => good_accept(),
    }
}

pub(crate) const PROFILES: [Profile; 2] = [Profile::Strict, Profile::Openingd];

/// Whether one of the stage's rules cites `id`.
pub(crate) fn cited(profile: Profile, stage: Stage, id: &str) -> bool {
    rules(profile, stage).iter().any(|rule| rule.cites.contains(&id))
}
