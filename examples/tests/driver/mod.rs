//! The driver's side of a scriptable node: a process, its stdin and its stdout.

// Each test file uses its own part of it.
#![allow(dead_code, unreachable_pub)]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use serde_json::{Value, json};

/// Starts a node; `on_line` gets each line that it writes, and `None` when it is gone.
pub fn spawn(
    options: &[&str],
    mut on_line: impl FnMut(Option<Value>) + Send + 'static,
) -> (Child, ChildStdin) {
    let mut process = Command::new(env!("CARGO_BIN_EXE_opening-node"))
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = BufReader::new(process.stdout.take().unwrap());
    let stdin = process.stdin.take().unwrap();
    std::thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok) {
            on_line(Some(serde_json::from_str(&line).unwrap()));
        }
        on_line(None);
    });
    (process, stdin)
}

/// A process and what it has said.
pub struct Node {
    pub process: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<Value>,
    /// Lines read while waiting for others, oldest first.
    pub unread: Vec<Value>,
    pub addr: String,
    pub node_id: String,
}

impl Node {
    pub fn start(options: &[&str]) -> Self {
        let (sender, lines) = channel();
        let (process, stdin) = spawn(options, move |line| {
            // Nobody reads what an abandoned node says.
            let _ = line.map(|line| sender.send(line));
        });
        let stdin = Some(stdin);
        let (addr, node_id) = (String::new(), String::new());
        let mut node = Self { process, stdin, lines, unread: Vec::new(), addr, node_id };
        let ready = node.next_line();
        assert_eq!(ready["event"], "ready", "ready is the first line");
        node.addr = ready["addr"].as_str().unwrap().into();
        node.node_id = ready["node_id"].as_str().unwrap().into();
        node
    }

    pub fn next_line(&self) -> Value {
        self.lines.recv_timeout(Duration::from_secs(20)).expect("a line in time")
    }

    pub fn find(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        if let Some(index) = self.unread.iter().position(&wanted) {
            return self.unread.remove(index);
        }
        loop {
            let line = self.next_line();
            if wanted(&line) {
                return line;
            }
            self.unread.push(line);
        }
    }

    pub fn event(&mut self, name: &str) -> Value {
        self.find(|line| line["event"] == name)
    }

    pub fn ask(&mut self, command: Value) -> Value {
        let mut command = command;
        command["id"] = json!(7);
        writeln!(self.stdin.as_mut().unwrap(), "{command}").unwrap();
        self.find(|line| line["id"] == 7)
    }

    pub fn ask_ok(&mut self, command: Value) -> Value {
        let answer = self.ask(command);
        assert_eq!(answer["ok"], true, "{answer}");
        answer["result"].clone()
    }

    pub fn connect(&mut self, other: &mut Self) {
        let (peer, addr) = (&other.node_id, &other.addr);
        self.ask_ok(json!({"cmd": "connect", "peer": peer, "addr": addr}));
        assert_eq!(self.event("peer_connected")["peer"], *peer);
        assert_eq!(other.event("peer_connected")["peer"], self.node_id);
    }

    pub fn fund(&mut self, other: &Self, satoshis: u64) -> Value {
        self.ask(json!({
            "cmd": "fundchannel", "peer": other.node_id, "funding_satoshis": satoshis,
            "push_msat": 1000, "feerate_per_kw": 1250, "announce": false, "channel_type": [12, 22],
        }))
    }

    pub fn wait(mut self) -> ExitStatus {
        drop(self.stdin.take());
        self.process.wait().unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Gone already where the test went well.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What a wallet would make of `funding_needed`.
pub fn transaction(needed: &Value) -> Transaction {
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint { txid: Txid::from_byte_array([9; 32]), vout: 0 },
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::from_slice(&[[1; 64]]),
        }],
        output: vec![TxOut {
            value: Amount::from_sat(needed["funding_satoshis"].as_u64().unwrap()),
            script_pubkey: ScriptBuf::from_hex(needed["script_pubkey"].as_str().unwrap()).unwrap(),
        }],
    }
}
