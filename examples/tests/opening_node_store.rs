//! The scriptable node with a store, in the hands of an operator: restarts, and what is left to do.

#![allow(clippy::unwrap_used)]

mod driver;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bitcoin::{OutPoint, Transaction, Txid, consensus};
use driver::{Node, transaction};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Always the same node, whatever its store.
const FUNDEE_KEY: &str =
    "--node-privkey=1111111111111111111111111111111111111111111111111111111111111111";

fn store() -> (TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let option = format!("--store={}", directory.path().display());
    (directory, option)
}

/// Opens a channel in which a satoshi is the fundee's; the funding transaction and the channel's id.
fn open(funder: &mut Node, fundee: &mut Node) -> (String, Value) {
    funder.connect(fundee);
    let begun = funder.fund(fundee, 1_000_000);
    assert_eq!(begun["ok"], true, "{begun}");
    bring_funding(funder, fundee)
}

/// Opens a channel in which nothing is the fundee's, which may forget it.
fn open_without_push(funder: &mut Node, fundee: &mut Node) -> (String, Value) {
    funder.connect(fundee);
    funder.ask_ok(json!({
        "cmd": "fundchannel", "peer": fundee.node_id, "funding_satoshis": 100_000,
        "feerate_per_kw": 1250, "channel_type": [12, 22],
    }));
    bring_funding(funder, fundee)
}

fn bring_funding(funder: &mut Node, fundee: &mut Node) -> (String, Value) {
    let needed = funder.event("funding_needed");
    let raw = consensus::encode::serialize_hex(&transaction(&needed));
    let id = &needed["temporary_channel_id"];
    funder.ask_ok(json!({"cmd": "funding_tx", "temporary_channel_id": id, "tx": raw}));
    let opened = funder.event("opened");
    assert_eq!(fundee.event("opened")["channel_id"], opened["channel_id"]);
    (raw, opened["channel_id"].clone())
}

fn connect_block(node: &mut Node, height: u32, txs: &[&str]) {
    node.ask_ok(json!({"cmd": "connect_block", "height": height, "txs": txs}));
}

/// Waits until what a block changed is on disk: a block is answered before.
fn until_kept(directory: &TempDir, channel_id: &Value) {
    let directory = directory.path().join("opening").join("progress");
    let path = directory.join(channel_id.as_str().unwrap());
    let begin = Instant::now();
    while !path.exists() {
        assert!(begin.elapsed() < Duration::from_secs(20), "it is not kept");
        std::thread::yield_now();
    }
}

fn stages(node: &mut Node) -> Vec<String> {
    let channels = node.ask_ok(json!({"cmd": "channels"}));
    let stage = |channel: &Value| channel["stage"].as_str().unwrap().to_string();
    channels.as_array().unwrap().iter().map(stage).collect()
}

#[test]
fn a_store_has_one_process_at_a_time() {
    let (directory, store) = store();
    let first = Node::start(&[&store]);
    let second = Command::new(env!("CARGO_BIN_EXE_opening-node"))
        .arg(&store)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(second.stdout.is_empty(), "it is not ready");
    assert!(String::from_utf8(second.stderr).unwrap().contains("[store-locked]"));
    let node_id = first.node_id.clone();
    // Killed, not stopped.
    drop(first);
    assert_eq!(Node::start(&[&store]).node_id, node_id);
    assert!(directory.path().join("lock").exists());
}

