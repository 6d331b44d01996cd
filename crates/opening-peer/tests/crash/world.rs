//! Nodes and the connections between them, and how they recover from a death.

use std::collections::HashMap;
use std::time::Duration;

use lightning::ln::types::ChannelId;
use opening_core::Role;
use opening_peer::negotiation::ready::{ChannelFailure, Exit};
use opening_peer::openings::ReleaseError;
use opening_peer::store::Stored;
use opening_peer::transport::framed;
use opening_peer::{Greeting, Opened, Restored, Session};

use crate::ledger::{Ledger, Name};
use crate::machine::{Life, Machine, Scenario};
use crate::parts::said_again;
use crate::stream::MortalStream;
use crate::wallet::Wallet;

pub const FUNDER: Name = 0;
/// Rounds in which nothing is touched, after which nothing will be.
const QUIET: u32 = 3;
/// Bytes that a connection holds.
const PIPE: usize = 64 * 1024;

/// A node, and at which point of each of its first lives it dies.
pub type Crash<'a> = (Name, &'a [usize]);

pub struct World {
    pub scenario: Scenario,
    pub machines: Vec<Machine>,
    pub ledger: Ledger,
    /// Records that were seen, and may not be gone.
    kept: HashMap<(Name, ChannelId), Stored>,
}

