//! Signers in other processes and on other machines, and serving one to them.
//!
//! * [`EnvelopedHsm`]: a signer behind the enveloped wire, with many channels on one connection,
//!   and [`EnvelopeServer`], which puts any [`Hsm`](crate::Hsm) behind it.
//! * [`HsmdHsm`]: a signer behind the wire of Core Lightning's hsmd, and [`serve_hsmd`], which puts
//!   any [`Hsm`](crate::Hsm) behind it.
//! * [`serve`]: one door for both, with its listener or dialler.
//! * [`unix`]: the sockets between two processes of one user.
//! * [`tls`]: connections between two machines, with pinned keys.
//! * [`Connect`]: how a node gets its connection, with any other transport.

mod backoff;
mod codec;
mod envelope;
mod frame;
mod hsmd;
mod reasons;
mod serve;
pub mod tls;
pub mod unix;

pub use envelope::{Connect, EnvelopeOptions, EnvelopeServer, EnvelopedHsm, LinkError, Stream};
pub use hsmd::{HsmdConfig, HsmdHsm, HsmdIdentity, serve_hsmd};
pub use serve::{Transport, serve};
