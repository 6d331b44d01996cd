//! What must hold however often a node dies, checked as things happen.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock, Mutex};

use bitcoin::secp256k1::{All, PublicKey, Secp256k1};
use bitcoin::{Transaction, Txid};
use lightning::ln::types::ChannelId;
use opening_core::Role;
use opening_peer::Opened;
use opening_peer::message::{Message, encode};
use opening_signer::ChannelRef;

use crate::disk::Disk;

// One for all plays: building it costs more than an opening.
static SECP: LazyLock<Secp256k1<All>> = LazyLock::new(Secp256k1::new);

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

    fn holds(&self, is_so: bool, otherwise: impl FnOnce() -> String) {
        if !is_so {
            self.broken(otherwise());
        }
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
        let dbid = reference.dbid;
        self.holds(is_same, || format!("node {node}: dbid {dbid} asked for another {call}"));
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
                let mut channels = disk.channels().into_iter();
                let is_saved = channels.any(|it| it.opened.channel_id == message.channel_id);
                self.holds(is_saved, || format!("node {node}: funding_signed before the save"));
            }
            Message::ChannelReady(message) => {
                let bytes = encode(message);
                let is_same = self.pages(|pages| {
                    let entry = pages.readies.entry((node, message.channel_id));
                    let (said, times) = entry.or_insert_with(|| (bytes.clone(), 0));
                    *times += 1;
                    *said == bytes
                });
                self.holds(is_same, || format!("node {node}: another channel_ready"));
            }
            _ => {}
        }
    }

    fn announces(&self, node: Name, funding_pubkey: PublicKey, temporary_id: ChannelId) {
        let earlier =
            self.pages(|pages| pages.announced.insert((node, funding_pubkey), temporary_id));
        self.holds(earlier.is_none(), || format!("node {node}: a dbid was given twice"));
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
        let saved = funded.len();
        self.holds(saved == channels, || format!("node {node}: broadcast with {saved} saved"));
        let are_signed = funded.into_iter().all(is_signed_by_peer);
        self.holds(are_signed, || format!("node {node}: broadcast without the peer's signature"));
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
    opened.local_commitment.is_signed_by(&SECP, &opened.remote_signature, key)
}
