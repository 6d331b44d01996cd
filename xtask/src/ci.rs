//! `cargo xtask ci`: what CI runs, so that one command says beforehand what CI will say.

use std::time::{Duration, Instant};

use crate::error::Error;
use crate::workspace::{self, Workspace};
use crate::{no_std, program, spec};

/// One check, with its name and what it shows.
struct Step {
    name: &'static str,
    shows: &'static str,
    run: fn(&Workspace) -> Result<(), Error>,
}

/// In this order: what is cheap, or what explains later failures, comes first.
// Clippy and the documentation share one set of checked dependencies, tests and programs one set of
// built ones; all name the same packages and features, or cargo would build further sets.
const STEPS: [Step; 7] = [
    Step { name: "fmt", shows: "the code is formatted", run: fmt },
    Step { name: "clippy", shows: "no compiler or clippy warning in any target", run: clippy },
    Step { name: "doc", shows: "the documentation builds without a warning", run: doc },
    Step { name: "test", shows: "all tests pass, documentation's examples included", run: test },
    Step { name: "no-std", shows: "opening-core builds without std", run: no_std::run },
    Step { name: "spec", shows: "no requirement lost its test", run: spec_report },
    Step { name: "guard", shows: "an opening costs no more than recorded", run: program::guard },
];

/// Runs every step; the first failure ends it.
pub(crate) fn run(workspace: &Workspace) -> Result<(), Error> {
    let begun = Instant::now();
    let mut times = Vec::new();
    for (index, Step { name, shows, run }) in STEPS.iter().enumerate() {
        let number = index + 1;
        println!("\n==> step {number} of {}, {name}: {shows}", STEPS.len());
        let begun = Instant::now();
        run(workspace).map_err(|source| Error::Step {
            number,
            total: STEPS.len(),
            name,
            source: Box::new(source),
        })?;
        let time = begun.elapsed();
        println!("<== {name} passed in {}", seconds(time));
        times.push((name, time));
    }
    println!("\nci passed in {}:", seconds(begun.elapsed()));
    for (name, time) in times {
        println!("  {name:<8} {:>8}", seconds(time));
    }
    Ok(())
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn fmt(workspace: &Workspace) -> Result<(), Error> {
    workspace::run(&mut workspace.cargo(["fmt", "--all", "--check"]))?;
    let probe = "xtask/no-std-probe/Cargo.toml";
    workspace::run(&mut workspace.cargo(["fmt", "--manifest-path", probe, "--check"]))
}

fn clippy(workspace: &Workspace) -> Result<(), Error> {
    let mut command = workspace.cargo(["clippy", "--locked", "--workspace", "--all-targets"]);
    workspace::run(command.args(["--all-features", "--", "-D", "warnings"]))
}

fn doc(workspace: &Workspace) -> Result<(), Error> {
    let mut command = workspace.cargo(["doc", "--locked", "--workspace", "--no-deps"]);
    workspace::run(command.arg("--all-features").env("RUSTDOCFLAGS", "-D warnings"))
}

fn test(workspace: &Workspace) -> Result<(), Error> {
    workspace::run(&mut workspace.cargo(["test", "--locked", "--workspace", "--all-features"]))
}

fn spec_report(workspace: &Workspace) -> Result<(), Error> {
    spec::run(workspace, spec::Options::default())
}
