//! Whose is a message?

use std::time::Duration;

use bitcoin::hashes::Hash;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::{ScriptBuf, Txid};
use lightning::ln::msgs::{
    AnnouncementSignatures, BaseMessageHandler, ChannelMessageHandler, ChannelReady,
    ChannelReestablish, ClosingSigned, CommitmentSigned, ErrorMessage, FundingSigned,
    MessageSendEvent, OpenChannel, RevokeAndACK, Shutdown, SpliceLocked, Stfu, TxAbort, TxComplete,
    UpdateFailHTLC, UpdateFailMalformedHTLC, UpdateFee, UpdateFulfillHTLC,
};
use lightning::ln::types::ChannelId;
use lightning::types::payment::PaymentPreimage;
use lightning::util::ser::LengthReadable;
use opening_core::ShortChannelId;
use opening_peer::Event;
use opening_peer::message::encode;
use tokio::time::timeout;

use crate::common::raw_peer::{channel_id, made_up_outpoint, outpoint};
use crate::common::{ask, signed};
use crate::rig::{OURS_FROM, Rig};

const OURS: ChannelId = ChannelId([0x0a; 32]);
const INNERS: ChannelId = ChannelId([0x1b; 32]);

fn signature() -> Signature {
    Signature::from_compact(&[1; 64]).unwrap()
}

/// A message of LDK's that only its bytes can make: `rest` follows the channel's id.
fn read<T: LengthReadable>(id: ChannelId, rest: Vec<u8>) -> T {
    let body = [id.0.to_vec(), rest].concat();
    T::read_from_fixed_length_buffer(&mut &body[..]).unwrap()
}

impl Rig {
    fn offer(&self, id: ChannelId, funding_satoshis: u64) -> OpenChannel {
        let mut open = self.raw.open_channel(id);
        open.common_fields.funding_satoshis = funding_satoshis;
        open
    }

    /// A channel of ours that the peer funds, up to our `funding_signed`.
    async fn opened_by_peer(&mut self, id: ChannelId) -> ChannelId {
        let open = self.offer(id, OURS_FROM);
        self.handler.handle_open_channel(self.peer, &open);
        let accept = self.accept_channel().await;
        assert_eq!(accept.common_fields.temporary_channel_id, id);
        let outpoint = made_up_outpoint(7, 1);
        let created = self.raw.funding_created(&open, &accept, outpoint);
        self.handler.handle_funding_created(self.peer, &created);
        match self.next().await {
            MessageSendEvent::SendFundingSigned { msg, .. } => {
                assert_eq!(msg.channel_id, channel_id(outpoint));
                msg.channel_id
            }
            other => panic!("{other:?}"),
        }
    }
}

// req: B2-CID-B-03
#[tokio::test]
async fn offers_go_where_the_node_says_and_later_messages_go_by_their_ids() {
    let mut rig = Rig::new();
    let (peer, session) = (rig.peer, rig.session());
    // The inner handler's, below what the node routes to us; and an offer that it has made.
    let theirs = rig.offer(INNERS, OURS_FROM - 1);
    rig.handler.handle_open_channel(peer, &theirs);
    // Ours, in both directions.
    let opening = session.open(ask()).await.unwrap();
    let ours = rig.open_channel().await;
    let id = rig.opened_by_peer(OURS).await;

    let accept = rig.raw.accept_channel(&ours);
    rig.handler.handle_accept_channel(peer, &accept);
    let pending = opening.accepted().await.unwrap();
    let funding = signed(&pending.needed().output);
    let mut signing = pending.complete(funding).await.unwrap();
    let created = rig.funding_created().await;
    let funding_signed = rig.raw.funding_signed(&ours, &accept, &created);
    rig.handler.handle_funding_signed(peer, &funding_signed);
    let (opened, _permit) = signing.opened().await.unwrap();
    assert_eq!(opened.channel_id, channel_id(outpoint(&created)));

    // The inner handler's openings go on in between.
    let mut accept_inners = accept.clone();
    accept_inners.common_fields.temporary_channel_id = ChannelId([0x2c; 32]);
    rig.handler.handle_accept_channel(peer, &accept_inners);
    let mut created_inners = created.clone();
    created_inners.temporary_channel_id = INNERS;
    created_inners.funding_txid = Txid::from_byte_array([8; 32]);
    rig.handler.handle_funding_created(peer, &created_inners);
    let signed_inners = FundingSigned { channel_id: ChannelId([8; 32]), signature: signature() };
    rig.handler.handle_funding_signed(peer, &signed_inners);
    assert_eq!(
        rig.inner.take_calls(),
        [
            ("handle_open_channel", INNERS),
            ("handle_accept_channel", ChannelId([0x2c; 32])),
            ("handle_funding_created", INNERS),
            ("handle_funding_signed", ChannelId([8; 32])),
        ]
    );
    assert_ne!(id, opened.channel_id);
    // Nothing of the inner handler's made our session say anything.
    assert!(rig.fetch().is_empty());
    assert_eq!(rig.here.seen.count(|event| matches!(event, Event::ErrorSent { .. })), 0);
}

