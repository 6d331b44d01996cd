//! The rules of the BOLT, with a stance wherever it is silent.
//!
//! The receiving tables follow the BOLT's list, as its rows are numbered; what no single row says
//! (how terms of both sides go together) comes last.  The sending tables hold what we are about
//! to say against the sender's rows, and against what any receiver has to refuse.

use bitcoin::Amount;

use super::Rule;
use super::balance::*;
use super::check::*;
use super::rule;
use crate::config::ChannelConfig;
use crate::proposal::Proposal;
use crate::side::Side::{Local, Remote};

fn both_reserves(p: &Proposal<'_>, accepter_config: &ChannelConfig) -> Amount {
    let opener = p.offer.config.channel_reserve_satoshis;
    saturating_add(opener, accepter_config.channel_reserve_satoshis)
}

pub(super) static SEND_OPEN_CHANNEL: &[Rule] = &[
    rule("option_dual_fund is not negotiated", &["B2-OPEN-R-05"], |p| {
        dual_fund_is_not_negotiated(Local, p)
    }),
    rule("chain_hash is this node's chain", &["B2-OPEN-S-01"], |p| chain_is_ours(Local, p)),
    rule("funding_satoshis exist", &["B1-TYP-B-02", "B1-TYP-B-03"], |p| funding_exists(Local, p)),
    rule("push_msat exist", &["B1-TYP-B-02", "B1-TYP-B-04"], |p| {
        millisatoshis_exist(Local, "push_msat", p.offer.push_msat)
    }),
    rule("the config's amounts exist", &["B1-TYP-B-02", "B1-TYP-B-03", "B1-TYP-B-04"], |p| {
        config_exists(Local, &p.offer.config)
    }),
    rule("funding_satoshis are not above our maximum", &["limits:max_funding_satoshis"], |p| {
        funding_at_most_maximum(Local, p)
    }),
    rule("a large channel only if both advertised it", &["B2-OPEN-S-03", "B2-OPEN-S-04"], |p| {
        large_only_if_both_advertised(Local, p)
    }),
    rule("push_msat is within the funding", &["B2-OPEN-S-05"], |p| push_within_funding(Local, p)),
    rule("channel_reserve_satoshis is at least dust_limit_satoshis", &["B2-OPEN-S-08"], |p| {
        dust_limit_within_own_reserve(Local, &p.offer.config)
    }),
    rule(
        "upfront_shutdown_script is there, empty or valid",
        &["B2-OPEN-S-10", "B2-OPEN-S-12", "B2-SHUT-S-05"],
        |p| sent_script(p.offer.upfront_shutdown_script, p),
    ),
    rule("channel_type is there", &["B2-OPEN-S-13"], |p| {
        type_is_there(Local, p.offer.channel_type)
    }),
    rule(
        "channel_type is a defined one, in the smallest bitmap",
        &["B2-OPEN-S-14", "B2-OPEN-S-15", "B2-TYPE-B-01"],
        |p| type_is_defined(Local, p),
    ),
    rule("channel_type is negotiated", &["B2-OPEN-S-16"], |p| type_is_negotiated(Local, p)),
    rule("channel_type is one that we open", &["limits:channel_types"], |p| {
        type_is_accepted(Local, p)
    }),
    rule("option_scid_alias only if not announced", &["B2-OPEN-S-17"], |p| {
        alias_is_not_announced(Local, p)
    }),
    rule("there is a fee estimate", &["B2-OPEN-S-19"], feerate_can_be_judged),
    rule("feerate_per_kw is not too small", &["B2-OPEN-S-19"], |p| {
        feerate_at_least_minimum(Local, p)
    }),
    rule("feerate_per_kw is not too large", &["B2-OPEN-R-17"], |p| {
        feerate_at_most_maximum(Local, p)
    }),
    rule("dust_limit_satoshis is at least 354", &["B2-OPEN-S-20", "B2-OPEN-S-21"], |p| {
        dust_limit_at_least_floor(Local, &p.offer.config)
    }),
    rule("max_accepted_htlcs is at most 483", &["B2-OPEN-R-16"], |p| {
        htlcs_at_most_483(Local, &p.offer.config)
    }),
    rule("the opener affords fee and anchors", &["B2-OPEN-R-21", "B3-FEE-B-03"], |p| {
        opener_affords_cost(Local, p)
    }),
    rule("a balance is above channel_reserve_satoshis", &["B2-OPEN-R-22"], |p| {
        someone_above_reserve(Local, p, &p.offer.config)
    }),
    rule("an HTLC of htlc_minimum_msat fits", &["B2-OPEN-R-08"], |p| {
        let config = &p.offer.config;
        htlc_minimum_within_capacity(Local, p, config, config.channel_reserve_satoshis)
    }),
    rule("the commitments have outputs", &["B3-FEE-B-04"], |p| {
        // The accepter's dust limit is not known yet: its answer is judged again.
        commitments_have_outputs(Local, p, &p.offer.config)
    }),
];

