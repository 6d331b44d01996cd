//! A handler of channel messages that remembers which ids passed through it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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

/// The message's name and the id in it.
type Named = (&'static str, ChannelId);

/// Hands everything on to another handler.
pub struct Watched<Inner> {
    inner: Arc<Inner>,
    seen: Mutex<BTreeMap<Named, usize>>,
    to_say: Mutex<Vec<MessageSendEvent>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<Inner: ChannelMessageHandler> Watched<Inner> {
    /// Watches this one.
    pub fn new(inner: Arc<Inner>) -> Self {
        Self { inner, seen: Mutex::default(), to_say: Mutex::default() }
    }

    /// Every id that peers have named to the inner handler.
    pub fn ids(&self) -> BTreeSet<ChannelId> {
        lock(&self.seen).keys().map(|(_, id)| *id).collect()
    }

    /// How many messages of this name peers have sent to the inner handler.
    pub fn count(&self, handle: &str) -> usize {
        let seen = lock(&self.seen);
        seen.iter().filter(|((name, _), _)| *name == handle).map(|(_, count)| count).sum()
    }

    /// Says something in the inner handler's place, when events are processed next.
    pub fn say(&self, event: MessageSendEvent) {
        lock(&self.to_say).push(event);
    }

    fn note(&self, name: &'static str, id: ChannelId) {
        *lock(&self.seen).entry((name, id)).or_default() += 1;
    }
}

impl<Inner: ChannelMessageHandler> BaseMessageHandler for Watched<Inner> {
    fn get_and_clear_pending_msg_events(&self) -> Vec<MessageSendEvent> {
        let mut events = self.inner.get_and_clear_pending_msg_events();
        events.append(&mut lock(&self.to_say));
        events
    }

    fn peer_disconnected(&self, peer: PublicKey) {
        self.inner.peer_disconnected(peer);
    }

    fn provided_node_features(&self) -> NodeFeatures {
        self.inner.provided_node_features()
    }

    fn provided_init_features(&self, peer: PublicKey) -> InitFeatures {
        self.inner.provided_init_features(peer)
    }

    fn peer_connected(&self, peer: PublicKey, init: &Init, inbound: bool) -> Result<(), ()> {
        self.inner.peer_connected(peer, init, inbound)
    }
}

macro_rules! watch {
    ($($handle:ident($message:ty, $($id:ident).+);)+) => {$(
        fn $handle(&self, peer: PublicKey, message: $message) {
            self.note(stringify!($handle), message.$($id).+);
            self.inner.$handle(peer, message);
        }
    )+};
}

macro_rules! hand_on {
    ($($handle:ident($message:ty);)+) => {$(
        fn $handle(&self, peer: PublicKey, message: $message) {
            self.inner.$handle(peer, message);
        }
    )+};
}

impl<Inner: ChannelMessageHandler> ChannelMessageHandler for Watched<Inner> {
    watch! {
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

    hand_on! {
        handle_peer_storage(PeerStorage);
        handle_peer_storage_retrieval(PeerStorageRetrieval);
        handle_channel_update(&ChannelUpdate);
    }

    fn handle_commitment_signed_batch(
        &self,
        peer: PublicKey,
        channel_id: ChannelId,
        batch: Vec<CommitmentSigned>,
    ) {
        self.note("handle_commitment_signed_batch", channel_id);
        self.inner.handle_commitment_signed_batch(peer, channel_id, batch);
    }

    fn get_chain_hashes(&self) -> Option<Vec<ChainHash>> {
        self.inner.get_chain_hashes()
    }

    fn message_received(&self) {
        self.inner.message_received();
    }
}
