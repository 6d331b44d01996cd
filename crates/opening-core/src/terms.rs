//! What we announce: our side of a channel, from [`Limits`] and from what a policy overrides.

use bitcoin::{Amount, Script, ScriptBuf};

use crate::amount::{MAX_MILLISATOSHIS, MilliSatoshi};
use crate::config::ChannelConfig;
use crate::limits::{DUST_LIMIT_FLOOR, Limits, Profile};
use crate::proposal::{Answer, Offer};
use crate::reserve::percent_of;

/// The terms on which a policy accepts one offer.  What is `None` follows from [`Limits`].
///
/// They are judged like everything else that we send, at
/// [`Stage::SendAcceptChannel`](crate::rules::Stage::SendAcceptChannel).  Whether a peer may open
/// channels that are used unconfirmed is said by [`Limits::trust_zeroconf`], before this.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Terms {
    /// Satoshis.  Dust limit of our transactions.
    pub dust_limit_satoshis: Option<Amount>,
    /// Millisatoshis.  Most that HTLCs offered to us may sum up to.
    pub max_htlc_value_in_flight_msat: Option<MilliSatoshi>,
    /// Satoshis.  What the opener must always keep in the channel.
    pub channel_reserve_satoshis: Option<Amount>,
    /// Millisatoshis.  Smallest HTLC that we accept.
    pub htlc_minimum_msat: Option<MilliSatoshi>,
    /// Blocks.  Delays the opener's own outputs.
    pub to_self_delay: Option<u16>,
    /// HTLCs that the opener may offer us.
    pub max_accepted_htlcs: Option<u16>,
    /// Blocks until we send `channel_ready`.
    pub minimum_depth: Option<u32>,
    /// The only script that a mutual close may pay us to.
    pub upfront_shutdown_script: Option<ScriptBuf>,
}

impl Limits {
    /// What we announce in an `open_channel`.
    pub fn config_for_open(&self, funding_satoshis: Amount) -> ChannelConfig {
        let dust_limit_satoshis = self.dust_limit_satoshis;
        ChannelConfig {
            dust_limit_satoshis,
            max_htlc_value_in_flight_msat: self.in_flight(funding_satoshis),
            channel_reserve_satoshis: self.reserve_for_open(funding_satoshis, dust_limit_satoshis),
            htlc_minimum_msat: self.htlc_minimum_msat,
            to_self_delay: self.to_self_delay,
            max_accepted_htlcs: self.max_accepted_htlcs,
        }
    }

    /// What we announce in an `accept_channel`, to an opener that announced `opener`.
    pub fn config_for_accept(
        &self,
        funding_satoshis: Amount,
        opener: &ChannelConfig,
        terms: &Terms,
    ) -> ChannelConfig {
        let dust_limit_satoshis =
            terms.dust_limit_satoshis.unwrap_or_else(|| self.dust_limit_for_accept(opener));
        let channel_reserve_satoshis = terms.channel_reserve_satoshis.unwrap_or_else(|| {
            let opener_dust = opener.dust_limit_satoshis;
            self.reserve_for_accept(funding_satoshis, dust_limit_satoshis, opener_dust)
        });
        ChannelConfig {
            dust_limit_satoshis,
            max_htlc_value_in_flight_msat: terms
                .max_htlc_value_in_flight_msat
                .unwrap_or_else(|| self.in_flight(funding_satoshis)),
            channel_reserve_satoshis,
            htlc_minimum_msat: terms.htlc_minimum_msat.unwrap_or(self.htlc_minimum_msat),
            to_self_delay: terms.to_self_delay.unwrap_or(self.to_self_delay),
            max_accepted_htlcs: terms.max_accepted_htlcs.unwrap_or(self.max_accepted_htlcs),
        }
    }

    /// Our whole answer to `offer`: its channel type repeated, the depth that the type asks for,
    /// and an upfront script that may be empty but is always there.
    pub fn answer<'a>(&self, offer: &Offer<'a>, terms: &'a Terms) -> Answer<'a> {
        let zeroconf = offer.defined_channel_type().is_some_and(|defined| defined.zeroconf);
        let minimum_depth = if zeroconf { 0 } else { self.minimum_depth };
        let script = terms.upfront_shutdown_script.as_deref();
        Answer {
            minimum_depth: terms.minimum_depth.unwrap_or(minimum_depth),
            channel_type: offer.channel_type,
            config: self.config_for_accept(offer.funding_satoshis, &offer.config, terms),
            upfront_shutdown_script: Some(script.unwrap_or(Script::new())),
        }
    }

    /// Ours, lowered to what the opener makes us keep, as far as that is allowed (B2-ACC-S-04).
    // openingd refuses instead of lowering it.
    fn dust_limit_for_accept(&self, opener: &ChannelConfig) -> Amount {
        let reserve = opener.channel_reserve_satoshis;
        if self.profile == Profile::Strict && reserve >= DUST_LIMIT_FLOOR {
            self.dust_limit_satoshis.min(reserve)
        } else {
            self.dust_limit_satoshis
        }
    }

    fn in_flight(&self, funding_satoshis: Amount) -> MilliSatoshi {
        if self.profile == Profile::Openingd {
            return MilliSatoshi::from_msat(u64::MAX);
        }
        let percent = self.max_htlc_value_in_flight_percent.min(100);
        // In millisatoshis before the division, so that small channels lose nothing to rounding.
        let msat = MilliSatoshi::from_amount(funding_satoshis).unwrap_or(MAX_MILLISATOSHIS);
        let part = percent_of(Amount::from_sat(msat.to_msat()), percent).to_sat();
        MilliSatoshi::from_msat(part).min(MAX_MILLISATOSHIS)
    }
}