macro_rules! each {
    ($rig:ident, $id:ident, $($handle:ident($($message:tt)+);)+) => {
        vec![$(each!(@ $rig, $id, $handle, $($message)+)),+]
    };
    (@ $rig:ident, $id:ident, $handle:ident, by value $message:expr) => {{
        let message = $message;
        let bytes = encode(&message);
        $rig.handler.$handle($rig.peer, message);
        (stringify!($handle), bytes)
    }};
    (@ $rig:ident, $id:ident, $handle:ident, $message:expr) => {{
        let message = $message;
        $rig.handler.$handle($rig.peer, &message);
        (stringify!($handle), encode(&message))
    }};
}

/// Calls the handler with messages that an open channel may get; returns what they were.
fn operate(rig: &Rig, id: ChannelId) -> Vec<(&'static str, Vec<u8>)> {
    let (channel_id, signature) = (id, signature());
    let commitment_signed =
        CommitmentSigned { channel_id, signature, htlc_signatures: Vec::new(), funding_txid: None };
    each! { rig, channel_id,
        handle_stfu(Stfu { channel_id, initiator: true });
        handle_splice_locked(SpliceLocked { channel_id, splice_txid: Txid::from_byte_array([1; 32]) });
        handle_tx_complete(TxComplete { channel_id });
        handle_tx_abort(TxAbort { channel_id, data: vec![1] });
        handle_closing_signed(ClosingSigned {
            channel_id, fee_satoshis: 1, signature, fee_range: None
        });
        handle_update_fulfill_htlc(by value UpdateFulfillHTLC {
            channel_id,
            htlc_id: 0,
            payment_preimage: PaymentPreimage([1; 32]),
            attribution_data: None
        });
        handle_update_fail_malformed_htlc(read::<UpdateFailMalformedHTLC>(id, [0; 42].to_vec()));
        handle_update_fail_htlc(read::<UpdateFailHTLC>(id, [0; 10].to_vec()));
        handle_update_fee(UpdateFee { channel_id, feerate_per_kw: 253 });
        handle_commitment_signed(commitment_signed.clone());
        handle_revoke_and_ack(RevokeAndACK {
            channel_id,
            per_commitment_secret: [1; 32],
            next_per_commitment_point: rig.raw.point(1),
            release_htlc_message_paths: Vec::new()
        });
        handle_announcement_signatures(AnnouncementSignatures {
            channel_id,
            short_channel_id: ShortChannelId::from_u64(1).to_u64(),
            node_signature: signature,
            bitcoin_signature: signature
        });
        handle_shutdown(Shutdown { channel_id, scriptpubkey: ScriptBuf::new() });
        handle_channel_reestablish(ChannelReestablish {
            channel_id,
            next_local_commitment_number: 1,
            next_remote_commitment_number: 0,
            your_last_per_commitment_secret: [0; 32],
            my_current_per_commitment_point: rig.raw.point(1),
            next_funding: None,
            my_current_funding_locked: None
        });
    }
}

#[tokio::test]
async fn the_messages_of_a_channel_of_ours_reach_the_node_and_all_others_the_inner_handler() {
    let mut rig = Rig::new();
    let id = rig.opened_by_peer(OURS).await;
    // The node operates it.
    rig.here.rest.own(id);
    let wanted = operate(&rig, id);
    let batch = CommitmentSigned {
        channel_id: id,
        signature: signature(),
        htlc_signatures: Vec::new(),
        funding_txid: None,
    };
    let two = vec![batch.clone(), batch.clone()];
    rig.handler.handle_commitment_signed_batch(rig.peer, id, two.clone());
    assert_eq!(rig.inner.take_calls(), []);
    // What comes last comes out last.
    let error = ErrorMessage { channel_id: id, data: "the end".into() };
    rig.handler.handle_error(rig.peer, &error);
    rig.here.seen.error_received().await;
    let mut handed: Vec<Vec<u8>> = rig.here.rest.take_messages();
    assert_eq!(handed.pop(), Some(encode(&error)));
    let start = handed.iter().position(|message| message.starts_with(&[0, 127])).unwrap();
    // channel, two messages, of type 132.
    assert_eq!(handed[start][2..36], [&id.0[..], &[0, 2]].concat());
    assert_eq!(handed[start + 1..], [encode(&batch), encode(&batch)]);
    let wanted: Vec<_> = wanted.into_iter().map(|(_, bytes)| bytes).collect();
    assert_eq!(handed[..start], wanted);
    assert_eq!(rig.inner.take_calls(), []);

    let others: Vec<_> =
        operate(&rig, INNERS).into_iter().map(|(name, _)| (name, INNERS)).collect();
    rig.handler.handle_commitment_signed_batch(rig.peer, INNERS, two);
    let mut calls = rig.inner.take_calls();
    assert_eq!(calls.pop(), Some(("handle_commitment_signed_batch", INNERS)));
    assert_eq!(calls, others);
    tokio::task::yield_now().await;
    assert_eq!(rig.here.rest.take_messages(), Vec::<Vec<u8>>::new());
    assert!(rig.fetch().is_empty());
}

