//! The table of requirements, `docs/spec/requirements-v1.tsv`.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// How strongly the BOLT asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Level {
    #[serde(rename = "MUST")]
    Must,
    #[serde(rename = "MUST NOT")]
    MustNot,
    #[serde(rename = "SHOULD")]
    Should,
    #[serde(rename = "SHOULD NOT")]
    ShouldNot,
    #[serde(rename = "MAY")]
    May,
    /// A format, formula or plain statement that must hold for two programs to understand another.
    #[serde(rename = "DEF")]
    Definition,
}

impl Level {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "MUST" => Self::Must,
            "MUST NOT" => Self::MustNot,
            "SHOULD" => Self::Should,
            "SHOULD NOT" => Self::ShouldNot,
            "MAY" => Self::May,
            "DEF" => Self::Definition,
            _ => return None,
        })
    }

    /// MUST and MUST NOT: what a complete section may not lack.
    pub(crate) fn is_absolute(self) -> bool {
        matches!(self, Self::Must | Self::MustNot)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Must => "MUST",
            Self::MustNot => "MUST NOT",
            Self::Should => "SHOULD",
            Self::ShouldNot => "SHOULD NOT",
            Self::May => "MAY",
            Self::Definition => "DEF",
        })
    }
}

/// One row of the table.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Requirement {
    pub(crate) id: String,
    pub(crate) level: Level,
    pub(crate) requirement: String,
}

/// The section that an ID belongs to: `B2-OPEN` of `B2-OPEN-R-16`.
pub(crate) fn section(id: &str) -> &str {
    id.match_indices('-').nth(1).map_or(id, |(end, _)| &id[..end])
}

/// All rows, in the table's order, which is the specification's.
#[derive(Debug)]
pub(crate) struct Requirements {
    rows: Vec<Requirement>,
    index: BTreeMap<String, usize>,
}

impl Requirements {
    /// Reads the table; the error says which line is wrong and how.
    pub(crate) fn parse(table: &str) -> Result<Self, String> {
        let mut lines = table.lines().enumerate();
        let heading = lines.next().map_or("", |(_, line)| line);
        if heading != "id\tlevel\twho\trequirement\ttest\tsource" {
            return Err("line 1: not the heading of a table of requirements".to_owned());
        }
        let mut parsed = Self { rows: Vec::new(), index: BTreeMap::new() };
        for (number, line) in lines.map(|(index, line)| (index + 1, line)) {
            let fields: Vec<_> = line.split('\t').collect();
            let [id, level, _who, requirement, _test, _source] = fields[..] else {
                return Err(format!("line {number}: {} fields instead of 6", fields.len()));
            };
            let level = Level::parse(level)
                .ok_or_else(|| format!("line {number}: no such level: {level}"))?;
            if parsed.index.insert(id.to_owned(), parsed.rows.len()).is_some() {
                return Err(format!("line {number}: {id} is there twice"));
            }
            let (id, requirement) = (id.to_owned(), requirement.to_owned());
            parsed.rows.push(Requirement { id, level, requirement });
        }
        Ok(parsed)
    }

    /// Whether there is such a requirement.
    pub(crate) fn contains(&self, id: &str) -> bool {
        self.index.contains_key(id)
    }

    /// Every requirement, in the specification's order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Requirement> {
        self.rows.iter()
    }

    /// The sections, each once, in the specification's order.
    pub(crate) fn sections(&self) -> Vec<&str> {
        let mut sections = Vec::new();
        for row in &self.rows {
            let section = section(&row.id);
            if !sections.contains(&section) {
                sections.push(section);
            }
        }
        sections
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const HEADING: &str = "id\tlevel\twho\trequirement\ttest\tsource";

    /// A table of requirements with these IDs and levels.
    pub(crate) fn requirements(rows: &[(&str, &str)]) -> Requirements {
        let mut table = HEADING.to_owned();
        for (id, level) in rows {
            table.push_str(&format!("\n{id}\t{level}\tboth\tDo {id}.\tTry it.\tBOLT"));
        }
        Requirements::parse(&table).expect("well-formed rows")
    }

    #[test]
    fn rows_keep_their_order_and_fall_into_sections() {
        let table = requirements(&[
            ("B2-OPEN-R-20", "MUST"),
            ("B1-CONN-01", "MAY"),
            ("B2-OPEN-R-01", "MUST NOT"),
        ]);
        let ids: Vec<_> = table.iter().map(|row| row.id.as_str()).collect();
        assert_eq!(ids, ["B2-OPEN-R-20", "B1-CONN-01", "B2-OPEN-R-01"]);
        assert_eq!(table.sections(), ["B2-OPEN", "B1-CONN"]);
        let absolute: Vec<_> = table.iter().map(|row| row.level.is_absolute()).collect();
        assert_eq!(absolute, [true, false, true]);
    }

    #[test]
    fn a_table_that_is_not_one_is_refused_with_its_line() {
        for (table, reason) in [
            ("id\tlevel".to_owned(), "line 1: not the heading of a table of requirements"),
            (format!("{HEADING}\nA-B-01\tMUST"), "line 2: 2 fields instead of 6"),
            (format!("{HEADING}\nA-B-01\tmust\t\t\t\t"), "line 2: no such level: must"),
            (
                format!("{HEADING}\nA-B-01\tMAY\t\t\t\t\nA-B-01\tMAY\t\t\t\t"),
                "line 3: A-B-01 is there twice",
            ),
        ] {
            assert_eq!(Requirements::parse(&table).expect_err(reason), reason);
        }
    }
}
