//! What a flood of offers costs: bytes, and not many, all of which come back.
//!
//! The allocator of this test binary counts every byte that is asked of it.

// Clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

mod common;
mod faulty;

use std::alloc::System;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use bitcoin::{Network, OutPoint, ScriptBuf, Txid};
use common::{ask, node_id, regtest_bounds};
use faulty::{Raw, RawFunder, open_channel_message, settle};
use lightning::ln::msgs::Init;
use lightning::types::features::ChannelTypeFeatures;
use opening_core::ChannelKeys;
use opening_peer::message::{Message, encode};
use opening_peer::node::AcceptWithin;
use opening_peer::session::default_features;
use opening_peer::store::MemoryStore;
use opening_peer::testing::{EVERY, Fault, Faults, FaultyPolicy};
use opening_peer::transport::in_memory_pair;
use opening_peer::{Capacity, Event, Greeting, Node, Openings, Session};
use opening_signer::{
    ChannelHsm, ChannelRef, ChannelSetup, CommitmentRequest, Hsm, HsmResult, HsmSecret, Info,
    LocalHsm,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// All that is counted belongs to the test that runs.
static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Bytes of one pending opening, with its share of every map.
const MOST_BYTES: usize = 1500;

/// Bytes of one offer that the policy, or the signer, has not answered yet: its task included.
const MOST_BYTES_UNDECIDED: usize = 5000;

/// What may stay after a flood of 130 MB, in buffers that have grown a little.
const MOST_LEFT: usize = 256 * 1024;

/// What may stay of all peers together: each one's last failure, and that it came.
const MOST_KEPT: usize = 2 * 1024 * 1024;

/// Between two offers of a peer.
const BETWEEN: Duration = Duration::from_millis(1);

/// How long a peer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes in use.
fn in_use() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

/// A signer whose keys cost nothing, except for one peer's channels, which it really signs for.
struct CheapHsm {
    real: LocalHsm,
    honest: PublicKey,
    cheap: Arc<dyn ChannelHsm>,
}

impl CheapHsm {
    async fn new(honest: PublicKey) -> Self {
        let real = LocalHsm::blind(&HsmSecret::new([2; 32]));
        let any = real.channel(ChannelRef { peer: node_id(9), dbid: 1 }).await.unwrap();
        let keys = any.pubkeys().await.unwrap();
        let point = any.per_commitment_point(0).await.unwrap();
        Self { real, honest, cheap: Arc::new(CheapChannel { keys, point }) }
    }
}

#[async_trait]
impl Hsm for CheapHsm {
    fn info(&self) -> Info {
        self.real.info()
    }

    async fn channel(&self, reference: ChannelRef) -> HsmResult<Arc<dyn ChannelHsm>> {
        if reference.peer == self.honest {
            return self.real.channel(reference).await;
        }
        Ok(self.cheap.clone())
    }

    async fn forget_channel(&self, _reference: ChannelRef) -> HsmResult<()> {
        Ok(())
    }
}

struct CheapChannel {
    keys: ChannelKeys,
    point: PublicKey,
}

#[async_trait]
impl ChannelHsm for CheapChannel {
    async fn pubkeys(&self) -> HsmResult<ChannelKeys> {
        Ok(self.keys)
    }

    async fn per_commitment_point(&self, _number: u64) -> HsmResult<PublicKey> {
        Ok(self.point)
    }

    async fn setup(&self, _setup: &ChannelSetup) -> HsmResult<()> {
        unreachable!("nobody funds a channel of the flood")
    }

    async fn sign_counterparty_commitment(
        &self,
        _request: &CommitmentRequest<'_>,
    ) -> HsmResult<Signature> {
        unreachable!("nobody funds a channel of the flood")
    }

    async fn validate_holder_commitment(
        &self,
        _request: &CommitmentRequest<'_>,
        _signature: &Signature,
    ) -> HsmResult<()> {
        unreachable!("nobody funds a channel of the flood")
    }

    async fn sign_holder_commitment(
        &self,
        _request: &CommitmentRequest<'_>,
    ) -> HsmResult<Signature> {
        unreachable!("nobody funds a channel of the flood")
    }
}

/// The peer on the allow-list, by its secret.
const HONEST: u8 = 7;

async fn node(peers: u32, openings_per_peer: u32) -> Arc<Openings> {
    node_with(peers, openings_per_peer, |_| {}).await
}

async fn node_with(
    peers: u32,
    openings_per_peer: u32,
    change: impl FnOnce(&mut Node),
) -> Arc<Openings> {
    let honest = node_id(HONEST);
    let made = Node::new(
        Network::Regtest,
        Arc::new(CheapHsm::new(honest).await),
        Arc::new(AcceptWithin(regtest_bounds())),
        Arc::new(MemoryStore::default()),
        Arc::new(|_: &PublicKey, _: Event| {}),
    );
    let mut node = Node {
        capacity: Capacity {
            pending_per_peer: openings_per_peer,
            pending_in_all: peers * openings_per_peer,
            opens_per_second: Some(u32::MAX),
            unconfirmed_per_peer: u32::MAX,
            unconfirmed_in_all: u32::MAX,
        },
        allowed: [honest].into(),
        ..made
    };
    change(&mut node);
    common::openings(node)
}

/// A peer of the crowd that floods.
struct Flooder {
    raw: Raw,
    /// Keeps the connection.
    _session: Session,
    offer: Arc<Vec<u8>>,
}

fn peer(number: u32) -> PublicKey {
    let mut secret = [0x11; 32];
    secret[..4].copy_from_slice(&number.to_be_bytes());
    SecretKey::from_slice(&secret).unwrap().public_key(&Secp256k1::signing_only())
}

impl Flooder {
    async fn connect(openings: &Arc<Openings>, number: u32, offer: &Arc<Vec<u8>>) -> Self {
        let (near, far) = in_memory_pair();
        let (reader, writer) = far.split();
        let mut raw = Raw { reader, writer };
        let features = default_features();
        let init = Init { features, networks: None, remote_network_address: None };
        let greet = async {
            raw.send(&init).await;
            raw.receive().await;
        };
        let start = Session::start(openings.clone(), peer(number), near, Greeting::default());
        let (session, ()) = tokio::join!(start, greet);
        Self { raw, _session: session.unwrap(), offer: offer.clone() }
    }

    async fn offer(&mut self, id: u32) {
        let mut offer = (*self.offer).clone();
        offer[34..38].copy_from_slice(&id.to_be_bytes());
        self.raw.send_bytes(&offer).await;
    }

    async fn open(&mut self, id: u32) {
        self.offer(id).await;
        let bytes = self.raw.reader.read().await.unwrap().unwrap();
        assert_eq!(bytes[..2], [0, 33], "accept_channel");
    }

    /// The text of the `error` that comes next.
    async fn refused(&mut self) -> String {
        match self.raw.receive().await {
            Some(Message::Error(error)) => error.data,
            other => panic!("{other:?}"),
        }
    }
}

/// Connections that have seen traffic: some offers that were refused.
async fn warmed_up(openings: &Arc<Openings>, peers: u32, offer: &Arc<Vec<u8>>) -> Vec<Flooder> {
    let mut elsewhere = (**offer).clone();
    elsewhere[2] ^= 1;
    let elsewhere = Arc::new(elsewhere);
    let mut flooders = Vec::new();
    for number in 0..peers {
        let mut flooder = Flooder::connect(openings, number, &elsewhere).await;
        // Queues grow by some 30 places at once, and keep them.
        for id in 0..40 {
            flooder.offer(id).await;
            assert!(flooder.refused().await.contains("chain_hash"));
        }
        flooder.offer = offer.clone();
        flooders.push(flooder);
    }
    flooders
}

async fn flood(peers: u32, openings_per_peer: u32) {
    let _alone = ONE_AT_A_TIME.lock().await;
    let openings = node(peers, openings_per_peer).await;
    let offer = Arc::new(encode(&open_channel_message([1; 32]).await));
    let before_sessions = in_use();
    let mut flooders = warmed_up(&openings, peers, &offer).await;
    settle().await;
    let idle = in_use();
    // One after the other, so that no buffer on the way holds more than one message.
    for id in 0..openings_per_peer {
        for flooder in &mut flooders {
            flooder.open(id).await;
        }
        tokio::time::advance(BETWEEN).await;
    }
    settle().await;
    assert_eq!(openings.pending(), peers * openings_per_peer);
    let count = (peers * openings_per_peer) as usize;
    let each = (in_use() - idle) / count;
    println!(
        "{peers} peers, {openings_per_peer} openings each: {each} bytes for each of {count}; \
         a session with both ends of its transport: {} bytes",
        (idle - before_sessions) / peers as usize,
    );
    assert!(each <= MOST_BYTES, "{each} bytes");

    everyone_is_refused(&openings, &mut flooders, &offer).await;
    the_honest_peer_opens(&openings).await;

    tokio::time::advance(PATIENCE - openings_per_peer * BETWEEN).await;
    for _ in 0..openings_per_peer {
        for flooder in &mut flooders {
            assert_eq!(flooder.refused().await, "no funding_created in time");
        }
        tokio::time::advance(BETWEEN).await;
    }
    settle().await;
    assert_eq!(openings.pending(), 0);
    let left = in_use().saturating_sub(idle);
    println!("left when they have ended: {left} bytes");
    drop(flooders);
    settle().await;
    let kept = in_use().saturating_sub(before_sessions);
    println!("left when their connections have ended: {kept} bytes");
    assert!(left < MOST_LEFT && kept < MOST_KEPT, "{left} bytes are left");
}

async fn everyone_is_refused(
    openings: &Arc<Openings>,
    flooders: &mut [Flooder],
    offer: &Arc<Vec<u8>>,
) {
    for flooder in flooders {
        flooder.offer(u32::MAX).await;
        assert_eq!(flooder.refused().await, "too many pending channels with you");
    }
    let mut stranger = Flooder::connect(openings, u32::MAX, offer).await;
    stranger.offer(0).await;
    assert_eq!(stranger.refused().await, "too many pending channels");
}

async fn the_honest_peer_opens(openings: &Arc<Openings>) {
    let (_session, mut raw) = Raw::connect(openings, HONEST).await;
    let (offer, mut funder) = RawFunder::offer(HONEST, 1, [3; 32], ask()).await;
    let outpoint = OutPoint { txid: Txid::from_byte_array([4; 32]), vout: 0 };
    funder.fund(&mut raw, &offer, outpoint).await;
    let Some(Message::FundingSigned(signed)) = raw.receive().await else { panic!("not signed") };
    assert!(funder.takes(&signed));
}

/// An offer whose type and script are as long as a message allows.
async fn bloated() -> Vec<u8> {
    let mut offer = open_channel_message([1; 32]).await;
    let common = &mut offer.common_fields;
    common.channel_type = Some(ChannelTypeFeatures::from_le_bytes(vec![0xff; 30_000]));
    common.shutdown_scriptpubkey = Some(ScriptBuf::from_bytes(vec![0x51; 30_000]));
    encode(&offer)
}

/// Nothing of an offer is kept but what can be valid, for as long as the policy takes.
#[tokio::test(start_paused = true)]
async fn bloated_offers_that_wait_for_the_policy() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let (peers, openings_per_peer) = (10, 100);
    let faults = Faults::none();
    let openings = node_with(peers, openings_per_peer, |node| {
        let policy = AcceptWithin(regtest_bounds());
        node.policy = Arc::new(FaultyPolicy::new(policy, faults.clone()));
    })
    .await;
    let (offer, bloated) =
        (Arc::new(encode(&open_channel_message([1; 32]).await)), Arc::new(bloated().await));
    let mut flooders = warmed_up(&openings, peers, &offer).await;
    // So have the buffers on the way of a long message.
    for flooder in &mut flooders {
        flooder.raw.send_bytes(&[&[0x80, 1][..], &[0; 60_000]].concat()).await;
        flooder.offer = bloated.clone();
    }
    settle().await;
    let idle = in_use();
    let faults = faults.at("bounds", EVERY, Fault::Hold);
    for id in 0..openings_per_peer {
        for flooder in &mut flooders {
            flooder.offer(id).await;
        }
        settle().await;
    }
    assert_eq!(openings.pending(), peers * openings_per_peer);
    let each = in_use().saturating_sub(idle) / (peers * openings_per_peer) as usize;
    println!("{each} bytes for each offer that waits for the policy");
    assert!(each <= MOST_BYTES_UNDECIDED, "{each} bytes");

    faults.release();
    for flooder in &mut flooders {
        for _ in 0..openings_per_peer {
            assert_eq!(flooder.refused().await, "channel_type is not a defined type");
        }
    }
    settle().await;
    assert_eq!(openings.pending(), 0);
}

// incident: fake channels (2023), LDK #4851
#[tokio::test(start_paused = true)]
async fn a_hundred_thousand_openings_of_ten_peers() {
    flood(10, 10_000).await;
}

#[tokio::test(start_paused = true)]
async fn a_hundred_thousand_openings_of_a_thousand_peers() {
    flood(1000, 100).await;
}
