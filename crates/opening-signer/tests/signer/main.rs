//! What a signer does and refuses, against vectors and recordings of Core Lightning.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod derivation;
mod info;
mod limits;
mod pair;
mod recorded;
mod recordings;
mod restart;
mod rollback;
mod rules;
mod secrecy;
mod store;
mod transaction;
mod verified;
