//! What happens, as lines of stdout.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bitcoin::secp256k1::PublicKey;
use bitcoin::{Transaction, consensus};
use lightning::ln::types::ChannelId;
use opening_peer::event::Ended;
use opening_peer::negotiation::ready::Exit;
use opening_peer::node::Events;
use opening_peer::session::{Canceller, PendingFunding};
use opening_peer::store::StoreError;
use opening_peer::{Event, Failed, Opened, Stage};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::channels::Channels;
use super::output::Output;

/// Tells the driver what happens, and keeps the list of channels.
pub struct Reporter {
    output: Output,
    channels: Mutex<Channels>,
    pending: Mutex<HashMap<ChannelId, Pending>>,
    /// A channel was opened: its transaction may be mined already.
    pub(super) opened: Notify,
}

/// An opening of ours on its way.
pub(super) struct Pending {
    pub(super) canceller: Canceller,
    /// Once the peer has accepted, until the driver brings the transaction.
    pub(super) funding: Option<PendingFunding>,
}

impl Reporter {
    /// Writes to `output`.
    pub fn new(output: Output) -> Self {
        Self {
            output,
            channels: Mutex::default(),
            pending: Mutex::default(),
            opened: Notify::new(),
        }
    }

    pub(super) fn channels(&self) -> MutexGuard<'_, Channels> {
        lock(&self.channels)
    }

    pub(super) fn pending(&self) -> MutexGuard<'_, HashMap<ChannelId, Pending>> {
        lock(&self.pending)
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic ends the process: see `main`.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Events for Reporter {
    fn event(&self, peer: &PublicKey, event: Event) {
        self.channels().on_event(peer, &event);
        match &event {
            Event::Failed(failed) => drop(self.pending().remove(&failed.temporary_channel_id)),
            Event::Opened(_) => self.opened.notify_one(),
            _ => {}
        }
        if let Some(line) = line(&peer.to_string(), &event) {
            self.output.line(line);
        }
    }
}

fn line(peer: &str, event: &Event) -> Option<Value> {
    Some(match event {
        Event::Disconnected { .. } => json!({"event": "peer_disconnected", "peer": peer}),
        Event::Failed(failed) => failed_line(peer, failed),
        Event::Opened(opened) => opened_line(peer, opened),
        Event::Ready(ready) => channel_line("channel_ready", peer, &ready.opened.channel_id),
        Event::Announceable(ready) => {
            let mut line = channel_line("announceable", peer, &ready.opened.channel_id);
            line["short_channel_id"] = ready.short_channel_id.map(|id| id.to_string()).into();
            line
        }
        Event::SaveOverdue { channel_id, after } => {
            let mut line = channel_line("save_overdue", peer, channel_id);
            line["seconds"] = after.as_secs().into();
            line
        }
        Event::StillUnconfirmed { opened, blocks } => {
            let mut line = channel_line("still_unconfirmed", peer, &opened.channel_id);
            line["blocks"] = (*blocks).into();
            line
        }
        Event::Ended(ended) => ended_line(peer, ended),
        Event::ErrorSent { channel_id, text } => text_line("error_sent", peer, channel_id, text),
        Event::WarningSent { channel_id, text } => {
            text_line("warning_sent", peer, channel_id, text)
        }
        Event::ErrorReceived { channel_id, text } => {
            text_line("error_received", peer, channel_id, text)
        }
        Event::WarningReceived { channel_id, text } => {
            text_line("warning_received", peer, channel_id, text)
        }
        // `Connected` comes before anyone can use the session: `peer_connected` is said later.
        _ => return None,
    })
}

fn channel_line(event: &str, peer: &str, channel_id: &ChannelId) -> Value {
    json!({"event": event, "peer": peer, "channel_id": channel_id.to_string()})
}

fn text_line(event: &str, peer: &str, channel_id: &ChannelId, text: &str) -> Value {
    let mut line = channel_line(event, peer, channel_id);
    line["text"] = text.into();
    line
}

fn opened_line(peer: &str, opened: &Opened) -> Value {
    let outpoint = opened.parameters.funding_outpoint;
    json!({
        "event": "opened",
        "peer": peer,
        "channel_id": opened.channel_id.to_string(),
        "funding_txid": outpoint.txid.to_string(),
        "funding_vout": outpoint.vout,
        "role": opened.role().as_str(),
        "commitment_txid": opened.local_commitment.transaction.compute_txid().to_string(),
    })
}

fn failed_line(peer: &str, failed: &Failed) -> Value {
    let mut line = json!({
        "event": "failed",
        "peer": peer,
        "temporary_channel_id": failed.temporary_channel_id.to_string(),
        "stage": failed.stage.as_str(),
        "code": failed.failure.code(),
        "reason": failed.to_string(),
    });
    if let Some(channel_id) = failed.channel_id {
        line["channel_id"] = channel_id.to_string().into();
    }
    line
}

fn ended_line(peer: &str, ended: &Ended) -> Value {
    let mut line = channel_line("ended", peer, &ended.opened.channel_id);
    line["code"] = ended.end.code().into();
    line["reason"] = ended.to_string().into();
    line["exit"] = exit_text(ended.exit).into();
    line
}

/// What the driver has to do about a channel that has failed.
pub(super) fn exit_text(exit: Exit) -> &'static str {
    match exit {
        Exit::Broadcast => "broadcast",
        Exit::Watch => "watch",
        Exit::AwaitPeer => "await-peer",
        Exit::Nothing => "nothing",
    }
}

/// The transaction may go out.
pub(super) fn broadcast_line(transaction: &Transaction) -> Value {
    json!({"event": "broadcast", "tx": consensus::encode::serialize_hex(transaction)})
}

/// A channel was there before the restart.
pub(super) fn restored_line(opened: &Opened, stage: Stage) -> Value {
    let mut line = opened_line(&opened.reference.peer.to_string(), opened);
    line["event"] = "restored".into();
    line["stage"] = stage.as_str().into();
    line
}

/// An entry of the store that cannot be read.
pub(super) fn damaged_line(key: &str, error: &StoreError) -> Value {
    json!({
        "event": "damaged", "key": key, "code": error.code(), "reason": error.to_string(),
    })
}
