//! Parts of a node that go wrong on purpose, to see what a channel opening does then.
//!
//! Nothing in here is for production: the module exists with the feature `testing` only.
//!
//! | part | wrapper | goes wrong by |
//! |---|---|---|
//! | store | [`FaultyStore`] | [`Faults`] |
//! | policy | [`FaultyPolicy`] | [`Faults`] |
//! | signer | [`MockHsm`] | [`Faults`], and what only a signer can do |
//! | wallet | [`FaultyFunding`]; [`TestWallet`] is one to wrap | [`Faults`] |
//! | connection | [`FaultyStream`] | [`StreamFaults`] |
//! | clock | tokio's own, paused; [`clock`] stops on both sides of a deadline | |
//!
//! # Calls
//!
//! [`Faults`] are a plan: the method's name, the number of the call, the [`Fault`].  One plan may
//! serve several parts, because no two traits of a node share a method's name.
//!
//! ```
//! # use std::sync::Arc;
//! # use std::time::Duration;
//! # use opening_core::{FeerateRange, FeeratePerKw, Limits};
//! # use opening_peer::node::{AcceptWithin, Bounds};
//! use opening_peer::Deadlines;
//! use opening_peer::store::MemoryStore;
//! use opening_peer::testing::{
//!     EVERY, Fault, Faults, FaultyFunding, FaultyPolicy, FaultyStore, MockHsm, TestWallet,
//! };
//! use opening_signer::{HsmError, HsmSecret, LocalHsm};
//!
//! let faults = Faults::none()
//!     // The second channel is saved, but the node is told that it was not.
//!     .at("save", 2, Fault::FailAfter)
//!     // The policy thinks about each offer, and never about the third.
//!     .at("decide", EVERY, Fault::Delay(Deadlines::default().policy / 2))
//!     .at("decide", 3, Fault::StallBefore)
//!     // The wallet waits for the test.
//!     .at("sign_and_broadcast", 1, Fault::Hold)
//!     // The signer wants to be asked twice.
//!     .at("setup", 1, Fault::FailBefore);
//!
//! let store = FaultyStore::new(MemoryStore::default(), faults.clone());
//! # let limits = Limits::for_network(bitcoin::Network::Regtest);
//! # let feerates = FeerateRange { min: FeeratePerKw::FLOOR, max: FeeratePerKw::new(25_000) };
//! # let bounds = Bounds { limits, feerates: Some(feerates) };
//! let policy = FaultyPolicy::new(AcceptWithin(bounds), faults.clone());
//! let wallet = FaultyFunding::new(TestWallet::with_coins(10), faults.clone());
//! let signer = Arc::new(LocalHsm::blind(&HsmSecret::new([1; 32])));
//! let hsm = MockHsm::new(signer, faults.clone()).failing_with(HsmError::Deferred);
//!
//! // Later, in the test:
//! faults.release();
//! assert_eq!(faults.calls("save"), 0);
//! # let _ = (store, policy, wallet, hsm);
//! ```
//!
//! # Connections
//!
//! [`StreamFaults`] count bytes and calls, in each direction by itself.  A [`FaultyStream`] goes
//! wherever a stream goes: under [`framed`], or under BOLT 8.
//!
//! ```
//! use opening_peer::testing::{Direction, FaultyStream, StreamFault, StreamFaults};
//! use opening_peer::transport::framed;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let (ours, theirs) = tokio::io::duplex(1024);
//! let faults = StreamFaults::none()
//!     // What the peer says arrives byte by byte.
//!     .pieces(Direction::Read, 1)
//!     // The peer hears ten bytes of us, and then that we have hung up.
//!     .after_bytes(Direction::Write, 10, StreamFault::End);
//! let (_reader, mut writer) = framed(FaultyStream::new(ours, faults.clone())).split();
//! let (mut their_reader, _their_writer) = framed(theirs).split();
//!
//! writer.queue(&[0; 100]).unwrap();
//! assert!(writer.flush().await.is_err());
//! assert_eq!(faults.bytes(Direction::Write), 10);
//! let heard = their_reader.read().await;
//! assert_eq!(heard.unwrap_err().code(), "transport-end-inside-frame");
//! # }
//! ```
//!
//! # The clock
//!
//! All deadlines count by tokio's clock, which a test can stop: `#[tokio::test(start_paused =
//! true)]`, with tokio's feature `test-util`.  A clock that is paused still jumps to the next timer
//! when every task waits, so a test of ten minutes takes no time.  It knows nothing of threads
//! that block: a store that writes files may look silent on it.
//!
//! ```
//! use std::time::Duration;
//! use opening_peer::testing::clock::Deadline;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let deadline = Deadline::after(Duration::from_secs(60));
//! let waiting = tokio::spawn(tokio::time::sleep(Duration::from_secs(60)));
//! deadline.nearly().await;
//! assert!(!waiting.is_finished());
//! deadline.passed().await;
//! assert!(waiting.is_finished());
//! # }
//! ```
//!
//! [`framed`]: crate::transport::framed

pub mod clock;
mod funding;
mod policy;
mod store;
mod stream;

pub use funding::{FaultyFunding, TestWallet};
pub use opening_signer::testing::{EVERY, Fault, Faults, MockHsm};
pub use policy::FaultyPolicy;
pub use store::FaultyStore;
pub use stream::{Direction, FaultyStream, StreamFault, StreamFaults};
