//! The handler behind LDK's `PeerManager`: whose is a message, and what becomes of a connection.

// Clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used, unreachable_pub)]

#[path = "../common/mod.rs"]
mod common;
mod inner;
mod lifetime;
mod rig;
mod routing;
