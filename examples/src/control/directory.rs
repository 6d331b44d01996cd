//! The directory of `--store`: one process at a time, and the secret of all keys.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use opening_peer::node::{Entropy, SystemEntropy};

use super::options::OptionsError;

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
    let secret = match std::fs::read(&path) {
        Ok(bytes) => bytes
            .try_into()
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "an hsm_secret has 32 bytes")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let secret = SystemEntropy.bytes();
            write_secret(directory, &path, &secret).map(|()| secret)
        }
        Err(error) => Err(error),
    };
    secret.map_err(|error| OptionsError::Io(path.display().to_string(), error))
}

/// For its owner's eyes only, and whole or not at all: written aside, then renamed.  Durable before
/// any key of it is used: without it the channels of the store are lost.
fn write_secret(directory: &Path, path: &Path, secret: &[u8; 32]) -> io::Result<()> {
    let aside = path.with_extension("new");
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
    file.write_all(secret)?;
    file.sync_all()?;
    std::fs::rename(&aside, path)?;
    File::open(directory)?.sync_all()
}
