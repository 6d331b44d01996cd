//! What the table says about a message, asserted.

use lightning::ln::types::ChannelId;
use opening_core::Role;
use opening_peer::event::End;
use opening_peer::message::Message as Wire;
use opening_peer::negotiation::ready::Exit;
use opening_peer::{Event, Failed, FundingTransaction};

use crate::common::raw_peer::{RawPeer, channel_id, made_up_outpoint};
use crate::scene::{Handle, Scene, Valves};
use crate::table::Message::*;
use crate::table::Outcome::*;
use crate::table::{Message, Outcome, State};

impl Scene {
    /// Nothing that was sent has touched the opening: it goes on to its end.
    async fn goes_on(&mut self, sent: Option<&[u8]>) {
        let mut sent = sent;
        self.here.valves.open_all();
        while self.state != State::Nothing && self.state < State::Depth {
            self.step(Valves::Run, sent.take()).await;
        }
    }

    /// The opening has ended: whoever holds a handle learns it.
    async fn has_failed(&mut self, is_code: impl Fn(&str) -> bool) {
        let failed = self.here.failed().await;
        assert!(is_code(failed.failure.code()), "{failed}");
        assert_eq!(failed.temporary_channel_id, self.temporary_id());
        assert_eq!(failed.role, self.role);
        self.here.valves.open_all();
        let same = |other: Failed| assert_eq!(other.to_string(), failed.to_string());
        match self.take_handle() {
            Handle::None => {}
            Handle::Opening(opening) => same(opening.accepted().await.unwrap_err()),
            Handle::Funding(pending) => {
                let funding = FundingTransaction::Outpoint(made_up_outpoint(8, 0));
                let (error, pending) = pending.complete(funding).await.unwrap_err();
                assert!(pending.is_none());
                assert_eq!(error.to_string(), failed.to_string());
            }
            Handle::Completing(completing) => {
                assert_eq!(completing.await.unwrap().unwrap_err(), failed.to_string());
            }
            Handle::Signing(mut signing) => same(signing.opened().await.unwrap_err()),
        }
        assert_eq!(self.here.saved().await, []);
        self.state = State::Nothing;
    }

    /// Whether the channel is beyond what a message or a lost connection can end.
    fn is_safe(&self) -> bool {
        matches!(self.state, State::Save | State::Depth | State::Ready)
    }

    /// After the connection: what was not being saved has ended, the rest is a channel.
    async fn is_closed(&mut self) {
        if self.is_safe() {
            self.here.valves.open_all();
            self.is_open().await;
            if let Handle::Signing(mut signing) = self.take_handle() {
                let (_opened, permit) = signing.opened().await.unwrap();
                assert_eq!(permit.txid(), self.funding().transaction.compute_txid());
            }
        } else if self.state != State::Nothing {
            self.has_failed(|code| code == "disconnected").await;
        }
        let ended = |event: &Event| matches!(event, Event::Disconnected { .. });
        self.here.seen.take(ended).await;
        let (peer, session) = RawPeer::connect(&self.here.openings, 2).await;
        (self.peer, self.session) = (peer, session);
        if self.is_safe() {
            // The channel goes on over the new connection.
            assert!(matches!(self.peer.receive().await, Wire::ChannelReestablish(_)));
        }
    }

    async fn peer_reads_to_the_end(&mut self) {
        if self.state == State::Save && self.role == Role::Fundee {
            self.here.valves.open_all();
            self.peer.expect_funding_signed().await;
        }
        self.here.valves.open_all();
        self.peer.expect_closed().await;
    }

