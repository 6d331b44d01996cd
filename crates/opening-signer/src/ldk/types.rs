//! A channel and its commitments in the types of LDK.

use bitcoin::Amount;
use bitcoin::secp256k1::{All, PublicKey, Secp256k1};
use lightning::chain::transaction::OutPoint;
use lightning::ln::chan_utils::{
    ChannelPublicKeys, ChannelTransactionParameters, CommitmentTransaction,
    CounterpartyChannelTransactionParameters,
};
use lightning::ln::channel_keys::{DelayedPaymentBasepoint, HtlcBasepoint, RevocationBasepoint};
use opening_core::commitment::MAX_COMMITMENT_NUMBER;
use opening_core::{ChannelKeys, ChannelParameters, Commitment, Side};

/// One side's public keys.
pub fn channel_public_keys(keys: &ChannelKeys) -> ChannelPublicKeys {
    ChannelPublicKeys {
        funding_pubkey: keys.funding_pubkey,
        revocation_basepoint: RevocationBasepoint(keys.revocation_basepoint),
        payment_point: keys.payment_basepoint,
        delayed_payment_basepoint: DelayedPaymentBasepoint(keys.delayed_payment_basepoint),
        htlc_basepoint: HtlcBasepoint(keys.htlc_basepoint),
    }
}

/// What LDK's signers and transaction builders take; `None` where the funding output's index is
/// beyond 65,535, for which no channel has an id (B2-CID-B-01).
pub fn channel_transaction_parameters(
    parameters: &ChannelParameters,
) -> Option<ChannelTransactionParameters> {
    let (local, remote) = (&parameters.local, &parameters.remote);
    let outpoint = parameters.funding_outpoint;
    let index = u16::try_from(outpoint.vout).ok()?;
    Some(ChannelTransactionParameters {
        holder_pubkeys: channel_public_keys(&local.keys),
        holder_selected_contest_delay: local.config.to_self_delay,
        is_outbound_from_holder: parameters.opener == Side::Local,
        counterparty_parameters: Some(CounterpartyChannelTransactionParameters {
            pubkeys: channel_public_keys(&remote.keys),
            selected_contest_delay: remote.config.to_self_delay,
        }),
        funding_outpoint: Some(OutPoint { txid: outpoint.txid, index }),
        splice_parent_funding_txid: None,
        channel_type_features: parameters.channel_type.to_features(),
        channel_value_satoshis: parameters.funding_satoshis.to_sat(),
    })
}

/// The commitment as LDK builds it again, at the channel's feerate.  `parameters` are those of
/// [`channel_transaction_parameters`], `commitment` is within [`MAX_COMMITMENT_NUMBER`].
pub fn commitment_transaction(
    secp: &Secp256k1<All>,
    commitment: &Commitment,
    per_commitment_point: &PublicKey,
    feerate_per_kw: u32,
    parameters: &ChannelTransactionParameters,
) -> CommitmentTransaction {
    let directed = match commitment.owner {
        Side::Local => parameters.as_holder_broadcastable(),
        Side::Remote => parameters.as_counterparty_broadcastable(),
    };
    // LDK does not trim: a trimmed output is told as 0.  Its numbers count down.
    let value = |index: Option<usize>| {
        let output = index.and_then(|index| commitment.transaction.output.get(index));
        output.map_or(Amount::ZERO, |output| output.value).to_sat()
    };
    CommitmentTransaction::new(
        MAX_COMMITMENT_NUMBER - commitment.number,
        per_commitment_point,
        value(commitment.to_local),
        value(commitment.to_remote),
        feerate_per_kw,
        Vec::new(),
        &directed,
        secp,
    )
}
