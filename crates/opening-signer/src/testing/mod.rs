//! For whoever tests a signer, or with one.

pub mod conformance;
