//! Many openings at once: with one peer, in both directions, and with two hundred peers.  All
//! finish, and none has a part of another.

// Clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};

use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use bitcoin::{Amount, Transaction};
use common::{Seen, confirmation, funding_transaction, regtest_bounds};
use lightning::ln::types::ChannelId;
use opening_core::{FeeratePerKw, MilliSatoshi, Role};
use opening_peer::negotiation::ready::Ready;
use opening_peer::node::{AcceptWithin, Events};
use opening_peer::store::MemoryStore;
use opening_peer::transport::in_memory_pair;
use opening_peer::{
    Ask, Capacity, Event, FundingTransaction, Greeting, Node, Opened, Openings, Session,
};
use opening_signer::{HsmSecret, LocalHsm};

/// Peers of the one node in the middle.
const PEERS: u32 = 200;

/// Openings in each direction with each of them, all at once.
const EACH_WAY: u64 = 2;

/// Events with their peer.
#[derive(Default)]
struct Heard {
    seen: Seen,
    ready: Mutex<Vec<(PublicKey, Ready)>>,
    failures: Mutex<Vec<String>>,
}

impl Events for Heard {
    fn event(&self, peer: &PublicKey, event: Event) {
        match &event {
            Event::Ready(ready) => self.ready.lock().unwrap().push((*peer, (**ready).clone())),
            Event::Failed(_)
            | Event::Ended(_)
            | Event::ErrorSent { .. }
            | Event::ErrorReceived { .. }
            | Event::WarningSent { .. }
            | Event::WarningReceived { .. } => {
                self.failures.lock().unwrap().push(format!("{peer}: {event}"));
            }
            _ => {}
        }
        self.seen.event(peer, event);
    }
}

struct Member {
    id: PublicKey,
    openings: Arc<Openings>,
    heard: Arc<Heard>,
}

fn member(number: u32) -> Member {
    let mut secret = [0x21; 32];
    secret[..4].copy_from_slice(&number.to_be_bytes());
    let id = SecretKey::from_slice(&secret).unwrap().public_key(&Secp256k1::signing_only());
    let heard = Arc::new(Heard::default());
    let node = Node::new(
        bitcoin::Network::Regtest,
        Arc::new(LocalHsm::blind(&HsmSecret::new(secret))),
        Arc::new(AcceptWithin(regtest_bounds())),
        Arc::new(MemoryStore::default()),
        heard.clone(),
    );
    let openings = common::openings(Node {
        capacity: Capacity { opens_per_second: None, ..Capacity::default() },
        ..node
    });
    Member { id, openings, heard }
}

async fn connect(one: &Member, other: &Member) -> (Session, Session) {
    let (left, right) = in_memory_pair();
    let (one_session, other_session) = tokio::join!(
        Session::start(one.openings.clone(), other.id, left, Greeting::default()),
        Session::start(other.openings.clone(), one.id, right, Greeting::default()),
    );
    (one_session.unwrap(), other_session.unwrap())
}

/// An amount that no other opening has, and a push that belongs to it.
fn amounts(peer: u32, role_of_hub: Role, number: u64) -> (Amount, MilliSatoshi) {
    let direction = match role_of_hub {
        Role::Funder => 0,
        Role::Fundee => 1,
    };
    let which = (u64::from(peer) * 2 + direction) * EACH_WAY + number;
    (Amount::from_sat(1_000_000 + which), MilliSatoshi::from_msat(1000 * which))
}

async fn open(
    session: Session,
    (funding_satoshis, push_msat): (Amount, MilliSatoshi),
) -> (Arc<Opened>, Transaction) {
    let ask = Ask { push_msat, ..Ask::new(funding_satoshis, FeeratePerKw::new(1250)) };
    let pending = session.open(ask).await.unwrap().accepted().await.unwrap();
    let output = &pending.needed().output;
    assert_eq!(output.value, funding_satoshis);
    let transaction = funding_transaction(output, 0);
    let funding = FundingTransaction::Signed(transaction.clone());
    let (opened, permit) = pending.complete(funding).await.unwrap().opened().await.unwrap();
    assert_eq!(permit.txid(), transaction.compute_txid());
    (opened, transaction)
}

/// Everything that the hub and one peer agreed on.
struct Pair {
    peer: u32,
    role_of_hub: Role,
    number: u64,
    opened: Arc<Opened>,
    transaction: Transaction,
}

