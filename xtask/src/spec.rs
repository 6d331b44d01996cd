//! `cargo xtask spec`: which requirements of the BOLTs are shown to be met, and by what.

mod citation;
mod coverage;
mod ledger;
mod report;
mod requirement;
mod rule;

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use self::citation::Citations;
use self::coverage::Coverage;
use self::ledger::{Ledger, Section};
use self::requirement::Requirements;
use self::rule::Rules;
use crate::error::Error;
use crate::workspace::Workspace;

const REQUIREMENTS: &str = "docs/spec/requirements-v1.tsv";
const COVERAGE: &str = "docs/spec/coverage.toml";
/// Where tests are.
const SOURCES: [&str; 3] = ["crates", "examples", "xtask"];
/// Where rules and their refusals are, each a file or a folder.
const RULES: [&str; 2] = ["crates/opening-core/src/rules", "crates/opening-core/src/refusal"];

/// How to report.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    /// Print one JSON object with every requirement, and what shows that it is met.
    #[arg(long)]
    json: bool,
    /// Lift each section's minimum in `docs/spec/coverage.toml` to what has been reached.
    #[arg(long)]
    raise: bool,
}

/// Prints the report; fails if there is any finding.
pub(crate) fn run(workspace: &Workspace, options: Options) -> Result<(), Error> {
    let ledger = read(workspace)?;
    print(&ledger, options)?;
    if options.raise {
        raise(workspace, &ledger.sections)?;
    }
    for finding in &ledger.findings {
        eprintln!("error: {finding}");
    }
    match ledger.findings.len() {
        0 => Ok(()),
        count => Err(Error::Coverage(count)),
    }
}

fn read(workspace: &Workspace) -> Result<Ledger, Error> {
    let table = workspace.read(REQUIREMENTS)?;
    let requirements =
        Requirements::parse(&table).map_err(Error::malformed(workspace.path(REQUIREMENTS)))?;
    let coverage: Coverage = toml::from_str(&workspace.read(COVERAGE)?)
        .map_err(Error::malformed(workspace.path(COVERAGE)))?;

    let (mut citations, mut rules) = (Citations::default(), Rules::default());
    for file in source_files(workspace)? {
        let source = workspace.read(&file)?;
        citations.read(&file, &source, &requirements);
        if RULES.iter().any(|rules| is_at(&file, rules)) {
            rules.read(&file, &source, &requirements);
        }
    }
    Ok(Ledger::new(&requirements, &citations, &rules, &coverage))
}

/// Every Rust file in which a test may be, named from the root with `/`, in a fixed order.
fn source_files(workspace: &Workspace) -> Result<Vec<String>, Error> {
    let mut files = Vec::new();
    let mut folders: Vec<_> = SOURCES.map(|folder| workspace.path(folder)).into();
    while let Some(folder) = folders.pop() {
        for path in children(&folder)? {
            if path.is_dir() && path.file_name() != Some(OsStr::new("target")) {
                folders.push(path);
            } else if path.extension() == Some(OsStr::new("rs")) {
                let inside = path.strip_prefix(workspace.path("")).unwrap_or(&path);
                files.push(inside.to_string_lossy().replace('\\', "/"));
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Whether `file` is the module at `path`, or a part of it.
fn is_at(file: &str, path: &str) -> bool {
    file.strip_prefix(path).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

fn children(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = fs::read_dir(folder).map_err(Error::file(folder))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    paths.collect::<io::Result<_>>().map_err(Error::file(folder))
}

fn print(ledger: &Ledger, options: Options) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    let printed = if options.json {
        serde_json::to_writer_pretty(&mut out, ledger)
            .map_err(io::Error::from)
            .and_then(|()| writeln!(out))
    } else {
        report::write(ledger, &mut out)
    };
    match printed {
        // Whoever reads has read enough, as `head` has; what follows is still decided.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed.map_err(Error::Print),
    }
}

fn raise(workspace: &Workspace, sections: &[Section]) -> Result<(), Error> {
    let reached =
        sections.iter().map(|section| (section.section.as_str(), section.covered())).collect();
    let raised = coverage::raise_minimums(&workspace.read(COVERAGE)?, &reached);
    let path = workspace.path(COVERAGE);
    fs::write(&path, raised).map_err(Error::file(path))
}
