//! The mock signer: what goes wrong, when, and what is written down of it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod misdeeds;
#[allow(dead_code, reason = "shared with the tests of signers in this process")]
#[path = "../signer/pair.rs"]
mod pair;
mod schedule;
#[allow(dead_code, reason = "shared with the tests of signers in this process")]
#[path = "../signer/store.rs"]
mod store;
mod transcript;
mod wire;

use std::sync::Arc;

use opening_core::Side;
use opening_signer::testing::{Faults, MockHsm, Transcript};
use opening_signer::{Call, CommitmentRequest, Enforcement, Hsm, HsmResult, LocalHsm};

use crate::pair::{End, Pair, node};

/// The calls to a channel that the tests make.
const CALLS: [Call; 6] = [
    Call::Pubkeys,
    Call::PerCommitmentPoint,
    Call::Setup,
    Call::SignCounterpartyCommitment,
    Call::ValidateHolderCommitment,
    Call::SignHolderCommitment,
];

/// Our signer.
fn local() -> Arc<LocalHsm> {
    Arc::new(LocalHsm::blind(&node(7)))
}

fn mock(faults: Faults) -> MockHsm {
    MockHsm::new(local(), faults).restarting(|_| local())
}

/// A channel that we fund, whose signer is the mock.
struct Funded {
    pair: Pair,
    transcript: Transcript,
}

impl Funded {
    async fn by(mock: MockHsm) -> Self {
        let mut pair = Pair::new(Enforcement::Blind).await;
        let transcript = mock.transcript();
        pair.funder.channel = mock.channel(pair.funder.reference).await.unwrap();
        pair.fundee.channel.setup(&pair.fundee.setup).await.unwrap();
        Self { pair, transcript }
    }

    fn funder(&self) -> &End {
        &self.pair.funder
    }

    /// One call, with the same arguments each time.
    async fn call(&self, call: Call) -> HsmResult<()> {
        let Pair { funder, fundee } = &self.pair;
        match call {
            Call::Channel | Call::ForgetChannel => panic!("no call to a channel"),
            Call::Pubkeys => funder.channel.pubkeys().await.map(drop),
            Call::PerCommitmentPoint => funder.channel.per_commitment_point(0).await.map(drop),
            Call::Setup => funder.channel.setup(&funder.setup).await,
            Call::SignCounterpartyCommitment => {
                funder.sign(&funder.commitment(Side::Remote)).await.map(drop)
            }
            Call::ValidateHolderCommitment => {
                let ours = funder.commitment(Side::Local);
                let theirs = fundee.sign(&fundee.commitment(Side::Remote)).await?;
                let request = CommitmentRequest::first(&funder.setup.parameters, &ours);
                funder.channel.validate_holder_commitment(&request, &theirs).await
            }
            Call::SignHolderCommitment => {
                funder.sign_own(&funder.commitment(Side::Local)).await.map(drop)
            }
        }
    }

    /// All calls before this one.
    async fn up_to(&self, call: Call) {
        for before in CALLS.into_iter().take_while(|before| *before != call) {
            self.call(before).await.unwrap();
        }
    }
}
