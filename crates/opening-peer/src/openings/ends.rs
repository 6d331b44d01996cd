//! Every way in which an opened channel ends before it is the node's.

use std::sync::Arc;

use bitcoin::Transaction;
use lightning::ln::types::ChannelId;
use opening_core::Role;
use opening_signer::CommitmentRequest;

use super::Openings;
use crate::driver::signer::Signer;
use crate::event::{End, Ended, Event};
use crate::failure::Failure;
use crate::negotiation::ready::{ChannelFailure, Confirmation, Exit};
use crate::negotiation::{BroadcastPermit, Opened};
use crate::node::PublicText;
use crate::session::Command;
use crate::store::StoreError;

/// Blocks after which a fundee forgets a channel whose funding has not confirmed (B2-CR-S-13).
const FORGET_AFTER: u32 = 2016;

/// Blocks between two reminders to a funder that its transaction has not confirmed (B2-FC-S-07).
const REMIND_EVERY: u32 = 144;

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
    /// The store did not remove the channel.
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

/// Why a channel was not released.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReleaseError {
    /// No channel has this id.
    #[error("no such channel")]
    UnknownChannel,
    /// It is neither in use nor has it failed.
    #[error("the channel is still on its way into use")]
    NotInUse,
    /// The store did not remove the channel.
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
    /// The signer did not sign.
    #[error(transparent)]
    Signer(#[from] Failure),
}

impl Openings {
    /// The node fails a channel: the peer is told `reason` and the channel does not come into use.
    pub fn fail(self: &Arc<Self>, channel_id: &ChannelId, reason: &PublicText) {
        self.fail_channel(channel_id, End::NodeError(reason.to_string()));
    }

    /// An opened channel has failed, and the peer is told.
    pub(crate) fn fail_channel(self: &Arc<Self>, id: &ChannelId, end: End) {
        let told = end.reply();
        let Some(opened) = self.channel_failed(id, end) else { return };
        if let Some(text) = told {
            self.send_to(&opened.reference.peer, Command::Fail { channel_id: *id, text });
        }
    }

    /// An opened channel has failed; the first reason counts.  Its record stays: the peer hears of
    /// it whenever it connects, until the node has resolved what it claims and releases it.
    pub(crate) fn channel_failed(
        self: &Arc<Self>,
        id: &ChannelId,
        end: End,
    ) -> Option<Arc<Opened>> {
        let failed = self.with(id, |channel| {
            if channel.wait.progress().failed.is_some() {
                return None;
            }
            let opened = channel.wait.opened().clone();
            let exit = exit(&opened, &end);
            channel.wait.fail(ChannelFailure { reason: end.told(), exit });
            Some((opened, exit))
        });
        let (opened, exit) = failed.flatten()?;
        self.note(*id);
        self.ended(opened.clone(), end, exit);
        Some(opened)
    }

    fn ended(&self, opened: Arc<Opened>, end: End, exit: Exit) {
        let ended = Ended { opened, end, exit };
        log::info!("{}: {ended}", ended.opened.reference.peer);
        self.note_end(&ended);
        let peer = ended.opened.reference.peer;
        self.tell(&peer, Event::Ended(ended));
    }

    /// The chain has grown to this height.  Tell it after everything that the block, and those
    /// before it, confirm: a fundee forgets what has not been shown to confirm within 2016 blocks,
    /// unless some of it is ours (B2-CR-S-13).
    pub async fn block_connected(self: &Arc<Self>, height: u32) {
        let (mut overdue, mut late, mut first_told) = (Vec::new(), Vec::new(), Vec::new());
        self.each(|channel| {
            let is_first = channel.wait.progress().waiting_since.is_none();
            let Some(blocks) = channel.wait.waited(height) else { return };
            let opened = channel.wait.opened();
            if is_first {
                first_told.push(opened.channel_id);
            }
            if blocks >= FORGET_AFTER && channel.wait.may_be_forgotten() {
                overdue.push((opened.clone(), blocks));
            } else if opened.role() == Role::Funder && blocks > 0 && blocks % REMIND_EVERY == 0 {
                late.push((opened.clone(), blocks));
            }
        });
        first_told.into_iter().for_each(|id| self.note(id));
        for (opened, blocks) in late {
            let peer = opened.reference.peer;
            self.tell(&peer, Event::StillUnconfirmed { opened, blocks });
        }
        for (opened, blocks) in overdue {
            let id = opened.channel_id;
            if let Err(error) = self.give_up(opened, End::Forgotten { blocks }).await {
                // The next block asks again.
                log::error!("{id}: cannot be forgotten: {error}");
            }
        }
    }

