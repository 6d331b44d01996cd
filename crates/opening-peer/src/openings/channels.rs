//! Opened channels, until the node takes them over.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bitcoin::ScriptBuf;
use bitcoin::secp256k1::PublicKey;
use lightning::ln::msgs::ChannelReady;
use lightning::ln::types::ChannelId;
use opening_core::{Feature, NegotiatedFeatures, Role, ShortChannelId};
use tokio::sync::oneshot;

use super::claims::Claims;
use super::evidence::ConfirmError;
use super::{Openings, Under, lock};
use crate::event::Event;
use crate::failure::{Failure, Stage};
use crate::negotiation::ready::{LocalReady, Progress, Ready, WaitForReady};
use crate::negotiation::{BroadcastPermit, Opened};
use crate::session::Command;

/// Opened channels by their id, and by their peer.
#[derive(Default)]
pub(super) struct Channels {
    by_id: HashMap<ChannelId, Channel>,
    by_peer: HashMap<PublicKey, Vec<ChannelId>>,
    /// Being saved: it is not known yet whether there is a channel.
    pub(super) saving: HashMap<ChannelId, Under>,
    /// Entries of the store that cannot be read: there is a channel, but nobody knows whose.
    pub(super) damaged: HashSet<ChannelId>,
}

pub(super) struct Channel {
    pub(super) wait: WaitForReady,
    /// What of its progress is durable.
    pub(super) kept: Progress,
    /// One write at a time, so that an older one never comes last.
    pub(super) writing: Arc<tokio::sync::Mutex<()>>,
    /// Someone writes until all that became of it is durable.
    pub(super) is_noting: bool,
    /// It is being removed: nothing happens to it any more.
    is_leaving: bool,
    /// What the peer says that we revoked.
    pub(super) claims: Claims,
    /// Counted among those of its peer that have not confirmed.
    is_counted: bool,
    /// Our `channel_ready` has gone out, or may have before a restart.
    may_be_said: bool,
    /// Both `channel_ready` have passed, and the node knows.
    pub(super) is_in_use: bool,
    /// By which place in the chain the node knows that it may announce the channel.
    announced: Option<ShortChannelId>,
    /// More than one permit to broadcast has been given.
    pub(super) is_permitted_again: bool,
    /// How often the node was reminded that its funding has not confirmed.
    pub(super) reminders: u32,
}

impl Channels {
    /// A channel to which things happen.
    pub(super) fn get_mut(&mut self, id: &ChannelId) -> Option<&mut Channel> {
        self.by_id.get_mut(id).filter(|channel| !channel.is_leaving)
    }

    /// Every channel to which things happen.
    pub(super) fn each(&mut self) -> impl Iterator<Item = &mut Channel> {
        self.by_id.values_mut().filter(|channel| !channel.is_leaving)
    }

    /// Its lock for writing, even while it is being removed.
    pub(super) fn writing(&self, id: &ChannelId) -> Option<Arc<tokio::sync::Mutex<()>>> {
        self.by_id.get(id).map(|channel| channel.writing.clone())
    }

    /// Begins the removal of a channel.  There is no way back.
    pub(super) fn leave(&mut self, id: &ChannelId) -> Option<Arc<Opened>> {
        let channel = self.get_mut(id)?;
        channel.is_leaving = true;
        Some(channel.wait.opened().clone())
    }

    fn insert(&mut self, channel: Channel) {
        let opened = channel.wait.opened();
        let (id, peer) = (opened.channel_id, opened.reference.peer);
        self.saving.remove(&id);
        self.by_peer.entry(peer).or_default().push(id);
        self.by_id.insert(id, channel);
    }

