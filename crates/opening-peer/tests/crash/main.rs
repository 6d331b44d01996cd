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
mod play;
mod point;
mod stream;
mod wallet;
mod world;

use std::io::Write;

use disk::Medium;
use machine::{Scenario, SignerKind};
use opening_core::MilliSatoshi;
use world::{FUNDER, World};

const PEER: usize = 1;

const SINGLE: Scenario = Scenario {
    name: "single",
    peers: 1,
    signer: SignerKind::Blind,
    medium: Medium::Memory,
    push_msat: MilliSatoshi::ZERO,
    is_zeroconf: false,
};

const PUSH: MilliSatoshi = MilliSatoshi::from_msat(100_000_000);

const PUSHED: Scenario = Scenario {
    name: "pushed, validating",
    push_msat: PUSH,
    signer: SignerKind::Validating,
    ..SINGLE
};

const ZEROCONF: Scenario =
    Scenario { name: "zeroconf", is_zeroconf: true, signer: SignerKind::Elsewhere, ..SINGLE };

const BATCH: Scenario = Scenario { name: "batch", peers: 2, ..SINGLE };

/// The points of each node's life if nobody dies.
fn points(scenario: Scenario) -> Vec<Vec<String>> {
    let mut world = World::new(scenario, &[]);
    world.play();
    world.machines.iter_mut().map(|machine| machine.lives.remove(0).0).collect()
}

/// Plays with a death of `whose` at every point.
fn at_every_point(scenario: Scenario, whose: usize) -> usize {
    each_point(|point| {
        let mut world = World::new(scenario, &[(whose, &[point])]);
        world.play();
        world.machines[whose].deaths() == 1
    })
}

/// Plays with a death at each point until `play` says that nobody has died any more.
fn each_point(play: impl Fn(usize) -> bool) -> usize {
    (1..).find(|point| !play(*point)).expect("a play has an end") - 1
}

/// Tells even where the test harness captures what tests print, and holds the count against what
/// it was at least when this was written: the harness must not shrink by itself.
fn report(scenario: &str, counts: &[(&str, usize, usize)]) {
    let told: Vec<_> = counts.iter().map(|(who, count, _)| format!("{count} {who}")).collect();
    let line = format!("crash points, {scenario}: {}\n", told.join(", "));
    std::io::stdout().write_all(line.as_bytes()).unwrap();
    for (who, count, least) in counts {
        assert!(count >= least, "{scenario}, {who}: {count} points, and there were {least}");
    }
}

/// Every point of both roles.
fn single(scenario: Scenario, least: usize) {
    let (funder, fundee) = (at_every_point(scenario, FUNDER), at_every_point(scenario, PEER));
    report(scenario.name, &[("funder", funder, least), ("fundee", fundee, least)]);
}

#[test]
fn a_single_opening() {
    single(SINGLE, 80);
}

#[test]
fn a_single_opening_with_a_push_and_a_validating_signer() {
    single(PUSHED, 80);
}

#[test]
fn a_zeroconf_opening_with_a_signer_that_lives_on() {
    single(ZEROCONF, 80);
}

#[test]
fn the_second_life_ends_early_too() {
    let after_save = |whose: usize| {
        let points = &points(SINGLE)[whose];
        points.iter().position(|it| it == "after store write channels").unwrap() + 1
    };
    let again = |whose: usize| {
        let first = after_save(whose);
        each_point(|second| {
            let mut world = World::new(SINGLE, &[(whose, &[first, second])]);
            world.play();
            world.machines[whose].deaths() == 2
        })
    };
    let other = |whose: usize, other: usize| {
        let first = after_save(whose);
        each_point(|point| {
            let mut world = World::new(SINGLE, &[(whose, &[first]), (other, &[point])]);
            world.play();
            world.machines[other].deaths() == 1
        })
    };
    report(
        "after the save, another",
        &[
            ("funder again", again(FUNDER), 40),
            ("fundee again", again(PEER), 40),
            ("fundee after funder", other(FUNDER, PEER), 80),
            ("funder after fundee", other(PEER, FUNDER), 80),
        ],
    );
}

// req: B2-CR-S-13
#[test]
fn a_funder_that_stays_away_for_2016_blocks() {
    let forsaken = |scenario| {
        each_point(|point| {
            let mut world = World::new(scenario, &[(FUNDER, &[point])]);
            world.be_forsaken();
            world.machines[FUNDER].deaths() == 1
        })
    };
    report("forsaken", &[("funder", forsaken(SINGLE), 80), ("pushing", forsaken(PUSHED), 80)]);
}

#[test]
fn a_store_of_files() {
    let scenario = Scenario { name: "files", medium: Medium::Files, ..SINGLE };
    let all = points(SINGLE);
    let at_store = |whose: usize| {
        let changes = |point: &str| point.contains("store write") || point.contains("store remove");
        let points = all[whose].iter().enumerate().filter(|(_, it)| changes(it));
        let deaths = points.map(|(index, _)| {
            let mut world = World::new(scenario, &[(whose, &[index + 1])]);
            world.play();
            world.machines[whose].deaths()
        });
        deaths.sum()
    };
    report(scenario.name, &[("funder", at_store(FUNDER), 10), ("fundee", at_store(PEER), 10)]);
}

#[test]
fn a_batch_of_two() {
    let (funder, peer) = (at_every_point(BATCH, FUNDER), at_every_point(BATCH, PEER));
    report(BATCH.name, &[("funder", funder, 150), ("one fundee", peer, 80)]);
}
