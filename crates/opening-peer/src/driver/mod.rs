//! Drivers: they send, receive, ask, save and send, and decide nothing.
//!
//! Each runs as a task of its own, so that no wait for signer, policy, wallet or store stops the
//! session's reading, and so that a save or a signature under way is never cut short.

pub(crate) mod fundee;
pub(crate) mod funder;
pub(crate) mod gate;
pub(crate) mod line;
pub(crate) mod seat;
pub(crate) mod signer;
