//! Channel opening behind LDK's `PeerManager`, beside another handler of channel messages.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::PublicKey;
use lightning::ln::msgs::{
    AcceptChannel, AcceptChannelV2, AnnouncementSignatures, BaseMessageHandler,
    ChannelMessageHandler, ChannelReady, ChannelReestablish, ChannelUpdate, ClosingSigned,
    CommitmentSigned, ErrorMessage, FundingCreated, FundingSigned, Init, MessageSendEvent,
    OpenChannel, OpenChannelV2, PeerStorage, PeerStorageRetrieval, RevokeAndACK, Shutdown,
    SpliceAck, SpliceInit, SpliceLocked, StartBatch, Stfu, TxAbort, TxAckRbf, TxAddInput,
    TxAddOutput, TxComplete, TxInitRbf, TxRemoveInput, TxRemoveOutput, TxSignatures, UpdateAddHTLC,
    UpdateFailHTLC, UpdateFailMalformedHTLC, UpdateFee, UpdateFulfillHTLC,
};
use lightning::ln::types::ChannelId;
use lightning::types::features::{InitFeatures, NodeFeatures};
use opening_core::features::missing_dependency;
use opening_core::{NegotiatedFeatures, Role};
use tokio::runtime::Handle;

use super::connection::{Connection, Outgoing, SessionEnd, lock};
use super::features::either;
use super::ids::Ids;
use crate::message::encode;
use crate::openings::Openings;
use crate::session::{InitError, Session};
use crate::transport;

/// Names all channels in `error`.
const ALL_CHANNELS: ChannelId = ChannelId([0; 32]);

/// The type of `commitment_signed`, as `start_batch` tells it.
const COMMITMENT_SIGNED: u16 = 132;

/// Who answers an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// This library.
    Ours,
    /// The inner handler.
    Inner,
}

/// Says who answers the offers of peers.  Called from `PeerManager`'s callbacks: it must not
/// block, and must not call the `PeerManager`.
pub trait Routing: Send + Sync + 'static {
    /// Who answers this one.
    fn route(&self, peer: &PublicKey, offer: &OpenChannel) -> Route;
}

impl<F: Fn(&PublicKey, &OpenChannel) -> Route + Send + Sync + 'static> Routing for F {
    fn route(&self, peer: &PublicKey, offer: &OpenChannel) -> Route {
        self(peer, offer)
    }
}

/// A channel message handler for LDK's `PeerManager` that opens channels with this library, and
/// leaves all else to `Inner`, such as a `ChannelManager`.
///
/// * Offers that peers make go where the node's [`Routing`] says.  Our own go out by
///   [`session`](Self::session) and [`Session::open`].
/// * Every later message goes by the id that it names.  A channel of ours stays with the session,
///   which hands what is not about its opening to [`RestOfNode`](crate::node::RestOfNode): after
///   [`Event::Ready`](crate::Event::Ready) the node operates the channel, because LDK's
///   `ChannelManager` takes in none that was opened elsewhere.
/// * An `error` about all channels goes to both.
/// * `init` offers what either offers.
///
/// `PeerManager` sends what a session says when
/// [`process_events`](lightning::ln::peer_handler::PeerManager::process_events) runs, and nothing
/// of LDK's calls that for us: the node runs a task that waits for [`output`](Self::output) and
/// then calls it.
///
/// What `PeerManager` keeps to itself: `warning` messages, messages that it cannot decode (it
/// disconnects without a word), `ping`, and gossip.
pub struct OpeningHandler<Inner> {
    inner: Arc<Inner>,
    openings: Arc<Openings>,
    routing: Box<dyn Routing>,
    runtime: Handle,
    peers: Mutex<HashMap<PublicKey, Peer>>,
    outgoing: Arc<Outgoing>,
}

struct Peer {
    connection: Arc<Connection>,
    session: Session,
}

impl<Inner: ChannelMessageHandler> OpeningHandler<Inner> {
    /// Puts the openings of a node before `inner`.  Sessions run on `runtime`, whichever thread
    /// `PeerManager` calls from.
    ///
    /// The node of `openings` must own no channel of `inner`'s
    /// ([`RestOfNode::owns`](crate::node::RestOfNode::owns)): its messages would not get there.
    pub fn new(
        inner: Arc<Inner>,
        openings: Arc<Openings>,
        routing: impl Routing,
        runtime: Handle,
    ) -> Self {
        Self {
            inner,
            openings,
            routing: Box::new(routing),
            runtime,
            peers: Mutex::default(),
            outgoing: Arc::default(),
        }
    }

    /// The session with a connected peer, to open channels with.  Closing it disconnects the
    /// peer, and so interrupts the channels of the inner handler too.
    pub fn session(&self, peer: &PublicKey) -> Option<Session> {
        lock(&self.peers).get(peer).map(|peer| peer.session.clone())
    }

