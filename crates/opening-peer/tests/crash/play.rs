//! One play: from the first offer until the channels are in use and the nodes' own, or until it is
//! certain that there is none.

use std::sync::Arc;

use bitcoin::Txid;
use lightning::ln::types::ChannelId;
use opening_core::Role;
use opening_peer::negotiation::ready::Confirmation;
use opening_peer::openings::ConfirmError;
use opening_peer::store::Stored;
use opening_peer::{Event, Opened};

use crate::disk::Disk;
use crate::ledger::Name;
use crate::machine::{Life, Machine};
use crate::world::{FUNDER, World};

/// The chain's height before the funding transaction confirms.
const HEIGHT: u32 = 100;
/// Blocks after which a fundee may forget.
const FORGET_AFTER: u32 = 2016;

impl World {
    /// Repeats `act` until it is done, through every death: without one, once must do.
    fn through(&mut self, phase: &str, act: impl Fn(&mut Self), is_done: impl Fn(&Self) -> bool) {
        for _ in 0..10 {
            let before = self.deaths();
            self.recover();
            act(self);
            self.settle();
            if self.deaths() == before {
                assert!(is_done(self), "{phase} does not get on\n{}", self.tale());
                self.check_status();
                return;
            }
        }
        panic!("{phase} never ends\n{}", self.tale());
    }

    /// From the first offer until both nodes have taken the channels over.
    pub fn play(&mut self) {
        self.through("opening", Self::open, Self::is_funded);
        self.through("confirming", Self::tell_chain, Self::is_ready);
        let said: Vec<u32> = self.channel_readies();
        self.through("reconnecting", Self::reconnect, |world| {
            let now = world.channel_readies();
            world.is_ready() && said.iter().zip(now).all(|(said, now)| *said < now)
        });
        self.through("taking over", Self::take_over, |world| {
            world.machines.iter().all(|machine| machine.disk.channels().is_empty())
        });
        self.end();
    }

    /// The funder dies and is away for 2016 blocks: a peer with nothing to lose forgets its channel
    /// then and not before, and a peer with money in it never does.
    pub fn be_forsaken(&mut self) {
        self.recover();
        self.open();
        self.settle();
        if self.machines[FUNDER].life().is_some() || !self.ledger.broadcast().is_empty() {
            return self.play();
        }
        self.connect_block(HEIGHT);
        self.connect_block(HEIGHT + FORGET_AFTER - 1);
        for peer in self.peers() {
            let channels = self.machines[peer].disk.channels();
            if self.scenario.may_be_forgotten() {
                channels.iter().for_each(|it| self.let_go(peer, it.opened.channel_id));
            }
        }
        self.connect_block(HEIGHT + FORGET_AFTER);
        for peer in self.peers() {
            let is_there = !self.machines[peer].disk.channels().is_empty();
            assert!(!is_there || !self.scenario.may_be_forgotten(), "{}", self.tale());
        }
        if self.machines[FUNDER].disk.channels().is_empty() {
            return self.play();
        }
        // The funder comes back with a permit, and broadcasts.
        self.raise_the_dead();
        self.connect();
        let there = self.machines[FUNDER].disk.channels();
        for Stored { opened, progress } in there {
            let peers = self.peers().flat_map(|peer| self.funded(peer));
            let is_remembered = peers.into_iter().any(|it| it.channel_id == opened.channel_id);
            assert_eq!(progress.failed.is_none(), is_remembered, "{}", self.tale());
            if let Some(failure) = progress.failed {
                self.leave_alone(FUNDER, &opened, &failure);
            }
        }
    }

    fn connect_block(&mut self, height: u32) {
        for machine in &self.machines {
            if let Some(life) = machine.life() {
                let openings = life.openings();
                life.run(async move { openings.block_connected(height).await });
            }
        }
        self.settle();
    }

    /// The channels of a node that are on the chain.
    fn funded(&self, name: Name) -> Vec<Opened> {
        let channels = self.machines[name].disk.channels().into_iter().map(|it| it.opened);
        let txid = |it: &Opened| it.parameters.funding_outpoint.txid;
        channels.filter(|it| self.ledger.is_broadcast(&txid(it))).collect()
    }

    fn open(&mut self) {
        if !self.funded(FUNDER).is_empty() {
            return;
        }
        let life = self.life(FUNDER);
        let sessions: Option<Vec<_>> =
            self.peers().map(|peer| life.sessions.get(&peer).cloned()).collect();
        // A peer has died meanwhile.
        let Some(sessions) = sessions else { return };
        let opening = life.run(self.wallet(FUNDER).open(sessions));
        self.settle();
        if self.machines[FUNDER].life().is_none() {
            return;
        }
        if opening.take().expect("an opening that has ended, well or not").is_err() {
            let kept = self.machines[FUNDER].disk.channels();
            assert!(kept.is_empty(), "failed, but kept\n{}", self.tale());
        }
    }

    fn is_funded(&self) -> bool {
        let ours = self.funded(FUNDER);
        ours.len() == self.scenario.peers
            && self.peers().all(|peer| {
                let theirs = self.funded(peer);
                matches!(&theirs[..], [one] if ours.iter().any(|other| are_one(other, one)))
            })
    }

    fn tell_chain(&mut self) {
        for machine in &self.machines {
            let Some(life) = machine.life() else { continue };
            for transaction in self.ledger.broadcast() {
                let txid = transaction.compute_txid();
                let ids = ids_funded_by(&machine.disk, &txid);
                let evidence = Confirmation {
                    transaction,
                    block_height: HEIGHT + 1,
                    transaction_index: 1,
                    depth: 3,
                };
                let (openings, ledger) = (life.openings(), self.ledger.clone());
                life.run(async move {
                    openings.block_connected(HEIGHT).await;
                    for id in ids {
                        let confirmed = openings.confirmed(id, evidence.clone()).await;
                        if !matches!(confirmed, Ok(()) | Err(ConfirmError::UnknownChannel)) {
                            ledger.broken(format!("evidence refused: {confirmed:?}"));
                        }
                    }
                });
            }
        }
    }

