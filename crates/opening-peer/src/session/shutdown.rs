//! `shutdown` of an opened channel that is not the node's yet.

use bitcoin::ScriptBuf;
use lightning::ln::msgs::{Shutdown, WarningMessage};
use lightning::ln::types::ChannelId;
use opening_core::shutdown_script::is_valid_shutdown_script;
use tokio::sync::oneshot;

use super::task::{Flow, Task};
use crate::event::Event;

/// Why `shutdown` was not sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShutdownError {
    /// No opened channel of this connection has this id; before that it can only be cancelled
    /// (B2-SHUT-S-01).
    #[error("no opened channel of this connection has this id")]
    UnknownChannel,
    /// The opening bound us to another script (B2-SHUT-S-04).
    #[error("the channel was opened with another closing script: {0}")]
    OtherScript(ScriptBuf),
    /// None was fixed when the channel was opened, and none is given.
    #[error("the channel was opened without a closing script: give one")]
    NoScript,
    /// It has none of the forms that a closing script may have (B2-SHUT-S-05).
    #[error("not a form that a closing script may have: {0}")]
    InvalidScript(ScriptBuf),
    /// The connection ended.
    #[error("the connection ended")]
    Disconnected,
}

impl ShutdownError {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownChannel => "unknown-channel",
            Self::OtherScript(_) => "shutdown-other-script",
            Self::NoScript => "shutdown-no-script",
            Self::InvalidScript(_) => "shutdown-invalid-script",
            Self::Disconnected => "disconnected",
        }
    }
}

impl Task {
    pub(super) fn shut_down(
        &mut self,
        id: ChannelId,
        script: Option<ScriptBuf>,
        done: oneshot::Sender<Result<ScriptBuf, ShutdownError>>,
    ) {
        let answer = self.closing_script(&id, script);
        if let Ok(script) = &answer {
            self.openings.shuts_down(&id, script.clone());
        }
        let _ = done.send(answer);
    }

    /// The script to close to: the one that was sent already, or the one we are bound to, or else
    /// the one given.
    fn closing_script(
        &self,
        id: &ChannelId,
        given: Option<ScriptBuf>,
    ) -> Result<ScriptBuf, ShutdownError> {
        if !self.links.contains(id) {
            return Err(ShutdownError::UnknownChannel);
        }
        let (opened, progress) = self.openings.channel(id).ok_or(ShutdownError::UnknownChannel)?;
        let bound = progress.local_shutdown.or_else(|| opened.local_shutdown_script.clone());
        match (bound, given) {
            (Some(bound), Some(given)) if bound != given => Err(ShutdownError::OtherScript(bound)),
            (Some(bound), _) => Ok(bound),
            (None, Some(given)) if !is_valid_shutdown_script(&given, &self.features) => {
                Err(ShutdownError::InvalidScript(given))
            }
            (None, given) => given.ok_or(ShutdownError::NoScript),
        }
    }

    /// Before the funding is signed there is nothing to shut down (B2-SHUT-R-01).
    pub(super) fn on_shutdown(&mut self, message: &Shutdown, bytes: &[u8]) -> Flow {
        let id = message.channel_id;
        if self.links.contains(&id) && !self.openings.node.rest.owns(&self.peer, &id) {
            return self.on_shutdown_of_opened(message, bytes);
        }
        let is_kept = !self.belongs_to_node(&id)
            && (self.keep_for_our_channel(&id, bytes) || self.keep_for_their_channel(&id, bytes));
        if !is_kept {
            self.on_out_of_place("shutdown", id, bytes);
        }
        Flow::Continue
    }

    /// Answered by our own where the script is known; what follows is the node's, which hears the
    /// peer's (B2-SHUT-R-03, B2-SHUT-R-04).
    fn on_shutdown_of_opened(&mut self, message: &Shutdown, bytes: &[u8]) -> Flow {
        let Shutdown { channel_id, ref scriptpubkey } = *message;
        let Some((opened, _)) = self.openings.channel(&channel_id) else { return Flow::Continue };
        if opened.remote_shutdown_script.as_ref().is_some_and(|bound| bound != scriptpubkey) {
            // B2-SHUT-R-05, B2-SHUT-R-06.
            self.warn(channel_id, "shutdown with another script than upfront".into());
            return Flow::Close("the peer's shutdown breaks its upfront_shutdown_script".into());
        }
        if !is_valid_shutdown_script(scriptpubkey, &self.features) {
            self.warn(channel_id, "shutdown with an invalid script".into());
            return Flow::Continue;
        }
        self.openings.remote_shuts_down(&channel_id);
        self.openings.node.rest.message(&self.peer, bytes);
        let given = self.openings.node.rest.closing_script(&opened);
        if let Ok(script) = self.closing_script(&channel_id, given) {
            self.openings.shuts_down(&channel_id, script);
        }
        Flow::Continue
    }

    fn warn(&mut self, channel_id: ChannelId, text: String) {
        self.send(&WarningMessage { channel_id, data: text.clone() });
        self.event(Event::WarningSent { channel_id, text });
    }
}