    /// Waits until there is something to send: `PeerManager::process_events` is to be called.
    ///
    /// Cancel safe.  For one task: of several that wait, each piece of news wakes one.
    pub async fn output(&self) {
        self.outgoing.wait().await;
    }

    fn connection(&self, peer: &PublicKey) -> Option<Arc<Connection>> {
        lock(&self.peers).get(peer).map(|peer| peer.connection.clone())
    }

    /// Whether a message with this id is about an opening or a channel of ours.
    fn is_ours(&self, peer: &PublicKey, channel_id: &ChannelId) -> bool {
        self.connection(peer).is_some_and(|connection| connection.names(channel_id))
            // Opened on an earlier connection, or by now the node's to operate.
            || self.openings.has_channel(peer, channel_id)
            || self.openings.node.rest.owns(peer, channel_id)
    }

    /// Hands a message to the peer's session.
    fn feed(&self, peer: &PublicKey, message: &[u8], note: impl FnOnce(&mut Ids)) {
        // Without a session the connection is ending.
        if let Some(connection) = self.connection(peer) {
            connection.feed(message, note);
        }
    }

    /// Judges a peer's `init` as [`Session::start`] does, but for its required features:
    /// `PeerManager` judges those, and knows what its other handlers offer.
    fn judge(&self, theirs: &Init) -> Result<(), InitError> {
        if let Some(feature) = missing_dependency(&theirs.features) {
            return Err(InitError::MissingDependency(feature));
        }
        let chain = self.openings.chain_hash();
        match &theirs.networks {
            Some(chains) if !chains.contains(&chain) => Err(InitError::NoCommonChain),
            _ => Ok(()),
        }
    }

    /// A session of its own for each connection.
    fn start_session(&self, peer: PublicKey, theirs: &Init) {
        let local = self.provided_init_features(peer);
        let features = NegotiatedFeatures { local, remote: theirs.features.clone() };
        let connection = Connection::new(peer, self.outgoing.clone());
        let transport = transport::framed(SessionEnd(connection.clone()));
        let _runtime = self.runtime.enter();
        let session = Session::adopt(self.openings.clone(), peer, features, transport);
        let started = Peer { connection, session };
        let before = lock(&self.peers).insert(peer, started);
        self.end(before);
    }

    /// The connection is over.  Its session still reads what came before, and then ends.
    fn end(&self, peer: Option<Peer>) {
        let Some(Peer { connection, mut session }) = peer else { return };
        connection.disconnected();
        // Without a handle the session would end at once, with messages unread.
        self.runtime.spawn(async move { session.closed().await });
    }
}

impl<Inner: ChannelMessageHandler> BaseMessageHandler for OpeningHandler<Inner> {
    fn get_and_clear_pending_msg_events(&self) -> Vec<MessageSendEvent> {
        let mut events = self.inner.get_and_clear_pending_msg_events();
        events.extend(self.outgoing.take());
        events
    }

    fn peer_disconnected(&self, peer: PublicKey) {
        let gone = lock(&self.peers).remove(&peer);
        self.end(gone);
        self.inner.peer_disconnected(peer);
    }

    fn provided_node_features(&self) -> NodeFeatures {
        let ours: NodeFeatures = self.openings.node.features.to_context();
        let inner = self.inner.provided_node_features();
        NodeFeatures::from_le_bytes(either(inner.le_flags(), ours.le_flags()))
    }

    fn provided_init_features(&self, peer: PublicKey) -> InitFeatures {
        let ours = &self.openings.node.features;
        let inner = self.inner.provided_init_features(peer);
        InitFeatures::from_le_bytes(either(inner.le_flags(), ours.le_flags()))
    }

    fn peer_connected(&self, peer: PublicKey, init: &Init, inbound: bool) -> Result<(), ()> {
        if let Err(error) = self.judge(init) {
            log::warn!("{peer}: refused: {error} [{}]", error.code());
            return Err(());
        }
        self.inner.peer_connected(peer, init, inbound)?;
        self.start_session(peer, init);
        Ok(())
    }
}

/// Messages that name one channel, and are of no more interest here.
macro_rules! by_channel_id {
    ($($handle:ident($($message:tt)+);)+) => {
        $(by_channel_id!(@ $handle, $($message)+);)+
    };
    (@ $handle:ident, &$message:ty) => {
        fn $handle(&self, peer: PublicKey, message: &$message) {
            if self.is_ours(&peer, &message.channel_id) {
                self.feed(&peer, &encode(message), |_| {});
            } else {
                self.inner.$handle(peer, message);
            }
        }
    };
    (@ $handle:ident, $message:ty) => {
        fn $handle(&self, peer: PublicKey, message: $message) {
            if self.is_ours(&peer, &message.channel_id) {
                self.feed(&peer, &encode(&message), |_| {});
            } else {
                self.inner.$handle(peer, message);
            }
        }
    };
}

