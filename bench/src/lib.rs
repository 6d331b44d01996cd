//! What an opening costs, beside what its cryptography costs and beside LDK.
//!
//! Each module measures one thing and gives tables of figures for the [`report`].  Timings are
//! never asserted: they are of one machine at one moment, and only ratios of one run say something.

pub mod cpu;
pub mod far;
pub mod figures;
pub mod floor;
pub mod guard;
pub mod ldk;
pub mod loopback;
pub mod node;
pub mod openings;
pub mod pair;
pub mod peers;
pub mod pending;
pub mod remote;
pub mod report;
