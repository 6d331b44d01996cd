//! The checks of Core Lightning's openingd, in its order, with its arithmetic.
//!
//! The seed is its commit ae825fff26 of October 2020.  `openingd:R1` to `openingd:R11` are the
//! steps of its `check_config_bounds`; R6 computes and never fails.  R11 is in: the seed has it,
//! later versions dropped it in 2022, and the BOLT still asks for it (B2-OPEN-R-19).
//!
//! Where this profile is stricter than the seed is the second half of `table!`, and the last list
//! of each table.  Those rules come after all of the seed's, so that its own verdict is never
//! replaced by another.  They cite the BOLT; the seed's own checks cite `openingd:`.

use bitcoin::Amount;

use super::Rule;
use super::balance::*;
use super::check::*;
use super::rule;
use crate::channel_type::{ChannelType, CommitmentFormat};
use crate::commitment::{ANCHOR_VALUE, commitment_weight};
use crate::config::ChannelConfig;
use crate::proposal::Proposal;
use crate::refusal::Refusal;
use crate::side::Side;
use crate::side::Side::{Local, Remote};

/// One stage's rules: what stands before the bounds; the bounds, where the peer's config is
/// known; the exceptions, with those of this stage alone.  `opener` is who made the offer.
macro_rules! table {
    ($opener:expr, [$($before:expr),* $(,)?], [$($bound:expr),* $(,)?],
     [$($more:expr),* $(,)?]) => {
        &[
            $($before,)*
            $($bound,)*
            // The exceptions.  The seed aborts on more than there is.
            rule("funding_satoshis exist", &["B1-TYP-B-03"], |p| funding_exists($opener, p)),
            // It is older than channel types; later versions ask for one, as everyone does.
            rule("channel_type is there", &["B2-OPEN-R-02"], |p| {
                type_is_there($opener, p.offer.channel_type)
            }),
            rule("channel_type is a defined one", &["B2-OPEN-R-24"], |p| {
                type_is_defined($opener, p)
            }),
            rule("channel_type is negotiated", &["B2-OPEN-R-24"], |p| {
                type_is_negotiated($opener, p)
            }),
            rule("option_scid_alias only if not announced", &["B2-OPEN-R-24"], |p| {
                alias_is_not_announced($opener, p)
            }),
            $($more,)*
            // It notices these when it builds the first commitment, which is too late for a
            // funder whose wallet has been told what to pay.
            rule("the opener affords fee and anchors", &["B2-OPEN-R-21"], |p| {
                opener_affords_cost($opener, p)
            }),
            rule("a balance is above the opener's reserve", &["B2-OPEN-R-22"], |p| {
                someone_above_reserve($opener, p, &p.offer.config)
            }),
            // It does not notice this at all.
            rule("the commitments have outputs", &["B3-FEE-B-04"], |p| {
                commitments_have_outputs($opener, p, &p.accepter_config())
            }),
        ]
    };
}

/// The same with `check_config_bounds`, where `remote` gives the peer's config.  `mover` has to
/// move where both sides' terms do not go together.
macro_rules! table_with_bounds {
    ($opener:expr, $mover:expr, $remote:expr, [$($before:expr),* $(,)?],
     [$($more:expr),* $(,)?]) => {
        table!($opener, [$($before,)*], [
            rule("to_self_delay is not too large", &["openingd:R1"], |p| {
                delay_at_most_maximum(p.limits, &$remote(p))
            }),
            rule("both reserves can be added", &["openingd:R2"], |p| {
                let sum = reserves(p);
                ensure(sum.is_some(), reserves_exceed($mover, p))
            }),
            rule("the anchors can be added", &["openingd:R3"], |p| {
                let fails = reserves(p).is_some() && reserves_with_anchors(p).is_none();
                ensure(!fails, reserves_exceed($mover, p))
            }),
            rule("reserves and anchors are within the funding", &["openingd:R4"], |p| {
                let fails = reserves_with_anchors(p).is_some() && unreserved(p).is_none();
                ensure(!fails, reserves_exceed($mover, p))
            }),
            rule("what is left pays the fee", &["openingd:R5"], |p| {
                unreserved_pays_fee($mover, p)
            }),
            rule("an HTLC of htlc_minimum_msat fits", &["openingd:R6", "openingd:R7"], |p| {
                htlc_minimum_fits(p, &$remote(p))
            }),
            rule("the capacity is worth while", &["openingd:R6", "openingd:R8"], |p| {
                capacity_at_least_minimum($mover, p, &$remote(p))
            }),
            rule("max_accepted_htlcs is not 0", &["openingd:R9"], |p| {
                htlcs_at_least(1, &$remote(p))
            }),
            rule("max_accepted_htlcs is at most 483", &["openingd:R10"], |p| {
                htlcs_at_most_483(Remote, &$remote(p))
            }),
            rule("dust_limit_satoshis is within channel_reserve_satoshis", &["openingd:R11"], |p| {
                dust_limit_within_own_reserve(Remote, &$remote(p))
            }),
        ], [$($more,)*])
    };
}

