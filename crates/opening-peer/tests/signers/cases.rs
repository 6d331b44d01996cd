//! What every signer is put through.

use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::{Amount, OutPoint};
use lightning::ln::types::ChannelId;
use opening_core::{ChannelType, FeeratePerKw, MilliSatoshi};
use opening_peer::node::PublicText;
use opening_peer::{Ask, Event, Failed, Restored, Session};

use crate::common::lasting::Lasting;
use crate::common::raw_peer::RawPeer;
use crate::common::{ask, funding_transaction, signed};
use crate::under_test::UnderTest;

/// Nothing pushed, a push that is trimmed, one of no whole satoshi.
const PUSHES: [u64; 3] = [0, 300_000, 200_000_001];
const TYPES: [ChannelType; 2] = [ChannelType::ANCHORS, ChannelType::STATIC_REMOTEKEY];

async fn node_with(signer: &UnderTest) -> Lasting {
    let hsm = signer.hsm();
    Lasting::with(move |node| node.hsm = hsm.clone()).await
}

fn asks() -> impl Iterator<Item = Ask> {
    let feerate = FeeratePerKw::new(1250);
    TYPES.into_iter().flat_map(move |channel_type| {
        PUSHES.into_iter().map(move |push_msat| Ask {
            channel_type: Some(channel_type),
            push_msat: MilliSatoshi::from_msat(push_msat),
            ..Ask::new(Amount::from_sat(1_000_000), feerate)
        })
    })
}

