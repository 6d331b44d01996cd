//! A scriptable node with a store, killed at any moment of an opening: what it said stays true.
//!
//! One of two nodes is killed with SIGKILL after each line that it writes, after each command that
//! it gets, and at moments in between; then it is started again on the same store, and both go on.
//!
//! * A transaction was told to be broadcast, or a channel to be opened: the channel is there.
//! * Where the funder has the channel, both come to `channel_ready`.
//! * Where it has not, the fundee's has failed or never was, and nothing was told to be broadcast.
//! * Identity and store are whole, and a new opening begins on the new connection.

#![allow(clippy::unwrap_used)]

mod driver;

use std::io::Write;
use std::process::{Child, ChildStdin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bitcoin::consensus;
use driver::{spawn, transaction};
use serde_json::{Value, json};
use tempfile::TempDir;

const FUNDER: usize = 0;
const FUNDEE: usize = 1;

/// For each role: this many moments within the whole opening, and as many within its signatures
/// and saves.
const RANDOM_MOMENTS: usize = 60;
const SEED: u64 = 0x6f70_656e_696e_6721;

/// When one node is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// It has written so many lines.
    Line(usize),
    /// It has got so many commands, the last of them just now.
    Command(usize),
    /// So long after `fundchannel` was sent.
    SinceFundChannel(Duration),
    /// So long after `funding_tx` was sent.
    SinceFundingTx(Duration),
    /// Both have the channel in use.
    End,
}

/// The node that is to be killed is gone.
#[derive(Debug)]
struct Killed;

/// What a node says: which one, in which of its lives, and `None` when it is gone.
type Line = (usize, usize, Option<Value>);

struct Side {
    process: Arc<Mutex<Child>>,
    stdin: ChildStdin,
    life: usize,
    /// Every line of this life.
    said: Vec<Value>,
    /// Commands of this life.
    asked: usize,
    /// Of its chain.
    height: u32,
}

impl Drop for Side {
    fn drop(&mut self) {
        kill(&self.process);
        let _ = self.process.lock().unwrap().wait();
    }
}

fn kill(process: &Mutex<Child>) {
    // Gone already, if it was killed before.
    let _ = process.lock().unwrap().kill();
}

impl Side {
    fn find(&self, wanted: &dyn Fn(&Value) -> bool) -> Option<Value> {
        self.said.iter().find(|line| wanted(line)).cloned()
    }

    fn ready(&self, field: &str) -> String {
        self.said[0][field].as_str().unwrap().into()
    }
}

struct Scene {
    sides: Vec<Side>,
    /// The node that is killed, and when; no more than once in a life.
    victim: usize,
    moment: Option<Moment>,
    lines: Receiver<Line>,
    sender: Sender<Line>,
    store: TempDir,
    /// The funding transaction and its id, once there is one.
    funding: Option<(String, String)>,
    is_dead: bool,
    /// The victim has been told of a block.
    is_shown_blocks: bool,
    /// What the victim said in its earlier lives.
    past: Vec<Value>,
}

impl Scene {
    fn new(victim: usize, moment: Moment) -> Self {
        let (sender, lines) = channel();
        let store = tempfile::tempdir().unwrap();
        let moment = Some(moment);
        let mut scene = Self {
            sides: vec![],
            victim,
            moment,
            lines,
            sender,
            store,
            funding: None,
            is_dead: false,
            is_shown_blocks: false,
            past: vec![],
        };
        scene.sides = vec![scene.start(FUNDER, 0), scene.start(FUNDEE, 0)];
        scene
    }

    fn start(&self, which: usize, life: usize) -> Side {
        let store = format!("--store={}", self.store.path().display());
        let options =
            if which == self.victim { vec!["--log=error", &store] } else { vec!["--log=error"] };
        let sender = self.sender.clone();
        let (process, stdin) = spawn(&options, move |line| {
            // The scene may be over.
            let _ = sender.send((which, life, line));
        });
        let process = Arc::new(Mutex::new(process));
        Side { process, stdin, life, said: vec![], asked: 0, height: 101 }
    }

