//! The scriptable node with its signer in another process, which is killed and started again.

#![allow(clippy::unwrap_used)]

mod driver;

use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use bitcoin::consensus::encode::serialize_hex;
use driver::{Node, transaction};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A signer process, killed when it is dropped.
struct Signer(Child);

impl Drop for Signer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn hsmd(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hsmd"));
    command.args(arguments).args(["--log", "off"]).stdout(Stdio::null());
    command
}

/// The files of one signer, and how it is started on them.
struct Home {
    directory: TempDir,
    transport: Vec<String>,
}

impl Home {
    fn on_unix_socket(more: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("run/signer");
        let mut transport = vec!["--unix".into(), socket.to_str().unwrap().into()];
        transport.extend(more.iter().map(ToString::to_string));
        Self { directory, transport }
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().into()
    }

    fn start(&self) -> Signer {
        let (secret, store) = (self.path("secret"), self.path("store"));
        let arguments = ["--secret-file", &secret, "--validating", &store];
        Signer(hsmd(&arguments).args(&self.transport).spawn().unwrap())
    }
}

/// What the node says of its signer.
fn signer(node: &mut Node) -> Value {
    node.ask_ok(json!({"cmd": "status"}))["signer"].clone()
}

fn until_signer_is(node: &mut Node, wanted: &str) {
    let start = Instant::now();
    while signer(node) != wanted {
        assert!(start.elapsed() < Duration::from_secs(20), "never {wanted}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Goes on with an opening that waits for its transaction, up to its use.
fn finish(funder: &mut Node, fundee: &mut Node, begun: &Value, needed: &Value, height: u32) {
    let raw = serialize_hex(&transaction(needed));
    let id = &begun["result"]["temporary_channel_id"];
    funder.ask_ok(json!({"cmd": "funding_tx", "temporary_channel_id": id, "tx": raw}));
    assert_eq!(funder.event("broadcast")["tx"], raw);
    fundee.event("opened");
    for node in [&mut *funder, &mut *fundee] {
        node.ask_ok(json!({"cmd": "connect_block", "height": height, "txs": [raw]}));
        for later in 1..3 {
            let height = height + later;
            node.ask_ok(json!({"cmd": "connect_block", "height": height, "txs": []}));
        }
    }
    funder.event("channel_ready");
    fundee.event("channel_ready");
}

/// The opening under way goes on when the signer is back, a new one is refused at once in between,
/// and the next ones open.
fn killed_and_started_again(home: &Home, options: &[&str]) {
    let first = home.start();
    let mut funder = Node::start(options);
    let mut fundee = Node::start(&[]);
    funder.connect(&mut fundee);
    let begun = funder.fund(&fundee, 400_000);
    let needed = funder.event("funding_needed");

    drop(first);
    until_signer_is(&mut funder, "signer-unavailable");
    let refused = funder.fund(&fundee, 500_000);
    assert_eq!((&refused["ok"], &refused["code"]), (&json!(false), &json!("signer-unavailable")));

    let second = home.start();
    until_signer_is(&mut funder, "reachable");
    finish(&mut funder, &mut fundee, &begun, &needed, 102);

    // As fundee, in the same way.
    fundee.fund(&funder, 600_000);
    let needed = fundee.event("funding_needed");
    drop(second);
    let _third = home.start();
    let id = &needed["temporary_channel_id"];
    let raw = serialize_hex(&transaction(&needed));
    fundee.ask_ok(json!({"cmd": "funding_tx", "temporary_channel_id": id, "tx": raw}));
    assert_eq!(fundee.event("broadcast")["tx"], raw);

    let begun = funder.fund(&fundee, 700_000);
    assert_eq!(begun["ok"], true, "{begun}");
    let needed = funder.event("funding_needed");
    finish(&mut funder, &mut fundee, &begun, &needed, 105);
    assert!(funder.wait().success());
}

#[test]
fn a_signer_on_a_unix_socket_is_killed_and_started_again() {
    let home = Home::on_unix_socket(&[]);
    let address = format!("--hsm=unix:{}", home.path("run/signer"));
    killed_and_started_again(&home, &[&address]);
}

#[test]
fn a_signer_on_hsmds_wire_is_killed_and_started_again() {
    let home = Home::on_unix_socket(&["--hsmd-wire"]);
    let address = format!("--hsm=hsmd:{}", home.path("run/signer"));
    killed_and_started_again(&home, &[&address]);
}

fn fingerprint(key: &Path) -> String {
    let key = key.to_str().unwrap();
    let arguments = ["--print-fingerprint", "--tls-key", key];
    let printed = hsmd(&arguments).stdout(Stdio::piped()).output().unwrap();
    assert!(printed.status.success());
    String::from_utf8(printed.stdout).unwrap().trim().into()
}

#[test]
fn a_signer_over_tls_is_killed_and_started_again() {
    over_tls("tls", &[]);
}

#[test]
fn a_signer_that_dials_its_node_is_killed_and_started_again() {
    over_tls("tls-listen", &["--dial"]);
}

/// The node reaches the signer by `kind`, which has these options more.
fn over_tls(kind: &str, more: &[&str]) {
    let directory = tempfile::tempdir().unwrap();
    let keys: [PathBuf; 2] = ["node.key", "signer.key"].map(|name| directory.path().join(name));
    let [of_node, of_signer] = [fingerprint(&keys[0]), fingerprint(&keys[1])];
    let address = free_address();
    let key = keys[1].to_str().unwrap().to_string();
    let transport = ["--tls", &address, "--tls-key", &key, "--peer", &of_node];
    let transport = transport.iter().chain(more).map(ToString::to_string);
    let home = Home { directory, transport: transport.collect() };
    let (hsm, key) =
        (format!("--hsm={kind}:{address}"), format!("--hsm-key={}", keys[0].display()));
    let peer = format!("--hsm-peer={of_signer}");
    killed_and_started_again(&home, &[&hsm, &key, &peer]);
}

/// A program that goes on, and what it logs.
struct Logging {
    process: Child,
    log: Lines<BufReader<ChildStderr>>,
}

impl Logging {
    fn start(program: &mut Command) -> Self {
        // It goes on while its standard input is open.
        let program = program.stdin(Stdio::piped()).stdout(Stdio::null());
        let mut process = program.stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(process.stderr.take().unwrap()).lines();
        Self { process, log }
    }

    /// The next line with these words.
    fn logs(&mut self, words: &str) -> String {
        let line = self.log.by_ref().map(Result::unwrap).find(|line| line.contains(words));
        line.unwrap_or_else(|| panic!("it does not log {words:?}"))
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn opening_node(options: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_opening-node"));
    command.args(options);
    command
}

#[test]
fn a_node_without_its_signer_logs_the_reason_while_it_waits() {
    let directory = tempfile::tempdir().unwrap();
    let nowhere = directory.path().join("nowhere");
    for kind in ["unix", "hsmd"] {
        let signer = format!("--hsm={kind}:{}", nowhere.display());
        let reason = Logging::start(&mut opening_node(&[&signer])).logs("is a signer running?");
        assert!(reason.starts_with("WARN") && reason.contains("nowhere"), "{reason}");
    }
}

/// The exit code of a program that ends by itself, and what it says on stderr.
fn ends(program: &mut Command) -> (i32, String) {
    let output = program.stdin(Stdio::null()).stderr(Stdio::piped()).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// Where nobody can ever be is not waited for.
#[test]
fn bad_addresses_are_refused_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_string();
    let (key, secret, peer) = (path("key"), path("secret"), "00".repeat(32));
    let (its_key, its_peer) = (format!("--hsm-key={key}"), format!("--hsm-peer={peer}"));
    let begun = Instant::now();
    let long = format!("unix:{}", "x".repeat(200));
    for address in ["unix:", "hsmd:", &long] {
        let refused = ends(&mut opening_node(&[&format!("--hsm={address}")]));
        assert!(refused.0 == 2 && refused.1.contains("[bad-options]"), "{address}: {refused:?}");
    }
    for address in ["tls:127.0.0.1", "tls::7001", "tls:host:0", "tls:::1", "tls-listen:host:7001"] {
        let address = format!("--hsm={address}");
        let refused = ends(&mut opening_node(&[&address, &its_key, &its_peer]));
        assert!(refused.0 == 2 && refused.1.contains("[bad-options]"), "{address}: {refused:?}");
    }
    let dial = ["--tls", "127.0.0.1", "--dial", "--tls-key", &key, "--peer", &peer];
    let unix = ["--unix", long.split_once(':').unwrap().1];
    for transport in [&dial[..], &unix] {
        let refused = ends(hsmd(&["--secret-file", &secret]).args(transport));
        assert!(refused.0 == 2 && refused.1.contains("[bad-options]"), "{refused:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "waited for");
}

/// An address that nobody listens at.
fn free_address() -> String {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap().to_string()
}

/// Nothing to look into at the signer: nodes are stopped, and killed.
#[test]
fn the_end_of_a_node_is_no_warning_to_its_signer() {
    let directory = tempfile::tempdir().unwrap();
    let keys: [PathBuf; 2] = ["node.key", "signer.key"].map(|name| directory.path().join(name));
    let [of_node, of_signer] = [fingerprint(&keys[0]), fingerprint(&keys[1])];
    let address = free_address();
    let mut signer = Command::new(env!("CARGO_BIN_EXE_hsmd"));
    signer.arg("--secret-file").arg(directory.path().join("secret"));
    signer.args(["--tls", &address, "--peer", &of_node]).arg("--tls-key").arg(&keys[1]);
    let mut signer = Logging::start(&mut signer);
    let options = [
        format!("--hsm=tls:{address}"),
        format!("--hsm-key={}", keys[0].display()),
        format!("--hsm-peer={of_signer}"),
    ];
    let options = [&*options[0], &options[1], &options[2]];

    assert!(Node::start(&options).wait().success());
    let stopped = signer.logs("connection");
    assert!(stopped.starts_with("INFO") && stopped.ends_with("connection ended"), "{stopped}");
    drop(Node::start(&options));
    let killed = signer.logs("connection");
    assert!(killed.starts_with("INFO") && killed.contains("connection ended: "), "{killed}");
}

/// Each side that is refused reads that it is, and by which key the other knows it.
#[test]
fn a_key_that_is_not_expected_is_named_where_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let keys = ["node.key", "signer.key", "other.key"].map(|name| directory.path().join(name));
    let [of_node, of_signer, of_other] = [0, 1, 2].map(|index| fingerprint(&keys[index]));
    let address = free_address();
    let key = keys[1].to_str().unwrap().to_string();
    let transport = ["--tls", &address, "--tls-key", &key, "--peer", &of_node];
    let mut home = Home { directory, transport: transport.map(String::from).into() };
    let node = |kind: &str, key: &Path, peer: &str| {
        let signer = format!("--hsm={kind}:{address}");
        let (key, peer) = (format!("--hsm-key={}", key.display()), format!("--hsm-peer={peer}"));
        opening_node(&[&signer, &key, &peer])
    };

    let signer = home.start();
    let refused = ends(&mut node("tls", &keys[2], &of_signer));
    assert!(refused.0 == 1 && refused.1.contains("link-denied"), "{refused:?}");
    assert!(refused.1.contains(&format!("does not accept our key, {of_other}")), "{refused:?}");
    drop(signer);

    home.transport.push("--dial".into());
    let mut waiting = Logging::start(&mut node("tls-listen", &keys[2], &of_signer));
    waiting.logs("waiting for the signer");
    let _signer = home.start();
    waiting.logs(&format!("does not accept our key, {of_other}"));
}

/// The port is in the log, for whoever starts the signer.
#[test]
fn a_node_that_listens_for_its_signer_tells_its_port() {
    let directory = tempfile::tempdir().unwrap();
    let keys: [PathBuf; 2] = ["node.key", "signer.key"].map(|name| directory.path().join(name));
    let [of_node, of_signer] = [fingerprint(&keys[0]), fingerprint(&keys[1])];
    let key = format!("--hsm-key={}", keys[0].display());
    let its_peer = format!("--hsm-peer={of_signer}");
    let mut node =
        Logging::start(&mut opening_node(&["--hsm=tls-listen:127.0.0.1:0", &key, &its_peer]));
    let waits = node.logs("waiting for the signer at ");
    let address = waits.split(" at ").nth(1).unwrap().split(',').next().unwrap().to_string();
    assert!(!address.ends_with(":0") && waits.contains(&of_node), "{waits}");
    let key = keys[1].to_str().unwrap().to_string();
    let transport = ["--tls", &address, "--tls-key", &key, "--peer", &of_node, "--dial"];
    let home = Home { directory, transport: transport.map(String::from).into() };
    let _signer = home.start();
    node.logs("connected to the signer");
}

#[test]
fn a_bad_key_for_tls_is_named_by_its_option() {
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key");
    std::fs::write(&key, "no key").unwrap();
    let (key, peer) = (key.to_str().unwrap(), "00".repeat(32));
    let (of_node, its_peer) = (format!("--hsm-key={key}"), format!("--hsm-peer={peer}"));
    let node = ends(&mut opening_node(&["--hsm=tls:127.0.0.1:9", &of_node, &its_peer]));
    assert!(node.0 == 1 && node.1.contains(&of_node), "{node:?}");
    let signer = ends(&mut hsmd(&["--print-fingerprint", "--tls-key", key]));
    assert!(signer.0 == 1 && signer.1.contains(&format!("--tls-key={key}")), "{signer:?}");
}

/// What a program of ours says to a mistake: its exit code, and a code in its words.
#[test]
fn mistakes_have_codes() {
    let home = Home::on_unix_socket(&[]);
    let run = |arguments: &[&str]| ends(&mut hsmd(arguments));
    let nothing = run(&[]);
    assert_eq!(nothing.0, 2);
    for way in ["--secret-file", "--unix", "--tls", "--print-fingerprint"] {
        assert!(nothing.1.contains(way), "{nothing:?}");
    }
    let socket = home.path("run/signer");
    let secret = home.path("secret");
    // Where nothing can be served no secret is made.
    let occupied = home.path("occupied");
    std::fs::write(&occupied, "").unwrap();
    let no_socket = run(&["--secret-file", &secret, "--unix", &occupied]);
    assert!(no_socket.0 == 1 && no_socket.1.contains("[io]"), "{no_socket:?}");
    let no_store = run(&["--secret-file", &secret, "--unix", &socket, "--validating", &occupied]);
    assert!(no_store.0 == 1 && no_store.1.contains("--validating"), "{no_store:?}");
    assert!(!Path::new(&secret).exists() && !Path::new(&socket).exists());
    std::fs::write(&secret, [7; 31]).unwrap();
    let open_to_all = run(&["--secret-file", &secret, "--unix", &socket]);
    assert!(open_to_all.0 == 1 && open_to_all.1.contains("others may read"), "{open_to_all:?}");
    let owner_only = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&secret, owner_only).unwrap();
    let short = run(&["--secret-file", &secret, "--unix", &socket]);
    assert!(short.0 == 1 && short.1.contains("32 bytes") && short.1.contains("[io]"), "{short:?}");
    std::fs::write(&secret, [7; 32]).unwrap();
    let key = home.path("key");
    let peer = "00".repeat(32);
    let no_address =
        ["--secret-file", &secret, "--tls", "nowhere", "--tls-key", &key, "--peer", &peer];
    let no_address = run(&no_address);
    assert!(no_address.0 == 2 && no_address.1.contains("[bad-options]"), "{no_address:?}");
    // A second one on the same socket.
    let _first = home.start();
    let start = Instant::now();
    while std::os::unix::net::UnixStream::connect(&socket).is_err() {
        assert!(start.elapsed() < Duration::from_secs(20), "it does not listen");
        std::thread::sleep(Duration::from_millis(5));
    }
    let second = run(&["--secret-file", &secret, "--unix", &socket]);
    assert!(second.0 == 1 && second.1.contains("another process listens"), "{second:?}");
    // Or over the same records.
    let (other, store) = (home.path("run/other"), home.path("store"));
    let second = run(&["--secret-file", &secret, "--unix", &other, "--validating", &store]);
    assert!(second.0 == 1 && second.1.contains("[store-locked]"), "{second:?}");
    // Nobody reads what it says.
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut muted = hsmd(&["--secret-file", &secret, "--unix", &other]);
    let muted = muted.stdout(full).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8(muted.stderr).unwrap();
    assert!(muted.status.code() == Some(1) && said.contains("stdout"), "{said}");
}
