//! The no-std probe: `opening-core` builds where there is no std.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::error::Error;
use crate::workspace::{self, Workspace};

const PROBE: &str = "xtask/no-std-probe";

/// Compiles the probe against the versions that the workspace uses.
pub(crate) fn run(workspace: &Workspace) -> Result<(), Error> {
    let probe = read_lock(workspace, &format!("{PROBE}/Cargo.lock"))?;
    same_versions(&probe, &read_lock(workspace, "Cargo.lock")?)?;
    let mut command = workspace.cargo(["check", "--locked", "--manifest-path"]);
    command.arg(format!("{PROBE}/Cargo.toml"));
    command.arg("--target-dir").arg(workspace.target().join("no-std-probe"));
    workspace::run(&mut command)
}

/// The part of a `Cargo.lock` that is compared.
#[derive(Deserialize)]
struct Lock {
    package: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
}

fn read_lock(workspace: &Workspace, path: &str) -> Result<Lock, Error> {
    toml::from_str(&workspace.read(path)?).map_err(Error::malformed(workspace.path(path)))
}

/// The probe has a lock file of its own, which could fall behind and then prove something else.
fn same_versions(probe: &Lock, workspace: &Lock) -> Result<(), Error> {
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in &workspace.package {
        versions.entry(&package.name).or_default().insert(&package.version);
    }
    for Package { name, version } in &probe.package {
        if let Some(used) = versions.get(name.as_str())
            && !used.contains(version.as_str())
        {
            let used: Vec<_> = used.iter().copied().collect();
            return Err(Error::LocksDiffer {
                probe: format!("{name} {version}"),
                workspace: format!("{name} {}", used.join(" and ")),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(packages: &[(&str, &str)]) -> Lock {
        let package = |&(name, version): &(&str, &str)| Package {
            name: name.to_owned(),
            version: version.to_owned(),
        };
        Lock { package: packages.iter().map(package).collect() }
    }

    #[test]
    fn a_probe_that_fell_behind_is_noticed() {
        let workspace = lock(&[("bitcoin", "0.32.2"), ("hex", "0.4.0"), ("hex", "1.0.0")]);
        let same = lock(&[("bitcoin", "0.32.2"), ("hex", "1.0.0"), ("no-std-probe", "0.1.0")]);
        assert!(same_versions(&same, &workspace).is_ok());

        let behind = same_versions(&lock(&[("bitcoin", "0.32.1")]), &workspace);
        assert_eq!(
            behind.expect_err("an older bitcoin").to_string(),
            "xtask/no-std-probe/Cargo.lock has bitcoin 0.32.1, Cargo.lock has bitcoin 0.32.2",
        );
    }
}
