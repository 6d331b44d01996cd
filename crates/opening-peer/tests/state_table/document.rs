//! `docs/state-message-table.md`, which says what the table says.

use std::fmt::Write;

use crate::table::{FUNDEE, FUNDER, Outcome, State, Table};

impl State {
    fn heading(self) -> &'static str {
        match self {
            State::Nothing => "nothing pending",
            State::AcceptChannel => "offered",
            State::Funding => "accepted",
            State::Signature => "signing",
            State::FundingSigned => "created",
            State::Validation => "signed",
            State::Decision => "deciding",
            State::FundingCreated => "accepted",
            State::Commitments => "created",
            State::Save => "saving",
            State::Depth => "opened",
            State::Ready => "ready",
        }
    }
}

const INTRODUCTION: &str = "\
# What follows each message in each state

The table that `crates/opening-peer/tests/state_table` plays against a node, cell by cell; a test holds this file equal to it.

A message about an opening names it as a correct peer would at that point: by its `temporary_channel_id` up to `funding_created`, by its `channel_id` from then on; `open_channel`,
`accept_channel` and `funding_created` always by the `temporary_channel_id`. Whatever follows, after it nothing is pending that should not be: the id is free for another opening, and, unless
the table says \"closed\", the connection takes one.

";

/// The whole of `docs/state-message-table.md`.
fn document() -> String {
    let mut text = INTRODUCTION.to_owned();
    text.push_str("| cell | meaning |\n|---|---|\n");
    for outcome in Outcome::ALL {
        let (cell, meaning) = outcome.text();
        writeln!(text, "| {cell} | {meaning} |").unwrap();
    }
    text.push_str(
        "\n## As funder\n\n*offered*: `open_channel` is out. *accepted*: the wallet builds the \
         funding transaction. *signing*: our signer signs the peer's commitment. *created*: \
         `funding_created` is out.\n*signed*: `funding_signed` is here and its signature is \
         checked. *saving*: the store is at work. *opened*: saved, waiting for depth. *ready*: \
         both `channel_ready` have passed.\n\n",
    );
    render(&mut text, FUNDER);
    text.push_str(
        "\n## As fundee\n\n*deciding*: policy and signer are at work on the offer. *accepted*: \
         `accept_channel` is out. *created*: `funding_created` is here, our signer is at work on \
         both commitments.\n\n",
    );
    render(&mut text, FUNDEE);
    text
}

fn render<const COLUMNS: usize>(text: &mut String, (states, rows): Table<COLUMNS>) {
    let headings: Vec<_> = states.into_iter().map(State::heading).collect();
    writeln!(text, "| the peer sends | {} |", headings.join(" | ")).unwrap();
    writeln!(text, "|---|{}", "---|".repeat(COLUMNS)).unwrap();
    for (message, outcomes) in rows {
        let cells: Vec<_> = outcomes.into_iter().map(|outcome| outcome.text().0).collect();
        writeln!(text, "| {} | {} |", message.name(), cells.join(" | ")).unwrap();
    }
}

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/state-message-table.md");

#[test]
fn the_document_says_what_the_table_says() {
    let written = std::fs::read_to_string(DOCUMENT).unwrap();
    assert!(written == document(), "run the ignored test that writes {DOCUMENT}");
}

/// `cargo test -p opening-peer --test state_table -- --ignored`
#[test]
#[ignore = "writes docs/state-message-table.md"]
fn write_the_document() {
    std::fs::write(DOCUMENT, document()).unwrap();
}
