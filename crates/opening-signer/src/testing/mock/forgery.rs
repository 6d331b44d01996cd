//! How wrong answers are made.

use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{Secp256k1, SecretKey};
use opening_core::ChannelKeys;

use super::{Restart, State};
use crate::error::{HsmError, HsmResult};
use crate::request::{ChannelRef, ChannelSetup, CommitmentRequest};

/// A signature over the right digest, by a key of nobody's channel.
pub(super) fn by_other_key(request: &CommitmentRequest<'_>) -> Signature {
    let key = SecretKey::from_slice(&[0x42; 32]).expect("a number below the order");
    Secp256k1::signing_only().sign_ecdsa(&request.commitment.sighash(), &key)
}

/// The same signature, with S taken from the curve's order.
pub(super) fn with_high_s(signature: Signature) -> Signature {
    let mut compact = signature.serialize_compact();
    let s = SecretKey::from_slice(&compact[32..]).expect("S of a signature is below the order");
    compact[32..].copy_from_slice(&s.negate().secret_bytes());
    Signature::from_compact(&compact).expect("both halves are below the order")
}

/// The channel's signature for another funding output.
pub(super) async fn over_another_transaction(
    state: &State,
    reference: ChannelRef,
    setup: Option<ChannelSetup>,
    request: &CommitmentRequest<'_>,
) -> HsmResult<Signature> {
    let mut setup = setup.ok_or_else(|| HsmError::InvalidRequest("no setup was told".into()))?;
    setup.parameters.funding_outpoint.vout ^= 1;
    let secp = Secp256k1::new();
    let commitment = setup.parameters.first_commitment(&secp, request.commitment.owner);
    let commitment = commitment.map_err(|error| HsmError::InvalidRequest(error.to_string()))?;
    let channel = state.start(Restart::RolledBack).channel(reference).await?;
    channel.setup(&setup).await?;
    let request = CommitmentRequest::first(&setup.parameters, &commitment);
    channel.sign_counterparty_commitment(&request).await
}

/// The keys of the channel after this one.
pub(super) async fn other_channels_keys(
    state: &State,
    reference: ChannelRef,
) -> HsmResult<ChannelKeys> {
    let other = ChannelRef { dbid: reference.dbid.wrapping_add(1), ..reference };
    state.start(Restart::RolledBack).channel(other).await?.pubkeys().await
}
