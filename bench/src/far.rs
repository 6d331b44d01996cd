//! The far end of a connection in memory, of which every message is the caller's: it keeps nothing
//! of an opening, so that what is counted is the node's.

use std::sync::Arc;

use bitcoin::Network;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use lightning::ln::msgs::Init;
use lightning::ln::types::ChannelId;
use opening_core::{FeeratePerKw, FeerateRange, Limits, NegotiatedFeatures};
use opening_peer::message::encode;
use opening_peer::negotiation::{Context, LocalKeys, funder};
use opening_peer::session::default_features;
use opening_peer::transport::{Reader, Writer, in_memory_pair};
use opening_peer::{Ask, Greeting, Openings, Session};
use opening_signer::{ChannelRef, Hsm, HsmSecret, LocalHsm};

use crate::pair::{FEERATE, FUNDING, PUSH};

/// A peer that has exchanged `init` with a node.
pub struct Far {
    reader: Reader,
    writer: Writer,
    /// Keeps the connection.
    _session: Session,
}

/// Another one for each number.
pub fn peer(number: u32) -> PublicKey {
    let mut secret = [0x11; 32];
    secret[..4].copy_from_slice(&number.to_be_bytes());
    let secret = SecretKey::from_slice(&secret).expect("below the curve's order");
    secret.public_key(&Secp256k1::signing_only())
}

impl Far {
    /// The peer of this number connects.
    pub async fn connect(openings: Arc<Openings>, number: u32) -> Self {
        let (near, far) = in_memory_pair();
        let (mut reader, mut writer) = far.split();
        let features = default_features();
        let init = Init { features, networks: None, remote_network_address: None };
        writer.queue(&encode(&init)).expect("a short message");
        let start = Session::start(openings, peer(number), near, Greeting::default());
        let (session, flushed, _) = tokio::join!(start, writer.flush(), reader.read());
        flushed.expect("the node reads");
        let session = session.expect("the features are its own");
        Self { reader, writer, _session: session }
    }

    /// Says this.
    pub async fn say(&mut self, message: &[u8]) {
        self.writer.queue(message).expect("a short message");
        self.writer.flush().await.expect("the node reads");
    }

    /// What the node says next, which has to be of this type.
    pub async fn hear(&mut self, kind: u16) {
        let message = self.reader.read().await.expect("in memory").expect("it goes on");
        assert_eq!(message[..2], kind.to_be_bytes(), "the type of the answer");
    }
}

/// An `open_channel` that the node accepts, with this temporary id.
#[derive(Clone)]
pub struct Offer(Vec<u8>);

impl Offer {
    /// With keys that some signer made.
    pub async fn new() -> Self {
        let hsm = LocalHsm::blind(&HsmSecret::new([5; 32]));
        let reference = ChannelRef { peer: peer(0), dbid: 1 };
        let channel = hsm.channel(reference).await.expect("a local signer is there");
        let keys = LocalKeys {
            reference,
            keys: channel.pubkeys().await.expect("a local signer is there"),
            first_per_commitment_point: channel
                .per_commitment_point(0)
                .await
                .expect("a local signer is there"),
        };
        let both = || default_features();
        let feerates = FeerateRange { min: FeeratePerKw::FLOOR, max: FeeratePerKw::new(25_000) };
        let context = Context {
            chain_hash: Network::Regtest.chain_hash(),
            features: Arc::new(NegotiatedFeatures { local: both(), remote: both() }),
            limits: Limits::for_network(Network::Regtest),
            feerates: Some(feerates),
        };
        let ask = Ask { push_msat: PUSH, ..Ask::new(FUNDING, FeeratePerKw::new(FEERATE)) };
        let state = funder::offer(ask, Arc::new(context)).expect("within the limits");
        Self(encode(state.keys(keys, ChannelId([1; 32])).open_channel()))
    }

    /// With another id.
    pub fn number(&mut self, number: u32) -> &[u8] {
        // Behind the type and the chain hash.
        self.0[34..38].copy_from_slice(&number.to_be_bytes());
        &self.0
    }
}
