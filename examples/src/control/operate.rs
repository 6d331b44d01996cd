//! What an operator asks of the node beside opening channels.

use std::sync::Arc;

use bitcoin::absolute::LockTime;
use bitcoin::transaction::Version;
use bitcoin::{ScriptBuf, Transaction, consensus};
use lightning::ln::types::ChannelId;
use opening_peer::Opened;
use opening_peer::negotiation::ready::Confirmation;
use opening_peer::openings::{LastFailure, Under};
use serde_json::{Value, json};

use super::command::{Command, Refused};
use super::node::ControlNode;
use super::report::{exit_text, lock};

impl ControlNode {
    pub(super) async fn operate(&self, command: Command) -> Result<Value, Refused> {
        match command {
            Command::Status => Ok(self.status().await),
            Command::Allow { peer } => {
                self.openings.allow([peer]);
                Ok(json!({}))
            }
            Command::Disallow { peer } => {
                self.openings.disallow(&peer);
                Ok(json!({}))
            }
            Command::Shutdown { channel_id, script } => self.shut_down(channel_id, script).await,
            Command::Abandon { channel_id } => self.abandon(channel_id).await,
            Command::Release { channel_id } => self.release(channel_id).await,
            Command::SignedCommitment { channel_id } => self.signed_commitment(channel_id).await,
            other => Err(Refused::new("unknown-command", format!("not for here: {other:?}"))),
        }
    }

    async fn status(&self) -> Value {
        let status = self.openings.status().await;
        let (height, is_synced) = {
            let chain = lock(&self.chain);
            (chain.height(), chain.is_synced())
        };
        json!({
            "height": height,
            "synced": is_synced,
            "signer": status.signer.map_or_else(|error| error.code(), |()| "reachable"),
            "pending": self.openings.pending(),
            "under_way": status.under_way.iter().map(under_way).collect::<Value>(),
            "failures": status.failures.iter().map(failure).collect::<Value>(),
        })
    }

    fn opened(&self, id: &ChannelId) -> Result<Arc<Opened>, Refused> {
        let opened = self.reporter.channels().get(id);
        opened.ok_or_else(|| Refused::new("unknown-channel", format!("no opened channel {id}")))
    }

    async fn shut_down(
        &self,
        channel_id: ChannelId,
        script: Option<ScriptBuf>,
    ) -> Result<Value, Refused> {
        let peer = self.opened(&channel_id)?.reference.peer;
        let sent = self.session(&peer)?.shut_down(channel_id, script).await;
        let script = sent.map_err(|error| Refused::new(error.code(), error))?;
        Ok(json!({"script": script.to_hex_string()}))
    }

    /// The conflict is in one of the blocks that were shown.
    async fn abandon(&self, channel_id: ChannelId) -> Result<Value, Refused> {
        let opened = self.opened(&channel_id)?;
        let conflict = lock(&self.chain).conflict(&opened).unwrap_or_else(no_conflict);
        let abandoned = self.openings.abandon_double_spent(&channel_id, &conflict).await;
        abandoned.map_err(|error| Refused::new(error.code(), error))?;
        Ok(json!({}))
    }

    async fn release(&self, channel_id: ChannelId) -> Result<Value, Refused> {
        let released = self.openings.release(&channel_id).await;
        released.map_err(|error| Refused::new(error.code(), error))?;
        self.reporter.channels().remove(&channel_id);
        Ok(json!({}))
    }

    async fn signed_commitment(&self, channel_id: ChannelId) -> Result<Value, Refused> {
        let signed = self.openings.signed_commitment(&channel_id).await;
        let transaction = signed.map_err(|error| Refused::new(error.code(), error))?;
        Ok(json!({"tx": consensus::encode::serialize_hex(&transaction)}))
    }
}

/// Evidence of nothing, which is judged as such, after what weighs more.
fn no_conflict() -> Confirmation {
    let transaction = Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![],
        output: vec![],
    };
    Confirmation { transaction, block_height: 0, transaction_index: 0, depth: 0 }
}

fn under_way(under: &Under) -> Value {
    json!({
        "peer": under.peer.to_string(),
        "role": under.role.as_str(),
        "stage": under.stage.as_str(),
        "temporary_channel_id": under.temporary_channel_id.to_string(),
        "channel_id": under.channel_id.map(|id| id.to_string()),
    })
}

fn failure(failure: &LastFailure) -> Value {
    let peer = failure.peer().to_string();
    match failure {
        LastFailure::Failed(_, failed) => json!({
            "peer": peer,
            "temporary_channel_id": failed.temporary_channel_id.to_string(),
            "stage": failed.stage.as_str(),
            "code": failed.failure.code(),
            "reason": failed.to_string(),
        }),
        LastFailure::Ended(ended) => json!({
            "peer": peer,
            "channel_id": ended.opened.channel_id.to_string(),
            "code": ended.end.code(),
            "reason": ended.to_string(),
            "exit": exit_text(ended.exit),
        }),
        other => json!({"peer": peer, "reason": format!("{other:?}")}),
    }
}
