//! Transactions that are not the channel's first commitment, each in one place.

use std::sync::Arc;

use bitcoin::absolute::LockTime;
use bitcoin::transaction::Version;
use bitcoin::{Amount, ScriptBuf, Sequence, TxIn, TxOut};
use opening_core::{ChannelParameters, Commitment, FeeratePerKw, MilliSatoshi, Side};

use super::Needed::Validating;
use super::play::{Checked, Stage};
use super::{Check, Subject};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "commitment-number",
        title: "signs no commitment but the first",
        needed: Validating,
        run: |subject, node| Box::pin(number(subject, node)),
    },
    Check {
        id: "commitment-input",
        title: "signs nothing that does not spend the funding output, and only that",
        needed: Validating,
        run: |subject, node| changed(subject, node, INPUTS),
    },
    Check {
        id: "commitment-funding",
        title: "signs for no other amount or script of the funding output",
        needed: Validating,
        run: |subject, node| changed(subject, node, FUNDING),
    },
    Check {
        id: "commitment-fields",
        title: "signs no other version, locktime or sequence",
        needed: Validating,
        run: |subject, node| changed(subject, node, FIELDS),
    },
    Check {
        id: "commitment-outputs",
        title: "signs no output too many, too few, or of another amount or script",
        needed: Validating,
        run: |subject, node| changed(subject, node, OUTPUTS),
    },
    Check {
        id: "commitment-parameters",
        title: "signs no commitment of another push, feerate, delay or key",
        needed: Validating,
        run: |subject, node| Box::pin(parameters(subject, node)),
    },
    Check {
        id: "commitment-point",
        title: "signs no commitment of another point, also where nothing is pushed",
        needed: Validating,
        run: |subject, node| Box::pin(point(subject, node)),
    },
    Check {
        id: "commitment-second",
        title: "signs no second commitment 0",
        needed: Validating,
        run: |subject, node| Box::pin(second(subject, node)),
    },
];

type Change = (&'static str, fn(&mut Commitment));

const INPUTS: &[Change] = &[
    ("another output", |made| made.transaction.input[0].previous_output.vout += 1),
    ("no input", |made| made.transaction.input.clear()),
    ("two inputs", |made| made.transaction.input.push(TxIn::default())),
];

const FUNDING: &[Change] = &[
    ("another amount", |made| made.funding_satoshis += Amount::from_sat(1)),
    ("another script", |made| made.funding_witness_script = ScriptBuf::from_bytes(vec![0x51])),
];

const FIELDS: &[Change] = &[
    ("version 1", |made| made.transaction.version = Version::ONE),
    ("locktime 0", |made| made.transaction.lock_time = LockTime::ZERO),
    ("the last sequence", |made| made.transaction.input[0].sequence = Sequence::MAX),
];

const OUTPUTS: &[Change] = &[
    ("an output of its own", |made| made.transaction.output.push(paying(10_000))),
    ("a dust output", |made| made.transaction.output.push(paying(1))),
    ("an output less", |made| drop(made.transaction.output.pop())),
    ("an output twice", |made| {
        let again = made.transaction.output.last().cloned();
        made.transaction.output.extend(again);
    }),
    ("a satoshi more", |made| change_last(made, |last| last.value += Amount::from_sat(1))),
    ("a satoshi less", |made| change_last(made, |last| last.value -= Amount::from_sat(1))),
    ("another script", |made| {
        change_last(made, |last| last.script_pubkey = paying(1).script_pubkey)
    }),
    ("another order", |made| made.transaction.output.reverse()),
];

fn paying(satoshis: u64) -> TxOut {
    let script_pubkey = ScriptBuf::from_bytes([&[0x00, 0x20][..], &[0x11; 32]].concat());
    TxOut { value: Amount::from_sat(satoshis), script_pubkey }
}

/// The largest one.
fn change_last(made: &mut Commitment, change: impl Fn(&mut TxOut)) {
    made.transaction.output.last_mut().into_iter().for_each(change);
}

/// Every change is refused, and the channel opens all the same.
fn changed(subject: Arc<Subject>, node: u32, changes: &'static [Change]) -> super::Running {
    Box::pin(async move {
        let stage = Stage::new(subject, node).await?;
        for (dbid, opener) in [(1, Side::Local), (2, Side::Remote)] {
            let play = stage.channel(opener, dbid).await?;
            play.set_up().await?;
            play.validate().await?;
            for (what, change) in changes {
                let mut commitment = play.commitment(Side::Remote)?;
                change(&mut commitment);
                play.sign_refused(what, &commitment, play.point_of_peer()).await?;
            }
            play.open().await?;
        }
        Ok(())
    })
}

async fn number(subject: Arc<Subject>, node: u32) -> Checked {
    let stage = Stage::new(subject, node).await?;
    let play = stage.channel(Side::Local, 1).await?;
    play.set_up().await?;
    let mut commitment = play.commitment(Side::Remote)?;
    for number in [1, (1 << 48) - 1, 1 << 48] {
        commitment.number = number;
        play.sign_refused("another number", &commitment, play.point_of_peer()).await?;
    }
    play.open().await
}

type Making = (&'static str, fn(&mut ChannelParameters));

const MAKINGS: &[Making] = &[
    ("another push", |made| made.push_msat = MilliSatoshi::from_msat(199_000_000)),
    ("another feerate", |made| {
        made.feerate_per_kw = FeeratePerKw::new(made.feerate_per_kw.to_sat_per_kw() + 10);
    }),
    ("another delay", |made| made.local.config.to_self_delay += 1),
    ("another revocation key", |made| {
        made.local.keys.revocation_basepoint = made.local.keys.htlc_basepoint;
    }),
    ("another delayed key", |made| {
        made.remote.keys.delayed_payment_basepoint = made.remote.keys.htlc_basepoint;
    }),
    ("another payment key", |made| {
        made.local.keys.payment_basepoint = made.local.keys.htlc_basepoint;
    }),
];

async fn parameters(subject: Arc<Subject>, node: u32) -> Checked {
    let stage = Stage::new(subject, node).await?;
    let play = stage.channel(Side::Local, 1).await?;
    play.set_up().await?;
    for (what, change) in MAKINGS {
        let other = stage.channel_with(Side::Local, 1, change).await?;
        let commitment = other.commitment(Side::Remote)?;
        play.sign_refused(what, &commitment, play.point_of_peer()).await?;
    }
    play.open().await
}

async fn point(subject: Arc<Subject>, node: u32) -> Checked {
    let stage = Stage::new(subject, node).await?;
    for (dbid, push) in [(1, 0), (2, 200_000_000)] {
        let push = MilliSatoshi::from_msat(push);
        let play = stage.channel_with(Side::Remote, dbid, |made| made.push_msat = push).await?;
        play.set_up().await?;
        play.validate().await?;
        let commitment = play.commitment(Side::Remote)?;
        let other = play.setup.parameters.remote.keys.htlc_basepoint;
        play.sign_refused("another point", &commitment, other).await?;
        play.sign().await?;
    }
    Ok(())
}

async fn second(subject: Arc<Subject>, node: u32) -> Checked {
    let stage = Stage::new(subject, node).await?;
    let play = stage.channel(Side::Local, 1).await?;
    play.open().await?;
    let mut commitment = play.commitment(Side::Remote)?;
    change_last(&mut commitment, |last| last.value -= Amount::from_sat(1));
    play.sign_refused("a second one", &commitment, play.point_of_peer()).await?;
    play.sign().await.map(drop)
}
