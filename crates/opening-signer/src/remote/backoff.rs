//! How long to wait before connecting again.

use std::time::Duration;

/// After the first failure.
const FIRST: Duration = Duration::from_millis(100);
/// A signer that comes back after a night is found within this time.
const LONGEST: Duration = Duration::from_secs(5);
/// A connection that lasts so long is no failure: the pauses start over.
const LASTING: Duration = Duration::from_secs(5);

/// Pauses between attempts: each is twice the one before, up to a cap.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(super) const fn new() -> Self {
        Self { next: FIRST }
    }

    /// The pause before the next attempt.
    pub(super) fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = LONGEST.min(pause * 2);
        pause
    }

    /// A connection that was made has lasted so long.
    pub(super) fn ended_after(&mut self, lasted: Duration) {
        if lasted >= LASTING {
            self.reset();
        }
    }

    /// The other side is there again.
    pub(super) fn reset(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_cap_and_start_over_after_success() {
        let mut backoff = Backoff::new();
        let pauses: Vec<u128> = (0..8).map(|_| backoff.next().as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        backoff.reset();
        assert_eq!(backoff.next(), FIRST);
    }

    #[test]
    fn pauses_start_over_after_a_connection_that_lasted() {
        let mut backoff = Backoff::new();
        let ends = [0, 4999, 5000].map(|lasted| {
            backoff.ended_after(Duration::from_millis(lasted));
            backoff.next().as_millis()
        });
        assert_eq!(ends, [100, 200, 100]);
    }
}
