//! Offering again what a peer has refused, as a lesser type, on the same connection.
//!
//! ```text
//!    | ----- open_channel, anchors -----> |
//!    | <------------- error ------------- |
//!    | - open_channel, static_remotekey > |
//!    | <-------- accept_channel --------- |
//! ```

use opening_core::{ChannelType, Refusal};

use super::{PendingFunding, Session};
use crate::event::Failed;
use crate::failure::{Failure, Stage};
use crate::negotiation::NegotiationError;
use crate::negotiation::funder::Ask;
use crate::node::Policy;

/// Opens a channel, and as often as the peer refuses the offer by an `error`, or our own signer
/// takes no channel of that type, asks `policy` for a
/// type to offer instead; returns when one is accepted.  No type is offered twice.  Each offer has
/// its own events; the last failure is the one returned.
pub async fn open_downgrading(
    session: &Session,
    ask: Ask,
    policy: &dyn Policy,
) -> Result<PendingFunding, Failed> {
    let best = || ChannelType::best(session.features());
    let mut tried = vec![ask.channel_type.unwrap_or_else(best)];
    loop {
        let offered = *tried.last().expect("it begins with one");
        let ask = Ask { channel_type: Some(offered), ..ask.clone() };
        let accepted = async { session.open(ask).await?.accepted().await };
        let failed = match accepted.await {
            Ok(pending) => return Ok(pending),
            Err(failed) => failed,
        };
        let next = is_refusal(&failed).then(|| policy.downgrade(&session.peer(), offered));
        match next.flatten().filter(|next| !tried.contains(next)) {
            Some(next) => tried.push(next),
            None => return Err(failed),
        }
    }
}

/// Whether another type may do: the peer has answered our offer by an `error`, or we do not offer
/// this type.
fn is_refusal(failed: &Failed) -> bool {
    match &*failed.failure {
        Failure::PeerError(_) => failed.stage == Stage::AcceptChannel,
        Failure::Negotiation(NegotiationError::Refused(Refusal::ChannelTypeNotAccepted {
            ..
        })) => true,
        _ => false,
    }
}
