//! Opened channels, until the node takes them over.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bitcoin::secp256k1::PublicKey;
use bitcoin::{ScriptBuf, Transaction};
use lightning::ln::msgs::ChannelReady;
use lightning::ln::types::ChannelId;
use opening_core::{Feature, NegotiatedFeatures, Role, ShortChannelId};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{Openings, lock};
use crate::driver::signer::Signer;
use crate::event::{End, Event, Spender};
use crate::failure::{Failure, Stage};
use crate::negotiation::ready::{
    Confirmation, EvidenceError, LocalReady, Progress, Ready, WaitForReady,
};
use crate::negotiation::{BroadcastPermit, Opened};
use crate::session::Command;
use crate::store::StoreError;

/// Opened channels by their id, and by their peer.
#[derive(Default)]
pub(super) struct Channels {
    by_id: HashMap<ChannelId, Channel>,
    by_peer: HashMap<PublicKey, Vec<ChannelId>>,
    /// Entries of the store that cannot be read: there is a channel, but nobody knows whose.
    pub(super) damaged: HashSet<ChannelId>,
}

pub(super) struct Channel {
    pub(super) wait: WaitForReady,
    /// What of its progress is durable.
    kept: Progress,
    /// One write at a time, so that an older one never comes last.
    writing: Arc<tokio::sync::Mutex<()>>,
    /// Counted among those of its peer that have not confirmed.
    is_counted: bool,
    /// Both `channel_ready` have passed, and the node knows.
    pub(super) is_in_use: bool,
    /// The node knows that it may announce the channel.
    is_announced: bool,
    /// More than one permit to broadcast has been given.
    pub(super) is_permitted_again: bool,
}

impl Channels {
    pub(super) fn get(&self, id: &ChannelId) -> Option<&Channel> {
        self.by_id.get(id)
    }

    pub(super) fn get_mut(&mut self, id: &ChannelId) -> Option<&mut Channel> {
        self.by_id.get_mut(id)
    }

    fn insert(&mut self, channel: Channel) {
        let opened = channel.wait.opened();
        let (id, peer) = (opened.channel_id, opened.reference.peer);
        self.by_peer.entry(peer).or_default().push(id);
        self.by_id.insert(id, channel);
    }

    fn remove(&mut self, id: &ChannelId) -> Option<Channel> {
        let channel = self.by_id.remove(id)?;
        let peer = channel.wait.opened().reference.peer;
        if let Some(ids) = self.by_peer.get_mut(&peer) {
            ids.retain(|other| other != id);
            if ids.is_empty() {
                self.by_peer.remove(&peer);
            }
        }
        Some(channel)
    }
}

/// What a session has to do next for a channel.
pub(crate) enum Step {
    /// Wait for the chain or the peer.
    Nothing,
    /// Make `channel_ready`, which needs the signer and the store.
    Prepare,
    /// Say this, once on each connection.
    Say(ChannelReady),
}

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
    /// next evidence asks again.
    #[error("channel_ready is due, but this node could not make it")]
    NotReady,
}

impl Openings {
    /// Takes in a channel that is saved.
    pub(crate) fn take_in(&self, opened: Arc<Opened>, progress: Progress) {
        let is_counted = opened.role() == Role::Fundee && !progress.was_confirmed;
        if is_counted {
            self.count_unconfirmed(opened.reference.peer);
        }
        let channel = Channel {
            wait: WaitForReady::restore(opened, progress.clone()),
            kept: progress,
            writing: Arc::default(),
            is_counted,
            is_in_use: false,
            is_announced: false,
            is_permitted_again: false,
        };
        lock(&self.channels).insert(channel);
    }

    /// Whether this node has the channel with this peer, whichever session opened it.
    // Not with anyone: a stranger must not learn which outpoints are channels of ours.
    pub(crate) fn has_channel(&self, peer: &PublicKey, channel_id: &ChannelId) -> bool {
        let channels = lock(&self.channels);
        let channel = channels.get(channel_id);
        channel.is_some_and(|channel| channel.wait.opened().reference.peer == *peer)
            || channels.damaged.contains(channel_id)
    }

