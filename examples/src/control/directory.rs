//! The directory of `--store`: one process at a time, and the secret of all keys.

use std::path::Path;

use zeroize::Zeroizing;

use super::options::OptionsError;
use crate::{lock, secret_file};

/// Takes the directory for this process; another one is refused until this one has ended, however
/// it ends.
pub(super) fn lock(directory: &Path) -> Result<(), OptionsError> {
    match lock::take(directory) {
        Ok(true) => Ok(()),
        Ok(false) => Err(OptionsError::Locked(directory.display().to_string())),
        Err(error) => Err(OptionsError::Io(directory.display().to_string(), error)),
    }
}

/// The secret of all keys, created at first start.
pub(super) fn read_or_create_secret(directory: &Path) -> Result<Zeroizing<[u8; 32]>, OptionsError> {
    let path = directory.join("hsm_secret");
    let secret = secret_file::read_or_create(&path);
    secret.map_err(|error| OptionsError::Io(path.display().to_string(), error))
}
