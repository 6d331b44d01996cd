//! Counting allocations, bytes and instructions.

use std::process::Command;
use std::{env, fmt, io};

use opening_core::ChannelType;

use super::{Error, Heap};
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
pub(super) fn count_all(heap: fn() -> Heap) -> Result<Vec<Figure>, Error> {
    let mut figures = Vec::new();
    let mut add = |name: String, kind, value| figures.push(Figure { name, kind, value });
    for signer in Signer::ALL {
        let [allocations, bytes] = allocated(signer, heap);
        let name = signer.name();
        add(format!("allocations_per_open_{name}"), Kind::Allocations, Ok(allocations));
        add(format!("bytes_per_open_{name}"), Kind::Bytes, Ok(bytes));
    }
    for [peers, opens] in SHAPES {
        let bytes = pending::bytes_each(peers, opens, heap);
        add(format!("bytes_per_pending_open_{opens}_of_a_peer"), Kind::Bytes, Ok(bytes));
    }
    for signer in Signer::ALL {
        let name = format!("instructions_per_open_{}", signer.name());
        add(name, Kind::Instructions, instructions(signer)?);
    }
    Ok(figures)
}

/// Calls for memory, and bytes given, both sides together.
fn allocated(signer: Signer, heap: fn() -> Heap) -> [f64; 2] {
    let mut pair = Pair::connect(signer);
    let mut open = |count| {
        for _ in 0..count {
            _ = pair.open(ChannelType::ANCHORS);
        }
    };
    open(WARM_UP);
    let before = heap();
    open(OPENS);
    let after = heap();
    [after.allocations - before.allocations, after.given - before.given]
        .map(|difference| difference as f64 / f64::from(OPENS))
}

/// Of both sides together, by callgrind; why not, where there is none.
fn instructions(signer: Signer) -> Result<Result<f64, &'static str>, Error> {
    let [few, many] = [FEW, MANY].map(|count| instructions_of(signer, count));
    let (Some(few), Some(many)) = (few?, many?) else {
        return Ok(Err("there is no valgrind"));
    };
    Ok(Ok((many - few) / f64::from(MANY - FEW)))
}

fn instructions_of(signer: Signer, count: u32) -> Result<Option<f64>, Error> {
    let program = env::current_exe().expect("a program has a name");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(["opens", signer.name(), &count.to_string()])
        .output();
    let output = match output {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::Valgrind(error.to_string())),
        Ok(output) => output,
    };
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said.lines().find_map(|line| line.split_once("Collected : "));
    let collected = collected.filter(|_| output.status.success());
    let count = collected.and_then(|(_, count)| count.trim().parse().ok());
    count.map(Some).ok_or_else(|| Error::Valgrind(format!("{}\n{said}", output.status)))
}
