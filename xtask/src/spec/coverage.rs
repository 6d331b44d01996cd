//! What people decided about requirements: `docs/spec/coverage.toml`.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

/// The file `coverage.toml`; its own comments explain each part to whoever edits it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Coverage {
    /// Sections in which no MUST or MUST NOT may be missing; `B3-*` names all that begin so.
    pub(crate) complete: Vec<String>,
    /// Per section, how many requirements are tested or held at least.
    pub(crate) minimum: BTreeMap<String, usize>,
    /// Requirements that a dependency's type fulfils.
    pub(crate) held: BTreeMap<String, Held>,
    /// Requirements that do not apply here, and why.
    pub(crate) waivers: BTreeMap<String, String>,
}

/// A requirement that a dependency's type fulfils, which a test of ours goes through.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Held {
    /// The dependency and its type.
    pub(crate) by: String,
    /// The test, as `path/of/file.rs::name`.
    pub(crate) test: String,
}

/// Whether `pattern`, a section or a beginning followed by `*`, covers `section`.
pub(crate) fn covers(pattern: &str, section: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => section.starts_with(beginning),
        None => pattern == section,
    }
}

/// The text of `coverage.toml` with every minimum lifted to `reached`, never lowered; all else,
/// comments included, stays as it is.
pub(crate) fn raise_minimums(text: &str, reached: &HashMap<&str, usize>) -> String {
    let mut raised = String::with_capacity(text.len());
    let mut table = "";
    for line in text.split_inclusive('\n') {
        if line.starts_with('[') {
            table = line.trim();
        }
        match raised_line(line, reached) {
            Some(higher) if table == "[minimum]" => raised.push_str(&higher),
            _ => raised.push_str(line),
        }
    }
    raised
}

/// `line` with the number that was reached, if that is more than it has.
fn raised_line(line: &str, reached: &HashMap<&str, usize>) -> Option<String> {
    let (section, minimum) = line.split_once(" = ")?;
    let minimum: usize = minimum.trim_end().parse().ok()?;
    let reached = *reached.get(section)?;
    (reached > minimum).then(|| format!("{section} = {reached}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_cover_a_section_or_all_with_a_beginning() {
        assert!(covers("B3-*", "B3-CTX"));
        assert!(covers("B2-FC", "B2-FC"));
        assert!(!covers("B3-*", "B2-CTX"));
        assert!(!covers("B2-F", "B2-FC"));
    }

    #[test]
    fn minimums_rise_and_never_fall_and_nothing_else_changes() {
        let text = "# first\ncomplete = []\n\n[minimum]\n# floors\nA-B = 3\nA-C = 3\nA-D = 3\n\n\
                    [waivers]\nA-B = 3\n";
        let reached = HashMap::from([("A-B", 5), ("A-C", 2), ("A-D", 3)]);
        assert_eq!(raise_minimums(text, &reached), text.replacen("A-B = 3", "A-B = 5", 1));
    }

    #[test]
    fn a_misspelt_part_is_refused() {
        assert!(toml::from_str::<Coverage>("complete = []\n[minimums]\n").is_err());
    }
}
