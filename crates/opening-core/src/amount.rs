//! Amounts and rates, each unit its own type, with checked arithmetic only.
//!
//! Satoshis are [`bitcoin::Amount`]; this file adds what BOLT 2 needs beside it.

use core::fmt;

use bitcoin::{Amount, Weight};

/// Most satoshis an amount on the wire may have: 21 million BTC (B1-TYP-B-03).
pub const MAX_SATOSHIS: Amount = Amount::MAX_MONEY;

/// Most millisatoshis an amount on the wire may have: 21 million BTC (B1-TYP-B-04).
pub const MAX_MILLISATOSHIS: MilliSatoshi = MilliSatoshi(2_100_000_000_000_000_000);

/// Thousandths of a satoshi.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MilliSatoshi(u64);

impl MilliSatoshi {
    /// None at all.
    pub const ZERO: Self = Self(0);

    /// An amount of `msat` millisatoshis.
    pub const fn from_msat(msat: u64) -> Self {
        Self(msat)
    }

    /// The number of millisatoshis.
    pub const fn to_msat(self) -> u64 {
        self.0
    }

    /// The same amount in the finer unit; `None` beyond 2^64 − 1 millisatoshis.
    pub fn from_amount(amount: Amount) -> Option<Self> {
        amount.to_sat().checked_mul(1000).map(Self)
    }

    /// Whole satoshis, rounded down, as BOLT 3 rounds every output (B3-OUT-B-01).
    pub fn to_amount_floor(self) -> Amount {
        Amount::from_sat(self.0 / 1000)
    }

    /// The sum, or `None` on overflow.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// The difference, or `None` where `other` is larger.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }
}

impl fmt::Display for MilliSatoshi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} msat", self.0)
    }
}

/// Satoshis per 1000 weight units, the unit of every feerate in BOLT 2 and BOLT 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeeratePerKw(u32);

impl FeeratePerKw {
    /// Bitcoin Core's relay minimum of 1 sat/vB, rounded up: 253 sat per 1000 weight units.
    pub const FLOOR: Self = Self(253);

    /// A rate of `sat_per_kw` satoshis per 1000 weight units.
    pub const fn new(sat_per_kw: u32) -> Self {
        Self(sat_per_kw)
    }

    /// Satoshis per 1000 weight units.
    pub const fn to_sat_per_kw(self) -> u32 {
        self.0
    }

    /// The fee for `weight`, rounded down as BOLT 3 asks (B3-FEE-B-01); `None` on overflow.
    // `bitcoin::FeeRate` rounds up: the difference of one satoshi would break every signature.
    pub fn fee(self, weight: Weight) -> Option<Amount> {
        let thousandths = u64::from(self.0).checked_mul(weight.to_wu())?;
        Some(Amount::from_sat(thousandths / 1000))
    }
}

impl fmt::Display for FeeratePerKw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sat/kw", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // req: B3-FEE-B-01
    #[test]
    fn fee_rounds_down_and_never_overflows_for_a_commitment() {
        for (rate, weight, fee) in [
            (15_000, 724, 10_860),
            (15_000, 1124, 16_860),
            (253, 724, 183),
            (253, 1124, 284),
            (0, 1124, 0),
            (u32::MAX, 1124, 4_827_543_239),
        ] {
            let got = FeeratePerKw::new(rate).fee(Weight::from_wu(weight));
            assert_eq!(got, Some(Amount::from_sat(fee)), "{rate} at {weight}");
        }
        assert_eq!(FeeratePerKw::new(u32::MAX).fee(Weight::MAX), None);
    }

    // req: B1-TYP-B-03, B1-TYP-B-04
    #[test]
    fn bounds_are_twenty_one_million_bitcoin() {
        assert_eq!(MAX_SATOSHIS.to_sat(), 0x0007_75f0_5a07_4000);
        assert_eq!(MAX_MILLISATOSHIS.to_msat(), 0x1d24_b2df_ac52_0000);
        assert_eq!(MilliSatoshi::from_amount(MAX_SATOSHIS), Some(MAX_MILLISATOSHIS));
        assert_eq!(MilliSatoshi::from_amount(Amount::from_sat(u64::MAX)), None);
    }
}
