//! Openings over TCP and BOLT 8 on 127.0.0.1.

mod home;
mod latency;
mod ldk;
mod nodes;
mod ours;
mod sample;
mod throughput;
mod writes;

use crate::report::{Effort, Ratio, Table};

/// Where a node keeps its channels, and a validating signer its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    /// In memory.
    InMemory,
    /// In files, where a write ends when it would survive a crash.
    InFiles,
}

impl Kept {
    fn name(self) -> &'static str {
        match self {
            Self::InMemory => "in memory",
            Self::InFiles => "in files",
        }
    }
}

/// The tables and the ratios.
pub fn measure(effort: Effort) -> (Vec<Table>, Vec<Ratio>) {
    let (throughput, two_to_one) = throughput::measure(effort);
    let ([latency, threads], to_work) = latency::measure(effort);
    (vec![throughput, latency, threads], vec![two_to_one, to_work])
}
