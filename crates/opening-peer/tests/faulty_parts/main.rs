//! Parts that go wrong, for the tests of whoever builds a node: each does each of its faults at
//! the call it is told, and not before; and what an opening makes of them.

// Clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

mod calls;
#[path = "../common/mod.rs"]
mod common;
mod cuts;
#[path = "../faulty/mod.rs"]
mod faulty;
mod funded;
mod stream;

use std::sync::Arc;

use faulty::{Log, Made, finish};
use opening_peer::store::{ChannelStore, MemoryStore};
use opening_peer::testing::FaultyStore;
use opening_peer::transport::Transport;
use opening_peer::{BroadcastPermit, Failed, Greeting, Opened, Openings, Session};

use crate::common::{ask, node_id};

/// One side of an opening, also where its session never began.
struct Side {
    openings: Arc<Openings>,
    log: Arc<Log>,
    store: Arc<FaultyStore<MemoryStore>>,
    session: Option<Session>,
}

impl Side {
    async fn start(made: Made, peer: u8, transport: Transport) -> Self {
        let Made { node, log, store, .. } = made;
        let openings = common::openings(node);
        let session =
            Session::start(openings.clone(), node_id(peer), transport, Greeting::default());
        let session = session.await.ok();
        Self { openings, log, store, session }
    }

    fn session(&self) -> &Session {
        self.session.as_ref().unwrap()
    }

    async fn open(&self) -> Result<(Arc<Opened>, BroadcastPermit), Failed> {
        finish(self.session().open(ask()).await?).await
    }

    async fn kept(&self) -> usize {
        self.store.load_all().await.unwrap().len()
    }
}

/// A funder and a fundee over these ends of a connection.
async fn connect(funder: Made, fundee: Made, ends: (Transport, Transport)) -> (Side, Side) {
    tokio::join!(Side::start(funder, 2, ends.0), Side::start(fundee, 1, ends.1))
}
