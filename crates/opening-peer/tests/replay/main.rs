//! Core Lightning's openingd at work, and our negotiation given the same: lightningd's messages,
//! the peer's, hsmd's answers.  What we make of them is held against what openingd made, byte for
//! byte.  Where a stance of ours differs, a test in `stances` or `refused` bears its name.

// Clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

mod commitments;
mod hsmd;
mod local_hsm;
mod messages;
mod node;
mod opened;
mod openingd;
mod recording;
mod refused;
mod stances;
mod wire;

use node::{AsFundee, AsFunder, Node};
use recording::{OPENED, Recording};

/// Each open that made a channel, replayed as funder.
fn each_as_funder(test: impl Fn(&str, &Recording, AsFunder)) {
    for pair in OPENED {
        let recording = Recording::parse(pair.funder);
        test(pair.name, &recording, Node::recorded(&recording).fund(&recording));
    }
}

/// Each open that made a channel, replayed as fundee.
fn each_as_fundee(test: impl Fn(&str, &Recording, AsFundee)) {
    for pair in OPENED {
        let recording = Recording::parse(pair.fundee);
        test(pair.name, &recording, Node::recorded(&recording).be_funded(&recording));
    }
}
