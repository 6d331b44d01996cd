//! A directory that one process at a time works with.

use std::fs::{OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Takes the directory for this process; `false` where another one has it.  That one's end, however
/// it comes, gives it free.
pub fn take(directory: &Path) -> io::Result<bool> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600);
    let file = options.open(directory.join("lock"))?;
    match file.try_lock() {
        // Never closed: what still writes while the program ends must not meet another one.  The
        // system takes the lock back with the process, a killed one's too.
        Ok(()) => std::mem::forget(file),
        Err(TryLockError::WouldBlock) => return Ok(false),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    Ok(true)
}
