//! Runs the conformance suite over every signer that can be had here.

use std::process::ExitCode;

use clap::Parser;
use opening_examples::signers;
use opening_signer::testing::conformance::Report;

/// Run the conformance suite over every signer that can be had here.
///
/// Prints a table for each signer; fails when a signer does not conform.
#[derive(Parser)]
#[command(name = "conformance")]
struct Arguments {
    /// Print one JSON array instead: an object for each signer.
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// Print one table in Markdown instead, a row for each check: the one in `docs/signer.md`.
    #[arg(long)]
    markdown: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let reports = match signers::reports().await {
        Ok(reports) => reports,
        Err(error) => {
            eprintln!("error: no directory for the signers' stores: {error}");
            return ExitCode::FAILURE;
        }
    };
    if arguments.json {
        let reports: Vec<_> = reports.iter().map(Report::to_json).collect();
        println!("{}", serde_json::Value::from(reports));
    } else if arguments.markdown {
        print!("{}", Report::to_markdown(&reports));
    } else {
        reports.iter().for_each(|report| println!("{report}"));
    }
    match reports.iter().all(Report::is_pass) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
