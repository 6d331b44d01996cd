//! Shows that `opening-core` needs no std: compiled by `cargo xtask ci`, never run.
//!
//! std brings its own panic handler, and a program may have only one.  This crate defines one too,
//! so the compiler stops with `duplicate lang item panic_impl`, naming the crate that is to blame,
//! as soon as anything linked below links std.  `cargo check --no-default-features` shows nothing
//! of the kind: where the host has std, a crate that says `no_std` may still pull it in.

// A library, not a `staticlib`: it asks the same question and needs no allocator to do so.
#![no_std]

use core::panic::PanicInfo;

use bitcoin::{Amount, Weight};
use opening_core::FeeratePerKw;

/// Uses the crate, for rustc loads only what is used.
#[must_use]
pub fn commitment_fee(feerate_per_kw: FeeratePerKw, weight: Weight) -> Option<Amount> {
    feerate_per_kw.fee(weight)
}

#[panic_handler]
fn halt(_: &PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
