//! `cargo xtask demo`, `cargo xtask bench`: a program of the workspace, built and run.

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use crate::error::Error;
use crate::workspace::{Workspace, line, run as run_command};

/// Runs the program with `arguments`; its exit code is ours.
// The dev profile: its dependencies are optimized, it takes less time from cold than release does,
// and it shares what `cargo xtask ci` has built.
pub(crate) fn run(
    workspace: &Workspace,
    program: &str,
    arguments: &[OsString],
) -> Result<ExitCode, Error> {
    if arguments.iter().any(|argument| argument == "--remote-signer") {
        // It starts the signer's program, which nobody else builds.
        let signer = ["build", "--locked", "-p", "opening-examples", "--bin", "hsmd"];
        run_command(&mut workspace.cargo(signer))?;
    }
    let mut command =
        workspace.cargo(["run", "--locked", "-p", "opening-examples", "--bin", program, "--"]);
    command.args(arguments);
    become_command(&mut command)
}

/// Runs a program of `bench/` with `arguments`, built for release; its exit code is ours.
pub(crate) fn measure(
    workspace: &Workspace,
    program: &str,
    arguments: &[OsString],
) -> Result<ExitCode, Error> {
    build_measures(workspace)?;
    let mut command = workspace.cargo(["run", "--quiet", "--bin", program]);
    become_command(command.args(MEASURES).arg("--").args(arguments))
}

/// Where the programs that measure are, and how they are built.
const MEASURES: [&str; 4] = ["--locked", "--release", "-p", "opening-bench"];

/// All of them: the benchmark runs another.
fn build_measures(workspace: &Workspace) -> Result<(), Error> {
    let mut command = workspace.cargo(["build", "--bins"]);
    command.args(MEASURES);
    let line = line(&command);
    // Nothing is said on standard output, which is the figures' alone.
    let status = command.status();
    let status = status.map_err(|source| Error::Start { command: line.clone(), source })?;
    if status.success() { Ok(()) } else { Err(Error::Command { command: line, status }) }
}

/// Fails when an opening costs more than it was recorded to.
pub(crate) fn guard(workspace: &Workspace) -> Result<(), Error> {
    run_command(workspace.cargo(["run", "--bin", "opening-guard"]).args(MEASURES))
}

/// This process turns into the command, so that Ctrl-C, signals and the exit code are the program's.
#[cfg(unix)]
fn become_command(command: &mut Command) -> Result<ExitCode, Error> {
    use std::os::unix::process::CommandExt as _;

    let source = command.exec();
    Err(Error::Start { command: line(command), source })
}

#[cfg(not(unix))]
fn become_command(command: &mut Command) -> Result<ExitCode, Error> {
    let status =
        command.status().map_err(|source| Error::Start { command: line(command), source })?;
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Ok(ExitCode::from(code))
}
