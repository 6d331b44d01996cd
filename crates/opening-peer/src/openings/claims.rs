//! What peers say that we revoked, until our signer has judged it.
//!
//! A claim that is true means that our state is old, and that our commitment would lose the whole
//! channel.  So it is kept from the moment when it is heard, whatever happens to the connection and
//! to the channel meanwhile; and before it is judged, the channel does not go on, and our
//! commitment is not given out.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bitcoin::secp256k1::PublicKey;
use futures::FutureExt;
use lightning::ln::msgs::ChannelReestablish;
use lightning::ln::types::ChannelId;

use super::Openings;
use crate::event::End;
use crate::failure::Failure;
use crate::negotiation::ready::Exit;
use crate::negotiation::{Opened, reestablish};

/// False claims about one channel after which no other is heard: who makes them without end must
/// not keep our commitment from us.
const MOST_FALSE: u32 = 8;

/// What the peer of one channel claims.
#[derive(Default)]
pub(super) struct Claims {
    /// The newest, if it is not judged yet.
    unjudged: Option<ChannelReestablish>,
    /// A task asks the signer until there is nothing left to judge, or the signer fails.
    is_asking: bool,
    /// One call to the signer at a time.  Made when there is the first: hardly any channel needs it.
    turn: Option<Arc<tokio::sync::Mutex<()>>>,
    /// How many were judged false.
    false_ones: u32,
}

impl Claims {
    /// Whether the peer claims something that nobody has judged.
    pub(super) fn is_unjudged(&self) -> bool {
        self.unjudged.is_some()
    }

    /// It is false.  One that has come since is still to be judged.
    fn is_false(&mut self, claim: &ChannelReestablish) {
        self.false_ones += 1;
        self.unjudged.take_if(|newest| newest == claim);
    }
}

impl Openings {
    /// Keeps what the message claims, if anything, in place of an earlier claim.  `true` if there
    /// is something to [judge](Self::judge_soon) before anything else is done with the channel.
    pub(crate) fn claims(&self, message: &ChannelReestablish) -> bool {
        let is_claim = reestablish::revoked_commitment(message).is_some();
        let is_unjudged = self.with(&message.channel_id, |channel| {
            let failed = channel.wait.progress().failed.as_ref();
            let is_proved = failed.is_some_and(|failure| failure.exit == Exit::AwaitPeer);
            let claims = &mut channel.claims;
            if is_claim && !is_proved && claims.false_ones < MOST_FALSE {
                claims.unjudged = Some(message.clone());
            }
            claims.is_unjudged()
        });
        is_unjudged.unwrap_or(false)
    }

    /// Has what the peer claims judged, without waiting.  If the signer fails, the claim stays.
    pub(crate) fn judge_soon(self: &Arc<Self>, id: ChannelId) {
        let begins = self.with(&id, |channel| {
            let claims = &mut channel.claims;
            claims.is_unjudged() && !std::mem::replace(&mut claims.is_asking, true)
        });
        if begins != Some(true) {
            return;
        }
        let openings = self.clone();
        tokio::spawn(async move {
            loop {
                let judged = openings.judge(&id).await;
                let goes_on = openings.with(&id, |channel| {
                    let claims = &mut channel.claims;
                    claims.is_asking = judged.is_ok() && claims.is_unjudged();
                    claims.is_asking
                });
                if let Err(failure) = judged {
                    log::error!("{id}: whether our state is old is not known: {failure}");
                }
                if goes_on != Some(true) {
                    return;
                }
            }
        });
    }

    /// Judges what the peer claims by now.
    ///
    /// # Errors
    ///
    /// The signer does not give the point that it takes.  The claim stays.
    pub(super) async fn judge(self: &Arc<Self>, id: &ChannelId) -> Result<(), Failure> {
        let turn = self.with(id, |channel| {
            let claims = &mut channel.claims;
            claims.is_unjudged().then(|| claims.turn.get_or_insert_default().clone())
        });
        let Some(turn) = turn.flatten() else { return Ok(()) };
        let _one_at_a_time = turn.lock().await;
        let claimed = self.with(id, |channel| {
            let claim = channel.claims.unjudged.clone()?;
            Some((channel.wait.opened().clone(), claim))
        });
        let Some((opened, claim)) = claimed.flatten() else { return Ok(()) };
        let Some(revoked) = reestablish::revoked_commitment(&claim) else { return Ok(()) };
        let asking = AssertUnwindSafe(self.our_point(&opened, revoked)).catch_unwind().await;
        let our_point = asking.unwrap_or(Err(Failure::Panicked))?;
        self.judged(&claim, our_point);
        Ok(())
    }

    async fn our_point(&self, opened: &Opened, commitment: u64) -> Result<PublicKey, Failure> {
        self.signer_set_up(opened).await?.per_commitment_point(commitment).await
    }

    /// The claim is known to be true or false.
    fn judged(self: &Arc<Self>, claim: &ChannelReestablish, our_point: PublicKey) {
        let id = &claim.channel_id;
        // First: nobody may find the channel without the claim and without what it comes to.
        let is_true = reestablish::judge(claim, Some(our_point)).is_err_and(|error| {
            self.fail_channel(id, End::Reestablish(error));
            error.is_our_fault()
        });
        self.with(id, |channel| match is_true {
            // Nothing that the peer says can make it worse.
            true => channel.claims.unjudged = None,
            false => channel.claims.is_false(claim),
        });
    }
}
