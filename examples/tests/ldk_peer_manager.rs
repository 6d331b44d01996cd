//! This library and LDK's `ChannelManager` behind one `PeerManager`, over TCP with a plain LDK
//! node.

#![allow(clippy::unwrap_used)]

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use lightning::events::ClosureReason;
use lightning::ln::msgs::{ErrorAction, ErrorMessage, MessageSendEvent};
use lightning::ln::types::ChannelId;
use opening_core::Role;
use opening_examples::chain::RegtestChain;
use opening_examples::ldk_node::{Inbound, LdkAsk, LdkNode, Manager};
use opening_examples::ldk_peer_manager::node::MixedNode;
use opening_examples::ldk_peer_manager::story::{Stage, our_ask};
use opening_examples::ldk_peer_manager::watched::Watched;
use opening_examples::wallet::Wallet;
use opening_peer::Event;
use opening_peer::message::encode;

// req: B2-CID-B-03, B2-EST-B-04
#[tokio::test]
async fn both_open_channels_over_one_connection_in_both_roles_and_nothing_crosses() {
    let stage = Stage::set().await.unwrap();
    let outcome = stage.open_all().await.unwrap();
    stage.peer_agrees(&outcome).await.unwrap();
    stage.nothing_crossed(&outcome).unwrap();
    let roles = outcome.ours.each_ref().map(|ready| ready.opened.role());
    assert_eq!(roles, [Role::Funder, Role::Fundee]);
    assert_eq!(outcome.ldks.each_ref().map(|channel| channel.is_outbound), [true, false]);
    // Each part has its two channels, and they are not the same ones.
    let ours = outcome.ours.each_ref().map(|ready| ready.opened.channel_id);
    let ldks: Vec<ChannelId> =
        stage.mixed.ldk.channels().iter().map(|channel| channel.channel_id).collect();
    assert_eq!(ldks.len(), 2);
    assert!(ours.iter().all(|id| !ldks.contains(id)));
    // One message of each kind for each of its channels: none was sent twice, none went astray.
    let count = |handle| stage.mixed.watched.count(handle);
    assert_eq!((count("handle_open_channel"), count("handle_accept_channel")), (1, 1));
    assert_eq!((count("handle_funding_created"), count("handle_funding_signed")), (1, 1));
    assert_eq!((count("handle_channel_ready"), count("handle_error")), (2, 0));
}

/// A plain LDK node whose handler says what a test wants said.
async fn talkative(chain: &RegtestChain, wallet: &Wallet) -> LdkNode<Watched<Manager>> {
    let watched = |manager| Arc::new(Watched::new(manager));
    let (chain, wallet) = (chain.clone(), wallet.clone());
    LdkNode::start_behind([2; 32], chain, wallet, Inbound::Accept, watched).await.unwrap()
}

// req: B1-ERR-R-01
#[tokio::test]
async fn an_error_about_all_channels_ends_those_of_both() {
    let chain = RegtestChain::default();
    let wallet = Wallet::mined([3; 32], &chain);
    let plain = talkative(&chain, &wallet).await;
    let mixed = MixedNode::start([1; 32], chain.clone(), wallet.clone()).await.unwrap();
    let peer = plain.node_id();
    mixed.ldk.connect(peer, plain.address()).await.unwrap();

    let ask =
        LdkAsk { funding_satoshis: 500_000, push_msat: 0, anchors: true, announce_channel: false };
    mixed.ldk.open_channel(peer, ask).unwrap();
    let ldks = mixed.ldk.channel(|channel| channel.funding_txo.is_some()).await.unwrap().channel_id;
    // One of ours is open, and another one is pending.
    let opened = mixed.open_channel(&peer, our_ask(), &wallet).await.unwrap();
    let pending = mixed.session(&peer).unwrap().open(our_ask()).await.unwrap();
    let pending = pending.accepted().await.unwrap();

    let msg = ErrorMessage { channel_id: ChannelId([0; 32]), data: "we are done".into() };
    let action = ErrorAction::SendErrorMessage { msg: msg.clone() };
    let node_id = mixed.ldk.node_id();
    plain.handler().say(MessageSendEvent::HandleError { node_id, action });
    plain.process_events();

    match mixed.ldk.closure_reason(ldks).await {
        Some(ClosureReason::CounterpartyForceClosed { peer_msg }) => {
            assert!(peer_msg.to_string().contains(&msg.data), "{peer_msg}");
        }
        other => panic!("{other:?}"),
    }
    let failed = mixed.recorder.failed(0).await.unwrap();
    assert_eq!(failed.failure.code(), "peer-error");
    assert_eq!(failed.temporary_channel_id, pending.temporary_channel_id());
    // What is open is the node's to close.
    assert_eq!(mixed.handed.first().await.unwrap(), encode(&msg));
    assert_ne!(opened.channel_id, ldks);
    // LDK disconnects behind it.
    let disconnected = |event: &Event| matches!(event, Event::Disconnected { .. }).then_some(());
    mixed.recorder.find(0, disconnected).await.unwrap();
    assert!(mixed.session(&peer).is_err());
}

#[tokio::test]
async fn a_reconnect_gets_a_session_that_opens_channels() {
    let stage = Stage::set().await.unwrap();
    let (mixed, peer) = (&stage.mixed, stage.plain.node_id());
    let mut before = mixed.session(&peer).unwrap();
    let opening = before.open(our_ask()).await.unwrap();
    before.close().await;
    // The session has ended; LDK ends the connection when it is told.
    let seen = mixed.recorder.len();
    opening.accepted().await.unwrap_err();
    let gone = async {
        while mixed.session(&peer).is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.unwrap();
    mixed.ldk.connect(peer, stage.plain.address()).await.unwrap();
    let connected = |event: &Event| matches!(event, Event::Connected).then_some(());
    mixed.recorder.find(seen, connected).await.unwrap();
    let opened = mixed.open_channel(&peer, our_ask(), &stage.wallet).await.unwrap();
    for _ in 0..6 {
        stage.chain.mine();
    }
    assert_eq!(mixed.recorder.ready(&opened).await.unwrap().opened.channel_id, opened.channel_id);
}

fn program(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_ldk_peer_manager")).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_program_tells_the_story() {
    let (code, out, err) = program(&[]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(out.matches("opened by this library").count(), 2);
    assert_eq!(out.matches("opened by LDK").count(), 2);
    assert_eq!(out.matches("checked:").count(), 2);
    assert!(out.contains("4 channels over 1 connection"));
}

#[test]
fn the_program_explains_itself_and_refuses_what_it_does_not_know() {
    let (code, out, _) = program(&["--help"]);
    assert_eq!(code, Some(0));
    assert!(out.contains("over one connection") && out.contains("--log"));
    let (code, _, err) = program(&["--channels", "9"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("unexpected argument '--channels'"), "{err}");
    let (code, _, err) = program(&["--log", "loud"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("not one of off, error, warn, info, debug, trace"), "{err}");
}
