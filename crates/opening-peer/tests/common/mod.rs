//! What the session tests share: nodes that talk through memory, and what they saw.

// Every test file compiles its own copy and uses a part of it.
#![allow(dead_code, unreachable_pub)]
// Clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

pub mod here;
pub mod lasting;
pub mod parts;
pub mod raw_peer;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness,
};
use lightning::ln::types::ChannelId;
use opening_core::{FeeratePerKw, FeerateRange, FundingOutput, Limits};
use opening_peer::funding::FundingTransaction;
use opening_peer::negotiation::ready::Confirmation;
use opening_peer::node::{AcceptWithin, Bounds, Events};
use opening_peer::store::MemoryStore;
use opening_peer::transport::in_memory_pair;
use opening_peer::{Ask, Capacity, Event, Greeting, Node, Opened, Openings, Session};
use opening_signer::{HsmSecret, LocalHsm};
use tokio::sync::Notify;

/// Everything that a node was told.
#[derive(Default)]
pub struct Seen {
    events: Mutex<Vec<Event>>,
    news: Notify,
}

impl Events for Seen {
    fn event(&self, _peer: &PublicKey, event: Event) {
        self.events.lock().unwrap().push(event);
        self.news.notify_waiters();
    }
}

impl Seen {
    /// Waits until an event answers `find`.
    pub async fn find<T>(&self, find: impl Fn(&Event) -> Option<T>) -> T {
        let search = async {
            loop {
                let news = self.news.notified();
                if let Some(found) = self.events.lock().unwrap().iter().find_map(&find) {
                    return found;
                }
                news.await;
            }
        };
        match tokio::time::timeout(Duration::from_secs(20), search).await {
            Ok(found) => found,
            Err(_) => panic!("not seen; seen: {:#?}", self.lines()),
        }
    }

    /// Waits for an event that is `wanted`, and removes it.
    pub async fn take(&self, wanted: impl Fn(&Event) -> bool) -> Event {
        let search = async {
            loop {
                let news = self.news.notified();
                if let Some(taken) = self.try_take(&wanted) {
                    return taken;
                }
                news.await;
            }
        };
        match tokio::time::timeout(Duration::from_secs(20), search).await {
            Ok(taken) => taken,
            Err(_) => panic!("not seen; seen: {:#?}", self.lines()),
        }
    }

    fn try_take(&self, wanted: impl Fn(&Event) -> bool) -> Option<Event> {
        let mut events = self.events.lock().unwrap();
        let index = events.iter().position(wanted)?;
        Some(events.remove(index))
    }

    /// What `find` makes of all events so far.
    pub fn all<T>(&self, find: impl Fn(&Event) -> Option<T>) -> Vec<T> {
        self.events.lock().unwrap().iter().filter_map(find).collect()
    }

    pub fn count(&self, wanted: impl Fn(&Event) -> bool) -> usize {
        self.events.lock().unwrap().iter().filter(|event| wanted(event)).count()
    }

    /// The operator's lines so far.
    pub fn lines(&self) -> Vec<String> {
        self.events.lock().unwrap().iter().map(ToString::to_string).collect()
    }

    /// The code of the failure that comes, or came.
    pub async fn failure_code(&self) -> &'static str {
        self.find(|event| match event {
            Event::Failed(failed) => Some(failed.failure.code()),
            _ => None,
        })
        .await
    }

    pub async fn opened(&self) -> Arc<Opened> {
        self.find(|event| match event {
            Event::Opened(opened) => Some(opened.clone()),
            _ => None,
        })
        .await
    }

    pub async fn ready(&self) -> opening_peer::negotiation::ready::Ready {
        self.find(|event| match event {
            Event::Ready(ready) => Some((**ready).clone()),
            _ => None,
        })
        .await
    }

    pub async fn error_received(&self) -> (ChannelId, String) {
        self.find(|event| match event {
            Event::ErrorReceived { channel_id, text } => Some((*channel_id, text.clone())),
            _ => None,
        })
        .await
    }
}

pub fn regtest_bounds() -> Bounds {
    Bounds {
        limits: Limits::for_network(Network::Regtest),
        feerates: Some(FeerateRange { min: FeeratePerKw::FLOOR, max: FeeratePerKw::new(100_000) }),
    }
}

/// A node of which tests change what they want to see fail.
pub fn node(secret: u8) -> (Node, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let node = Node {
        capacity: Capacity { opens_per_second: None, ..Capacity::default() },
        ..Node::new(
            Network::Regtest,
            Arc::new(LocalHsm::blind(&HsmSecret::new([secret; 32]))),
            Arc::new(AcceptWithin(regtest_bounds())),
            Arc::new(MemoryStore::default()),
            seen.clone(),
        )
    };
    (node, seen)
}

pub fn node_id(secret: u8) -> PublicKey {
    SecretKey::from_slice(&[secret; 32]).unwrap().public_key(&Secp256k1::new())
}

/// The openings of a node whose store is at hand.
pub fn openings(node: Node) -> Arc<Openings> {
    let loaded = futures::FutureExt::now_or_never(Openings::load(node));
    loaded.expect("a store in memory does not wait").unwrap().0
}

/// One end of a connection.
pub struct End {
    pub openings: Arc<Openings>,
    pub seen: Arc<Seen>,
    pub session: Session,
}

/// Two nodes, connected.
pub async fn connect(one: (Node, Arc<Seen>), other: (Node, Arc<Seen>)) -> (End, End) {
    let (left, right) = in_memory_pair();
    let (one_openings, other_openings) = (openings(one.0), openings(other.0));
    let (a, b) = tokio::join!(
        Session::start(one_openings.clone(), node_id(2), left, Greeting::default()),
        Session::start(other_openings.clone(), node_id(1), right, Greeting::default()),
    );
    (
        End { openings: one_openings, seen: one.1, session: a.unwrap() },
        End { openings: other_openings, seen: other.1, session: b.unwrap() },
    )
}

pub fn ask() -> Ask {
    Ask::new(Amount::from_sat(1_000_000), FeeratePerKw::new(1250))
}

/// A transaction that pays `output` at `index`, with a segwit input as far as anyone can see.
pub fn funding_transaction(output: &FundingOutput, index: usize) -> Transaction {
    let other = TxOut { value: Amount::from_sat(1000), script_pubkey: ScriptBuf::new() };
    let mut outputs = vec![other; index];
    outputs.push(TxOut { value: output.value, script_pubkey: output.script_pubkey.clone() });
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint { txid: Txid::from_byte_array([9; 32]), vout: 0 },
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::from_slice(&[[1; 64]]),
        }],
        output: outputs,
    }
}

pub fn signed(output: &FundingOutput) -> FundingTransaction {
    FundingTransaction::Signed(funding_transaction(output, 0))
}

pub fn confirmation(transaction: &Transaction, depth: u32) -> Confirmation {
    Confirmation {
        transaction: transaction.clone(),
        block_height: 102,
        transaction_index: 1,
        depth,
    }
}
