//! A node dies at every point of an opening: before, after and half-way through everything that it
//! touches.  Whatever is left on its disk, it goes on from there, and nobody loses money.

// Clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used, unreachable_pub)]

#[path = "../common/mod.rs"]
mod common;
mod disk;
mod ledger;
mod machine;
mod parts;
mod point;
mod stream;
mod wallet;
mod world;

use disk::Medium;
use machine::{Scenario, SignerKind};
use opening_core::MilliSatoshi;
use world::World;

const SINGLE: Scenario = Scenario {
    name: "single",
    peers: 1,
    signer: SignerKind::Blind,
    medium: Medium::Memory,
    push_msat: MilliSatoshi::ZERO,
    is_zeroconf: false,
};

/// Plays with a death at every point of the first life of `whose`.
fn at_every_point(scenario: Scenario, whose: usize) -> u64 {
    for point in 1.. {
        let mut world = World::new(scenario, (whose, &[point]));
        world.play();
        if world.machines[whose].deaths[0].0.is_empty() {
            return point - 1;
        }
    }
    unreachable!()
}

#[test]
fn nobody_dies() {
    let mut world = World::new(SINGLE, (0, &[]));
    world.play();
    println!("{:?}", world.machines.iter().map(|it| &it.deaths).collect::<Vec<_>>());
}

#[test]
fn single() {
    let (funder, fundee) = (at_every_point(SINGLE, 0), at_every_point(SINGLE, 1));
    println!("crash points: {funder} funder, {fundee} fundee");
}