// req: B1-ERR-R-01
#[tokio::test]
async fn an_error_about_all_channels_reaches_both() {
    let mut rig = Rig::new();
    let opening = rig.session().open(ask()).await.unwrap();
    rig.open_channel().await;
    let all = ErrorMessage { channel_id: ChannelId([0; 32]), data: "go away".into() };
    rig.handler.handle_error(rig.peer, &all);
    // LDK disconnects behind it.
    rig.handler.peer_disconnected(rig.peer);
    let failed = opening.accepted().await.unwrap_err();
    assert_eq!(failed.failure.code(), "peer-error", "the error came first");
    let calls = rig.inner.take_calls();
    assert_eq!(calls[0], ("handle_error", all.channel_id));
    assert_eq!(rig.here.rest.take_messages(), [encode(&all)]);
}

/// Nobody but the session's task is there to keep it going.
#[tokio::test]
async fn what_came_before_a_disconnect_is_still_read() {
    let mut rig = Rig::new();
    let open = rig.offer(OURS, OURS_FROM);
    rig.handler.handle_open_channel(rig.peer, &open);
    rig.accept_channel().await;
    let no = ErrorMessage { channel_id: OURS, data: "no".into() };
    rig.handler.handle_error(rig.peer, &no);
    rig.handler.peer_disconnected(rig.peer);
    assert_eq!(rig.here.failed().await.failure.code(), "peer-error");
}

/// The channel is saved all the same; its `funding_signed` belonged to the old connection.
#[tokio::test]
async fn what_an_old_session_still_says_does_not_reach_the_next_connection() {
    let mut rig = Rig::new();
    let mut before = rig.session();
    let open = rig.offer(OURS, OURS_FROM);
    rig.handler.handle_open_channel(rig.peer, &open);
    let accept = rig.accept_channel().await;
    rig.here.valves.save.shut();
    let created = rig.raw.funding_created(&open, &accept, made_up_outpoint(7, 1));
    rig.handler.handle_funding_created(rig.peer, &created);
    rig.here.valves.save.reached().await;
    rig.handler.peer_disconnected(rig.peer);
    rig.inner.take_calls();
    rig.connect();
    rig.here.valves.save.open();
    before.closed().await;
    let id = channel_id(outpoint(&created));
    assert_eq!(rig.here.saved().await, [id]);
    // The channel goes on over the new connection.
    match rig.next().await {
        MessageSendEvent::SendChannelReestablish { msg, .. } => assert_eq!(msg.channel_id, id),
        other => panic!("{other:?}"),
    }
    assert!(rig.fetch().is_empty());
}

#[tokio::test]
async fn an_error_about_one_opening_reaches_only_whose_it_is() {
    let mut rig = Rig::new();
    let opening = rig.session().open(ask()).await.unwrap();
    let id = rig.open_channel().await.common_fields.temporary_channel_id;
    let about = |channel_id| ErrorMessage { channel_id, data: "no".into() };
    rig.handler.handle_error(rig.peer, &about(INNERS));
    assert_eq!(rig.inner.take_calls(), [("handle_error", INNERS)]);
    rig.handler.handle_error(rig.peer, &about(id));
    assert_eq!(opening.accepted().await.unwrap_err().failure.code(), "peer-error");
    assert_eq!(rig.inner.take_calls(), []);
    assert_eq!(rig.here.seen.error_received().await.0, id);
}