    /// Takes in one line of either node.
    fn read(&mut self) -> Result<(), Killed> {
        let line = self.lines.recv_timeout(Duration::from_secs(30)).expect("a line in time");
        let (which, life, line) = line;
        let side = &mut self.sides[which];
        if life != side.life {
            return Ok(());
        }
        let Some(line) = line else {
            assert_eq!(which, self.victim, "a node is gone that nobody has killed");
            self.is_dead = true;
            return Err(Killed);
        };
        assert_ne!(line["event"], "damaged", "{line}");
        side.said.push(line);
        if let Some(Moment::Line(count)) = self.moment
            && which == self.victim
            && side.said.len() == count
        {
            kill(&side.process);
        }
        Ok(())
    }

    fn until(&mut self, which: usize, wanted: impl Fn(&Value) -> bool) -> Result<Value, Killed> {
        loop {
            if let Some(line) = self.sides[which].find(&wanted) {
                return Ok(line);
            }
            self.read()?;
        }
    }

    fn event(&mut self, which: usize, name: &str) -> Result<Value, Killed> {
        self.until(which, |line| line["event"] == name)
    }

    fn ask(&mut self, which: usize, mut command: Value) -> Result<Value, Killed> {
        let side = &mut self.sides[which];
        side.asked += 1;
        let id = side.asked;
        command["id"] = json!(id);
        if writeln!(side.stdin, "{command}").is_err() {
            return self.die();
        }
        let asked = command["cmd"].as_str().unwrap();
        match self.moment {
            Some(Moment::Command(count)) if which == self.victim && id == count => {
                kill(&side.process);
            }
            Some(Moment::SinceFundChannel(after)) if asked == "fundchannel" => self.kill_in(after),
            Some(Moment::SinceFundingTx(after)) if asked == "funding_tx" => self.kill_in(after),
            _ => {}
        }
        let answer = self.until(which, |line| line["id"] == id)?;
        match answer["ok"].as_bool().unwrap() {
            true => Ok(answer["result"].clone()),
            // The other one is gone, or nothing excuses it.
            false if self.moment.is_some() && which != self.victim => self.die(),
            false => panic!("{command}: {answer}"),
        }
    }

    /// The victim is dead or dying.
    fn die<T>(&mut self) -> Result<T, Killed> {
        while !self.is_dead {
            let _ = self.read();
        }
        Err(Killed)
    }

    fn kill_in(&self, after: Duration) {
        let process = self.sides[self.victim].process.clone();
        std::thread::spawn(move || {
            std::thread::sleep(after);
            kill(&process);
        });
    }

    fn connect(&mut self) -> Result<(), Killed> {
        for which in [FUNDER, FUNDEE] {
            self.event(which, "ready")?;
        }
        let fundee = &self.sides[FUNDEE];
        let (peer, addr) = (fundee.ready("node_id"), fundee.ready("addr"));
        let connected = |line: &Value| line["event"] == "peer_connected";
        let before = fundee.said.iter().filter(|line| connected(line)).count();
        self.ask(FUNDER, json!({"cmd": "connect", "peer": peer, "addr": addr}))?;
        while self.sides[FUNDEE].said.iter().filter(|line| connected(line)).count() == before {
            self.read()?;
        }
        Ok(())
    }

    /// Asks for a channel; what the peer needs the transaction to pay.
    fn offer(&mut self) -> Result<Value, Killed> {
        let peer = self.sides[FUNDEE].ready("node_id");
        let begun = self.ask(
            FUNDER,
            json!({
                "cmd": "fundchannel", "peer": peer, "funding_satoshis": 500_000, "push_msat": 1000,
                "feerate_per_kw": 1250, "announce": false, "channel_type": [12, 22],
            }),
        )?;
        let id = begun["temporary_channel_id"].clone();
        self.until(FUNDER, |line| {
            line["event"] == "funding_needed" && line["temporary_channel_id"] == id
        })
    }

