//! What one side asks for in `open_channel` or `accept_channel`.

use bitcoin::Amount;

use crate::amount::MilliSatoshi;

/// The restrictions that one side announces.  Each field says whom it binds, because the
/// BOLT's names do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChannelConfig {
    /// Satoshis.  Outputs below it are left out of the *announcer's* commitment transactions.
    pub dust_limit_satoshis: Amount,
    /// Millisatoshis.  Most that HTLCs offered *to* the announcer may sum up to.
    pub max_htlc_value_in_flight_msat: MilliSatoshi,
    /// Satoshis.  The *other* side must always keep this much in the channel.
    pub channel_reserve_satoshis: Amount,
    /// Millisatoshis.  Smallest HTLC that the announcer accepts.
    pub htlc_minimum_msat: MilliSatoshi,
    /// Blocks.  Delays the *other* side's own `to_local` output.
    pub to_self_delay: u16,
    /// Most HTLCs that the *other* side may offer; at most 483.
    pub max_accepted_htlcs: u16,
}
