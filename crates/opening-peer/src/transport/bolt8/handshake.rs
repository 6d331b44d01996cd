//! The three acts of the handshake, without I/O.
//!
//! ```text
//!         initiator                                responder
//!    initiate()                                    WaitForActOne::new()
//!         | ------------- act one (50) ------------> |  WaitForActOne
//!         |  e, es                                   |
//!  WaitForActTwo | <----- act two (50) ------------- |
//!         |                                   e, ee  |
//!         | ------------- act three (66) ----------> |  WaitForActThree
//!         |  s, se                                   |
//!      Ciphers                                    Ciphers and who the peer is
//! ```
//!
//! This is Noise_XK: the initiator knows the responder's node id beforehand, and tells its own, encrypted, in act three.
//! `h` is the handshake's hash and `ck` its chaining key, as BOLT 8 calls them.

use std::fmt;
use std::sync::LazyLock;

use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::secp256k1::constants::PUBLIC_KEY_SIZE;
use bitcoin::secp256k1::ecdh::SharedSecret;
use bitcoin::secp256k1::rand::rngs::OsRng;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey, SignOnly};

use super::cipher::{CipherState, MAC_LENGTH, Secret, decrypt, encrypt, hkdf_two};
use super::error::{Act, HandshakeError};

/// Bytes of act one.
pub const ACT_ONE_LENGTH: usize = 1 + PUBLIC_KEY_SIZE + MAC_LENGTH;
/// Bytes of act two.
pub const ACT_TWO_LENGTH: usize = ACT_ONE_LENGTH;
/// Bytes of act three.
pub const ACT_THREE_LENGTH: usize = 1 + ENCRYPTED_KEY_LENGTH + MAC_LENGTH;

const ENCRYPTED_KEY_LENGTH: usize = PUBLIC_KEY_SIZE + MAC_LENGTH;
const PROTOCOL_NAME: &[u8] = b"Noise_XK_secp256k1_ChaChaPoly_SHA256";
const PROLOGUE: &[u8] = b"lightning";
const VERSION: u8 = 0;

/// Made once, and blinded against side channels.
static CONTEXT: LazyLock<Secp256k1<SignOnly>> = LazyLock::new(Secp256k1::signing_only);

/// The key pair that serves one handshake.  A handshake consumes it, so that none can serve two (B8-HS-B-09).
pub struct EphemeralKey {
    secret: SecretKey,
    public: PublicKey,
}

impl EphemeralKey {
    /// A new one from the operating system's randomness.
    pub fn random() -> Self {
        Self::from_secret(SecretKey::new(&mut OsRng))
    }

    /// A chosen one, so that tests can reproduce the vectors of BOLT 8.
    #[cfg(any(test, feature = "testing"))]
    pub fn fixed(secret: SecretKey) -> Self {
        Self::from_secret(secret)
    }

    fn from_secret(secret: SecretKey) -> Self {
        Self { public: secret.public_key(&CONTEXT), secret }
    }
}

impl Drop for EphemeralKey {
    fn drop(&mut self) {
        self.secret.non_secure_erase();
    }
}

/// The ciphers of both directions: what a finished handshake yields.
pub struct Ciphers {
    pub(super) sending: CipherState,
    pub(super) receiving: CipherState,
}

/// Starts a handshake with the node `their_node_id`: act one, and the state that waits for act two.
pub fn initiate(
    our_node_secret: &SecretKey,
    their_node_id: PublicKey,
    ephemeral: EphemeralKey,
) -> ([u8; ACT_ONE_LENGTH], WaitForActTwo<'_>) {
    let mut symmetric = Symmetric::new(&their_node_id);
    let act_one = symmetric.write_key_act(&ephemeral, &ecdh(&ephemeral.secret, &their_node_id));
    (act_one.bytes, WaitForActTwo { symmetric, our_node_secret, ephemeral })
}

/// The initiator, act one sent.
#[must_use = "the handshake is not finished"]
pub struct WaitForActTwo<'s> {
    symmetric: Symmetric,
    our_node_secret: &'s SecretKey,
    ephemeral: EphemeralKey,
}

