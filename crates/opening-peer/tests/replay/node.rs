//! Our negotiation in openingd's place: it is given what openingd was given.

use std::sync::Arc;

use bitcoin::secp256k1::PublicKey;
use bitcoin::secp256k1::ecdsa::Signature;
use lightning::ln::msgs::{AcceptChannel, FundingCreated, FundingSigned, OpenChannel};
use opening_core::{Commitment, FundingOutput, Profile, Refusal};
use opening_peer::Opened;
use opening_peer::message::{Message, decode, encode};
use opening_peer::negotiation::fundee::WaitForTerms;
use opening_peer::negotiation::{Context, Held, LocalKeys, fundee, funder};
use opening_peer::store::{MemoryStore, save};
use opening_signer::{ChannelRef, ChannelSetup, CommitmentRequest};

use crate::hsmd::{self, SignRemoteCommitment};
use crate::openingd::{self, FunderStart, Init};
use crate::recording::{PEER, Recording};

/// What our side is given beside lightningd's and the peer's messages.
pub(crate) struct Node {
    pub(crate) context: Arc<Context>,
    pub(crate) keys: LocalKeys,
    /// On the peer's first commitment; a refused open has none.
    pub(crate) signature: Option<Signature>,
}

impl Node {
    /// With openingd's rules and hsmd's answers.
    pub(crate) fn recorded(recording: &Recording) -> Self {
        Self::with_rules_of(Profile::Openingd, recording)
    }

    pub(crate) fn with_rules_of(profile: Profile, recording: &Recording) -> Self {
        let init = Init::of(recording);
        let keys = LocalKeys {
            // openingd does not know it; no message has it.
            reference: ChannelRef { peer: init.keys.funding_pubkey, dbid: 1 },
            keys: init.keys,
            first_per_commitment_point: hsmd::first_per_commitment_point(recording),
        };
        Self { context: init.context(profile), keys, signature: None }
    }

    fn signature(&self, recording: &Recording) -> Signature {
        self.signature.unwrap_or_else(|| SignRemoteCommitment::of(recording).signature)
    }

    /// As far as `open_channel`.
    pub(crate) fn open_channel(
        &self,
        recording: &Recording,
    ) -> (OpenChannel, funder::WaitForAcceptChannel) {
        let FunderStart { ask, temporary_channel_id, .. } = FunderStart::of(recording);
        let waiting = funder::offer(ask, self.context.clone()).unwrap();
        let waiting = waiting.keys(self.keys, temporary_channel_id);
        (waiting.open_channel().clone(), waiting)
    }

    /// From `open_channel` to the permit.
    pub(crate) fn fund(&self, recording: &Recording) -> AsFunder {
        self.fund_against(recording, &peer::accept_channel(recording))
    }

    /// The same with another answer than the recorded one.
    pub(crate) fn fund_against(
        &self,
        recording: &Recording,
        accept_channel: &AcceptChannel,
    ) -> AsFunder {
        let (open_channel, waiting) = self.open_channel(recording);
        let waiting = waiting.accept_channel(accept_channel).unwrap();
        let funding_output = waiting.funding_output();
        let waiting = waiting.funding(openingd::funding_outpoint(recording)).unwrap();
        let setup = waiting.setup().clone();
        let asked_to_sign = Asked::of(waiting.remote_commitment());
        let (funding_created, waiting) = waiting.signature(self.signature(recording));
        let waiting = waiting.funding_signed(&peer::funding_signed(recording)).unwrap();
        let asked_to_validate = Asked::of(waiting.local_commitment());
        let held = waiting.validated(funder::Funding::default());
        AsFunder {
            open_channel: encode(&open_channel),
            funding_output,
            funding_created: encode(&funding_created),
            signer: AskedOfSigner { setup, asked_to_sign, asked_to_validate },
            opened: held.opened().clone(),
        }
    }

    /// As far as the question to lightningd.
    pub(crate) fn consider(&self, recording: &Recording) -> Result<WaitForTerms, Refusal> {
        fundee::open_channel(Box::new(peer::open_channel(recording)), self.context.clone())
    }

    /// As far as `accept_channel`.
    pub(crate) fn accept_channel(
        &self,
        recording: &Recording,
    ) -> (AcceptChannel, fundee::WaitForFundingCreated) {
        let waiting = self.consider(recording).unwrap();
        waiting.terms(&openingd::terms(recording)).unwrap().keys(self.keys)
    }

    /// From `open_channel` to `funding_signed`.
    pub(crate) fn be_funded(&self, recording: &Recording) -> AsFundee {
        let (accept_channel, waiting) = self.accept_channel(recording);
        let waiting = waiting.funding_created(&peer::funding_created(recording)).unwrap();
        let setup = waiting.setup().clone();
        let asked_to_validate = Asked::of(waiting.local_commitment());
        let asked_to_sign = Asked::of(waiting.remote_commitment());
        let held = waiting.signature(self.signature(recording));
        let (opened, funding_signed) = saved(held);
        AsFundee {
            accept_channel: encode(&accept_channel),
            signer: AskedOfSigner { setup, asked_to_sign, asked_to_validate },
            funding_signed: encode(&funding_signed),
            opened,
        }
    }
}

/// What was held, released as it is for everyone: against the proof that the channel is saved.
fn saved<T>(held: Held<T>) -> (Arc<Opened>, T) {
    let (store, opened) = (MemoryStore::default(), held.opened().clone());
    // On a thread of its own: some of these tests run in a runtime already.
    let saving = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.unwrap().block_on(save(&store, &opened))
    });
    held.after(saving.join().unwrap().unwrap())
}

/// All that our funder made of a recording.
pub(crate) struct AsFunder {
    pub(crate) open_channel: Vec<u8>,
    pub(crate) funding_output: FundingOutput,
    pub(crate) funding_created: Vec<u8>,
    pub(crate) signer: AskedOfSigner,
    pub(crate) opened: Arc<Opened>,
}

/// All that our fundee made of a recording.
pub(crate) struct AsFundee {
    pub(crate) accept_channel: Vec<u8>,
    pub(crate) signer: AskedOfSigner,
    pub(crate) funding_signed: Vec<u8>,
    pub(crate) opened: Arc<Opened>,
}

/// What the signer was told and asked, in either role.
pub(crate) struct AskedOfSigner {
    pub(crate) setup: ChannelSetup,
    pub(crate) asked_to_sign: Asked,
    pub(crate) asked_to_validate: Asked,
}

/// One request about a commitment.
pub(crate) struct Asked {
    pub(crate) commitment: Commitment,
    pub(crate) per_commitment_point: PublicKey,
}

impl Asked {
    fn of(request: CommitmentRequest<'_>) -> Self {
        let CommitmentRequest { commitment, per_commitment_point, .. } = request;
        Self { commitment: commitment.clone(), per_commitment_point }
    }
}

/// What the peer sent.
pub(crate) mod peer {
    use super::*;

    pub(crate) fn open_channel(recording: &Recording) -> OpenChannel {
        match decode(recording.read(PEER, 32)) {
            Ok(Message::OpenChannel(message)) => *message,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn accept_channel(recording: &Recording) -> AcceptChannel {
        match decode(recording.read(PEER, 33)) {
            Ok(Message::AcceptChannel(message)) => *message,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn funding_created(recording: &Recording) -> FundingCreated {
        match decode(recording.read(PEER, 34)) {
            Ok(Message::FundingCreated(message)) => message,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn funding_signed(recording: &Recording) -> FundingSigned {
        match decode(recording.read(PEER, 35)) {
            Ok(Message::FundingSigned(message)) => message,
            other => panic!("{other:?}"),
        }
    }
}
