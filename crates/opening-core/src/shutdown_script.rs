//! Which scripts a mutual close may pay to.

use bitcoin::Script;

use crate::features::{Feature, NegotiatedFeatures};

/// Whether `script` has one of the forms that `shutdown` and `upfront_shutdown_script` allow
/// (B2-SHUT-S-05).  An empty one has not: upfront, it means "none".
pub fn is_valid_shutdown_script(script: &Script, features: &NegotiatedFeatures) -> bool {
    match script.as_bytes() {
        // OP_0, then the push of a key hash or a script hash.
        [0x00, 20, program @ ..] => program.len() == 20,
        [0x00, 32, program @ ..] => program.len() == 32,
        // OP_1 to OP_16, then one push.
        [0x51..=0x60, length @ 2..=40, program @ ..] => {
            program.len() == usize::from(*length) && features.negotiated(Feature::ShutdownAnysegwit)
        }
        // OP_RETURN, then one minimal push: its length alone, or OP_PUSHDATA1 and the length.
        [0x6a, length @ 6..=75, data @ ..] | [0x6a, 0x4c, length @ 76..=80, data @ ..] => {
            data.len() == usize::from(*length) && features.negotiated(Feature::SimpleClose)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::ScriptBuf;
    use lightning_types::features::InitFeatures;

    use super::*;

    const ANYSEGWIT: u16 = 27;
    const SIMPLE_CLOSE: u16 = 61;

    fn negotiated(bits: &[u16]) -> NegotiatedFeatures {
        let mut flags = vec![0; 8];
        for bit in bits {
            flags[usize::from(bit / 8)] |= 1 << (bit % 8);
        }
        let features = InitFeatures::from_le_bytes(flags);
        NegotiatedFeatures { local: features.clone(), remote: features }
    }

    /// Whether `start`, filled up with `more` bytes, is valid.
    fn valid(start: &[u8], more: usize, bits: &[u16]) -> bool {
        let mut script = start.to_vec();
        script.resize(start.len() + more, 7);
        is_valid_shutdown_script(&ScriptBuf::from(script), &negotiated(bits))
    }

    // req: B2-SHUT-S-05, B2-SHUT-S-06, B2-SHUT-S-07
    #[test]
    fn version_0_programs_are_20_or_32_bytes_always() {
        for bits in [&[][..], &[ANYSEGWIT, SIMPLE_CLOSE]] {
            for length in 0..=75 {
                for more in 0..=76 {
                    let expected = more == usize::from(length) && matches!(length, 20 | 32);
                    assert_eq!(valid(&[0x00, length], more, bits), expected, "{length} {more}");
                }
            }
        }
    }

    // req: B2-SHUT-S-05, B2-SHUT-S-08
    #[test]
    fn later_versions_take_anysegwit() {
        for version in 0x51..=0x60 {
            for (length, expected) in [(0, false), (1, false), (2, true), (32, true), (40, true)] {
                assert_eq!(valid(&[version, length], length.into(), &[ANYSEGWIT]), expected);
                assert!(!valid(&[version, length], length.into(), &[]));
                assert!(!valid(&[version, length], length.into(), &[SIMPLE_CLOSE]));
                assert!(!valid(&[version, length], usize::from(length) + 1, &[ANYSEGWIT]));
            }
            assert!(!valid(&[version, 41], 41, &[ANYSEGWIT]));
            assert!(!valid(&[version, 40], 39, &[ANYSEGWIT]));
        }
        for version in [0x4f, 0x50, 0x61] {
            assert!(!valid(&[version, 32], 32, &[ANYSEGWIT]));
        }
    }

    // req: B2-SHUT-S-05, B2-SHUT-S-09
    #[test]
    fn op_return_takes_simple_close_and_one_minimal_push() {
        let with = &[ANYSEGWIT, SIMPLE_CLOSE];
        for (length, expected) in [(0, false), (5, false), (6, true), (75, true), (76, false)] {
            assert_eq!(valid(&[0x6a, length], length.into(), with), expected, "{length}");
            assert!(!valid(&[0x6a, length], length.into(), &[ANYSEGWIT]));
            assert!(!valid(&[0x6a, length], usize::from(length) + 1, with));
        }
        for (length, expected) in [(6, false), (75, false), (76, true), (80, true), (81, false)] {
            assert_eq!(valid(&[0x6a, 0x4c, length], length.into(), with), expected, "{length}");
            assert!(!valid(&[0x6a, 0x4c, length], length.into(), &[ANYSEGWIT]));
            assert!(!valid(&[0x6a, 0x4c, length], usize::from(length) - 1, with));
        }
    }

    // req: B2-SHUT-S-05
    #[test]
    fn nothing_else_is_valid() {
        let with = &[ANYSEGWIT, SIMPLE_CLOSE];
        assert!(!valid(&[], 0, with));
        assert!(!valid(&[0x00], 0, with));
        assert!(!valid(&[0x51], 0, with));
        assert!(!valid(&[0x6a], 0, with));
        assert!(!valid(&[0x6a, 0x4c], 0, with));
        // What BOLT 2 once allowed: pay to public key hash, pay to script hash.
        let p2pkh = [&[0x76, 0xa9, 20][..], &[7; 20], &[0x88, 0xac]].concat();
        assert!(!valid(&p2pkh, 0, with));
        assert!(!valid(&[&[0xa9, 20][..], &[7; 20], &[0x87]].concat(), 0, with));
    }
}
