//! Bytes of a pending inbound opening, and the cost of one that is refused because there are so
//! many.
//!
//! An allocator that counts is a program's own and slows what is timed elsewhere: `opening-guard`
//! is a program of its own, which the benchmark runs.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::{env, fs};

use async_trait::async_trait;
use bitcoin::secp256k1::PublicKey;
use bitcoin::secp256k1::ecdsa::Signature;
use opening_core::ChannelKeys;
use opening_peer::message::{Message, decode};
use opening_peer::{Capacity, Node, Openings};
use opening_signer::{
    ChannelHsm, ChannelRef, ChannelSetup, CommitmentRequest, Hsm, HsmError, HsmResult, HsmSecret,
    Info, LocalHsm,
};
use serde_json::{Value, json};
use tokio::runtime::Builder;

use crate::cpu;
use crate::far::{Far, Offer, peer};
use crate::figures::Microseconds;
use crate::guard::Heap;
use crate::node::{Opened, node, start};
use crate::report::{Cell, Effort, Goal, Ratio, Table};

/// Types of the answers.
const ERROR: u16 = 17;
const PING: [u8; 6] = [0, 18, 0, 0, 0, 0];
const PONG: u16 = 19;
const ACCEPT_CHANNEL: u16 = 33;

/// The peers, and the openings of each, that are pending at once.
const SHAPES: [[u32; 2]; 2] = [[100_000, 1], [10_000, 10]];

/// A signer whose keys are made already: what they cost is in other tables.
struct ReadyKeys {
    info: Info,
    channel: Arc<ReadyChannel>,
}

struct ReadyChannel {
    keys: ChannelKeys,
    point: PublicKey,
}

impl ReadyKeys {
    async fn new() -> Self {
        let local = LocalHsm::blind(&HsmSecret::new([2; 32]));
        let reference = ChannelRef { peer: peer(0), dbid: 1 };
        let channel = local.channel(reference).await.expect("a local signer is there");
        let keys = channel.pubkeys().await.expect("a local signer is there");
        let point = channel.per_commitment_point(0).await.expect("a local signer is there");
        Self { info: local.info(), channel: Arc::new(ReadyChannel { keys, point }) }
    }
}

#[async_trait]
impl Hsm for ReadyKeys {
    fn info(&self) -> Info {
        self.info.clone()
    }

    async fn channel(&self, _reference: ChannelRef) -> HsmResult<Arc<dyn ChannelHsm>> {
        Ok(self.channel.clone())
    }

    async fn forget_channel(&self, _reference: ChannelRef) -> HsmResult<()> {
        Ok(())
    }
}

/// Nobody funds these channels.
fn no_signature<T>() -> HsmResult<T> {
    Err(HsmError::Unavailable("this signer has keys only".into()))
}

#[async_trait]
impl ChannelHsm for ReadyChannel {
    async fn pubkeys(&self) -> HsmResult<ChannelKeys> {
        Ok(self.keys)
    }

    async fn per_commitment_point(&self, _number: u64) -> HsmResult<PublicKey> {
        Ok(self.point)
    }

    async fn setup(&self, _setup: &ChannelSetup) -> HsmResult<()> {
        no_signature()
    }

    async fn sign_counterparty_commitment(
        &self,
        _request: &CommitmentRequest<'_>,
    ) -> HsmResult<Signature> {
        no_signature()
    }

    async fn validate_holder_commitment(
        &self,
        _request: &CommitmentRequest<'_>,
        _signature: &Signature,
    ) -> HsmResult<()> {
        no_signature()
    }

    async fn sign_holder_commitment(
        &self,
        _request: &CommitmentRequest<'_>,
    ) -> HsmResult<Signature> {
        no_signature()
    }
}

/// A crowd of peers around one node, and what the allocator has given out.
struct Crowd {
    openings: Arc<Openings>,
    peers: Vec<Far>,
    offer: Offer,
    heap: fn() -> Heap,
}

/// What is in use: as the allocator counts it, and as the system does.
#[derive(Clone, Copy)]
struct Memory {
    allocated: usize,
    resident: usize,
}

impl Memory {
    fn each_since(self, before: Self, count: u32) -> [f64; 2] {
        let each = |now: usize, then: usize| (now as f64 - then as f64) / f64::from(count);
        [each(self.allocated, before.allocated), each(self.resident, before.resident)]
    }
}

impl Crowd {
    /// A node that takes so many openings in all.
    async fn connect(peers: u32, pending_in_all: u32, heap: fn() -> Heap) -> Self {
        let made = node(Arc::new(ReadyKeys::new().await), Opened::counted().0);
        let capacity = Capacity { pending_in_all, ..made.capacity };
        let openings = start(Node { capacity, ..made }).await;
        let mut crowd = Self { openings, peers: Vec::new(), offer: Offer::new().await, heap };
        for number in 0..peers {
            crowd.peers.push(Far::connect(crowd.openings.clone(), number).await);
        }
        // Once, so that the buffers on the way are as large as an offer and its answer need them.
        let [mut ping, length] = [PING.to_vec(), 400_u16.to_be_bytes().to_vec()];
        ping[2..4].copy_from_slice(&length);
        ping[4..].copy_from_slice(&length);
        ping.resize(PING.len() + 400, 0);
        crowd.exchange(&ping, PONG).await;
        crowd
    }

    fn memory(&self) -> Memory {
        Memory { allocated: (self.heap)().in_use, resident: resident() }
    }

