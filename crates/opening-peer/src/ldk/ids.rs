//! Which of the ids that one peer and we use are ours, and not the inner handler's.

use std::collections::{HashMap, VecDeque};

use bitcoin::OutPoint;
use lightning::ln::msgs::{ErrorAction, FundingCreated, MessageSendEvent};
use lightning::ln::types::ChannelId;
use opening_core::Role;

/// Openings that have ended and whose ids are still known, so that a late word about one does not
/// reach the inner handler.
const REMEMBERED: usize = 64;

/// Ours in an opening, and the id by which it began: both sides may choose the same one.
type Name = (Role, ChannelId);

/// The openings of one connection that are ours.
#[derive(Default)]
pub(super) struct Ids {
    /// The channel's id is known from `funding_created` on.
    openings: HashMap<Name, Option<ChannelId>>,
    channels: HashMap<ChannelId, Name>,
    /// The oldest first.  Some have become channels: whoever keeps those knows them.
    ended: VecDeque<Name>,
}

impl Ids {
    /// An opening begins, in which this is our role.
    pub(super) fn begin(&mut self, role: Role, temporary_channel_id: ChannelId) {
        let name = (role, temporary_channel_id);
        if self.ended.contains(&name) {
            // A peer may retry under the same id.
            self.ended.retain(|ended| *ended != name);
            self.forget(name);
        }
        // A second offer under the id of a pending one makes no other opening.
        self.openings.entry(name).or_default();
    }

    /// `funding_created` tells which channel an opening makes.
    pub(super) fn funding_created(&mut self, role: Role, message: &FundingCreated) {
        let vout = message.funding_output_index.into();
        let outpoint = OutPoint { txid: message.funding_txid, vout };
        if let Some(channel_id) = opening_core::channel_id(outpoint) {
            self.fund(role, message.temporary_channel_id, ChannelId(channel_id));
        }
    }

    /// Learns from what the session says.
    pub(super) fn note_sent(&mut self, event: &MessageSendEvent) {
        match event {
            MessageSendEvent::SendOpenChannel { msg, .. } => {
                self.begin(Role::Funder, msg.common_fields.temporary_channel_id);
            }
            MessageSendEvent::SendFundingCreated { msg, .. } => {
                self.funding_created(Role::Funder, msg);
            }
            // From here on the channel is saved, and `Openings` knows it.
            MessageSendEvent::SendFundingSigned { msg, .. } => self.end(&msg.channel_id),
            MessageSendEvent::SendChannelReady { msg, .. } => self.end(&msg.channel_id),
            MessageSendEvent::HandleError {
                action: ErrorAction::SendErrorMessage { msg }, ..
            } => self.end(&msg.channel_id),
            _ => {}
        }
    }

    /// Only the first one counts.
    fn fund(&mut self, role: Role, temporary_id: ChannelId, channel_id: ChannelId) {
        let name = (role, temporary_id);
        if let Some(channel @ None) = self.openings.get_mut(&name) {
            *channel = Some(channel_id);
            self.channels.insert(channel_id, name);
        }
    }

    /// Nothing more is to come of what `id` names, or a channel that others know by now.
    pub(super) fn end(&mut self, id: &ChannelId) {
        let begun = [Role::Funder, Role::Fundee].map(|role| (role, *id));
        let named = begun.into_iter().chain(self.channels.get(id).copied());
        for name in named.collect::<Vec<_>>() {
            if self.openings.contains_key(&name) && !self.ended.contains(&name) {
                self.ended.push_back(name);
            }
        }
        while self.ended.len() > REMEMBERED
            && let Some(oldest) = self.ended.pop_front()
        {
            self.forget(oldest);
        }
    }

    /// Whether an opening of ours has, or had, this id, temporary or final.
    pub(super) fn contains(&self, id: &ChannelId) -> bool {
        self.channels.contains_key(id)
            || self.openings.contains_key(&(Role::Funder, *id))
            || self.openings.contains_key(&(Role::Fundee, *id))
    }

    /// Whether an opening by this id, in either direction, is under way.
    pub(super) fn is_pending(&self, temporary_channel_id: &ChannelId) -> bool {
        [Role::Funder, Role::Fundee].into_iter().any(|role| {
            let name = (role, *temporary_channel_id);
            self.openings.contains_key(&name) && !self.ended.contains(&name)
        })
    }

    /// What has ended under this id is no longer known: the inner handler begins an opening by it.
    pub(super) fn release(&mut self, temporary_channel_id: &ChannelId) {
        for name in [Role::Funder, Role::Fundee].map(|role| (role, *temporary_channel_id)) {
            if self.ended.contains(&name) {
                self.ended.retain(|ended| *ended != name);
                self.forget(name);
            }
        }
    }

    fn forget(&mut self, name: Name) {
        let Some(Some(channel_id)) = self.openings.remove(&name) else { return };
        if self.channels.get(&channel_id) == Some(&name) {
            self.channels.remove(&channel_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> ChannelId {
        let mut bytes = [0xee; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        ChannelId(bytes)
    }

    #[test]
    fn both_ids_are_known_until_many_others_have_ended() {
        let mut ids = Ids::default();
        ids.begin(Role::Fundee, id(0));
        ids.fund(Role::Fundee, id(0), id(1));
        // Only the first funding_created makes the channel.
        ids.fund(Role::Fundee, id(0), id(2));
        assert!(ids.contains(&id(0)) && ids.contains(&id(1)) && !ids.contains(&id(2)));
        // By either id, once.
        ids.end(&id(1));
        ids.end(&id(0));
        assert_eq!(ids.ended.len(), 1);
        for number in 10..10 + REMEMBERED {
            assert!(ids.contains(&id(0)) && ids.contains(&id(1)));
            ids.begin(Role::Fundee, id(number));
            ids.end(&id(number));
        }
        assert!(!ids.contains(&id(0)) && !ids.contains(&id(1)));
        assert_eq!(ids.openings.len(), REMEMBERED);
        assert!(ids.channels.is_empty());
    }

    #[test]
    fn what_begins_again_does_not_end_with_the_first_try() {
        let mut ids = Ids::default();
        ids.begin(Role::Funder, id(0));
        ids.end(&id(0));
        ids.begin(Role::Funder, id(0));
        for number in 10..10 + 2 * REMEMBERED {
            ids.begin(Role::Fundee, id(number));
            ids.end(&id(number));
        }
        assert!(ids.contains(&id(0)) && ids.is_pending(&id(0)));
        // An id that both sides chose names both openings.
        ids.begin(Role::Fundee, id(0));
        ids.end(&id(0));
        assert_eq!(ids.ended.iter().filter(|(_, ended)| *ended == id(0)).count(), 2);
        assert!(ids.contains(&id(0)) && !ids.is_pending(&id(0)));
        ids.release(&id(0));
        assert!(!ids.contains(&id(0)));
    }
}
