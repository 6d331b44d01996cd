//! Connections, and what their sessions are asked.

use std::sync::Arc;

use lightning::ln::types::ChannelId;
use opening_peer::store::{ChannelStore, MemoryStore};
use opening_peer::testing::{EVERY, Fault, Faults, FaultyStore};
use opening_peer::transport::in_memory_pair;
use opening_peer::{BroadcastPermit, Failed, Greeting, Node, Opened, Openings, Restored, Session};
use tokio::time::{sleep, timeout};

use crate::common::{ask, node_id};
use crate::faulty::{finish, open};
use crate::world::{
    CALL, ENOUGH, TICK, World, at_every_tick, check_ends, leave_nothing, slow_node, within,
};

#[tokio::test(start_paused = true)]
async fn what_a_session_is_asked() {
    for ticks in 0..4 {
        let world = World::new().await;
        let _ = within(ticks, world.funder.session.send(vec![0xff; 100])).await;
        let _ = within(ticks, world.funder.session.shut_down(ChannelId([7; 32]), None)).await;
        let mut session = world.funder.session.clone();
        assert!(within(ticks, session.closed()).await.is_none());
        drop(session);
        world.goes_on_as_before().await;

        // Asked once, it closes; dropped before that, nothing has happened.
        let world = World::new().await;
        let mut session = world.funder.session.clone();
        let opening = world.funder.session.open(ask()).await.unwrap();
        let _ = within(ticks, session.close()).await;
        sleep(ENOUGH).await;
        assert_eq!(session.is_closed(), ticks > 0);
        drop((session, opening));
        world.comes_to_rest().await;
        world.leaves_nothing().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_while_a_channel_is_opened() {
    for funder_s in [true, false] {
        for ticks in 0..60 {
            let World { funder, fundee, wire } = World::new().await;
            let opening = funder.session.open(ask()).await.unwrap();
            let openings = [funder.openings.clone(), fundee.openings.clone()];
            let going_on = tokio::spawn(finish(opening));
            sleep(TICK * ticks).await;
            let (gone, left) = if funder_s { (funder, fundee) } else { (fundee, funder) };
            drop(gone.session);
            // The opening's own handle keeps the funder's connection.
            let opened = timeout(ENOUGH, going_on).await.unwrap().unwrap();
            assert!(opened.is_ok() || !funder_s);
            drop(opened);
            sleep(ENOUGH).await;
            assert!(left.session.is_closed());
            for openings in &openings {
                assert_eq!(openings.pending(), 0);
            }
            check_ends(&left);
            drop((left.openings, left.session, gone.openings, wire));
            leave_nothing(openings).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_starts() {
    at_every_tick(2, async |ticks| {
        let world = World::new().await;
        let (opened, _permit) = open(&world.funder).await.unwrap();
        let store = MemoryStore::default();
        store.save(&opened).await.unwrap();
        let made = slow_node(1);
        let faults = Faults::none().at("load_all", EVERY, Fault::Delay(CALL));
        let store = Arc::new(FaultyStore::new(store, faults));
        let node = Node { store, ..made.node };
        let loaded = within(ticks, Openings::load(node.clone())).await;
        let is_done = loaded.is_some();
        drop(loaded);
        let (openings, restored) = Openings::load(node).await.unwrap();
        assert!(matches!(&restored[..], [Restored::MayBroadcast { .. }]));
        drop(restored);
        leave_nothing([openings]).await;
        is_done
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_begins() {
    at_every_tick(1, async |ticks| {
        let (one, other) = (slow_node(1), slow_node(2));
        let (one, other) = (crate::common::openings(one.node), crate::common::openings(other.node));
        let (left, right) = in_memory_pair();
        let theirs = Session::start(other.clone(), node_id(1), right, Greeting::default());
        let theirs = tokio::spawn(theirs);
        let ours = Session::start(one.clone(), node_id(2), left, Greeting::default());
        let ours = within(ticks, ours).await;
        let theirs = timeout(ENOUGH, theirs).await.unwrap().unwrap();
        let is_done = ours.is_some();
        if let Some(mut session) = theirs.ok().filter(|_| !is_done) {
            timeout(ENOUGH, session.closed()).await.unwrap();
        }
        drop(ours);
        leave_nothing([one, other]).await;
        is_done
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_takes_the_place_of_another() {
    for ticks in 0..8 {
        let world = World::new().await;
        let opening = tokio::spawn(open_with(world.funder.session.clone()));
        sleep(TICK * 3).await;
        let (left, right) = in_memory_pair();
        let (one, other) = (world.funder.openings.clone(), world.fundee.openings.clone());
        let ours = Session::start(one, node_id(2), left, Greeting::default());
        let theirs = Session::start(other, node_id(1), right, Greeting::default());
        let both = async { tokio::join!(ours, theirs) };
        drop(within(ticks, both).await);
        let opened = timeout(ENOUGH, opening).await.unwrap().unwrap();
        // A connection that was begun has ended the old one's openings.
        assert_eq!(opened.is_ok(), ticks == 0);
        for party in [&world.funder, &world.fundee] {
            assert_eq!(party.openings.pending(), 0);
        }
        drop(opened);
        world.leaves_nothing().await;
    }
}

async fn open_with(session: Session) -> Result<(Arc<Opened>, BroadcastPermit), Failed> {
    finish(session.open(ask()).await?).await
}
