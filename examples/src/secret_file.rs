//! The file of the secret from which all keys follow, in the form of Core Lightning's `hsm_secret`:
//! 32 bytes and nothing else.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use opening_peer::node::{Entropy, SystemEntropy};
use zeroize::Zeroizing;

/// Reads it, or creates it with a new secret.
///
/// Fails where others than its owner may read it, and where it is no secret of this form: Core
/// Lightning's encrypted ones and those of words are longer.
pub fn read_or_create(path: &Path) -> io::Result<Zeroizing<[u8; 32]>> {
    loop {
        match File::open(path) {
            Ok(file) => return read(file),
            Err(error) if error.kind() == ErrorKind::NotFound => create(path)?,
            Err(error) => return Err(error),
        }
    }
}

fn read(file: File) -> io::Result<Zeroizing<[u8; 32]>> {
    let mode = file.metadata()?.mode() & 0o777;
    if mode & 0o077 != 0 {
        let reason = format!("a secret that others may read (mode {mode:04o}): chmod 600");
        return Err(io::Error::new(ErrorKind::PermissionDenied, reason));
    }
    // One byte more shows a longer file, whatever it is.
    let mut bytes = Zeroizing::new([0; 33]);
    let mut length = 0;
    let mut file = file;
    loop {
        match file.read(&mut bytes[length..])? {
            0 => break,
            read => length += read,
        }
    }
    if length != 32 {
        return Err(io::Error::new(ErrorKind::InvalidData, "an hsm_secret has 32 bytes"));
    }
    let mut secret = Zeroizing::new([0; 32]);
    secret.copy_from_slice(&bytes[..32]);
    Ok(secret)
}

/// For its owner's eyes only, and whole or not at all: written aside, then linked to its name, which
/// fails where another process was first.  Durable before any key of it is used: without it the
/// channels of the store are lost.
fn create(path: &Path) -> io::Result<()> {
    let secret = Zeroizing::new(SystemEntropy.bytes());
    let aside = path.with_extension(format!("new-{}", std::process::id()));
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
    file.write_all(secret.as_slice())?;
    file.sync_all()?;
    let linked = std::fs::hard_link(&aside, path);
    std::fs::remove_file(&aside)?;
    match linked {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(directory)?.sync_all()
}
