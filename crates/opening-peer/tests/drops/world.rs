//! Two nodes whose parts all take their time, and a look at what is left of what they did.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use lightning::ln::types::ChannelId;
use opening_core::Role;
use opening_peer::store::ChannelStore;
use opening_peer::testing::{EVERY, Fault, Faults};
use opening_peer::{Event, Openings, Stage};
use tokio::time::sleep;

use crate::faulty::{From, Log, Made, Party, Wire, connect, faulty_node, open, settle};

pub const TICK: Duration = Duration::from_millis(1);
/// How long each call to a part of a node takes.
pub const CALL: Duration = Duration::from_millis(2);
/// More than all calls of an opening together.
pub const ENOUGH: Duration = Duration::from_millis(200);

/// Everything that a node asks of its parts, but for what it is begun with.
pub const CALLS: [&str; 14] = [
    "bounds",
    "decide",
    "channel",
    "pubkeys",
    "per_commitment_point",
    "setup",
    "sign_counterparty_commitment",
    "validate_holder_commitment",
    "sign_holder_commitment",
    "forget_channel",
    "save",
    "update",
    "remove",
    "reserve_dbids",
];

/// A node whose parts all take their time.
pub fn slow_node(secret: u8) -> Made {
    let slow = |faults: Faults, call| faults.at(call, EVERY, Fault::Delay(CALL));
    faulty_node(secret, &CALLS.into_iter().fold(Faults::none(), slow))
}

/// Polls `future` once for each tick, then drops it.  What it brought, if it was done by then.
pub async fn within<T>(ticks: u32, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    for _ in 0..ticks {
        if let Some(done) = future.as_mut().now_or_never() {
            return Some(done);
        }
        settle().await;
        sleep(TICK).await;
    }
    None
}

/// Plays with more and more ticks, until `play` says that the future was done before its drop.
/// It must have been dropped at so many ticks at least.
pub async fn at_every_tick(least: u32, play: impl AsyncFn(u32) -> bool) {
    let mut ticks = 0;
    while !play(ticks).await {
        ticks += 1;
        assert!(ticks < 1000, "never done");
    }
    assert!(ticks >= least, "done after {ticks} ticks: nothing was dropped half-way");
}

pub struct World {
    pub funder: Party,
    pub fundee: Party,
    pub wire: Wire,
}

impl World {
    pub async fn new() -> Self {
        let (funder, fundee, wire) = connect(slow_node(1), slow_node(2)).await;
        Self { funder, fundee, wire }
    }

    /// How many openings the funder has told its peer to be over.  An answer that crosses such an
    /// error is refused, too.
    fn errors(&self) -> usize {
        let errors = self.wire.errors(From::Funder).into_iter();
        errors.filter(|it| it != "no such channel").count()
    }

    /// What the funder offered and let go of before its save, the peer has been told of at once,
    /// whatever it is at.
    pub async fn has_told(&self) {
        settle().await;
        let stages = self.funder.log.all(|event| match event {
            Event::Progress { role: Role::Funder, stage, .. } => Some(*stage),
            _ => None,
        });
        let is_saving = stages.contains(&Stage::Save);
        let has_offered = self.wire.types(From::Funder).contains(&32);
        if has_offered && !is_saving {
            assert_eq!(self.errors(), 1, "{stages:?}");
        }
    }

    /// Nothing is pending, every opening has one end, and both nodes agree on what there is.
    pub async fn comes_to_rest(&self) {
        sleep(ENOUGH).await;
        for party in [&self.funder, &self.fundee] {
            assert_eq!(party.openings.pending(), 0);
            let status = party.openings.status().await;
            let mut there: Vec<_> = status.under_way.iter().map(|it| it.channel_id).collect();
            let mut kept: Vec<_> =
                party.kept().await.iter().map(|it| Some(it.channel_id)).collect();
            there.sort();
            kept.sort();
            assert_eq!(there, kept, "{:#?}", party.log.all(|it| Some(it.to_string())));
            check_ends(party);
        }
        let ours = self.funder.kept().await;
        for opened in &ours {
            assert!(self.funder.openings.broadcast_permit(&opened.channel_id).is_some());
        }
        if !self.funder.session.is_closed() {
            let offers = self.wire.types(From::Funder).iter().filter(|it| **it == 32).count();
            let opened = self.funder.log.opened_so_far();
            assert_eq!(self.errors(), offers - opened, "{offers} offers, {opened} opened");
        }
        // What the funder has, the fundee has; what only the fundee has, has failed.
        let theirs = self.fundee.store.load_all().await.unwrap();
        let theirs: Vec<_> = theirs.into_iter().map(|it| it.stored.unwrap()).collect();
        for stored in &theirs {
            let id = stored.opened.channel_id;
            let is_shared = ours.iter().any(|it| it.channel_id == id);
            assert!(is_shared || stored.progress.failed.is_some(), "the peer was not told");
        }
    }

    /// The same, the connection is as good as before, and nothing keeps the nodes alive.
    pub async fn goes_on_as_before(self) {
        self.comes_to_rest().await;
        let (_, _permit) = open(&self.funder).await.unwrap();
        self.comes_to_rest().await;
        self.leaves_nothing().await;
    }

    pub async fn leaves_nothing(self) {
        let Self { funder, fundee, wire } = self;
        let openings = [funder.openings.clone(), fundee.openings.clone()];
        drop((funder, fundee, wire));
        leave_nothing(openings).await;
    }
}

/// No task and no handle holds them any more.
pub async fn leave_nothing<const N: usize>(openings: [Arc<Openings>; N]) {
    sleep(ENOUGH).await;
    for openings in openings {
        assert_eq!(Arc::strong_count(&openings), 1, "something is left");
    }
}

/// The openings of which a node was told.
pub fn begun(log: &Log) -> Vec<ChannelId> {
    log.all(|event| match event {
        Event::Progress { temporary_channel_id, stage: Stage::Keys | Stage::Decision, .. } => {
            Some(*temporary_channel_id)
        }
        _ => None,
    })
}

pub fn check_ends(party: &Party) {
    for id in begun(&party.log) {
        let ends = party.log.all(|event| match event {
            Event::Failed(failed) => (failed.temporary_channel_id == id).then_some(()),
            Event::Opened(opened) => (opened.temporary_channel_id == id).then_some(()),
            _ => None,
        });
        assert_eq!(ends.len(), 1, "ends of {id}");
    }
}