#[test]
fn what_the_store_kept_is_told_behind_ready() {
    let (directory, store) = store();
    let mut fundee = Node::start(&[]);
    let mut funder = Node::start(&[&store]);
    let (raw, id) = open(&mut funder, &mut fundee);
    drop(funder);

    let mut funder = Node::start(&[&store]);
    let restored = funder.next_line();
    assert_eq!(restored["event"], "restored");
    assert_eq!((&restored["channel_id"], &restored["stage"]), (&id, &json!("depth")));
    assert_eq!(restored["peer"], fundee.node_id);
    assert_eq!(funder.next_line(), json!({"event": "broadcast", "tx": raw}));

    // In use: it needs no broadcast any more, but the peer's channel_ready, which it repeats.
    funder.connect(&mut fundee);
    for (height, txs) in [(102, vec![&*raw]), (103, vec![]), (104, vec![])] {
        connect_block(&mut funder, height, &txs);
        connect_block(&mut fundee, height, &txs);
    }
    funder.event("channel_ready");
    assert_eq!(stages(&mut funder), ["ready"]);
    drop(funder);
    let mut funder = Node::start(&[&store]);
    assert_eq!(funder.next_line()["stage"], "channel-ready");
    assert_eq!(stages(&mut funder), ["channel-ready"]);
    assert_eq!(funder.unread, [] as [Value; 0], "there is nothing else to tell");
    funder.connect(&mut fundee);
    funder.event("channel_ready");
    drop(funder);

    let channels = directory.path().join("opening").join("channels");
    let entry = std::fs::read_dir(&channels).unwrap().next().unwrap().unwrap().path();
    let bytes = std::fs::read(&entry).unwrap();
    std::fs::write(&entry, &bytes[..bytes.len() / 2]).unwrap();
    let mut funder = Node::start(&[&store]);
    let damaged = funder.event("damaged");
    assert_eq!((&damaged["key"], &damaged["code"]), (&id, &json!("store-damaged")));
    assert_eq!(stages(&mut funder), [""; 0]);
}

#[test]
fn after_a_restart_a_channel_goes_on_from_blocks_shown_again_or_from_the_one_that_matters() {
    for is_replayed in [true, false] {
        let (_directory, store) = store();
        let mut funder = Node::start(&[]);
        let mut fundee = Node::start(&[&store]);
        let (raw, id) = open(&mut funder, &mut fundee);
        let blocks = [(102, vec![]), (103, vec![&*raw]), (104, vec![]), (105, vec![])];
        for (height, txs) in &blocks {
            connect_block(&mut funder, *height, txs);
        }
        drop(fundee);
        let mut fundee = if is_replayed {
            let mut fundee = Node::start(&[&store]);
            for (height, txs) in &blocks {
                connect_block(&mut fundee, *height, txs);
            }
            fundee
        } else {
            let mut fundee = Node::start(&[&store, "--height=105"]);
            fundee.ask_ok(json!({"cmd": "past_block", "height": 103, "txs": [raw]}));
            fundee.ask_ok(json!({"cmd": "synced"}));
            fundee
        };
        funder.connect(&mut fundee);
        for node in [&mut funder, &mut fundee] {
            assert_eq!(node.event("channel_ready")["channel_id"], id);
        }
    }
}

/// It was down for a month, and its peer's funding may be in any of the blocks that it missed.
// req: B2-CR-S-13
#[test]
fn a_far_greater_height_forgets_nothing_before_the_driver_has_shown_what_confirmed() {
    let (directory, store) = store();
    let mut funder = Node::start(&[]);
    let mut fundee = Node::start(&[&store]);
    let (raw, channel_id) = open_without_push(&mut funder, &mut fundee);
    connect_block(&mut fundee, 102, &[]);
    until_kept(&directory, &channel_id);
    drop(fundee);

    let late = [&*store, "--height=5000"];
    let mut fundee = Node::start(&late);
    connect_block(&mut fundee, 5001, &[]);
    assert_eq!(stages(&mut fundee), ["depth"], "nothing was shown yet");
    assert_eq!(fundee.ask_ok(json!({"cmd": "status"}))["synced"], false);
    drop(fundee);

    // Shown: it lives.
    let mut fundee = Node::start(&late);
    fundee.ask_ok(json!({"cmd": "past_block", "height": 2000, "txs": [raw]}));
    fundee.ask_ok(json!({"cmd": "synced"}));
    connect_block(&mut fundee, 5001, &[]);
    assert_eq!(stages(&mut fundee), ["depth"]);
    let answer = fundee.ask(json!({"cmd": "past_block", "height": 5002, "txs": []}));
    assert_eq!(answer["code"], "wrong-height");
}

