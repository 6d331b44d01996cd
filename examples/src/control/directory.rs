//! The directory of `--store`: one process at a time, and the secret of all keys.

use std::fs::{OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::options::OptionsError;
use crate::secret_file;

/// Takes the directory for this process; another one is refused until this one has ended, however
/// it ends.
pub(super) fn lock(directory: &Path) -> Result<(), OptionsError> {
    let path = directory.join("lock");
    let io_error = |error| OptionsError::Io(path.display().to_string(), error);
    let mut options = OpenOptions::new();
    let file = options.create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = file.map_err(io_error)?;
    match file.try_lock() {
        // Never closed: what still writes while the program ends must not meet another one.  The
        // system takes the lock back with the process, a killed one's too.
        Ok(()) => std::mem::forget(file),
        Err(TryLockError::WouldBlock) => {
            return Err(OptionsError::Locked(directory.display().to_string()));
        }
        Err(TryLockError::Error(error)) => return Err(io_error(error)),
    }
    Ok(())
}

/// The secret of all keys, created at first start.
pub(super) fn read_or_create_secret(directory: &Path) -> Result<[u8; 32], OptionsError> {
    let path = directory.join("hsm_secret");
    let secret = secret_file::read_or_create(&path);
    secret.map_err(|error| OptionsError::Io(path.display().to_string(), error))
}