impl WaitForActTwo<'_> {
    /// Judges act two.  Act three exists only where it was good (B8-HS-S-04).
    pub fn act_two(
        self,
        act_two: &[u8; ACT_TWO_LENGTH],
    ) -> Result<([u8; ACT_THREE_LENGTH], Ciphers), HandshakeError> {
        let Self { mut symmetric, our_node_secret, ephemeral } = self;
        let (their_ephemeral, temp_k2) =
            symmetric.read_key_act(Act::Two, act_two, |their_ephemeral| {
                ecdh(&ephemeral.secret, their_ephemeral)
            })?;

        let mut act_three = [VERSION; ACT_THREE_LENGTH];
        let (c, t) = act_three[1..].split_at_mut(ENCRYPTED_KEY_LENGTH);
        let (key, mac) = c.split_at_mut(PUBLIC_KEY_SIZE);
        key.copy_from_slice(&our_node_secret.public_key(&CONTEXT).serialize());
        mac.copy_from_slice(&encrypt(&temp_k2, 1, &symmetric.h, key));
        symmetric.mix_hash(c);
        let temp_k3 = symmetric.mix_key(&ecdh(our_node_secret, &their_ephemeral));
        t.copy_from_slice(&encrypt(&temp_k3, 0, &symmetric.h, &mut []));

        let (sending, receiving) = symmetric.split();
        Ok((act_three, Ciphers { sending, receiving }))
    }
}

/// The responder, nothing received yet.
#[must_use = "the handshake is not finished"]
pub struct WaitForActOne<'s> {
    symmetric: Symmetric,
    our_node_secret: &'s SecretKey,
    ephemeral: EphemeralKey,
}

impl<'s> WaitForActOne<'s> {
    /// Starts a handshake with whoever sends act one.
    pub fn new(our_node_secret: &'s SecretKey, ephemeral: EphemeralKey) -> Self {
        let symmetric = Symmetric::new(&our_node_secret.public_key(&CONTEXT));
        Self { symmetric, our_node_secret, ephemeral }
    }

    /// Judges act one.  Act two exists only where it was good (B8-HS-S-02).
    pub fn act_one(
        self,
        act_one: &[u8; ACT_ONE_LENGTH],
    ) -> Result<([u8; ACT_TWO_LENGTH], WaitForActThree), HandshakeError> {
        let Self { mut symmetric, our_node_secret, ephemeral } = self;
        let (their_ephemeral, _) =
            symmetric.read_key_act(Act::One, act_one, |their_ephemeral| {
                ecdh(our_node_secret, their_ephemeral)
            })?;
        let act_two =
            symmetric.write_key_act(&ephemeral, &ecdh(&ephemeral.secret, &their_ephemeral));
        Ok((act_two.bytes, WaitForActThree { symmetric, temp_k2: act_two.temp_k, ephemeral }))
    }
}

/// The responder, act two sent.
#[must_use = "the handshake is not finished"]
pub struct WaitForActThree {
    symmetric: Symmetric,
    temp_k2: Secret,
    ephemeral: EphemeralKey,
}

impl WaitForActThree {
    /// Judges act three.  Who the peer is, is known only here: the key inside is proven by the final tag (B8-HS-R-13).
    pub fn act_three(
        self,
        act_three: &[u8; ACT_THREE_LENGTH],
    ) -> Result<(PublicKey, Ciphers), HandshakeError> {
        let Self { mut symmetric, temp_k2, ephemeral } = self;
        check_version(Act::Three, act_three[0])?;
        let (c, t) = act_three[1..].split_at(ENCRYPTED_KEY_LENGTH);

        let mut static_key: [u8; ENCRYPTED_KEY_LENGTH] =
            c.try_into().expect("split at this length");
        let static_key = decrypt(&temp_k2, 1, &symmetric.h, &mut static_key)
            .map_err(|_| HandshakeError::BadCiphertext)?;
        let their_node_id = PublicKey::from_slice(static_key)
            .map_err(|_| HandshakeError::BadPublicKey(Act::Three))?;
        symmetric.mix_hash(c);

        let temp_k3 = symmetric.mix_key(&ecdh(&ephemeral.secret, &their_node_id));
        check_tag(Act::Three, &temp_k3, &symmetric.h, t)?;

        let (receiving, sending) = symmetric.split();
        Ok((their_node_id, Ciphers { sending, receiving }))
    }
}

/// What both sides build up in step: Noise's symmetric state.
struct Symmetric {
    /// Hash of all that crossed the wire: the associated data of every encryption.
    h: [u8; 32],
    /// Chaining key.
    ck: Secret,
}

