//! Signers behind hsmd's wire: the client against recordings of Core Lightning's hsmd, and client
//! and server against each other.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[allow(dead_code, reason = "shared with other tests")]
#[path = "../signer/flow.rs"]
mod flow;
#[allow(dead_code, reason = "shared with the tests of signers in this process")]
#[path = "../signer/pair.rs"]
mod pair;
#[allow(dead_code, reason = "shared with other tests")]
#[path = "../signer/recorded.rs"]
mod recorded;
#[allow(dead_code, reason = "shared with the tests of signers in this process")]
#[path = "../signer/store.rs"]
mod store;

mod answers;
mod children;
mod counting;
mod other_wire;
mod refused;
mod replay;
mod scripted;
mod served;
mod sources;
mod version;
