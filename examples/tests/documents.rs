//! The documents for operators say what the sources say.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().into()
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// Every source file of a package, without its tests.
fn sources(directory: &Path) -> Vec<(PathBuf, String)> {
    let mut found = vec![];
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
    found
}

/// The string literals of a piece of source.
fn literals(source: &str) -> impl Iterator<Item = &str> {
    source.split('"').skip(1).step_by(2)
}

/// The bodies of all functions that begin so: up to the brace that closes them.
fn bodies<'a>(source: &'a str, signature: &'a str) -> impl Iterator<Item = &'a str> {
    source.match_indices(signature).map(|(at, _)| {
        let body = &source[at..];
        let indent = source[..at].rsplit('\n').next().unwrap();
        let indent = &indent[..indent.len() - indent.trim_start().len()];
        let end = body.find(&format!("\n{indent}}}")).unwrap();
        &body[..end]
    })
}

fn is_code(text: &str) -> bool {
    !text.is_empty()
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

/// What the libraries can say by `code()`.
fn codes_of_libraries() -> BTreeSet<String> {
    let mut codes = BTreeSet::new();
    let mut functions = 0;
    for (path, source) in ["opening-core", "opening-signer", "opening-peer"]
        .iter()
        .flat_map(|package| sources(&root().join("crates").join(package).join("src")))
    {
        for body in bodies(&source, "pub fn code(") {
            functions += 1;
            for code in literals(body) {
                assert!(is_code(code), "{}: {code}", path.display());
                codes.insert(code.to_string());
            }
        }
        // One table has code, citations and side: the code comes first.
        for facts in bodies(&source, "fn facts(") {
            for (_, rest) in facts
                .match_indices("Facts(\"")
                .map(|(at, found)| (found, &facts[at + found.len()..]))
            {
                codes.insert(rest.split('"').next().unwrap().to_string());
            }
        }
    }
    assert!(functions > 10 && codes.len() > 100, "the sources are not read as they are written");
    codes
}

/// What the scriptable node says of its own, beside what it passes on.
fn codes_of_the_node() -> BTreeSet<String> {
    let mut codes = BTreeSet::new();
    for (_, source) in sources(&root().join("examples/src/control"))
        .into_iter()
        .chain(sources(&root().join("examples/src/bin")))
        .chain([(root().join("examples/src/hsmd.rs"), read("examples/src/hsmd.rs"))])
    {
        for (at, call) in source.match_indices("Refused::new(\"") {
            codes.insert(source[at + call.len()..].split('"').next().unwrap().to_string());
        }
        for (at, _) in source.match_indices(" [") {
            let text = source[at + 2..].split(']').next().unwrap();
            if is_code(text) && source[at + 2..].starts_with(&format!("{text}]\"")) {
                codes.insert(text.to_string());
            }
        }
    }
    assert!(codes.contains("store-locked") && codes.contains("bad-json"), "{codes:?}");
    codes
}

/// The tags with which `LocalHsm` refuses.
fn tags() -> BTreeSet<String> {
    opening_signer::Rule::ALL.into_iter().map(|rule| rule.tag().to_string()).collect()
}

/// The first cells of a section's tables, which are codes.
fn documented(document: &str, heading: &str) -> Vec<String> {
    let section = document.split(&format!("\n{heading}\n")).nth(1).unwrap();
    let level = format!("\n{} ", heading.split(' ').next().unwrap());
    let section = section.split(&level).next().unwrap();
    let cells = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    cells.map(|(code, _)| code.to_string()).collect()
}

fn assert_same(heading: &str, documented: Vec<String>, known: &BTreeSet<String>) {
    let listed: BTreeSet<_> = documented.iter().cloned().collect();
    let missing: Vec<_> = known.difference(&listed).collect();
    let obsolete: Vec<_> = listed.difference(known).collect();
    assert!(missing.is_empty(), "docs/operations.md, {heading}, lacks {missing:?}");
    assert!(obsolete.is_empty(), "docs/operations.md, {heading}, has {obsolete:?}");
    assert_eq!(documented.len(), listed.len(), "docs/operations.md, {heading}, has one twice");
}

#[test]
fn every_code_is_documented_once_and_none_that_is_not() {
    let document = read("docs/operations.md");
    let libraries = codes_of_libraries();
    assert_same("codes", documented(&document, "## Codes"), &libraries);
    let own = codes_of_the_node().difference(&libraries).cloned().collect();
    let heading = "## Codes of `opening-node`";
    assert_same(heading, documented(&document, heading), &own);
    let heading = "## What a signer refuses";
    assert_same(heading, documented(&document, heading), &tags());
}

#[test]
fn every_limit_and_deadline_is_documented() {
    let document = read("docs/operations.md");
    for (path, structure) in [
        ("crates/opening-peer/src/openings/limits.rs", "pub struct Capacity {"),
        ("crates/opening-peer/src/openings/limits.rs", "pub struct Deadlines {"),
        ("crates/opening-core/src/limits.rs", "pub struct Limits {"),
    ] {
        let source = read(path);
        let body = source.split(structure).nth(1).unwrap().split("\n}").next().unwrap();
        let fields: Vec<_> = body
            .lines()
            .filter_map(|line| line.trim().strip_prefix("pub ")?.split_once(':'))
            .map(|(field, _)| field)
            .collect();
        assert!(fields.len() > 4, "{structure}");
        for field in fields {
            assert!(document.contains(&format!("`{field}`")), "{structure} {field}");
        }
    }
}

/// What `--help` promises is what the sources know.
#[test]
fn help_tells_every_command_and_every_event() {
    let help = Command::new(env!("CARGO_BIN_EXE_opening-node")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let words: BTreeSet<_> = help.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    let commands = read("examples/src/control/command.rs");
    let arms = bodies(&commands, "fn command").flat_map(|body| body.lines());
    let commands: Vec<_> = arms
        .filter_map(|line| line.trim().strip_prefix('"')?.split_once("\" =>"))
        .map(|(name, _)| name.to_string())
        .collect();
    assert!(commands.len() > 12, "{commands:?}");
    let mut events = vec![];
    for file in ["report.rs", "node.rs", "options.rs"] {
        let source = read(Path::new("examples/src/control").join(file));
        for before in ["\"event\": \"", "_line(\"", "[\"event\"] = \""] {
            let found = source.match_indices(before);
            let name = |at: usize| source[at..].split('"').next().unwrap().to_string();
            events.extend(found.map(|(at, before)| name(at + before.len())));
        }
    }
    assert!(events.len() > 15, "{events:?}");
    for word in commands.iter().chain(&events) {
        assert!(words.contains(&**word), "--help does not tell {word}");
    }
}

/// A link to a file that is gone is worse than none.
#[test]
fn links_between_the_documents_lead_somewhere() {
    let mut documents = vec!["README.md".into(), "CONTRIBUTING.md".into()];
    for entry in std::fs::read_dir(root().join("docs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "md") {
            documents.push(path);
        }
    }
    for document in documents {
        let text = read(&document);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            let path = root().join(&document).parent().unwrap().join(file);
            assert!(path.exists(), "{}: {target}", document.display());
        }
    }
}
