//! `cargo xtask interop`: channels opened with signers that other projects wrote.

use std::ffi::OsStr;
use std::process::Command;

use clap::ValueEnum;

use crate::error::Error;
use crate::workspace::{Workspace, run as run_command};

/// Whose signer.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Signer {
    /// The Validating Lightning Signer.
    Vls,
}

impl Signer {
    /// Its workspace, below the root.
    fn folder(self) -> &'static str {
        match self {
            Self::Vls => "interop/vls",
        }
    }
}

/// Fetches, builds and runs it.
pub(crate) fn run(workspace: &Workspace, signer: Signer) -> Result<(), Error> {
    let folder = signer.folder();
    let cargo = |arguments: &[&str]| command(workspace, folder, arguments);
    // By itself, so that a missing network is told from a build that fails.
    run_command(&mut cargo(&["fetch", "--locked"]))
        .map_err(|source| Error::Fetch { folder, source: Box::new(source) })?;
    run_command(&mut cargo(&["run", "--locked", "--offline"]))
}

/// In the signer's own workspace and target folder: its crates turn on features of ours that
/// nothing else may be built with.
fn command(workspace: &Workspace, folder: &str, arguments: &[impl AsRef<OsStr>]) -> Command {
    let folder = workspace.path(folder);
    let mut command = workspace.cargo(arguments);
    command.env("CARGO_TARGET_DIR", folder.join("target")).current_dir(folder);
    command
}