/// A late word about an opening that has ended does not reach the inner handler.
#[tokio::test]
async fn what_has_ended_stays_ours_until_its_id_is_used_again() {
    let mut rig = Rig::new();
    let open = rig.offer(OURS, OURS_FROM);
    rig.handler.handle_open_channel(rig.peer, &open);
    let accept = rig.accept_channel().await;
    let no = ErrorMessage { channel_id: OURS, data: "no".into() };
    rig.handler.handle_error(rig.peer, &no);
    rig.here.failed().await;
    let created = rig.raw.funding_created(&open, &accept, made_up_outpoint(7, 1));
    rig.handler.handle_funding_created(rig.peer, &created);
    assert_eq!(rig.error().await.channel_id, OURS);
    assert_eq!(rig.inner.take_calls(), []);
    // Now as an offer that goes to the inner handler.
    let open = rig.offer(OURS, OURS_FROM - 1);
    rig.handler.handle_open_channel(rig.peer, &open);
    rig.handler.handle_funding_created(rig.peer, &created);
    let calls = [("handle_open_channel", OURS), ("handle_funding_created", OURS)];
    assert_eq!(rig.inner.take_calls(), calls);
    // And again as ours.
    let open = rig.offer(OURS, OURS_FROM);
    rig.handler.handle_open_channel(rig.peer, &open);
    assert_eq!(rig.accept_channel().await.common_fields.temporary_channel_id, OURS);
}

/// Else an `error` with this id would be about an opening of each.
// req: B2-EST-B-06
#[tokio::test]
async fn an_offer_by_the_id_of_a_pending_one_of_ours_is_ours_too() {
    let mut rig = Rig::new();
    let _opening = rig.session().open(ask()).await.unwrap();
    let id = rig.open_channel().await.common_fields.temporary_channel_id;
    let open = rig.offer(id, OURS_FROM - 1);
    rig.handler.handle_open_channel(rig.peer, &open);
    assert_eq!(rig.accept_channel().await.common_fields.temporary_channel_id, id);
    assert_eq!(rig.inner.take_calls(), []);
}

#[tokio::test]
async fn a_channel_that_the_node_owns_is_not_the_inner_handlers() {
    let rig = Rig::new();
    rig.here.rest.own(INNERS);
    let reestablish = operate(&rig, INNERS).pop().unwrap();
    assert_eq!(rig.inner.take_calls(), []);
    let mut handed = Vec::new();
    let all = async {
        while handed.len() < 14 {
            tokio::task::yield_now().await;
            handed.extend(rig.here.rest.take_messages());
        }
    };
    timeout(Duration::from_secs(20), all).await.unwrap();
    assert_eq!(handed.pop(), Some(reestablish.1));
}

/// After a reconnect, too, a saved channel is ours.
#[tokio::test]
async fn a_saved_channel_is_ours_on_the_next_connection() {
    let mut rig = Rig::new();
    let id = rig.opened_by_peer(OURS).await;
    let opened = rig.here.seen.opened().await;
    assert_eq!(opened.channel_id, id);
    rig.handler.peer_disconnected(rig.peer);
    rig.inner.take_calls();
    rig.connect();
    let ready = ChannelReady {
        channel_id: id,
        next_per_commitment_point: rig.raw.point(1),
        short_channel_id_alias: None,
    };
    rig.handler.handle_channel_ready(rig.peer, &ready);
    assert_eq!(rig.inner.take_calls(), []);
    // The temporary id was the old connection's.
    let error = ErrorMessage { channel_id: OURS, data: String::new() };
    rig.handler.handle_error(rig.peer, &error);
    assert_eq!(rig.inner.take_calls(), [("handle_error", OURS)]);
    // Another peer has no channel of this name with us.
    let stranger = rig.raw.point(9);
    rig.handler.handle_channel_ready(stranger, &ready);
    assert_eq!(rig.inner.take_calls(), [("handle_channel_ready", id)]);
}

// req: B2-CID-B-01
#[tokio::test]
async fn the_outpoint_of_a_channel_of_the_inner_handler_is_refused() {
    let mut rig = Rig::new();
    let open = rig.offer(OURS, OURS_FROM);
    rig.handler.handle_open_channel(rig.peer, &open);
    let accept = rig.accept_channel().await;
    let created = rig.raw.funding_created(&open, &accept, made_up_outpoint(7, 1));
    rig.here.rest.use_elsewhere(channel_id(outpoint(&created)));
    rig.handler.handle_funding_created(rig.peer, &created);
    assert_eq!(rig.error().await.data, "the funding outpoint is in use");
    assert_eq!(rig.here.failed().await.failure.code(), "outpoint-in-use");
    assert_eq!(rig.here.saved().await, []);
}
