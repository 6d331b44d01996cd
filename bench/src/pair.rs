//! Two of our nodes in one thread, which open channels with each other through memory.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::Amount;
use bitcoin::secp256k1::PublicKey;
use opening_core::{ChannelType, FeeratePerKw, MilliSatoshi};
use opening_peer::session::StartError;
use opening_peer::transport::{Transport, in_memory_pair};
use opening_peer::{Ask, FundingTransaction, Greeting, Openings, Session};
use opening_signer::{Hsm, HsmSecret};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::{JoinHandle, yield_now};

use crate::cpu;
use crate::far::Far;
use crate::node::{Opened, Signer, funding, node, node_id, start};

/// Of each channel, in satoshis.
pub const FUNDING: Amount = Amount::from_sat(1_000_000);
/// So that both sides have an output in both commitments.
pub const PUSH: MilliSatoshi = MilliSatoshi::from_msat(200_000_000);
/// sat per 1000 weight units.
pub const FEERATE: u32 = 1250;

/// Turns of a runtime in which what can run usually has run; what has not does in the next.
const TURNS: u32 = 2;

/// Two connected nodes, each with a runtime of its own, so that each one's time can be told.
pub struct Pair {
    funder: Side,
    fundee: Side,
    opened: watch::Receiver<u64>,
    count: u64,
}

struct Side {
    runtime: Runtime,
    session: Session,
    /// They are connected, and silent.
    _others: Vec<Far>,
}

/// A side whose connection begins.
struct Starting {
    runtime: Runtime,
    openings: Arc<Openings>,
    session: JoinHandle<Result<Session, StartError>>,
}

impl Starting {
    fn new(hsm: Arc<dyn Hsm>, events: Arc<Opened>, peer: PublicKey, transport: Transport) -> Self {
        let runtime = Builder::new_current_thread().enable_time().build();
        let runtime = runtime.expect("a runtime without a socket");
        let openings = runtime.block_on(start(node(hsm, events)));
        let greeting = Greeting::default();
        let session = Session::start(openings.clone(), peer, transport, greeting);
        Self { session: runtime.spawn(session), openings, runtime }
    }

    fn among(self, peers: u32) -> Side {
        let Self { runtime, openings, session } = self;
        let (session, others) = runtime.block_on(async {
            let mut others = Vec::new();
            for number in 1..peers {
                others.push(Far::connect(openings.clone(), number).await);
            }
            (session.await.expect("nothing panics"), others)
        });
        let session = session.expect("two of our own nodes understand each other");
        Side { runtime, session, _others: others }
    }
}

/// What an opening took of this thread's time.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// The funder's side.
    pub funder: Duration,
    /// The fundee's side.
    pub fundee: Duration,
}

impl Pair {
    /// Two nodes that know each other.
    pub fn connect(signer: Signer) -> Self {
        Self::among(signer, 1)
    }

    /// The same, where each is connected with this many peers in all.
    pub fn among(signer: Signer, peers: u32) -> Self {
        let (telling, opened) = Opened::counted();
        let [near, far] = [1, 2].map(|byte| HsmSecret::new([byte; 32]));
        let [near_id, far_id] = [node_id(&near), node_id(&far)];
        let (left, right) = in_memory_pair();
        let funder = Starting::new(signer.local(&near), Opened::counted().0, far_id, left);
        let fundee = Starting::new(signer.local(&far), telling, near_id, right);
        while !(funder.session.is_finished() && fundee.session.is_finished()) {
            turn(&funder.runtime);
            turn(&fundee.runtime);
        }
        let [funder, fundee] = [funder, fundee].map(|starting| starting.among(peers));
        Self { funder, fundee, opened, count: 0 }
    }

    /// One channel, up to the funder's permit and the fundee's saved channel.
    pub fn open(&mut self, channel_type: ChannelType) -> Taken {
        self.count += 1;
        let Self { funder, fundee, opened, count } = self;
        let (opening, mut taken) =
            cpu::of(|| funder.runtime.spawn(open(funder.session.clone(), channel_type, *count)));
        let mut theirs = Duration::ZERO;
        while !(opening.is_finished() && *opened.borrow() == *count) {
            taken += cpu::of(|| turn(&funder.runtime)).1;
            theirs += cpu::of(|| turn(&fundee.runtime)).1;
        }
        let joined = cpu::of(|| funder.runtime.block_on(opening));
        joined.0.expect("nothing panics");
        Taken { funder: taken + joined.1, fundee: theirs }
    }
}

fn turn(runtime: &Runtime) {
    runtime.block_on(async {
        for _ in 0..TURNS {
            yield_now().await;
        }
    });
}

/// One channel, up to the permit; the number makes its transaction another one.
pub async fn open(session: Session, channel_type: ChannelType, number: u64) {
    let ask = Ask {
        channel_type: Some(channel_type),
        push_msat: PUSH,
        ..Ask::new(FUNDING, FeeratePerKw::new(FEERATE))
    };
    let opening = session.open(ask).await.expect("an ask within the limits");
    let pending = opening.accepted().await.expect("an offer within the limits");
    let transaction = funding(&pending.needed().output, number);
    let signing = pending.complete(FundingTransaction::Signed(transaction)).await;
    let mut signing = signing.map_err(|(error, _)| error).expect("it pays the output");
    let (_, permit) = signing.opened().await.expect("both sign");
    black_box(permit.txid());
}
