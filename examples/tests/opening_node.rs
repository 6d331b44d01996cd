//! The scriptable node, driven as a harness drives it: one process a node, JSON lines.

#![allow(clippy::unwrap_used)]

mod driver;

use std::process::{Command, Stdio};

use bitcoin::{Amount, consensus};
use driver::{Node, transaction};
use serde_json::json;

fn blocks(nodes: &mut [&mut Node], transaction: &str) {
    for (height, txs) in (102..).zip([json!([transaction]), json!([]), json!([])]) {
        for node in nodes.iter_mut() {
            node.ask_ok(json!({"cmd": "connect_block", "height": height, "txs": txs}));
        }
    }
}

#[test]
fn two_nodes_open_a_channel_and_use_it() {
    let (mut funder, mut fundee) = (Node::start(&[]), Node::start(&[]));
    funder.connect(&mut fundee);
    let begun = funder.fund(&fundee, 1_000_000);
    let temporary_id = &begun["result"]["temporary_channel_id"];
    let needed = funder.event("funding_needed");
    assert_eq!(needed["temporary_channel_id"], *temporary_id);
    assert_eq!(needed["feerate_per_kw"], 1250);

    let transaction = transaction(&needed);
    let raw = consensus::encode::serialize_hex(&transaction);
    let command = json!({"cmd": "funding_tx", "temporary_channel_id": temporary_id, "tx": raw});
    funder.ask_ok(command);
    assert_eq!(funder.event("broadcast")["tx"], raw);
    let (ours, theirs) = (funder.event("opened"), fundee.event("opened"));
    assert_eq!((&ours["role"], &theirs["role"]), (&json!("funder"), &json!("fundee")));
    assert_eq!(ours["funding_txid"], transaction.compute_txid().to_string());
    assert_eq!(ours["channel_id"], theirs["channel_id"]);
    assert_ne!(ours["commitment_txid"], theirs["commitment_txid"]);

    blocks(&mut [&mut funder, &mut fundee], &raw);
    for node in [&mut funder, &mut fundee] {
        assert_eq!(node.event("channel_ready")["channel_id"], ours["channel_id"]);
        let channels = node.ask_ok(json!({"cmd": "channels"}));
        assert_eq!(channels[0]["stage"], "ready", "{channels}");
        assert_eq!(channels[0]["funding_vout"], 0);
    }
    funder.ask_ok(json!({"cmd": "stop"}));
    assert!(funder.process.wait().unwrap().success(), "stop ends it with stdin still open");
    assert!(fundee.wait().success(), "the end of stdin is a stop");
}

#[test]
fn refusals_cancels_and_nonsense_are_answered_with_codes() {
    let (mut funder, mut fundee) = (Node::start(&[]), Node::start(&["--minimum-depth=1"]));
    let answer = funder.fund(&fundee, 1_000_000);
    assert_eq!(answer["code"], "not-connected");
    funder.connect(&mut fundee);

    funder.fund(&fundee, 9_999);
    let failed = fundee.event("failed");
    assert_eq!(failed["code"], "funding-satoshis-too-small");
    assert_eq!(fundee.event("error_sent")["channel_id"], failed["temporary_channel_id"]);
    assert_eq!(funder.event("failed")["code"], "peer-error");

    let begun = funder.fund(&fundee, 20_000);
    let temporary_id = begun["result"]["temporary_channel_id"].clone();
    let needed = funder.event("funding_needed");
    let mut wrong = transaction(&needed);
    wrong.output[0].value = Amount::from_sat(19_999);
    let raw = consensus::encode::serialize_hex(&wrong);
    let answer =
        funder.ask(json!({"cmd": "funding_tx", "temporary_channel_id": temporary_id, "tx": raw}));
    assert_eq!(answer["code"], "no-funding-output");
    funder.ask_ok(json!({"cmd": "cancel", "temporary_channel_id": temporary_id}));
    assert_eq!(funder.event("failed")["code"], "cancelled");
    assert_eq!(fundee.event("failed")["code"], "peer-error");
    let answer = funder.ask(json!({"cmd": "cancel", "temporary_channel_id": temporary_id}));
    assert_eq!(answer["code"], "unknown-opening");

    for (command, code) in [
        (json!({"cmd": "dance"}), "unknown-command"),
        (json!({"cmd": "connect", "peer": "02", "addr": "x"}), "bad-argument"),
        (json!({"cmd": "connect_block", "height": 999, "txs": []}), "wrong-height"),
        (json!({"cmd": "connect_block", "height": 102, "txs": ["00"]}), "bad-argument"),
        (json!({"cmd": "disconnect_block", "height": 5}), "wrong-height"),
    ] {
        assert_eq!(funder.ask(command.clone())["code"], code, "{command}");
    }
    assert_eq!(fundee.ask_ok(json!({"cmd": "channels"})), json!([]));
}

