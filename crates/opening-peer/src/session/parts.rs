//! The connection handed back to the node, and taken up again.
//!
//! ```text
//!   Session --into_parts--> Parts { transport, negotiations }
//!                             |             |
//!                 the node reads, writes    |  drivers, clocks and handles go on
//!                             |             |
//!                             +--- resume --+--> Session, with every negotiation
//!                             +--- cancel --+--> the transport, all told
//! ```

use bitcoin::secp256k1::PublicKey;
use opening_core::NegotiatedFeatures;
use tokio::sync::oneshot;

use super::wire::{Lent, Outbox};
use super::{Command, Session};
use crate::openings::{Life, Under};
use crate::transport::{Transport, TransportError, Writer};

/// A connection in the node's own hands, and what is under way on it.
///
/// What the node says on it itself is not looked at: openings are ended by their handles, or by
/// [`Negotiations::cancel`], and not by an `error` that the node writes.  Dropped, the parts end as
/// a lost connection does.
#[derive(Debug)]
#[must_use = "dropping the parts ends the connection and what is under way on it"]
pub struct Parts {
    /// The transport where the session left it: its ciphers, a frame half received and one half
    /// written, messages that nobody has read and messages that are not written yet.
    pub transport: Transport,
    /// What is under way on it.
    pub negotiations: Negotiations,
}

/// The openings of a connection, while the node has its transport.
///
/// Nothing here stands still.  Policy, signer, wallet and store go on with their work, and so do
/// the handles: what they have to say to the peer is kept, and goes out first thing at the
/// [resume](Session::resume).  The clocks go on, too: an opening of which the deadline passes ends,
/// and its `error` is kept.  Only messages of the node's own, by [`Session::send`], wait.
///
/// The session's other handles see it as connected.  The negotiations end without the transport
/// where the session would end: closed by one of its other handles, replaced by a new connection of
/// the same peer, or by [`Openings::shut_down`](crate::Openings::shut_down).
#[derive(Debug)]
#[must_use = "dropping the negotiations ends them"]
pub struct Negotiations {
    session: Session,
    back: oneshot::Sender<Box<Transport>>,
    outbox: Outbox,
}

/// Why a session was not taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PartsError {
    /// The connection has ended, or failed: there is nothing left to hand back.
    #[error("the connection ended")]
    Disconnected,
    /// The node has the transport already.
    #[error("the node has the connection's parts already")]
    HandedOut,
}

impl PartsError {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::HandedOut => "parts-handed-out",
        }
    }
}

/// The session ended while the node had its transport.  What it had said until then is queued on
/// the writer.
#[derive(Debug, thiserror::Error)]
#[error("the session ended while the node had its transport")]
pub struct ResumeError {
    /// The transport, which is the node's alone now.
    pub transport: Box<Transport>,
}

impl ResumeError {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        "session-ended"
    }
}

impl Session {
    /// Hands the connection back to the node, which may use it as it likes between two messages,
    /// and then [resume](Self::resume) the session or [cancel](Negotiations::cancel) what is under
    /// way.
    ///
    /// Messages of the peer's for the session, which the node may meet while it reads, are to be
    /// [put back](crate::transport::Reader::put_back) before the resume.
    ///
    /// Fails when the connection is over.  After the failure of an opening, or of all of them, the
    /// connection is handed back like any other.  Not cancel safe: dropped while it waits, it may
    /// end the connection, as dropped parts do.
    pub async fn into_parts(self) -> Result<Parts, PartsError> {
        let (done, lent) = oneshot::channel();
        let gone = PartsError::Disconnected;
        self.commands.send(Command::Lend { done }).map_err(|_| gone)?;
        let Lent { transport, back, outbox } = lent.await.map_err(|_| gone)??;
        let negotiations = Negotiations { session: self, back, outbox };
        Ok(Parts { transport: *transport, negotiations })
    }

    /// Goes on where [`into_parts`](Self::into_parts) has left off, with every negotiation that has
    /// not ended meanwhile.
    ///
    /// Fails where the session has ended meanwhile, and then gives the transport back.
    pub fn resume(parts: Parts) -> Result<Self, ResumeError> {
        let Parts { transport, negotiations } = parts;
        let Negotiations { session, back, outbox } = negotiations;
        match back.send(Box::new(transport)) {
            Ok(()) => Ok(session),
            Err(mut transport) => {
                if let Err(error) = outbox.empty_into(&mut transport.writer) {
                    log::debug!("{}: not sent: {error}", session.peer);
                }
                Err(ResumeError { transport })
            }
        }
    }
}

impl Negotiations {
    /// The peer's node id.
    pub fn peer(&self) -> PublicKey {
        self.session.peer()
    }

    /// The features of both `init` messages.
    pub fn features(&self) -> &NegotiatedFeatures {
        self.session.features()
    }

    /// The openings that are under way now.
    pub async fn pending(&self) -> Vec<Under> {
        let (done, answer) = oneshot::channel();
        let _ = self.session.commands.send(Command::Status { done });
        // A session that has ended has nothing under way.
        answer.await.unwrap_or_default()
    }

    /// Ends them all, and queues what the peer is to hear of it; the connection is the node's
    /// alone from then on.  A channel that is being saved is awaited, for as long as
    /// [`Deadlines::store`](crate::Deadlines::store), and what it has to say queued, too.
    ///
    /// Opened channels that are not in use yet go on over the peer's next connection.
    pub async fn cancel(self, writer: &mut Writer) -> Result<(), TransportError> {
        // Without `back` the session would take the connection for lost.
        let Self { mut session, back: _back, outbox } = self;
        // A session that is gone has ended them.
        let _ = session.commands.send(Command::CancelAll);
        let _ = session.life.wait_for(|life| *life >= Life::Ended).await;
        outbox.empty_into(writer)
    }
}
