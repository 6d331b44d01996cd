//! The first message of every connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bitcoin::Network;
use bitcoin::constants::ChainHash;
use lightning::ln::msgs::{Init, SocketAddress};
use lightning::types::features::InitFeatures;
use opening_core::features::missing_dependency;
use opening_core::{Feature, NegotiatedFeatures};

/// Bytes of the peer's features that are kept for as long as the connection lasts, unless ours are
/// longer.  A peer may send 64 kB of them; BOLT 9 is far from giving its 256th bit.
const KEPT_FEATURES: usize = 32;

/// Unknown bits that are told of; there may be half a million of them.
const MOST_BITS_TOLD: usize = 16;

/// The features that this library serves, all optional, and those that nodes of today expect of
/// each other whatever they do: `option_data_loss_protect` (1), `var_onion_optin` (9) and
/// `payment_secret` (15), which are the rest of the node's duty.
pub fn default_features() -> InitFeatures {
    let mut features = InitFeatures::empty();
    features.set_data_loss_protect_optional();
    features.set_upfront_shutdown_script_optional();
    features.set_variable_length_onion_optional();
    features.set_static_remote_key_optional();
    features.set_payment_secret_optional();
    features.set_wumbo_optional();
    features.set_anchors_zero_fee_htlc_tx_optional();
    features.set_shutdown_any_segwit_optional();
    features.set_channel_type_optional();
    features.set_scid_privacy_optional();
    features.set_zero_conf_optional();
    features
}

/// Our `init`.  `peer_address` is where an incoming connection came from, so that the peer may
/// learn its own address; private ones stay unsaid (B1-INIT-S-07, B1-INIT-S-09).
pub(super) fn ours(
    features: &InitFeatures,
    network: Network,
    peer_address: Option<SocketAddr>,
) -> Init {
    Init {
        features: features.clone(),
        networks: Some(vec![network.chain_hash()]),
        remote_network_address: peer_address.and_then(public).map(SocketAddress::from),
    }
}

/// The address as others would use it, if they can.
fn public(address: SocketAddr) -> Option<SocketAddr> {
    // A socket that listens for both families shows IPv4 peers as ::ffff:a.b.c.d.
    let ip = address.ip().to_canonical();
    let is_public = match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    };
    is_public.then(|| SocketAddr::new(ip, address.port()))
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [first, second, ..] = ip.octets();
    // 100.64.0.0/10 is for the customers behind a provider's NAT.
    let is_shared = first == 100 && second & 0xc0 == 64;
    let is_one_host = first != 0 && !ip.is_loopback() && !ip.is_broadcast() && !ip.is_multicast();
    is_one_host && !(ip.is_private() || ip.is_link_local() || ip.is_documentation() || is_shared)
}

/// All addresses of hosts are within 2000::/3, except for those of 2001:db8::/32.
fn is_public_v6(ip: Ipv6Addr) -> bool {
    let [first, second, ..] = ip.segments();
    first & 0xe000 == 0x2000 && (first, second) != (0x2001, 0x0db8)
}

/// Why the peer's `init` ends the connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InitError {
    /// It requires features that this node does not offer (B1-INIT-R-05); the first 16 of them.
    #[error("the peer requires features that this node lacks: bits {0:?}")]
    RequiresUnknown(Vec<u64>),
    /// A feature without the one it depends on (B1-INIT-R-07).
    #[error("the peer offers {0:?} without the feature it depends on")]
    MissingDependency(Feature),
    /// It is on other chains only (B1-INIT-R-06).
    #[error("the peer is on no chain of ours")]
    NoCommonChain,
}

impl InitError {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::RequiresUnknown(_) => "init-requires-unknown-feature",
            Self::MissingDependency(_) => "init-missing-dependency",
            Self::NoCommonChain => "init-no-common-chain",
        }
    }
}

/// Judges the peer's `init`.
pub(super) fn judge(
    local: &InitFeatures,
    chain_hash: ChainHash,
    theirs: Init,
) -> Result<NegotiatedFeatures, InitError> {
    let mut unknown = theirs.features.required_unknown_bits_from(local);
    if !unknown.is_empty() {
        unknown.truncate(MOST_BITS_TOLD);
        return Err(InitError::RequiresUnknown(unknown));
    }
    if let Some(feature) = missing_dependency(&theirs.features) {
        return Err(InitError::MissingDependency(feature));
    }
    // Without the list, a peer may be on any chain.
    if theirs.networks.is_some_and(|chains| !chains.contains(&chain_hash)) {
        return Err(InitError::NoCommonChain);
    }
    Ok(NegotiatedFeatures { local: local.clone(), remote: within_reach(theirs.features, local) })
}

/// The peer's features without those that are beyond all that anyone here could know.
fn within_reach(theirs: InitFeatures, local: &InitFeatures) -> InitFeatures {
    let kept = KEPT_FEATURES.max(local.le_flags().len());
    match theirs.le_flags().get(..kept) {
        Some(kept) => InitFeatures::from_le_bytes(kept.to_vec()),
        None => theirs,
    }
}
