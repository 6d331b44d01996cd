//! An opening that this node asked for, from `open_channel` to the permit to broadcast: read it
//! from top to bottom.

use std::sync::Arc;

use super::line::Line;
use super::signer::Signer;
use crate::failure::Failure;
use crate::negotiation::funder::{self, Ask};
use crate::negotiation::{BroadcastPermit, Opened};
use crate::openings::Openings;

pub(crate) async fn open_channel(
    openings: &Arc<Openings>,
    line: &mut Line,
    ask: Ask,
) -> Result<(Arc<Opened>, Option<BroadcastPermit>), Failure> {
    let deadlines = openings.node.deadlines;
    let context = Arc::new(openings.context(&line.peer(), line.features()).await?);
    let state = funder::offer(ask, context)?;

    let reference = openings.reference(line.peer()).await?;
    let signer = Signer::open(&*openings.node.hsm, reference.name(), deadlines.signer).await?;
    let state = state.keys(signer.local_keys().await?, line.temporary_channel_id());
    line.open_channel(state.open_channel())?;

    let message = line.accept_channel(deadlines.peer).await?;
    let state = state.accept_channel(&message)?;

    let (outpoint, funding) = line.funding(&state, deadlines.wallet).await?;
    let state = state.funding(outpoint)?;
    openings.may_fund(outpoint.txid)?;
    // Ours before the peer hears of it, so that no other peer can name it first.
    let claim = openings.claim(state.channel_id())?;
    line.identified(state.channel_id())?;

    let signature = signer.fund(state.setup(), &state.remote_commitment()).await?;
    let (message, state) = state.signature(signature);
    line.funding_created(&message)?;

    let message = line.funding_signed(deadlines.peer).await?;
    let state = state.funding_signed(&message)?;
    signer.validate(&state.local_commitment(), state.remote_signature()).await?;
    let held = state.validated(funding);

    line.all_signed().await?;
    line.begin_save()?;
    // From here on it may be kept, whatever is heard of the save: nothing else takes its name.
    claim.keep();
    reference.keep();
    let saved = openings.save(held.opened()).await?;
    match line.seat() {
        None => {
            let (opened, permit) = openings.kept(held, saved);
            Ok((opened, Some(permit)))
        }
        Some(seat) => Ok((seat.all_saved(openings, held, saved).await?, None)),
    }
}
