//! Where things stand in the bytes of a message.  Offsets count from the type number, which is at 0.

use bitcoin::secp256k1::constants::{COMPACT_SIGNATURE_SIZE, PUBLIC_KEY_SIZE};
use lightning::ln::types::ChannelId;

pub(super) const WARNING: u16 = 1;
pub(super) const INIT: u16 = 16;
pub(super) const ERROR: u16 = 17;
pub(super) const PING: u16 = 18;
pub(super) const PONG: u16 = 19;
pub(super) const OPEN_CHANNEL: u16 = 32;
pub(super) const ACCEPT_CHANNEL: u16 = 33;
pub(super) const FUNDING_CREATED: u16 = 34;
pub(super) const FUNDING_SIGNED: u16 = 35;
pub(super) const CHANNEL_READY: u16 = 36;
pub(super) const SHUTDOWN: u16 = 38;
/// Of channel establishment v2, whose first message has its id where v1 has it.
const OPEN_CHANNEL2: u16 = 64;
pub(super) const CHANNEL_REESTABLISH: u16 = 136;

/// The channel that a message of BOLT 2 (types 32 to 255) names: its `channel_id` or `temporary_channel_id`.
///
/// `None` for other messages, and where the bytes end before the id does.  The message may be one that
/// [`decode`](super::decode) knows nothing of.
pub fn channel_id_of(bytes: &[u8]) -> Option<ChannelId> {
    let offset = match type_number(bytes)? {
        OPEN_CHANNEL | OPEN_CHANNEL2 => 34,
        32..=255 => 2,
        _ => return None,
    };
    bytes.get(offset..)?.first_chunk().map(|&id| ChannelId(id))
}

fn type_number(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().map(|&number| u16::from_be_bytes(number))
}

/// Bytes of a known message up to its extension, as far as the lengths inside tell.
///
/// Of a message that ends before such a length, the bytes that it needs to get there.
pub(super) fn payload_end(type_number: u16, bytes: &[u8]) -> usize {
    match type_number {
        INIT => after_length_at(after_length_at(2, bytes), bytes),
        WARNING | ERROR | SHUTDOWN => after_length_at(34, bytes),
        PING => after_length_at(4, bytes),
        PONG => after_length_at(2, bytes),
        OPEN_CHANNEL => 321,
        ACCEPT_CHANNEL => 272,
        FUNDING_CREATED => 132,
        FUNDING_SIGNED => 98,
        CHANNEL_READY => 67,
        CHANNEL_REESTABLISH => 115,
        _ => 2,
    }
}

/// The end of a field whose length, a `u16`, stands at `offset`.
fn after_length_at(offset: usize, bytes: &[u8]) -> usize {
    let length = bytes
        .get(offset..)
        .and_then(|rest| rest.first_chunk())
        .map_or(0, |&length| u16::from_be_bytes(length));
    offset + 2 + usize::from(length)
}

/// The keys of a message in their order: name and offset.
pub(super) fn keys(type_number: u16) -> &'static [(&'static str, usize)] {
    match type_number {
        OPEN_CHANNEL => &[
            ("funding_pubkey", 122),
            ("revocation_basepoint", 155),
            ("payment_basepoint", 188),
            ("delayed_payment_basepoint", 221),
            ("htlc_basepoint", 254),
            ("first_per_commitment_point", 287),
        ],
        ACCEPT_CHANNEL => &[
            ("funding_pubkey", 74),
            ("revocation_basepoint", 107),
            ("payment_basepoint", 140),
            ("delayed_payment_basepoint", 173),
            ("htlc_basepoint", 206),
            ("first_per_commitment_point", 239),
        ],
        CHANNEL_READY => &[("second_per_commitment_point", 34)],
        CHANNEL_REESTABLISH => &[("my_current_per_commitment_point", 82)],
        _ => &[],
    }
}

/// The bytes of a key at `offset`.
pub(super) fn key(bytes: &[u8], offset: usize) -> Option<&[u8; PUBLIC_KEY_SIZE]> {
    bytes.get(offset..)?.first_chunk()
}

/// The bytes of a message's commitment signature, if it has one.
pub(super) fn signature(type_number: u16, bytes: &[u8]) -> Option<&[u8; COMPACT_SIGNATURE_SIZE]> {
    let offset = match type_number {
        FUNDING_CREATED => 68,
        FUNDING_SIGNED => 34,
        _ => return None,
    };
    bytes.get(offset..)?.first_chunk()
}
