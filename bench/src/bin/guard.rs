//! `cargo xtask guard`: what an opening costs in allocations, bytes and instructions, against what
//! it was recorded to cost.
//!
//! The allocator of this program counts everything that is asked of it.

use std::alloc::System;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use opening_bench::guard::{self, Heap};
use opening_bench::node::Signer;
use opening_bench::pending;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn heap() -> Heap {
    let stats = ALLOCATOR.stats();
    Heap {
        allocations: stats.allocations + stats.reallocations,
        given: stats.bytes_allocated,
        in_use: stats.bytes_allocated - stats.bytes_deallocated,
    }
}

/// Hold what an opening costs against what was recorded.
#[derive(Parser)]
#[command(name = "cargo xtask guard", bin_name = "cargo xtask guard")]
struct Arguments {
    /// Write down what is measured, instead of comparing.
    #[arg(long)]
    record: bool,
    #[command(subcommand)]
    part: Option<Part>,
}

/// What the guard and the benchmark run by themselves.
#[derive(Subcommand)]
enum Part {
    /// Open so many channels, for a program that counts instructions.
    #[command(hide = true)]
    Opens { signer: Signer, count: u32 },
    /// Fill a node with pending inbound openings; prints JSON.
    #[command(hide = true)]
    Pending { peers: u32, opens: u32 },
}

fn main() -> ExitCode {
    let Arguments { record, part } = Arguments::parse();
    match part {
        Some(Part::Opens { signer, count }) => guard::open(signer, count),
        Some(Part::Pending { peers, opens }) => println!("{}", pending::fill(peers, opens, heap)),
        None => {
            let done = if record { guard::record(heap) } else { guard::check(heap) };
            if let Err(error) = done {
                eprintln!("error: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
