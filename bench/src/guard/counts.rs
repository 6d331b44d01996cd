//! Counting allocations, bytes and instructions.

use std::env;
use std::fmt;
use std::process::Command;

use opening_core::ChannelType;

use super::Heap;
use crate::node::Signer;
use crate::pair::Pair;
use crate::pending;

/// Opens before anything is counted: buffers and queues have their size then.
const WARM_UP: u32 = 40;
/// Opens that are counted.
const OPENS: u32 = 400;
/// The peers, and the openings of each, that are pending at once: as many in all as a map of 4,096
/// places takes.
const SHAPES: [[u32; 2]; 2] = [[3_584, 1], [358, 10]];
/// Opens under callgrind: the difference of both has no beginning and no end in it.
const FEW: u32 = 10;
const MANY: u32 = 40;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Allocations,
    Bytes,
    Instructions,
}

impl Kind {
    /// By how much it may exceed what is recorded, and by how much fall below it unsaid.
    // Maps hash with another seed in each process, and ids are random: thousandths of a percent of
    // the instructions, and nothing else.  One allocation more in each opening is to be noticed.
    pub(super) fn margin(self) -> f64 {
        match self {
            Self::Allocations => 0.002,
            Self::Bytes => 0.01,
            Self::Instructions => 0.02,
        }
    }
}

/// One figure, or why there is none.
pub(super) struct Figure {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) value: Result<f64, &'static str>,
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value {
            Ok(value) => write!(f, "{} {value:.1}", self.name),
            Err(why) => write!(f, "{} skipped, {why}", self.name),
        }
    }
}

/// All figures, always in the same order.
pub(super) fn count_all(heap: fn() -> Heap) -> Vec<Figure> {
    let allocations = Signer::ALL.map(|signer| Figure {
        name: format!("allocations_per_open_{}", signer.name()),
        kind: Kind::Allocations,
        value: Ok(allocations(signer, heap)),
    });
    let bytes = SHAPES.map(|[peers, opens]| Figure {
        name: format!("bytes_per_pending_open_{opens}_of_a_peer"),
        kind: Kind::Bytes,
        value: Ok(pending::bytes_each(peers, opens, heap)),
    });
    let instructions = Signer::ALL.map(|signer| Figure {
        name: format!("instructions_per_open_{}", signer.name()),
        kind: Kind::Instructions,
        value: instructions(signer),
    });
    allocations.into_iter().chain(bytes).chain(instructions).collect()
}

fn allocations(signer: Signer, heap: fn() -> Heap) -> f64 {
    let mut pair = Pair::connect(signer);
    let mut open = |count| {
        for _ in 0..count {
            _ = pair.open(ChannelType::ANCHORS);
        }
    };
    open(WARM_UP);
    let before = heap().allocations;
    open(OPENS);
    (heap().allocations - before) as f64 / f64::from(OPENS)
}

/// Of both sides together, by callgrind.
fn instructions(signer: Signer) -> Result<f64, &'static str> {
    let [few, many] = [FEW, MANY].map(|count| instructions_of(signer, count));
    Ok((many? - few?) / f64::from(MANY - FEW))
}

fn instructions_of(signer: Signer, count: u32) -> Result<f64, &'static str> {
    let program = env::current_exe().expect("a program has a name");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(["opens", signer.name(), &count.to_string()])
        .output()
        .map_err(|_| "there is no valgrind")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said.lines().find_map(|line| line.split_once("Collected : "));
    let collected = collected.filter(|_| output.status.success());
    let count = collected.and_then(|(_, count)| count.trim().parse().ok());
    count.ok_or("valgrind does not run it")
}
