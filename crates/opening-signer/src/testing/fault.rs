//! What goes wrong, and when.

use std::collections::HashMap;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails, and nothing was done.
    FailBefore,
    /// It is done, and fails nevertheless.
    FailAfter,
    /// Nothing is done, and no answer comes.
    StallBefore,
    /// It is done, and no answer comes.
    StallAfter,
    /// It is done, this much later by tokio's clock.
    Delay(Duration),
    /// It waits for [`Faults::release`] and is then done as if nothing had happened.
    Hold,
    /// It panics.
    Panic,
}

/// Instead of the number of a call: each of them.
pub const EVERY: u32 = 0;

/// Which calls go wrong, by the method's name and its count from 1.  Clones share plan and counts.
#[derive(Clone, Debug)]
pub struct Faults(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    plan: Mutex<Plan>,
    struck: watch::Sender<bool>,
    released: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Plan {
    faults: HashMap<(&'static str, u32), Fault>,
    schedule: Option<Schedule>,
    calls: HashMap<&'static str, u32>,
}

/// Faults drawn at random.
#[derive(Debug)]
struct Schedule {
    seed: u64,
    one_in: u32,
    faults: Vec<Fault>,
}

impl Schedule {
    /// Depends on nothing but the seed, the method and the number of its call: not on the order in
    /// which calls of different methods come.
    fn draw(&self, method: &str, nth: u32) -> Option<Fault> {
        let begin = self.seed ^ u64::from(nth).rotate_left(32);
        let state = method.bytes().fold(begin, |state, byte| mixed(state ^ u64::from(byte)));
        if !state.is_multiple_of(u64::from(self.one_in)) || self.faults.is_empty() {
            return None;
        }
        let index = mixed(state) % self.faults.len() as u64;
        Some(self.faults[usize::try_from(index).expect("an index of the faults")])
    }
}

/// The next number of the generator SplitMix64 from this state.
const fn mixed(state: u64) -> u64 {
    let z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Faults {
    /// Nothing goes wrong.
    pub fn none() -> Self {
        Self(Arc::new(Shared {
            plan: Mutex::default(),
            struck: watch::Sender::new(false),
            released: watch::Sender::new(false),
        }))
    }

    /// The same, and `fault` at the `nth` call of `method`, or at [`EVERY`] one.
    pub fn at(self, method: &'static str, nth: u32, fault: Fault) -> Self {
        self.plan().faults.insert((method, nth), fault);
        self
    }

    /// The same, and one of `faults` at one in `one_in` calls of any method that nothing else is
    /// planned for.  The same seed gives the same faults at the same calls.
    ///
    /// # Panics
    ///
    /// If `one_in` is 0.
    pub fn at_random(self, seed: u64, one_in: u32, faults: impl Into<Vec<Fault>>) -> Self {
        assert!(one_in > 0, "one in 0 calls");
        self.plan().schedule = Some(Schedule { seed, one_in, faults: faults.into() });
        self
    }

    /// From now on nothing goes wrong; calls that stall go on stalling.
    pub fn repair(&self) {
        let mut plan = self.plan();
        plan.faults.clear();
        plan.schedule = None;
    }

    /// How often `method` has been called.
    pub fn calls(&self, method: &str) -> u32 {
        self.plan().calls.get(method).copied().unwrap_or(0)
    }

    /// Waits until something has gone wrong.
    pub async fn struck(&self) {
        // The sender lives in `self`.
        let _ = self.0.struck.subscribe().wait_for(|struck| *struck).await;
    }

    /// Lets every held call go on, now and later.
    pub fn release(&self) {
        self.0.released.send_replace(true);
    }

    /// Does `act` as call of `method`, or what goes wrong instead.
    pub async fn around<T, E>(
        &self,
        method: &'static str,
        act: impl Future<Output = Result<T, E>>,
        failure: impl FnOnce() -> E,
    ) -> Result<T, E> {
        match self.next(method) {
            None => act.await,
            Some(Fault::FailBefore) => Err(failure()),
            Some(Fault::FailAfter) => act.await.and_then(|_| Err(failure())),
            Some(Fault::StallBefore) => pending().await,
            Some(Fault::StallAfter) => {
                act.await?;
                pending().await
            }
            Some(Fault::Delay(delay)) => {
                sleep(delay).await;
                act.await
            }
            Some(Fault::Hold) => {
                let _ = self.0.released.subscribe().wait_for(|released| *released).await;
                act.await
            }
            Some(Fault::Panic) => panic!("{method} panics on purpose"),
        }
    }

    /// Counts a call.
    fn next(&self, method: &'static str) -> Option<Fault> {
        let mut plan = self.plan();
        let calls = plan.calls.entry(method).or_default();
        *calls += 1;
        let nth = *calls;
        let at = |nth| plan.faults.get(&(method, nth)).copied();
        let drawn = || plan.schedule.as_ref().and_then(|schedule| schedule.draw(method, nth));
        let fault = at(nth).or_else(|| at(EVERY)).or_else(drawn);
        if fault.is_some() {
            self.0.struck.send_replace(true);
        }
        fault
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.0.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
