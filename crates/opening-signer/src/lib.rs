//! The signer boundary of Lightning channel establishment.
//!
//! * [`Hsm`] and [`ChannelHsm`]: the traits, with the life of a channel as a signer sees it.
//! * [`ChannelRef`], [`ChannelSetup`], [`CommitmentRequest`]: what a signer is told.
//! * [`HsmError`]: why it did not do it, and what the node does then.
//! * [`Info`]: what it enforces and within which bounds.
//! * [`LocalHsm`]: a signer in this process, with the keys that Core Lightning's hsmd derives
//!   from the same [`HsmSecret`].
//! * [`ChannelMemory`]: what a signer has to remember, for whoever writes one.
//! * [`Verified`]: a signer whose answers are not taken on trust.
//! * `remote` (with the feature of that name): signers in other processes and on other machines,
//!   and serving one to them.
//! * `ldk` (with the feature of that name): signers of the LDK world.
//! * `testing` (with the feature of that name): a signer that goes wrong on purpose, and the suite
//!   that every signer must pass.

mod call;
mod error;
mod hsm;
mod info;
#[cfg(feature = "ldk")]
pub mod ldk;
mod local;
mod memory;
#[cfg(feature = "remote")]
pub mod remote;
mod request;
#[cfg(feature = "testing")]
pub mod testing;
mod verified;

pub use call::Call;
pub use error::{HsmError, HsmResult};
pub use hsm::{ChannelHsm, Hsm};
pub use info::{Bounds, Enforcement, Info, Pipelining};
#[cfg(feature = "testing")]
pub use local::ChannelSecrets;
pub use local::{HsmSecret, LocalHsm, Rule, SigningPolicy};
pub use memory::ChannelMemory;
pub use request::{ChannelRef, ChannelSetup, CommitmentRequest};
pub use verified::Verified;
