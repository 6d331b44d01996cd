//! `cargo xtask bench`: measures, prints the tables, and writes them to `docs/performance.md`.

use std::fs;
use std::io;
use std::path::PathBuf;

use clap::Parser;
use opening_bench::loopback;
use opening_bench::report::{Effort, Made, Ratio, Report, Table};
use opening_bench::{openings, peers, pending, remote};

/// Measure what an opening costs, beside what its cryptography costs and beside LDK.
#[derive(Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
struct Arguments {
    /// Print the same figures as JSON.
    #[arg(long)]
    json: bool,
    /// Fewer rounds, less than a minute in all; writes no file.
    #[arg(long)]
    quick: bool,
}

fn main() -> io::Result<()> {
    let Arguments { json, quick } = Arguments::parse();
    let effort = if quick { Effort::Quick } else { Effort::Full };
    let report = measure(effort);
    if json {
        println!("{:#}", report.to_json());
    } else {
        print!("{report}");
    }
    if effort == Effort::Full {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
        fs::write(root.join("docs/performance.md"), report.to_string())?;
    }
    Ok(())
}

fn measure(effort: Effort) -> Report {
    let (mut tables, mut ratios) = (Vec::new(), Vec::new());
    let mut add = |name: &str, section: fn(Effort) -> (Vec<Table>, Vec<Ratio>)| {
        eprintln!("measuring {name} ...");
        let (more_tables, more_ratios) = section(effort);
        tables.extend(more_tables);
        ratios.extend(more_ratios);
    };
    add("the CPU time of an opening", openings::measure);
    add("openings over BOLT 8 on loopback", loopback::measure);
    add("the CPU time of an opening among many peers", peers::measure);
    add("100,000 pending inbound openings", pending::measure);
    add("openings with a signer that is elsewhere", remote::measure);
    Report { made: Made::now(), effort, ratios, tables }
}
