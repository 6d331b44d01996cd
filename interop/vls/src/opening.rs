//! A channel between two nodes of this library, which differ in their signers only.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::PublicKey;
use bitcoin::transaction::Version;
use bitcoin::{Amount, Network, OutPoint, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use opening_core::{ChannelType, FeeratePerKw, FeerateRange, FundingOutput, Limits, MilliSatoshi};
use opening_peer::funding::FundingTransaction;
use opening_peer::node::{AcceptWithin, Bounds, Events};
use opening_peer::store::MemoryStore;
use opening_peer::transport::in_memory_pair;
use opening_peer::{Ask, Event, Greeting, Node, Openings, Session};
use opening_signer::Hsm;

/// What is opened.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) channel_type: ChannelType,
    pub(crate) push_msat: u64,
}

/// A node: its signer, its id, and what it owns for as long as it lives.
pub(crate) struct Party {
    id: PublicKey,
    openings: Arc<Openings>,
}

struct Silent;

impl Events for Silent {
    fn event(&self, _peer: &PublicKey, _event: Event) {}
}

impl Party {
    pub(crate) async fn new(id: PublicKey, hsm: Arc<dyn Hsm>) -> Result<Self, String> {
        let feerates = FeerateRange { min: FeeratePerKw::FLOOR, max: FeeratePerKw::new(25_000) };
        let limits = Limits::for_network(Network::Regtest);
        let policy = Arc::new(AcceptWithin(Bounds { limits, feerates: Some(feerates) }));
        let store = Arc::new(MemoryStore::default());
        let node = Node::new(Network::Regtest, hsm, policy, store, Arc::new(Silent));
        let (openings, _) = Openings::load(node).await.map_err(|error| error.to_string())?;
        Ok(Self { id, openings })
    }
}

/// Opens one, up to the permit to broadcast; `input` tells its funding from that of others.
pub(crate) async fn open(
    funder: &Party,
    fundee: &Party,
    shape: Shape,
    input: u8,
) -> Result<(), String> {
    let (left, right) = in_memory_pair();
    let (ours, theirs) = tokio::join!(
        Session::start(funder.openings.clone(), fundee.id, left, Greeting::default()),
        Session::start(fundee.openings.clone(), funder.id, right, Greeting::default()),
    );
    let (ours, _theirs) = (ours.map_err(text)?, theirs.map_err(text)?);
    let ask = Ask {
        push_msat: MilliSatoshi::from_msat(shape.push_msat),
        channel_type: Some(shape.channel_type),
        ..Ask::new(Amount::from_sat(1_000_000), FeeratePerKw::new(1250))
    };
    let opening = async {
        let opening = ours.open(ask).await.map_err(text)?;
        let pending = opening.accepted().await.map_err(text)?;
        let funding = FundingTransaction::Signed(pays(&pending.needed().output, input));
        let mut pending = pending.complete(funding).await.map_err(|(error, _)| text(error))?;
        pending.opened().await.map_err(text)
    };
    let opened = tokio::time::timeout(Duration::from_secs(40), opening).await;
    opened.map_err(|_| "neither opened nor failed within 40 s")?.map(|_| ())
}

fn pays(output: &FundingOutput, input: u8) -> Transaction {
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint { txid: Txid::from_byte_array([input; 32]), vout: 0 },
            sequence: Sequence::MAX,
            witness: Witness::from_slice(&[[1; 64]]),
            ..TxIn::default()
        }],
        output: vec![TxOut { value: output.value, script_pubkey: output.script_pubkey.clone() }],
    }
}

fn text(error: impl ToString) -> String {
    error.to_string()
}
