//! The file of the secret from which all keys follow, in the form of Core Lightning's `hsm_secret`:
//! 32 bytes and nothing else.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use opening_peer::node::{Entropy, SystemEntropy};

/// Reads it, or creates it with a new secret.
///
/// Fails where others than its owner may read it, and where it is no secret of this form: Core
/// Lightning's encrypted ones and those of words are longer.
pub fn read_or_create(path: &Path) -> io::Result<[u8; 32]> {
    match File::open(path) {
        Ok(file) => read(file),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let secret = SystemEntropy.bytes();
            write(path, &secret).map(|()| secret)
        }
        Err(error) => Err(error),
    }
}

fn read(file: File) -> io::Result<[u8; 32]> {
    let mode = file.metadata()?.mode() & 0o777;
    if mode & 0o077 != 0 {
        let reason = format!("a secret that others may read (mode {mode:04o}): chmod 600");
        return Err(io::Error::new(ErrorKind::PermissionDenied, reason));
    }
    let mut bytes = Vec::with_capacity(33);
    // One byte more shows a longer file, whatever it is.
    file.take(33).read_to_end(&mut bytes)?;
    let no_secret = |_| io::Error::new(ErrorKind::InvalidData, "an hsm_secret has 32 bytes");
    bytes.try_into().map_err(no_secret)
}

/// For its owner's eyes only, and whole or not at all: written aside, then renamed.  Durable before
/// any key of it is used: without it the channels of the store are lost.
fn write(path: &Path, secret: &[u8; 32]) -> io::Result<()> {
    let aside = path.with_extension("new");
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
    file.write_all(secret)?;
    file.sync_all()?;
    std::fs::rename(&aside, path)?;
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(directory)?.sync_all()
}
