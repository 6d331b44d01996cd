//! A node with LDK's `ChannelManager` and this library behind one `PeerManager`.
//!
//! * [`node`]: how the two are put together; [`watched`]: what LDK's part of it gets to see.
//! * [`story`]: four channels at once over one connection, and what is checked about them.

pub mod node;
pub mod story;
pub mod watched;
