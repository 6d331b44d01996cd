//! Nodes of ours whose store, signer and transports are all in this process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{PublicKey, Secp256k1};
use bitcoin::transaction::Version;
use bitcoin::{Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use lightning::util::async_poll::AsyncResult;
use lightning::util::persist::KVStore;
use opening_core::{FeeratePerKw, FeerateRange, FundingOutput, Limits};
use opening_peer::node::{AcceptWithin, Bounds, Events};
use opening_peer::store::MemoryStore;
use opening_peer::{Capacity, Event, Node, Openings};
use opening_signer::{Hsm, HsmSecret, LocalHsm, SigningPolicy};
use tokio::sync::watch;

/// Which signer a node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Signer {
    /// Protects the keys.
    Blind,
    /// Rebuilds what it signs, with its records in memory.
    Validating,
}

impl Signer {
    /// Both kinds.
    pub const ALL: [Self; 2] = [Self::Blind, Self::Validating];

    /// For tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Blind => "blind",
            Self::Validating => "validating",
        }
    }

    /// A local signer of this kind with this secret.
    pub fn local(self, secret: &HsmSecret) -> Arc<dyn Hsm> {
        match self {
            Self::Blind => Arc::new(LocalHsm::blind(secret)),
            Self::Validating => {
                let policy = SigningPolicy::for_network(Network::Regtest);
                Arc::new(LocalHsm::validating(secret, policy, Arc::new(Records::default())))
            }
        }
    }
}

/// Counts the channels that were opened.
pub struct Opened(watch::Sender<u64>);

impl Opened {
    /// The counter and what follows it.
    pub fn counted() -> (Arc<Self>, watch::Receiver<u64>) {
        let (sender, receiver) = watch::channel(0);
        (Arc::new(Self(sender)), receiver)
    }
}

impl Events for Opened {
    fn event(&self, _peer: &PublicKey, event: Event) {
        if matches!(event, Event::Opened(_)) {
            self.0.send_modify(|count| *count += 1);
        }
    }
}

/// Its node id.
pub fn node_id(secret: &HsmSecret) -> PublicKey {
    secret.node_key().public_key(&Secp256k1::signing_only())
}

/// A node that accepts what the limits allow, with a store in memory, and no limit on how much.
pub fn node(hsm: Arc<dyn Hsm>, events: Arc<dyn Events>) -> Node {
    let feerates = FeerateRange { min: FeeratePerKw::FLOOR, max: FeeratePerKw::new(25_000) };
    let limits = Limits::for_network(Network::Regtest);
    let policy = AcceptWithin(Bounds { limits, feerates: Some(feerates) });
    let store = Arc::new(MemoryStore::default());
    let node = Node::new(Network::Regtest, hsm, Arc::new(policy), store, events);
    let capacity = Capacity {
        pending_per_peer: u32::MAX,
        pending_in_all: u32::MAX,
        opens_per_second: None,
        unconfirmed_per_peer: u32::MAX,
        unconfirmed_in_all: u32::MAX,
    };
    Node { capacity, ..node }
}

/// The node's openings.
pub async fn start(node: Node) -> Arc<Openings> {
    Openings::load(node).await.expect("an empty store").0
}

/// A transaction that funds the output; the number makes it another one.
pub fn funding(output: &FundingOutput, number: u64) -> Transaction {
    let mut txid = [9; 32];
    txid[..8].copy_from_slice(&number.to_be_bytes());
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint { txid: Txid::from_byte_array(txid), vout: 0 },
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::from_slice(&[[1; 64]]),
        }],
        output: vec![TxOut { value: output.value, script_pubkey: output.script_pubkey.clone() }],
    }
}

/// A validating signer's records, in memory.
#[derive(Default)]
struct Records(Mutex<BTreeMap<String, Vec<u8>>>);

type Done<T> = AsyncResult<'static, T, lightning::io::Error>;

impl Records {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KVStore for Records {
    fn read(&self, _: &str, _: &str, key: &str) -> Done<Vec<u8>> {
        let found = self.entries().get(key).cloned();
        Box::pin(async { found.ok_or_else(|| lightning::io::ErrorKind::NotFound.into()) })
    }

    fn write(&self, _: &str, _: &str, key: &str, bytes: Vec<u8>) -> Done<()> {
        self.entries().insert(key.into(), bytes);
        Box::pin(async { Ok(()) })
    }

    fn remove(&self, _: &str, _: &str, key: &str, _: bool) -> Done<()> {
        self.entries().remove(key);
        Box::pin(async { Ok(()) })
    }

    fn list(&self, _: &str, _: &str) -> Done<Vec<String>> {
        let keys = self.entries().keys().cloned().collect();
        Box::pin(async { Ok(keys) })
    }
}
