//! A node driven by JSON lines: no chain, no wallet inside.  Whoever drives it is both.
//!
//! * [`command`]: what may be asked, read from a line.
//! * [`output`]: answers and events, written in order.
//! * [`node`]: the node itself; [`channels`]: what it remembers of each opening.

pub mod channels;
pub mod command;
pub mod node;
pub mod options;
pub mod output;
