//! For which channels a validating signer signs.

use bitcoin::constants::ChainHash;
use bitcoin::{Network, ScriptBuf};
use opening_core::limits::DUST_LIMIT_FLOOR;

use super::rule::Rule;
use crate::error::HsmResult;
use crate::info::Bounds;
use crate::request::ChannelSetup;

/// For which channels a validating [`LocalHsm`](crate::LocalHsm) signs.  It is judged at the setup,
/// before a signature leaves that would cost money.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningPolicy {
    /// The chain; a channel of another one is refused ([`Rule::WrongChain`]).
    pub network: Network,
    /// Sizes, delays on both sides, feerates without the anchors, channel types.
    pub bounds: Bounds,
    /// Scripts to which our side of a channel may be committed to close; `None` allows every
    /// script, because a signer without a wallet cannot tell whose it is.
    pub shutdown_scripts: Option<Vec<ScriptBuf>>,
}

impl SigningPolicy {
    /// The bounds of [`Bounds::for_network`], and every script.
    pub fn for_network(network: Network) -> Self {
        Self { network, bounds: Bounds::for_network(network), shutdown_scripts: None }
    }

    /// Whether a channel may be signed for that is set up so.
    pub(super) fn judge(&self, setup: &ChannelSetup) -> HsmResult<()> {
        let Bounds { max_funding_satoshis, to_self_delay, feerates, channel_types } = &self.bounds;
        let parameters = &setup.parameters;

        let chain_hash = ChainHash::using_genesis_block(self.network);
        Rule::WrongChain.holds(setup.chain_hash == chain_hash, || {
            format!("the channel is of chain {}, we are of {chain_hash}", setup.chain_hash)
        })?;
        let funding = parameters.funding_satoshis;
        Rule::FundingTooLarge.holds(funding <= *max_funding_satoshis, || {
            format!("the channel is of {funding}, at most {max_funding_satoshis} are signed for")
        })?;
        Rule::ChannelTypeNotSigned
            .holds(channel_types.contains(parameters.channel_type), || {
                format!("the channel is of type {}", parameters.channel_type)
            })?;
        let feerate = parameters.feerate_per_kw;
        let is_within = feerates.min <= feerate && feerate <= feerates.max;
        Rule::FeerateOutOfBounds.holds(is_within, || {
            let [feerate, min, max] =
                [feerate, feerates.min, feerates.max].map(|rate| rate.to_sat_per_kw());
            format!("feerate_per_kw is {feerate}, {min} to {max} are signed for")
        })?;
        for (side, party) in [("we", &parameters.local), ("they", &parameters.remote)] {
            let config = &party.config;
            let delay = config.to_self_delay;
            Rule::DelayOutOfBounds.holds(to_self_delay.contains(&delay), || {
                let (min, max) = (to_self_delay.start(), to_self_delay.end());
                format!("{side} ask for a delay of {delay}, {min} to {max} are signed for")
            })?;
            let dust = config.dust_limit_satoshis;
            Rule::DustLimitTooSmall.holds(dust >= DUST_LIMIT_FLOOR, || {
                format!(
                    "{side} have a dust limit of {dust}, at least {DUST_LIMIT_FLOOR} are relayed"
                )
            })?;
        }
        let script = setup.local_shutdown_script.as_ref();
        let is_ours = match (&self.shutdown_scripts, script) {
            (Some(ours), Some(script)) => ours.contains(script),
            (None, _) | (_, None) => true,
        };
        Rule::ShutdownScriptNotOurs
            .holds(is_ours, || "the script to close to is not among ours".into())
    }
}
