//! A guard against openings that come to cost more: figures that do not depend on the machine's
//! mood, held against recorded ones.

mod counts;
mod recorded;

use std::fmt;
use std::io;

use opening_core::ChannelType;

use self::counts::count_all;
use self::recorded::Recorded;
use crate::node::Signer;
use crate::pair::Pair;

/// What an allocator that counts has seen.
#[derive(Clone, Copy, Debug)]
pub struct Heap {
    /// Calls that gave memory, growing ones included.
    pub allocations: usize,
    /// Bytes given.
    pub given: usize,
    /// Bytes given and not taken back.
    pub in_use: usize,
}

/// Why the guard does not pass.
#[derive(Debug)]
pub enum Error {
    /// The record cannot be read or written.
    Record(io::Error),
    /// This figure is recorded and was not measured, or the other way round.
    Unknown(String),
    /// So many figures are worse than recorded.
    Worse(usize),
    /// Valgrind is there, and did not count.
    Valgrind(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record(error) => write!(f, "{}: {error}", recorded::FILE),
            Self::Unknown(name) => write!(
                f,
                "{name} is recorded or measured, and not both; `cargo xtask guard --record` \
                 writes down what there is"
            ),
            Self::Valgrind(why) => write!(f, "valgrind counted no instructions: {why}"),
            Self::Worse(count) => write!(
                f,
                "{count} of the figures above became worse; if that is meant, \
                 `cargo xtask guard --record` writes them down"
            ),
        }
    }
}

/// Opens so many channels between two nodes that are otherwise the same each time.
pub fn open(signer: Signer, count: u32) {
    let mut pair = Pair::connect(signer);
    for _ in 0..count {
        _ = pair.open(ChannelType::ANCHORS);
    }
}

/// Measures, and writes it down.
pub fn record(heap: fn() -> Heap) -> Result<(), Error> {
    let recorded = Recorded::now(count_all(heap)?);
    recorded.write().map_err(Error::Record)?;
    println!("written to {}", recorded::FILE);
    Ok(())
}

/// Measures, and fails if something is worse than recorded by more than its margin.
pub fn check(heap: fn() -> Heap) -> Result<(), Error> {
    let recorded = Recorded::read().map_err(Error::Record)?;
    let measured = count_all(heap)?;
    let mut worse = 0;
    for figure in &measured {
        let verdict = recorded.judge(figure);
        println!("{figure}: {verdict}");
        worse += usize::from(verdict.is_worse());
    }
    match recorded.unmatched(&measured).into_iter().next() {
        Some(name) => Err(Error::Unknown(name)),
        None if worse > 0 => Err(Error::Worse(worse)),
        None => Ok(()),
    }
}
