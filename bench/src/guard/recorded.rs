//! What openings were recorded to cost.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::counts::{Figure, Kind};
use crate::report::Made;

/// Below the root of the repository.
pub(super) const FILE: &str = "bench/guard.json";

/// Recorded figures, and by what they were compiled.
pub(super) struct Recorded {
    /// Only what the same compilers made for the same processors has the same instructions.
    compiled_by: String,
    figures: BTreeMap<String, f64>,
}

/// What is to be said of a figure.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    Skipped,
    AsRecorded,
    Better { recorded: f64 },
    Worse { recorded: f64, margin: f64 },
    OtherCompiler,
}

impl Verdict {
    pub(super) fn is_worse(&self) -> bool {
        matches!(self, Self::Worse { .. })
    }

    fn of(measured: f64, recorded: f64, kind: Kind) -> Self {
        if measured > recorded * (1.0 + kind.margin()) {
            Self::Worse { recorded, margin: kind.margin() }
        } else if measured < recorded * (1.0 - kind.margin()) {
            Self::Better { recorded }
        } else {
            Self::AsRecorded
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Skipped => f.write_str("not compared"),
            Self::AsRecorded => f.write_str("as recorded"),
            Self::Better { recorded } => write!(
                f,
                "better than the {recorded:.1} recorded; `cargo xtask guard --record` keeps it so"
            ),
            Self::Worse { recorded, margin } => write!(
                f,
                "WORSE than the {recorded:.1} recorded, by more than {:.1} %",
                margin * 100.0
            ),
            Self::OtherCompiler => f.write_str("not compared, recorded with other compilers"),
        }
    }
}

impl Recorded {
    /// As measured now; what was not measured stays as it was recorded.
    pub(super) fn now(measured: Vec<Figure>) -> Self {
        let before = Self::read().map(|recorded| recorded.figures).unwrap_or_default();
        let figure = |Figure { name, value, .. }: Figure| {
            let value = value.ok().or_else(|| before.get(&name).copied())?;
            Some((name, value))
        };
        let figures = measured.into_iter().filter_map(figure).collect();
        Self { compiled_by: Made::compilers(), figures }
    }

    pub(super) fn read() -> io::Result<Self> {
        let value: Value = serde_json::from_slice(&fs::read(path())?)?;
        let figures = value["figures"].as_object().into_iter().flatten();
        let figures = figures.filter_map(|(name, value)| Some((name.clone(), value.as_f64()?)));
        let compiled_by = value["compiled_by"].as_str().unwrap_or_default().to_owned();
        Ok(Self { compiled_by, figures: figures.collect() })
    }

    pub(super) fn write(&self) -> io::Result<()> {
        let Self { compiled_by, figures } = self;
        let value = json!({ "compiled_by": compiled_by, "figures": figures });
        fs::write(path(), format!("{value:#}\n"))
    }

    /// Names of figures that are recorded or measured, and not both.
    pub(super) fn unmatched(&self, measured: &[Figure]) -> Vec<String> {
        let is_measured = |name: &String| measured.iter().any(|figure| figure.name == **name);
        let recorded = self.figures.keys().filter(|name| !is_measured(name));
        let measured = measured.iter().filter(|figure| figure.value.is_ok());
        let measured = measured.map(|figure| &figure.name);
        let measured = measured.filter(|name| !self.figures.contains_key(*name));
        recorded.chain(measured).cloned().collect()
    }

    pub(super) fn judge(&self, figure: &Figure) -> Verdict {
        let (Ok(measured), Some(&recorded)) = (figure.value, self.figures.get(&figure.name)) else {
            return Verdict::Skipped;
        };
        if figure.kind == Kind::Instructions && self.compiled_by != Made::compilers() {
            return Verdict::OtherCompiler;
        }
        Verdict::of(measured, recorded, figure.kind)
    }
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(FILE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(value: Result<f64, &'static str>, kind: Kind) -> Figure {
        Figure { name: "it".into(), kind, value }
    }

    fn recorded(compiled_by: &str) -> Recorded {
        Recorded { compiled_by: compiled_by.into(), figures: [("it".into(), 1000.0)].into() }
    }

    #[test]
    fn a_figure_may_be_worse_by_its_margin_and_no_more() {
        let recorded = recorded(&Made::compilers());
        let judge = |value, kind| recorded.judge(&figure(Ok(value), kind));
        for (kind, most, least) in [
            (Kind::Allocations, 1002.0, 998.0),
            (Kind::Bytes, 1010.0, 990.0),
            (Kind::Instructions, 1020.0, 980.0),
        ] {
            assert_eq!(judge(most - 0.1, kind), Verdict::AsRecorded);
            let margin = kind.margin();
            assert_eq!(judge(most + 0.1, kind), Verdict::Worse { recorded: 1000.0, margin });
            assert_eq!(judge(least + 0.1, kind), Verdict::AsRecorded);
            assert_eq!(judge(least - 0.1, kind), Verdict::Better { recorded: 1000.0 });
        }
    }

    #[test]
    fn instructions_of_other_compilers_are_not_compared() {
        let of = |recorded: Recorded| recorded.judge(&figure(Ok(2000.0), Kind::Instructions));
        assert_eq!(of(recorded("another")), Verdict::OtherCompiler);
        assert!(of(recorded(&Made::compilers())).is_worse());
        let skipped = figure(Err("there is no valgrind"), Kind::Instructions);
        assert_eq!(recorded(&Made::compilers()).judge(&skipped), Verdict::Skipped);
    }

    #[test]
    fn a_figure_without_a_record_and_a_record_without_a_figure_are_told() {
        let other = Figure { name: "other".into(), kind: Kind::Bytes, value: Ok(1.0) };
        assert_eq!(recorded("").unmatched(&[other]), ["it", "other"]);
        assert!(recorded("").unmatched(&[figure(Ok(1.0), Kind::Bytes)]).is_empty());
        assert!(recorded("").unmatched(&[figure(Err("none"), Kind::Bytes)]).is_empty());
    }
}