pub(super) static RECEIVE_OPEN_CHANNEL: &[Rule] = &[
    rule("channel_type is there", &["B2-OPEN-R-02"], |p| {
        type_is_there(Remote, p.offer.channel_type)
    }),
    rule("option_dual_fund is not negotiated", &["B2-OPEN-R-05"], |p| {
        dual_fund_is_not_negotiated(Remote, p)
    }),
    rule("announce_channel is as wanted", &["B2-OPEN-R-06"], announcement_is_wanted),
    // Before anything is multiplied: openingd aborted on more than there is.
    rule("funding_satoshis exist", &["B1-TYP-B-03"], |p| funding_exists(Remote, p)),
    rule("funding_satoshis is not too small", &["B2-OPEN-R-07"], funding_at_least_minimum),
    rule("funding_satoshis is not above our maximum", &["limits:max_funding_satoshis"], |p| {
        funding_at_most_maximum(Remote, p)
    }),
    rule("htlc_minimum_msat is not too large", &["B2-OPEN-R-08"], |p| {
        htlc_minimum_at_most_maximum(p.limits, &p.offer.config)
    }),
    rule("max_htlc_value_in_flight_msat is not too small", &["B2-OPEN-R-09"], |p| {
        in_flight_at_least_minimum(p.limits, &p.offer.config)
    }),
    rule("channel_reserve_satoshis is not too large", &["B2-OPEN-R-10"], |p| {
        reserve_at_most_maximum(p, &p.offer.config)
    }),
    rule("max_accepted_htlcs is not too small", &["B2-OPEN-R-11"], |p| {
        htlcs_at_least(p.limits.min_accepted_htlcs, &p.offer.config)
    }),
    rule("dust_limit_satoshis is not too large", &["B2-OPEN-R-12"], |p| {
        dust_limit_at_most_maximum(p.limits, &p.offer.config)
    }),
    rule("chain_hash is this node's chain", &["B2-OPEN-R-13"], |p| chain_is_ours(Remote, p)),
    rule("push_msat is within the funding", &["B2-OPEN-R-14"], |p| push_within_funding(Remote, p)),
    rule("to_self_delay is not too large", &["B2-OPEN-R-15"], |p| {
        delay_at_most_maximum(p.limits, &p.offer.config)
    }),
    rule("to_self_delay is not too small", &["limits:min_to_self_delay"], |p| {
        delay_at_least_minimum(p.limits, &p.offer.config)
    }),
    rule("max_accepted_htlcs is at most 483", &["B2-OPEN-R-16"], |p| {
        htlcs_at_most_483(Remote, &p.offer.config)
    }),
    rule("there is a fee estimate", &["B2-OPEN-R-17"], feerate_can_be_judged),
    rule("feerate_per_kw is not too small", &["B2-OPEN-R-17", "B3-FEE-B-05"], |p| {
        feerate_at_least_minimum(Remote, p)
    }),
    rule("feerate_per_kw is not too large", &["B2-OPEN-R-17"], |p| {
        feerate_at_most_maximum(Remote, p)
    }),
    rule("dust_limit_satoshis is within channel_reserve_satoshis", &["B2-OPEN-R-19"], |p| {
        dust_limit_within_own_reserve(Remote, &p.offer.config)
    }),
    // Stricter than openingd, which has no floor here.
    rule("dust_limit_satoshis is at least 354", &["B2-OPEN-R-20", "B3-DUST-B-06"], |p| {
        dust_limit_at_least_floor(Remote, &p.offer.config)
    }),
    rule("the opener affords fee and anchors", &["B2-OPEN-R-21", "B3-FEE-B-03"], |p| {
        opener_affords_cost(Remote, p)
    }),
    rule("a balance is above channel_reserve_satoshis", &["B2-OPEN-R-22"], |p| {
        someone_above_reserve(Remote, p, &p.offer.config)
    }),
    rule("a large channel only if we support it", &["B2-OPEN-R-23"], |p| {
        large_only_if_supported(Remote, p)
    }),
    rule(
        "channel_type is a defined one, in the smallest bitmap",
        &["B2-OPEN-R-24", "B2-TYPE-B-01"],
        |p| type_is_defined(Remote, p),
    ),
    rule("channel_type is negotiated", &["B2-OPEN-R-24"], |p| type_is_negotiated(Remote, p)),
    rule("channel_type is one that we accept", &["limits:channel_types"], |p| {
        type_is_accepted(Remote, p)
    }),
    rule("option_scid_alias only if not announced", &["B2-OPEN-R-24"], |p| {
        alias_is_not_announced(Remote, p)
    }),
    rule("option_zeroconf only from a trusted peer", &["B2-OPEN-R-25"], zeroconf_is_trusted),
    rule("upfront_shutdown_script is there if negotiated", &["B2-OPEN-S-10"], |p| {
        received_script_is_there(p.offer.upfront_shutdown_script, p)
    }),
    rule("upfront_shutdown_script is valid", &["B2-OPEN-S-10", "B2-SHUT-S-05"], |p| {
        received_script_is_valid(p.offer.upfront_shutdown_script, p)
    }),
    rule("both reserves are within the funding", &["B2-OPEN-R-10"], |p| {
        reserves_within_funding(Remote, p, &p.accepter_config())
    }),
    rule("an HTLC of htlc_minimum_msat fits", &["B2-OPEN-R-08"], |p| {
        let reserves = both_reserves(p, &p.accepter_config());
        htlc_minimum_within_capacity(Remote, p, &p.offer.config, reserves)
    }),
    rule("the commitments have outputs", &["B3-FEE-B-04"], |p| {
        commitments_have_outputs(Remote, p, &p.accepter_config())
    }),
];

