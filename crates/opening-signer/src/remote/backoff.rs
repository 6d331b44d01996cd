//! Pauses between attempts to reach a signer.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(5);

/// The pauses double up to a longest one, so that a signer that starts is found soon and one that
/// is gone for the night is not hammered.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(super) const fn new() -> Self {
        Self { next: FIRST }
    }

    /// How long to wait before the next attempt.
    pub(super) fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = LONGEST.min(pause * 2);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut backoff = Backoff::new();
        let milliseconds: Vec<_> = (0..9).map(|_| backoff.next().as_millis()).collect();
        assert_eq!(milliseconds, [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    }
}
