//! Parts of a node that go wrong on purpose, to see what a channel opening does then.
//!
//! ```
//! use opening_peer::store::MemoryStore;
//! use opening_peer::testing::{Fault, Faults, FaultyStore};
//!
//! // The second channel is saved, but the node is told that it was not.
//! let faults = Faults::none().at("save", 2, Fault::FailAfter);
//! let store = FaultyStore::new(MemoryStore::default(), faults.clone());
//! # let _ = store;
//! assert_eq!(faults.calls("save"), 0);
//! ```

mod fault;
mod policy;
mod store;

pub use fault::{EVERY, Fault, Faults};
pub use policy::FaultyPolicy;
pub use store::FaultyStore;
