//! The feature bits of two handlers in one `init`.

/// Both sets, little-endian.  Where one requires what the other offers, it is required: a pair
/// never has both bits (BOLT 9 allows one).
pub(super) fn either(one: &[u8], other: &[u8]) -> Vec<u8> {
    let byte = |index: usize| {
        let of = |flags: &[u8]| flags.get(index).copied().unwrap_or(0);
        let both = of(one) | of(other);
        let required = both & 0b0101_0101;
        both & !(required << 1)
    };
    (0..one.len().max(other.len())).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::either;

    #[test]
    fn required_by_one_is_required_by_both() {
        assert_eq!(either(&[0b01], &[0b10]), [0b01]);
        assert_eq!(either(&[0b10], &[0b01]), [0b01]);
        assert_eq!(either(&[0b10, 0x80], &[0b1000]), [0b1010, 0x80]);
        assert_eq!(either(&[], &[0, 2]), [0, 2]);
    }
}
