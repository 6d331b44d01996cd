//! A `PeerManager` by hand: it calls the handler, and fetches what it has to send.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::Network;
use bitcoin::secp256k1::PublicKey;
use lightning::ln::msgs::{
    AcceptChannel, BaseMessageHandler, ErrorAction, ErrorMessage, FundingCreated, Init,
    MessageSendEvent, OpenChannel,
};
use lightning::types::features::InitFeatures;
use opening_peer::ldk::{OpeningHandler, Route};
use opening_peer::session::default_features;
use opening_peer::transport::in_memory_pair;
use opening_peer::{Node, Session};
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::common::here::Here;
use crate::common::node_id;
use crate::common::raw_peer::RawPeer;
use crate::inner::Inner;

/// Offers of less go to the inner handler.
pub const OURS_FROM: u64 = 500_000;

pub struct Rig {
    pub here: Here,
    pub inner: Arc<Inner>,
    pub handler: OpeningHandler<Inner>,
    /// Makes messages; nothing goes over its transport.
    pub raw: RawPeer,
    pub peer: PublicKey,
    fetched: VecDeque<MessageSendEvent>,
}

pub fn init(features: InitFeatures) -> Init {
    let networks = Some(vec![Network::Regtest.chain_hash()]);
    Init { features, networks, remote_network_address: None }
}

impl Rig {
    /// With a peer that is connected.
    pub fn new() -> Self {
        let rig = Self::with(Inner::offering(InitFeatures::empty()), |_| {});
        rig.connect();
        rig
    }

    pub fn with(inner: Inner, change: impl FnOnce(&mut Node)) -> Self {
        let (here, inner) = (Here::with(change), Arc::new(inner));
        let by_amount = |_: &PublicKey, offer: &OpenChannel| {
            let is_ours = offer.common_fields.funding_satoshis >= OURS_FROM;
            if is_ours { Route::Ours } else { Route::Inner }
        };
        let openings = here.openings.clone();
        let handler = OpeningHandler::new(inner.clone(), openings, by_amount, Handle::current());
        let raw = RawPeer::over(in_memory_pair().0, 2);
        Self { here, inner, handler, raw, peer: node_id(2), fetched: VecDeque::new() }
    }

    pub fn connect(&self) {
        let theirs = init(default_features());
        self.handler.peer_connected(self.peer, &theirs, true).unwrap();
        assert_eq!(self.inner.take_calls().len(), 1);
    }

    pub fn session(&self) -> Session {
        self.handler.session(&self.peer).unwrap()
    }

    /// What `process_events` gets next; waits until there is something.
    pub async fn next(&mut self) -> MessageSendEvent {
        loop {
            if let Some(event) = self.fetched.pop_front() {
                return event;
            }
            let output = timeout(Duration::from_secs(20), self.handler.output());
            output.await.expect("the handler has nothing to send");
            self.fetch();
        }
    }

    /// What `process_events` gets now.
    pub fn fetch(&mut self) -> &VecDeque<MessageSendEvent> {
        self.fetched.extend(self.handler.get_and_clear_pending_msg_events());
        &self.fetched
    }

    pub async fn open_channel(&mut self) -> OpenChannel {
        match self.next().await {
            MessageSendEvent::SendOpenChannel { node_id, msg } if node_id == self.peer => msg,
            other => panic!("{other:?}"),
        }
    }

    pub async fn accept_channel(&mut self) -> AcceptChannel {
        match self.next().await {
            MessageSendEvent::SendAcceptChannel { node_id, msg } if node_id == self.peer => msg,
            other => panic!("{other:?}"),
        }
    }

    pub async fn funding_created(&mut self) -> FundingCreated {
        match self.next().await {
            MessageSendEvent::SendFundingCreated { node_id, msg } if node_id == self.peer => msg,
            other => panic!("{other:?}"),
        }
    }

    pub async fn error(&mut self) -> ErrorMessage {
        match self.next().await {
            MessageSendEvent::HandleError {
                action: ErrorAction::SendErrorMessage { msg },
                node_id,
            } if node_id == self.peer => msg,
            other => panic!("{other:?}"),
        }
    }
}
