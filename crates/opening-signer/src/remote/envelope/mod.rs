//! The enveloped wire: many channels and many requests in flight on one connection.
//!
//! ```text
//! node                                      signer
//!   | --- hello: versions, chain ------------> |
//!   | <-- hello: versions, chain, Info ------- |
//!   | --- request 1: channel A, setup -------> |
//!   | --- request 2: channel A, after 1, sign  |
//!   | --- request 3: channel B, pubkeys -----> |
//!   | <-- reply 3 ---------------------------- |
//!   | <-- reply 1 ---------------------------- |
//!   | <-- reply 2 ---------------------------- |
//! ```
//!
//! `docs/signer-wire.md` is its specification.

mod body;
mod calls;
mod client;
mod connection;
mod failure;
#[cfg(test)]
mod golden;
mod hello;
mod link;
mod messages;
mod perform;
mod queue;
mod server;

pub use client::{EnvelopeOptions, EnvelopedHsm};
pub use connection::{Connect, Stream};
pub(super) use hello::is_hello;
pub use link::LinkError;
pub use server::EnvelopeServer;
