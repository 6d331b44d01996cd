//! An opened channel in the types of LDK, for a node that goes on with its parts.

use bitcoin::Amount;
use bitcoin::secp256k1::PublicKey;
use lightning::chain::transaction::OutPoint;
use lightning::ln::chan_utils::{
    ChannelPublicKeys, ChannelTransactionParameters, CommitmentTransaction,
    CounterpartyChannelTransactionParameters, HolderCommitmentTransaction,
};
use lightning::ln::channel_keys::{DelayedPaymentBasepoint, HtlcBasepoint, RevocationBasepoint};
use opening_core::commitment::MAX_COMMITMENT_NUMBER;
use opening_core::{ChannelKeys, Commitment, Side};

use crate::negotiation::{Opened, secp};

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

impl Opened {
    /// What LDK's signers and transaction builders take.
    pub fn channel_transaction_parameters(&self) -> ChannelTransactionParameters {
        let parameters = &self.parameters;
        let (local, remote) = (&parameters.local, &parameters.remote);
        ChannelTransactionParameters {
            holder_pubkeys: channel_public_keys(&local.keys),
            holder_selected_contest_delay: local.config.to_self_delay,
            is_outbound_from_holder: parameters.opener == Side::Local,
            counterparty_parameters: Some(CounterpartyChannelTransactionParameters {
                pubkeys: channel_public_keys(&remote.keys),
                selected_contest_delay: remote.config.to_self_delay,
            }),
            funding_outpoint: Some(OutPoint {
                txid: parameters.funding_outpoint.txid,
                index: u16::try_from(parameters.funding_outpoint.vout)
                    .expect("an opened channel has a channel_id"),
            }),
            splice_parent_funding_txid: None,
            channel_type_features: parameters.channel_type.to_features(),
            channel_value_satoshis: parameters.funding_satoshis.to_sat(),
        }
    }

    /// Our first commitment with the peer's signature, ready for LDK's monitor.
    pub fn holder_commitment_transaction(&self) -> HolderCommitmentTransaction {
        let parameters = self.channel_transaction_parameters();
        let (local, remote) = (&self.parameters.local, &self.parameters.remote);
        let transaction = commitment_transaction(
            &self.local_commitment,
            &local.first_per_commitment_point,
            self.parameters.feerate_per_kw.to_sat_per_kw(),
            &parameters,
        );
        HolderCommitmentTransaction::new(
            transaction,
            self.remote_signature,
            Vec::new(),
            &local.keys.funding_pubkey,
            &remote.keys.funding_pubkey,
        )
    }
}

fn commitment_transaction(
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
        let output = index.map(|index| &commitment.transaction.output[index]);
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
        secp(),
    )
}
