//! For nodes made of LDK's parts.
//!
//! * [`OpeningHandler`] opens channels behind LDK's `PeerManager`, beside its `ChannelManager`.
//! * [`Opened`](crate::Opened) has its channel in LDK's types;
//!   `opening_signer::ldk` has what they are made of.
//!
//! ```text
//!              PeerManager
//!   callbacks |           ^ get_and_clear_pending_msg_events
//!             v           |
//!        +------------------------+
//!        |     OpeningHandler     |--- all that is not ours ---> Inner (ChannelManager)
//!        |  Ids: whose is an id?  |
//!        +------------------------+
//!         frames |        ^ frames
//!                v        |
//!             Session, one for each connected peer
//! ```

mod connection;
mod features;
mod handler;
mod ids;
mod opened;
mod outbound;

pub use handler::{OpeningHandler, Route, Routing};
