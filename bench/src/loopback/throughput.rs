//! How many openings a second, with one thread and with two.

use std::hint::black_box;
use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use opening_core::ChannelType;
use opening_peer::Session;
use tokio::task::JoinSet;

use super::home::Home;
use super::nodes::{self, End};
use crate::cpu;
use crate::figures::{Microseconds, Rounds};
use crate::floor::Curve;
use crate::node::{Opened, Signer, node, start};
use crate::pair;
use crate::report::{Cell, Effort, Goal, Ratio, Table};

/// Connections, each with one opening after another.
const PEERS: u32 = 48;
/// Openings of each connection that count, after one that does not.
const OPENS_PER_PEER: u32 = 8;
/// How often a thread does the curve's operations in a round.
const CURVES: u32 = 5;

/// The same work on one thread and on two.
#[derive(Default)]
struct Scaling {
    /// How long a piece of it takes.
    taken: [Rounds; 2],
    /// What it uses of the CPU.
    cpu: [Rounds; 2],
}

const THREADS: [usize; 2] = [1, 2];

impl Scaling {
    fn push(&mut self, threads: usize, pieces: u32, (taken, cpu): (Duration, Duration)) {
        let each = |time| Microseconds::of(time) / f64::from(pieces);
        self.taken[threads - 1].push(each(taken));
        self.cpu[threads - 1].push(each(cpu));
    }

    fn row(&self, what: &str) -> Vec<Cell> {
        let [one, two] = self.per_second();
        let [cpu_of_one, cpu_of_two] = [0, 1].map(|at| Cell::figure(self.cpu[at].median().0, 0));
        let busy = self.cpu[1].median().0 / self.taken[1].median().0;
        vec![
            what.into(),
            Cell::figure(one, 0),
            Cell::figure(two, 0),
            Cell::figure(two / one, 2),
            cpu_of_one,
            cpu_of_two,
            Cell::figure(busy, 2),
        ]
    }

    fn per_second(&self) -> [f64; 2] {
        [0, 1].map(|at| 1e6 / self.taken[at].median().0)
    }
}

/// The table and the ratio.
pub(super) fn measure(effort: Effort) -> (Table, Ratio) {
    let (mut openings, mut bare) = (Scaling::default(), Scaling::default());
    for _ in 0..effort.of(3, 12) {
        // Each in turn, so that the machine's mood is the same for all.
        for threads in THREADS {
            let opens = PEERS * OPENS_PER_PEER;
            openings.push(threads, opens, open_channels(threads));
            let pieces = CURVES * u32::try_from(threads).expect("it is 1 or 2");
            bare.push(threads, pieces, do_curves(threads));
        }
    }
    let [one, two] = openings.per_second();
    let ratio = Ratio {
        name: "two_cores_vs_one",
        says: "openings a second over loopback with two threads to those with one",
        value: two / one,
        goal: Goal::AtLeast(1.7),
    };
    let table = Table {
        id: "loopback_throughput",
        title: "Openings a second over BOLT 8 on loopback",
        columns: vec![
            "what",
            "1 thread, per s",
            "2 threads, per s",
            "2 to 1",
            "CPU with 1, us",
            "CPU with 2, us",
            "threads busy of 2",
        ],
        rows: vec![openings.row("openings"), bare.row("curve operations")],
        notes: vec![
            format!(
                "Two nodes of ours in one process with {PEERS} connections of TCP and BOLT 8, on \
                 each of which channels are opened one after another; blind signers, stores in \
                 memory; both nodes run on the same one or two threads of one runtime."
            ),
            "The curve's operations alone, on threads that share nothing, say how much faster two \
             threads can be on this machine."
                .into(),
        ],
    };
    (table, ratio)
}

/// The time on the clock and on the CPU of all channels.
fn open_channels(threads: usize) -> (Duration, Duration) {
    let home = Home::workers(threads);
    let runtime = home.handle().clone();
    home.run(async move {
        let mut ends = Vec::new();
        for number in [1, 2] {
            let hsm = Signer::Blind.local(&opening_signer::HsmSecret::new([number; 32]));
            let openings = start(node(hsm, Opened::counted().0)).await;
            ends.push(End { runtime: runtime.clone(), openings });
        }
        let [near, far] = [&ends[0], &ends[1]];
        let mut sessions = Vec::new();
        for number in 0..PEERS {
            sessions.push(nodes::connect(near, far, number).await);
        }
        open_with_all(&sessions, 0..1).await;
        let (cpu, since) = (cpu::of_process(), Instant::now());
        open_with_all(&sessions, 1..1 + OPENS_PER_PEER).await;
        (since.elapsed(), cpu::of_process() - cpu)
    })
}

async fn open_with_all(sessions: &[(Session, Session)], numbers: Range<u32>) {
    let mut opening = JoinSet::new();
    for (peer, (session, _)) in (0_u64..).zip(sessions) {
        let (session, numbers) = (session.clone(), numbers.clone());
        opening.spawn(async move {
            for number in numbers {
                let number = peer << 32 | u64::from(number);
                pair::open(session.clone(), ChannelType::ANCHORS, number).await;
            }
        });
    }
    opening.join_all().await;
}

/// The same of the curve's operations, as many for each thread.
fn do_curves(threads: usize) -> (Duration, Duration) {
    let curves: Vec<_> = (0..threads).map(|_| Curve::default()).collect();
    let (cpu, since) = (cpu::of_process(), Instant::now());
    thread::scope(|scope| {
        for curve in &curves {
            scope.spawn(|| {
                (0..CURVES).for_each(|_| {
                    black_box(curve.per_side());
                })
            });
        }
    });
    (since.elapsed(), cpu::of_process() - cpu)
}
