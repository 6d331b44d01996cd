//! What a peer says in words: `error` and `warning`.

use lightning::ln::msgs::DecodeError;
use lightning::ln::types::ChannelId;
use lightning::util::ser::Readable;

/// Characters of a peer's text that are kept: room for a transaction in hex, which a bad signature's `error` may hold.
pub const MAX_PRINTABLE_LENGTH: usize = 4096;

const REPLACEMENT: char = '?';

/// The bytes of a peer as text that harms no terminal and no log (B1-ERR-R-06).
///
/// Each byte outside 32..=126 becomes `?`, and nothing is kept beyond [`MAX_PRINTABLE_LENGTH`].
pub fn printable(bytes: &[u8]) -> String {
    let character =
        |&byte: &u8| if (32..=126).contains(&byte) { char::from(byte) } else { REPLACEMENT };
    bytes.iter().take(MAX_PRINTABLE_LENGTH).map(character).collect()
}

/// The body of an `error` or `warning`.
// Not LDK's decoder, which refuses what is not UTF-8: an `error` ends a channel whatever its bytes are.
pub(super) fn read(mut body: &[u8]) -> Result<(ChannelId, String), DecodeError> {
    let channel_id = Readable::read(&mut body)?;
    let length: u16 = Readable::read(&mut body)?;
    // What follows is an extension, and ignored: no TLV is defined for these two (B1-MSG-R-06).
    let data = body.get(..usize::from(length)).ok_or(DecodeError::ShortRead)?;
    Ok((channel_id, printable(data)))
}