// req: B2-CR-S-13
#[test]
fn a_channel_that_never_confirmed_is_forgotten_once_everything_is_shown() {
    let (directory, store) = store();
    let mut funder = Node::start(&[]);
    let mut fundee = Node::start(&[&store]);
    let (_, channel_id) = open_without_push(&mut funder, &mut fundee);
    connect_block(&mut fundee, 102, &[]);
    until_kept(&directory, &channel_id);
    drop(fundee);

    let mut fundee = Node::start(&[&store, "--height=2116"]);
    fundee.ask_ok(json!({"cmd": "synced"}));
    connect_block(&mut fundee, 2117, &[]);
    assert_eq!(stages(&mut fundee), ["depth"], "2015 blocks");
    connect_block(&mut fundee, 2118, &[]);
    assert_eq!(fundee.event("ended")["code"], "funding-unconfirmed");
    assert_eq!(stages(&mut fundee), [""; 0]);
}

/// The peer has lost everything: our commitment is the way out, after a restart of ours, too.
// req: B5-FAIL-B-05
#[test]
fn a_channel_that_failed_gives_its_commitment_before_and_after_a_restart() {
    let (_directory, store) = store();
    let mut fundee = Node::start(&[FUNDEE_KEY]);
    let mut funder = Node::start(&[&store]);
    let (_, id) = open(&mut funder, &mut fundee);
    let commitment = json!({"cmd": "signed_commitment", "channel_id": id});
    assert_eq!(funder.ask(commitment.clone())["code"], "channel-not-failed");
    let release = json!({"cmd": "release", "channel_id": id});
    assert_eq!(funder.ask(release.clone())["code"], "channel-not-in-use");
    drop(fundee);

    let mut fundee = Node::start(&[FUNDEE_KEY]);
    funder.connect(&mut fundee);
    let ended = funder.event("ended");
    assert_eq!((&ended["code"], &ended["exit"]), (&json!("peer-error"), &json!("broadcast")));
    assert_eq!(stages(&mut funder), ["failed"]);
    let status = funder.ask_ok(json!({"cmd": "status"}));
    assert_eq!(status["failures"][0]["code"], "peer-error", "{status}");
    assert_eq!(status["under_way"][0]["stage"], "failed", "{status}");
    let signed = funder.ask_ok(commitment.clone());
    drop(funder);

    let mut funder = Node::start(&[&store]);
    assert_eq!(funder.event("restored")["stage"], "failed");
    assert_eq!(funder.ask_ok(commitment.clone()), signed);
    let transaction: Transaction =
        consensus::encode::deserialize_hex(signed["tx"].as_str().unwrap()).unwrap();
    assert_eq!(transaction.input[0].witness.len(), 4);
    funder.ask_ok(release);
    assert_eq!(stages(&mut funder), [""; 0]);
    assert_eq!(funder.ask(commitment)["code"], "unknown-channel");
}

#[test]
fn references_are_skipped_after_an_old_copy_was_restored() {
    let (directory, store) = store();
    let reserved = || {
        let bytes = std::fs::read(directory.path().join("opening/dbid/reserved")).unwrap();
        u64::from_be_bytes(*bytes.last_chunk().unwrap())
    };
    drop(Node::start(&[&store, "--skip-references=1000000"]));
    assert_eq!(reserved(), 1_000_000);
    let mut fundee = Node::start(&[]);
    let mut funder = Node::start(&[&store]);
    open(&mut funder, &mut fundee);
    assert_eq!(reserved(), 1_000_064);
}