impl World {
    pub fn new(scenario: Scenario, crashes: &[Crash<'_>]) -> Self {
        let ledger = Ledger::default();
        let machine = |name| {
            let of_this = crashes.iter().find(|(whose, _)| *whose == name);
            let points = of_this.map_or(&[][..], |(_, points)| points);
            Machine::new(name, scenario, ledger.clone(), points)
        };
        let machines = (0..=scenario.peers).map(machine).collect();
        Self { scenario, machines, ledger, kept: HashMap::new() }
    }

    pub fn deaths(&self) -> usize {
        self.machines.iter().map(Machine::deaths).sum()
    }

    pub fn peers(&self) -> std::ops::RangeInclusive<Name> {
        1..=self.scenario.peers
    }

    pub fn life(&self, name: Name) -> &Life {
        self.machines[name].life().expect("alive")
    }

    /// Lets everything happen that can happen, then looks whether it may.
    pub fn settle(&mut self) {
        let touched = |machines: &[Machine]| -> usize {
            machines.iter().filter_map(|it| it.life()).map(|it| it.watch.crash.passed()).sum()
        };
        let mut quiet = 0;
        while quiet < QUIET {
            let before = (touched(&self.machines), self.deaths());
            self.machines.iter_mut().for_each(Machine::step);
            let is_at_work = |it: &Machine| it.life().is_some_and(|it| it.watch.crash.is_at_work());
            let is_quiet = (touched(&self.machines), self.deaths()) == before;
            quiet = if is_quiet { quiet + 1 } else { 0 };
            if is_quiet && self.machines.iter().any(is_at_work) {
                quiet = 0;
                std::thread::sleep(Duration::from_micros(100));
            }
        }
        self.look();
    }

    /// Nothing is broken, and no record is gone that may be about money.
    pub fn look(&mut self) {
        let broken = self.ledger.all_broken();
        assert!(broken.is_empty(), "{broken:#?}\n{}", self.tale());
        for machine in &self.machines {
            let there: HashMap<_, _> =
                machine.disk.channels().into_iter().map(|it| (it.opened.channel_id, it)).collect();
            for ((name, id), stored) in &self.kept {
                let is_gone = *name == machine.name && !there.contains_key(id);
                let may_be_gone = is_funder_of_part(stored);
                assert!(!is_gone || may_be_gone, "node {name} forgets {id}\n{}", self.tale());
            }
            self.kept.retain(|(name, id), _| *name != machine.name || there.contains_key(id));
            self.kept.extend(there.into_iter().map(|(id, it)| ((machine.name, id), it)));
        }
    }

    /// The node has let go of a channel, and rightly so.
    pub fn let_go(&mut self, name: Name, id: ChannelId) {
        self.kept.remove(&(name, id));
    }

    /// What happened, for whoever has to find out why a play went wrong.
    pub fn tale(&self) -> String {
        let mut tale = format!("{:?}\n", self.scenario);
        for machine in &self.machines {
            for (labels, is_dead) in &machine.lives {
                let last = labels.last().filter(|_| *is_dead);
                tale += &format!("node {}: died at {} {last:?}\n", machine.name, labels.len());
            }
            tale += &format!("node {}:\n", machine.name);
            for line in machine.life().map(|life| life.log.lines()).unwrap_or_default() {
                tale += &format!("    {line}\n");
            }
            for stored in machine.disk.channels() {
                tale += &format!("    keeps {} {:?}\n", stored.opened.channel_id, stored.progress);
            }
        }
        tale
    }

    /// Until all nodes live and are connected: starts the dead, and does what a node has to do
    /// about what it finds.
    pub fn recover(&mut self) {
        for _ in 0..10 {
            self.raise_the_dead();
            self.connect();
            if self.machines.iter().all(|machine| machine.life().is_some()) {
                self.resolve();
                return;
            }
        }
        panic!("never recovers\n{}", self.tale());
    }

    pub fn raise_the_dead(&mut self) {
        for name in 0..self.machines.len() {
            if self.machines[name].life().is_some() {
                continue;
            }
            let loading = self.machines[name].start();
            self.settle();
            let Some(life) = self.machines[name].life_mut() else { continue };
            let (openings, restored) = loading.take().expect("loaded");
            life.openings = Some(openings);
            for restored in restored {
                self.act_on(name, restored);
            }
            self.settle();
        }
    }

    fn act_on(&mut self, name: Name, restored: Restored) {
        let life = self.life(name);
        match restored {
            Restored::MayBroadcast { opened, permit } => {
                let transaction = opened.funding_transaction.clone().expect("shown");
                let wallet = self.wallet(name);
                life.run(async move { wallet.broadcast(transaction, permit).await });
            }
            Restored::AwaitDepth(_) | Restored::AwaitChannelReady(_) => {}
            // Told to the node as an event before it died; resolved below.
            Restored::Failed { .. } => {}
            Restored::NeverBroadcast(opened) => {
                let txid = opened.parameters.funding_outpoint.txid;
                assert!(!self.ledger.is_broadcast(&txid), "{}", self.tale());
                self.let_go(name, opened.channel_id);
            }
            other => panic!("{other:?}\n{}", self.tale()),
        }
    }

    pub fn wallet(&self, name: Name) -> Wallet {
        let machine = &self.machines[name];
        let watch = machine.life().expect("alive").watch.clone();
        Wallet { scenario: self.scenario, watch, disk: machine.disk.clone() }
    }

    pub fn connect(&mut self) {
        for machine in &mut self.machines {
            if let Some(life) = machine.life_mut() {
                life.sessions.retain(|_, session| !session.is_closed());
            }
        }
        for peer in self.peers() {
            let is_there = |one: Name, other: Name| {
                self.machines[one].life().is_some_and(|it| it.sessions.contains_key(&other))
            };
            if is_there(FUNDER, peer) && is_there(peer, FUNDER) {
                continue;
            }
            let (near, far) = tokio::io::duplex(PIPE);
            let starting = [(FUNDER, peer, near), (peer, FUNDER, far)].map(|(one, other, end)| {
                let life = self.machines[one].life()?;
                let disk = self.machines[one].disk.clone();
                let end = framed(MortalStream::new(end, life.watch.clone(), disk));
                let (openings, id) = (life.openings(), self.machines[other].id());
                let start = Session::start(openings, id, end, Greeting::default());
                Some((one, other, life.run(start)))
            });
            self.settle();
            for (one, other, starting) in starting.into_iter().flatten() {
                if let (Some(life), Some(Ok(session))) =
                    (self.machines[one].life_mut(), starting.take())
                {
                    life.sessions.insert(other, session);
                }
            }
        }
        self.settle();
        self.operate();
    }

    /// Has every node go on with the channels that it operates.
    fn operate(&mut self) {
        for machine in &self.machines {
            let Some(life) = machine.life() else { continue };
            let asked = std::mem::take(&mut *life.rest.reestablished.lock().unwrap());
            for (peer, id) in asked {
                let session = life.sessions.values().find(|it| it.peer() == peer).cloned();
                let stored = machine.disk.taken_over.lock().unwrap().get(&id).cloned();
                if let (Some(session), Some(stored)) = (session, stored) {
                    life.run(async move {
                        for message in said_again(&stored) {
                            let _ = session.send(message).await;
                        }
                    });
                }
            }
        }
        self.settle();
    }

    /// What a node does about channels that have failed: it has nothing on the chain, so that it
    /// lets go of them, once it is sure that it could leave them.
    fn resolve(&mut self) {
        for name in 0..self.machines.len() {
            for Stored { opened, progress } in self.machines[name].disk.channels() {
                let Some(failure) = progress.failed else { continue };
                self.resolve_one(name, &opened, &failure);
            }
        }
        self.settle();
    }

    fn resolve_one(&mut self, name: Name, opened: &Opened, failure: &ChannelFailure) {
        let id = opened.channel_id;
        let txid = opened.parameters.funding_outpoint.txid;
        assert!(!self.ledger.is_broadcast(&txid), "a channel on the chain fails\n{}", self.tale());
        self.leave_alone(name, opened, failure);
        let Some(life) = self.machines[name].life() else { return };
        let openings = life.openings();
        let releasing = life.run(async move { openings.release(&id).await });
        self.let_go(name, id);
        self.settle();
        if self.machines[name].life().is_some() {
            let released = releasing.take().expect("released");
            assert!(
                matches!(released, Ok(()) | Err(ReleaseError::UnknownChannel)),
                "{released:?}\n{}",
                self.tale()
            );
        }
    }

    /// A node can leave a channel without its peer.
    pub fn leave_alone(&mut self, name: Name, opened: &Opened, failure: &ChannelFailure) {
        let Some(life) = self.machines[name].life() else { return };
        let (openings, id) = (life.openings(), opened.channel_id);
        let way_out = life.run(async move { openings.signed_commitment(&id).await });
        self.settle();
        if self.machines[name].life().is_some() {
            let way_out = way_out.take().expect("signed or refused");
            assert!(way_out.is_ok(), "no way out: {way_out:?}\n{}", self.tale());
            assert_eq!(failure.exit == Exit::Broadcast, opened.pays_us(), "{}", self.tale());
        }
    }
}

/// Whether the record is the funder's of a channel in a batch of which nobody knows yet that it is
/// saved whole: there has been no permit.
fn is_funder_of_part(stored: &Stored) -> bool {
    let opened = &stored.opened;
    opened.role() == Role::Funder && !opened.batch.is_empty() && !stored.progress.is_batch_saved
}
