//! Channels that a validating signer does not sign for: it says so at their setup.

use std::sync::Arc;

use bitcoin::constants::ChainHash;
use bitcoin::{Amount, Network};
use opening_core::{ChannelParameters, ChannelType, FeeratePerKw, MilliSatoshi, Side};

use super::Needed::Validating;
use super::play::{Checked, Stage, Wrong};
use super::{Check, Subject};
use crate::request::ChannelSetup;

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "setup-keys",
        title: "takes no setup with keys or a point that are not the channel's",
        needed: Validating,
        run: |subject, node| Box::pin(keys(subject, node)),
    },
    Check {
        id: "setup-chain",
        title: "takes no channel of another chain",
        needed: Validating,
        run: |subject, node| Box::pin(chain(subject, node)),
    },
    Check {
        id: "setup-push",
        title: "takes no push of more than the channel holds",
        needed: Validating,
        run: |subject, node| Box::pin(push(subject, node)),
    },
    Check {
        id: "setup-size",
        title: "takes no channel larger than its bound",
        needed: Validating,
        run: |subject, node| Box::pin(size(subject, node)),
    },
    Check {
        id: "setup-delays",
        title: "takes no delay outside of its bounds, on either side",
        needed: Validating,
        run: |subject, node| Box::pin(delays(subject, node)),
    },
    Check {
        id: "setup-feerates",
        title: "takes no feerate outside of its bounds",
        needed: Validating,
        run: |subject, node| Box::pin(feerates(subject, node)),
    },
    Check {
        id: "setup-types",
        title: "takes no channel type but those that it declares",
        needed: Validating,
        run: |subject, node| Box::pin(types(subject, node)),
    },
];

/// The changed setup is refused, or the first signature for it by a signer that hears too late
/// what the channel is like; and the usual one is taken afterwards.
async fn refuses(
    stage: &Stage,
    what: &str,
    dbid: u64,
    change: impl Fn(&mut ChannelParameters),
) -> Checked {
    let play = stage.channel_with(Side::Local, dbid, change).await?;
    let set_up = play.channel.setup(&play.setup).await;
    if set_up.is_err() {
        stage.refused(what, set_up)?;
        return stage.channel(Side::Local, dbid).await?.open().await;
    }
    let Ok(theirs) = play.commitment(Side::Remote) else {
        return Err(Wrong::Allowed(format!("{what}: it took the setup")));
    };
    play.sign_refused(what, &theirs, play.point_of_peer()).await?;
    stage.channel(Side::Local, 1000 + dbid).await?.open().await
}

async fn keys(subject: Arc<Subject>, node: u32) -> Checked {
    let stage = Stage::new(subject, node).await?;
    refuses(&stage, "the peer's funding key as ours", 1, |made| {
        made.local.keys.funding_pubkey = made.remote.keys.funding_pubkey;
    })
    .await?;
    refuses(&stage, "the peer's delayed basepoint as ours", 2, |made| {
        made.local.keys.delayed_payment_basepoint = made.remote.keys.delayed_payment_basepoint;
    })
    .await?;
    refuses(&stage, "the peer's point as ours", 3, |made| {
        made.local.first_per_commitment_point = made.remote.first_per_commitment_point;
    })
    .await
}

async fn chain(subject: Arc<Subject>, node: u32) -> Checked {
    let other = match subject.network {
        Network::Bitcoin => Network::Regtest,
        _ => Network::Bitcoin,
    };
    let stage = Stage::new(subject, node).await?;
    let play = stage.channel(Side::Local, 1).await?;
    let chain_hash = ChainHash::using_genesis_block(other);
    let elsewhere = ChannelSetup { chain_hash, ..play.setup.clone() };
    stage.refused("another chain", play.channel.setup(&elsewhere).await)?;
    play.open().await
}

async fn push(subject: Arc<Subject>, node: u32) -> Checked {
    let stage = Stage::new(subject, node).await?;
    refuses(&stage, "a push of more than all", 1, |made| {
        made.push_msat = MilliSatoshi::from_msat(made.funding_satoshis.to_sat() * 1000 + 1);
    })
    .await
}

async fn size(subject: Arc<Subject>, node: u32) -> Checked {
    let stage = Stage::new(subject, node).await?;
    let most = stage.bounds.max_funding_satoshis;
    if most >= opening_core::amount::MAX_SATOSHIS {
        return Err(Wrong::NotApplicable("it declares no bound"));
    }
    let larger = most + Amount::from_sat(1);
    refuses(&stage, "a satoshi too many", 1, |made| made.funding_satoshis = larger).await?;
    let largest = stage.channel_with(Side::Local, 2, |made| made.funding_satoshis = most).await?;
    largest.open().await
}

async fn delays(subject: Arc<Subject>, node: u32) -> Checked {
    let stage = Stage::new(subject, node).await?;
    let (least, most) = stage.bounds.to_self_delay.clone().into_inner();
    let outside = [least.checked_sub(1), most.checked_add(1)];
    if outside == [None, None] {
        return Err(Wrong::NotApplicable("it declares no bound"));
    }
    for (dbid, delay) in (1..).step_by(10).zip(outside.into_iter().flatten()) {
        refuses(&stage, "our delay", dbid, |made| made.local.config.to_self_delay = delay).await?;
        let theirs = |made: &mut ChannelParameters| made.remote.config.to_self_delay = delay;
        refuses(&stage, "the peer's delay", dbid + 1, theirs).await?;
    }
    for (dbid, delay) in (101..).zip([least, most]) {
        let within = stage.channel_with(Side::Local, dbid, |made| {
            made.local.config.to_self_delay = delay;
            made.remote.config.to_self_delay = delay;
        });
        within.await?.open().await?;
    }
    Ok(())
}

async fn feerates(subject: Arc<Subject>, node: u32) -> Checked {
    let stage = Stage::new(subject, node).await?;
    let (least, most) = (stage.bounds.feerates.min, stage.bounds.feerates.max);
    let [below, above] =
        [least.to_sat_per_kw().checked_sub(1), most.to_sat_per_kw().checked_add(1)];
    if (below, above) == (None, None) {
        return Err(Wrong::NotApplicable("it declares no bound"));
    }
    for (dbid, feerate) in (1..).zip([below, above].into_iter().flatten()) {
        let feerate = FeeratePerKw::new(feerate);
        refuses(&stage, "the feerate", dbid, |made| made.feerate_per_kw = feerate).await?;
    }
    for (dbid, feerate) in (101..).zip([least, most]) {
        let within = stage.channel_with(Side::Local, dbid, |made| made.feerate_per_kw = feerate);
        within.await?.open().await?;
    }
    Ok(())
}

async fn types(subject: Arc<Subject>, node: u32) -> Checked {
    let stage = Stage::new(subject, node).await?;
    let taken = stage.bounds.channel_types;
    let others: Vec<_> = ChannelType::all().into_iter().filter(|it| !taken.contains(*it)).collect();
    if others.is_empty() {
        return Err(Wrong::NotApplicable("it takes every type"));
    }
    for (dbid, other) in (1..).zip(others) {
        refuses(&stage, "the channel type", dbid, |made| made.channel_type = other).await?;
    }
    for (dbid, taken) in (101..).zip(taken.iter()) {
        let within = stage.channel_with(Side::Local, dbid, |made| made.channel_type = taken);
        within.await?.open().await?;
    }
    Ok(())
}
