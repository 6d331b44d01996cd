//! What an LDK node is made of, each part as small as opening channels allows.

use std::ops::Deref;
use std::sync::Arc;

use bitcoin::secp256k1::{PublicKey, Secp256k1, Signing, Verification};
use bitcoin::{Network, Transaction};
use lightning::blinded_path::message::{BlindedMessagePath, MessageContext, MessageForwardNode};
use lightning::blinded_path::payment::{BlindedPaymentPath, ReceiveTlvs};
use lightning::chain::chaininterface::{BroadcasterInterface, ConfirmationTarget, FeeEstimator};
use lightning::chain::chainmonitor::{ChainMonitor, Persist};
use lightning::chain::channelmonitor::{ChannelMonitor, ChannelMonitorUpdate};
use lightning::chain::{BestBlock, ChannelMonitorUpdateStatus, Filter};
use lightning::ln::channel_state::ChannelDetails;
use lightning::ln::channelmanager::{ChainParameters, ChannelManager};
use lightning::onion_message::messenger::{Destination, MessageRouter, OnionMessagePath};
use lightning::routing::router::{InFlightHtlcs, Route, RouteParameters, Router};
use lightning::sign::{InMemorySigner, KeysManager, NodeSigner, ReceiveAuthKey};
use lightning::util::config::UserConfig;
use lightning::util::logger::{Logger, Record};
use lightning::util::persist::MonitorName;

use crate::chain::RegtestChain;

/// Its keys.
pub type Keys = Arc<KeysManager>;
/// Watches its channels.
pub type Monitor<B = Arc<Broadcaster>, P = Arc<InMemory>> =
    ChainMonitor<InMemorySigner, Arc<NoFilter>, B, Arc<FixedFee>, Arc<ToLog>, P, Keys>;
/// LDK's own handler of channel messages.
pub type Manager<B = Arc<Broadcaster>, P = Arc<InMemory>> = ChannelManager<
    Arc<Monitor<B, P>>,
    B,
    Keys,
    Keys,
    Keys,
    Arc<FixedFee>,
    Arc<NoRouter>,
    Arc<NoRouter>,
    Arc<ToLog>,
>;

/// A node before anything drives it.
pub struct Assembled<B, P>
where
    B: Deref<Target: BroadcasterInterface>,
    P: Deref<Target: Persist<InMemorySigner>>,
{
    /// Handles messages.
    pub manager: Arc<Manager<B, P>>,
    /// Watches channels.
    pub monitor: Arc<Monitor<B, P>>,
    /// Signs.
    pub keys: Keys,
    /// What it asks for and accepts, unless told otherwise.
    pub config: UserConfig,
}

/// Puts a node on regtest together, at this block and this time in seconds since 1970.
pub fn assemble<B, P>(
    seed: [u8; 32],
    feerate: u32,
    (broadcaster, persister): (B, P),
    best_block: BestBlock,
    now: u32,
) -> Assembled<B, P>
where
    B: Deref<Target: BroadcasterInterface> + Clone,
    P: Deref<Target: Persist<InMemorySigner>>,
{
    let (logger, fees) = (Arc::new(ToLog), Arc::new(FixedFee(feerate)));
    let keys = Arc::new(KeysManager::new(&seed, 1, 1, true));
    let monitor = Arc::new(ChainMonitor::new(
        None,
        broadcaster.clone(),
        logger.clone(),
        fees.clone(),
        persister,
        keys.clone(),
        keys.get_peer_storage_key(),
    ));
    // By hand, because LDK takes no anchors channel without being asked.
    let mut config = UserConfig { manually_accept_inbound_channels: true, ..Default::default() };
    config.channel_handshake_config.negotiate_anchors_zero_fee_htlc_tx = true;
    let manager = Arc::new(ChannelManager::new(
        fees,
        monitor.clone(),
        broadcaster,
        Arc::new(NoRouter),
        Arc::new(NoRouter),
        logger,
        keys.clone(),
        keys.clone(),
        keys.clone(),
        config.clone(),
        ChainParameters { network: Network::Regtest, best_block },
        now,
    ));
    Assembled { manager, monitor, keys, config }
}

/// One feerate, sat per 1000 weight units, whatever it is for.
pub struct FixedFee(u32);

impl FeeEstimator for FixedFee {
    fn get_est_sat_per_1000_weight(&self, _target: ConfirmationTarget) -> u32 {
        self.0
    }
}

/// Broadcasts to the embedded chain.
pub struct Broadcaster(pub(super) RegtestChain);

impl BroadcasterInterface for Broadcaster {
    fn broadcast_transactions(&self, transactions: &[&Transaction]) {
        for transaction in transactions {
            if let Err(error) = self.0.broadcast(transaction) {
                log::error!("ldk's transaction is rejected: {error}");
            }
        }
    }
}

/// Nothing outlives the process, and nothing is ever in flight.
pub struct InMemory;

impl Persist<InMemorySigner> for InMemory {
    fn persist_new_channel(
        &self,
        _name: MonitorName,
        _monitor: &ChannelMonitor<InMemorySigner>,
    ) -> ChannelMonitorUpdateStatus {
        ChannelMonitorUpdateStatus::Completed
    }

    fn update_persisted_channel(
        &self,
        _name: MonitorName,
        _update: Option<&ChannelMonitorUpdate>,
        _monitor: &ChannelMonitor<InMemorySigner>,
    ) -> ChannelMonitorUpdateStatus {
        ChannelMonitorUpdateStatus::Completed
    }

    fn archive_persisted_channel(&self, _name: MonitorName) {}
}

/// Whole blocks are handed over: there is nothing to filter.
pub struct NoFilter;

impl Filter for NoFilter {
    fn register_tx(&self, _txid: &bitcoin::Txid, _script_pubkey: &bitcoin::Script) {}

    fn register_output(&self, _output: lightning::chain::WatchedOutput) {}
}

/// LDK's log lines, among ours.
pub struct ToLog;

impl Logger for ToLog {
    fn log(&self, record: Record<'_>) {
        log::debug!(target: "ldk", "{} {}", record.module_path, record.args);
    }
}

/// There is nowhere to pay to.
pub struct NoRouter;

impl Router for NoRouter {
    fn find_route(
        &self,
        _payer: &PublicKey,
        _parameters: &RouteParameters,
        _first_hops: Option<&[&ChannelDetails]>,
        _in_flight: InFlightHtlcs,
    ) -> Result<Route, &'static str> {
        Err("this node only opens channels")
    }

    fn create_blinded_payment_paths<T: Signing + Verification>(
        &self,
        _recipient: PublicKey,
        _first_hops: Vec<ChannelDetails>,
        _tlvs: ReceiveTlvs,
        _amount_msats: Option<u64>,
        _secp: &Secp256k1<T>,
    ) -> Result<Vec<BlindedPaymentPath>, ()> {
        Err(())
    }
}

impl MessageRouter for NoRouter {
    fn find_path(
        &self,
        _sender: PublicKey,
        _peers: Vec<PublicKey>,
        _destination: Destination,
    ) -> Result<OnionMessagePath, ()> {
        Err(())
    }

    fn create_blinded_paths<T: Signing + Verification>(
        &self,
        _recipient: PublicKey,
        _key: ReceiveAuthKey,
        _context: MessageContext,
        _peers: Vec<MessageForwardNode>,
        _secp: &Secp256k1<T>,
    ) -> Result<Vec<BlindedMessagePath>, ()> {
        Err(())
    }
}