/// `setup_channel_funder`.
pub(super) static SEND_OPEN_CHANNEL: &[Rule] = table!(
    Local,
    [rule("a large channel only if negotiated", &["openingd:setup_channel_funder"], |p| {
        large_only_if_negotiated(Local, p)
    })],
    [],
    [
        // The seed aborts on this, once the funding is known.
        rule("push_msat is within the funding", &["B2-OPEN-S-05"], |p| {
            push_within_funding(Local, p)
        }),
    ]
);

/// `fundee_channel`, up to the question to the node.
pub(super) static RECEIVE_OPEN_CHANNEL: &[Rule] = table_with_bounds!(
    Remote,
    Remote,
    opener,
    [
        rule("chain_hash is this node's chain", &["openingd:fundee_channel"], |p| {
            chain_is_ours(Remote, p)
        }),
        rule("a large channel only if negotiated", &["openingd:fundee_channel"], |p| {
            large_only_if_negotiated(Remote, p)
        }),
        rule("push_msat is within the funding", &["openingd:fundee_channel"], |p| {
            push_within_funding(Remote, p)
        }),
        rule("feerate_per_kw is not too small", &["openingd:fundee_channel"], |p| {
            feerate_at_least_minimum(Remote, p)
        }),
        rule("feerate_per_kw is not too large", &["openingd:fundee_channel"], |p| {
            feerate_at_most_maximum(Remote, p)
        }),
        rule("our reserve covers the opener's dust limit", &["openingd:fundee_channel"], |p| {
            reserve_covers_opener_dust(Remote, &p.offer.config, &p.accepter_config())
        }),
        rule("our dust limit is within the opener's reserve", &["openingd:fundee_channel"], |p| {
            accepter_dust_within_reserve(Remote, &p.offer.config, &p.accepter_config())
        }),
    ],
    [
        // The seed is always given bounds; later versions do not open without an estimate.
        rule("there is a fee estimate", &["B2-OPEN-R-17"], feerate_can_be_judged),
        rule("option_zeroconf only from a trusted peer", &["B2-OPEN-R-25"], zeroconf_is_trusted),
    ]
);

/// The same with what the node's policy has overridden, which the seed's successors never check.
pub(super) static SEND_ACCEPT_CHANNEL: &[Rule] = table_with_bounds!(
    Remote,
    Local,
    opener,
    [
        rule("there is an answer", &["B2-EST-B-02"], is_answered),
        rule("our reserve covers the opener's dust limit", &["openingd:fundee_channel"], |p| {
            reserve_covers_opener_dust(Local, &p.offer.config, &p.accepter_config())
        }),
        rule("our dust limit is within the opener's reserve", &["openingd:fundee_channel"], |p| {
            accepter_dust_within_reserve(Local, &p.offer.config, &p.accepter_config())
        }),
    ],
    [
        rule("push_msat is within the funding", &["B2-OPEN-R-14"], |p| {
            push_within_funding(Remote, p)
        }),
        rule("channel_type is that of open_channel", &["B2-ACC-S-05"], |p| {
            type_is_repeated(Local, p)
        }),
        rule("option_zeroconf only from a trusted peer", &["B2-OPEN-R-25"], zeroconf_is_trusted),
        rule("a balance is above our reserve", &["B2-ACC-R-11"], |p| {
            someone_above_reserve(Local, p, &p.accepter_config())
        }),
    ]
);

