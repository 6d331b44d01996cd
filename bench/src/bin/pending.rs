//! `opening-pending PEERS OPENINGS`: what pending inbound openings cost, as JSON.
//!
//! The allocator of this program counts every byte that is asked of it.

use std::alloc::System;
use std::env;
use std::process::ExitCode;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn in_use() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

fn main() -> ExitCode {
    let counts: Vec<u32> = env::args().skip(1).filter_map(|count| count.parse().ok()).collect();
    let [peers, opens] = counts[..] else {
        eprintln!("usage: opening-pending PEERS OPENINGS-OF-EACH");
        return ExitCode::from(2);
    };
    println!("{}", opening_bench::pending::fill(peers, opens, in_use));
    ExitCode::SUCCESS
}
