//! `cargo xtask bench`: measures, prints the tables, and writes them to `docs/performance.md` and what
//! matters most to the README.

use std::fs;
use std::io;
use std::path::PathBuf;

use clap::Parser;
use opening_bench::loopback;
use opening_bench::report::{Effort, Made, Ratio, Report, Table};
use opening_bench::{openings, peers, pending, remote};

/// Around what the README quotes.
const BEGIN: &str = "<!-- figures: cargo xtask bench -->";
const END: &str = "<!-- end of figures -->";

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
        let readme = root.join("README.md");
        let quoting = quote(&fs::read_to_string(&readme)?, &report.quote("openings"))?;
        fs::write(readme, quoting)?;
    }
    Ok(())
}

/// The README with these figures between its marks.
fn quote(readme: &str, figures: &str) -> io::Result<String> {
    let missing = || io::Error::other(format!("README.md has no {BEGIN} and {END}"));
    let (before, rest) = readme.split_once(BEGIN).ok_or_else(missing)?;
    let (_, after) = rest.split_once(END).ok_or_else(missing)?;
    Ok(format!("{before}{BEGIN}\n{figures}{END}{after}"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_gets_new_figures_for_old_ones() {
        let readme = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let quoting = quote(&readme, "new\n").unwrap();
        assert_eq!(quoting, format!("before\n{BEGIN}\nnew\n{END}\nafter\n"));
        assert!(quote("no marks", "new\n").is_err());
    }
}
