//! How values stand in a message: big-endian, keys compressed, no padding.
//!
//! Both forms of the wire use it.  What is read comes from the other side of a trust boundary: each
//! read checks that the bytes are there and that they mean something, and [`Reader::end`] that there
//! are no more of them.

use bitcoin::secp256k1::PublicKey;

use crate::error::HsmError;

/// Why a message cannot be read.  Names no byte of it: it may have held a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("a message ends inside {0}")]
    Short(&'static str),
    #[error("{0} is not valid")]
    Invalid(&'static str),
    #[error("{0} carries a secret, which nobody here asked for")]
    Secret(&'static str),
    #[error("it is {0}")]
    OtherWire(&'static str),
    #[error("{0} bytes follow the end of the message")]
    Trailing(usize),
}

impl From<Malformed> for HsmError {
    fn from(malformed: Malformed) -> Self {
        Self::Protocol(malformed.to_string())
    }
}

/// Reads values off the front of a message.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn at_end(&self) -> bool {
        self.0.is_empty()
    }

    /// All has been read.
    pub(super) fn end(&self) -> Result<(), Malformed> {
        if self.at_end() { Ok(()) } else { Err(Malformed::Trailing(self.0.len())) }
    }

    pub(super) fn bytes(
        &mut self,
        length: usize,
        what: &'static str,
    ) -> Result<&'a [u8], Malformed> {
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(Malformed::Short(what))?;
        self.0 = rest;
        Ok(bytes)
    }

    pub(super) fn array<const N: usize>(
        &mut self,
        what: &'static str,
    ) -> Result<[u8; N], Malformed> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(Malformed::Short(what))?;
        self.0 = rest;
        Ok(*bytes)
    }

    pub(super) fn u8(&mut self, what: &'static str) -> Result<u8, Malformed> {
        self.array(what).map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self, what: &'static str) -> Result<u16, Malformed> {
        self.array(what).map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, Malformed> {
        self.array(what).map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self, what: &'static str) -> Result<u64, Malformed> {
        self.array(what).map(u64::from_be_bytes)
    }

    /// 0 or 1.
    pub(super) fn bool(&mut self, what: &'static str) -> Result<bool, Malformed> {
        match self.u8(what)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed::Invalid(what)),
        }
    }

    /// A length of two bytes, then so many bytes.
    pub(super) fn short_bytes(&mut self, what: &'static str) -> Result<&'a [u8], Malformed> {
        let length = self.u16(what)?;
        self.bytes(length.into(), what)
    }

    /// A length of four bytes, then so many bytes.
    pub(super) fn long_bytes(&mut self, what: &'static str) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(self.u32(what)?).map_err(|_| Malformed::Short(what))?;
        self.bytes(length, what)
    }

    pub(super) fn public_key(&mut self, what: &'static str) -> Result<PublicKey, Malformed> {
        let bytes = self.array::<33>(what)?;
        PublicKey::from_slice(&bytes).map_err(|_| Malformed::Invalid(what))
    }
}

/// Puts values at the end of a message.
pub(super) trait Write {
    fn put(&mut self, bytes: &[u8]);

    fn put_bool(&mut self, value: bool) {
        self.put(&[u8::from(value)]);
    }

    fn put_u16(&mut self, value: u16) {
        self.put(&value.to_be_bytes());
    }

    fn put_u32(&mut self, value: u32) {
        self.put(&value.to_be_bytes());
    }

    fn put_u64(&mut self, value: u64) {
        self.put(&value.to_be_bytes());
    }

    /// A length of two bytes, then the bytes.
    fn put_short_bytes(&mut self, bytes: &[u8]) {
        self.put_u16(u16::try_from(bytes.len()).expect("scripts and texts are cut before"));
        self.put(bytes);
    }

    /// A length of four bytes, then the bytes.
    fn put_long_bytes(&mut self, bytes: &[u8]) {
        self.put_u32(u32::try_from(bytes.len()).expect("a transaction is smaller than a block"));
        self.put(bytes);
    }

    fn put_public_key(&mut self, key: &PublicKey) {
        self.put(&key.serialize());
    }
}

impl Write for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}
