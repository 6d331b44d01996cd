//! Channel types: an explicit enumeration, spelled in feature bits (B2-TYPE-B-01).

use core::fmt;

use lightning_types::features::ChannelTypeFeatures;

use crate::channel_types::ChannelTypes;
use crate::features::{Feature, NegotiatedFeatures};

/// The form of the commitment transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CommitmentFormat {
    /// `to_remote` pays the other side's `payment_basepoint`; no anchors (B2-TYPE-B-02).
    StaticRemotekey,
    /// The same with two anchors of 330 sat and a delay of one block on `to_remote` (B2-TYPE-B-03).
    Anchors,
}

/// One of the eight defined channel types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChannelType {
    /// The form of the commitment transactions.
    pub commitment_format: CommitmentFormat,
    /// Known to others by alias only; never together with `announce_channel` (B2-TYPE-B-04).
    pub scid_alias: bool,
    /// Usable before its funding confirms (B2-TYPE-B-05).
    pub zeroconf: bool,
}

impl ChannelType {
    /// Anchors, without variations.
    pub const ANCHORS: Self = Self::of(CommitmentFormat::Anchors);

    /// Static remote key, without anchors or variations.
    pub const STATIC_REMOTEKEY: Self = Self::of(CommitmentFormat::StaticRemotekey);

    /// The plain type of this form.
    pub const fn of(commitment_format: CommitmentFormat) -> Self {
        Self { commitment_format, scid_alias: false, zeroconf: false }
    }

    /// The best type that both sides offer: anchors where negotiated, else static remote key
    /// (B2-OPEN-S-16).
    pub fn best(features: &NegotiatedFeatures) -> Self {
        if features.negotiated(Feature::Anchors) { Self::ANCHORS } else { Self::STATIC_REMOTEKEY }
    }

    /// The best type that both sides offer and that is among `taken`; without one, the best that
    /// both offer, which is refused for what it is.
    pub fn best_of(features: &NegotiatedFeatures, taken: ChannelTypes) -> Self {
        let best = Self::best(features);
        let mut lesser = core::iter::successors(Some(best), |one| one.lesser());
        lesser.find(|&one| taken.contains(one)).unwrap_or(best)
    }

    /// The next lesser type, for a peer that refuses this one: first without `scid_alias`, then
    /// without anchors.  `zeroconf` stays: it is about trust, which no refusal changes.
    pub const fn lesser(self) -> Option<Self> {
        match self {
            Self { scid_alias: true, .. } => Some(Self { scid_alias: false, ..self }),
            Self { commitment_format: CommitmentFormat::Anchors, .. } => {
                Some(Self { commitment_format: CommitmentFormat::StaticRemotekey, ..self })
            }
            _ => None,
        }
    }

    /// Whether both anchors are there to be paid for.
    pub const fn has_anchors(self) -> bool {
        matches!(self.commitment_format, CommitmentFormat::Anchors)
    }

    /// The features it is made of, without the one that every node has by now: `static_remotekey`
    /// need not be offered by the peer.
    pub fn features(self) -> impl Iterator<Item = Feature> {
        [
            (self.has_anchors(), Feature::Anchors),
            (self.scid_alias, Feature::ScidAlias),
            (self.zeroconf, Feature::Zeroconf),
        ]
        .into_iter()
        .filter_map(|(set, feature)| set.then_some(feature))
    }

    /// The type whose even bits are exactly `bits`; `None` where no type is defined so.
    pub fn from_bits(bits: &[u16]) -> Option<Self> {
        if bits.iter().any(|&bit| bit >= LENGTH * 8) {
            return None;
        }
        let mut flags = [0; LENGTH as usize];
        for bit in bits {
            flags[usize::from(bit / 8)] |= 1 << (bit % 8);
        }
        let length = flags.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        Self::from_features(&ChannelTypeFeatures::from_le_bytes(flags[..length].to_vec()))
    }

    /// The type that `features` spells; `None` where it is undefined or not written in the
    /// smallest bitmap, which we hold to be unsuitable too.
    // `ChannelTypeFeatures` compares and re-encodes without the padding: only the flags tell.
    pub fn from_features(features: &ChannelTypeFeatures) -> Option<Self> {
        let flags = features.le_flags();
        Self::all().into_iter().find(|defined| {
            let (bytes, length) = defined.le_bytes();
            flags == &bytes[..length]
        })
    }

    /// As it goes onto the wire, in the smallest bitmap (B2-OPEN-S-15).
    pub fn to_features(self) -> ChannelTypeFeatures {
        let (bytes, length) = self.le_bytes();
        ChannelTypeFeatures::from_le_bytes(bytes[..length].to_vec())
    }

    /// Every defined type.
    pub fn all() -> [Self; 8] {
        core::array::from_fn(|index| Self {
            commitment_format: if index & 1 == 0 {
                CommitmentFormat::StaticRemotekey
            } else {
                CommitmentFormat::Anchors
            },
            scid_alias: index & 2 != 0,
            zeroconf: index & 4 != 0,
        })
    }

    fn le_bytes(self) -> ([u8; LENGTH as usize], usize) {
        let mut bytes = [0; LENGTH as usize];
        for feature in self.features().chain([Feature::StaticRemotekey]) {
            let bit = feature.even_bit();
            bytes[usize::from(bit / 8)] |= 1 << (bit % 8);
        }
        let last = bytes.iter().rposition(|&byte| byte != 0).expect("static_remotekey is set");
        (bytes, last + 1)
    }
}

/// Bytes of the longest bitmap of a defined type: `option_zeroconf` is bit 50.
const LENGTH: u16 = 7;

impl fmt::Display for ChannelType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.commitment_format {
            CommitmentFormat::StaticRemotekey => "static_remotekey",
            CommitmentFormat::Anchors => "anchors",
        })?;
        if self.scid_alias {
            f.write_str("+scid_alias")?;
        }
        if self.zeroconf {
            f.write_str("+zeroconf")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn be_hex(features: &ChannelTypeFeatures) -> String {
        hex::encode(features.le_flags().iter().rev().copied().collect::<Vec<_>>())
    }

    // req: B2-TYPE-B-02, B2-TYPE-B-03, B2-TYPE-B-04, B2-TYPE-B-05, B2-OPEN-S-15
    #[test]
    fn the_eight_types_encode_minimally_and_come_back() {
        let expected = [
            "1000",
            "401000",
            "400000001000",
            "400000401000",
            "04000000001000",
            "04000000401000",
            "04400000001000",
            "04400000401000",
        ];
        for (defined, expected) in ChannelType::all().into_iter().zip(expected) {
            let features = defined.to_features();
            assert_eq!(be_hex(&features), expected);
            assert_eq!(ChannelType::from_features(&features), Some(defined));
        }
    }

    // req: B2-TYPE-B-01, B2-TYPE-B-03
    #[test]
    fn nothing_else_is_a_type() {
        for be in ["", "2000", "400000", "403000", "001000", "0000401000", "8000000000401000"] {
            let le = hex::decode(be).unwrap().into_iter().rev().collect();
            let features = ChannelTypeFeatures::from_le_bytes(le);
            assert_eq!(ChannelType::from_features(&features), None, "{be}");
        }
        for bits in [&[][..], &[13], &[22], &[12, 13], &[12, 22, 24], &[12, 60], &[12, 999]] {
            assert_eq!(ChannelType::from_bits(bits), None, "{bits:?}");
        }
        assert_eq!(ChannelType::from_bits(&[22, 12]), Some(ChannelType::ANCHORS));
    }
}
