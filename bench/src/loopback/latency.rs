//! How long one opening takes when nothing else is done.

use tokio::runtime::Handle;

use super::Kept;
use super::home::Home;
use super::ldk::Ldk;
use super::ours::Ours;
use super::sample::{Sample, Samples};
use crate::node::Signer;
use crate::report::{Cell, Effort, Goal, Ratio, Table};

/// Before those that count: for the caches, and each node reserves names for its first channels.
const WARM_UP: usize = 4;
/// Enough that the next reservation of names, one in 64 openings, is among those that count.
const OPENS_IN_A_ROUND: usize = 64;

/// Who opens with its like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Ours(Signer),
    Ldk,
}

impl Who {
    const ALL: [Self; 3] = [Self::Ours(Signer::Blind), Self::Ours(Signer::Validating), Self::Ldk];

    fn name(self) -> String {
        match self {
            Self::Ours(signer) => format!("this library, {}", signer.name()),
            Self::Ldk => "LDK".into(),
        }
    }

    /// Openings one after another, by two nodes that are new.
    async fn open_channels(self, kept: Kept, runtimes: [Handle; 2]) -> Vec<Sample> {
        let mut samples = Vec::new();
        match self {
            Self::Ours(signer) => {
                let mut ours = Ours::connect(signer, kept, runtimes).await;
                for _ in 0..WARM_UP + OPENS_IN_A_ROUND {
                    samples.push(ours.open().await);
                }
            }
            Self::Ldk => {
                let mut ldk = Ldk::connect(kept, runtimes).await;
                for _ in 0..WARM_UP + OPENS_IN_A_ROUND {
                    samples.push(ldk.open().await);
                }
            }
        }
        samples.split_off(WARM_UP)
    }
}

/// Where the two nodes run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// No message wakes another thread.
    OneThread,
    /// Each message wakes the other thread, as between two processes.
    ThreadEach,
    /// What tokio does by itself on two cores.
    TwoThreadsEach,
}

impl Place {
    const ALL: [Self; 3] = [Self::OneThread, Self::ThreadEach, Self::TwoThreadsEach];

    fn name(self) -> &'static str {
        match self {
            Self::OneThread => "one thread for both",
            Self::ThreadEach => "a thread each",
            Self::TwoThreadsEach => "two threads each",
        }
    }

    /// The funder's, and the fundee's if it has one of its own.
    fn homes(self) -> (Home, Option<Home>) {
        match self {
            Self::OneThread => (Home::single(), None),
            Self::ThreadEach => (Home::single(), Some(Home::single())),
            Self::TwoThreadsEach => (Home::workers(2), Some(Home::workers(2))),
        }
    }
}

/// One kind of opening.
struct Kind {
    who: Who,
    kept: Kept,
    place: Place,
    samples: Samples,
}

impl Kind {
    fn new(who: Who, kept: Kept, place: Place) -> Self {
        Self { who, kept, place, samples: Samples::default() }
    }

    fn round(&mut self) {
        let (near, far) = self.place.homes();
        let runtimes = [&near, far.as_ref().unwrap_or(&near)].map(|home| home.handle().clone());
        self.samples.extend(near.run(self.who.open_channels(self.kept, runtimes)));
    }

    fn half_and_most(&self) -> [Cell; 2] {
        [50, 99].map(|of_hundred| Cell::figure(self.samples.latency(of_hundred).0, 0))
    }

    fn cpu(&self) -> Cell {
        Cell::figure(self.samples.cpu().0, 0)
    }
}

/// Who opens, with channels in memory and in files.
struct Opener {
    in_memory: Kind,
    in_files: Kind,
}

impl Opener {
    fn new(who: Who) -> Self {
        let [in_memory, in_files] =
            [Kept::InMemory, Kept::InFiles].map(|kept| Kind::new(who, kept, Place::ThreadEach));
        Self { in_memory, in_files }
    }

    /// What is done on the way of an opening.  The CPU time is of those in memory: writing takes
    /// some too, which is in the time of the writes.
    fn latency_to_work(&self, kind: &Kind) -> f64 {
        let work = self.in_memory.samples.cpu() + kind.samples.written();
        kind.samples.latency(50).0 / work.0
    }