    pub(super) fn remove(&mut self, id: &ChannelId) -> Option<Channel> {
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

impl Openings {
    /// A channel with this peer is being saved, and will be one unless [`not_saved`] is told.
    ///
    /// [`not_saved`]: Self::not_saved
    pub(super) fn begins_saving(&self, opened: &Opened) {
        let under = Under::of(opened, Stage::Save);
        lock(&self.channels).saving.insert(opened.channel_id, under);
    }

    /// It is known that the channel is not kept.
    pub(super) fn not_saved(&self, id: &ChannelId) {
        lock(&self.channels).saving.remove(id);
    }

    /// Whether a channel with this peer is being saved, on whatever connection it was opened.
    pub(crate) fn is_saving(&self, peer: &PublicKey, id: &ChannelId) -> bool {
        lock(&self.channels).saving.get(id).is_some_and(|under| under.peer == *peer)
    }

    /// Takes in a channel that is saved.
    pub(crate) fn take_in(&self, opened: Arc<Opened>, progress: Progress) {
        let is_counted = opened.role() == Role::Fundee && !progress.was_confirmed;
        if is_counted {
            self.count_unconfirmed(opened.reference.peer);
        }
        let channel = Channel {
            may_be_said: progress.local.is_some(),
            wait: WaitForReady::restore(opened, progress.clone()),
            kept: progress,
            writing: Arc::default(),
            is_noting: false,
            is_leaving: false,
            claims: Claims::default(),
            is_counted,
            is_in_use: false,
            announced: None,
            is_permitted_again: false,
            reminders: 0,
        };
        lock(&self.channels).insert(channel);
    }

    /// Whether this node has the channel with this peer, whichever session opened it, or is about
    /// to.
    // Not with anyone: a stranger must not learn which outpoints are channels of ours.
    pub(crate) fn has_channel(&self, peer: &PublicKey, channel_id: &ChannelId) -> bool {
        let channels = lock(&self.channels);
        let channel = channels.by_id.get(channel_id);
        channel.is_some_and(|channel| channel.wait.opened().reference.peer == *peer)
            || channels.saving.get(channel_id).is_some_and(|under| under.peer == *peer)
            || channels.damaged.contains(channel_id)
    }

    /// The channels with this peer.
    pub(crate) fn channels_with(&self, peer: &PublicKey) -> Vec<Arc<Opened>> {
        let channels = lock(&self.channels);
        let ids = channels.by_peer.get(peer).into_iter().flatten();
        let channels = ids.filter_map(|id| channels.by_id.get(id));
        let living = channels.filter(|channel| !channel.is_leaving);
        living.map(|channel| channel.wait.opened().clone()).collect()
    }

    /// Whether this is a channel with this peer that has failed.
    pub(crate) fn has_failed(&self, peer: &PublicKey, id: &ChannelId) -> bool {
        self.with(id, |channel| {
            channel.wait.opened().reference.peer == *peer
                && channel.wait.progress().failed.is_some()
        })
        .unwrap_or(false)
    }

    /// The channel and what became of it.
    pub(crate) fn channel(&self, id: &ChannelId) -> Option<(Arc<Opened>, Progress)> {
        self.with(id, |channel| (channel.wait.opened().clone(), channel.wait.progress().clone()))
    }

    pub(super) fn with<T>(&self, id: &ChannelId, act: impl FnOnce(&mut Channel) -> T) -> Option<T> {
        lock(&self.channels).get_mut(id).map(act)
    }

    pub(super) fn each(&self, act: impl FnMut(&mut Channel)) {
        lock(&self.channels).each().for_each(act);
    }

    /// The channel that a payment coming in under this short channel id is for: by every alias
    /// that we gave (B2-CR-S-09), and by its place in the chain unless its type hides that
    /// (B2-CR-S-10).
    pub fn channel_known_as(&self, short_channel_id: ShortChannelId) -> Option<ChannelId> {
        let channels = lock(&self.channels);
        let mut channels = channels.by_id.values();
        let known = channels.find(|channel| channel.wait.is_known_as(short_channel_id));
        known.map(|channel| channel.wait.opened().channel_id)
    }

    /// Leave to broadcast the funding transaction of a channel that this node funds, for whoever
    /// has lost the one that came with it; `None` where there is none to give: the channel is not
    /// ours to fund, has failed, or is one of a batch of which not all are saved.
    pub fn broadcast_permit(&self, channel_id: &ChannelId) -> Option<BroadcastPermit> {
        self.with(channel_id, |channel| {
            let opened = channel.wait.opened().clone();
            let goes_on = channel.wait.progress().failed.is_none();
            let is_ours = opened.role() == Role::Funder && channel.is_whole() && goes_on;
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
        if self.write(channel_id).await.is_err() {
            self.note(channel_id);
            return Err(ConfirmError::NotReady);
        }
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
                // A reorganisation may have come before it was said for the first time.
                Some(_) if !channel.may_be_said && !channel.wait.is_deep_enough() => Step::Nothing,
                Some(message) if is_kept => Step::Say(message),
                Some(_) => Step::Prepare,
                None if channel.wait.is_due() => Step::Prepare,
                None => Step::Nothing,
            }
        });
        step.unwrap_or(Step::Nothing)
    }

    /// Our `channel_ready` is on its way.
    pub(crate) fn is_said(&self, id: &ChannelId) {
        self.with(id, |channel| channel.may_be_said = true);
    }

    /// Makes a `channel_ready` that is due, and makes it durable: what it says must be said again
    /// after a restart.
    pub(crate) async fn prepare(
        self: &Arc<Self>,
        id: ChannelId,
        features: &NegotiatedFeatures,
    ) -> Result<(), Failure> {
        let is_due =
            |channel: &mut Channel| channel.wait.is_due().then(|| channel.wait.opened().clone());
        if let Some(opened) = self.with(&id, is_due).flatten() {
            let signer = self.signer_set_up(&opened).await?;
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
        let written = self.write(id).await;
        if written.is_err() {
            // Said as soon as the store has done it.
            self.note(id);
        }
        Ok(written?)
    }

    /// The peer's `channel_ready`.
    pub(crate) fn channel_ready(&self, message: &ChannelReady) {
        self.with(&message.channel_id, |channel| channel.wait.channel_ready(message));
    }

    pub(crate) fn is_in_use(&self, id: &ChannelId) -> bool {
        self.with(id, |channel| channel.is_in_use).unwrap_or(false)
    }

    /// The channel in use, once.  Our `channel_ready` is out.
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
            // Again where a reorganisation has put it somewhere else.
            let place = channel.wait.short_channel_id().filter(|_| may_be);
            let is_news = place.is_some() && place != channel.announced;
            let ready = channel.wait.ready().filter(|_| is_news)?;
            channel.announced = place;
            Some(ready)
        });
        if let Some(ready) = announceable.flatten() {
            let peer = ready.opened.reference.peer;
            self.tell(&peer, Event::Announceable(Box::new(ready)));
        }
    }

    /// The node has our `shutdown` go out with this script, once that is durable; every connection
    /// from then on carries it.
    pub(crate) fn shuts_down(self: &Arc<Self>, id: &ChannelId, script: ScriptBuf) {
        self.with(id, |channel| channel.wait.shut_down(script));
        self.note(*id);
    }

    /// The peer has sent `shutdown`.
    pub(crate) fn remote_shuts_down(&self, id: &ChannelId) {
        self.with(id, |channel| channel.wait.remote_shuts_down());
    }

    /// The script of our `shutdown`, if it is to go out.
    pub(crate) fn shutdown_to_say(&self, id: &ChannelId) -> Option<ScriptBuf> {
        self.with(id, |channel| channel.kept.local_shutdown.clone()).flatten()
    }

    /// The channel was saved after its connection had ended: the peer's next one, which may be
    /// there already, goes on with it.
    pub(crate) fn take_up(&self, opened: &Opened) {
        let channel_id = opened.channel_id;
        self.send_to(&opened.reference.peer, Command::TakeUp { channel_id });
    }

    /// Has the peer's session look what is to be done for the channel, and waits until it is.
    pub(super) async fn advance(&self, channel_id: ChannelId) -> Result<(), ConfirmError> {
        let Some((opened, _)) = self.channel(&channel_id) else { return Ok(()) };
        let (done, answer) = oneshot::channel();
        self.send_to(&opened.reference.peer, Command::Advance { channel_id, done });
        // Nobody there: it is done when the peer is back.
        answer.await.unwrap_or(Ok(()))
    }

    /// The same, without waiting.
    pub(super) fn nudge(&self, opened: &Opened) {
        let (done, _) = oneshot::channel();
        let channel_id = opened.channel_id;
        self.send_to(&opened.reference.peer, Command::Advance { channel_id, done });
    }
}

impl Channel {
    /// Whose count of unconfirmed channels has to go down, if it was in it.
    pub(super) fn no_longer_counts(&mut self) -> Option<PublicKey> {
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
