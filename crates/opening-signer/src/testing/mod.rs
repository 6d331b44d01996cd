//! For whoever tests a signer, or with one.
//!
//! * [`MockHsm`]: any signer, that goes wrong on purpose, with a [`Transcript`] of what it was
//!   asked.
//! * [`Faults`]: which calls go wrong and how, for a signer and for other parts of a node.
//! * [`WireFaults`]: a connection to a signer whose replies go wrong.
//! * [`conformance`]: what every signer must do.

pub mod conformance;
mod fault;
mod mock;
mod wire;

pub use fault::{EVERY, Fault, Faults};
pub use mock::{Entry, Forgery, Misdeed, MockHsm, Outcome, Restart, Transcript};
pub use wire::{WireFault, WireFaults};
