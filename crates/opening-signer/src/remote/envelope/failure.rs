//! How an error crosses the wire.

use crate::error::HsmError;
use crate::remote::codec::{Malformed, Reader, Write};

/// Bytes of a rule's name.
const MAX_TAG: usize = 64;
/// Bytes of a text for the operator.
const MAX_DETAIL: usize = 512;

const UNAVAILABLE: u8 = 1;
const INDETERMINATE: u8 = 2;
const DEFERRED: u8 = 3;
const REFUSED: u8 = 4;
const INVALID_REQUEST: u8 = 5;
const PROTOCOL: u8 = 6;
const STORAGE: u8 = 7;
const BAD_COUNTERPARTY_SIGNATURE: u8 = 8;
const ABORTED: u8 = 9;

pub(super) fn put(message: &mut Vec<u8>, error: &HsmError) {
    let (code, tag, detail) = match error {
        HsmError::Unavailable(detail) => (UNAVAILABLE, "", detail.as_str()),
        HsmError::Indeterminate(detail) => (INDETERMINATE, "", detail.as_str()),
        HsmError::Deferred => (DEFERRED, "", ""),
        HsmError::Refused { tag, detail } => (REFUSED, tag.as_str(), detail.as_str()),
        HsmError::InvalidRequest(detail) => (INVALID_REQUEST, "", detail.as_str()),
        HsmError::Protocol(detail) => (PROTOCOL, "", detail.as_str()),
        HsmError::Storage(detail) => (STORAGE, "", detail.as_str()),
        HsmError::BadCounterpartySignature => (BAD_COUNTERPARTY_SIGNATURE, "", ""),
        HsmError::Aborted => (ABORTED, "", ""),
    };
    message.put(&[code]);
    message.put_short_bytes(cut(tag, MAX_TAG).as_bytes());
    message.put_short_bytes(cut(detail, MAX_DETAIL).as_bytes());
}

pub(super) fn read(reader: &mut Reader<'_>) -> Result<HsmError, Malformed> {
    let code = reader.u8("the error code")?;
    let tag = text(reader, MAX_TAG, "the tag")?;
    let detail = text(reader, MAX_DETAIL, "the detail")?;
    if code != REFUSED && !tag.is_empty() {
        return Err(Malformed::Invalid("the tag"));
    }
    let error = match code {
        UNAVAILABLE => HsmError::Unavailable(detail),
        INDETERMINATE => HsmError::Indeterminate(detail),
        REFUSED => HsmError::Refused { tag, detail },
        INVALID_REQUEST => HsmError::InvalidRequest(detail),
        PROTOCOL => HsmError::Protocol(detail),
        STORAGE => HsmError::Storage(detail),
        _ if !detail.is_empty() => return Err(Malformed::Invalid("the error")),
        DEFERRED => HsmError::Deferred,
        BAD_COUNTERPARTY_SIGNATURE => HsmError::BadCounterpartySignature,
        ABORTED => HsmError::Aborted,
        _ => return Err(Malformed::Invalid("the error code")),
    };
    Ok(error)
}

/// The longest beginning that fits and ends with a whole character.
fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

/// It goes to the operator's terminal: what could move its cursor does not.
fn text(reader: &mut Reader<'_>, max: usize, what: &'static str) -> Result<String, Malformed> {
    let bytes = reader.short_bytes(what)?;
    if bytes.len() > max {
        return Err(Malformed::Invalid(what));
    }
    let text = str::from_utf8(bytes).map_err(|_| Malformed::Invalid(what))?;
    Ok(text.replace(char::is_control, "?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crossed(error: &HsmError) -> HsmError {
        let mut message = Vec::new();
        put(&mut message, error);
        let mut reader = Reader::new(&message);
        let read = read(&mut reader).unwrap();
        reader.end().unwrap();
        read
    }

    #[test]
    fn every_error_crosses_unchanged() {
        let text = || "why, in détail".to_owned();
        for error in [
            HsmError::Unavailable(text()),
            HsmError::Indeterminate(text()),
            HsmError::Deferred,
            HsmError::Refused { tag: "push-too-large".into(), detail: text() },
            HsmError::InvalidRequest(text()),
            HsmError::Protocol(text()),
            HsmError::Storage(text()),
            HsmError::BadCounterpartySignature,
            HsmError::Aborted,
        ] {
            assert_eq!(crossed(&error), error);
        }
    }

    #[test]
    fn texts_are_cut_at_a_whole_character_and_lose_control_characters() {
        let long = HsmError::Refused { tag: "t".repeat(65), detail: "é".repeat(257) };
        let expected = HsmError::Refused { tag: "t".repeat(64), detail: "é".repeat(256) };
        assert_eq!(crossed(&long), expected);
        let odd = HsmError::Storage(format!("x{}", "é".repeat(256)));
        assert_eq!(crossed(&odd), HsmError::Storage(format!("x{}", "é".repeat(255))));
        let rude = HsmError::Storage("a\u{1b}[2Jb\n".into());
        assert_eq!(crossed(&rude), HsmError::Storage("a?[2Jb?".into()));
    }

    #[test]
    fn what_is_no_error_is_malformed() {
        let fails = |bytes: &[u8]| read(&mut Reader::new(bytes)).is_err();
        assert!(fails(&[0, 0, 0, 0, 0]));
        assert!(fails(&[10, 0, 0, 0, 0]));
        assert!(fails(&[DEFERRED, 0, 0, 0, 1, b'x']));
        assert!(fails(&[STORAGE, 0, 1, b'x', 0, 0]));
        assert!(fails(&[STORAGE, 0, 0, 0, 1, 0xff]));
        let detail = |length: u16| {
            let mut bytes = vec![STORAGE, 0, 0];
            bytes.put_short_bytes(&vec![b'x'; length.into()]);
            bytes
        };
        assert!(!fails(&detail(512)));
        assert!(fails(&detail(513)));
    }
}
