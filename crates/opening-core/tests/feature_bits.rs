//! The feature bits that channel establishment looks at.

mod common;

use common::bits;
use opening_core::{Feature, NegotiatedFeatures};

// req: B9-FEAT-S-09, B9-FEAT-S-10, B9-FEAT-S-11, B9-FEAT-S-12, B9-FEAT-S-13, B9-FEAT-S-14, B9-FEAT-S-15, B9-FEAT-S-16
#[test]
fn each_feature_has_its_pair_of_bits() {
    for (feature, even) in [
        (Feature::UpfrontShutdownScript, 4),
        (Feature::StaticRemotekey, 12),
        (Feature::LargeChannels, 18),
        (Feature::Anchors, 22),
        (Feature::ShutdownAnysegwit, 26),
        (Feature::DualFund, 28),
        (Feature::ScidAlias, 46),
        (Feature::Zeroconf, 50),
        (Feature::SimpleClose, 60),
    ] {
        for bit in 0..64 {
            let features = NegotiatedFeatures { local: bits(&[bit]), remote: bits(&[bit]) };
            let in_pair = bit == even || bit == even + 1;
            assert_eq!(features.negotiated(feature), in_pair, "{feature:?} {bit}");
        }
    }
}
