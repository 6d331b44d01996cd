//! A node with a runtime of its own, so that it can die while others live.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, LazyLock, Mutex};

use bitcoin::Network;
use bitcoin::secp256k1::PublicKey;
use opening_core::{ChannelType, FeeratePerKw, FeerateRange, Limits, MilliSatoshi};
use opening_peer::node::{AcceptWithin, Bounds, Events};
use opening_peer::{Ask, Capacity, Event, Node, Openings, Restored, Session};
use opening_signer::{Hsm, HsmSecret, LocalHsm, SigningPolicy};
use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;

use crate::common::{ask, node_id};
use crate::disk::{Disk, Medium, Mortal};
use crate::ledger::{Ledger, Name};
use crate::parts::{MortalHsm, MortalPolicy, Numbers, Rest, Watch};
use crate::point::Crash;

/// Which signer the nodes have, and what is left of its memory when its node dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignerKind {
    /// In the node's process: nothing.
    Blind,
    /// In the node's process: what it wrote down.
    Validating,
    /// In a process of its own: everything.
    Elsewhere,
}

/// What is opened, with which parts.  One funder, which is node 0, and its peers.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub name: &'static str,
    /// Channels that one transaction funds, each with a peer of its own.
    pub peers: usize,
    pub signer: SignerKind,
    pub medium: Medium,
    pub push_msat: MilliSatoshi,
    pub is_zeroconf: bool,
}

impl Scenario {
    pub fn ask(&self) -> Ask {
        let zeroconf = ChannelType { zeroconf: true, ..ChannelType::ANCHORS };
        let channel_type = self.is_zeroconf.then_some(zeroconf);
        Ask { push_msat: self.push_msat, channel_type, ..ask() }
    }

    /// Whether a peer has nothing to lose with a channel that is never funded.
    pub fn may_be_forgotten(&self) -> bool {
        self.push_msat == MilliSatoshi::ZERO && !self.is_zeroconf
    }

    fn bounds(&self) -> Bounds {
        let mut limits = Limits::for_network(Network::Regtest);
        limits.trust_zeroconf = self.is_zeroconf;
        let range = FeerateRange { min: FeeratePerKw::FLOOR, max: FeeratePerKw::new(100_000) };
        Bounds { limits, feerates: Some(range) }
    }
}

/// Everything that a node was told in one life.
pub struct Log {
    events: Mutex<Vec<Event>>,
    crash: Crash,
}

impl Events for Log {
    fn event(&self, _peer: &PublicKey, event: Event) {
        if self.crash.passes("before", &format!("event {event}")) {
            self.events.lock().unwrap().push(event);
        }
    }
}

impl Log {
    pub fn all<T>(&self, find: impl Fn(&Event) -> Option<T>) -> Vec<T> {
        self.events.lock().unwrap().iter().filter_map(find).collect()
    }

    pub fn lines(&self) -> Vec<String> {
        self.all(|event| Some(event.to_string()))
    }
}

/// What a task of a node brings, once it has.
pub struct Slot<T>(Arc<Mutex<Option<T>>>);

impl<T> Slot<T> {
    pub fn take(&self) -> Option<T> {
        self.0.lock().unwrap().take()
    }
}

/// One life of a node.
pub struct Life {
    pub watch: Watch,
    pub log: Arc<Log>,
    pub rest: Arc<Rest>,
    /// Once what the store kept is loaded.
    pub openings: Option<Arc<Openings>>,
    pub sessions: HashMap<Name, Session>,
    runtime: Runtime,
}

impl Life {
    /// Has the node do something; what comes of it is there when everything has settled.
    pub fn run<T: Send + 'static>(&self, act: impl Future<Output = T> + Send + 'static) -> Slot<T> {
        let slot = Arc::new(Mutex::new(None));
        let filled = slot.clone();
        self.runtime.spawn(async move {
            let done = act.await;
            *filled.lock().unwrap() = Some(done);
        });
        Slot(slot)
    }

    pub fn openings(&self) -> Arc<Openings> {
        self.openings.clone().expect("loaded")
    }
}

pub struct Machine {
    pub name: Name,
    pub disk: Arc<Disk>,
    /// The points of each life that is over, and whether it ended with a death.
    pub lives: Vec<(Vec<String>, bool)>,
    life: Option<Life>,
    scenario: Scenario,
    ledger: Ledger,
    /// At which point it dies, for each life to come.
    crashes: VecDeque<usize>,
    signer_elsewhere: Option<Arc<LocalHsm>>,
}

