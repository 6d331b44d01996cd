//! Signers in other processes and on other machines, and serving one to them.
//!
//! * [`HsmdHsm`]: a signer behind the wire of Core Lightning's hsmd, and [`serve_hsmd`], which puts
//!   any [`Hsm`](crate::Hsm) behind it.
//! * [`unix`]: the sockets between two processes of one user.

mod backoff;
mod codec;
mod frame;
mod hsmd;
pub mod unix;

pub use hsmd::{HsmdConfig, HsmdHsm, HsmdIdentity, serve_hsmd};
