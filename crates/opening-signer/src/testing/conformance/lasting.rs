//! What a restart and forgetting do not change.

use std::sync::Arc;

use opening_core::{MilliSatoshi, Side};

use super::Needed::{Always, Validating};
use super::play::{Checked, Stage};
use super::{Check, Subject};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "goes-on-after-restart",
        title: "goes on after a restart, once the setup is repeated",
        needed: Always,
        run: |subject, node| Box::pin(goes_on(subject, node)),
    },
    Check {
        id: "remembers-after-restart",
        title: "takes no other setup after a restart, once it has signed",
        needed: Validating,
        run: |subject, node| Box::pin(remembers(subject, node)),
    },
    Check {
        id: "forgets",
        title: "forgets a channel, also one that it never knew, and others go on",
        needed: Always,
        run: |subject, node| Box::pin(forgets(subject, node)),
    },
    Check {
        id: "used-up-after-forgetting",
        title: "takes no other setup of a channel that it signed for and forgot",
        needed: Validating,
        run: |subject, node| Box::pin(used_up(subject, node)),
    },
];

/// At each step of an opening in between.
async fn goes_on(subject: Arc<Subject>, node: u32) -> Checked {
    let mut stage = Stage::new(subject, node).await?;
    for (dbid, opener) in [(1, Side::Local), (2, Side::Remote)] {
        stage.channel(opener, dbid).await?.set_up().await?;
        stage.restart().await?;
        stage.channel(opener, dbid).await?.open().await?;
        stage.restart().await?;
        stage.channel(opener, dbid).await?.open().await?;
    }
    Ok(())
}

async fn remembers(subject: Arc<Subject>, node: u32) -> Checked {
    let mut stage = Stage::new(subject, node).await?;
    stage.channel(Side::Local, 1).await?.open().await?;
    stage.restart().await?;
    other_setup_is_refused(&stage, "another setup after a restart").await?;
    stage.restart().await?;
    stage.channel(Side::Local, 1).await?.open().await
}

async fn forgets(subject: Arc<Subject>, node: u32) -> Checked {
    let stage = Stage::new(subject, node).await?;
    let first = stage.channel(Side::Local, 1).await?;
    first.open().await?;
    // The first of all is the last to be forgotten: some signers count upwards.
    for dbid in [2, 1] {
        let forgotten = stage.hsm().forget_channel(Stage::reference(dbid)).await;
        stage.good("forget_channel", forgotten)?;
    }
    stage.channel(Side::Remote, 3).await?.open().await
}

async fn used_up(subject: Arc<Subject>, node: u32) -> Checked {
    let mut stage = Stage::new(subject, node).await?;
    stage.channel(Side::Local, 1).await?.open().await?;
    let forgotten = stage.hsm().forget_channel(Stage::reference(1)).await;
    stage.good("forget_channel", forgotten)?;
    other_setup_is_refused(&stage, "another setup after forgetting").await?;
    stage.restart().await?;
    other_setup_is_refused(&stage, "another setup after forgetting and a restart").await
}

async fn other_setup_is_refused(stage: &Stage, what: &str) -> Checked {
    let push = MilliSatoshi::from_msat(100_000_000);
    // Some refuse the name already.
    let named = stage.hsm().channel(Stage::reference(1)).await;
    if let Err(error) = named {
        return stage.refused::<()>(what, Err(error));
    }
    let other = stage.channel_with(Side::Local, 1, |made| made.push_msat = push).await?;
    let set_up = other.channel.setup(&other.setup).await;
    if set_up.is_err() {
        return stage.refused(what, set_up);
    }
    // It may hear only now what the channel is like.
    let theirs = other.commitment(Side::Remote)?;
    other.sign_refused(what, &theirs, other.point_of_peer()).await
}
