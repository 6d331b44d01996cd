//! The durable records of all channels, and how it is noticed that some are gone.
//!
//! A record is written before its channel's first signature leaves, and never removed.  Beside the
//! digest it says how many others were durable when it was written: a store that holds fewer has
//! lost some.  [`LocalHsm::validating`](crate::LocalHsm::validating) says what cannot be noticed.

use core::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bitcoin::secp256k1::PublicKey;
use lightning::io;
use lightning::util::async_poll::AsyncResult;
use lightning::util::persist::KVStore;

use super::record::Record;
use super::rule;
use crate::error::{HsmError, HsmResult};
use crate::request::ChannelRef;

const NAMESPACE: &str = "opening_signer";
const CHANNELS: &str = "channels";

/// A version, the digest, and how many others were durable, as a big-endian number.
const LENGTH: usize = 1 + 32 + 8;
const VERSION: u8 = 2;

pub(super) struct Records {
    store: Arc<dyn KVStore + Send + Sync>,
    known: Mutex<Known>,
}

/// What is known of the store without reading it.
#[derive(Default)]
struct Known {
    /// Whether it was looked at since we started.
    looked_at: bool,
    /// How many records are durable, at least.
    durable: u64,
    /// The last that we kept, or found at the start.
    last: Option<(ChannelRef, Record)>,
    /// What was seen to be lost.
    lost: Option<String>,
}

impl Records {
    pub(super) fn new(store: Arc<dyn KVStore + Send + Sync>) -> Self {
        Self { store, known: Mutex::default() }
    }

    /// Storage, once records were seen to be lost.
    pub(super) fn health(&self) -> HsmResult<()> {
        match &self.known().lost {
            Some(lost) => Err(HsmError::Storage(lost.clone())),
            None => Ok(()),
        }
    }

    /// Whether `record` is there.  Another one for the same channel is a refusal.
    pub(super) async fn find(&self, reference: ChannelRef, record: &Record) -> HsmResult<bool> {
        self.look_at_store().await?;
        self.health()?;
        match self.read(reference).await? {
            Some(kept) if kept.record == *record => Ok(true),
            Some(_) => Err(rule::setup_differs()),
            None if self.known().last.is_some_and(|(last, _)| last == reference) => {
                Err(self.lose(reference))
            }
            None => Ok(false),
        }
    }

    /// The record of this channel was there, and is not any more.  From here on nothing is signed.
    pub(super) fn lose(&self, reference: ChannelRef) -> HsmError {
        let ChannelRef { peer, dbid } = reference;
        self.lost(format!("the record of channel {dbid} with {peer} is gone: the store went back"))
    }

