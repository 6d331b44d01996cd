//! The requests of one channel, in the order in which they came.

use std::collections::VecDeque;

use super::messages::{Body, Request};
use super::perform::Known;
use crate::error::HsmError;

/// Requests of one channel that wait.  An opening has three.
pub(super) const MAX_WAITING: usize = 64;
/// Failed requests that are remembered one by one.
const MAX_FAILED: usize = 64;

/// One channel of one connection.
#[derive(Default)]
pub(super) struct Channel {
    pub(super) known: Known,
    waiting: VecDeque<Job>,
    running: Option<Job>,
    failed: Failed,
    /// When it was last used: counts the connection's requests.
    pub(super) used: u64,
}

/// A request, with everyone who waits for its answer.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) ids: Vec<u64>,
    key: [u8; 16],
    after: u64,
    pub(super) body: Body,
}

/// The requests that others may wrongly build upon.
#[derive(Default)]
struct Failed {
    ids: VecDeque<u64>,
    /// Of those up to here nobody knows any more: they count as failed.
    forgotten: u64,
}

impl Failed {
    fn insert(&mut self, id: u64) {
        self.ids.push_back(id);
        if self.ids.len() > MAX_FAILED
            && let Some(oldest) = self.ids.pop_front()
        {
            self.forgotten = self.forgotten.max(oldest);
        }
    }

    fn contains(&self, id: u64) -> bool {
        id != 0 && (id <= self.forgotten || self.ids.contains(&id))
    }
}

impl Channel {
    /// Joins a request with the same key, or waits for its turn.  An error is its answer.
    pub(super) fn push(&mut self, request: Request) -> Result<(), HsmError> {
        let Request { id, key, after, body, .. } = request;
        let same = self.running.iter_mut().chain(&mut self.waiting).find(|job| job.key == key);
        match same {
            Some(job) if job.body != body => {
                let reason = "its idempotency key belongs to another request";
                return Err(self.refuse(id, HsmError::InvalidRequest(reason.into())));
            }
            // What depends on something else has to wait for that.
            Some(job) if after == 0 || after == job.after => {
                job.ids.push(id);
                return Ok(());
            }
            _ => {}
        }
        if self.waiting.len() >= MAX_WAITING {
            let reason = format!("more than {MAX_WAITING} requests of one channel wait");
            return Err(self.refuse(id, HsmError::Unavailable(reason)));
        }
        self.waiting.push_back(Job { ids: vec![id], key, after, body });
        Ok(())
    }

    fn refuse(&mut self, id: u64, error: HsmError) -> HsmError {
        self.failed.insert(id);
        error
    }

    /// The request whose turn it is; `Err` with the ids of one that must not be carried out.
    pub(super) fn next(&mut self) -> Option<Result<Job, Vec<u64>>> {
        if self.running.is_some() {
            return None;
        }
        let job = self.waiting.pop_front()?;
        if self.failed.contains(job.after) {
            for id in &job.ids {
                self.failed.insert(*id);
            }
            return Some(Err(job.ids));
        }
        self.running = Some(job.clone());
        Some(Ok(job))
    }

    /// Everyone who waits for the request that was carried out.
    pub(super) fn done(&mut self, succeeded: bool) -> Vec<u64> {
        let ids = self.running.take().map(|job| job.ids).unwrap_or_default();
        if !succeeded {
            for id in &ids {
                self.failed.insert(*id);
            }
        }
        ids
    }

    pub(super) fn is_idle(&self) -> bool {
        self.running.is_none() && self.waiting.is_empty()
    }

    /// What has not begun will not.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::secp256k1::PublicKey;

    use super::*;
    use crate::request::ChannelRef;

    fn request(id: u64, after: u64, number: u64) -> Request {
        let peer = PublicKey::from_slice(&[2; 33]).unwrap();
        Request::new(id, ChannelRef { peer, dbid: 1 }, after, Body::PerCommitmentPoint(number))
    }

    fn start(channel: &mut Channel) -> u64 {
        channel.next().unwrap().unwrap().ids[0]
    }

    #[test]
    fn requests_run_one_by_one_in_order() {
        let mut channel = Channel::default();
        channel.push(request(1, 0, 1)).unwrap();
        channel.push(request(2, 0, 2)).unwrap();
        assert_eq!(start(&mut channel), 1);
        assert!(channel.next().is_none());
        assert_eq!(channel.done(true), [1]);
        assert_eq!(start(&mut channel), 2);
        assert!(!channel.is_idle());
        channel.done(true);
        assert!(channel.is_idle());
    }

    #[test]
    fn a_failure_aborts_what_depends_on_it_and_nothing_else() {
        let mut channel = Channel::default();
        for (id, after) in [(1, 0), (2, 1), (3, 2), (4, 0)] {
            channel.push(request(id, after, id)).unwrap();
        }
        assert_eq!(start(&mut channel), 1);
        channel.done(false);
        assert_eq!(channel.next().unwrap().unwrap_err(), [2]);
        assert_eq!(channel.next().unwrap().unwrap_err(), [3]);
        assert_eq!(start(&mut channel), 4);
        channel.done(true);
        // One that comes after the failure was answered.
        channel.push(request(5, 1, 5)).unwrap();
        assert_eq!(channel.next().unwrap().unwrap_err(), [5]);
    }

    #[test]
    fn failures_that_are_forgotten_still_count() {
        let mut channel = Channel::default();
        for id in 1..=100 {
            channel.push(request(id, 0, id)).unwrap();
            start(&mut channel);
            channel.done(false);
        }
        for (id, after) in [(101, 1), (102, 36), (103, 37), (104, 100)] {
            channel.push(request(id, after, id)).unwrap();
            assert_eq!(channel.next().unwrap().unwrap_err(), [id]);
        }
    }

    #[test]
    fn the_same_key_joins_while_it_waits_or_runs() {
        let mut channel = Channel::default();
        channel.push(request(1, 0, 7)).unwrap();
        channel.push(request(2, 0, 7)).unwrap();
        start(&mut channel);
        channel.push(request(3, 0, 7)).unwrap();
        assert_eq!(channel.done(true), [1, 2, 3]);
        // Done: it is repeated.
        channel.push(request(4, 0, 7)).unwrap();
        assert_eq!(start(&mut channel), 4);
    }

    #[test]
    fn a_key_that_belongs_to_another_request_is_refused() {
        let mut channel = Channel::default();
        let first = request(1, 0, 7);
        let mut second = request(2, 0, 8);
        second.key = first.key;
        channel.push(first).unwrap();
        assert!(matches!(channel.push(second), Err(HsmError::InvalidRequest(_))));
    }

    #[test]
    fn so_many_wait_and_no_more() {
        let mut channel = Channel::default();
        for id in 1..=64 {
            channel.push(request(id, 0, id)).unwrap();
        }
        let error = channel.push(request(65, 0, 65)).unwrap_err();
        assert!(matches!(error, HsmError::Unavailable(_)));
    }
}
