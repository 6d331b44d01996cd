//! `cargo xtask demo`, `cargo xtask conformance`: a program of `examples/`, built and run.

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

/// Runs the benchmark with `arguments`, built for release.
pub(crate) fn bench(workspace: &Workspace, arguments: &[OsString]) -> Result<ExitCode, Error> {
    // All of its programs: the benchmark runs the others.
    let package = ["--locked", "--release", "-p", "opening-bench"];
    let mut build = workspace.cargo(["build", "--bins"]);
    // Standard output is the figures' alone.
    build_quietly(build.args(package))?;
    let mut command = workspace.cargo(["run", "--quiet"]);
    become_command(command.args(package).arg("--").args(arguments))
}

/// Builds, and fails unless that succeeds; shows nothing but what cargo shows.
fn build_quietly(command: &mut Command) -> Result<(), Error> {
    let line = line(command);
    let status =
        command.status().map_err(|source| Error::Start { command: line.clone(), source })?;
    if status.success() { Ok(()) } else { Err(Error::Command { command: line, status }) }
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
