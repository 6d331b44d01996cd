//! A table of figures.

use std::fmt;

use serde_json::{Value, json};

/// One cell.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// A word or more.
    Text(String),
    /// Shown with so many decimals; the JSON has all of it.
    Figure {
        /// In the column's unit.
        value: f64,
        /// Of these so many are shown.
        decimals: usize,
    },
}

impl Cell {
    /// A figure.
    pub fn figure(value: f64, decimals: usize) -> Self {
        Self::Figure { value, decimals }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Figure { value, decimals } => f.write_str(&grouped(*value, *decimals)),
        }
    }
}

/// With a comma before each three digits of the whole part.
fn grouped(value: f64, decimals: usize) -> String {
    let plain = format!("{value:.decimals$}");
    let (whole, fraction) = plain.split_at(plain.find('.').unwrap_or(plain.len()));
    let (sign, digits) = whole.split_at(usize::from(whole.starts_with('-')));
    let mut text = sign.to_owned();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 && digit.is_ascii_digit() {
            text.push(',');
        }
        text.push(digit);
    }
    text + fraction
}

/// Figures that belong together.
pub struct Table {
    /// Its name in the JSON.
    pub id: &'static str,
    /// Its heading.
    pub title: &'static str,
    /// Each with its unit.
    pub columns: Vec<&'static str>,
    /// A cell for each column.
    pub rows: Vec<Vec<Cell>>,
    /// What the figures hold and what they do not, a sentence or more each.
    pub notes: Vec<String>,
}

impl Table {
    /// An object with all of it.
    pub fn to_json(&self) -> Value {
        let row = |row: &Vec<Cell>| {
            let cell = |cell: &Cell| match cell {
                Cell::Text(text) => json!(text),
                Cell::Figure { value, .. } => json!(value),
            };
            row.iter().map(cell).collect::<Vec<_>>()
        };
        json!({
            "id": self.id,
            "title": self.title,
            "columns": self.columns,
            "rows": self.rows.iter().map(row).collect::<Vec<_>>(),
            "notes": self.notes,
        })
    }
}

/// A table without its title and its notes.
pub struct Cells<'a>(&'a Table);

impl Table {
    /// The rows alone.
    pub fn cells(&self) -> Cells<'_> {
        Cells(self)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "## {}\n\n{}", self.title, self.cells())?;
        self.notes.iter().try_for_each(|note| writeln!(f, "\n{note}"))
    }
}

impl fmt::Display for Cells<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Table { columns, rows, .. } = self.0;
        let shown: Vec<Vec<String>> =
            rows.iter().map(|row| row.iter().map(Cell::to_string).collect()).collect();
        let width = |column: usize| {
            let cells = shown.iter().filter_map(|row| row.get(column));
            let longest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
            longest.max(columns[column].chars().count()).max(3)
        };
        let widths: Vec<usize> = (0..columns.len()).map(width).collect();
        // A column of figures is aligned at its end.
        let is_of_figures = |column: usize| {
            rows.iter().any(|row| matches!(row.get(column), Some(Cell::Figure { .. })))
        };
        let line = |f: &mut fmt::Formatter<'_>, cells: &mut dyn Iterator<Item = &str>| {
            for (column, (cell, &width)) in cells.zip(&widths).enumerate() {
                if is_of_figures(column) {
                    write!(f, "| {cell:>width$} ")?;
                } else {
                    write!(f, "| {cell:width$} ")?;
                }
            }
            writeln!(f, "|")
        };
        line(f, &mut columns.iter().copied())?;
        for (column, &width) in widths.iter().enumerate() {
            let dashes = "-".repeat(width);
            let end = if is_of_figures(column) { ":" } else { "-" };
            write!(f, "|-{dashes}{end}")?;
        }
        writeln!(f, "|")?;
        for row in &shown {
            line(f, &mut row.iter().map(String::as_str))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_grouped_by_thousands() {
        let shown = |value, decimals| Cell::figure(value, decimals).to_string();
        assert_eq!(shown(999.4, 0), "999");
        assert_eq!(shown(1_000.0, 0), "1,000");
        assert_eq!(shown(1_234_567.891, 2), "1,234,567.89");
        assert_eq!(shown(-12_345.0, 1), "-12,345.0");
        assert_eq!(shown(f64::NAN, 1), "NaN");
    }

    #[test]
    fn a_table_is_markdown_with_figures_at_the_end_of_their_columns() {
        let table = Table {
            id: "t",
            title: "Times",
            columns: vec!["who", "us"],
            rows: vec![
                vec!["us".into(), Cell::figure(900.0, 0)],
                vec!["others".into(), Cell::figure(1_300.0, 0)],
            ],
            notes: vec!["One machine.".into()],
        };
        let expected = "\
## Times

| who    |    us |
|--------|------:|
| us     |   900 |
| others | 1,300 |

One machine.
";
        assert_eq!(table.to_string(), expected);
        assert_eq!(table.to_json()["rows"][1], json!(["others", 1300.0]));
    }
}