    pub(crate) async fn play(&mut self, message: Message, outcome: Outcome) {
        let (bytes, id) = self.message(message);
        self.peer.send_bytes(&bytes).await;
        match outcome {
            Next => return self.goes_next(message, &bytes).await,
            Fails => {
                self.peer.expect_error(self.our_id()).await;
                self.peer.expect_silence().await;
                self.has_failed(|code| code != "disconnected").await;
            }
            Ended => {
                self.peer.expect_silence().await;
                self.has_failed(|code| code == "peer-error").await;
            }
            AllEnded => {
                self.peer.expect_silence().await;
                self.has_failed(|code| code == "peer-error").await;
                assert_eq!(self.here.rest.take_messages(), [bytes]);
            }
            Begins => self.both_go_on(id).await,
            Refused => drop(self.peer.expect_error(id).await),
            Warned => drop(self.peer.expect_warning(id).await),
            Ignored => {}
            Reported => self.was_reported(message).await,
            Handed => {
                self.peer.expect_silence().await;
                assert_eq!(self.here.rest.take_messages(), [bytes]);
            }
            FailsChannel => self.channel_fails(bytes).await,
            SaidAgain => assert!(matches!(self.peer.receive().await, Wire::ChannelReady(_))),
            Kept => return self.was_kept(message, bytes).await,
            HandedKept => {
                self.peer.expect_silence().await;
                assert_eq!(self.here.rest.take_messages(), [&bytes[..]]);
                return self.was_kept(message, bytes).await;
            }
            Answered => {
                assert!(matches!(self.peer.receive().await, Wire::Pong(_)));
                assert_eq!(self.peer.heard.last().unwrap()[..], [0, 19, 0, 3, 0, 0, 0]);
            }
            Closed => {
                self.peer_reads_to_the_end().await;
                return self.is_closed().await;
            }
            FailsClosed => {
                self.peer.expect_error(self.our_id()).await;
                self.peer.expect_closed().await;
                self.has_failed(|code| code == "message-truncated").await;
                return self.is_closed().await;
            }
            RefusedClosed => {
                self.peer.expect_error(id).await;
                self.peer.expect_closed().await;
                return self.is_closed().await;
            }
            WarnedClosed => {
                self.peer.expect_warning(id).await;
                self.peer_reads_to_the_end().await;
                return self.is_closed().await;
            }
        }
        self.peer.expect_silence().await;
        self.goes_on(None).await;
    }

    /// What the state waited for, and all that follows it.
    async fn goes_next(&mut self, message: Message, bytes: &[u8]) {
        if message == ChannelReady {
            return self.reach_ready(Some(bytes)).await;
        }
        self.step(Valves::Run, Some(bytes)).await;
        self.goes_on(None).await;
    }

    async fn was_reported(&mut self, message: Message) {
        let is_it = |event: &Event| match event {
            Event::WarningReceived { text, .. } => message == Warning && text == "hm",
            Event::ErrorReceived { text, .. } => message == Error && text == "no",
            _ => false,
        };
        self.here.seen.find(|event| is_it(event).then_some(())).await;
    }

    /// Beyond what was asserted, neither the node nor its operator heard anything.
    pub(crate) fn nothing_else_happened(&self, message: Message, outcome: Outcome) {
        assert_eq!(self.here.rest.take_messages(), [[0; 0]; 0]);
        let is_failure = |event: &Event| matches!(event, Event::Failed(_));
        assert_eq!(self.here.seen.count(is_failure), 0);
        let speaks = matches!(message, Error | ErrorForAll | Warning);
        let is_report = |event: &Event| {
            matches!(event, Event::ErrorReceived { .. } | Event::WarningReceived { .. })
        };
        let reports = usize::from(speaks && outcome != Ignored);
        assert_eq!(self.here.seen.count(is_report), reports);
    }

    async fn was_kept(&mut self, message: Message, bytes: Vec<u8>) {
        if message == Error {
            self.was_reported(message).await;
        }
        self.peer.expect_silence().await;
        assert_eq!(self.here.rest.take_messages(), [[0; 0]; 0]);
        self.goes_on(None).await;
        if message == ChannelReady {
            // Ours makes both.
            self.confirm().await;
            self.here.seen.ready().await;
        } else if message == Shutdown {
            self.peer.expect_silence().await;
            assert_eq!(self.here.rest.take_messages(), [bytes]);
        } else {
            self.channel_fails(bytes).await;
        }
    }

    /// The peer's `error` ends an opened channel, and the node has money to claim, or none.
    async fn channel_fails(&mut self, bytes: Vec<u8>) {
        self.peer.expect_silence().await;
        assert_eq!(self.here.rest.take_messages(), [bytes]);
        let is_end = |event: &Event| match event {
            Event::Ended(ended) => Some(ended.clone()),
            _ => None,
        };
        let ended = self.here.seen.find(is_end).await;
        assert_eq!(ended.end, End::PeerError("no".into()));
        assert_eq!(ended.opened.channel_id, self.id());
        // Both roles have something in it: the peer pushes.
        assert_eq!(ended.exit, Exit::Broadcast);
    }

    /// The opening that began, and the one that was pending, know nothing of each other.
    async fn both_go_on(&mut self, id: ChannelId) {
        let accept = self.peer.expect_accept_channel(id).await;
        self.goes_on(None).await;
        let open = self.peer.open_channel(id);
        let outpoint = made_up_outpoint(9, 0);
        let created = self.peer.funding_created(&open, &accept, outpoint);
        self.peer.send(&created).await;
        assert_eq!(self.peer.expect_funding_signed().await.channel_id, channel_id(outpoint));
        assert!(self.here.saved().await.contains(&channel_id(outpoint)));
    }
}
