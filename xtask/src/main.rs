//! Every chore of the repository: `cargo xtask --help`.
//!
//! * `cargo xtask demo`: opens channels with LDK on a chain of its own and shows each stage.
//! * `cargo xtask conformance`: holds every signer that can be had against the suite.
//! * `cargo xtask interop vls`: opens channels with another project's signer.
//! * `cargo xtask bench`: measures what an opening costs.
//! * `cargo xtask guard`: fails when an opening costs more than it was recorded to.
//! * `cargo xtask ci`: everything that CI runs, in CI's order.
//! * `cargo xtask spec`: which requirements of the BOLTs are tested, held, waived or missing.
//!
//! It depends on no other crate of the workspace, so that it runs while they do not compile.

mod ci;
mod error;
mod interop;
mod no_std;
mod program;
mod spec;
mod workspace;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// Every chore of the repository.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Open channels with a real LDK node, both ways, and print the timeline.
    ///
    /// Builds and runs the program `demo` of `examples/`.  All arguments are the program's own:
    /// `cargo xtask demo --help` shows them.  So is the exit code: zero only if everything that
    /// the demo claims was seen.
    #[command(disable_help_flag = true)]
    Demo {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
        arguments: Vec<OsString>,
    },
    /// Open channels with a signer that another project wrote.
    ///
    /// It is built from crates.io in a workspace of its own below `interop/`, which no other chore
    /// builds: the first run needs the network and a few minutes.  Fails when a check fails.
    Interop {
        /// Whose signer.
        signer: interop::Signer,
    },
    /// Run the conformance suite over every signer that can be had here.
    ///
    /// Builds and runs the program `conformance` of `examples/`.  All arguments are the program's
    /// own: `--json`, `--markdown`.  Fails when a signer does not conform.
    #[command(disable_help_flag = true)]
    Conformance {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
        arguments: Vec<OsString>,
    },
    /// Measure what an opening costs, beside what its cryptography costs and beside LDK.
    ///
    /// Builds for release and runs the program `opening-bench` of `bench/`.  All arguments are the
    /// program's own: `--json`, `--quick`.  Prints its tables, and writes them to
    /// `docs/performance.md` unless the run is a quick one.
    #[command(disable_help_flag = true)]
    Bench {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
        arguments: Vec<OsString>,
    },
    /// Count allocations, bytes and instructions of an opening, and fail if they became more.
    ///
    /// Builds for release and runs the program `opening-guard` of `bench/`.  Instructions are
    /// counted where valgrind is installed.  `--record` writes what there is to `bench/guard.json`.
    #[command(disable_help_flag = true)]
    Guard {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
        arguments: Vec<OsString>,
    },
    /// Run all that CI runs; stops at the first step that fails.
    ///
    /// In order: formatting, clippy and documentation with warnings denied, all tests with the
    /// examples in the documentation, the no-std probe, requirement coverage, and what an opening
    /// costs in allocations, bytes and instructions.
    Ci,
    /// Show which requirements of the BOLTs have a test, and list those that have none.
    ///
    /// Reads `docs/spec/requirements-v1.tsv`, `docs/spec/coverage.toml`, and the `// req:` line
    /// above each test.  Fails when a section falls below its minimum or lacks a MUST that it may
    /// not lack, when a rule has no test, and when a citation names nothing or belongs to no test.
    Spec(spec::Options),
}

fn main() -> ExitCode {
    let workspace = Workspace::locate();
    let done = match Arguments::parse().chore {
        Chore::Demo { arguments } => program::run(&workspace, "demo", &arguments),
        Chore::Conformance { arguments } => program::run(&workspace, "conformance", &arguments),
        Chore::Interop { signer } => interop::run(&workspace, signer).map(|()| ExitCode::SUCCESS),
        Chore::Bench { arguments } => program::measure(&workspace, "opening-bench", &arguments),
        Chore::Guard { arguments } => program::measure(&workspace, "opening-guard", &arguments),
        Chore::Ci => ci::run(&workspace).map(|()| ExitCode::SUCCESS),
        Chore::Spec(options) => spec::run(&workspace, options).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_demo_gets_its_arguments_untouched_help_included() {
        let parsed = Arguments::try_parse_from(["cargo xtask", "demo", "--seed", "7", "--help"]);
        let Chore::Demo { arguments } = parsed.expect("forwarded, not parsed").chore else {
            panic!("not the demo");
        };
        assert_eq!(arguments, ["--seed", "7", "--help"]);
    }
}
