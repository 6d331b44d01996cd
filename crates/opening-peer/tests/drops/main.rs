//! Every future and handle that the library gives, dropped after every tick of its life: nothing
//! is left of what it was about, and the peer hears of it.

// Clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod channel;
#[path = "../common/mod.rs"]
mod common;
mod connection;
#[path = "../faulty/mod.rs"]
mod faulty;
mod opening;
mod world;
