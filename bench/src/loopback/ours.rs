//! Two of our nodes that open one channel after another over loopback.

use std::path::Path;
use std::sync::Arc;

use bitcoin::Network;
use opening_core::ChannelType;
use opening_peer::node::Events;
use opening_peer::store::KvChannelStore;
use opening_peer::{Node, Session};
use opening_signer::{Hsm, HsmSecret, LocalHsm, SigningPolicy};
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::Kept;
use super::nodes::{self, End};
use super::sample::{Meter, Sample};
use super::writes::{Timed, Writes};
use crate::node::{Opened, Signer, node, start};
use crate::pair;

/// Two connected nodes.
pub(super) struct Ours {
    session: Session,
    _theirs: Session,
    opened: watch::Receiver<u64>,
    count: u64,
    writes: Writes,
    _directory: TempDir,
}

impl Ours {
    /// A funder and a fundee on these runtimes.
    pub(super) async fn connect(signer: Signer, kept: Kept, [near, far]: [Handle; 2]) -> Self {
        let directory = tempfile::tempdir().expect("a place for files");
        let writes = Writes::default();
        let (events, opened) = Opened::counted();
        let side = |number: u8, events| {
            let place = directory.path().join(number.to_string());
            side(signer, kept, number, (&place, &writes), events)
        };
        let (ours, theirs) = (side(1, Opened::counted().0), side(2, events));
        let near = End { runtime: near, openings: start(ours).await };
        let far = End { runtime: far, openings: start(theirs).await };
        let (session, theirs) = nodes::connect(&near, &far, 0).await;
        Self { session, _theirs: theirs, opened, count: 0, writes, _directory: directory }
    }

    /// One channel, timed from the ask to the funder's permit.
    pub(super) async fn open(&mut self) -> Sample {
        self.count += 1;
        let meter = Meter::start(&self.writes);
        pair::open(self.session.clone(), ChannelType::ANCHORS, self.count).await;
        let sample = meter.stop();
        let opened = self.opened.wait_for(|opened| *opened == self.count).await;
        opened.expect("the fundee's node is there");
        sample
    }
}

fn side(
    signer: Signer,
    kept: Kept,
    number: u8,
    (place, writes): (&Path, &Writes),
    events: Arc<dyn Events>,
) -> Node {
    let secret = HsmSecret::new([number; 32]);
    if kept == Kept::InMemory {
        return node(signer.local(&secret), events);
    }
    let hsm: Arc<dyn Hsm> = match signer {
        Signer::Blind => signer.local(&secret),
        Signer::Validating => {
            let policy = SigningPolicy::for_network(Network::Regtest);
            let records = Timed::new(&place.join("signer"), writes);
            Arc::new(LocalHsm::validating(&secret, policy, Arc::new(records)))
        }
    };
    let store = KvChannelStore::new(Timed::new(&place.join("channels"), writes));
    Node { store: Arc::new(store), ..node(hsm, events) }
}
