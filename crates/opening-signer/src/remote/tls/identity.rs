//! The key by which the other side knows us.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::str::FromStr;

use bitcoin::hashes::{Hash, sha256};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use super::NAME;

/// Bytes.  A key of any kind is shorter.
const MAX_FILE: u64 = 16 * 1024;

/// The SHA-256 hash of a public key (SubjectPublicKeyInfo, DER), in hex: what one operator gives
/// to the other.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    pub(super) fn of(public_key: &[u8]) -> Self {
        Self(sha256::Hash::hash(public_key).to_byte_array())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not 64 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint has 64 hex digits")]
pub struct NotAFingerprint;

impl FromStr for Fingerprint {
    type Err = NotAFingerprint;

    fn from_str(text: &str) -> Result<Self, NotAFingerprint> {
        // sha256::Hash keeps its bytes in the order of the text.
        text.parse::<sha256::Hash>()
            .map(|hash| Self(hash.to_byte_array()))
            .map_err(|_| NotAFingerprint)
    }
}

/// A key, and a certificate around it that says nothing else.
pub struct Identity {
    certificate: CertificateDer<'static>,
    /// PKCS#8.
    key: Zeroizing<Vec<u8>>,
    fingerprint: Fingerprint,
}

impl Identity {
    /// The key in the file at `path`, which is created with a new one where it is missing.
    ///
    /// The file must belong to us and be closed to everyone else (0600).
    pub fn load_or_create(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let created = options.write(true).create_new(true).mode(0o600).open(path);
        match created {
            Ok(file) => create(file).inspect_err(|_| {
                // Half a key would be taken for a broken one at the next start.
                drop(std::fs::remove_file(path));
            }),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => load(path),
            Err(error) => Err(error),
        }
        .map_err(|error| {
            io::Error::new(error.kind(), format!("the TLS key {}: {error}", path.display()))
        })
    }

    /// For the other side's operator.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    fn new(key: &KeyPair) -> io::Result<Self> {
        let certificate = CertificateParams::new(vec![NAME.into()])
            .and_then(|parameters| parameters.self_signed(key))
            .map_err(io::Error::other)?;
        Ok(Self {
            certificate: certificate.der().clone(),
            key: Zeroizing::new(key.serialize_der()),
            fingerprint: Fingerprint::of(&key.public_key_der()),
        })
    }

    pub(super) fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    pub(super) fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.to_vec()))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

fn create(mut file: File) -> io::Result<Identity> {
    let key = KeyPair::generate().map_err(io::Error::other)?;
    file.write_all(Zeroizing::new(key.serialize_pem()).as_bytes())?;
    file.sync_all()?;
    Identity::new(&key)
}

fn load(path: &Path) -> io::Result<Identity> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let us = rustix::process::geteuid().as_raw();
    if metadata.uid() != us {
        let reason = format!("belongs to user {}, and we run as {us}", metadata.uid());
        return Err(io::Error::new(ErrorKind::PermissionDenied, reason));
    }
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        let reason = format!("has mode {mode:04o}: run `chmod 600`");
        return Err(io::Error::new(ErrorKind::PermissionDenied, reason));
    }
    let mut text = Zeroizing::new(String::with_capacity(4096));
    file.take(MAX_FILE).read_to_string(&mut text)?;
    // The reason of the parser could hold what it read.
    let key = KeyPair::from_pem(&text)
        .map_err(|_| io::Error::new(ErrorKind::InvalidData, "is not a private key in PEM"))?;
    Identity::new(&key)
}
