//! Which rule, or refusal, of `opening-core` cites which requirement.
//!
//! They are data, and their citations are string literals in their sources; they are
//! read as such, because this program runs also while the crate does not compile.

use std::collections::BTreeMap;

use super::citation::Place;
use super::requirement::Requirements;

/// Citations by rules, and those that name no requirement.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    pub(crate) by_id: BTreeMap<String, Vec<Place>>,
    pub(crate) unknown: Vec<(Place, String)>,
}

impl Rules {
    /// Reads one source file with rules, up to its tests.
    pub(crate) fn read(&mut self, file: &str, source: &str, requirements: &Requirements) {
        let code = source.lines().take_while(|line| line.trim() != "#[cfg(test)]");
        for (index, line) in code.enumerate() {
            // Every second piece between quotes is a literal, comments aside.
            let literals =
                line.split("//").next().unwrap_or_default().split('"').skip(1).step_by(2);
            for id in literals.filter(|literal| looks_like_id(literal)) {
                let place = Place { file: file.to_owned(), line: index + 1 };
                if requirements.contains(id) {
                    self.by_id.entry(id.to_owned()).or_default().push(place);
                } else {
                    self.unknown.push((place, id.to_owned()));
                }
            }
        }
    }
}

/// `B<bolt>-<topic>-…-<number>`, whether or not there is such a requirement.
fn looks_like_id(text: &str) -> bool {
    let mut parts = text.split('-');
    let bolt = parts.next().and_then(|part| part.strip_prefix('B'));
    let number = parts.next_back();
    [bolt, number].into_iter().all(|part| {
        part.is_some_and(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
    })
}

#[cfg(test)]
mod tests {
    use super::super::requirement::tests::requirements;
    use super::*;

    #[test]
    fn literals_that_are_ids_are_citations() {
        let source = [
            "/// \"B2-A-01\" in a comment",
            "Rule { name: \"dust\", cites: &[\"B2-A-01\", \"B2-B-R-02\"], check }, // \"B2-A-01\"",
            "Rule { name: \"R1\", cites: &[\"openingd:R1\", \"B2-A-77\"], check },",
            "#[cfg(test)]",
            "\"B2-A-01\"",
        ];
        let mut rules = Rules::default();
        let known = requirements(&[("B2-A-01", "MUST"), ("B2-B-R-02", "MAY")]);
        rules.read("rules.rs", &source.join("\n"), &known);

        let at = |line| Place { file: "rules.rs".to_owned(), line };
        let cited: Vec<_> = rules.by_id.into_iter().collect();
        let expected = ["B2-A-01", "B2-B-R-02"].map(|id| (id.to_owned(), vec![at(2)]));
        assert_eq!(cited, expected);
        assert_eq!(rules.unknown, [(at(3), "B2-A-77".to_owned())]);
    }
}