async fn open_with(hub: &Member, peer: u32, member: &Member) -> Vec<Pair> {
    let (at_hub, at_peer) = connect(hub, member).await;
    let mut openings = Vec::new();
    for role_of_hub in [Role::Funder, Role::Fundee] {
        for number in 0..EACH_WAY {
            let session = if role_of_hub == Role::Funder { &at_hub } else { &at_peer };
            let opening = open(session.clone(), amounts(peer, role_of_hub, number));
            openings.push(async move {
                let (opened, transaction) = opening.await;
                Pair { peer, role_of_hub, number, opened, transaction }
            });
        }
    }
    let pairs = futures::future::join_all(openings).await;
    // As funder: the other side may still be saving.
    for pair in &pairs {
        let id = pair.opened.channel_id;
        for side in [hub, member] {
            let found = |event: &Event| matches!(event, Event::Opened(it) if it.channel_id == id);
            side.heard.seen.find(|event| found(event).then_some(())).await;
            side.openings.confirmed(id, confirmation(&pair.transaction, 3)).await.unwrap();
        }
    }
    for side in [hub, member] {
        for pair in &pairs {
            let id = pair.opened.channel_id;
            let found =
                |event: &Event| matches!(event, Event::Ready(it) if it.opened.channel_id == id);
            side.heard.seen.find(|event| found(event).then_some(())).await;
        }
    }
    drop((at_hub, at_peer));
    pairs
}

fn ready_by_id(heard: &Heard) -> HashMap<ChannelId, (PublicKey, Ready)> {
    let ready = std::mem::take(&mut *heard.ready.lock().unwrap());
    let count = ready.len();
    let by_id: HashMap<_, _> =
        ready.into_iter().map(|(peer, ready)| (ready.opened.channel_id, (peer, ready))).collect();
    assert_eq!(by_id.len(), count, "an id was used twice");
    by_id
}

/// Both ends describe the same channel, each from its side.
fn assert_mirrored(hub: &Ready, peer: &Ready) {
    let (near, far) = (&hub.opened.parameters, &peer.opened.parameters);
    assert_eq!((&near.local, &near.remote), (&far.remote, &far.local));
    assert_eq!(near.funding_outpoint, far.funding_outpoint);
    assert_eq!(near.push_msat, far.push_msat);
    assert_eq!(hub.opened.temporary_channel_id, peer.opened.temporary_channel_id);
    let (hub_s, peer_s) = (&hub.opened, &peer.opened);
    assert_eq!(hub_s.local_commitment.transaction, peer_s.remote_commitment.transaction);
    assert_eq!(hub_s.remote_commitment.transaction, peer_s.local_commitment.transaction);
    assert_eq!(hub.opened.local_signature, peer.opened.remote_signature);
    assert_eq!(hub.local.alias, peer.remote.alias);
    assert_eq!(hub.local.second_per_commitment_point, peer.remote.second_per_commitment_point);
}

async fn crowd(peers: u32) {
    let hub = Arc::new(member(u32::MAX));
    let opening = (0..peers).map(|peer| {
        let hub = hub.clone();
        tokio::spawn(async move {
            let member = member(peer);
            let pairs = open_with(&hub, peer, &member).await;
            (member, pairs)
        })
    });
    let mut done = Vec::new();
    for one in opening.collect::<Vec<_>>() {
        done.push(one.await.unwrap());
    }

    let at_hub = ready_by_id(&hub.heard);
    assert_eq!(at_hub.len() as u64, u64::from(peers) * 2 * EACH_WAY);
    assert_eq!(*hub.heard.failures.lock().unwrap(), [""; 0]);
    let mut dbids = BTreeMap::new();
    let (mut aliases, mut outpoints) = (HashSet::new(), HashSet::new());
    for (member, pairs) in &done {
        let at_peer = ready_by_id(&member.heard);
        assert_eq!(at_peer.len() as u64, 2 * EACH_WAY);
        assert_eq!(*member.heard.failures.lock().unwrap(), [""; 0]);
        for Pair { peer, role_of_hub, number, opened, transaction } in pairs {
            let id = opened.channel_id;
            let (hub_s_peer, hub_s) = &at_hub[&id];
            let (peer_s_peer, peer_s) = &at_peer[&id];
            assert_eq!((*hub_s_peer, *peer_s_peer), (member.id, hub.id));
            assert_eq!(hub_s.opened.role(), *role_of_hub);
            assert_ne!(hub_s.opened.role(), peer_s.opened.role());
            let parameters = &hub_s.opened.parameters;
            let agreed = (parameters.funding_satoshis, parameters.push_msat);
            assert_eq!(agreed, amounts(*peer, *role_of_hub, *number));
            assert_eq!(parameters.funding_outpoint.txid, transaction.compute_txid());
            assert_mirrored(hub_s, peer_s);
            let reference = hub_s.opened.reference;
            assert_eq!(reference.peer, member.id);
            assert!(dbids.insert(reference.dbid, id).is_none(), "a dbid was given twice");
            assert!(aliases.insert(hub_s.local.alias.unwrap()), "an alias was given twice");
            assert!(outpoints.insert(parameters.funding_outpoint));
        }
    }
    assert_eq!(hub.openings.pending(), 0);
    let status = hub.openings.status().await;
    assert_eq!(status.under_way.len(), at_hub.len(), "each once, until it is released");
    assert!(status.failures.is_empty());
}

// req: B1-CONN-01
#[tokio::test]
async fn two_openings_each_way_with_one_peer_do_not_touch_each_other() {
    crowd(1).await;
}

/// Our own nodes, in memory, each with four openings at once; on threads, so that they do race.
// req: B1-CONN-01, B2-CID-B-03
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_hundred_peers_at_once_all_finish() {
    crowd(PEERS).await;
}
