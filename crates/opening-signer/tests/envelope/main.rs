//! The enveloped wire, from both ends.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod crowd;
mod reconnect;
mod unix;
mod world;
