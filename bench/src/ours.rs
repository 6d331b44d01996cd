//! Two of our nodes in one thread, which open channels with each other through memory.

use std::sync::Arc;

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::PublicKey;
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness,
};
use lightning::util::persist::KVStore;
use opening_core::{ChannelType, FeeratePerKw, FeerateRange, FundingOutput, Limits};
use opening_peer::node::{AcceptWithin, Bounds, Events};
use opening_peer::store::MemoryStore;
use opening_peer::transport::in_memory_pair;
use opening_peer::{Ask, Capacity, Event, FundingTransaction, Greeting, Node, Openings, Session};
use opening_signer::{Hsm, HsmSecret, LocalHsm, SigningPolicy};
use tokio::sync::watch;

/// Which signer both nodes have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signer {
    Blind,
    Validating,
}

/// Counts what was opened.
struct Opened(watch::Sender<u64>);

impl Events for Opened {
    fn event(&self, _peer: &PublicKey, event: Event) {
        if matches!(event, Event::Opened(_)) {
            self.0.send_modify(|count| *count += 1);
        }
    }
}

/// Two connected nodes.
pub(crate) struct Pair {
    session: Session,
    _far: Session,
    opened: watch::Receiver<u64>,
    count: u64,
}

impl Pair {
    pub(crate) async fn connect(signer: Signer) -> Self {
        let (telling, opened) = watch::channel(0);
        let (near_id, near) = node(1, signer, Arc::new(Opened(watch::Sender::new(0))));
        let (far_id, far) = node(2, signer, Arc::new(Opened(telling)));
        let (left, right) = in_memory_pair();
        let (near, far) = tokio::join!(
            Session::start(near.await, far_id, left, Greeting::default()),
            Session::start(far.await, near_id, right, Greeting::default()),
        );
        let session = near.expect("two of our own nodes understand each other");
        let far = far.expect("two of our own nodes understand each other");
        Self { session, _far: far, opened, count: 0 }
    }

    /// One channel, up to the funder's permit and the fundee's saved channel.
    pub(crate) async fn open(&mut self, channel_type: ChannelType) {
        let ask = Ask {
            channel_type: Some(channel_type),
            ..Ask::new(Amount::from_sat(1_000_000), FeeratePerKw::new(1250))
        };
        let opening = self.session.open(ask).await.expect("an ask within the limits");
        let pending = opening.accepted().await.expect("an offer within the limits");
        self.count += 1;
        let funding = FundingTransaction::Signed(transaction(&pending.needed().output, self.count));
        let signing = pending.complete(funding).await;
        let mut signing = signing.map_err(|(error, _)| error).expect("it pays the output");
        let (_, permit) = signing.opened().await.expect("both sign");
        std::hint::black_box(permit.txid());
        let count = self.count;
        self.opened.wait_for(|opened| *opened == count).await.expect("the node lives");
    }
}

fn node(
    byte: u8,
    signer: Signer,
    events: Arc<Opened>,
) -> (PublicKey, impl Future<Output = Arc<Openings>>) {
    let secret = HsmSecret::new([byte; 32]);
    let id = secret.node_key().public_key(&bitcoin::secp256k1::Secp256k1::signing_only());
    let hsm: Arc<dyn Hsm> = match signer {
        Signer::Blind => Arc::new(LocalHsm::blind(&secret)),
        Signer::Validating => {
            let policy = SigningPolicy::for_network(Network::Regtest);
            Arc::new(LocalHsm::validating(&secret, policy, Arc::new(Records::default())))
        }
    };
    let feerates = FeerateRange { min: FeeratePerKw::FLOOR, max: FeeratePerKw::new(25_000) };
    let limits = Limits::for_network(Network::Regtest);
    let policy = AcceptWithin(Bounds { limits, feerates: Some(feerates) });
    let capacity = Capacity {
        opens_per_second: None,
        unconfirmed_per_peer: u32::MAX,
        unconfirmed_in_all: u32::MAX,
        ..Capacity::default()
    };
    let store = Arc::new(MemoryStore::default());
    let node = Node::new(Network::Regtest, hsm, Arc::new(policy), store, events);
    let node = Node { capacity, ..node };
    (id, async move { Openings::load(node).await.expect("an empty store").0 })
}

fn transaction(output: &FundingOutput, number: u64) -> Transaction {
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
struct Records(std::sync::Mutex<std::collections::BTreeMap<String, Vec<u8>>>);

type Done<T> = lightning::util::async_poll::AsyncResult<'static, T, lightning::io::Error>;

impl Records {
    fn entries(&self) -> std::sync::MutexGuard<'_, std::collections::BTreeMap<String, Vec<u8>>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
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
