//! Which features of BOLT 9 the two `init` messages agree on.

use lightning_types::features::InitFeatures;

/// A feature that channel establishment looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Feature {
    /// Both sides send TLV 0 of `open_channel` and `accept_channel` (B9-FEAT-S-09).
    UpfrontShutdownScript,
    /// Basic channel type with an untweaked `to_remote` key (B9-FEAT-S-08).
    StaticRemotekey,
    /// Channels of 2^24 sat and more (B9-FEAT-S-10).
    LargeChannels,
    /// Anchor outputs with fee-free HTLC transactions (B9-FEAT-S-11).
    Anchors,
    /// Shutdown scripts of any witness version (B9-FEAT-S-12).
    ShutdownAnysegwit,
    /// Channel establishment v2; rules out v1 where negotiated (B9-FEAT-S-13).
    DualFund,
    /// Channels known to others by alias only (B9-FEAT-S-14).
    ScidAlias,
    /// Channels used before their funding confirms (B9-FEAT-S-15).
    Zeroconf,
    /// The simpler closing; admits OP_RETURN shutdown scripts (B9-FEAT-S-16).
    SimpleClose,
}

impl Feature {
    /// The even bit, which makes the feature compulsory; the odd one above it makes it optional.
    pub const fn even_bit(self) -> u16 {
        match self {
            Self::UpfrontShutdownScript => 4,
            Self::StaticRemotekey => 12,
            Self::LargeChannels => 18,
            Self::Anchors => 22,
            Self::ShutdownAnysegwit => 26,
            Self::DualFund => 28,
            Self::ScidAlias => 46,
            Self::Zeroconf => 50,
            Self::SimpleClose => 60,
        }
    }

    const fn requires(self) -> Option<Feature> {
        match self {
            Self::Zeroconf => Some(Self::ScidAlias),
            Self::SimpleClose => Some(Self::ShutdownAnysegwit),
            _ => None,
        }
    }
}

/// Features in which one depends on another (B1-INIT-R-07).
const DEPENDENT: [Feature; 2] = [Feature::Zeroconf, Feature::SimpleClose];

fn has_bit(features: &InitFeatures, bit: u16) -> bool {
    let byte = features.le_flags().get(usize::from(bit / 8)).copied().unwrap_or(0);
    byte & (1 << (bit % 8)) != 0
}

/// Whether `features` offers `feature`, as optional or as compulsory.
pub fn offers(features: &InitFeatures, feature: Feature) -> bool {
    requires(features, feature) || has_bit(features, feature.even_bit() + 1)
}

/// Whether `features` makes `feature` compulsory.
pub fn requires(features: &InitFeatures, feature: Feature) -> bool {
    has_bit(features, feature.even_bit())
}

/// The first feature offered without the one it depends on, if any: such an `init` closes the
/// connection (B1-INIT-R-07).
pub fn missing_dependency(features: &InitFeatures) -> Option<Feature> {
    DEPENDENT.into_iter().find(|&feature| {
        offers(features, feature)
            && feature.requires().is_some_and(|needed| !offers(features, needed))
    })
}

/// The features of both `init` messages of one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NegotiatedFeatures {
    /// What we sent.
    pub local: InitFeatures,
    /// What the peer sent, both of its bitmaps OR-ed.
    pub remote: InitFeatures,
}

impl NegotiatedFeatures {
    /// Both offered it, or we made it compulsory: a peer that stays can do it (B1-INIT-B-01).
    pub fn negotiated(&self, feature: Feature) -> bool {
        requires(&self.local, feature)
            || (offers(&self.local, feature) && offers(&self.remote, feature))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(bits: &[u16]) -> InitFeatures {
        let mut flags = vec![0; 9];
        for bit in bits {
            flags[usize::from(bit / 8)] |= 1 << (bit % 8);
        }
        InitFeatures::from_le_bytes(flags)
    }

    // req: B1-INIT-B-01
    #[test]
    fn negotiated_when_both_offer_or_we_require() {
        for (local, remote, negotiated) in [
            (vec![], vec![], false),
            (vec![], vec![18], false),
            (vec![], vec![19], false),
            (vec![19], vec![], false),
            (vec![19], vec![18], true),
            (vec![19], vec![19], true),
            (vec![18], vec![], true),
            (vec![18], vec![18], true),
            (vec![18], vec![19], true),
        ] {
            let features = NegotiatedFeatures { local: with(&local), remote: with(&remote) };
            assert_eq!(
                features.negotiated(Feature::LargeChannels),
                negotiated,
                "{local:?} {remote:?}"
            );
        }
    }

    // req: B1-INIT-R-07
    #[test]
    fn zeroconf_needs_scid_alias_and_simple_close_needs_anysegwit() {
        assert_eq!(missing_dependency(&with(&[51])), Some(Feature::Zeroconf));
        assert_eq!(missing_dependency(&with(&[50, 47])), None);
        assert_eq!(missing_dependency(&with(&[61])), Some(Feature::SimpleClose));
        assert_eq!(missing_dependency(&with(&[61, 26])), None);
        assert_eq!(missing_dependency(&InitFeatures::empty()), None);
    }
}
