//! An opened channel in the types of LDK, for a node that goes on with its parts.

use lightning::ln::chan_utils::{ChannelTransactionParameters, HolderCommitmentTransaction};
use opening_signer::ldk;

use crate::negotiation::{Opened, secp};

impl Opened {
    /// What LDK's signers and transaction builders take.
    pub fn channel_transaction_parameters(&self) -> ChannelTransactionParameters {
        ldk::channel_transaction_parameters(&self.parameters)
            .expect("an opened channel has a channel_id, which takes a small index")
    }

    /// Our first commitment with the peer's signature, ready for LDK's monitor.
    pub fn holder_commitment_transaction(&self) -> HolderCommitmentTransaction {
        let parameters = self.channel_transaction_parameters();
        let (local, remote) = (&self.parameters.local, &self.parameters.remote);
        let transaction = ldk::commitment_transaction(
            secp(),
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