// req: B2-FC-S-07
#[test]
fn a_funder_abandons_what_is_double_spent_six_blocks_deep() {
    let (_directory, store) = store();
    let mut fundee = Node::start(&[]);
    let mut funder = Node::start(&[&store]);
    let (raw, id) = open(&mut funder, &mut fundee);
    let abandon = json!({"cmd": "abandon", "channel_id": id});
    assert_eq!(funder.ask(abandon.clone())["code"], "no-conflict");
    assert_eq!(fundee.ask(abandon.clone())["code"], "channel-not-ours");

    let mut conflict: Transaction = consensus::encode::deserialize_hex(&raw).unwrap();
    conflict.output[0].value -= bitcoin::Amount::from_sat(1);
    let conflict = consensus::encode::serialize_hex(&conflict);
    connect_block(&mut funder, 102, &[&conflict]);
    (103..=106).for_each(|height| connect_block(&mut funder, height, &[]));
    assert_eq!(funder.ask(abandon.clone())["code"], "conflict-too-shallow");
    connect_block(&mut funder, 107, &[]);
    funder.ask_ok(abandon.clone());
    assert_eq!(funder.event("ended")["code"], "funding-double-spent");
    assert_eq!(funder.ask(abandon)["code"], "unknown-channel");
    assert_eq!(stages(&mut funder), [""; 0]);
    // The peer heard of it.
    assert_eq!(fundee.event("ended")["code"], "peer-error");
    drop(funder);
    assert_eq!(stages(&mut Node::start(&[&store])), [""; 0]);
}

#[test]
fn an_allowed_peer_opens_where_others_have_taken_all_places() {
    let mut funder = Node::start(&[]);
    let mut allowed = Node::start(&[]);
    let allow = format!("--allow={}", allowed.node_id);
    let mut fundee = Node::start(&["--pending-total=1", &allow]);
    for node in [&mut funder, &mut allowed] {
        node.connect(&mut fundee);
        node.fund(&fundee, 100_000);
        node.event("funding_needed");
    }
    let peer = allowed.node_id.clone();
    assert_eq!(fundee.ask_ok(json!({"cmd": "status"}))["pending"], 2);
    fundee.ask_ok(json!({"cmd": "disallow", "peer": peer}));
    allowed.fund(&fundee, 100_000);
    assert_eq!(fundee.event("failed")["code"], "too-many-pending");
    fundee.ask_ok(json!({"cmd": "allow", "peer": peer}));
    allowed.unread.clear();
    allowed.fund(&fundee, 100_000);
    allowed.event("funding_needed");
}

#[test]
fn shutdown_goes_out_to_the_script_that_was_given() {
    let (mut funder, mut fundee) = (Node::start(&[]), Node::start(&[]));
    let (_, id) = open(&mut funder, &mut fundee);
    let shutdown = |script: Value| json!({"cmd": "shutdown", "channel_id": id, "script": script});
    assert_eq!(funder.ask(shutdown(Value::Null))["code"], "shutdown-no-script");
    assert_eq!(funder.ask(shutdown(json!("6a")))["code"], "shutdown-invalid-script");
    let script = format!("0014{}", "22".repeat(20));
    assert_eq!(funder.ask_ok(shutdown(json!(script)))["script"], script);
    let other = format!("0014{}", "33".repeat(20));
    assert_eq!(funder.ask(shutdown(json!(other)))["code"], "shutdown-other-script");
}

#[test]
fn operators_mistakes_are_answered_with_codes() {
    let mut node = Node::start(&[]);
    let unknown = OutPoint::new(Txid::from_raw_hash(bitcoin::hashes::Hash::all_zeros()), 0);
    let id = unknown.txid.to_string();
    for (command, code) in [
        (json!({"cmd": "allow", "peer": "02"}), "bad-argument"),
        (json!({"cmd": "disallow"}), "bad-argument"),
        (json!({"cmd": "shutdown", "channel_id": id}), "unknown-channel"),
        (json!({"cmd": "shutdown", "channel_id": id, "script": "0g"}), "bad-argument"),
        (json!({"cmd": "shutdown", "channel_id": id, "script": 1}), "bad-argument"),
        (json!({"cmd": "abandon", "channel_id": id}), "unknown-channel"),
        (json!({"cmd": "abandon", "channel_id": 7}), "bad-argument"),
        (json!({"cmd": "release", "channel_id": id}), "unknown-channel"),
        (json!({"cmd": "signed_commitment", "channel_id": id}), "unknown-channel"),
        (json!({"cmd": "past_block", "height": 102, "txs": []}), "wrong-height"),
        (json!({"cmd": "past_block", "height": -1, "txs": []}), "bad-argument"),
    ] {
        assert_eq!(node.ask(command.clone())["code"], code, "{command}");
    }
}