impl Machine {
    pub fn new(name: Name, scenario: Scenario, ledger: Ledger, crashes: &[usize]) -> Self {
        Self {
            name,
            disk: Arc::new(Disk::new(scenario.medium)),
            lives: Vec::new(),
            life: None,
            scenario,
            ledger,
            crashes: crashes.iter().copied().collect(),
            signer_elsewhere: (scenario.signer == SignerKind::Elsewhere)
                .then(|| Arc::new(LocalHsm::blind(&secret(name)))),
        }
    }

    pub fn id(&self) -> PublicKey {
        static IDS: LazyLock<[PublicKey; 3]> =
            LazyLock::new(|| [0, 1, 2].map(secret_byte).map(node_id));
        IDS[self.name]
    }

    /// Lives that ended with a death.
    pub fn deaths(&self) -> usize {
        self.lives.iter().filter(|(_, is_dead)| *is_dead).count()
    }

    pub fn life(&self) -> Option<&Life> {
        self.life.as_ref()
    }

    pub fn life_mut(&mut self) -> Option<&mut Life> {
        self.life.as_mut()
    }

    /// Begins a life; the store is loaded when everything has settled.
    pub fn start(&mut self) -> Slot<(Arc<Openings>, Vec<Restored>)> {
        let crash = Crash::at(self.crashes.pop_front());
        let watch = Watch { node: self.name, crash, ledger: self.ledger.clone() };
        let log = Arc::new(Log { events: Mutex::default(), crash: watch.crash.clone() });
        let rest = Arc::new(Rest { disk: self.disk.clone(), reestablished: Mutex::default() });
        let node = self.node(&watch, &log, &rest);
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.unwrap();
        let (openings, sessions) = (None, HashMap::new());
        let life = self.life.insert(Life { watch, log, rest, openings, sessions, runtime });
        life.run(async move { Openings::load(node).await.unwrap() })
    }

    fn node(&self, watch: &Watch, log: &Arc<Log>, rest: &Arc<Rest>) -> Node {
        let crash = &watch.crash;
        let inner: Arc<dyn Hsm> = match self.scenario.signer {
            SignerKind::Blind => Arc::new(LocalHsm::blind(&secret(self.name))),
            SignerKind::Elsewhere => self.signer_elsewhere.clone().expect("made for all lives"),
            SignerKind::Validating => {
                let entries = Mortal::new("signer", self.disk.signer.clone(), crash);
                Arc::new(LocalHsm::validating(
                    &secret(self.name),
                    SigningPolicy::for_network(bitcoin::Network::Regtest),
                    Arc::new(entries),
                ))
            }
        };
        let policy = MortalPolicy(AcceptWithin(self.scenario.bounds()), crash.clone());
        let seed = format!("node {} life {}", self.name, self.lives.len());
        Node {
            capacity: Capacity { opens_per_second: None, ..Capacity::default() },
            entropy: Arc::new(Numbers { seed, next: AtomicU64::new(0), crash: crash.clone() }),
            rest: rest.clone(),
            ..Node::new(
                Network::Regtest,
                Arc::new(MortalHsm { inner, watch: watch.clone() }),
                Arc::new(policy),
                self.disk.store(crash),
                log.clone(),
            )
        }
    }

    /// Lets the node do what it can without a clock; buries it if it has died.
    pub fn step(&mut self) {
        let Some(life) = &self.life else { return };
        life.runtime.block_on(async {
            for _ in 0..16 {
                yield_now().await;
            }
        });
        if life.watch.crash.is_dead() {
            self.end();
        }
    }

    /// The process is gone, with everything that was in it.
    pub fn end(&mut self) {
        let Some(life) = self.life.take() else { return };
        let crash = life.watch.crash.clone();
        self.lives.push((crash.labels(), crash.is_dead()));
        let openings = life.openings.as_ref().map(Arc::downgrade);
        drop(life);
        if openings.is_some_and(|openings| openings.strong_count() > 0) {
            self.ledger.broken(format!("node {}: something outlives its runtime", self.name));
        }
    }
}

fn secret_byte(name: Name) -> u8 {
    u8::try_from(name + 1).unwrap()
}

fn secret(name: Name) -> HsmSecret {
    HsmSecret::new([secret_byte(name); 32])
}