    /// Each peer says this and is answered; the CPU time of one exchange, both ends.
    async fn exchange(&mut self, message: &[u8], kind: u16) -> Microseconds {
        let before = cpu::now();
        for far in &mut self.peers {
            far.say(message).await;
            far.hear(kind).await;
        }
        Microseconds::of(cpu::now() - before) / self.peers.len() as f64
    }

    async fn offer(&mut self, number: u32, kind: u16) -> Microseconds {
        let message = self.offer.number(number).to_vec();
        self.exchange(&message, kind).await
    }
}

/// Fills a node with so many openings of each of so many peers, and gives the figures by name.
/// `heap` says what this program's allocator has given out.
pub fn fill(peers: u32, opens: u32, heap: fn() -> Heap) -> Value {
    let runtime = Builder::new_current_thread().enable_time().build().expect("no socket is needed");
    runtime.block_on(async {
        let mut crowd = Crowd::connect(peers, peers * opens, heap).await;
        let idle = crowd.memory();
        let mut accepted = Microseconds(0.0);
        for number in 0..opens {
            accepted = accepted + crowd.offer(number, ACCEPT_CHANNEL).await;
        }
        assert_eq!(crowd.openings.pending(), peers * opens, "all are pending");
        let [allocated, resident] = crowd.memory().each_since(idle, peers * opens);
        let refused = crowd.offer(opens, ERROR).await;
        assert_eq!(crowd.openings.pending(), peers * opens, "no other came in");
        json!({
            "allocated": allocated,
            "resident": resident,
            "accepted": (accepted / f64::from(opens)).0,
            "refused": refused.0,
            "ping": crowd.exchange(&PING, PONG).await.0,
            "decode": decoding(&crowd.offer).0,
        })
    })
}

/// Bytes of each, of a node with so many openings of each of so many peers.
pub fn bytes_each(peers: u32, opens: u32, heap: fn() -> Heap) -> f64 {
    fill(peers, opens, heap)["allocated"].as_f64().expect("it is among the figures")
}

/// CPU time of reading an `open_channel`.
fn decoding(offer: &Offer) -> Microseconds {
    const TIMES: u32 = 1000;
    let mut offer = offer.clone();
    let bytes = offer.number(0);
    let (_, time) = cpu::of(|| {
        for _ in 0..TIMES {
            let message = decode(bytes).expect("it is one of ours");
            assert!(matches!(message, Message::OpenChannel(_)));
        }
    });
    Microseconds::of(time) / f64::from(TIMES)
}

/// Bytes that the system has given to this process.
fn resident() -> usize {
    const PAGE: usize = 4096;
    let text = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.unwrap_or_default() * PAGE
}

/// The tables and the ratio.
pub fn measure(effort: Effort) -> (Vec<Table>, Vec<Ratio>) {
    // Side by side where time is short: what is counted is the same.
    let filled = match effort {
        Effort::Quick => SHAPES.map(begin).map(Running::end),
        Effort::Full => SHAPES.map(|shape| begin(shape).end()),
    };
    let filled: Vec<_> = SHAPES.into_iter().zip(filled).collect();
    let figure = |of: &Value, name: &str| of[name].as_f64().unwrap_or(f64::NAN);
    let row = |([peers, opens], of): &([u32; 2], Value)| {
        let counts = [peers, opens].map(|&count| Cell::figure(count.into(), 0));
        let bytes = ["allocated", "resident"].map(|name| Cell::figure(figure(of, name), 0));
        let times = ["accepted", "refused", "ping", "decode"];
        let times = times.map(|name| Cell::figure(figure(of, name), 1));
        counts.into_iter().chain(bytes).chain(times).collect()
    };
    let table = Table {
        id: "pending",
        title: "100,000 pending inbound openings",
        columns: vec![
            "peers", "openings of each", "bytes each", "resident bytes each", "accepted, us",
            "refused at the cap, us", "ping, us", "decode, us",
        ],
        rows: filled.iter().map(row).collect(),
        notes: vec![
            "Bytes of one opening that waits for `funding_created`, with its share of every map: by \
             an allocator that counts, and by the system's count of resident pages.  What an idle \
             connection takes is not in it: both ends of its transport in memory, their buffers, \
             queues and the session's task."
                .into(),
            "CPU time of an offer and its answer, both ends of the connection: accepted (by a \
             signer whose keys are made already), and refused with an `error` because there are as \
             many as the node takes.  A ping and its pong take the same way; decode is of the \
             `open_channel` alone, of which the six keys are most."
                .into(),
        ],
    };
    let worst = filled.iter().map(|(_, of)| figure(of, "allocated")).fold(f64::NAN, f64::max);
    let ratio = Ratio {
        name: "bytes_per_pending_open",
        says: "bytes of a pending inbound opening, the worse of two shapes of 100,000",
        value: worst,
        goal: Goal::AtMost(1500.0),
    };
    (vec![table], vec![ratio])
}

/// The program beside this one, which has the allocator that counts.
struct Running(Child);

fn begin([peers, opens]: [u32; 2]) -> Running {
    let this = env::current_exe().expect("a program has a name");
    let program = this.with_file_name("opening-guard");
    let mut command = Command::new(&program);
    command
        .arg("pending")
        .args([peers, opens].map(|count| count.to_string()))
        .stdout(Stdio::piped());
    Running(command.spawn().unwrap_or_else(|error| panic!("{}: {error}", program.display())))
}

impl Running {
    fn end(self) -> Value {
        let output = self.0.wait_with_output().expect("it was begun");
        assert!(output.status.success(), "opening-guard: {}", output.status);
        serde_json::from_slice(&output.stdout).expect("it prints JSON")
    }
}