#[test]
fn a_block_taken_back_takes_its_depth_back() {
    let (mut funder, mut fundee) = (Node::start(&[]), Node::start(&["--minimum-depth=2"]));
    funder.connect(&mut fundee);
    let begun = funder.fund(&fundee, 500_000);
    let needed = funder.event("funding_needed");
    let raw = consensus::encode::serialize_hex(&transaction(&needed));
    let id = &begun["result"]["temporary_channel_id"];
    funder.ask_ok(json!({"cmd": "funding_tx", "temporary_channel_id": id, "tx": raw}));
    fundee.event("opened");

    fundee.ask_ok(json!({"cmd": "connect_block", "height": 102, "txs": [raw]}));
    fundee.ask_ok(json!({"cmd": "disconnect_block", "height": 102}));
    fundee.ask_ok(json!({"cmd": "connect_block", "height": 102, "txs": []}));
    fundee.ask_ok(json!({"cmd": "connect_block", "height": 103, "txs": [raw]}));
    let stage = |node: &mut Node| node.ask_ok(json!({"cmd": "channels"}))[0]["stage"].clone();
    assert_eq!(stage(&mut fundee), "depth", "one block is not two");
    fundee.ask_ok(json!({"cmd": "connect_block", "height": 104, "txs": []}));
    assert_eq!(stage(&mut fundee), "channel-ready");
}

#[test]
fn identity_and_channels_outlive_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let store = format!("--store={}", directory.path().display());
    let mut fundee = Node::start(&[]);
    let mut funder = Node::start(&[&store]);
    let node_id = funder.node_id.clone();
    funder.connect(&mut fundee);
    let begun = funder.fund(&fundee, 300_000);
    let needed = funder.event("funding_needed");
    let raw = consensus::encode::serialize_hex(&transaction(&needed));
    let id = &begun["result"]["temporary_channel_id"];
    funder.ask_ok(json!({"cmd": "funding_tx", "temporary_channel_id": id, "tx": raw}));
    let opened = funder.event("opened");
    drop(funder);

    let mut again = Node::start(&[&store]);
    assert_eq!(again.node_id, node_id);
    let channels = again.ask_ok(json!({"cmd": "channels"}));
    assert_eq!(channels[0]["channel_id"], opened["channel_id"], "{channels}");
}

#[test]
fn the_command_line_answers_for_itself() {
    let run = |options: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_opening-node"))
            .args(options)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    let features = run(&["--print-features"]);
    assert!(features.status.success());
    assert_eq!(String::from_utf8(features.stdout).unwrap().trim(), "08a0000888a222");

    let remote = run(&["--hsm=pkcs11:token"]);
    assert_eq!(remote.status.code(), Some(2));
    let said = String::from_utf8(remote.stderr).unwrap();
    for word in ["not-built-in", "unix:PATH", "hsmd:PATH", "tls:HOST:PORT", "tls-listen:IP:PORT"] {
        assert!(said.contains(word), "{said}");
    }

    let secrets = vec!["11".repeat(32); 6].join("/");
    let on_mainnet = run(&["--network=bitcoin", &format!("--channel-secrets={secrets}")]);
    assert_eq!(on_mainnet.status.code(), Some(2));
    assert!(run(&[&format!("--channel-secrets={secrets}")]).status.success());
}

#[test]
fn an_opened_channel_outlives_the_reuse_of_its_temporary_id_and_a_late_block() {
    let (mut funder, mut fundee) = (Node::start(&[]), Node::start(&["--minimum-depth=1"]));
    funder.connect(&mut fundee);
    let begun = funder.fund(&fundee, 400_000);
    let needed = funder.event("funding_needed");
    let raw = consensus::encode::serialize_hex(&transaction(&needed));
    // Mined before anyone has opened anything.
    for node in [&mut funder, &mut fundee] {
        node.ask_ok(json!({"cmd": "connect_block", "height": 102, "txs": [raw]}));
    }
    let id = &begun["result"]["temporary_channel_id"];
    funder.ask_ok(json!({"cmd": "funding_tx", "temporary_channel_id": id, "tx": raw}));
    assert_eq!(funder.event("channel_ready"), {
        let mut theirs = fundee.event("channel_ready");
        theirs["peer"] = json!(fundee.node_id);
        theirs
    });
    let answer = funder.ask(json!({"cmd": "cancel", "temporary_channel_id": id}));
    assert_eq!(answer["ok"], false, "what is opened cannot be cancelled");
    funder.fund(&fundee, 9_999);
    fundee.event("failed");
    let channels = fundee.ask_ok(json!({"cmd": "channels"}));
    assert_eq!(channels.as_array().unwrap().len(), 1, "{channels}");
    assert_eq!(channels[0]["stage"], "ready");
}

#[test]
fn the_tip_has_two_ends() {
    for (height, command) in [("0", "disconnect_block"), ("4294967295", "connect_block")] {
        let mut node = Node::start(&[&format!("--height={height}")]);
        let height: u32 = height.parse().unwrap();
        for height in [height, height.wrapping_add(1)] {
            let answer = node.ask(json!({"cmd": command, "height": height, "txs": []}));
            assert_eq!(answer["code"], "wrong-height", "{command} {height}");
        }
        assert!(node.wait().success());
    }
}

#[test]
fn a_reconnect_ends_the_old_connection_first() {
    let (mut funder, mut fundee) = (Node::start(&[]), Node::start(&[]));
    funder.connect(&mut fundee);
    funder.fund(&fundee, 400_000);
    funder.event("funding_needed");
    funder.connect(&mut fundee);
    let failed = funder.find(|line| line["event"] == "failed");
    assert_eq!(failed["code"], "disconnected");
    assert_eq!(fundee.event("failed")["code"], "disconnected");
    let begun = funder.fund(&fundee, 400_000);
    assert_eq!(begun["ok"], true, "{begun}");
    assert_eq!(funder.event("funding_needed")["funding_satoshis"], 400_000);
}
