//! Openings with a signer that is elsewhere.

mod away;
mod nodes;

use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use self::nodes::{Nodes, Wire};
use crate::figures::{Microseconds, Rounds};
use crate::report::{Cell, Effort, Ratio, Table};

/// Milliseconds from a request to its answer.
const ROUND_TRIPS: [u64; 4] = [0, 1, 5, 50];
/// Openings begun together.
const AT_ONCE: [u32; 4] = [1, 10, 100, 1_000];

/// The table.
pub fn measure(effort: Effort) -> (Vec<Table>, Vec<Ratio>) {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a machine with threads");
    let mut rows = Vec::new();
    for wire in Wire::ALL {
        for round_trip in ROUND_TRIPS {
            rows.extend(measure_at(&runtime, effort, wire, round_trip));
        }
    }
    let table = Table {
        id: "remote_signer",
        title: "Openings with a signer that is elsewhere",
        columns: vec![
            "wire", "round trip, ms", "at once", "openings per s", "p50, ms", "p99, ms",
            "p50 in round trips",
        ],
        rows,
        notes: vec![
            "The funder's blind signer is behind a socket in the same process, and a relay keeps its \
             answers back for the round trip, in order and any number at a time; the fundee's signer \
             is local.  From the ask to the funder's permit, everything else in memory, both nodes on \
             the same two threads."
                .into(),
            "Enveloped, requests of all channels share one connection and do not wait for each \
             other's answers.  On hsmd's wire the node asks for a connection of each channel's own on \
             its one root connection, one after the other: as many openings in a second as round \
             trips fit into it, divided by those that one channel takes there.  On either connection \
             one request is under way at a time."
                .into(),
            "A quick run leaves out (-) what would take long, at the rate of the line above it.".into(),
        ],
    };
    (vec![table], Vec::new())
}

fn measure_at(runtime: &Runtime, effort: Effort, wire: Wire, round_trip: u64) -> Vec<Vec<Cell>> {
    runtime.block_on(async {
        let mut nodes = Nodes::connect(wire, Duration::from_millis(round_trip)).await;
        let mut rows = Vec::new();
        let mut per_second = f64::INFINITY;
        for at_once in AT_ONCE {
            // Enveloped, openings wait for the signer side by side.
            let waits = f64::from(at_once) / per_second;
            if wire == Wire::Hsmd && waits > effort.of(1.0, f64::INFINITY) {
                rows.push(row(wire, round_trip, at_once, None));
                continue;
            }
            let (mut all, mut each) = (Duration::ZERO, Rounds::default());
            let rounds = effort.of(3_u32, 10).div_ceil(at_once);
            for _ in 0..rounds {
                let (took, latencies) = nodes.open(at_once).await;
                all += took;
                latencies.into_iter().for_each(|it| each.push(Microseconds::of(it)));
            }
            per_second = f64::from(rounds * at_once) / all.as_secs_f64();
            rows.push(row(wire, round_trip, at_once, Some((per_second, &each))));
        }
        rows
    })
}

fn row(wire: Wire, round_trip: u64, at_once: u32, measured: Option<(f64, &Rounds)>) -> Vec<Cell> {
    let mut cells = vec![
        wire.name().into(),
        Cell::figure(round_trip as f64, 0),
        Cell::figure(at_once.into(), 0),
    ];
    let Some((per_second, each)) = measured else {
        cells.extend([(); 4].map(|()| Cell::from("-")));
        return cells;
    };
    let [p50, p99] = [50, 99].map(|of_hundred| each.quantile(of_hundred).0 / 1000.0);
    let trips = match round_trip {
        0 => Cell::from("-"),
        trip => Cell::figure(p50 / trip as f64, 1),
    };
    let figures = [per_second, p50, p99].into_iter().zip([0, 1, 1]);
    cells.extend(figures.map(|(value, decimals)| Cell::figure(value, decimals)));
    cells.push(trips);
    cells
}
