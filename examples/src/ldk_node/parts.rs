//! What an LDK node is made of, each part as small as opening channels allows.

use std::sync::Arc;

use bitcoin::Transaction;
use bitcoin::secp256k1::{PublicKey, Secp256k1, Signing, Verification};
use lightning::blinded_path::message::{BlindedMessagePath, MessageContext, MessageForwardNode};
use lightning::blinded_path::payment::{BlindedPaymentPath, ReceiveTlvs};
use lightning::chain::chaininterface::{BroadcasterInterface, ConfirmationTarget, FeeEstimator};
use lightning::chain::chainmonitor::{ChainMonitor, Persist};
use lightning::chain::channelmonitor::{ChannelMonitor, ChannelMonitorUpdate};
use lightning::chain::{ChannelMonitorUpdateStatus, Filter};
use lightning::ln::channel_state::ChannelDetails;
use lightning::ln::channelmanager::ChannelManager;
use lightning::onion_message::messenger::{Destination, MessageRouter, OnionMessagePath};
use lightning::routing::router::{InFlightHtlcs, Route, RouteParameters, Router};
use lightning::sign::{InMemorySigner, KeysManager, ReceiveAuthKey};
use lightning::util::logger::{Logger, Record};
use lightning::util::persist::MonitorName;

use crate::chain::RegtestChain;

/// Its keys.
pub type Keys = Arc<KeysManager>;
/// Watches its channels.
pub type Monitor = ChainMonitor<
    InMemorySigner,
    Arc<NoFilter>,
    Arc<Broadcaster>,
    Arc<FixedFee>,
    Arc<ToLog>,
    Arc<InMemory>,
    Keys,
>;
/// LDK's own handler of channel messages.
pub type Manager = ChannelManager<
    Arc<Monitor>,
    Arc<Broadcaster>,
    Keys,
    Keys,
    Keys,
    Arc<FixedFee>,
    Arc<NoRouter>,
    Arc<NoRouter>,
    Arc<ToLog>,
>;
/// One feerate, sat per 1000 weight units, whatever it is for.
pub struct FixedFee(pub u32);

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
