//! How loudly the log says that an attempt has failed.

use log::Level;

/// The reason of the attempt before.  Who waits for hours reads each reason once, when it comes.
#[derive(Debug, Default)]
pub(super) struct Reasons {
    last: Option<String>,
}

impl Reasons {
    /// A warning, or for the same reason as before no more than a detail.
    pub(super) fn level(&mut self, reason: &str) -> Level {
        if self.last.as_deref() == Some(reason) {
            return Level::Debug;
        }
        self.last = Some(reason.into());
        Level::Warn
    }

    /// There is a connection: what ends it is news again.
    pub(super) fn reset(&mut self) {
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_a_warning_once_in_a_row() {
        let mut reasons = Reasons::default();
        let levels = ["a", "a", "b", "b", "a"].map(|reason| reasons.level(reason));
        let (warn, debug) = (Level::Warn, Level::Debug);
        assert_eq!(levels, [warn, debug, warn, debug, warn]);
        reasons.reset();
        assert_eq!(reasons.level("a"), warn);
    }
}