/// An act of a bare key, and the key which its tag was made with.
struct KeyAct {
    bytes: [u8; ACT_ONE_LENGTH],
    temp_k: Secret,
}

impl Symmetric {
    fn new(responder_node_id: &PublicKey) -> Self {
        let ck = sha256::Hash::hash(PROTOCOL_NAME).to_byte_array();
        let mut symmetric = Self { h: ck, ck: Secret::new(ck) };
        symmetric.mix_hash(PROLOGUE);
        symmetric.mix_hash(&responder_node_id.serialize());
        symmetric
    }

    fn mix_hash(&mut self, data: &[u8]) {
        let mut engine = sha256::Hash::engine();
        engine.input(&self.h);
        engine.input(data);
        self.h = sha256::Hash::from_engine(engine).to_byte_array();
    }

    /// Takes in a shared secret; returns the `temp_k` that comes with it.
    fn mix_key(&mut self, shared_secret: &Secret) -> Secret {
        let (ck, temp_k) = hkdf_two(&self.ck, shared_secret.as_ref());
        self.ck = ck;
        temp_k
    }

    /// Acts one and two, sender: our ephemeral key and a tag that proves `shared_secret`.
    fn write_key_act(&mut self, ephemeral: &EphemeralKey, shared_secret: &Secret) -> KeyAct {
        let mut bytes = [VERSION; ACT_ONE_LENGTH];
        let (key, tag) = bytes[1..].split_at_mut(PUBLIC_KEY_SIZE);
        key.copy_from_slice(&ephemeral.public.serialize());
        self.mix_hash(key);
        let temp_k = self.mix_key(shared_secret);
        tag.copy_from_slice(&encrypt(&temp_k, 0, &self.h, &mut []));
        self.mix_hash(tag);
        KeyAct { bytes, temp_k }
    }

    /// Acts one and two, receiver: their ephemeral key, and the `temp_k` which its tag was checked with.
    fn read_key_act(
        &mut self,
        act: Act,
        bytes: &[u8; ACT_ONE_LENGTH],
        shared_secret: impl FnOnce(&PublicKey) -> Secret,
    ) -> Result<(PublicKey, Secret), HandshakeError> {
        check_version(act, bytes[0])?;
        let (key, tag) = bytes[1..].split_at(PUBLIC_KEY_SIZE);
        let their_ephemeral =
            PublicKey::from_slice(key).map_err(|_| HandshakeError::BadPublicKey(act))?;
        self.mix_hash(key);
        let temp_k = self.mix_key(&shared_secret(&their_ephemeral));
        check_tag(act, &temp_k, &self.h, tag)?;
        self.mix_hash(tag);
        Ok((their_ephemeral, temp_k))
    }

    /// The ciphers of both directions: initiator to responder, then the reverse (B8-HS-B-14).
    fn split(self) -> (CipherState, CipherState) {
        let (from_initiator, from_responder) = hkdf_two(&self.ck, &[]);
        (
            CipherState::new(from_initiator, self.ck.clone()),
            CipherState::new(from_responder, self.ck),
        )
    }
}

fn check_version(act: Act, version: u8) -> Result<(), HandshakeError> {
    if version == VERSION { Ok(()) } else { Err(HandshakeError::BadVersion { act, version }) }
}

fn check_tag(act: Act, temp_k: &Secret, h: &[u8; 32], tag: &[u8]) -> Result<(), HandshakeError> {
    let mut tag: [u8; MAC_LENGTH] = tag.try_into().expect("acts end in a tag of this length");
    decrypt(temp_k, 0, h, &mut tag).map(drop).map_err(|_| HandshakeError::BadTag(act))
}

/// SHA-256 of the compressed shared point (B8-HS-B-10), which is libsecp256k1's own choice of hash.
fn ecdh(secret: &SecretKey, point: &PublicKey) -> Secret {
    let mut shared = SharedSecret::new(point, secret);
    let bytes = Secret::new(shared.secret_bytes());
    shared.non_secure_erase();
    bytes
}

// Secrets inside: the name is all that may be printed.
impl fmt::Debug for Ciphers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ciphers")
    }
}

impl fmt::Debug for WaitForActThree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WaitForActThree")
    }
}

#[cfg(test)]
mod tests;
