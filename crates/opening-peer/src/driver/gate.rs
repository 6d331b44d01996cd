//! The point of no return: before the save anything may end an opening, after it nothing does.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::failure::Failure;

const OPEN: u8 = 0;
const SAVING: u8 = 1;
const ENDED: u8 = 2;

/// Decides, once, whether an opening is saved or ended: the session may end it while its driver
/// is at work.
#[derive(Debug, Default)]
pub(crate) struct Gate(AtomicU8);

impl Gate {
    /// The driver is about to save.  Refused where the opening has been ended meanwhile; whoever
    /// ended it has told everyone, so that the failure given here goes nowhere.
    pub(crate) fn begin_save(&self) -> Result<(), Failure> {
        self.turn(SAVING).map_err(|()| Failure::Cancelled)
    }

    /// The opening is over.  `false` once the save has begun: then it is not.
    pub(crate) fn end(&self) -> bool {
        self.turn(ENDED).is_ok()
    }

    /// Whether the save has begun.
    pub(crate) fn is_saving(&self) -> bool {
        self.0.load(Ordering::Acquire) == SAVING
    }

    fn turn(&self, to: u8) -> Result<(), ()> {
        self.0
            .compare_exchange(OPEN, to, Ordering::AcqRel, Ordering::Acquire)
            .map(drop)
            .map_err(drop)
    }
}