    fn connect_blocks(&mut self, which: usize) -> Result<(), Killed> {
        let (raw, _) = self.funding.clone().unwrap();
        while self.sides[which].height < 104 {
            let height = self.sides[which].height + 1;
            self.is_shown_blocks |= which == self.victim;
            let txs = if height == 102 { json!([raw]) } else { json!([]) };
            // Whoever is killed meanwhile, this one gets it.
            self.sides[which].height = height;
            self.ask(which, json!({"cmd": "connect_block", "height": height, "txs": txs}))?;
        }
        Ok(())
    }

    /// An opening from the start to its use, if nobody is killed before.
    fn open(&mut self) -> Result<(), Killed> {
        self.connect()?;
        let needed = self.offer()?;
        let transaction = transaction(&needed);
        let raw = consensus::encode::serialize_hex(&transaction);
        self.funding = Some((raw.clone(), transaction.compute_txid().to_string()));
        let id = &needed["temporary_channel_id"];
        self.ask(FUNDER, json!({"cmd": "funding_tx", "temporary_channel_id": id, "tx": raw}))?;
        self.event(FUNDER, "broadcast")?;
        for which in [FUNDER, FUNDEE] {
            self.event(which, "opened")?;
        }
        for which in [FUNDER, FUNDEE] {
            self.connect_blocks(which)?;
        }
        for which in [FUNDER, FUNDEE] {
            self.event(which, "channel_ready")?;
        }
        Ok(())
    }

    /// The channel as a node has it, unless it has failed.
    fn channel(&mut self, which: usize) -> Option<Value> {
        let (_, txid) = self.funding.clone()?;
        let channels = self.ask(which, json!({"cmd": "channels"})).unwrap();
        let mut channels = channels.as_array().unwrap().iter();
        channels
            .find(|channel| channel["funding_txid"] == txid && channel["stage"] != "failed")
            .cloned()
    }

    /// Whether any life of the funder told to broadcast.
    fn was_broadcast(&self) -> bool {
        let past = self.past.iter().filter(|_| self.victim == FUNDER);
        past.chain(&self.sides[FUNDER].said).any(|line| line["event"] == "broadcast")
    }

    /// Kills the victim, unless it is dead, and starts it again.
    fn restart(&mut self) {
        let victim = self.victim;
        kill(&self.sides[victim].process);
        let _: Result<(), _> = self.die();
        let side = self.start(victim, self.sides[victim].life + 1);
        let old = std::mem::replace(&mut self.sides[victim], side);
        self.past.extend(old.said.iter().cloned());
        (self.moment, self.is_dead) = (None, false);
        self.event(victim, "ready").unwrap();
    }

    /// Holds the victim to what it said before.
    fn assert_remembers(&mut self) {
        let victim = self.victim;
        let channels = self.ask(victim, json!({"cmd": "channels"})).unwrap();
        let has = |field: &str, value: &Value| {
            channels.as_array().unwrap().iter().any(|channel| channel[field] == *value)
        };
        let side = &self.sides[victim];
        for line in &self.past {
            match line["event"].as_str() {
                Some("ready") => assert_eq!(line["node_id"], side.ready("node_id"), "{line}"),
                Some("opened") => assert!(has("channel_id", &line["channel_id"]), "{line}"),
                Some("broadcast") => {
                    let (raw, txid) = self.funding.clone().unwrap();
                    assert_eq!(line["tx"], raw);
                    assert!(has("funding_txid", &json!(txid)), "{line}");
                    // Before the answer: it comes with the start.
                    let again = side.find(&|again| again["event"] == "broadcast");
                    assert!(again == Some(line.clone()) || self.is_shown_blocks, "{again:?}");
                }
                _ => {}
            }
        }
    }