/// `funder_channel_start`, from `accept_channel` on.
pub(super) static RECEIVE_ACCEPT_CHANNEL: &[Rule] = table_with_bounds!(
    Local,
    Remote,
    accepter,
    [
        rule("there is an answer", &["B2-EST-B-02"], is_answered),
        rule(
            "dust_limit_satoshis is within our reserve",
            &["openingd:funder_channel_start"],
            |p| accepter_dust_within_reserve(Remote, &p.offer.config, &p.accepter_config())
        ),
    ],
    [
        rule("push_msat is within the funding", &["B2-OPEN-S-05"], |p| {
            push_within_funding(Local, p)
        }),
        rule("channel_type is that of open_channel", &["B2-ACC-R-05"], |p| {
            type_is_repeated(Remote, p)
        }),
        rule("a balance is above the accepter's reserve", &["B2-ACC-R-11"], |p| {
            someone_above_reserve(Remote, p, &p.accepter_config())
        }),
    ]
);

fn type_is_repeated(side: Side, p: &Proposal<'_>) -> Verdict {
    answer(p, |answer| type_is_there(side, answer.channel_type))?;
    type_is_echoed(side, p)
}

fn opener(p: &Proposal<'_>) -> ChannelConfig {
    p.offer.config
}

fn accepter(p: &Proposal<'_>) -> ChannelConfig {
    p.accepter_config()
}

/// Without a defined type, which an exception refuses later, the one that `init` implies: that
/// is how the seed chose.
fn format(p: &Proposal<'_>) -> CommitmentFormat {
    let best = || ChannelType::best(p.features);
    p.offer.defined_channel_type().unwrap_or_else(best).commitment_format
}

fn anchors(p: &Proposal<'_>) -> Amount {
    match format(p) {
        CommitmentFormat::StaticRemotekey => Amount::ZERO,
        CommitmentFormat::Anchors => ANCHOR_VALUE * 2,
    }
}

fn fee(p: &Proposal<'_>) -> Amount {
    let fee = p.offer.feerate_per_kw.fee(commitment_weight(format(p)));
    fee.expect("a 32-bit feerate times 1124 fits in 64 bits")
}

/// R2.
fn reserves(p: &Proposal<'_>) -> Option<Amount> {
    let accepter = p.accepter_config().channel_reserve_satoshis;
    p.offer.config.channel_reserve_satoshis.checked_add(accepter)
}

/// R3.
fn reserves_with_anchors(p: &Proposal<'_>) -> Option<Amount> {
    reserves(p)?.checked_add(anchors(p))
}

/// R4.
fn unreserved(p: &Proposal<'_>) -> Option<Amount> {
    p.offer.funding_satoshis.checked_sub(reserves_with_anchors(p)?)
}

/// R2 to R4.  The sum is for the text only, where it may be the largest amount of all.
fn reserves_exceed(side: Side, p: &Proposal<'_>) -> Refusal {
    let accepter = p.accepter_config().channel_reserve_satoshis;
    let both = saturating_add(p.offer.config.channel_reserve_satoshis, accepter);
    let (need, funding_satoshis) = (saturating_add(both, anchors(p)), p.offer.funding_satoshis);
    Refusal::ReservesExceedFunding { side, need, funding_satoshis }
}

/// R5: the fee is charged whoever opens, and whatever is pushed.
fn unreserved_pays_fee(side: Side, p: &Proposal<'_>) -> Verdict {
    let Some(have) = unreserved(p) else { return Ok(()) };
    let need = fee(p);
    ensure(need <= have, Refusal::FeeExceedsUnreserved { side, have, need })
}

/// What R5 leaves, where it leaves anything, lowered to what may be in flight: R6.
fn capacity(p: &Proposal<'_>, remote: &ChannelConfig) -> Option<Amount> {
    let left = unreserved(p)?.checked_sub(fee(p))?;
    Some(left.min(remote.max_htlc_value_in_flight_msat.to_amount_floor()))
}

/// R7: one millisatoshi more than the capacity is too much.
fn htlc_minimum_fits(p: &Proposal<'_>, remote: &ChannelConfig) -> Verdict {
    capacity(p, remote).map_or(Ok(()), |capacity| htlc_minimum_within(Remote, remote, capacity))
}

/// R8.
fn capacity_at_least_minimum(side: Side, p: &Proposal<'_>, remote: &ChannelConfig) -> Verdict {
    let Some(capacity) = capacity(p, remote) else { return Ok(()) };
    let min = p.limits.min_effective_htlc_capacity;
    ensure(capacity >= min, Refusal::CapacityTooSmall { side, capacity, min })
}
