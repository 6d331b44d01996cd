//! One direction of a BOLT 8 connection: a key, its nonce, and the key after it.

use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{ChaCha20Poly1305, Key, KeyInit, Nonce, Tag};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

/// Bytes of the authentication tag behind every ciphertext.
pub(in crate::transport) const MAC_LENGTH: usize = 16;

/// Operations that one key serves: 500 messages of two (B8-TR-B-05).
const OPERATIONS_PER_KEY: u64 = 1000;

/// A secret that is wiped when dropped.  It has no `Debug` output of its own anywhere in this module.
pub(super) type Secret = Zeroizing<[u8; 32]>;

/// The MAC does not fit: another key, another nonce, or altered bytes.
#[derive(Debug)]
pub(in crate::transport) struct BadMac;

/// The state of one direction.
// Neither `Clone` nor `Debug`: a copy would use a nonce twice, a print would leak the key.
pub(in crate::transport) struct CipherState {
    key: Secret,
    chaining_key: Secret,
    /// Operations done with `key`; even between two messages.
    nonce: u64,
}

impl CipherState {
    /// The state right after the handshake.
    pub(super) fn new(key: Secret, chaining_key: Secret) -> Self {
        Self { key, chaining_key, nonce: 0 }
    }

    /// Key, chaining key and nonce, to be held against the vectors.
    #[cfg(test)]
    pub(super) fn parts(&self) -> (&Secret, &Secret, u64) {
        (&self.key, &self.chaining_key, self.nonce)
    }

    /// Encrypts `text` where it lies and returns its MAC.
    pub(in crate::transport) fn encrypt(&mut self, text: &mut [u8]) -> [u8; MAC_LENGTH] {
        let nonce = self.next_nonce();
        encrypt(&self.key, nonce, &[], text)
    }

    /// Decrypts where it lies what is followed by its MAC, and returns the text alone.
    pub(in crate::transport) fn decrypt<'b>(
        &mut self,
        ciphertext: &'b mut [u8],
    ) -> Result<&'b mut [u8], BadMac> {
        let nonce = self.next_nonce();
        decrypt(&self.key, nonce, &[], ciphertext)
    }

    /// The nonce for one operation; the key changes first where its thousand are used up.
    fn next_nonce(&mut self) -> u64 {
        if self.nonce == OPERATIONS_PER_KEY {
            (self.chaining_key, self.key) = hkdf_two(&self.chaining_key, &*self.key);
            self.nonce = 0;
        }
        let nonce = self.nonce;
        self.nonce += 1;
        nonce
    }
}

/// HKDF of RFC 5869 with SHA-256 and no info; 64 bytes, read as two secrets (B8-HS-B-11).
pub(super) fn hkdf_two(salt: &[u8; 32], input: &[u8]) -> (Secret, Secret) {
    let mut output = Zeroizing::new([0; 64]);
    Hkdf::<Sha256>::new(Some(salt), input)
        .expand(&[], output.as_mut())
        .expect("64 bytes are less than the 255 hashes that HKDF can give");
    let (mut first, mut second) = (Secret::default(), Secret::default());
    first.copy_from_slice(&output[..32]);
    second.copy_from_slice(&output[32..]);
    (first, second)
}

/// ChaCha20-Poly1305 of RFC 8439 in place; returns the MAC.
pub(super) fn encrypt(
    key: &Secret,
    counter: u64,
    associated_data: &[u8],
    text: &mut [u8],
) -> [u8; MAC_LENGTH] {
    ChaCha20Poly1305::new(Key::from_slice(key.as_ref()))
        .encrypt_in_place_detached(&nonce_bytes(counter), associated_data, text)
        .expect("the cipher takes 256 GiB, far beyond any message")
        .into()
}

/// The reverse of [`encrypt`]; `ciphertext` ends in its MAC.
pub(super) fn decrypt<'b>(
    key: &Secret,
    counter: u64,
    associated_data: &[u8],
    ciphertext: &'b mut [u8],
) -> Result<&'b mut [u8], BadMac> {
    let length = ciphertext.len().checked_sub(MAC_LENGTH).ok_or(BadMac)?;
    let (text, mac) = ciphertext.split_at_mut(length);
    ChaCha20Poly1305::new(Key::from_slice(key.as_ref()))
        .decrypt_in_place_detached(
            &nonce_bytes(counter),
            associated_data,
            text,
            Tag::from_slice(mac),
        )
        .map_err(|_| BadMac)?;
    Ok(text)
}

/// Four zero bytes, then the counter: the only little-endian number of the protocol (B8-HS-B-12).
fn nonce_bytes(counter: u64) -> Nonce {
    let mut nonce = Nonce::default();
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}

#[cfg(test)]
mod tests;