    fn is_ready(&self) -> bool {
        self.machines.iter().all(|machine| {
            let Some(life) = machine.life() else { return false };
            let funded = self.funded(machine.name);
            !funded.is_empty() && funded.iter().all(|it| is_ready_in(life, it.channel_id))
        })
    }

    fn channel_readies(&self) -> Vec<u32> {
        let of = |name: Name, it: &Opened| self.ledger.channel_readies(name, it.channel_id);
        let of_all = |name: Name| self.funded(name).iter().map(|it| of(name, it)).sum();
        (0..self.machines.len()).map(of_all).collect()
    }

    fn reconnect(&mut self) {
        for machine in &mut self.machines {
            if let Some(life) = machine.life_mut() {
                life.sessions.clear();
            }
        }
        self.settle();
        self.raise_the_dead();
        self.connect();
        self.tell_chain();
    }

    /// The node keeps the channels by itself from now on.
    fn take_over(&mut self) {
        for name in 0..self.machines.len() {
            for stored in self.machines[name].disk.channels() {
                let id = stored.opened.channel_id;
                let Some(life) = self.machines[name].life() else { continue };
                if !(is_ready_in(life, id) || life.rest.has(&id)) {
                    continue;
                }
                let (openings, crash) = (life.openings(), life.watch.crash.clone());
                let disk = self.machines[name].disk.clone();
                let releasing = life.run(async move {
                    let keeping = async { disk.taken_over.lock().unwrap().insert(id, stored) };
                    crash.around("taking over", keeping).await;
                    openings.release(&id).await
                });
                self.let_go(name, id);
                self.settle();
                if let Some(Err(error)) = releasing.take() {
                    panic!("not released: {error:?}\n{}", self.tale());
                }
            }
        }
    }

    /// Nothing is pending, and what is under way are the channels that are kept.
    fn check_status(&mut self) {
        let asked = self.machines.iter().map(|machine| {
            let life = machine.life().expect("alive");
            let openings = life.openings();
            assert_eq!(openings.pending(), 0, "{}", self.tale());
            life.run(async move { openings.status().await })
        });
        let asked: Vec<_> = asked.collect();
        self.settle();
        for (machine, status) in self.machines.iter().zip(asked) {
            let status = status.take().expect("answered");
            let mut under_way: Vec<_> = status.under_way.iter().map(|it| it.channel_id).collect();
            let kept = machine.disk.channels();
            let mut kept: Vec<_> = kept.iter().map(|it| Some(it.opened.channel_id)).collect();
            under_way.sort();
            kept.sort();
            assert_eq!(under_way, kept, "node {}\n{}", machine.name, self.tale());
        }
    }

    /// Every opening of the last lives has come to one end, and nothing is left of them.
    fn end(&mut self) {
        for machine in &self.machines {
            self.check_ends(machine);
        }
        for machine in &mut self.machines {
            if let Some(life) = machine.life_mut() {
                life.sessions.clear();
            }
        }
        self.settle();
        for machine in &self.machines {
            // It may have died with its last word.
            let Some(life) = machine.life() else { continue };
            // The life's own, and this one.
            let count = Arc::strong_count(&life.openings());
            assert_eq!(count, 2, "node {} leaks\n{}", machine.name, self.tale());
        }
        for name in 0..self.machines.len() {
            self.machines[name].end();
        }
        self.look();
    }

    fn check_ends(&self, machine: &Machine) {
        let log = &self.life(machine.name).log;
        let begun = log.all(|event| match event {
            Event::Progress { temporary_channel_id, stage, .. } => {
                use opening_peer::Stage::{Decision, Keys};
                matches!(stage, Keys | Decision).then_some(*temporary_channel_id)
            }
            _ => None,
        });
        for id in begun {
            let ends = log.all(|event| match event {
                Event::Failed(failed) => (failed.temporary_channel_id == id).then_some(()),
                Event::Opened(opened) => (opened.temporary_channel_id == id).then_some(()),
                _ => None,
            });
            assert_eq!(ends.len(), 1, "ends of {id}\n{}", self.tale());
            let channel_ends = log.all(|event| match event {
                Event::Ready(ready) => (ready.opened.temporary_channel_id == id).then_some(()),
                Event::Ended(ended) => (ended.opened.temporary_channel_id == id).then_some(()),
                _ => None,
            });
            assert!(channel_ends.len() <= 1, "ends of {id}\n{}", self.tale());
        }
    }
}

/// Whether the node was told in this life that the channel is in use.
fn is_ready_in(life: &Life, id: ChannelId) -> bool {
    let ready = life.log.all(|event| match event {
        Event::Ready(ready) => Some(ready.opened.channel_id),
        _ => None,
    });
    ready.contains(&id)
}

fn ids_funded_by(disk: &Disk, txid: &Txid) -> Vec<ChannelId> {
    let channels = disk.channels().into_iter().map(|it| it.opened);
    channels
        .filter(|it| it.parameters.funding_outpoint.txid == *txid)
        .map(|it| it.channel_id)
        .collect()
}

/// Whether two records are of one channel, seen from both sides.
fn are_one(one: &Opened, other: &Opened) -> bool {
    one.channel_id == other.channel_id
        && one.role() == Role::Funder
        && other.role() == Role::Fundee
        && one.local_commitment.transaction == other.remote_commitment.transaction
        && one.remote_commitment.transaction == other.local_commitment.transaction
        && one.local_signature == other.remote_signature
        && one.remote_signature == other.local_signature
}
