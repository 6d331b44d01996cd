//! Every way in which an opened channel ends before it is the node's.

use std::sync::Arc;

use bitcoin::{Transaction, TxIn};
use lightning::ln::types::ChannelId;
use opening_core::Role;
use opening_signer::CommitmentRequest;

use super::{ConfirmError, Openings, lock};
use crate::event::{End, Ended, Event};
use crate::failure::Failure;
use crate::negotiation::ready::{ChannelFailure, Confirmation, Exit};
use crate::negotiation::{BroadcastPermit, Opened};
use crate::node::PublicText;
use crate::session::Command;
use crate::store::StoreError;

/// Blocks that have to bury a conflicting transaction before a funding transaction is given up.
const CONFLICT_DEPTH: u32 = 6;

/// Why a channel was not abandoned: its funding transaction may still confirm.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AbandonError {
    /// No channel has this id, or none is funded by this transaction.
    #[error("no such channel")]
    UnknownChannel,
    /// The peer funds the channel: it is forgotten when its time has come.
    #[error("the peer funds this channel")]
    NotOurs,
    /// Another permit was given for the same transaction, before a restart or since.
    #[error("the transaction may have been broadcast with another permit")]
    MayHaveBeenBroadcast,
    /// The funding transaction itself is in a block, or was.
    #[error("the funding transaction has confirmed")]
    Confirmed,
    /// The wallet never showed the funding transaction, so that no conflict can be told.
    #[error("the funding transaction is not known")]
    UnknownTransaction,
    /// It spends no input of the funding transaction, or is the funding transaction.
    #[error("the transaction does not conflict with the funding transaction")]
    NoConflict,
    /// A reorganisation may still undo the conflict.
    #[error("the conflicting transaction has {depth} confirmations, it takes {needed}")]
    ConflictTooShallow {
        /// Blocks on top of and with its own.
        depth: u32,
        /// Blocks that it takes.
        needed: u32,
    },
    /// The store has not removed the channel yet.
    #[error("our store failed")]
    Store(#[from] StoreError),
}

impl AbandonError {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownChannel => "unknown-channel",
            Self::NotOurs => "channel-not-ours",
            Self::MayHaveBeenBroadcast => "may-have-been-broadcast",
            Self::Confirmed => "funding-confirmed",
            Self::UnknownTransaction => "funding-transaction-unknown",
            Self::NoConflict => "no-conflict",
            Self::ConflictTooShallow { .. } => "conflict-too-shallow",
            Self::Store(error) => error.code(),
        }
    }
}

/// Why a channel is not released.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReleaseError {
    /// No channel has this id.
    #[error("no such channel")]
    UnknownChannel,
    /// It is not in use, not the node's by its own word, nobody closes it, and it has not failed.
    #[error("the channel is still on its way into use")]
    NotInUse,
    /// The store has not removed the channel yet.
    #[error("our store failed")]
    Store(#[from] StoreError),
}

