//! The signer boundary of Lightning channel establishment.
//!
//! * [`Hsm`] and [`ChannelHsm`]: the traits, with the life of a channel as a signer sees it.
//! * [`ChannelRef`], [`ChannelSetup`], [`CommitmentRequest`]: what a signer is told.
//! * [`HsmError`]: why it did not do it, and what the node does then.
//! * [`Info`]: what it enforces and within which bounds.
//! * [`LocalHsm`]: a signer in this process, with the keys that Core Lightning's hsmd derives
//!   from the same [`HsmSecret`].

mod error;
mod hsm;
mod info;
mod local;
mod request;

pub use error::{HsmError, HsmResult};
pub use hsm::{ChannelHsm, Hsm};
pub use info::{Bounds, Enforcement, Info};
#[cfg(feature = "testing")]
pub use local::ChannelSecrets;
pub use local::{HsmSecret, LocalHsm};
pub use request::{ChannelRef, ChannelSetup, CommitmentRequest};
