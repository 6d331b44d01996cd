//! A node driven by JSON lines: no chain, no wallet inside.  Whoever drives it is both.
//!
//! * [`options`]: the command line, with `help` for what it does not say; `directory`: `--store`.
//! * [`command`]: what may be asked, read from a line.
//! * [`output`]: answers and events, written in order; [`report`]: what events say.
//! * [`node`]: the node itself; [`channels`]: what it remembers of each opening; `chain`: what it
//!   was told of blocks; `operate`: what an operator asks of opened channels; `signer`: `--hsm`.

mod chain;
pub mod channels;
pub mod command;
mod directory;
mod help;
pub mod node;
mod operate;
pub mod options;
pub mod output;
pub mod report;
mod signer;
