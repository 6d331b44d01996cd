//! The CPU time of an opening, by role, channel type and signer, beside the floor.

use opening_core::ChannelType;

use crate::figures::{Microseconds, Rounds};
use crate::floor::{Curve, PER_SIDE};
use crate::node::Signer;
use crate::pair::Pair;
use crate::report::{Cell, Effort, Goal, Ratio, Table};

const OPENS_IN_A_ROUND: u32 = 10;

/// One kind of opening.
struct Kind {
    signer: Signer,
    channel_type: ChannelType,
    pair: Pair,
    funder: Rounds,
    fundee: Rounds,
    both: Rounds,
}

impl Kind {
    fn all() -> Vec<Self> {
        let kinds = Signer::ALL.into_iter().flat_map(|signer| {
            [ChannelType::ANCHORS, ChannelType::STATIC_REMOTEKEY].map(|it| (signer, it))
        });
        let new = |(signer, channel_type)| Self {
            signer,
            channel_type,
            pair: Pair::connect(signer),
            funder: Rounds::default(),
            fundee: Rounds::default(),
            both: Rounds::default(),
        };
        kinds.map(new).collect()
    }

    fn open(&mut self) -> [Microseconds; 3] {
        let taken: Vec<_> =
            (0..OPENS_IN_A_ROUND).map(|_| self.pair.open(self.channel_type)).collect();
        let mean = |sum| Microseconds::of(sum) / f64::from(OPENS_IN_A_ROUND);
        let funder = mean(taken.iter().map(|taken| taken.funder).sum());
        let fundee = mean(taken.iter().map(|taken| taken.fundee).sum());
        [funder, fundee, funder + fundee]
    }

    fn round(&mut self) {
        let [funder, fundee, both] = self.open();
        self.funder.push(funder);
        self.fundee.push(fundee);
        self.both.push(both);
    }
}

/// The tables and the ratios.
pub fn measure(effort: Effort) -> (Vec<Table>, Vec<Ratio>) {
    let curve = Curve::new();
    let mut floor = Rounds::default();
    let mut kinds = Kind::all();
    // For the caches.
    kinds.iter_mut().for_each(|kind| drop(kind.open()));
    for _ in 0..effort.of(15, 60) {
        // Each in turn, so that the machine's mood is the same for all.
        floor.push(curve.per_side() * 2.0);
        kinds.iter_mut().for_each(Kind::round);
    }
    let floor_median = floor.median();
    let mut ratios = Vec::new();
    let mut rows = vec![row("floor", "", None, &floor, floor_median)];
    for Kind { signer, channel_type, funder, fundee, both, .. } in &kinds {
        let per_role = Some([funder.median(), fundee.median()]);
        rows.push(row(signer.name(), &channel_type.to_string(), per_role, both, floor_median));
        if (*signer, *channel_type) == (Signer::Blind, ChannelType::ANCHORS) {
            ratios.push(Ratio {
                name: "blind_vs_floor",
                says: "CPU per open, both sides, blind signer, to the floor",
                value: both.median().0 / floor_median.0,
                goal: Goal::AtMost(1.15),
            });
        }
    }
    let table = Table {
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
        notes: Vec::new(),
    };
    (vec![primitives(&curve), table], ratios)
}

fn row(
    who: &str,
    channel_type: &str,
    per_role: Option<[Microseconds; 2]>,
    both: &Rounds,
    floor: Microseconds,
) -> Vec<Cell> {
    let [low, median, high] = both.tenth_half_ninth();
    let [funder, fundee] = per_role.unwrap_or([median / 2.0; 2]).map(|it| Cell::figure(it.0, 0));
    let [low, both, high] = [low, median, high].map(|it| Cell::figure(it.0, 0));
    let ratio = Cell::figure(median.0 / floor.0, 2);
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
            "What one side needs up to `funding_signed` when its signer keeps its secrets.".into(),
        ],
    }
}
