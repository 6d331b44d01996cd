//! Keys, points and names.

use std::collections::BTreeSet;

use bitcoin::secp256k1::PublicKey;
use opening_core::{ChannelKeys, Side};

use super::Needed::Always;
use super::play::{Checked, Stage, Wrong};
use super::{Check, Subject};
use std::sync::Arc;

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "channel-again",
        title: "gives the same channel by the same name",
        needed: Always,
        run: |subject, node| Box::pin(same_by_name(subject, node)),
    },
    Check {
        id: "channel-0",
        title: "knows no channel by the number 0",
        needed: Always,
        run: |subject, node| Box::pin(number_0(subject, node)),
    },
    Check {
        id: "keys-distinct",
        title: "gives each channel of each peer keys of its own, all different",
        needed: Always,
        run: |subject, node| Box::pin(distinct(subject, node)),
    },
    Check {
        id: "points",
        title: "gives a point for each number, always the same one, and none for two",
        needed: Always,
        run: |subject, node| Box::pin(points(subject, node)),
    },
    Check {
        id: "points-end",
        title: "gives no point beyond commitment 2^48 - 1",
        needed: Always,
        run: |subject, node| Box::pin(points_end(subject, node)),
    },
    Check {
        id: "keys-after-restart",
        title: "has the same keys and points after a restart",
        needed: Always,
        run: |subject, node| Box::pin(after_restart(subject, node)),
    },
];

fn all(keys: &ChannelKeys) -> [PublicKey; 5] {
    [
        keys.funding_pubkey,
        keys.revocation_basepoint,
        keys.payment_basepoint,
        keys.delayed_payment_basepoint,
        keys.htlc_basepoint,
    ]
}

async fn same_by_name(subject: Arc<Subject>, node: u32) -> Checked {
    let stage = Stage::new(subject, node).await?;
    let one = stage.channel(Side::Local, 1).await?;
    let other = stage.channel(Side::Local, 1).await?;
    if one.setup.parameters.local != other.setup.parameters.local {
        return Err(Wrong::new("keys or first point differ"));
    }
    // It is one channel: what one handle was told the other knows.
    one.set_up().await?;
    other.sign().await.map(drop)
}

async fn number_0(subject: Arc<Subject>, node: u32) -> Checked {
    let stage = Stage::new(subject, node).await?;
    let named = stage.hsm().channel(Stage::reference(0)).await;
    stage.refused("channel 0", named)
}

async fn distinct(subject: Arc<Subject>, node: u32) -> Checked {
    let stage = Stage::new(subject, node).await?;
    let mut seen = BTreeSet::new();
    for peer in [[0xc0; 32], [0xc2; 32]] {
        for dbid in [1, 2, 256, u64::from(u32::MAX) + 1] {
            let reference = Stage::reference_with(peer, dbid);
            let channel = stage.good("channel", stage.hsm().channel(reference).await)?;
            let keys = stage.good("pubkeys", channel.pubkeys().await)?;
            let point = channel.per_commitment_point(0).await;
            let point = stage.good("per_commitment_point(0)", point)?;
            let is_new = all(&keys).into_iter().chain([point]).all(|key| seen.insert(key));
            if !is_new {
                return Err(Wrong::new(format!("channel {dbid} has a key that was given before")));
            }
        }
    }
    Ok(())
}

async fn points(subject: Arc<Subject>, node: u32) -> Checked {
    let stage = Stage::new(subject, node).await?;
    let play = stage.channel(Side::Local, 1).await?;
    let mut seen = BTreeSet::new();
    for number in [0, 1] {
        let [one, again] = [
            play.channel.per_commitment_point(number).await,
            play.channel.per_commitment_point(number).await,
        ];
        let one = stage.good("per_commitment_point", one)?;
        if Ok(one) != again {
            return Err(Wrong::new(format!("point {number} is another one the second time")));
        }
        if !seen.insert(one) {
            return Err(Wrong::new(format!("point {number} is that of another number")));
        }
    }
    Ok(())
}

async fn points_end(subject: Arc<Subject>, node: u32) -> Checked {
    let stage = Stage::new(subject, node).await?;
    let play = stage.channel(Side::Local, 1).await?;
    for number in [1 << 48, u64::MAX] {
        let point = play.channel.per_commitment_point(number).await;
        stage.refused(&format!("point {number}"), point)?;
    }
    stage.good("point 0 afterwards", play.channel.per_commitment_point(0).await).map(drop)
}

async fn after_restart(subject: Arc<Subject>, node: u32) -> Checked {
    let mut stage = Stage::new(subject, node).await?;
    let before = stage.channel(Side::Local, 1).await?.setup.parameters.local;
    stage.restart().await?;
    let after = stage.channel(Side::Local, 1).await?.setup.parameters.local;
    if before == after { Ok(()) } else { Err(Wrong::new("keys or first point differ")) }
}
