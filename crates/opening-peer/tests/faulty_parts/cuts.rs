//! A connection that is cut after every possible number of bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use opening_peer::testing::{Direction, Faults, FaultyStream, StreamFault, StreamFaults};
use opening_peer::transport::framed;
use opening_peer::{Event, Stage};
use tokio::io::duplex;
use tokio::time::sleep;

use crate::common::{confirmation, funding_transaction};
use crate::faulty::{Log, faulty_node};
use crate::{Side, connect};

/// Longer than all deadlines together.
const LONG: Duration = Duration::from_secs(24 * 60 * 60);

/// What became of one opening with a faulty connection.
struct Run {
    funder: Side,
    fundee: Side,
    opened_for_funder: bool,
}

/// From `init` to both `channel_ready`, as far as it goes; then nothing moves any more.
async fn run(faults: &StreamFaults) -> Run {
    let (near, far) = duplex(64 * 1024);
    let near = FaultyStream::new(near, faults.clone());
    let made = (faulty_node(1, &Faults::none()), faulty_node(2, &Faults::none()));
    let (funder, fundee) = connect(made.0, made.1, (framed(near), framed(far))).await;
    let mut opened_for_funder = false;
    if funder.session.is_some()
        && let Ok((opened, _permit)) = funder.open().await
    {
        opened_for_funder = true;
        let transaction = funding_transaction(&opened.funding_output(), 0);
        for openings in [&funder.openings, &fundee.openings] {
            // A fundee whose connection was cut before its save has no such channel.
            let _ = openings.confirmed(opened.channel_id, confirmation(&transaction, 6)).await;
        }
    }
    sleep(LONG).await;
    Run { funder, fundee, opened_for_funder }
}

/// Whether this side has ever had an opening.
fn has_begun(log: &Log) -> bool {
    !log.all(|event| matches!(event, Event::Progress { .. }).then_some(())).is_empty()
}

impl Run {
    /// Each side that began has one end to tell, a channel or a failure, and nothing is left.
    async fn check(&self, what: &str) {
        let Self { funder, fundee, opened_for_funder } = self;
        for side in [funder, fundee] {
            let (opened, failed) = (side.log.opened_so_far(), side.log.failures().len());
            assert_eq!(opened + failed, usize::from(has_begun(&side.log)), "{what}");
            assert_eq!(side.kept().await, opened, "{what}");
            assert_eq!(side.openings.pending(), 0, "{what}");
        }
        assert_eq!(funder.log.opened_so_far(), usize::from(*opened_for_funder), "{what}");
        // The funder pays into a channel that the fundee has saved.
        assert!(fundee.kept().await >= funder.kept().await, "{what}");
    }

    fn is_closed(&self) -> bool {
        let mut sessions =
            [&self.funder, &self.fundee].into_iter().filter_map(|it| it.session.as_ref());
        sessions.all(|session| session.is_closed())
    }
}

/// Cuts one direction of the funder's connection after every number of bytes, one after the other.
async fn cut_everywhere(direction: Direction, fault: StreamFault) {
    let whole = StreamFaults::none();
    let uncut = run(&whole).await;
    uncut.check("uncut").await;
    assert_eq!((uncut.funder.log.ready_so_far(), uncut.fundee.log.ready_so_far()), (1, 1));
    let total = whole.bytes(direction);
    let mut ends = BTreeMap::<_, u32>::new();
    for bytes in 0..total {
        let faults = StreamFaults::none().after_bytes(direction, bytes, fault);
        let cut = run(&faults).await;
        let what = format!("{fault:?} {direction:?} after {bytes} of {total} bytes");
        assert_eq!(faults.bytes(direction), bytes, "{what}");
        cut.check(&what).await;
        let failures = [cut.funder.log.failures(), cut.fundee.log.failures()].concat();
        let codes: BTreeSet<_> = failures.into_iter().map(|(_, code)| code).collect();
        if fault == StreamFault::Stall {
            // The first to lose patience may still be heard, or hangs up unheard.
            let known = BTreeSet::from(["peer-silent", "peer-error", "disconnected"]);
            assert!(codes.is_subset(&known), "{what}: {codes:?}");
            assert!(codes.is_empty() || codes.contains("peer-silent"), "{what}: {codes:?}");
        } else {
            assert!(codes.is_subset(&BTreeSet::from(["disconnected"])), "{what}: {codes:?}");
        }
        assert!(fault == StreamFault::Stall || cut.is_closed(), "{what}");
        *ends.entry((end(&cut.funder), end(&cut.fundee))).or_default() += 1;
    }
    println!("{fault:?} {direction:?}: {total} cut points; the funder's and the fundee's ends:");
    for ((funder, fundee), count) in ends {
        println!("{count:5}  {funder:28} {fundee}");
    }
}

/// How it ended on one side.
fn end(side: &Side) -> String {
    match side.log.failures()[..] {
        [(stage, code)] => format!("{stage} {code}"),
        _ if side.log.ready_so_far() > 0 => Stage::Ready.as_str().into(),
        _ if side.log.opened_so_far() > 0 => "opened".into(),
        _ => "never began".into(),
    }
}

#[tokio::test(start_paused = true)]
async fn the_funder_falls_silent_after_every_byte() {
    cut_everywhere(Direction::Write, StreamFault::Stall).await;
}

#[tokio::test(start_paused = true)]
async fn the_funder_hangs_up_after_every_byte() {
    cut_everywhere(Direction::Write, StreamFault::End).await;
}

#[tokio::test(start_paused = true)]
async fn the_funder_is_cut_off_after_every_byte_it_writes() {
    cut_everywhere(Direction::Write, StreamFault::Break).await;
}

#[tokio::test(start_paused = true)]
async fn the_fundee_falls_silent_after_every_byte() {
    cut_everywhere(Direction::Read, StreamFault::Stall).await;
}

#[tokio::test(start_paused = true)]
async fn the_fundee_hangs_up_after_every_byte() {
    cut_everywhere(Direction::Read, StreamFault::End).await;
}

#[tokio::test(start_paused = true)]
async fn the_funder_is_cut_off_after_every_byte_it_reads() {
    cut_everywhere(Direction::Read, StreamFault::Break).await;
}
