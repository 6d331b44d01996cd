//! The CPU time of an opening, by role, channel type and signer, beside the floor.

use opening_core::ChannelType;

use crate::figures::{Microseconds, Rounds};
use crate::floor::{Curve, PER_SIDE};
use crate::ldk::LdkPair;
use crate::node::Signer;
use crate::pair::{Pair, Taken};
use crate::report::{Cell, Effort, Goal, Ratio, Table};

const OPENS_IN_A_ROUND: u32 = 20;

const TYPES: [ChannelType; 2] = [ChannelType::ANCHORS, ChannelType::STATIC_REMOTEKEY];

/// What opens.
enum Opener {
    Ours(Signer, Box<Pair>),
    Ldk(Box<LdkPair>),
}

impl Opener {
    fn all() -> [Self; 3] {
        let [blind, validating] =
            Signer::ALL.map(|signer| Self::Ours(signer, Box::new(Pair::connect(signer))));
        [blind, validating, Self::Ldk(Box::new(LdkPair::connect()))]
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Ours(signer, _) => signer.name(),
            Self::Ldk(_) => "LDK",
        }
    }

    /// LDK's time grows with the channels that it has had.
    fn begin_round(&mut self) {
        if let Self::Ldk(pair) = self {
            **pair = LdkPair::connect();
        }
    }

    fn open(&mut self, channel_type: ChannelType) -> Taken {
        match self {
            Self::Ours(_, pair) => pair.open(channel_type),
            Self::Ldk(pair) => pair.open(channel_type),
        }
    }
}

/// One kind of opening, measured.
struct Kind {
    who: &'static str,
    channel_type: ChannelType,
    funder: Rounds,
    fundee: Rounds,
    both: Rounds,
}

impl Kind {
    fn new(opener: &Opener, channel_type: ChannelType) -> Self {
        let rounds = Rounds::default;
        let (funder, fundee, both) = (rounds(), rounds(), rounds());
        Self { who: opener.name(), channel_type, funder, fundee, both }
    }

    fn round(&mut self, opener: &mut Opener) {
        opener.begin_round();
        // For the caches, which belonged to another kind.
        _ = opener.open(self.channel_type);
        let taken: Vec<_> = (0..OPENS_IN_A_ROUND).map(|_| opener.open(self.channel_type)).collect();
        let mean = |sum| Microseconds::of(sum) / f64::from(OPENS_IN_A_ROUND);
        let funder = mean(taken.iter().map(|taken| taken.funder).sum());
        let fundee = mean(taken.iter().map(|taken| taken.fundee).sum());
        self.funder.push(funder);
        self.fundee.push(fundee);
        self.both.push(funder + fundee);
    }
}

/// The tables and the ratios.
pub fn measure(effort: Effort) -> (Vec<Table>, Vec<Ratio>) {
    let curve = Curve::default();
    let mut floor = Rounds::default();
    let mut openers = Opener::all();
    let mut kinds: Vec<_> =
        openers.iter().map(|opener| TYPES.map(|it| Kind::new(opener, it))).collect();
    // For the caches.
    for opener in &mut openers {
        TYPES.iter().for_each(|channel_type| _ = opener.open(*channel_type));
    }
    for round in 0..effort.of(15, 60) {
        // Each in turn, so that the machine's mood is the same for all, and nobody is always first.
        floor.push(curve.per_side() * 2.0);
        for index in 0..openers.len() {
            let next = (round + index) % openers.len();
            kinds[next].iter_mut().for_each(|kind| kind.round(&mut openers[next]));
        }
    }
    let [blind, validating, ldk] = [0, 1, 2].map(|index: usize| &kinds[index][0].both);
    let ratio = |name, says, value, most| Ratio { name, says, value, goal: Goal::AtMost(most) };
    let ratios = vec![
        ratio(
            "blind_vs_floor",
            "CPU per open, both sides, blind signer: to the floor",
            blind.to(&floor),
            1.15,
        ),
        ratio(
            "blind_vs_ldk",
            "CPU per open, both sides, blind signer: to LDK",
            blind.to(ldk),
            0.62,
        ),
        ratio(
            "validating_vs_ldk",
            "CPU per open, both sides, validating signer: to LDK",
            validating.to(ldk),
            0.90,
        ),
    ];
    (vec![primitives(&curve), table(&floor, &kinds)], ratios)
}

fn table(floor: &Rounds, kinds: &[[Kind; 2]]) -> Table {
    let mut rows = vec![row("floor", "", None, floor, floor)];
    rows.extend(kinds.iter().flatten().map(|kind| {
        let Kind { who, channel_type, funder, fundee, both } = kind;
        let per_role = Some([funder.median(), fundee.median()]);
        row(who, &channel_type.to_string(), per_role, both, floor)
    }));
    Table {
        id: "openings",
        title: "CPU time of an opening",
        columns: vec![
            "signer",
            "channel type",
            "funder, us",
            "fundee, us",
            "both, us",
            "10 %, us",
            "90 %, us",
            "to the floor",
        ],
        rows,
        notes: vec![
            "Of one thread that does both sides' work: messages encoded and decoded, rules, drivers, \
             signer and a store in memory, from the ask to the funder's permit and the fundee's \
             saved channel.  Medians of rounds that took turns, and what a tenth of them was faster \
             and slower than.  A million satoshis, a fifth of them pushed, so that both sides have \
             an output in both commitments, as the floor counts it.  `to the floor` is the median of \
             each round's ratio."
                .into(),
            "LDK is its `ChannelManager` with its `KeysManager`, the messages encoded and decoded \
             between, a `ChainMonitor` that keeps its monitors in memory.  It does more: monitors, \
             keys for HTLCs, a channel that goes on to payments.  It does less: no transport, no \
             tasks, and nothing is written, where a node of LDK's would write its manager and its \
             monitors.  Each channel is closed again, and its nodes are new in each round of 20, outside of \
             what is timed: its time grows with the channels that it has had.  Ours keep all of \
             theirs."
                .into(),
        ],
    }
}

fn row(
    who: &str,
    channel_type: &str,
    per_role: Option<[Microseconds; 2]>,
    both_rounds: &Rounds,
    floor: &Rounds,
) -> Vec<Cell> {
    let [low, median, high] = both_rounds.tenth_half_ninth();
    let [funder, fundee] = per_role.unwrap_or([median / 2.0; 2]).map(|it| Cell::figure(it.0, 0));
    let [low, both, high] = [low, median, high].map(|it| Cell::figure(it.0, 0));
    let ratio = Cell::figure(both_rounds.to(floor), 2);
    vec![who.into(), channel_type.into(), funder, fundee, both, low, high, ratio]
}

fn primitives(curve: &Curve) -> Table {
    let row = |&(operation, count): &(crate::floor::Operation, u32)| {
        let cost = curve.cost(operation);
        let each = Cell::figure(cost.0, 1);
        vec![
            operation.name().into(),
            Cell::figure(count.into(), 0),
            each,
            Cell::figure((cost * f64::from(count)).0, 0),
        ]
    };
    Table {
        id: "floor",
        title: "The floor: what the curve takes",
        columns: vec!["operation", "per side", "each, us", "per side, us"],
        rows: PER_SIDE.iter().map(row).collect(),
        notes: vec![
            "What one side needs up to `funding_signed` when its signer keeps its secrets: five \
             basepoints and the first point made, as many of the peer's parsed; for the `to_local` \
             of each commitment a revocation key (two products and a sum) and a delayed key; one \
             signature, low-R, one verified."
                .into(),
        ],
    }
}