async fn nothing_pending(node: &Lasting) {
    while node.openings.pending() != 0 {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

/// A channel in each direction, to its use: what was before has left nothing behind.
async fn still_opens(node: &Lasting, peer: &mut RawPeer, session: &Session) {
    let theirs = node.they_fund(peer, |_| {}).await;
    node.both_ready(peer, &theirs).await;
    let (ours, _permit) = node.we_fund(peer, session, ask()).await;
    node.both_ready(peer, &ours).await;
    nothing_pending(node).await;
}

fn failures(node: &Lasting) -> Vec<Failed> {
    node.seen.all(|event| match event {
        Event::Failed(failed) => Some(failed.clone()),
        _ => None,
    })
}

pub(crate) async fn opens_channels_of_every_type_as_funder(signer: UnderTest) {
    let node = node_with(&signer).await;
    let (mut peer, session) = node.connect().await;
    for ask in asks() {
        let (channel, _permit) = node.we_fund(&mut peer, &session, ask).await;
        peer.assert_signed(&mirrored(&channel.opened), &channel.opened.local_signature);
        node.both_ready(&mut peer, &channel).await;
    }
    nothing_pending(&node).await;
    assert!(failures(&node).is_empty());
}

pub(crate) async fn opens_channels_of_every_type_as_fundee(signer: UnderTest) {
    let node = node_with(&signer).await;
    let (mut peer, _session) = node.connect().await;
    for ask in asks() {
        let features = ask.channel_type.map(ChannelType::to_features);
        let change = |open: &mut lightning::ln::msgs::OpenChannel| {
            open.common_fields.channel_type = features;
            open.push_msat = ask.push_msat.to_msat();
        };
        let channel = node.they_fund(&mut peer, change).await;
        peer.assert_signed(&mirrored(&channel.opened), &channel.opened.local_signature);
        node.both_ready(&mut peer, &channel).await;
    }
    nothing_pending(&node).await;
    assert!(failures(&node).is_empty());
}

/// The channel as the peer sees it.
fn mirrored(opened: &opening_peer::Opened) -> opening_core::ChannelParameters {
    let parameters = opened.parameters.clone();
    opening_core::ChannelParameters {
        opener: parameters.opener.other(),
        local: parameters.remote,
        remote: parameters.local,
        ..parameters
    }
}

pub(crate) async fn goes_on_after_a_restart_of_node_and_signer(mut signer: UnderTest) {
    let mut node = node_with(&signer).await;
    let (mut peer, session) = node.connect().await;
    let theirs = node.they_fund(&mut peer, |_| {}).await;
    drop((peer, session));
    signer.restart_with_client().await;
    assert!(matches!(node.restart_with_one().await, Restored::AwaitDepth(_)));
    let (mut peer, session) = node.connect().await;
    peer.reestablish(theirs.id).await;
    node.both_ready(&mut peer, &theirs).await;
    still_opens(&node, &mut peer, &session).await;
}

pub(crate) async fn goes_the_way_out_after_a_restart(mut signer: UnderTest) {
    let mut node = node_with(&signer).await;
    let (mut peer, session) = node.connect().await;
    let (ours, _permit) = node.we_fund(&mut peer, &session, ask()).await;
    let theirs = node.they_fund(&mut peer, |_| {}).await;
    drop((peer, session));
    signer.restart_with_client().await;
    node.restart().await;
    for channel in [ours, theirs] {
        node.openings.fail(&channel.id, &PublicText::new("no more")).await.unwrap();
        let transaction = node.openings.signed_commitment(&channel.id).await.unwrap();
        assert_eq!(
            transaction.compute_txid(),
            channel.opened.local_commitment.transaction.compute_txid()
        );
        // The same in every process, and as often as it is wanted.
        signer.restart_with_client().await;
        let again = node.openings.signed_commitment(&channel.id).await.unwrap();
        assert_eq!(again.compute_txid(), transaction.compute_txid());
    }
}

/// Between `accept_channel` and the funding transaction, in both roles.
pub(crate) async fn survives_a_restart_of_the_signer_in_the_middle(mut signer: UnderTest) {
    let node = node_with(&signer).await;
    let (mut peer, session) = node.connect().await;

    let opening = session.open(ask()).await.unwrap();
    let open = peer.expect_open_channel().await;
    let accept = peer.accept_channel(&open);
    peer.send(&accept).await;
    let pending = opening.accepted().await.unwrap();
    signer.restart().await;
    let output = pending.needed().output.clone();
    let mut signing = pending.complete(signed(&output)).await.unwrap();
    let created = peer.expect_funding_created().await;
    signer.restart().await;
    peer.send(&peer.funding_signed(&open, &accept, &created)).await;
    let (_, _permit) = signing.opened().await.unwrap();

    let id = ChannelId([0x77; 32]);
    let open = peer.open_channel(id);
    peer.send(&open).await;
    let accept = peer.expect_accept_channel(id).await;
    signer.restart().await;
    let outpoint = OutPoint { txid: funding_transaction(&output, 3).compute_txid(), vout: 3 };
    peer.send(&peer.funding_created(&open, &accept, outpoint)).await;
    peer.expect_funding_signed().await;
    assert!(failures(&node).is_empty());
    still_opens(&node, &mut peer, &session).await;
}

pub(crate) async fn finds_a_bad_signature_and_goes_on(signer: UnderTest) {
    let node = node_with(&signer).await;
    let (mut peer, session) = node.connect().await;
    let bad = Signature::from_compact(&[1; 64]).unwrap();

    let id = ChannelId([0x77; 32]);
    let open = peer.open_channel(id);
    peer.send(&open).await;
    let accept = peer.expect_accept_channel(id).await;
    let outpoint = crate::common::raw_peer::made_up_outpoint(7, 0);
    let mut created = peer.funding_created(&open, &accept, outpoint);
    created.signature = bad;
    peer.send(&created).await;
    peer.expect_error(id).await;

    let opening = session.open(ask()).await.unwrap();
    let open = peer.expect_open_channel().await;
    let accept = peer.accept_channel(&open);
    peer.send(&accept).await;
    let pending = opening.accepted().await.unwrap();
    let funding = signed(&pending.needed().output);
    let mut signing = pending.complete(funding).await.unwrap();
    let created = peer.expect_funding_created().await;
    let mut answer = peer.funding_signed(&open, &accept, &created);
    answer.signature = bad;
    peer.send(&answer).await;
    assert_eq!(signing.opened().await.unwrap_err().failure.code(), "bad-signature");
    peer.expect_error(answer.channel_id).await;
    still_opens(&node, &mut peer, &session).await;
}

pub(crate) async fn leaves_nothing_of_an_opening_that_is_cancelled(signer: UnderTest) {
    let node = node_with(&signer).await;
    let (mut peer, session) = node.connect().await;

    // Ours, before and after the peer has accepted.
    let opening = session.open(ask()).await.unwrap();
    let id = peer.expect_open_channel().await.common_fields.temporary_channel_id;
    drop(opening);
    peer.expect_error(id).await;
    let opening = session.open(ask()).await.unwrap();
    let open = peer.expect_open_channel().await;
    peer.send(&peer.accept_channel(&open)).await;
    drop(opening.accepted().await.unwrap());
    peer.expect_error(open.common_fields.temporary_channel_id).await;

    // Theirs, at once and after we have accepted.
    for waits in [false, true] {
        let id = ChannelId([0x70 + u8::from(waits); 32]);
        peer.send(&peer.open_channel(id)).await;
        if waits {
            peer.expect_accept_channel(id).await;
        }
        peer.send_error(id, "I have changed my mind").await;
        if !waits {
            // The answer may have been on its way.
            node.seen
                .take(|event| matches!(event, Event::Failed(it) if it.temporary_channel_id == id))
                .await;
        }
    }
    nothing_pending(&node).await;
    drop((peer, session));
    let (mut peer, session) = node.connect().await;
    still_opens(&node, &mut peer, &session).await;
}

/// A delay on our money that a validating signer does not know: the peer hears of a rule, or opens.
pub(crate) async fn refuses_in_the_peers_words_what_the_signer_does_not_sign_for(
    signer: UnderTest,
) {
    let node = node_with(&signer).await;
    let (mut peer, session) = node.connect().await;
    let id = ChannelId([0x77; 32]);
    let mut open = peer.open_channel(id);
    open.common_fields.to_self_delay = 3;
    peer.send(&open).await;
    if signer.has_bounds() {
        assert_eq!(peer.expect_error(id).await, "to_self_delay 3 is below 4");
    } else {
        peer.expect_accept_channel(id).await;
        peer.send_error(id, "enough").await;
    }
    still_opens(&node, &mut peer, &session).await;
}

pub(crate) async fn opens_many_at_once(signer: UnderTest) {
    let node = node_with(&signer).await;
    let opening = (0..5_u8).map(|secret| {
        let openings = node.openings.clone();
        async move {
            let (mut peer, _session) = RawPeer::connect(&openings, 20 + secret).await;
            for number in 0..4 {
                let id = ChannelId([number + 1; 32]);
                let outpoint =
                    crate::common::raw_peer::made_up_outpoint(secret * 4 + number + 1, 0);
                peer.open(&peer.open_channel(id), outpoint).await;
            }
        }
    });
    futures::future::join_all(opening).await;
    nothing_pending(&node).await;
    let opened = node.seen.count(|event| matches!(event, Event::Opened(_)));
    assert_eq!((opened, failures(&node).len()), (20, 0));
}
