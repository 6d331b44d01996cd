//! Public keys of a channel and what BOLT 3 derives from them.
//!
//! The derivations of secrets stand beside those of the keys, so that a signer and the
//! transaction builder read from one page.  Secrets are returned plain: whoever calls guards and
//! erases them.

use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::secp256k1::{self, PublicKey, Scalar, Secp256k1, SecretKey};

/// The keys that one side announces in `open_channel` or `accept_channel`.
#[derive(Clone, Copy, Debug, Eq)]
pub struct ChannelKeys {
    /// One of the two keys of the funding output.
    pub funding_pubkey: PublicKey,
    /// Base of the key with which this side punishes an old commitment of the other.
    pub revocation_basepoint: PublicKey,
    /// Receives this side's `to_remote` output, untweaked.
    pub payment_basepoint: PublicKey,
    /// Base of the key that receives this side's own `to_local` output.
    pub delayed_payment_basepoint: PublicKey,
    /// Base of this side's HTLC keys; no first commitment uses it.
    pub htlc_basepoint: PublicKey,
}

impl PartialEq for ChannelKeys {
    fn eq(&self, other: &Self) -> bool {
        let Self {
            funding_pubkey,
            revocation_basepoint,
            payment_basepoint,
            delayed_payment_basepoint,
            htlc_basepoint,
        } = self;
        is_same(funding_pubkey, &other.funding_pubkey)
            && is_same(revocation_basepoint, &other.revocation_basepoint)
            && is_same(payment_basepoint, &other.payment_basepoint)
            && is_same(delayed_payment_basepoint, &other.delayed_payment_basepoint)
            && is_same(htlc_basepoint, &other.htlc_basepoint)
    }
}

/// Equality of keys that are nearly always equal.  The derived one serializes both: signers compare
/// whole setups for each call.
pub(crate) fn is_same(one: &PublicKey, other: &PublicKey) -> bool {
    // Unequal bytes in memory say nothing for sure.
    one.eq_fast_unstable(other) || one == other
}

/// Fails for a hash beyond the curve order, about one in 2^128.
fn hash_of_points(first: &PublicKey, second: &PublicKey) -> Result<Scalar, secp256k1::Error> {
    let mut engine = sha256::Hash::engine();
    engine.input(&first.serialize());
    engine.input(&second.serialize());
    let hash = sha256::Hash::from_engine(engine).to_byte_array();
    Scalar::from_be_bytes(hash).map_err(|_| secp256k1::Error::InvalidTweak)
}

/// `basepoint + SHA256(per_commitment_point ‖ basepoint) × G` (B3-KEY-B-01).
///
/// Fails only where the hash is no scalar or the sum is the point at infinity; nobody knows how to
/// reach either.
pub fn derive_public_key<C: secp256k1::Verification>(
    secp: &Secp256k1<C>,
    basepoint: &PublicKey,
    per_commitment_point: &PublicKey,
) -> Result<PublicKey, secp256k1::Error> {
    basepoint.add_exp_tweak(secp, &hash_of_points(per_commitment_point, basepoint)?)
}

/// `basepoint_secret + SHA256(per_commitment_point ‖ basepoint)` (B3-KEY-B-04).
pub fn derive_secret_key<C: secp256k1::Signing>(
    secp: &Secp256k1<C>,
    basepoint_secret: &SecretKey,
    per_commitment_point: &PublicKey,
) -> Result<SecretKey, secp256k1::Error> {
    let basepoint = basepoint_secret.public_key(secp);
    basepoint_secret.add_tweak(&hash_of_points(per_commitment_point, &basepoint)?)
}

/// The key that takes a commitment's `to_local` once its secret is known (B3-KEY-B-07):
/// the basepoint of the side that does *not* own the commitment, the point of the one that does.
pub fn derive_revocation_public_key<C: secp256k1::Verification>(
    secp: &Secp256k1<C>,
    revocation_basepoint: &PublicKey,
    per_commitment_point: &PublicKey,
) -> Result<PublicKey, secp256k1::Error> {
    let base_tweak = hash_of_points(revocation_basepoint, per_commitment_point)?;
    let point_tweak = hash_of_points(per_commitment_point, revocation_basepoint)?;
    let base_part = revocation_basepoint.mul_tweak(secp, &base_tweak)?;
    let point_part = per_commitment_point.mul_tweak(secp, &point_tweak)?;
    base_part.combine(&point_part)
}

/// The secret of [`derive_revocation_public_key`] (B3-KEY-B-08).
pub fn derive_revocation_secret_key<C: secp256k1::Signing>(
    secp: &Secp256k1<C>,
    revocation_basepoint_secret: &SecretKey,
    per_commitment_secret: &SecretKey,
) -> Result<SecretKey, secp256k1::Error> {
    let revocation_basepoint = revocation_basepoint_secret.public_key(secp);
    let per_commitment_point = per_commitment_secret.public_key(secp);
    let base_tweak = hash_of_points(&revocation_basepoint, &per_commitment_point)?;
    let point_tweak = hash_of_points(&per_commitment_point, &revocation_basepoint)?;
    let base_part = revocation_basepoint_secret.mul_tweak(&base_tweak)?;
    let point_part = per_commitment_secret.mul_tweak(&point_tweak)?;
    base_part.add_tweak(&Scalar::from(point_part))
}