    /// Both go on; tells what became of the channel.
    fn go_on(&mut self) -> Outcome {
        self.connect().unwrap();
        // Begins behind everything that the old connection has left.
        let needed = self.offer().unwrap();
        let id = needed["temporary_channel_id"].clone();
        self.ask(FUNDER, json!({"cmd": "cancel", "temporary_channel_id": id})).unwrap();
        for which in [FUNDER, FUNDEE] {
            let failed =
                |line: &Value| line["event"] == "failed" && line["temporary_channel_id"] == id;
            self.until(which, failed).unwrap();
        }
        match (self.channel(FUNDER), self.channel(FUNDEE)) {
            (Some(_), theirs) => {
                assert!(theirs.is_some(), "the funder relies on a channel that the fundee lacks");
                self.come_into_use();
                return Outcome::InUse;
            }
            (None, Some(_)) => {
                assert_eq!(self.event(FUNDEE, "ended").unwrap()["code"], "peer-error");
                assert!(self.channel(FUNDEE).is_none());
            }
            (None, None) => {}
        }
        assert!(!self.was_broadcast(), "the funder has forgotten what it told to broadcast");
        let failed = self.sides[FUNDEE].find(&|line| line["event"] == "ended");
        failed.map_or(Outcome::Never, |_| Outcome::FailedAtFundee)
    }

    fn come_into_use(&mut self) {
        for which in [FUNDER, FUNDEE] {
            self.connect_blocks(which).unwrap();
        }
        for which in [FUNDER, FUNDEE] {
            self.event(which, "channel_ready").unwrap();
            assert_eq!(self.channel(which).unwrap()["stage"], "ready");
        }
    }
}

/// What became of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    InUse,
    /// The fundee had signed, and has learnt that the funder knows nothing of it.
    FailedAtFundee,
    Never,
}

/// Kills, starts again and goes on.
fn play(victim: usize, moment: Moment) -> Outcome {
    let mut scene = Scene::new(victim, moment);
    // A moment that never came is the end.
    let _ = scene.open();
    scene.restart();
    if matches!(moment, Moment::Line(_)) {
        // Once more, as soon as it is ready.
        scene.restart();
    }
    scene.assert_remembers();
    scene.go_on()
}

/// Lines and commands of the victim in an opening that nothing disturbs, and how long it takes from
/// `fundchannel` on.
fn undisturbed(victim: usize) -> (usize, usize, Duration) {
    let mut scene = Scene::new(victim, Moment::End);
    let begin = Instant::now();
    scene.open().unwrap();
    let side = &scene.sides[victim];
    (side.said.len(), side.asked, begin.elapsed())
}

/// The same numbers each time (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: Duration) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        limit * u32::try_from(self.0 % 1000).unwrap() / 1000
    }
}

fn moments() -> Vec<(usize, Moment)> {
    let mut random = Random(SEED);
    let mut moments = vec![];
    for victim in [FUNDER, FUNDEE] {
        let (lines, commands, duration) = undisturbed(victim);
        let mut add = |moment| moments.push((victim, moment));
        (1..=lines).for_each(|count| add(Moment::Line(count)));
        (1..=commands).for_each(|count| add(Moment::Command(count)));
        for _ in 0..RANDOM_MOMENTS {
            add(Moment::SinceFundChannel(random.below(duration)));
            add(Moment::SinceFundingTx(random.below(duration / 4)));
        }
        add(Moment::End);
    }
    moments
}

#[test]
fn a_node_killed_at_any_moment_of_an_opening_keeps_its_word() {
    let moments = moments();
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(vec![]);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(&(victim, moment)) = moments.get(next.fetch_add(1, Ordering::SeqCst))
                {
                    let outcome = play(victim, moment);
                    outcomes.lock().unwrap().push((victim, outcome));
                }
            });
        }
    });
    let outcomes = outcomes.into_inner().unwrap();
    assert_eq!(outcomes.len(), moments.len());
    for victim in [FUNDER, FUNDEE] {
        let count = |wanted| outcomes.iter().filter(|done| **done == (victim, wanted)).count();
        println!(
            "{}: killed at {} moments: {} channels in use, {} failed at the fundee, {} never were",
            ["funder", "fundee"][victim],
            outcomes.iter().filter(|(killed, _)| *killed == victim).count(),
            count(Outcome::InUse),
            count(Outcome::FailedAtFundee),
            count(Outcome::Never),
        );
        // Some before the point of no return, some after it.
        assert!(count(Outcome::InUse) > 0 && count(Outcome::Never) > 0);
    }
}
