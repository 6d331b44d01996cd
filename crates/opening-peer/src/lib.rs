//! The message flow of Lightning channel establishment.
//!
//! * [`negotiation`]: the protocol as pure states, each named for what it waits for.
//! * [`session`]: one connection carrying many negotiations; [`Session`] is the node's handle.
//! * [`openings`]: what all sessions of a node share: [`Node`], limits, names.
//! * [`node`]: the questions that opening a channel asks of the node, as traits.
//! * [`store`]: where opened channels are kept; [`funding`]: what the wallet brings.
//! * [`wallet`]: a wallet that funds channels by itself, and [`fund`], an opening with one.
//! * [`event`] and [`failure`]: what happened, and why, for programs, operators and peers.
//! * [`ldk`]: behind LDK's `PeerManager`, and an opened channel in the types of LDK.
//! * `testing` (with the feature of that name): parts and connections that go wrong on purpose.
//! * [`message`]: bytes to LDK's message types and back; [`transport`]: BOLT 8 and plaintext.

mod driver;
pub mod event;
pub mod failure;
pub mod funding;
pub mod ldk;
pub mod message;
pub mod negotiation;
pub mod node;
pub mod openings;
pub mod session;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;
pub mod transport;
pub mod wallet;

pub use event::{Event, Failed};
pub use failure::{Failure, Stage};
pub use funding::FundingTransaction;
pub use negotiation::funder::Ask;
pub use negotiation::{BroadcastPermit, Opened};
pub use openings::{Capacity, Deadlines, Node, Openings, Restored};
pub use session::{Greeting, Session};
pub use wallet::{FundError, Funding, WalletError, fund};

// The example in the README is a test.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
