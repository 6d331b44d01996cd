//! The enveloped wire, from both ends.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bad_signer;
mod cancelled;
mod crowd;
mod flood;
mod raw;
mod reconnect;
mod tls;
mod unix;
mod world;
