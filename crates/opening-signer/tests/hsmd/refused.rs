//! An hsmd that closes the connection over a signature: it has not signed, or it has and ended.

use std::collections::VecDeque;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use bitcoin::secp256k1::Secp256k1;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::{Amount, Network};
use opening_core::{ChannelParameters, Commitment, Side};
use opening_signer::remote::{HsmdConfig, HsmdHsm};
use opening_signer::{
    ChannelHsm, ChannelRef, CommitmentRequest, Enforcement, Hsm, HsmResult, LocalHsm,
};

use crate::pair::{node, node_id, party, reason, setup};
use crate::recorded::{FUNDER, read};
use crate::scripted::{START_UP, Wire, kind, reply};

/// What it does when it is asked for a signature.
#[derive(Clone, Copy)]
enum Does {
    Closes,
    Signs,
}

/// What it is going to do, and how often it was asked for a signature.
struct Script {
    plan: VecDeque<Does>,
    asked: usize,
}

fn serve(mut wire: Wire, script: &Arc<Mutex<Script>>) {
    while let Some(request) = wire.read() {
        match kind(&request) {
            11 => wire.write(&reply(START_UP, 114)),
            9 => {
                wire.write(&reply(FUNDER, 109));
                let (channel, script) = (wire.pass(), script.clone());
                std::thread::spawn(move || serve(channel, &script));
            }
            19 => {
                let does = {
                    let mut script = script.lock().unwrap();
                    script.asked += 1;
                    script.plan.pop_front().unwrap()
                };
                match does {
                    Does::Closes => return,
                    Does::Signs => wire.write(&reply(FUNDER, 112)),
                }
            }
            other => wire.write(&reply(FUNDER, other + 100)),
        }
    }
}

/// A channel that is set up, as it was recorded.
struct Channel {
    _hsm: HsmdHsm,
    channel: Arc<dyn ChannelHsm>,
    parameters: ChannelParameters,
    script: Arc<Mutex<Script>>,
}

impl Channel {
    async fn new(enforcement: Enforcement, plan: &[Does]) -> Self {
        let (client, server) = UnixStream::pair().unwrap();
        let plan = plan.iter().copied().collect();
        let script = Arc::new(Mutex::new(Script { plan, asked: 0 }));
        let playing = script.clone();
        // The thread ends with the client.
        std::thread::spawn(move || serve(Wire(server), &playing));
        let config = HsmdConfig { enforcement, ..HsmdConfig::new(Network::Regtest) };
        let hsm = HsmdHsm::over(client, config).await.unwrap();
        let reference = ChannelRef { peer: node_id(8), dbid: 1 };
        let channel = hsm.channel(reference).await.unwrap();
        let known = LocalHsm::blind(&node(7)).channel(reference).await.unwrap();
        let parameters = read(FUNDER, party(&*known).await.config).parameters;
        channel.setup(&setup(parameters.clone())).await.unwrap();
        Self { _hsm: hsm, channel, parameters, script }
    }

    fn commitment(&self) -> Commitment {
        self.parameters.first_commitment(&Secp256k1::new(), Side::Remote).unwrap()
    }

    /// One that a blind signer signs as well.
    fn other_commitment(&self) -> Commitment {
        let mut other = self.commitment();
        other.transaction.output.last_mut().unwrap().value -= Amount::from_sat(1);
        other
    }

    async fn sign(&self, commitment: &Commitment) -> HsmResult<Signature> {
        let request = CommitmentRequest::first(&self.parameters, commitment);
        self.channel.sign_counterparty_commitment(&request).await
    }

    fn asked(&self) -> usize {
        self.script.lock().unwrap().asked
    }
}

#[tokio::test]
async fn a_blind_signer_that_closed_is_asked_for_no_other_bytes() {
    let plan = [Does::Closes, Does::Closes, Does::Signs, Does::Signs];
    let channel = Channel::new(Enforcement::Blind, &plan).await;
    let good = channel.commitment();
    assert_eq!(reason(channel.sign(&good).await), "connection-closed");
    assert_eq!(reason(channel.sign(&channel.other_commitment()).await), "transaction-differs");
    assert_eq!(channel.asked(), 2);
    channel.sign(&good).await.unwrap();
}

/// It has to be right in saying that it did not sign, and then its own rules say what it signs.
#[tokio::test]
async fn a_validating_signer_that_refused_is_asked_for_other_bytes() {
    let channel = Channel::new(Enforcement::Validating, &[Does::Closes; 4]).await;
    assert_eq!(reason(channel.sign(&channel.other_commitment()).await), "connection-closed");
    assert_eq!(reason(channel.sign(&channel.commitment()).await), "connection-closed");
    assert_eq!(channel.asked(), 4);
}

#[tokio::test]
async fn a_refusal_does_not_forget_what_was_signed_for_another_call() {
    let plan = [Does::Closes, Does::Closes, Does::Signs, Does::Signs];
    let channel = Channel::new(Enforcement::Validating, &plan).await;
    let good = channel.commitment();
    let (refused, signed) = tokio::join!(channel.sign(&good), channel.sign(&good));
    assert_eq!(reason(refused), "connection-closed");
    signed.unwrap();
    assert_eq!(reason(channel.sign(&channel.other_commitment()).await), "second-commitment");
    assert_eq!(channel.asked(), 3);
    channel.sign(&good).await.unwrap();
}
