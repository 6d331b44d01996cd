//! How one message becomes a frame, and back: the only place that knows the two framings.
//!
//! | framing | header | body |
//! |---|---|---|
//! | BOLT 8 | encrypted u16 length and its MAC, 18 bytes | encrypted message and its MAC, `l + 16` bytes |
//! | length prefix | u32 length | message |

use super::bolt8::cipher::{CipherState, MAC_LENGTH};
use super::{MAX_MESSAGE_LENGTH, TransportError};

const BOLT8_LENGTH: usize = 2;
const BOLT8_HEADER: usize = BOLT8_LENGTH + MAC_LENGTH;
const PREFIX_HEADER: usize = 4;

/// Turns messages into frames.
pub(super) enum FrameEncoder {
    /// BOLT 8, with the state of the sending direction.
    Bolt8(CipherState),
    /// Length and plaintext.
    LengthPrefix,
}

impl FrameEncoder {
    /// Appends the frame of `message` to `buffer`.  A message that is too long changes nothing (B8-TR-S-01).
    pub(super) fn append(
        &mut self,
        message: &[u8],
        buffer: &mut Vec<u8>,
    ) -> Result<(), TransportError> {
        let too_long = TransportError::MessageTooLong { length: message.len() };
        match self {
            Self::Bolt8(cipher) => {
                let length = u16::try_from(message.len()).map_err(|_| too_long)?;
                buffer.reserve(BOLT8_HEADER + message.len() + MAC_LENGTH);
                append_encrypted(cipher, &length.to_be_bytes(), buffer);
                append_encrypted(cipher, message, buffer);
            }
            Self::LengthPrefix => {
                // The same bound as BOLT 8 has, so that a message fits every transport or none.
                let length = u16::try_from(message.len()).map_err(|_| too_long)?;
                buffer.reserve(PREFIX_HEADER + message.len());
                buffer.extend_from_slice(&u32::from(length).to_be_bytes());
                buffer.extend_from_slice(message);
            }
        }
        Ok(())
    }
}

/// Encrypts in the buffer itself: no other copy of the message is made.
fn append_encrypted(cipher: &mut CipherState, plaintext: &[u8], buffer: &mut Vec<u8>) {
    let start = buffer.len();
    buffer.extend_from_slice(plaintext);
    let mac = cipher.encrypt(&mut buffer[start..]);
    buffer.extend_from_slice(&mac);
}

/// Turns frames into messages, header first.
pub(super) enum FrameDecoder {
    /// BOLT 8, with the state of the receiving direction.
    Bolt8(CipherState),
    /// Length and plaintext.
    LengthPrefix,
}

impl FrameDecoder {
    /// Bytes of a header on the wire.
    pub(super) fn header_length(&self) -> usize {
        match self {
            Self::Bolt8(_) => BOLT8_HEADER,
            Self::LengthPrefix => PREFIX_HEADER,
        }
    }

    /// Judges a whole header; returns the bytes of the body on the wire.
    pub(super) fn header(&mut self, header: &mut [u8]) -> Result<usize, TransportError> {
        match self {
            Self::Bolt8(cipher) => {
                let length = cipher.decrypt(header).map_err(|_| TransportError::BadLengthMac)?;
                let length =
                    length.try_into().expect("a BOLT 8 header holds two bytes beside its MAC");
                Ok(usize::from(u16::from_be_bytes(length)) + MAC_LENGTH)
            }
            Self::LengthPrefix => {
                let announced =
                    u32::from_be_bytes(header.try_into().expect("a prefix has four bytes"));
                match usize::try_from(announced) {
                    Ok(length) if length <= MAX_MESSAGE_LENGTH => Ok(length),
                    _ => Err(TransportError::FrameTooLong { announced }),
                }
            }
        }
    }

    /// Opens a whole body of the length that [`Self::header`] told; returns the message, which lies inside it.
    pub(super) fn body<'b>(&mut self, body: &'b mut [u8]) -> Result<&'b [u8], TransportError> {
        match self {
            Self::Bolt8(cipher) => cipher
                .decrypt(body)
                .map(|message| &*message)
                .map_err(|_| TransportError::BadMessageMac),
            Self::LengthPrefix => Ok(body),
        }
    }
}