/// Why a commitment was not signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// No channel has this id.
    #[error("no such channel")]
    UnknownChannel,
    /// The channel lives: [`Openings::fail`] it first.
    #[error("the channel has not failed")]
    NotFailed,
    /// The peer has proved that this node's state is old: its commitment would lose all
    /// (B2-RE-R-12, B5-FAIL-B-04).
    #[error("our commitment is outdated")]
    Outdated,
    /// The peer says that this node's state is old, and the signer has not given the point by
    /// which that is judged: ask again.  A peer that says what is not so cannot hold our commitment
    /// back for longer than the signer fails.
    #[error("the peer says that our state is old, and this cannot be judged: {0}")]
    Unjudged(#[source] Failure),
    /// That the channel has failed is not durable: after a restart it would live, with its
    /// commitment on its way into a block.
    #[error("our store failed")]
    Store(#[from] StoreError),
    /// The signer did not sign.
    #[error(transparent)]
    Signer(#[from] Failure),
}

impl Openings {
    /// The node fails a channel: the peer is told `reason` and the channel does not come into use.
    /// One that has failed already stays as it is.
    ///
    /// Returns when it is durable, or the store has not answered in time; it is asked until it is.
    pub async fn fail(
        self: &Arc<Self>,
        channel_id: &ChannelId,
        reason: &PublicText,
    ) -> Result<(), ConfirmError> {
        self.channel(channel_id).ok_or(ConfirmError::UnknownChannel)?;
        self.fail_durably(channel_id, End::NodeError(reason.to_string())).await;
        Ok(())
    }

    /// An opened channel has failed, and this is to be durable where the store can make it.
    pub(super) async fn fail_durably(self: &Arc<Self>, id: &ChannelId, end: End) {
        self.fail_channel(id, end);
        if let Err(error) = self.write(*id).await {
            log::error!("{id}: that it has failed is not kept yet: {error}");
        }
    }

    /// An opened channel has failed, and the peer is told.
    pub(crate) fn fail_channel(self: &Arc<Self>, id: &ChannelId, end: End) {
        let told = end.reply();
        let Some(opened) = self.channel_failed(id, end) else { return };
        if let Some(text) = told {
            self.send_to(&opened.reference.peer, Command::Fail { channel_id: *id, text });
        }
    }

    /// An opened channel has failed; the first reason counts, unless a later one is that our state
    /// is old: then the node hears that, too.  Its record stays: the peer hears of
    /// it whenever it connects, until the node has resolved what it claims and releases it.
    // Nobody waits for the store: what was lost in a crash, the peer or the chain says again.
    pub(crate) fn channel_failed(
        self: &Arc<Self>,
        id: &ChannelId,
        end: End,
    ) -> Option<Arc<Opened>> {
        let failed = self.with(id, |channel| {
            let opened = channel.wait.opened().clone();
            let exit = exit(&opened, &end);
            let is_news = channel.wait.fail(ChannelFailure { reason: end.told(), exit });
            is_news.then_some((opened, exit))
        });
        let (opened, exit) = failed.flatten()?;
        self.note(*id);
        self.tell_end(opened.clone(), end, exit);
        Some(opened)
    }

    pub(super) fn tell_end(&self, opened: Arc<Opened>, end: End, exit: Exit) {
        let ended = Ended { opened, end, exit };
        log::info!("{}: {ended}", ended.opened.reference.peer);
        self.note_end(&ended);
        let peer = ended.opened.reference.peer;
        self.tell(&peer, Event::Ended(ended));
    }

    /// Gives up every channel that a transaction funds which was never broadcast, and never will
    /// be: the permit comes back unused, and nobody else has one.
    ///
    /// # Errors
    ///
    /// With the permit, nothing has changed.  Without it, the channels are being removed, but the
    /// store has not done that in time: it is asked until it has, and [`Event::Ended`] tells.
    pub async fn abandon_unbroadcast(
        self: &Arc<Self>,
        permit: BroadcastPermit,
    ) -> Result<Vec<ChannelId>, (AbandonError, Option<BroadcastPermit>)> {
        let channels = match self.leave_unbroadcast(&permit) {
            Ok(channels) => channels,
            Err(error) => return Err((error, Some(permit))),
        };
        let ids = channels.iter().map(|opened| opened.channel_id).collect();
        let erasing = channels.into_iter().map(|opened| self.give_up(opened, End::NeverBroadcast));
        match futures::future::join_all(erasing).await.into_iter().collect() {
            Ok(()) => Ok(ids),
            Err(error) => Err((AbandonError::Store(error), None)),
        }
    }

    /// Takes the channels of a transaction away together, so that no permit is given meanwhile.
    fn leave_unbroadcast(
        &self,
        permit: &BroadcastPermit,
    ) -> Result<Vec<Arc<Opened>>, AbandonError> {
        let mut channels = lock(&self.channels);
        let mut ids = Vec::new();
        for channel in channels.each() {
            let opened = channel.wait.opened();
            if opened.parameters.funding_outpoint.txid != permit.txid()
                || opened.role() != Role::Funder
            {
                continue;
            }
            if channel.wait.progress().was_confirmed {
                return Err(AbandonError::Confirmed);
            }
            if channel.is_permitted_again || !permit.is_first() {
                return Err(AbandonError::MayHaveBeenBroadcast);
            }
            ids.push(opened.channel_id);
        }
        if ids.is_empty() {
            return Err(AbandonError::UnknownChannel);
        }
        Ok(ids.iter().filter_map(|id| channels.leave(id)).collect())
    }

    /// Gives up a channel of ours whose funding transaction can never confirm, because `conflict`
    /// has spent one of its inputs, deep in the chain.  Where the store fails, it is asked until
    /// the channel is removed, and [`Event::Ended`] tells.
    pub async fn abandon_double_spent(
        self: &Arc<Self>,
        channel_id: &ChannelId,
        conflict: &Confirmation,
    ) -> Result<(), AbandonError> {
        let opened = {
            let mut channels = lock(&self.channels);
            let channel = channels.get_mut(channel_id).ok_or(AbandonError::UnknownChannel)?;
            if channel.wait.opened().role() != Role::Funder {
                return Err(AbandonError::NotOurs);
            }
            if channel.wait.depth() > 0 {
                return Err(AbandonError::Confirmed);
            }
            judge_conflict(channel.wait.opened(), conflict)?;
            channels.leave(channel_id).ok_or(AbandonError::UnknownChannel)?
        };
        let txid = conflict.transaction.compute_txid();
        Ok(self.give_up(opened, End::DoubleSpent { txid }).await?)
    }

    /// Forgets a channel that will never be, and is leaving: the store first, then signer, peer and
    /// node.
    pub(super) async fn give_up(
        self: &Arc<Self>,
        opened: Arc<Opened>,
        end: End,
    ) -> Result<(), StoreError> {
        self.erase(opened, Some(end)).await
    }

    /// The node has taken over a channel that is in use or being closed, or is done with one that
    /// has failed: this library forgets it.  Keep it durably first.  Where the store fails, it is
    /// asked until the record is removed.
    pub async fn release(self: &Arc<Self>, channel_id: &ChannelId) -> Result<(), ReleaseError> {
        let (opened, _) = self.channel(channel_id).ok_or(ReleaseError::UnknownChannel)?;
        // Since a restart, one that the node has taken over is in use there only.
        let is_taken_over = self.node.rest.owns(&opened.reference.peer, channel_id);
        let opened = {
            let mut channels = lock(&self.channels);
            let channel = channels.get_mut(channel_id).ok_or(ReleaseError::UnknownChannel)?;
            let wait = &channel.wait;
            let may_go = channel.is_in_use || wait.is_closing() || wait.progress().failed.is_some();
            if !(may_go || is_taken_over) {
                return Err(ReleaseError::NotInUse);
            }
            channels.leave(channel_id).ok_or(ReleaseError::UnknownChannel)?
        };
        Ok(self.erase(opened, None).await?)
    }

    /// Our first commitment of a channel that has failed, with both signatures: to be broadcast
    /// where [`Exit::Broadcast`] says so (B5-FAIL-B-05).  If the peer says that our state is old,
    /// this is judged first.
    pub async fn signed_commitment(
        self: &Arc<Self>,
        channel_id: &ChannelId,
    ) -> Result<Transaction, SignError> {
        let opened = self.may_be_signed(channel_id).await?;
        self.write(*channel_id).await?;
        let signer = self.signer_set_up(&opened).await?;
        let request = CommitmentRequest::first(&opened.parameters, &opened.local_commitment);
        // Again: after a restart a signer may have forgotten that it did.
        signer.validate(&request, &opened.remote_signature).await?;
        let signature = signer.sign_holder(&request).await?;
        // What the peer has said meanwhile counts, too.
        self.may_be_signed(channel_id).await?;
        let (local, remote) = (&opened.parameters.local.keys, &opened.parameters.remote.keys);
        Ok(opened.local_commitment.signed(
            (&local.funding_pubkey, signature),
            (&remote.funding_pubkey, opened.remote_signature),
        ))
    }

    /// The channel, if it has failed and nothing speaks against our commitment.
    async fn may_be_signed(self: &Arc<Self>, id: &ChannelId) -> Result<Arc<Opened>, SignError> {
        loop {
            let found = self.with(id, |channel| {
                let exit = channel.wait.progress().failed.as_ref().map(|failure| failure.exit);
                (channel.wait.opened().clone(), exit, channel.claims.is_unjudged())
            });
            let (opened, exit, is_claimed) = found.ok_or(SignError::UnknownChannel)?;
            match exit.ok_or(SignError::NotFailed)? {
                Exit::AwaitPeer => return Err(SignError::Outdated),
                Exit::Broadcast | Exit::Watch | Exit::Nothing if is_claimed => {}
                Exit::Broadcast | Exit::Watch | Exit::Nothing => return Ok(opened),
            }
            self.judge(id).await.map_err(SignError::Unjudged)?;
        }
    }
}

/// Whether `conflict` makes sure that the funding transaction never confirms.
fn judge_conflict(opened: &Opened, conflict: &Confirmation) -> Result<(), AbandonError> {
    let funding = opened.funding_transaction.as_ref().ok_or(AbandonError::UnknownTransaction)?;
    let txid = conflict.transaction.compute_txid();
    let is_spent = |input: &TxIn| {
        let spent = input.previous_output;
        conflict.transaction.input.iter().any(|other| other.previous_output == spent)
    };
    if txid == opened.parameters.funding_outpoint.txid || !funding.input.iter().any(is_spent) {
        return Err(AbandonError::NoConflict);
    }
    let needed = CONFLICT_DEPTH.max(opened.minimum_depth);
    if conflict.depth < needed {
        return Err(AbandonError::ConflictTooShallow { depth: conflict.depth, needed });
    }
    Ok(())
}

/// What the node has to do about a channel that fails so.
fn exit(opened: &Opened, end: &End) -> Exit {
    match end {
        End::Reestablish(error) if error.is_our_fault() => Exit::AwaitPeer,
        End::Spent { .. } => Exit::Watch,
        // The transaction in the block does not pay the channel: there is nothing to spend.
        End::WrongFunding(_) => Exit::Nothing,
        _ if opened.pays_us() => Exit::Broadcast,
        _ => Exit::Nothing,
    }
}

impl ReleaseError {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownChannel => "unknown-channel",
            Self::NotInUse => "channel-not-in-use",
            Self::Store(error) => error.code(),
        }
    }
}

impl SignError {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownChannel => "unknown-channel",
            Self::NotFailed => "channel-not-failed",
            Self::Outdated => "commitment-outdated",
            Self::Unjudged(_) => "claim-unjudged",
            Self::Store(error) => error.code(),
            Self::Signer(failure) => failure.code(),
        }
    }
}