pub(super) static SEND_ACCEPT_CHANNEL: &[Rule] = &[
    rule("there is an answer", &["B2-EST-B-02"], is_answered),
    rule("minimum_depth is 0 with option_zeroconf", &["B2-ACC-S-01"], |p| {
        zeroconf_has_no_depth(Local, p)
    }),
    rule("option_zeroconf only from a trusted peer", &["B2-OPEN-R-25"], zeroconf_is_trusted),
    rule("minimum_depth is at least 1 otherwise", &["B2-ACC-S-02"], depth_is_not_zero),
    rule("channel_reserve_satoshis covers the opener's dust limit", &["B2-ACC-S-03"], |p| {
        answer(p, |answer| reserve_covers_opener_dust(Local, &p.offer.config, &answer.config))
    }),
    rule("dust_limit_satoshis is within the opener's reserve", &["B2-ACC-S-04"], |p| {
        answer(p, |answer| accepter_dust_within_reserve(Local, &p.offer.config, &answer.config))
    }),
    rule("channel_type is there", &["B2-ACC-S-05"], |p| {
        answer(p, |answer| type_is_there(Local, answer.channel_type))
    }),
    rule("channel_type is that of open_channel", &["B2-ACC-S-05"], |p| type_is_echoed(Local, p)),
    rule("channel_type is a defined one", &["B2-OPEN-R-24"], |p| type_is_defined(Local, p)),
    rule("channel_reserve_satoshis is at least dust_limit_satoshis", &["B2-ACC-S-08"], |p| {
        answer(p, |answer| dust_limit_within_own_reserve(Local, &answer.config))
    }),
    rule(
        "upfront_shutdown_script is there, empty or valid",
        &["B2-ACC-S-09", "B2-SHUT-S-05"],
        |p| answer(p, |answer| sent_script(answer.upfront_shutdown_script, p)),
    ),
    rule("dust_limit_satoshis is at least 354", &["B2-ACC-S-10"], |p| {
        answer(p, |answer| dust_limit_at_least_floor(Local, &answer.config))
    }),
    rule("max_accepted_htlcs is at most 483", &["B2-ACC-R-07"], |p| {
        answer(p, |answer| htlcs_at_most_483(Local, &answer.config))
    }),
    rule("all amounts exist", &["B1-TYP-B-02", "B1-TYP-B-03", "B1-TYP-B-04"], |p| {
        funding_exists(Remote, p)?;
        answer(p, |answer| config_exists(Local, &answer.config))
    }),
    rule("push_msat is within the funding", &["B2-OPEN-R-14"], |p| push_within_funding(Remote, p)),
    rule("the opener affords fee and anchors", &["B2-OPEN-R-21", "B3-FEE-B-03"], |p| {
        opener_affords_cost(Remote, p)
    }),
    rule("a balance is above the opener's reserve", &["B2-OPEN-R-22"], |p| {
        someone_above_reserve(Remote, p, &p.offer.config)
    }),
    rule("a balance is above channel_reserve_satoshis", &["B2-ACC-R-11"], |p| {
        answer(p, |answer| someone_above_reserve(Local, p, &answer.config))
    }),
    rule("both reserves are within the funding", &["B2-ACC-R-12"], |p| {
        answer(p, |answer| reserves_within_funding(Local, p, &answer.config))
    }),
    rule("an HTLC of htlc_minimum_msat fits", &["B2-ACC-R-12"], |p| {
        answer(p, |answer| {
            let reserves = both_reserves(p, &answer.config);
            htlc_minimum_within_capacity(Local, p, &answer.config, reserves)
        })
    }),
    rule("the commitments have outputs", &["B3-FEE-B-04"], |p| {
        answer(p, |answer| commitments_have_outputs(Local, p, &answer.config))
    }),
];

