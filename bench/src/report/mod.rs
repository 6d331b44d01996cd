//! One run's figures, as a document to read and as JSON: the same tables in both.

mod made;
mod table;

use std::fmt;

use serde_json::{Value, json};

pub use self::made::Made;
pub use self::table::{Cell, Table};

/// How long to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Less than a minute in all: every figure, from fewer rounds.
    Quick,
    /// For `docs/performance.md`.
    Full,
}

impl Effort {
    /// The one or the other.
    pub fn of<T>(self, quick: T, full: T) -> T {
        match self {
            Self::Quick => quick,
            Self::Full => full,
        }
    }
}

/// A ratio of two figures of the same run, or a count, with what it is not to exceed or to reach.
pub struct Ratio {
    /// Its name in the JSON.
    pub name: &'static str,
    /// What it says.
    pub says: &'static str,
    /// As measured.
    pub value: f64,
    /// What it should be.
    pub goal: Goal,
}

/// What a ratio should be.
#[derive(Clone, Copy)]
pub enum Goal {
    /// This or less.
    AtMost(f64),
    /// This or more.
    AtLeast(f64),
}

impl Goal {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(most) => write!(f, "at most {most}"),
            Self::AtLeast(least) => write!(f, "at least {least}"),
        }
    }
}

/// What one might look for in the figures, and not find.
const NOT_MEASURED: [&str; 5] = [
    "`openingd`, which is a process for each opening within lightningd",
    "a network, another machine's disk, more than two threads",
    "what comes after `funding_signed`: `channel_ready`, and any payment",
    "LDK's writes of its `ChannelManager`, and its memory",
    "signers of others behind their wires; TLS",
];

/// All of a run.
pub struct Report {
    /// When and on what.
    pub made: Made,
    /// How long was measured.
    pub effort: Effort,
    /// What is held against a goal.
    pub ratios: Vec<Ratio>,
    /// All figures.
    pub tables: Vec<Table>,
}

impl Report {
    /// With an object `ratios` that has each by its name.
    pub fn to_json(&self) -> Value {
        let ratios = self.ratios.iter().map(|ratio| (ratio.name.into(), json!(ratio.value)));
        json!({
            "made": self.made.to_json(),
            "quick": self.effort == Effort::Quick,
            "ratios": Value::Object(ratios.collect()),
            "not_measured": NOT_MEASURED,
            "tables": self.tables.iter().map(Table::to_json).collect::<Vec<_>>(),
        })
    }

    /// What the README says of it: when and on what, the ratios, and this table without its notes.
    pub fn quote(&self, id: &str) -> String {
        let tables = self.tables.iter().filter(|table| table.id == id);
        let tables: String = tables.map(|table| format!("\n{}", table.cells())).collect();
        let (made, ratios) = (&self.made, self.summary());
        let not = NOT_MEASURED.join("; ");
        format!("Measured {made}\n\n{}{tables}\nNot measured: {not}.\n", ratios.cells())
    }

    fn summary(&self) -> Table {
        let rows = self.ratios.iter().map(|ratio| {
            let met = if ratio.goal.is_met(ratio.value) { "yes" } else { "no" };
            let value = Cell::figure(ratio.value, if ratio.value < 100.0 { 2 } else { 0 });
            vec![ratio.says.into(), value, ratio.goal.to_string().into(), met.into()]
        });
        Table {
            id: "ratios",
            title: "Against the goals",
            columns: vec!["", "measured", "goal", "met"],
            rows: rows.collect(),
            notes: Vec::new(),
        }
    }
}

/// As Markdown, which reads well on a terminal too.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# What an opening costs\n")?;
        writeln!(f, "Measured by `cargo xtask bench` {}\n", self.made)?;
        writeln!(
            f,
            "All figures are of this one run.  Only ratios of figures of one run say something \
             about another machine."
        )?;
        for table in std::iter::once(&self.summary()).chain(&self.tables) {
            write!(f, "\n{table}")?;
        }
        writeln!(f, "\n## What was not measured\n")?;
        NOT_MEASURED.iter().try_for_each(|it| writeln!(f, "* {it}"))
    }
}
