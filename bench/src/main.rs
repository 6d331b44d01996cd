//! What an opening costs, beside what its cryptography costs: CPU time of one thread in which both
//! sides run, messages, rules, drivers, signers and stores in memory included.
//!
//! Figures of one machine at one moment: only their ratios, of one run, say something.

mod cpu;
mod figures;
mod floor;
mod ours;

use opening_core::ChannelType;
use tokio::runtime::{Builder, Runtime};

use crate::figures::{Microseconds, Rounds};
use crate::floor::{Curve, PER_SIDE};
use crate::ours::{Pair, Signer};

/// Each kind of opening in turn, so that the machine's mood is the same for all.
const ROUNDS: u32 = 60;
const OPENS_IN_A_ROUND: u32 = 10;

/// One kind of opening.
struct Measured {
    signer: Signer,
    channel_type: ChannelType,
    pair: Pair,
    rounds: Rounds,
}

fn main() -> std::io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let curve = Curve::new();
    let mut floor = Rounds::default();
    let mut measured = kinds(&runtime);
    for round in 0..=ROUNDS {
        let per_side = curve.per_side();
        // The first is for the caches.
        if round > 0 {
            floor.push(per_side);
        }
        for kind in &mut measured {
            let ((), time) = cpu::of(|| runtime.block_on(kind.open()));
            if round > 0 {
                kind.rounds.push(Microseconds::of(time) / f64::from(OPENS_IN_A_ROUND));
            }
        }
    }
    print(&curve, &floor, &measured);
    Ok(())
}

fn kinds(runtime: &Runtime) -> Vec<Measured> {
    let kinds = [Signer::Blind, Signer::Validating].into_iter().flat_map(|signer| {
        [ChannelType::ANCHORS, ChannelType::STATIC_REMOTEKEY]
            .map(|channel_type| (signer, channel_type))
    });
    kinds
        .map(|(signer, channel_type)| Measured {
            signer,
            channel_type,
            pair: runtime.block_on(Pair::connect(signer)),
            rounds: Rounds::default(),
        })
        .collect()
}

impl Measured {
    async fn open(&mut self) {
        for _ in 0..OPENS_IN_A_ROUND {
            self.pair.open(self.channel_type).await;
        }
    }
}

fn print(curve: &Curve, floor: &Rounds, measured: &[Measured]) {
    println!("operations on the curve that one side needs with a signer that keeps its secrets:");
    for (operation, count) in PER_SIDE {
        println!("  {count} x {:20} {:5.1} us each", operation.name(), curve.cost(operation).0);
    }
    let floor = floor.median() * 2.0;
    println!("floor, both sides: {floor} us\n");
    println!("CPU time of an opening, both sides, {ROUNDS} rounds of {OPENS_IN_A_ROUND}:");
    for Measured { signer, channel_type, rounds, .. } in measured {
        let [low, median, high] = rounds.tenth_half_ninth();
        let signer = match signer {
            Signer::Blind => "blind",
            Signer::Validating => "validating",
        };
        let times = median.0 / floor.0;
        println!(
            "  {signer:10} {channel_type:16} {median} us ({low} to {high}), {times:.2} x the floor"
        );
    }
}