pub(super) static RECEIVE_ACCEPT_CHANNEL: &[Rule] = &[
    rule("there is an answer", &["B2-EST-B-02"], is_answered),
    rule("minimum_depth is not too large", &["B2-ACC-R-01"], depth_at_most_maximum),
    rule("minimum_depth is 0 with option_zeroconf", &["B2-ACC-S-01"], |p| {
        // A stance: the accepter must send 0, and what it sends instead is not usable.
        zeroconf_has_no_depth(Remote, p)
    }),
    rule("channel_reserve_satoshis covers our dust limit", &["B2-ACC-R-02"], |p| {
        answer(p, |answer| reserve_covers_opener_dust(Remote, &p.offer.config, &answer.config))
    }),
    rule("dust_limit_satoshis is within our reserve", &["B2-ACC-R-03"], |p| {
        answer(p, |answer| accepter_dust_within_reserve(Remote, &p.offer.config, &answer.config))
    }),
    rule("channel_type is there", &["B2-ACC-R-04"], |p| {
        answer(p, |answer| type_is_there(Remote, answer.channel_type))
    }),
    rule("channel_type is that of open_channel", &["B2-ACC-R-05"], |p| type_is_echoed(Remote, p)),
    rule("channel_type is a defined one", &["B2-OPEN-S-14"], |p| type_is_defined(Local, p)),
    rule("to_self_delay is not too large", &["B2-ACC-R-06"], |p| {
        answer(p, |answer| delay_at_most_maximum(p.limits, &answer.config))
    }),
    rule("to_self_delay is not too small", &["limits:min_to_self_delay"], |p| {
        answer(p, |answer| delay_at_least_minimum(p.limits, &answer.config))
    }),
    rule("max_accepted_htlcs is at most 483", &["B2-ACC-R-07"], |p| {
        answer(p, |answer| htlcs_at_most_483(Remote, &answer.config))
    }),
    rule("dust_limit_satoshis is within channel_reserve_satoshis", &["B2-ACC-R-09"], |p| {
        answer(p, |answer| dust_limit_within_own_reserve(Remote, &answer.config))
    }),
    rule("dust_limit_satoshis is at least 354", &["B2-ACC-R-10", "B3-DUST-B-06"], |p| {
        answer(p, |answer| dust_limit_at_least_floor(Remote, &answer.config))
    }),
    // Our own offer, judged before it left; judged again so that no answer rests on trust.
    rule(
        "the offer's amounts can be paid",
        &["B1-TYP-B-03", "B2-OPEN-S-05", "B2-OPEN-R-21"],
        |p| {
            funding_exists(Local, p)?;
            push_within_funding(Local, p)?;
            opener_affords_cost(Local, p)
        },
    ),
    rule("a balance is above channel_reserve_satoshis", &["B2-ACC-R-11"], |p| {
        answer(p, |answer| someone_above_reserve(Remote, p, &answer.config))
    }),
    rule("htlc_minimum_msat is not too large", &["B2-ACC-R-12"], |p| {
        answer(p, |answer| htlc_minimum_at_most_maximum(p.limits, &answer.config))
    }),
    rule("max_htlc_value_in_flight_msat is not too small", &["B2-ACC-R-12"], |p| {
        answer(p, |answer| in_flight_at_least_minimum(p.limits, &answer.config))
    }),
    rule("channel_reserve_satoshis is not too large", &["B2-ACC-R-12"], |p| {
        answer(p, |answer| reserve_at_most_maximum(p, &answer.config))
    }),
    rule("max_accepted_htlcs is not too small", &["B2-ACC-R-12"], |p| {
        answer(p, |answer| htlcs_at_least(p.limits.min_accepted_htlcs, &answer.config))
    }),
    rule("dust_limit_satoshis is not too large", &["B2-ACC-R-12"], |p| {
        answer(p, |answer| dust_limit_at_most_maximum(p.limits, &answer.config))
    }),
    rule("upfront_shutdown_script is there if negotiated", &["B2-ACC-S-09"], |p| {
        answer(p, |answer| received_script_is_there(answer.upfront_shutdown_script, p))
    }),
    rule("upfront_shutdown_script is valid", &["B2-ACC-S-09", "B2-SHUT-S-05"], |p| {
        answer(p, |answer| received_script_is_valid(answer.upfront_shutdown_script, p))
    }),
    rule("both reserves are within the funding", &["B2-ACC-R-12"], |p| {
        answer(p, |answer| reserves_within_funding(Remote, p, &answer.config))
    }),
    rule("an HTLC of htlc_minimum_msat fits", &["B2-ACC-R-12"], |p| {
        answer(p, |answer| {
            let reserves = both_reserves(p, &answer.config);
            htlc_minimum_within_capacity(Remote, p, &answer.config, reserves)
        })
    }),
    rule("the commitments have outputs", &["B3-FEE-B-04"], |p| {
        answer(p, |answer| commitments_have_outputs(Remote, p, &answer.config))
    }),
];
