//! The demo: our node and LDK's open channels with each other, and every claim is checked.
//!
//! * [`scenes`]: what is played; [`claims`]: what has to be true afterwards.
//! * [`signer`]: the signer in a process of its own, with `--remote-signer`.
//! * [`paint`]: the timeline and the closing table.

pub mod claims;
pub mod paint;
pub mod scenes;
pub mod signer;
