//! Where on the chain a funding output is, in eight bytes; aliases have the same form.

use core::fmt;
use core::str::FromStr;

/// Block height, transaction index and output index (B1-TYP-B-08), or an alias for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShortChannelId(u64);

const MAX_24_BITS: u32 = 0xff_ffff;

impl ShortChannelId {
    /// `None` where height or transaction index need more than 24 bits, or the output index more
    /// than 16.
    pub fn new(block_height: u32, transaction_index: u32, output_index: u32) -> Option<Self> {
        if block_height > MAX_24_BITS || transaction_index > MAX_24_BITS {
            return None;
        }
        let output_index = u16::try_from(output_index).ok()?;
        let high = u64::from(block_height) << 40 | u64::from(transaction_index) << 16;
        Some(Self(high | u64::from(output_index)))
    }

    /// As on the wire, big-endian; every number is one.
    pub const fn from_u64(id: u64) -> Self {
        Self(id)
    }

    /// As on the wire, big-endian.
    pub const fn to_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ShortChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(id) = self;
        write!(f, "{}x{}x{}", id >> 40, id >> 16 & u64::from(MAX_24_BITS), id & 0xffff)
    }
}

/// Text that is no short channel id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not of the form BLOCKxTRANSACTIONxOUTPUT")]
pub struct ParseShortChannelIdError;

impl FromStr for ShortChannelId {
    type Err = ParseShortChannelIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Digits only: `u32::from_str` would take a leading plus sign.
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        let mut parts =
            text.split('x').map(|part| digits(part).then(|| part.parse().ok()).flatten());
        let mut next = || parts.next().flatten().ok_or(ParseShortChannelIdError);
        let (block, transaction, output) = (next()?, next()?, next()?);
        if parts.next().is_some() {
            return Err(ParseShortChannelIdError);
        }
        Self::new(block, transaction, output).ok_or(ParseShortChannelIdError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // req: B1-TYP-B-08
    #[test]
    fn is_three_three_and_two_bytes() {
        let id = ShortChannelId::new(539_268, 845, 1).unwrap();
        assert_eq!(id.to_u64(), 0x083a_8400_034d_0001);
        assert_eq!(id.to_string(), "539268x845x1");
        assert_eq!("539268x845x1".parse(), Ok(id));
        assert_eq!(id.to_u64().to_be_bytes(), [0x08, 0x3a, 0x84, 0, 0x03, 0x4d, 0, 1]);
        assert_eq!(ShortChannelId::from_u64(0x083a_8400_034d_0001), id);
    }

    // req: B1-TYP-B-08
    #[test]
    fn takes_the_largest_of_each_part_and_nothing_beyond() {
        let largest = ShortChannelId::new(0xff_ffff, 0xff_ffff, 0xffff).unwrap();
        assert_eq!(largest.to_u64(), u64::MAX);
        assert_eq!(largest.to_string(), "16777215x16777215x65535");
        assert_eq!("16777215x16777215x65535".parse(), Ok(largest));
        for wrong in [
            "",
            "x",
            "xx",
            "1x2",
            "1x2x",
            "1x2x3x4",
            "16777216x0x0",
            "0x16777216x0",
            "0x0x65536",
            "ax1x1",
            "+1x1x1",
            "-1x1x1",
            "1x 1x1",
            "1X1X1",
            "99999999999x1x1",
        ] {
            assert_eq!(wrong.parse::<ShortChannelId>(), Err(ParseShortChannelIdError), "{wrong}");
        }
    }
}
