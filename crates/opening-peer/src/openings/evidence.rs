//! What the chain says of opened channels.

use std::sync::Arc;

use bitcoin::Transaction;
use lightning::ln::types::ChannelId;
use opening_core::Role;

use super::channels::Channel;
use super::{Openings, lock};
use crate::event::{End, Event, Spender};
use crate::negotiation::Opened;
use crate::negotiation::ready::{Confirmation, EvidenceError};

/// Blocks after which a fundee forgets a channel whose funding has not confirmed (B2-CR-S-13).
const FORGET_AFTER: u32 = 2016;

/// Blocks between two reminders to a funder that its transaction has not confirmed (B2-FC-S-07).
const REMIND_EVERY: u32 = 144;

/// Why evidence about a channel had no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfirmError {
    /// No channel that waits has this id.
    #[error("no channel has this id")]
    UnknownChannel,
    /// It is not about the channel's funding output.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
    /// It counts, and `channel_ready` is due, but our signer or store did not do its part.  The
    /// next evidence, or the next block, asks again.
    #[error("channel_ready is due, but this node could not make it")]
    NotReady,
}

/// What a block means for one channel.
enum Due {
    /// It is the first that the channel waits for, which a restart must know.
    Note,
    /// It is forgotten.
    Forget { blocks: u32 },
    /// Its funder is reminded.
    Remind { blocks: u32 },
    /// What our signer or store failed to do before is tried again.
    TryAgain,
    /// The signer is asked again what to think of the peer's claim.
    Judge,
}

impl Openings {
    /// The funding transaction of an opened channel is in a block.  Returns when the depth is
    /// updated and `channel_ready`, if it was due and the peer is connected, sent.  Tell it again
    /// with each block, until the channel is [ready](Event::Ready), and after a restart.
    ///
    /// A transaction of that id which does not pay the channel fails it (B2-CR-S-01).
    pub async fn confirmed(
        self: &Arc<Self>,
        channel_id: ChannelId,
        confirmation: Confirmation,
    ) -> Result<(), ConfirmError> {
        let confirmed = self.with(&channel_id, |channel| {
            channel.wait.confirmed(&confirmation)?;
            let no_longer_counts = channel.wait.progress().was_confirmed;
            let of_peer = no_longer_counts.then(|| channel.no_longer_counts()).flatten();
            Ok((channel.wait.short_channel_id(), of_peer))
        });
        match confirmed.ok_or(ConfirmError::UnknownChannel)? {
            Ok((short_channel_id, of_peer)) => {
                self.taken_short_channel_ids(short_channel_id);
                if let Some(peer) = of_peer {
                    self.uncount_unconfirmed(&peer);
                }
            }
            Err(error) => {
                if matches!(error, EvidenceError::WrongOutput | EvidenceError::NoSuchOutput(_)) {
                    self.fail_durably(&channel_id, End::WrongFunding(error)).await;
                }
                return Err(error.into());
            }
        }
        self.note(channel_id);
        self.advance(channel_id).await?;
        self.tell_if_announceable(&channel_id);
        Ok(())
    }

    /// A reorganisation took the funding transaction's block away.  Before our `channel_ready` is
    /// made, the depth counts anew; after that it stays sent.
    pub fn unconfirmed(&self, channel_id: &ChannelId) -> Result<(), ConfirmError> {
        let known = self.with(channel_id, |channel| channel.wait.unconfirmed());
        known.ok_or(ConfirmError::UnknownChannel)
    }

    /// A transaction in a block spends the funding output: the channel has failed, and the node
    /// resolves what it claims (B2-RE-B-11, B5-MON-B-02).  Not for a mutual close that the node
    /// has agreed to: it [releases](Self::release) the channel before that.
    ///
    /// Returns when it is durable, or the store has not answered in time; it is asked until it is.
    pub async fn spent(
        self: &Arc<Self>,
        channel_id: &ChannelId,
        transaction: &Transaction,
    ) -> Result<Spender, ConfirmError> {
        let opened = self.with(channel_id, |channel| channel.wait.opened().clone());
        let opened = opened.ok_or(ConfirmError::UnknownChannel)?;
        let outpoint = opened.parameters.funding_outpoint;
        if !transaction.input.iter().any(|input| input.previous_output == outpoint) {
            return Err(EvidenceError::WrongTransaction.into());
        }
        let spender = spender(&opened, transaction);
        let txid = transaction.compute_txid();
        self.fail_durably(channel_id, End::Spent { txid, spender }).await;
        Ok(spender)
    }

    /// The best chain has this height.  Tell it after everything that the block, and those before
    /// it, confirm, and not while the node is still catching up with the chain: a fundee forgets
    /// what has not been shown to confirm within 2016 blocks from the first that it is told,
    /// unless some of it is ours (B2-CR-S-13).
    pub async fn block_connected(self: &Arc<Self>, height: u32) {
        let mut forgotten = Vec::new();
        for (opened, due) in self.at_height(height) {
            let peer = opened.reference.peer;
            match due {
                Due::Note => self.note(opened.channel_id),
                Due::TryAgain => self.nudge(&opened),
                Due::Judge => self.judge_soon(opened.channel_id),
                Due::Remind { blocks } => {
                    self.tell(&peer, Event::StillUnconfirmed { opened, blocks });
                }
                Due::Forget { blocks } => forgotten.push((opened, End::Forgotten { blocks })),
            }
        }
        let forgetting = forgotten.into_iter().map(|(opened, end)| async move {
            let id = opened.channel_id;
            if let Err(error) = self.give_up(opened, end).await {
                log::error!("{id}: its removal goes on: {error}");
            }
        });
        futures::future::join_all(forgetting).await;
    }

    /// What a block means for every channel.  Those to forget have begun to leave: nothing may
    /// happen to them between the decision and their end.
    fn at_height(&self, height: u32) -> Vec<(Arc<Opened>, Due)> {
        let mut due = Vec::new();
        let mut channels = lock(&self.channels);
        for channel in channels.each() {
            let opened = channel.wait.opened().clone();
            due.extend(channel.at_height(height).into_iter().map(|what| (opened.clone(), what)));
        }
        for (opened, what) in &due {
            if matches!(what, Due::Forget { .. }) {
                let _ = channels.leave(&opened.channel_id);
            }
        }
        due
    }
}

impl Channel {
    fn at_height(&mut self, height: u32) -> Vec<Due> {
        let mut due = Vec::new();
        let is_first = self.wait.progress().waiting_since.is_none();
        if let Some(blocks) = self.wait.waited(height) {
            if is_first {
                due.push(Due::Note);
            }
            if blocks >= FORGET_AFTER && self.wait.may_be_forgotten() {
                return vec![Due::Forget { blocks }];
            }
            let reminders = blocks / REMIND_EVERY;
            let is_new = reminders > std::mem::replace(&mut self.reminders, reminders);
            let has_failed = self.wait.progress().failed.is_some();
            if is_new && !has_failed && self.wait.opened().role() == Role::Funder {
                due.push(Due::Remind { blocks });
            }
        }
        if self.wait.is_due() || self.kept.local != self.wait.progress().local {
            due.push(Due::TryAgain);
        }
        if self.claims.is_unjudged() {
            due.push(Due::Judge);
        }
        due
    }
}

fn spender(opened: &Opened, transaction: &Transaction) -> Spender {
    let txid = transaction.compute_txid();
    if txid == opened.remote_commitment.transaction.compute_txid() {
        Spender::RemoteCommitment
    } else if txid == opened.local_commitment.transaction.compute_txid() {
        Spender::LocalCommitment
    } else {
        Spender::Other
    }
}
