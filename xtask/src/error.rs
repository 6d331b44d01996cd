//! Why a chore failed, in the words its caller reads.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

/// Why a chore failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A file or folder could not be read or written.
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    /// A file is not of the form it should have.
    #[error("{}: {detail}", path.display())]
    Malformed { path: PathBuf, detail: String },
    /// A command could not be started.
    #[error("`{command}` did not start: {source}")]
    Start { command: String, source: io::Error },
    /// A command ended with something other than success.
    #[error("`{command}` failed: {status}")]
    Command { command: String, status: ExitStatus },
    /// A step of CI failed; the later ones did not run.
    #[error("ci stopped at step {number} of {total}, {name}: {source}")]
    Step { number: usize, total: usize, name: &'static str, source: Box<Error> },
    /// What another project published could not be fetched.
    #[error(
        "{source}; the crates of `{folder}/Cargo.lock` come from crates.io: is the network there?"
    )]
    Fetch { folder: &'static str, source: Box<Error> },
    /// The probe would check other versions than the workspace uses.
    #[error("xtask/no-std-probe/Cargo.lock has {probe}, Cargo.lock has {workspace}")]
    LocksDiffer { probe: String, workspace: String },
    /// Requirement coverage is not what it has to be; the findings were printed.
    #[error("requirement coverage: {0} finding(s), listed above")]
    Coverage(usize),
    /// The report could not be printed.
    #[error("printing the report: {0}")]
    Print(#[source] io::Error),
}

impl Error {
    /// For `map_err` on what the file system says about `path`.
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        |source| Self::File { path, source }
    }

    /// For `map_err` on what a parser says about `path`.
    pub(crate) fn malformed<E: ToString>(path: impl Into<PathBuf>) -> impl FnOnce(E) -> Self {
        let path = path.into();
        move |detail| Self::Malformed { path, detail: detail.to_string() }
    }
}
