//! Signers in other processes and on other machines, and serving one to them.
//!
//! * [`EnvelopedHsm`]: a signer behind the enveloped wire, many channels and requests at once over
//!   one connection; [`EnvelopeServer`] puts any [`Hsm`](crate::Hsm) behind it.
//! * [`HsmdHsm`]: a signer behind the wire of Core Lightning's hsmd; [`serve_hsmd`] puts any
//!   [`Hsm`](crate::Hsm) behind it.
//! * [`unix`]: the sockets between two processes of one user; [`tls`]: between two machines.

mod backoff;
mod codec;
mod envelope;
mod frame;
mod hsmd;
pub mod tls;
pub mod unix;

pub use envelope::{Connect, EnvelopeOptions, EnvelopeServer, EnvelopedHsm, LinkError, Stream};
pub use hsmd::{HsmdConfig, HsmdHsm, HsmdIdentity, serve_hsmd};
