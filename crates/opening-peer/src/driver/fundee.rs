//! What a fundee does on each of the two messages it gets.  Between them it is plain state.

use std::sync::Arc;

use lightning::ln::msgs::{AcceptChannel, FundingCreated, FundingSigned, OpenChannel};
use opening_core::NegotiatedFeatures;
use tokio::time::timeout;

use super::gate::Gate;
use super::signer::Signer;
use crate::event::Event;
use crate::failure::{Failure, Stage};
use crate::negotiation::Opened;
use crate::negotiation::fundee::{self, WaitForFundingCreated};
use crate::node::{Decision, OfferDetails};
use crate::openings::{Guest, Openings, Reference};

/// What is left of an opening between the two messages.
pub(crate) struct Waiting {
    state: WaitForFundingCreated,
    reference: Reference,
}

/// From `open_channel` to `accept_channel`.  Nothing is asked of the signer or the disk before
/// the policy has accepted.
pub(crate) async fn answer_open_channel(
    guest: Arc<Guest>,
    features: Arc<NegotiatedFeatures>,
    message: Box<OpenChannel>,
) -> Result<(AcceptChannel, Waiting), Failure> {
    let Guest { openings, peer } = &*guest;
    let temporary_channel_id = message.common_fields.temporary_channel_id;
    let context = Arc::new(openings.context(peer, &features).await?);
    let state = fundee::open_channel(message, context)?;

    let details = OfferDetails {
        temporary_channel_id,
        channel_type: state.channel_type(),
        offer: state.offer(),
    };
    let deadlines = openings.node.deadlines;
    let decision = timeout(deadlines.policy, openings.node.policy.decide(peer, &details)).await;
    let terms = match decision.map_err(|_| Failure::PolicySilent(deadlines.policy))? {
        Decision::Accept(terms) => terms,
        Decision::Reject(rejection) => return Err(Failure::Rejected(rejection)),
    };
    let state = state.terms(&terms)?;

    let reference = guest.reference().await?;
    let signer = Signer::open(&*openings.node.hsm, reference.name(), deadlines.signer).await?;
    let (message, state) = state.keys(signer.local_keys().await?);
    Ok((message, Waiting { state, reference }))
}

/// From `funding_created` to `funding_signed`, which comes out only of a saved channel.
pub(crate) async fn answer_funding_created(
    openings: Arc<Openings>,
    gate: Arc<Gate>,
    Waiting { state, reference }: Waiting,
    message: FundingCreated,
) -> Result<(Arc<Opened>, FundingSigned), Failure> {
    let state = state.funding_created(&message)?;
    let claim = openings.claim(state.channel_id())?;

    let deadlines = openings.node.deadlines;
    let signer = Signer::open(&*openings.node.hsm, reference.name(), deadlines.signer).await?;
    let (ours, theirs) = (state.local_commitment(), state.remote_commitment());
    let signature =
        signer.be_funded(state.setup(), (&ours, state.remote_signature()), &theirs).await?;
    let held = state.signature(signature);

    gate.begin_save()?;
    let opened = held.opened();
    let progress = Event::Progress {
        role: opened.role(),
        temporary_channel_id: opened.temporary_channel_id,
        channel_id: Some(opened.channel_id),
        stage: Stage::Save,
    };
    openings.tell(&opened.reference.peer, progress);
    // From here on it may be kept, whatever is heard of the save: nothing else takes its name.
    claim.keep();
    reference.keep();
    openings.keep(held).await
}