    /// Gives up every channel that a transaction funds which was never broadcast: the permit comes
    /// back unused, and nobody else has one.  Until this returns, the channels are there.
    pub async fn abandon_unbroadcast(
        self: &Arc<Self>,
        permit: BroadcastPermit,
    ) -> Result<Vec<ChannelId>, (AbandonError, BroadcastPermit)> {
        let mut channels = Vec::new();
        let (mut is_permitted_again, mut was_confirmed) = (false, false);
        self.each(|channel| {
            let opened = channel.wait.opened();
            if opened.parameters.funding_outpoint.txid == permit.txid()
                && opened.role() == Role::Funder
            {
                is_permitted_again |= channel.is_permitted_again;
                was_confirmed |= channel.wait.progress().was_confirmed;
                channels.push(opened.clone());
            }
        });
        let refused = if channels.is_empty() {
            Some(AbandonError::UnknownChannel)
        } else if was_confirmed {
            Some(AbandonError::Confirmed)
        } else if is_permitted_again || !permit.is_first() {
            Some(AbandonError::MayHaveBeenBroadcast)
        } else {
            None
        };
        if let Some(error) = refused {
            return Err((error, permit));
        }
        let ids = channels.iter().map(|opened| opened.channel_id).collect();
        for opened in channels {
            if let Err(error) = self.give_up(opened, End::NeverBroadcast).await {
                return Err((error.into(), permit));
            }
        }
        Ok(ids)
    }

    /// Gives up a channel of ours whose funding transaction can never confirm, because `conflict`
    /// has spent one of its inputs, deep in the chain.
    pub async fn abandon_double_spent(
        self: &Arc<Self>,
        channel_id: &ChannelId,
        conflict: &Confirmation,
    ) -> Result<(), AbandonError> {
        let state = self
            .with(channel_id, |channel| (channel.wait.opened().clone(), channel.wait.depth() > 0));
        let (opened, is_confirmed) = state.ok_or(AbandonError::UnknownChannel)?;
        if opened.role() != Role::Funder {
            return Err(AbandonError::NotOurs);
        }
        if is_confirmed {
            return Err(AbandonError::Confirmed);
        }
        let funding = opened.funding_transaction.as_ref();
        let funding = funding.ok_or(AbandonError::UnknownTransaction)?;
        let txid = conflict.transaction.compute_txid();
        let is_spent = |input: &bitcoin::TxIn| {
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
        Ok(self.give_up(opened, End::DoubleSpent { txid }).await?)
    }

    /// Forgets a channel that will never be: the store first, then signer, peer and node.
    async fn give_up(self: &Arc<Self>, opened: Arc<Opened>, end: End) -> Result<(), StoreError> {
        let id = opened.channel_id;
        self.erase(id).await?;
        if let Some(text) = end.reply() {
            self.send_to(&opened.reference.peer, Command::Fail { channel_id: id, text });
        }
        self.forget_at_signer(opened.reference);
        self.ended(opened, end, Exit::Nothing);
        Ok(())
    }

    /// The node has taken over a channel that is in use, or is done with one that has failed: this
    /// library forgets it.  Keep it durably first.
    pub async fn release(self: &Arc<Self>, channel_id: &ChannelId) -> Result<(), ReleaseError> {
        let may_go = self.with(channel_id, |channel| {
            channel.is_in_use || channel.wait.progress().failed.is_some()
        });
        if !may_go.ok_or(ReleaseError::UnknownChannel)? {
            return Err(ReleaseError::NotInUse);
        }
        Ok(self.erase(*channel_id).await?)
    }

    /// Our first commitment of a channel that has failed, with both signatures: to be broadcast
    /// where [`Exit::Broadcast`] says so (B5-FAIL-B-05).
    pub async fn signed_commitment(
        &self,
        channel_id: &ChannelId,
    ) -> Result<Transaction, SignError> {
        let (opened, progress) = self.channel(channel_id).ok_or(SignError::UnknownChannel)?;
        match progress.failed.ok_or(SignError::NotFailed)?.exit {
            Exit::AwaitPeer => return Err(SignError::Outdated),
            Exit::Broadcast | Exit::Watch | Exit::Nothing => {}
        }
        let deadline = self.node.deadlines.signer;
        let signer = Signer::open(&*self.node.hsm, opened.reference, deadline).await?;
        let request = CommitmentRequest::first(&opened.parameters, &opened.local_commitment);
        let signature = signer.sign_holder(&request).await?;
        let (local, remote) = (&opened.parameters.local.keys, &opened.parameters.remote.keys);
        Ok(opened.local_commitment.signed(
            (&local.funding_pubkey, signature),
            (&remote.funding_pubkey, opened.remote_signature),
        ))
    }
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
