//! The ledger as text.

use std::io::{self, Write};

use super::ledger::{Entry, Ledger, Section, Status};

/// Longest piece of a requirement's text in the list of missing ones.
const EXCERPT: usize = 90;

/// Writes the table of sections, the missing requirements, and where a minimum can rise.
pub(crate) fn write(ledger: &Ledger, out: &mut impl Write) -> io::Result<()> {
    write_sections(&ledger.sections, out)?;
    let missing = ledger.requirements.iter().filter(|entry| entry.status == Status::Missing);
    write_missing(&missing.collect::<Vec<_>>(), out)?;
    write_reached(&ledger.sections, out)
}

fn write_sections(sections: &[Section], out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "section   total  tested  held  waived  missing  minimum  MUSTs")?;
    let mut all = Section { section: "all".to_owned(), ..Section::default() };
    for section in sections {
        write_section(section, out)?;
        all.total += section.total;
        all.tested += section.tested;
        all.held += section.held;
        all.waived += section.waived;
        all.missing += section.missing;
        all.musts += section.musts;
        all.missing_musts.extend_from_slice(&section.missing_musts);
        all.minimum += section.minimum;
    }
    write_section(&all, out)
}

fn write_section(section: &Section, out: &mut impl Write) -> io::Result<()> {
    let Section { section: name, total, tested, held, waived, missing, minimum, .. } = section;
    let musts = match (section.musts, section.missing_musts.len()) {
        (0, _) => "-".to_owned(),
        (musts, 0) => format!("all {musts}"),
        (musts, missing) => format!("{} of {musts}", musts - missing),
    };
    let demand = if section.must_be_complete { "  (all demanded)" } else { "" };
    writeln!(
        out,
        "{name:<8} {total:>6} {tested:>7} {held:>5} {waived:>7} {missing:>8} {minimum:>8}  {musts}{demand}"
    )
}

fn write_missing(missing: &[&Entry], out: &mut impl Write) -> io::Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nmissing:")?;
    for entry in missing {
        let row = &entry.requirement;
        let text = excerpt(&row.requirement);
        writeln!(out, "  {:<13} {:<10} {text}", row.id, row.level)?;
    }
    Ok(())
}

/// The text, cut after a word if it is long.
fn excerpt(text: &str) -> String {
    if text.chars().count() <= EXCERPT {
        return text.to_owned();
    }
    let cut: String = text.chars().take(EXCERPT).collect();
    let words = cut.rsplit_once(' ').map_or(cut.as_str(), |(words, _)| words);
    format!("{words} …")
}

fn write_reached(sections: &[Section], out: &mut impl Write) -> io::Result<()> {
    let above: Vec<_> =
        sections.iter().filter(|section| section.covered() > section.minimum).collect();
    if above.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nabove the minimum; `cargo xtask spec --raise` keeps what was reached:")?;
    for section in above {
        writeln!(out, "  {} = {}", section.section, section.covered())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_after_a_word() {
        assert_eq!(excerpt("short"), "short");
        let cut = excerpt(&"öäü ".repeat(40));
        assert!(cut.ends_with("öäü …"), "{cut}");
        assert!(cut.chars().count() <= EXCERPT + 2, "{cut}");
    }

    #[test]
    fn a_section_says_how_many_of_its_musts_it_has() {
        let section = Section {
            section: "B2-FC".to_owned(),
            total: 9,
            tested: 6,
            held: 1,
            missing: 2,
            musts: 6,
            missing_musts: vec!["B2-FC-S-02".to_owned()],
            minimum: 5,
            must_be_complete: true,
            ..Section::default()
        };
        let mut text = Vec::new();
        write_sections(&[section], &mut text).expect("a vector takes everything");
        let text = String::from_utf8(text).expect("text");
        let row = text.lines().nth(1).expect("a row below the heading");
        assert_eq!(
            row.split_whitespace().collect::<Vec<_>>().join(" "),
            "B2-FC 9 6 1 0 2 5 5 of 6 (all demanded)"
        );
    }
}
