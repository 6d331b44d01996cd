//! The reserve that this node asks of its peers.

use bitcoin::Amount;

use crate::limits::{Limits, Profile};

/// openingd asks for one percent whatever it is told.
const OPENINGD_PERCENT: u8 = 1;

/// So many percent of `amount`, rounded down; the largest amount of all where that overflows.
pub(crate) fn percent_of(amount: Amount, percent: u8) -> Amount {
    let part = u128::from(amount.to_sat()) * u128::from(percent) / 100;
    Amount::from_sat(u64::try_from(part).unwrap_or(u64::MAX))
}

impl Limits {
    fn reserve_part(&self, funding_satoshis: Amount) -> Amount {
        let percent = match self.profile {
            Profile::Strict => self.channel_reserve_percent,
            Profile::Openingd => OPENINGD_PERCENT,
        };
        percent_of(funding_satoshis, percent)
    }

    /// Satoshis.  The reserve that a funder with `dust_limit_satoshis` asks for (B2-OPEN-S-08).
    // The peer's dust limit comes with its answer, and is judged against this reserve then.
    pub fn reserve_for_open(
        &self,
        funding_satoshis: Amount,
        dust_limit_satoshis: Amount,
    ) -> Amount {
        let reserve = self.reserve_part(funding_satoshis).max(dust_limit_satoshis);
        match self.profile {
            Profile::Strict => reserve.max(self.channel_reserve_floor),
            Profile::Openingd => reserve,
        }
    }

    /// Satoshis.  The reserve that a fundee with `dust_limit_satoshis` asks for, never below the
    /// dust limit of either side (B2-ACC-S-03, B2-ACC-S-08).
    // openingd looks at the opener's dust limit only.  That leaves a hole: with a small one, the
    // fundee announces a reserve below its own dust limit.
    pub fn reserve_for_accept(
        &self,
        funding_satoshis: Amount,
        dust_limit_satoshis: Amount,
        opener_dust_limit_satoshis: Amount,
    ) -> Amount {
        let reserve = self.reserve_part(funding_satoshis).max(opener_dust_limit_satoshis);
        match self.profile {
            Profile::Strict => reserve.max(dust_limit_satoshis),
            Profile::Openingd => reserve,
        }
    }
}
