//! What both balances of the first commitments have to fulfil.
//!
//! These rules need a defined channel type, for its fee; where there is none they are silent,
//! because another rule has refused the type.

use bitcoin::Amount;

use super::check::{Verdict, ensure};
use crate::amount::MilliSatoshi;
use crate::commitment::{Balances, CommitmentError, opener_cost};
use crate::config::ChannelConfig;
use crate::proposal::{Offer, Proposal};
use crate::refusal::Refusal;
use crate::side::Side;

/// Fee, and anchors where the type has them.
fn cost(offer: &Offer<'_>) -> Option<Amount> {
    let channel_type = offer.defined_channel_type()?;
    Some(opener_cost(offer.feerate_per_kw, channel_type.commitment_format))
}

/// Whole satoshis after fee and anchors, as they stand in the commitments; `None` where
/// the opener cannot pay or the type is undefined.
fn balances(offer: &Offer<'_>) -> Option<Balances> {
    Balances::after_cost(offer.funding_satoshis, offer.push_msat, cost(offer)?).ok()
}

/// The opener's share pays the fee and the anchors, to the satoshi.
pub(super) fn opener_affords_cost(side: Side, p: &Proposal<'_>) -> Verdict {
    let Some(cost) = cost(&p.offer) else { return Ok(()) };
    match Balances::after_cost(p.offer.funding_satoshis, p.offer.push_msat, cost) {
        Err(CommitmentError::Unaffordable { available, needed }) => {
            Err(Refusal::Unaffordable { side, have: available, need: needed })
        }
        // More pushed than funded, or funding beyond the supply: a rule of their own each.
        _ => Ok(()),
    }
}

/// At least one balance is above the reserve that `config` asks for.
pub(super) fn someone_above_reserve(
    side: Side,
    p: &Proposal<'_>,
    config: &ChannelConfig,
) -> Verdict {
    let Some(Balances { opener, accepter }) = balances(&p.offer) else { return Ok(()) };
    let channel_reserve_satoshis = config.channel_reserve_satoshis;
    ensure(
        opener.max(accepter) > channel_reserve_satoshis,
        Refusal::NeitherAboveReserve { side, opener, accepter, channel_reserve_satoshis },
    )
}

/// Neither commitment is without outputs, each trimmed by its owner's dust limit.
pub(super) fn commitments_have_outputs(
    side: Side,
    p: &Proposal<'_>,
    accepter_config: &ChannelConfig,
) -> Verdict {
    let Some(Balances { opener, accepter }) = balances(&p.offer) else { return Ok(()) };
    // Both transactions hold the same two balances: the larger dust limit decides.
    let dust_limit_satoshis =
        p.offer.config.dust_limit_satoshis.max(accepter_config.dust_limit_satoshis);
    ensure(
        opener.max(accepter) >= dust_limit_satoshis,
        Refusal::NoOutputs { side, opener, accepter, dust_limit_satoshis },
    )
}

/// Both reserves fit into the funding together.
pub(super) fn reserves_within_funding(
    side: Side,
    p: &Proposal<'_>,
    accepter_config: &ChannelConfig,
) -> Verdict {
    let [one, other] =
        [&p.offer.config, accepter_config].map(|config| config.channel_reserve_satoshis);
    let need = saturating_add(one, other);
    let funding_satoshis = p.offer.funding_satoshis;
    ensure(
        need <= funding_satoshis,
        Refusal::ReservesExceedFunding { side, need, funding_satoshis },
    )
}

/// An HTLC of the smallest size that `config` accepts fits beside reserves and cost, and into
/// what may be in flight.
pub(super) fn htlc_minimum_within_capacity(
    side: Side,
    p: &Proposal<'_>,
    config: &ChannelConfig,
    reserves: Amount,
) -> Verdict {
    let Some(cost) = cost(&p.offer) else { return Ok(()) };
    let left =
        p.offer.funding_satoshis.checked_sub(reserves).and_then(|left| left.checked_sub(cost));
    let in_flight = config.max_htlc_value_in_flight_msat.to_amount_floor();
    htlc_minimum_within(side, config, left.unwrap_or(Amount::ZERO).min(in_flight))
}

/// An HTLC of the smallest size that `config` accepts is not more than `capacity`.
pub(super) fn htlc_minimum_within(side: Side, config: &ChannelConfig, capacity: Amount) -> Verdict {
    let htlc_minimum_msat = config.htlc_minimum_msat;
    // A capacity that overflows in millisatoshis carries any HTLC.
    let fits = MilliSatoshi::from_amount(capacity).is_none_or(|most| htlc_minimum_msat <= most);
    ensure(fits, Refusal::HtlcMinimumAboveCapacity { side, htlc_minimum_msat, capacity })
}

/// The sum, or the largest amount of all where it overflows.
pub(super) fn saturating_add(one: Amount, other: Amount) -> Amount {
    Amount::from_sat(one.to_sat().saturating_add(other.to_sat()))
}