    /// Gives the write its place among those of the same channel, and does not wait for it.
    pub(super) fn begin(&self, reference: ChannelRef, record: Record, found: bool) -> Writing<'_> {
        let known = self.known();
        let others = if found { known.durable.saturating_sub(1) } else { known.durable };
        let bytes = Stored { record, others }.to_bytes();
        Writing {
            records: self,
            kept: Kept { records: self, reference, record, found },
            before: known.last,
            write: self.store.write(NAMESPACE, CHANNELS, &key(reference), bytes),
        }
    }

    /// Once: whether all is there of which the latest record knows.
    async fn look_at_store(&self) -> HsmResult<()> {
        if self.known().looked_at {
            return Ok(());
        }
        let names = self.store.list(NAMESPACE, CHANNELS).await.map_err(storage)?;
        let references: Vec<ChannelRef> = names.iter().filter_map(|name| parse(name)).collect();
        let Some(latest) = references.iter().max_by_key(|reference| reference.dbid).copied() else {
            self.known().looked_at = true;
            return Ok(());
        };
        let Some(stored) = self.read(latest).await? else { return Err(self.lose(latest)) };
        let present = u64::try_from(references.len()).unwrap_or(u64::MAX);
        if present <= stored.others {
            let others = stored.others;
            let reason = format!(
                "{present} records are there, the latest was written beside {others} others"
            );
            return Err(self.lost(reason));
        }
        // Who wrote it may have died before it was durable, and the next one counts it.
        let bytes = stored.to_bytes();
        self.store.write(NAMESPACE, CHANNELS, &key(latest), bytes).await.map_err(storage)?;
        let mut known = self.known();
        if !known.looked_at {
            known.looked_at = true;
            known.durable = stored.others.saturating_add(1);
            known.last = Some((latest, stored.record));
        }
        Ok(())
    }

    async fn read(&self, reference: ChannelRef) -> HsmResult<Option<Stored>> {
        match self.store.read(NAMESPACE, CHANNELS, &key(reference)).await {
            Ok(bytes) => Stored::from_bytes(&bytes).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(storage(error)),
        }
    }

    fn lost(&self, reason: String) -> HsmError {
        HsmError::Storage(self.known().lost.get_or_insert(reason).clone())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Nothing is left half-changed by a panic: no change can panic.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A write that has its place.
#[must_use = "nothing is written before it is awaited"]
pub(super) struct Writing<'a> {
    records: &'a Records,
    kept: Kept<'a>,
    /// The last record before this one.
    before: Option<(ChannelRef, Record)>,
    write: AsyncResult<'static, (), io::Error>,
}

impl<'a> Writing<'a> {
    /// Returns when the record would survive a crash, and the one before it is still there.
    // Looked at afterwards: a store that went back before our write shows it now, one that goes
    // back after it shows it at the next.
    pub(super) async fn finish(self) -> HsmResult<Kept<'a>> {
        let Self { records, kept, before, write } = self;
        write.await.map_err(storage)?;
        if let Some((reference, record)) = before {
            let found = records.read(reference).await?;
            if found.is_none_or(|found| found.record != record) {
                return Err(records.lose(reference));
            }
        }
        records.health()?;
        Ok(kept)
    }
}

/// A record that is durable.
#[must_use = "the next record has to count it"]
pub(super) struct Kept<'a> {
    records: &'a Records,
    reference: ChannelRef,
    record: Record,
    found: bool,
}

impl Kept<'_> {
    /// The channel goes on with it; `is_first` of all that kept it since the channel was set up.
    pub(super) fn count(self, is_first: bool) {
        let mut known = self.records.known();
        if is_first && !self.found {
            known.durable = known.durable.saturating_add(1);
        }
        known.last = Some((self.reference, self.record));
    }
}

/// What is in the store for one channel.
struct Stored {
    record: Record,
    /// How many other records were durable when it was written, at least.
    others: u64,
}

impl Stored {
    fn to_bytes(&self) -> Vec<u8> {
        [&[VERSION][..], &self.record.0, &self.others.to_be_bytes()].concat()
    }

    fn from_bytes(bytes: &[u8]) -> HsmResult<Self> {
        let damaged = || HsmError::Storage("its record of the channel is damaged".into());
        let bytes: &[u8; LENGTH] = bytes.try_into().map_err(|_| damaged())?;
        let [VERSION, rest @ ..] = bytes else { return Err(damaged()) };
        let (record, others) = rest.split_first_chunk().ok_or_else(damaged)?;
        let others = others.try_into().map_err(|_| damaged())?;
        Ok(Self { record: Record(*record), others: u64::from_be_bytes(others) })
    }
}

fn key(reference: ChannelRef) -> String {
    format!("{}_{}", reference.peer, reference.dbid)
}

/// `None` for what is not ours.
fn parse(name: &str) -> Option<ChannelRef> {
    let (peer, dbid) = name.split_once('_')?;
    Some(ChannelRef { peer: PublicKey::from_str(peer).ok()?, dbid: dbid.parse().ok()? })
}

fn storage(error: io::Error) -> HsmError {
    HsmError::Storage(error.to_string())
}
