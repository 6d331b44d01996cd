//! What must hold however often a node dies, checked as things happen.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use bitcoin::secp256k1::{PublicKey, Secp256k1};
use bitcoin::{Transaction, Txid};
use lightning::ln::types::ChannelId;
use opening_core::Role;
use opening_peer::Opened;
use opening_peer::message::{Message, encode};
use opening_signer::ChannelRef;

use crate::disk::Disk;

/// A node by its place in the scenario.
pub type Name = usize;

/// Shared by all nodes, and outlives each.
#[derive(Clone, Default)]
pub struct Ledger(Arc<Mutex<Pages>>);

#[derive(Default)]
struct Pages {
    broken: Vec<String>,
    /// What a signer was asked, by call: it is asked for one commitment 0 of each reference.
    asked: HashMap<(Name, ChannelRef, &'static str), String>,
    /// The opening in which a node announced a funding key, which follows from the reference.
    announced: HashMap<(Name, PublicKey), ChannelId>,
    /// What a node's `channel_ready` said.
    readies: HashMap<(Name, ChannelId), (Vec<u8>, u32)>,
    chain: BTreeMap<Txid, Transaction>,
}

impl Ledger {
    fn pages<T>(&self, act: impl FnOnce(&mut Pages) -> T) -> T {
        act(&mut self.0.lock().unwrap())
    }

    /// Something that must not be.  Kept until the test looks: a panic would stay inside a task.
    pub fn broken(&self, what: String) {
        self.pages(|pages| pages.broken.push(what));
    }

    pub fn all_broken(&self) -> Vec<String> {
        self.pages(|pages| pages.broken.clone())
    }

    /// The signer of a node is asked something that is the same every time.
    pub fn asks_signer(&self, node: Name, reference: ChannelRef, call: &'static str, what: String) {
        let is_same = self.pages(|pages| {
            let before = pages.asked.entry((node, reference, call)).or_insert_with(|| what.clone());
            *before == what
        });
        if !is_same {
            self.broken(format!("node {node}: dbid {} asked for another {call}", reference.dbid));
        }
    }

    /// A node has written a whole message.
    pub fn says(&self, node: Name, disk: &Disk, message: &Message) {
        match message {
            Message::OpenChannel(message) => {
                let fields = &message.common_fields;
                self.announces(node, fields.funding_pubkey, fields.temporary_channel_id);
            }
            Message::AcceptChannel(message) => {
                let fields = &message.common_fields;
                self.announces(node, fields.funding_pubkey, fields.temporary_channel_id);
            }
            Message::FundingSigned(message) => {
                if !disk.channels().iter().any(|it| it.opened.channel_id == message.channel_id) {
                    self.broken(format!("node {node}: funding_signed before the save"));
                }
            }
            Message::ChannelReady(message) => {
                let bytes = encode(message);
                let is_same = self.pages(|pages| {
                    let entry = pages.readies.entry((node, message.channel_id));
                    let (said, times) = entry.or_insert_with(|| (bytes.clone(), 0));
                    *times += 1;
                    *said == bytes
                });
                if !is_same {
                    self.broken(format!("node {node}: another channel_ready"));
                }
            }
            _ => {}
        }
    }

    fn announces(&self, node: Name, funding_pubkey: PublicKey, temporary_id: ChannelId) {
        let earlier =
            self.pages(|pages| pages.announced.insert((node, funding_pubkey), temporary_id));
        if earlier.is_some() {
            self.broken(format!("node {node}: a dbid was given twice"));
        }
    }

    /// How often a node has said `channel_ready` of a channel.
    pub fn channel_readies(&self, node: Name, channel_id: ChannelId) -> u32 {
        self.pages(|pages| pages.readies.get(&(node, channel_id)).map_or(0, |(_, times)| *times))
    }

    /// A node broadcasts a transaction that funds so many channels.
    pub fn broadcasts(&self, node: Name, disk: &Disk, transaction: Transaction, channels: usize) {
        let txid = transaction.compute_txid();
        let stored = disk.channels();
        let funded: Vec<&Opened> = stored
            .iter()
            .map(|it| &it.opened)
            .filter(|it| it.parameters.funding_outpoint.txid == txid && it.role() == Role::Funder)
            .collect();
        if funded.len() != channels {
            self.broken(format!("node {node}: broadcast with {} channels saved", funded.len()));
        }
        if !funded.into_iter().all(is_signed_by_peer) {
            self.broken(format!("node {node}: broadcast without a good signature of the peer"));
        }
        self.pages(|pages| pages.chain.insert(txid, transaction));
    }

    pub fn is_broadcast(&self, txid: &Txid) -> bool {
        self.pages(|pages| pages.chain.contains_key(txid))
    }

    /// What was broadcast.
    pub fn broadcast(&self) -> Vec<Transaction> {
        self.pages(|pages| pages.chain.values().cloned().collect())
    }
}

/// Whether the record lets the node leave the channel alone.
pub fn is_signed_by_peer(opened: &Opened) -> bool {
    let key = &opened.parameters.remote.keys.funding_pubkey;
    opened.local_commitment.is_signed_by(&Secp256k1::new(), &opened.remote_signature, key)
}
