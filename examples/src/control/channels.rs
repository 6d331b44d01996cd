//! What the node remembers of each opening, told by events.

use std::sync::Arc;

use bitcoin::secp256k1::PublicKey;
use lightning::ln::types::ChannelId;
use opening_core::Role;
use opening_peer::event::End;
use opening_peer::{Event, Opened, Stage};
use serde_json::{Value, json};

/// Every opening under way and every opened channel, oldest first.
#[derive(Default)]
pub struct Channels(Vec<Channel>);

struct Channel {
    peer: PublicKey,
    role: Role,
    temporary_channel_id: ChannelId,
    channel_id: Option<ChannelId>,
    stage: Stage,
    opened: Option<Arc<Opened>>,
}

impl Channels {
    /// Takes in a channel that the store had.
    pub fn restore(&mut self, opened: Arc<Opened>, stage: Stage) {
        self.0.push(Channel {
            peer: opened.reference.peer,
            role: opened.role(),
            temporary_channel_id: opened.temporary_channel_id,
            channel_id: Some(opened.channel_id),
            stage,
            opened: Some(opened),
        });
    }

    /// Follows what happens.
    pub fn on_event(&mut self, peer: &PublicKey, event: &Event) {
        match event {
            Event::Progress { role, temporary_channel_id, channel_id, stage } => {
                match self.find(peer, *role, temporary_channel_id, channel_id.as_ref()) {
                    Some(known) => {
                        known.stage = *stage;
                        known.channel_id = channel_id.or(known.channel_id);
                    }
                    None => self.0.push(Channel {
                        peer: *peer,
                        role: *role,
                        temporary_channel_id: *temporary_channel_id,
                        channel_id: *channel_id,
                        stage: *stage,
                        opened: None,
                    }),
                }
            }
            Event::Opened(opened) => {
                let (id, role) = (opened.temporary_channel_id, opened.role());
                if let Some(known) = self.find(peer, role, &id, Some(&opened.channel_id)) {
                    known.opened = Some(opened.clone());
                }
            }
            Event::Ready(ready) => {
                let (opened, role) = (&ready.opened, ready.opened.role());
                let id = opened.temporary_channel_id;
                if let Some(known) = self.find(peer, role, &id, Some(&opened.channel_id)) {
                    known.stage = Stage::Ready;
                }
            }
            Event::Ended(ended) => match ended.end {
                End::Forgotten { .. } | End::NeverBroadcast | End::DoubleSpent { .. } => {
                    self.remove(&ended.opened.channel_id);
                }
                // It is kept until the driver releases it.
                _ => {
                    let (opened, role) = (&ended.opened, ended.opened.role());
                    let id = opened.temporary_channel_id;
                    if let Some(known) = self.find(peer, role, &id, Some(&opened.channel_id)) {
                        known.stage = Stage::Failed;
                    }
                }
            },
            Event::Failed(failed) => self.0.retain(|known| {
                known.opened.is_some() || !known.is(peer, failed.role, &failed.temporary_channel_id)
            }),
            _ => {}
        }
    }

    /// An opened channel by its id, an opening by its temporary one: a peer may use that again
    /// as soon as it has served.
    fn find(
        &mut self,
        peer: &PublicKey,
        role: Role,
        temporary_channel_id: &ChannelId,
        channel_id: Option<&ChannelId>,
    ) -> Option<&mut Channel> {
        self.0.iter_mut().find(|known| match &known.opened {
            Some(opened) => known.peer == *peer && channel_id == Some(&opened.channel_id),
            None => known.is(peer, role, temporary_channel_id),
        })
    }

    /// Forgets an opened channel.
    pub fn remove(&mut self, id: &ChannelId) {
        self.0.retain(|known| known.channel_id != Some(*id) || known.opened.is_none());
    }

    /// An opened channel.
    pub fn get(&self, id: &ChannelId) -> Option<Arc<Opened>> {
        let mut opened = self.0.iter().filter_map(|known| known.opened.as_ref());
        opened.find(|opened| opened.channel_id == *id).cloned()
    }

    /// The channels that exist.
    pub fn opened(&self) -> Vec<Arc<Opened>> {
        self.0.iter().filter_map(|known| known.opened.clone()).collect()
    }

    /// As the driver sees them.
    pub fn to_json(&self) -> Value {
        self.0.iter().map(Channel::to_json).collect()
    }
}

impl Channel {
    fn is(&self, peer: &PublicKey, role: Role, temporary_channel_id: &ChannelId) -> bool {
        self.peer == *peer
            && self.role == role
            && self.temporary_channel_id == *temporary_channel_id
    }

    fn to_json(&self) -> Value {
        let outpoint = self.opened.as_ref().map(|opened| opened.parameters.funding_outpoint);
        json!({
            "peer": self.peer.to_string(),
            "role": self.role.as_str(),
            "stage": self.stage.as_str(),
            "temporary_channel_id": self.temporary_channel_id.to_string(),
            "channel_id": self.channel_id.map(|id| id.to_string()),
            "funding_txid": outpoint.map(|outpoint| outpoint.txid.to_string()),
            "funding_vout": outpoint.map(|outpoint| outpoint.vout),
        })
    }
}
