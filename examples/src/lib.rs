//! What the example programs share.

pub mod chain;
pub mod control;
pub mod demo;
pub mod ldk_node;
pub mod logging;
pub mod our_node;
pub mod wallet;
