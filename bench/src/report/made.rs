//! When and on what a run was made.

use std::fmt;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};

/// When, on what machine, with what.
pub struct Made {
    date: String,
    machine: String,
    system: String,
    /// Name and version: the compiler, ours, and what is measured beside us.
    versions: Vec<(String, String)>,
}

/// Of these the version says something about the figures.
const CRATES: [&str; 5] = ["opening-peer", "lightning", "bitcoin", "secp256k1", "tokio"];

const LOCK: &str = include_str!("../../../Cargo.lock");

impl Made {
    /// Now and here.
    pub fn now() -> Self {
        let crates = CRATES.iter().map(|name| ((*name).to_owned(), locked(name)));
        let rustc = ("rustc".to_owned(), said_by("rustc", &["--version"]));
        Self {
            date: time::OffsetDateTime::now_utc().date().to_string(),
            machine: machine(),
            system: said_by("uname", &["-s", "-r", "-m"]),
            versions: crates.chain([rustc]).collect(),
        }
    }

    /// What compiled this: Rust, C, and for which processors.
    pub fn compilers() -> String {
        let [rustc, cc] = ["rustc", "cc"].map(|program| said_by(program, &["--version"]));
        format!("rustc {rustc}, {cc}, {}", std::env::consts::ARCH)
    }

    /// An object with all of it.
    pub fn to_json(&self) -> Value {
        let Self { date, machine, system, versions } = self;
        let versions = versions.iter().map(|(name, version)| (name.clone(), json!(version)));
        json!({
            "date": date,
            "machine": machine,
            "system": system,
            "versions": Value::Object(versions.collect()),
        })
    }
}

impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { date, machine, system, versions } = self;
        write!(f, "on {date}: {machine}, {system}")?;
        for (name, version) in versions {
            write!(f, ", {name} {version}")?;
        }
        write!(f, ".")
    }
}

/// Processor, cores and memory.
fn machine() -> String {
    let field = |file: &str, name: &str| {
        let text = fs::read_to_string(file).ok()?;
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let processor = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".into());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kibibytes = field("/proc/meminfo", "MemTotal")
        .and_then(|total| total.trim_end_matches(" kB").parse::<u64>().ok());
    let memory = kibibytes.unwrap_or_default() >> 20;
    format!("{processor}, {cores} cores, {memory} GiB")
}

/// The first line that a program says of itself.
fn said_by(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let said = output.ok().filter(|output| output.status.success()).map(|output| output.stdout);
    let text = said.and_then(|said| String::from_utf8(said).ok()).unwrap_or_default();
    let line = text.lines().next().unwrap_or("unknown");
    line.trim_start_matches(&format!("{program} ")).to_owned()
}

/// The version that the lock file has of a crate.
fn locked(name: &str) -> String {
    let heading = format!("name = \"{name}\"");
    let mut lines = LOCK.lines().skip_while(|line| *line != heading).skip(1);
    let version = lines.next().and_then(|line| line.strip_prefix("version = "));
    version.unwrap_or("unknown").trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_file_has_the_version_of_each_crate() {
        for name in CRATES {
            assert!(locked(name).starts_with(|c: char| c.is_ascii_digit()), "{name}");
        }
        assert_eq!(locked("no-such-crate"), "unknown");
    }
}
