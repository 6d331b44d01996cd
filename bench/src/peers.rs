//! The CPU time of an opening by the number of connected peers, beside LDK's.

use opening_core::ChannelType;

use crate::figures::{Microseconds, Rounds};
use crate::ldk::LdkPair;
use crate::node::Signer;
use crate::pair::{Pair, Taken};
use crate::report::{Cell, Effort, Goal, Ratio, Table};

/// Peers of each of our two nodes.
const OURS: [u32; 4] = [1, 100, 1_000, 10_000];
/// Peers of each of LDK's: it looks at every peer for each message.
const LDKS: [u32; 3] = [1, 100, 1_000];

const OPENS_IN_A_ROUND: u32 = 20;

/// Two nodes with so many peers each.
struct Crowd<N> {
    peers: u32,
    nodes: N,
    rounds: Rounds,
}

impl<N> Crowd<N> {
    fn new(peers: u32, connect: impl Fn(u32) -> N) -> Self {
        Self { peers, nodes: connect(peers), rounds: Rounds::default() }
    }

    fn round(&mut self, open: impl Fn(&mut N) -> Taken) {
        // For the caches, which belonged to another crowd.
        _ = open(&mut self.nodes);
        let times = (0..OPENS_IN_A_ROUND).map(|_| open(&mut self.nodes));
        let sum: Microseconds =
            times.map(|taken| Microseconds::of(taken.funder + taken.fundee)).sum();
        self.rounds.push(sum / f64::from(OPENS_IN_A_ROUND));
    }
}

/// The table and the ratio.
pub fn measure(effort: Effort) -> (Vec<Table>, Vec<Ratio>) {
    let mut ours = OURS.map(|peers| Crowd::new(peers, |peers| Pair::among(Signer::Blind, peers)));
    let mut ldks = LDKS.map(|peers| Crowd::new(peers, LdkPair::among));
    for round in 0..effort.of(15, 60) {
        for index in 0..ours.len() {
            // In turn, so that the machine's mood is the same for all, and nobody is always first.
            let next = (round + index) % ours.len();
            ours[next].round(|pair| pair.open(ChannelType::ANCHORS));
        }
        for crowd in &mut ldks {
            // Its time grows with the channels that it has had, too.
            crowd.nodes = LdkPair::among(crowd.peers);
            crowd.round(|pair| pair.open(ChannelType::ANCHORS));
        }
    }
    let [one, .., many] = &ours;
    let ratio = Ratio {
        name: "cpu_10000_peers_vs_1",
        says: "CPU per open with 10,000 connected peers: to that with 1",
        value: many.rounds.to(&one.rounds),
        goal: Goal::AtMost(1.05),
    };
    let rows = ours.iter().map(|crowd| row("this library", crowd, &ours[0].rounds));
    let rows = rows.chain(ldks.iter().map(|crowd| row("LDK", crowd, &ldks[0].rounds)));
    let table = Table {
        id: "peers",
        title: "CPU time of an opening by connected peers",
        columns: vec!["who", "peers of each node", "both, us", "10 %, us", "90 %, us", "to 1 peer"],
        rows: rows.collect(),
        notes: vec![
            "All openings are with one of the peers; the others have exchanged `init`, and are \
             silent.  Blind signers, anchors, everything in memory."
                .into(),
        ],
    };
    (vec![table], vec![ratio])
}

fn row<N>(who: &str, crowd: &Crowd<N>, alone: &Rounds) -> Vec<Cell> {
    let [low, median, high] = crowd.rounds.tenth_half_ninth();
    let [low, both, high] = [low, median, high].map(|it| Cell::figure(it.0, 0));
    let ratio = Cell::figure(crowd.rounds.to(alone), 2);
    vec![who.into(), Cell::figure(crowd.peers.into(), 0), both, low, high, ratio]
}
