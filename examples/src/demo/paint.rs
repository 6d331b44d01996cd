//! What the terminal shows.  Colours only where there is one.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use bitcoin::Amount;
use opening_core::{ChannelParameters, Role};
use opening_peer::negotiation::ready::Ready;
use opening_peer::{Event, Stage};

use crate::our_node::Seen;

/// Writes to stdout.
pub struct Painter {
    colours: bool,
    start: Instant,
}

impl Default for Painter {
    fn default() -> Self {
        Self { colours: std::io::stdout().is_terminal(), start: Instant::now() }
    }
}

const BOLD: &str = "1";
const DIM: &str = "2";
const GREEN: &str = "32";
const YELLOW: &str = "33";

impl Painter {
    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.into() }
    }

    /// A heading.
    pub fn title(&self, text: &str) {
        println!("\n{}", self.paint(BOLD, text));
    }

    /// A line of its own.
    pub fn note(&self, text: &str) {
        println!("{:>10}  {text}", "");
    }

    /// A claim that was checked and holds.
    pub fn holds(&self, text: &str) {
        println!("{:>10}  {} {text}", "", self.paint(GREEN, "checked:"));
    }

    /// The end, all claims checked.
    pub fn done(&self, text: &str) {
        println!("\n{}", self.paint(GREEN, text));
    }

    /// What happened in a scene, with the time since it began and since the line before.
    pub fn timeline(&self, begin: Instant, seen: &[Seen]) {
        let mut before = begin;
        for Seen { at, event, .. } in seen {
            let Some(line) = self.line(event) else { continue };
            let since = milliseconds(at.duration_since(begin));
            let step = milliseconds(at.duration_since(before));
            println!("{since:>10}  {} {line}", self.paint(DIM, &format!("+{step:<9}")));
            before = *at;
        }
    }

    fn line(&self, event: &Event) -> Option<String> {
        Some(match event {
            // Said by what follows.
            Event::Opened(_) | Event::Connected => return None,
            Event::Progress { role, stage, .. } => {
                format!("{:6}  {stage}", role.as_str())
            }
            Event::Ready(ready) => {
                let role = ready.opened.role().as_str();
                format!("{role:6}  {}", self.paint(GREEN, &Stage::Ready.to_string()))
            }
            Event::Failed(failed) => {
                format!(
                    "{:6}  {}",
                    failed.role.as_str(),
                    self.paint(YELLOW, &failed.failure.to_string())
                )
            }
            other => format!("{:6}  {other}", ""),
        })
    }

    /// How long all of it took.
    pub fn elapsed(&self) -> String {
        milliseconds(self.start.elapsed())
    }

    /// Everything about one channel.
    pub fn channel(&self, number: usize, ready: &Ready) {
        let opened = &ready.opened;
        let ChannelParameters { local, remote, feerate_per_kw, channel_type, .. } =
            &opened.parameters;
        let parameters = &opened.parameters;
        let direction = match opened.role() {
            Role::Funder => "we fund, LDK is funded",
            Role::Fundee => "LDK funds, we are funded",
        };
        self.title(&format!("Channel {number}: {direction}"));
        let row = |name: &str, value: String| {
            println!("  {}  {value}", self.paint(DIM, &format!("{name:22}")))
        };
        row("channel_id", opened.channel_id.to_string());
        row("funding outpoint", parameters.funding_outpoint.to_string());
        let scid = ready.short_channel_id.map_or("none".into(), |id| id.to_string());
        row("short channel id", scid);
        row("channel type", channel_type.to_string());
        row("capacity", satoshis(parameters.funding_satoshis));
        row("pushed", parameters.push_msat.to_string());
        row("feerate", feerate_per_kw.to_string());
        row("reserve that we keep", satoshis(remote.config.channel_reserve_satoshis));
        row("reserve that LDK keeps", satoshis(local.config.channel_reserve_satoshis));
        row("our commitment 0", opened.local_commitment.transaction.compute_txid().to_string());
        row("LDK's commitment 0", opened.remote_commitment.transaction.compute_txid().to_string());
        row("LDK's signature", "checked by us; with ours, by Bitcoin's consensus code".into());
        row("our signature", "checked by LDK, who went on".into());
        row("funding output", "checked by us in the mined transaction; LDK agrees".into());
    }
}

fn satoshis(amount: Amount) -> String {
    format!("{} sat", amount.to_sat())
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}
