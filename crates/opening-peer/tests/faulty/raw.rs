//! A peer of which every message is the test's.

use std::sync::Arc;

use bitcoin::{Network, OutPoint};
use lightning::ln::msgs::{FundingSigned, Init, OpenChannel};
use lightning::ln::types::ChannelId;
use lightning::ln::wire::Type;
use lightning::types::features::InitFeatures;
use opening_core::NegotiatedFeatures;
use opening_peer::Ask;
use opening_peer::message::{Message, decode, encode};
use opening_peer::negotiation::funder::{self, WaitForAcceptChannel, WaitForFundingSigned};
use opening_peer::negotiation::{Context, LocalKeys};
use opening_peer::session::default_features;
use opening_peer::transport::{Reader, Writer, in_memory_pair};
use opening_peer::{Greeting, Openings, Session};
use opening_signer::{ChannelHsm, ChannelRef, Hsm, HsmSecret, LocalHsm};

use crate::common::{node_id, regtest_bounds};

/// Features with exactly these bits.
pub fn features_with(bits: &[u16]) -> InitFeatures {
    let length = bits.iter().max().map_or(0, |bit| usize::from(bit / 8) + 1);
    let mut flags = vec![0; length];
    for bit in bits {
        flags[usize::from(bit / 8)] |= 1 << (bit % 8);
    }
    InitFeatures::from_le_bytes(flags)
}

/// The far end of a connection.
pub struct Raw {
    pub reader: Reader,
    pub writer: Writer,
}

impl Raw {
    /// Both `init` messages have passed.
    pub async fn connect(openings: &Arc<Openings>, peer: u8) -> (Session, Self) {
        let (ours, theirs) = in_memory_pair();
        let (reader, writer) = theirs.split();
        let mut raw = Self { reader, writer };
        let start = Session::start(openings.clone(), node_id(peer), ours, Greeting::default());
        let greet = async {
            assert!(matches!(raw.receive().await, Some(Message::Init(_))));
            raw.send(&Init {
                features: default_features(),
                networks: None,
                remote_network_address: None,
            })
            .await;
        };
        let (session, ()) = tokio::join!(start, greet);
        (session.unwrap(), raw)
    }

    pub async fn send<M: Type>(&mut self, message: &M) {
        self.send_bytes(&encode(message)).await;
    }

    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        self.writer.queue(bytes).unwrap();
        self.writer.flush().await.unwrap();
    }

    /// The next message; `None` where the connection has ended.
    pub async fn receive(&mut self) -> Option<Message> {
        let bytes = self.reader.read().await.ok()??;
        Some(decode(&bytes).unwrap())
    }
}

/// A peer's side of an opening that it asks for.
pub struct RawFunder {
    hsm: Arc<dyn ChannelHsm>,
    state: Option<WaitForAcceptChannel>,
    signing: Option<WaitForFundingSigned>,
}

impl RawFunder {
    /// Its `open_channel`.
    pub async fn offer(secret: u8, dbid: u64, id: [u8; 32], ask: Ask) -> (OpenChannel, Self) {
        let hsm = LocalHsm::blind(&HsmSecret::new([secret; 32]));
        let reference = ChannelRef { peer: node_id(secret), dbid };
        let hsm = hsm.channel(reference).await.unwrap();
        let mut bounds = regtest_bounds();
        bounds.limits.trust_zeroconf = true;
        let context = Context {
            chain_hash: Network::Regtest.chain_hash(),
            features: Arc::new(NegotiatedFeatures {
                local: default_features(),
                remote: default_features(),
            }),
            limits: bounds.limits,
            feerates: bounds.feerates,
        };
        let keys = LocalKeys {
            reference,
            keys: hsm.pubkeys().await.unwrap(),
            first_per_commitment_point: hsm.per_commitment_point(0).await.unwrap(),
        };
        let state = funder::offer(ask, Arc::new(context)).unwrap();
        let state = state.keys(keys, ChannelId(id));
        let message = state.open_channel().clone();
        (message, Self { hsm, state: Some(state), signing: None })
    }

    /// Sends `open_channel`, gets `accept_channel`, sends `funding_created` for `outpoint`.
    pub async fn fund(&mut self, raw: &mut Raw, offer: &OpenChannel, outpoint: OutPoint) {
        raw.send(offer).await;
        let Some(Message::AcceptChannel(accept)) = raw.receive().await else { panic!("refused") };
        let state = self.state.take().unwrap().accept_channel(&accept).unwrap();
        let state = state.funding(outpoint).unwrap();
        self.hsm.setup(state.setup()).await.unwrap();
        let signature =
            self.hsm.sign_counterparty_commitment(&state.remote_commitment()).await.unwrap();
        let (message, state) = state.signature(signature);
        self.signing = Some(state);
        raw.send(&message).await;
    }

    /// Whether the peer's signature is good.
    pub fn takes(&mut self, message: &FundingSigned) -> bool {
        self.signing.take().unwrap().funding_signed(message).is_ok()
    }
}

/// An offer that every default takes, under this id.
pub async fn open_channel_message(id: [u8; 32]) -> OpenChannel {
    RawFunder::offer(7, 1, id, crate::common::ask()).await.0
}
