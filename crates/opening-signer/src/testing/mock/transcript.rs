//! What a signer was asked, and what it answered.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::call::Call;
use crate::error::HsmError;
use crate::request::ChannelRef;

/// Calls.  Those after them are counted, and not written down.
const CAPACITY: usize = 16_384;

/// Every call to a signer, in the order in which they were made, up to 16,384 of them.  Clones
/// share it.
///
/// No secret is in it: nobody tells a signer one, and of an answer it only says of which kind.
#[derive(Clone, Debug, Default)]
pub struct Transcript(Arc<Mutex<Book>>);

#[derive(Debug, Default)]
struct Book {
    entries: Vec<Entry>,
    counts: HashMap<Call, u32>,
}

/// A call.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Which.
    pub call: Call,
    /// Counts the calls of this name, of all channels together, from 1.
    pub nth: u32,
    /// The channel.
    pub reference: ChannelRef,
    /// All of its arguments, so that two requests can be compared.
    pub request: String,
    /// The transaction of a request to sign or to validate, as Bitcoin serializes it.
    pub transaction: Option<Vec<u8>>,
    /// When it was made.
    pub at: Instant,
    /// Whether the signer did it, which the caller need not have heard.
    pub is_carried_out: bool,
    /// What the caller heard.
    pub outcome: Outcome,
}

/// What the caller of a call heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing: it waits, or has gone.
    Unanswered,
    /// That it is done.
    Done,
    /// An error of this [code](HsmError::code).
    Failed(&'static str),
}

/// Where a call was written down.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written {
    /// The call's own number.
    pub(super) nth: u32,
    index: usize,
}

impl Transcript {
    /// All calls.
    pub fn entries(&self) -> Vec<Entry> {
        self.book().entries.clone()
    }

    /// The calls of this name.
    pub fn of(&self, call: Call) -> Vec<Entry> {
        self.book().entries.iter().filter(|entry| entry.call == call).cloned().collect()
    }

    /// How often it was called, also beyond what is written down.
    pub fn count(&self, call: Call) -> u32 {
        self.book().counts.get(&call).copied().unwrap_or(0)
    }

    /// How many calls were not written down.
    pub fn beyond(&self) -> usize {
        let book = self.book();
        let all: u64 = book.counts.values().copied().map(u64::from).sum();
        usize::try_from(all).unwrap_or(usize::MAX) - book.entries.len()
    }

    pub(super) fn begin(
        &self,
        call: Call,
        reference: ChannelRef,
        request: String,
        transaction: Option<Vec<u8>>,
    ) -> Written {
        let mut book = self.book();
        let count = book.counts.entry(call).or_default();
        *count += 1;
        let nth = *count;
        let index = book.entries.len();
        if index < CAPACITY {
            let (at, outcome) = (Instant::now(), Outcome::Unanswered);
            let is_carried_out = false;
            let entry =
                Entry { call, nth, reference, request, transaction, at, is_carried_out, outcome };
            book.entries.push(entry);
        }
        Written { nth, index }
    }

    pub(super) fn carried_out(&self, written: &Written) {
        if let Some(entry) = self.book().entries.get_mut(written.index) {
            entry.is_carried_out = true;
        }
    }

    pub(super) fn end(&self, written: &Written, result: Result<(), &HsmError>) {
        if let Some(entry) = self.book().entries.get_mut(written.index) {
            entry.outcome = match result {
                Ok(()) => Outcome::Done,
                Err(error) => Outcome::Failed(error.code()),
            };
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
