//! What is wrong with a message that cannot be decoded, and what follows from it.
//!
//! | kind | the peer gets | the connection |
//! |---|---|---|
//! | a key that is no key, a signature that is none | `error` for that channel | stays |
//! | too short, too long, or an invalid extension | `error` for the channel it names, if it names one | is closed |

use std::fmt;

use bitcoin::secp256k1::PublicKey;
use bitcoin::secp256k1::ecdsa::Signature;
use lightning::ln::types::ChannelId;

use super::layout;
use crate::transport::MAX_MESSAGE_LENGTH;

/// A message that cannot be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {kind}", TypeName(*.type_number))]
pub struct Undecodable {
    /// The message's type, if there was one.
    pub type_number: Option<u16>,
    /// The channel that the message names, if it got that far; see [`channel_id_of`](super::channel_id_of).
    pub channel_id: Option<ChannelId>,
    /// What is wrong.
    pub kind: UndecodableKind,
}

/// What is wrong with an [`Undecodable`] message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UndecodableKind {
    /// Fewer than the two bytes of a type.
    #[error("too short for a type")]
    NoType,
    /// More than a message may have.
    #[error("more than {MAX_MESSAGE_LENGTH} bytes")]
    TooLong,
    /// It ends before its fields do.
    #[error("truncated")]
    Truncated,
    /// A field that is not a compressed point of the curve.
    #[error("{field} is not a valid key")]
    InvalidKey {
        /// The spec's name of the first such field.
        field: &'static str,
    },
    /// A signature whose r or s is beyond the order of the curve: as good as a wrong one.
    #[error("signature is out of range")]
    InvalidSignature,
    /// A TLV stream that breaks the rules of BOLT 1, or has a record that is unknown and even.
    #[error("invalid extension")]
    InvalidExtension,
}

/// What follows from an [`Undecodable`] message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consequence {
    /// `error` for this channel, which fails; the connection stays.
    FailChannel(ChannelId),
    /// `error` for this channel, where the message names one; then close the connection.
    Close(Option<ChannelId>),
}

impl Undecodable {
    pub(super) fn without_type() -> Self {
        Self { type_number: None, channel_id: None, kind: UndecodableKind::NoType }
    }

    pub(super) fn too_long(type_number: u16) -> Self {
        Self { type_number: Some(type_number), channel_id: None, kind: UndecodableKind::TooLong }
    }

    /// Finds out what is wrong with `bytes`, which could not be decoded as `type_number`.
    // LDK has one error for a bad key, a bad signature and a bad extension.  The reactions differ, so look again.
    pub(super) fn judge(type_number: u16, bytes: &[u8]) -> Self {
        let is_key = |offset| {
            layout::key(bytes, offset).is_some_and(|key| PublicKey::from_slice(key).is_ok())
        };
        let kind = if bytes.len() < layout::payload_end(type_number, bytes) {
            UndecodableKind::Truncated
        } else if let Some(&(field, _)) =
            layout::keys(type_number).iter().find(|(_, offset)| !is_key(*offset))
        {
            UndecodableKind::InvalidKey { field }
        } else if layout::signature(type_number, bytes)
            .is_some_and(|rs| Signature::from_compact(rs).is_err())
        {
            UndecodableKind::InvalidSignature
        } else {
            UndecodableKind::InvalidExtension
        };
        Self { type_number: Some(type_number), channel_id: layout::channel_id_of(bytes), kind }
    }

    /// What follows for the channel and the connection.
    pub fn consequence(&self) -> Consequence {
        match (self.kind, self.channel_id) {
            (
                UndecodableKind::InvalidKey { .. } | UndecodableKind::InvalidSignature,
                Some(channel_id),
            ) => Consequence::FailChannel(channel_id),
            // B1-MSG-R-04 and B1-MSG-R-07; that the channel is told of it is the choice of B1-MSG-R-05 and B1-MSG-R-08.
            (_, channel_id) => Consequence::Close(channel_id),
        }
    }

    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self.kind {
            UndecodableKind::NoType => "message-without-type",
            UndecodableKind::TooLong => "message-too-long",
            UndecodableKind::Truncated => "message-truncated",
            UndecodableKind::InvalidKey { .. } => "message-invalid-key",
            UndecodableKind::InvalidSignature => "message-invalid-signature",
            UndecodableKind::InvalidExtension => "message-invalid-extension",
        }
    }
}

/// The spec's name of a message type, for people.
struct TypeName(Option<u16>);

impl fmt::Display for TypeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            None => "message",
            Some(layout::WARNING) => "warning",
            Some(layout::INIT) => "init",
            Some(layout::ERROR) => "error",
            Some(layout::PING) => "ping",
            Some(layout::PONG) => "pong",
            Some(layout::OPEN_CHANNEL) => "open_channel",
            Some(layout::ACCEPT_CHANNEL) => "accept_channel",
            Some(layout::FUNDING_CREATED) => "funding_created",
            Some(layout::FUNDING_SIGNED) => "funding_signed",
            Some(layout::CHANNEL_READY) => "channel_ready",
            Some(layout::SHUTDOWN) => "shutdown",
            Some(layout::CHANNEL_REESTABLISH) => "channel_reestablish",
            Some(other) => return write!(f, "message of type {other}"),
        })
    }
}
