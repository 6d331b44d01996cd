//! A set of channel types.

use core::fmt;

use crate::channel_type::ChannelType;

/// Some of the channel types that are defined, as small as a byte: every opening carries one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChannelTypes(u8);

impl ChannelTypes {
    /// All that are defined.
    pub const ALL: Self = Self(u8::MAX);
    /// None of them.
    pub const NONE: Self = Self(0);

    /// Whether `channel_type` is among them.
    pub fn contains(self, channel_type: ChannelType) -> bool {
        self.0 & bit(channel_type) != 0
    }

    /// Those that are in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// As a byte, to be stored or sent: bit n is for the nth of [`ChannelType::all`].
    pub const fn to_bits(self) -> u8 {
        self.0
    }

    /// From such a byte.
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = ChannelType> {
        ChannelType::all().into_iter().filter(move |&channel_type| self.contains(channel_type))
    }
}

fn bit(channel_type: ChannelType) -> u8 {
    let index = ChannelType::all().iter().position(|&defined| defined == channel_type);
    1 << index.expect("every channel type is among all")
}

impl FromIterator<ChannelType> for ChannelTypes {
    fn from_iter<I: IntoIterator<Item = ChannelType>>(types: I) -> Self {
        Self(types.into_iter().fold(0, |bits, channel_type| bits | bit(channel_type)))
    }
}

impl fmt::Debug for ChannelTypes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in_and_nothing_else() {
        assert!(ChannelType::all().into_iter().all(|one| ChannelTypes::ALL.contains(one)));
        assert_eq!(ChannelTypes::NONE.iter().count(), 0);
        for one in ChannelType::all() {
            let only: ChannelTypes = [one].into_iter().collect();
            assert!(only.iter().eq([one]));
            assert_eq!(only.and(ChannelTypes::ALL), only);
            let rest: ChannelTypes =
                ChannelType::all().into_iter().filter(|it| *it != one).collect();
            assert_eq!(only.and(rest), ChannelTypes::NONE);
            assert_eq!(rest.iter().count(), 7);
            assert_eq!(ChannelTypes::from_bits(rest.to_bits()), rest);
            assert_eq!(only.to_bits(), !rest.to_bits());
        }
    }
}
