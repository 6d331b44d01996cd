//! What the handler leaves to another one, written down.

use std::sync::Mutex;

use bitcoin::Network;
use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::PublicKey;
use lightning::ln::msgs::{
    AcceptChannel, AcceptChannelV2, AnnouncementSignatures, BaseMessageHandler,
    ChannelMessageHandler, ChannelReady, ChannelReestablish, ChannelUpdate, ClosingSigned,
    CommitmentSigned, ErrorMessage, FundingCreated, FundingSigned, Init, MessageSendEvent,
    OpenChannel, OpenChannelV2, PeerStorage, PeerStorageRetrieval, RevokeAndACK, Shutdown,
    SpliceAck, SpliceInit, SpliceLocked, Stfu, TxAbort, TxAckRbf, TxAddInput, TxAddOutput,
    TxComplete, TxInitRbf, TxRemoveInput, TxRemoveOutput, TxSignatures, UpdateAddHTLC,
    UpdateFailHTLC, UpdateFailMalformedHTLC, UpdateFee, UpdateFulfillHTLC,
};
use lightning::ln::types::ChannelId;
use lightning::types::features::{InitFeatures, NodeFeatures};

/// The callback's name and the id of its message.
pub type Call = (&'static str, ChannelId);

pub struct Inner {
    calls: Mutex<Vec<Call>>,
    to_say: Mutex<Vec<MessageSendEvent>>,
    features: InitFeatures,
}

impl Inner {
    pub fn offering(features: InitFeatures) -> Self {
        Self { calls: Mutex::default(), to_say: Mutex::default(), features }
    }

    /// What it has for the peer.
    pub fn say(&self, event: MessageSendEvent) {
        self.to_say.lock().unwrap().push(event);
    }

    /// What it was called with since this was asked last.
    pub fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }

    fn note(&self, name: &'static str, id: ChannelId) {
        self.calls.lock().unwrap().push((name, id));
    }
}

/// Where a callback is about no channel.
pub const NONE: ChannelId = ChannelId([0xff; 32]);

impl BaseMessageHandler for Inner {
    fn get_and_clear_pending_msg_events(&self) -> Vec<MessageSendEvent> {
        std::mem::take(&mut self.to_say.lock().unwrap())
    }

    fn peer_disconnected(&self, _peer: PublicKey) {
        self.note("peer_disconnected", NONE);
    }

    fn provided_node_features(&self) -> NodeFeatures {
        self.features.to_context()
    }

    fn provided_init_features(&self, _peer: PublicKey) -> InitFeatures {
        self.features.clone()
    }

    fn peer_connected(&self, _peer: PublicKey, _init: &Init, _inbound: bool) -> Result<(), ()> {
        self.note("peer_connected", NONE);
        Ok(())
    }
}

macro_rules! note {
    ($($handle:ident($message:ty, $($id:ident).+);)+) => {$(
        fn $handle(&self, _peer: PublicKey, message: $message) {
            self.note(stringify!($handle), message.$($id).+);
        }
    )+};
}

macro_rules! note_name {
    ($($handle:ident($message:ty);)+) => {$(
        fn $handle(&self, _peer: PublicKey, _message: $message) {
            self.note(stringify!($handle), NONE);
        }
    )+};
}

impl ChannelMessageHandler for Inner {
    note! {
        handle_open_channel(&OpenChannel, common_fields.temporary_channel_id);
        handle_open_channel_v2(&OpenChannelV2, common_fields.temporary_channel_id);
        handle_accept_channel(&AcceptChannel, common_fields.temporary_channel_id);
        handle_accept_channel_v2(&AcceptChannelV2, common_fields.temporary_channel_id);
        handle_funding_created(&FundingCreated, temporary_channel_id);
        handle_funding_signed(&FundingSigned, channel_id);
        handle_channel_ready(&ChannelReady, channel_id);
        handle_shutdown(&Shutdown, channel_id);
        handle_closing_signed(&ClosingSigned, channel_id);
        handle_stfu(&Stfu, channel_id);
        handle_splice_init(&SpliceInit, channel_id);
        handle_splice_ack(&SpliceAck, channel_id);
        handle_splice_locked(&SpliceLocked, channel_id);
        handle_tx_add_input(&TxAddInput, channel_id);
        handle_tx_add_output(&TxAddOutput, channel_id);
        handle_tx_remove_input(&TxRemoveInput, channel_id);
        handle_tx_remove_output(&TxRemoveOutput, channel_id);
        handle_tx_complete(&TxComplete, channel_id);
        handle_tx_signatures(&TxSignatures, channel_id);
        handle_tx_init_rbf(&TxInitRbf, channel_id);
        handle_tx_ack_rbf(&TxAckRbf, channel_id);
        handle_tx_abort(&TxAbort, channel_id);
        handle_update_add_htlc(&UpdateAddHTLC, channel_id);
        handle_update_fulfill_htlc(UpdateFulfillHTLC, channel_id);
        handle_update_fail_htlc(&UpdateFailHTLC, channel_id);
        handle_update_fail_malformed_htlc(&UpdateFailMalformedHTLC, channel_id);
        handle_commitment_signed(&CommitmentSigned, channel_id);
        handle_revoke_and_ack(&RevokeAndACK, channel_id);
        handle_update_fee(&UpdateFee, channel_id);
        handle_announcement_signatures(&AnnouncementSignatures, channel_id);
        handle_channel_reestablish(&ChannelReestablish, channel_id);
        handle_error(&ErrorMessage, channel_id);
    }

    note_name! {
        handle_peer_storage(PeerStorage);
        handle_peer_storage_retrieval(PeerStorageRetrieval);
        handle_channel_update(&ChannelUpdate);
    }

    fn handle_commitment_signed_batch(
        &self,
        _peer: PublicKey,
        channel_id: ChannelId,
        _batch: Vec<CommitmentSigned>,
    ) {
        self.note("handle_commitment_signed_batch", channel_id);
    }

    fn get_chain_hashes(&self) -> Option<Vec<ChainHash>> {
        Some(vec![Network::Regtest.chain_hash()])
    }

    fn message_received(&self) {
        self.note("message_received", NONE);
    }
}