    fn rows(&self) -> [Vec<Cell>; 2] {
        [&self.in_memory, &self.in_files].map(|kind| {
            let [half, most] = kind.half_and_most();
            vec![
                kind.who.name().into(),
                kind.kept.name().into(),
                half,
                most,
                kind.cpu(),
                Cell::figure(kind.samples.writes().into(), 0),
                Cell::figure(kind.samples.written().0, 0),
                Cell::figure(self.latency_to_work(kind), 2),
            ]
        })
    }
}

/// The tables and the ratio.
pub(super) fn measure(effort: Effort) -> ([Table; 2], Ratio) {
    let mut openers = Who::ALL.map(Opener::new);
    let mut places =
        Place::ALL.map(|place| Kind::new(Who::Ours(Signer::Blind), Kept::InMemory, place));
    let in_files = effort.of(1, 6);
    for round in 0..effort.of(3, 12) {
        // Each in turn, so that the machine's mood is the same for all.
        openers.iter_mut().for_each(|opener| opener.in_memory.round());
        places.iter_mut().for_each(Kind::round);
        if round < in_files {
            openers.iter_mut().for_each(|opener| opener.in_files.round());
        }
    }
    let ours = openers.iter().filter(|opener| matches!(opener.in_files.who, Who::Ours(_)));
    let ratio = Ratio {
        name: "loopback_latency_vs_work",
        says: "latency of one opening over loopback to its CPU time and its durable writes, the \
               worse of both signers",
        value: ours.map(|opener| opener.latency_to_work(&opener.in_files)).fold(f64::NAN, f64::max),
        goal: Goal::AtMost(1.3),
    };
    ([latencies(&openers), by_place(&places)], ratio)
}

fn latencies(openers: &[Opener]) -> Table {
    Table {
        id: "loopback_latency",
        title: "One opening over BOLT 8 on loopback",
        columns: vec![
            "who",
            "channels",
            "p50, us",
            "p99, us",
            "CPU, us",
            "durable writes",
            "writes, us",
            "p50 to work",
        ],
        rows: openers.iter().flat_map(Opener::rows).collect(),
        notes: vec![
            "One at a time over TCP and BOLT 8, with anchors; each node on a thread of its own in \
             one process. From the ask to the funder's permit; of LDK, from `create_channel` to \
             the funder's broadcast. CPU time and writes are of both sides."
                .into(),
            "A durable write ends when a crash cannot undo it: `FilesystemStore` syncs the file \
             and its directory, here in the system's place for temporary files. On the way of \
             each opening are the channel, once per side, and with a validating signer the \
             signer's record, once per side. One opening in 64 has one more per side, which \
             reserves names for channels. LDK writes its monitor, once per side; what it would \
             write of its `ChannelManager` is left out."
                .into(),
            "Work is the CPU time of the opening with its channels in memory and its durable \
             writes, so that the CPU time of a write counts once. Medians of all."
                .into(),
            "LDK does more: it makes monitors. Its channels are closed again after each opening, \
             and its nodes are new for every 68 of them, neither of which is timed."
                .into(),
        ],
    }
}

fn by_place(places: &[Kind]) -> Table {
    let row = |kind: &Kind| {
        let [half, most] = kind.half_and_most();
        vec![kind.place.name().into(), half, most, kind.cpu()]
    };
    Table {
        id: "loopback_threads",
        title: "What waking a thread costs an opening",
        columns: vec!["the two nodes run on", "p50, us", "p99, us", "CPU, us"],
        rows: places.iter().map(row).collect(),
        notes: vec![
            "The same opening, with blind signers and its channels in memory. Two threads each is \
             what tokio takes by itself on two cores."
                .into(),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_side_has_one_durable_write_or_two_if_its_signer_validates() {
        let writes = |who| {
            let mut kind = Kind::new(who, Kept::InFiles, Place::ThreadEach);
            kind.round();
            kind.samples.writes()
        };
        assert_eq!(writes(Who::Ours(Signer::Blind)), 2);
        assert_eq!(writes(Who::Ours(Signer::Validating)), 4);
        assert_eq!(writes(Who::Ldk), 2);
    }
}