/// Messages that are never about a channel of ours, as far as they tell.
macro_rules! to_inner {
    ($($handle:ident($message:ty);)+) => {$(
        fn $handle(&self, peer: PublicKey, message: $message) {
            self.inner.$handle(peer, message);
        }
    )+};
}

impl<Inner: ChannelMessageHandler> ChannelMessageHandler for OpeningHandler<Inner> {
    fn handle_open_channel(&self, peer: PublicKey, message: &OpenChannel) {
        let id = message.common_fields.temporary_channel_id;
        let connection = self.connection(&peer);
        let connection = connection.as_deref();
        // What names an opening of ours that is under way is ours too, an offer in the other
        // direction included: an `error` with this id would be about both.
        let is_ours = connection.is_some_and(|connection| connection.is_pending(&id))
            || self.routing.route(&peer, message) == Route::Ours;
        if is_ours {
            return self.feed(&peer, &encode(message), |ids| ids.begin(Role::Fundee, id));
        }
        if let Some(connection) = connection {
            connection.release(&id);
        }
        self.inner.handle_open_channel(peer, message);
    }

    fn handle_accept_channel(&self, peer: PublicKey, message: &AcceptChannel) {
        if self.is_ours(&peer, &message.common_fields.temporary_channel_id) {
            self.feed(&peer, &encode(message), |_| {});
        } else {
            self.inner.handle_accept_channel(peer, message);
        }
    }

    fn handle_funding_created(&self, peer: PublicKey, message: &FundingCreated) {
        if self.is_ours(&peer, &message.temporary_channel_id) {
            let note = |ids: &mut Ids| ids.funding_created(Role::Fundee, message);
            self.feed(&peer, &encode(message), note);
        } else {
            self.inner.handle_funding_created(peer, message);
        }
    }

    fn handle_error(&self, peer: PublicKey, message: &ErrorMessage) {
        let id = message.channel_id;
        let (is_all, is_ours) = (id == ALL_CHANNELS, self.is_ours(&peer, &id));
        if is_all || is_ours {
            self.feed(&peer, &encode(message), |ids| ids.end(&id));
        }
        if is_all || !is_ours {
            self.inner.handle_error(peer, message);
        }
    }

    fn handle_commitment_signed_batch(
        &self,
        peer: PublicKey,
        channel_id: ChannelId,
        batch: Vec<CommitmentSigned>,
    ) {
        if !self.is_ours(&peer, &channel_id) {
            return self.inner.handle_commitment_signed_batch(peer, channel_id, batch);
        }
        let batch_size = u16::try_from(batch.len()).unwrap_or(u16::MAX);
        let message_type = Some(COMMITMENT_SIGNED);
        let start = StartBatch { channel_id, batch_size, message_type };
        self.feed(&peer, &encode(&start), |_| {});
        for signed in &batch {
            self.feed(&peer, &encode(signed), |_| {});
        }
    }

    by_channel_id! {
        handle_funding_signed(&FundingSigned);
        handle_channel_ready(&ChannelReady);
        handle_shutdown(&Shutdown);
        handle_closing_signed(&ClosingSigned);
        handle_stfu(&Stfu);
        handle_splice_init(&SpliceInit);
        handle_splice_ack(&SpliceAck);
        handle_splice_locked(&SpliceLocked);
        handle_tx_add_input(&TxAddInput);
        handle_tx_add_output(&TxAddOutput);
        handle_tx_remove_input(&TxRemoveInput);
        handle_tx_remove_output(&TxRemoveOutput);
        handle_tx_complete(&TxComplete);
        handle_tx_signatures(&TxSignatures);
        handle_tx_init_rbf(&TxInitRbf);
        handle_tx_ack_rbf(&TxAckRbf);
        handle_tx_abort(&TxAbort);
        handle_update_add_htlc(&UpdateAddHTLC);
        handle_update_fulfill_htlc(UpdateFulfillHTLC);
        handle_update_fail_htlc(&UpdateFailHTLC);
        handle_update_fail_malformed_htlc(&UpdateFailMalformedHTLC);
        handle_commitment_signed(&CommitmentSigned);
        handle_revoke_and_ack(&RevokeAndACK);
        handle_update_fee(&UpdateFee);
        handle_announcement_signatures(&AnnouncementSignatures);
        handle_channel_reestablish(&ChannelReestablish);
    }

    to_inner! {
        handle_open_channel_v2(&OpenChannelV2);
        handle_accept_channel_v2(&AcceptChannelV2);
        handle_peer_storage(PeerStorage);
        handle_peer_storage_retrieval(PeerStorageRetrieval);
        handle_channel_update(&ChannelUpdate);
    }

    fn get_chain_hashes(&self) -> Option<Vec<ChainHash>> {
        let inner = self.inner.get_chain_hashes();
        Some(inner.unwrap_or_else(|| vec![self.openings.chain_hash()]))
    }

    fn message_received(&self) {
        self.inner.message_received();
    }
}