    /// The channels with this peer.
    pub(crate) fn channels_with(&self, peer: &PublicKey) -> Vec<Arc<Opened>> {
        let channels = lock(&self.channels);
        let ids = channels.by_peer.get(peer).into_iter().flatten();
        ids.filter_map(|id| channels.get(id)).map(|channel| channel.wait.opened().clone()).collect()
    }

    /// What the peer hears of a channel that has failed.
    pub(crate) fn failed(&self, id: &ChannelId) -> Option<String> {
        let failed = self.with(id, |channel| channel.wait.progress().failed.clone());
        failed.flatten().map(|failure| failure.reason)
    }

    /// The channel and what became of it.
    pub(crate) fn channel(&self, id: &ChannelId) -> Option<(Arc<Opened>, Progress)> {
        self.with(id, |channel| (channel.wait.opened().clone(), channel.wait.progress().clone()))
    }

    pub(super) fn with<T>(&self, id: &ChannelId, act: impl FnOnce(&mut Channel) -> T) -> Option<T> {
        lock(&self.channels).get_mut(id).map(act)
    }

    pub(super) fn each(&self, act: impl FnMut(&mut Channel)) {
        lock(&self.channels).by_id.values_mut().for_each(act);
    }

    /// The funding transaction of an opened channel is in a block.  Returns when the depth is
    /// updated and `channel_ready`, if it was due and the peer is connected, sent.
    ///
    /// A transaction that spends the agreed inputs but does not pay the channel fails it
    /// (B2-CR-S-01).
    pub async fn confirmed(
        self: &Arc<Self>,
        channel_id: ChannelId,
        confirmation: Confirmation,
    ) -> Result<(), ConfirmError> {
        let confirmed = self.with(&channel_id, |channel| {
            channel.wait.confirmed(&confirmation)?;
            Ok((channel.wait.short_channel_id(), channel.no_longer_counts()))
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
                    self.fail_channel(&channel_id, End::WrongFunding(error));
                }
                return Err(error.into());
            }
        }
        self.note(channel_id);
        self.advance(channel_id).await?;
        self.tell_if_announceable(&channel_id);
        Ok(())
    }

    /// A reorganisation took the funding transaction's block away.
    pub fn unconfirmed(&self, channel_id: &ChannelId) -> Result<(), ConfirmError> {
        let known = self.with(channel_id, |channel| channel.wait.unconfirmed());
        known.ok_or(ConfirmError::UnknownChannel)
    }

    /// A transaction in a block spends the funding output: the channel has failed, and the node
    /// resolves what it claims (B5-MON-B-02).
    pub fn spent(
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
        let txid = transaction.compute_txid();
        let spender = if txid == opened.remote_commitment.transaction.compute_txid() {
            Spender::RemoteCommitment
        } else if txid == opened.local_commitment.transaction.compute_txid() {
            Spender::LocalCommitment
        } else {
            Spender::Other
        };
        self.fail_channel(channel_id, End::Spent { txid, spender });
        Ok(spender)
    }

    /// The channel that a payment coming in under this short channel id is for: by every alias
    /// that we gave (B2-CR-S-09), and by its place in the chain unless its type hides that
    /// (B2-CR-S-10).
    pub fn channel_known_as(&self, short_channel_id: ShortChannelId) -> Option<ChannelId> {
        let channels = lock(&self.channels);
        let mut known = channels.by_id.values();
        let known = known.find(|channel| channel.wait.is_known_as(short_channel_id));
        known.map(|channel| channel.wait.opened().channel_id)
    }

    /// Leave to broadcast the funding transaction of a channel that this node funds, for whoever
    /// has lost the one that came with it; `None` where there is none to give.
    pub fn broadcast_permit(&self, channel_id: &ChannelId) -> Option<BroadcastPermit> {
        self.with(channel_id, |channel| {
            let opened = channel.wait.opened().clone();
            let is_ours = opened.role() == Role::Funder && channel.is_whole();
            is_ours.then(|| {
                channel.is_permitted_again = true;
                BroadcastPermit::again(&opened)
            })
        })
        .flatten()
    }

    /// Gives the peer another alias for the channel, beside those it knows (B2-CR-S-11,
    /// B2-RE-R-04).  Fails before our first `channel_ready`.
    pub async fn new_alias(
        self: &Arc<Self>,
        channel_id: ChannelId,
    ) -> Result<ShortChannelId, ConfirmError> {
        let alias = self.alias().map_err(|_| ConfirmError::NotReady)?;
        let promised = self.with(&channel_id, |channel| {
            let local = channel.wait.message().and(channel.wait.progress().local);
            local.map(|local| channel.wait.promise(LocalReady { alias: Some(alias), ..local }))
        });
        promised.ok_or(ConfirmError::UnknownChannel)?.ok_or(ConfirmError::NotReady)?;
        self.write(channel_id).await.map_err(|_| ConfirmError::NotReady)?;
        let peer = self.with(&channel_id, |channel| channel.wait.opened().reference.peer);
        if let Some(peer) = peer {
            self.send_to(&peer, Command::SayAgain { channel_id });
        }
        Ok(alias)
    }

    /// What is to be done for the channel now.
    pub(crate) fn step(&self, id: &ChannelId) -> Step {
        let step = self.with(id, |channel| {
            let is_kept = channel.kept.local == channel.wait.progress().local;
            match channel.wait.message() {
                Some(message) if is_kept => Step::Say(message),
                Some(_) => Step::Prepare,
                None if channel.wait.is_due() => Step::Prepare,
                None => Step::Nothing,
            }
        });
        step.unwrap_or(Step::Nothing)
    }

    /// Makes a `channel_ready` that is due, and makes it durable: what it says must be said again
    /// after a restart.
    pub(crate) async fn prepare(
        self: &Arc<Self>,
        id: ChannelId,
        features: &NegotiatedFeatures,
    ) -> Result<(), Failure> {
        let is_due =
            |channel: &mut Channel| channel.wait.is_due().then(|| channel.wait.opened().reference);
        if let Some(reference) = self.with(&id, is_due).flatten() {
            let deadline = self.node.deadlines.signer;
            let signer = Signer::open(&*self.node.hsm, reference, deadline).await?;
            let second_per_commitment_point = signer.per_commitment_point(1).await?;
            let has_alias = features.negotiated(Feature::ScidAlias);
            let alias = has_alias.then(|| self.alias()).transpose()?;
            self.with(&id, |channel| {
                // A reorganisation may have come while the signer was asked.
                if channel.wait.is_due() {
                    channel.wait.promise(LocalReady { second_per_commitment_point, alias });
                }
            });
        }
        Ok(self.write(id).await?)
    }

    /// The peer's `channel_ready`.
    pub(crate) fn channel_ready(&self, message: &ChannelReady) {
        self.with(&message.channel_id, |channel| channel.wait.channel_ready(message));
    }

    pub(crate) fn is_in_use(&self, id: &ChannelId) -> bool {
        self.with(id, |channel| channel.is_in_use).unwrap_or(false)
    }

    /// The channel in use, once.
    pub(crate) fn becomes_ready(&self, id: &ChannelId) -> Option<Ready> {
        self.with(id, |channel| {
            let ready = channel.wait.ready().filter(|_| !channel.is_in_use)?;
            channel.is_in_use = true;
            Some(ready)
        })
        .flatten()
    }

    pub(crate) fn tell_if_announceable(&self, id: &ChannelId) {
        let announceable = self.with(id, |channel| {
            let may_be = channel.is_in_use && channel.wait.may_be_announced();
            let ready = channel.wait.ready().filter(|_| may_be && !channel.is_announced)?;
            channel.is_announced = true;
            Some(ready)
        });
        if let Some(ready) = announceable.flatten() {
            let peer = ready.opened.reference.peer;
            self.tell(&peer, Event::Announceable(Box::new(ready)));
        }
    }

    /// Our `shutdown` goes out with this script; `false` if it has before.
    pub(crate) fn shuts_down(&self, id: &ChannelId, script: ScriptBuf) -> bool {
        self.with(id, |channel| {
            let is_first = channel.wait.progress().local_shutdown.is_none();
            channel.wait.shut_down(script);
            is_first
        })
        .unwrap_or(false)
    }

    /// The channel was saved after its connection had ended: the peer's next one, which may be
    /// there already, goes on with it.
    pub(crate) fn take_up(&self, opened: &Opened) {
        let channel_id = opened.channel_id;
        self.send_to(&opened.reference.peer, Command::TakeUp { channel_id });
    }

    /// Has the peer's session look what is to be done for the channel, and waits until it is.
    async fn advance(&self, channel_id: ChannelId) -> Result<(), ConfirmError> {
        let Some((opened, _)) = self.channel(&channel_id) else { return Ok(()) };
        let (done, answer) = oneshot::channel();
        self.send_to(&opened.reference.peer, Command::Advance { channel_id, done });
        // Nobody there: it is done when the peer is back.
        answer.await.unwrap_or(Ok(()))
    }

    /// Makes durable what has become of a channel, without anyone waiting for it.
    pub(super) fn note(self: &Arc<Self>, id: ChannelId) {
        let openings = self.clone();
        tokio::spawn(async move {
            if let Err(error) = openings.write(id).await {
                log::error!("{id}: what has become of it is not kept: {error}");
            }
        });
    }

    /// Makes durable what has become of a channel.
    pub(crate) async fn write(self: &Arc<Self>, id: ChannelId) -> Result<(), StoreError> {
        let openings = self.clone();
        // A task of its own: a write that is late must not be overtaken by the next one.
        let writing = tokio::spawn(async move { openings.write_now(id).await });
        let deadline = self.node.deadlines.store;
        match timeout(deadline, writing).await {
            Ok(written) => written.unwrap_or(Err(StoreError::Interrupted)),
            Err(_) => Err(StoreError::Silent(deadline)),
        }
    }

    async fn write_now(&self, id: ChannelId) -> Result<(), StoreError> {
        let Some(writing) = self.with(&id, |channel| channel.writing.clone()) else {
            return Ok(());
        };
        let _one_at_a_time = writing.lock().await;
        let changed = self.with(&id, |channel| {
            let progress = channel.wait.progress();
            let is_kept = *progress == channel.kept;
            (!is_kept).then(|| (channel.wait.opened().clone(), progress.clone()))
        });
        let Some((opened, progress)) = changed.flatten() else { return Ok(()) };
        self.node.store.update(&opened, &progress).await?;
        self.with(&id, |channel| channel.kept = progress);
        Ok(())
    }

    /// Forgets a channel, durably first.
    pub(super) async fn erase(self: &Arc<Self>, id: ChannelId) -> Result<(), StoreError> {
        let openings = self.clone();
        let erasing = tokio::spawn(async move { openings.erase_now(id).await });
        let deadline = self.node.deadlines.store;
        match timeout(deadline, erasing).await {
            Ok(erased) => erased.unwrap_or(Err(StoreError::Interrupted)),
            Err(_) => Err(StoreError::Silent(deadline)),
        }
    }

    async fn erase_now(&self, id: ChannelId) -> Result<(), StoreError> {
        let Some(writing) = self.with(&id, |channel| channel.writing.clone()) else {
            return Ok(());
        };
        let _one_at_a_time = writing.lock().await;
        self.node.store.remove(&id).await?;
        let removed = lock(&self.channels).remove(&id);
        if let Some(mut channel) = removed {
            let peer = channel.wait.opened().reference.peer;
            if channel.no_longer_counts().is_some() {
                self.uncount_unconfirmed(&peer);
            }
            self.send_to(&peer, Command::Forget { channel_id: id });
        }
        Ok(())
    }
}

impl Channel {
    /// Whose count of unconfirmed channels has to go down, if it was in it.
    fn no_longer_counts(&mut self) -> Option<PublicKey> {
        let peer = self.wait.opened().reference.peer;
        std::mem::take(&mut self.is_counted).then_some(peer)
    }

    pub(super) fn stage(&self) -> Stage {
        let progress = self.wait.progress();
        if progress.failed.is_some() {
            Stage::Failed
        } else if self.is_in_use {
            Stage::Ready
        } else if progress.local.is_some() {
            Stage::ChannelReady
        } else {
            Stage::Depth
        }
    }

    /// Whether all channels of its transaction are saved.
    pub(super) fn is_whole(&self) -> bool {
        self.wait.opened().batch.is_empty() || self.wait.progress().is_batch_saved
    }
}
