//! The wire of Core Lightning's hsmd, versions 5 and 6: what `lightningd` and its daemons speak with
//! their signer, and what VLS serves.
//!
//! A frame is a length of four bytes and a message.  One connection is the node's; over it the
//! sockets of channels are passed, one for each.  On each connection one request is under way, and
//! there is no reply that says no: hsmd closes the connection.
//!
//! | message | call | connection |
//! |---|---|---|
//! | 11 `init` | connecting | node |
//! | 30 `new_channel` | [`Hsm::channel`](crate::Hsm::channel) | node |
//! | 10 `get_channel_basepoints` | [`ChannelHsm::pubkeys`](crate::ChannelHsm::pubkeys) | node |
//! | 9 `client_hsmfd` | before the first of those below | node |
//! | 18 `get_per_commitment_point` | [`ChannelHsm::per_commitment_point`](crate::ChannelHsm::per_commitment_point) | channel |
//! | 31 `setup_channel` | [`ChannelHsm::setup`](crate::ChannelHsm::setup) | channel |
//! | 19 `sign_remote_commitment_tx` | [`ChannelHsm::sign_counterparty_commitment`](crate::ChannelHsm::sign_counterparty_commitment) | channel |
//! | 35 `validate_commitment_tx` | [`ChannelHsm::validate_holder_commitment`](crate::ChannelHsm::validate_holder_commitment) | channel |
//! | 5 `sign_commitment_tx` | [`ChannelHsm::sign_holder_commitment`](crate::ChannelHsm::sign_holder_commitment) | node |
//! | 34 `forget_channel` | [`Hsm::forget_channel`](crate::Hsm::forget_channel) | node |
//! | 28 `check_pubkey` | [`HsmdHsm::check_pubkey`] | node |

mod channel;
mod client;
mod fd;
mod kept;
mod line;
mod message;
mod psbt;
mod root;
mod serve;
mod served;
#[cfg(test)]
mod tests;
mod value;

use core::ops::RangeInclusive;

pub use client::{HsmdConfig, HsmdHsm};
pub use serve::{HsmdIdentity, serve_hsmd};

use self::message::Message;
use crate::error::HsmError;

/// Of the wire.
const VERSIONS: RangeInclusive<u32> = 5..=6;

/// What a channel's connection may ask for while it is opened: points (8) and signatures for the
/// peer's commitment (16), as Core Lightning grants to openingd.
const PERMISSIONS: u64 = 8 | 16;

/// The reply is one, and not to what was asked.
fn protocol(reply: &Message) -> HsmError {
    HsmError::Protocol(format!("it answered with message {}", reply.type_number()))
}
