//! A clock that stops where a test wants to look.

use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

/// The smallest step of tokio's timers.
const TICK: Duration = Duration::from_millis(1);

/// How often other tasks get their turn before they count as waiting for the clock.
const TURNS: usize = 200;

/// An instant with two sides, on a paused clock.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// So far from now.
    pub fn after(duration: Duration) -> Self {
        Self(Instant::now() + duration)
    }

    /// Lets time pass until the deadline is near, and everything happen that is due by then.
    // Tokio rounds a timer up to the next tick.
    pub async fn nearly(self) {
        sleep_until(self.0 - TICK).await;
        settle().await;
    }

    /// Lets the deadline pass, and everything happen that is due by then.
    pub async fn passed(self) {
        sleep_until(self.0 + TICK).await;
        settle().await;
    }
}

/// Lets every task of this thread do what it can do without the clock.
pub async fn settle() {
    for _ in 0..TURNS {
        yield_now().await;
    }
}
