//! The client: a signer behind hsmd's wire as an [`Hsm`].

use std::collections::HashMap;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex as SyncMutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::Network;
use bitcoin::secp256k1::{PublicKey, Secp256k1, VerifyOnly};
use tokio::net::UnixStream;
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::channel::{HsmdChannel, Link};
use super::kept::Kept;
use super::line::LineError;
use super::message::Message;
use super::protocol;
use super::root::{Root, Source, Up};
use crate::error::{HsmError, HsmResult};
use crate::hsm::{ChannelHsm, Hsm};
use crate::info::{Bounds, Enforcement, Info, Pipelining};
use crate::memory::invalid;
use crate::remote::backoff::Backoff;
use crate::request::ChannelRef;
use crate::verified::Verified;

/// What the node knows of a signer behind hsmd's wire, which cannot be asked.
#[derive(Clone, Debug)]
pub struct HsmdConfig {
    /// The chain.
    pub network: Network,
    /// What it enforces; by default nothing, as Core Lightning's own.
    pub enforcement: Enforcement,
    /// Within which bounds it signs; by default all.
    pub bounds: Bounds,
    /// How long one call may take, with reconnecting and asking again.  Shorter than the node's
    /// own deadline for signers, so that the reason is known before the patience ends; 30 s by
    /// default.
    pub deadline: Duration,
}

impl HsmdConfig {
    /// For Core Lightning's own hsmd.
    pub fn new(network: Network) -> Self {
        Self {
            network,
            enforcement: Enforcement::Blind,
            bounds: Bounds::none(),
            deadline: Duration::from_secs(30),
        }
    }
}

/// The node's connection ends with the signer's process too: a request over which it ends so often
/// in a row is refused.
const TIMES_CLOSED: u32 = 3;

/// A signer behind hsmd's wire, versions 5 and 6.
///
/// A call whose connection ends is made again with identical bytes on the next one, preceded by
/// what a signer that was restarted has forgotten, until [`HsmdConfig::deadline`].  Then it is
/// [`Indeterminate`](HsmError::Indeterminate) if it was ever sent, and
/// [`Unavailable`](HsmError::Unavailable) if not.  hsmd says no by closing the channel's
/// connection: a call that it closes twice over, or the node's connection three times, is
/// [`Refused`](HsmError::Refused) with the tag `connection-closed`.
///
/// One that comes back with another node id has another secret: it is not asked for anything, and
/// [`health`](Hsm::health) says so until the first is back.
///
/// At version 5 a point from commitment 2 on is never asked for, because it would come with the
/// secret of a commitment: that call is [`Refused`](HsmError::Refused) with the tag
/// `point-with-secret`.
///
/// Core Lightning's own signs whatever it is asked to.  So one setup and one commitment 0 for each
/// channel, and our own only after validation, are kept here, for as long as the process lives.  For
/// a signer that is blind ([`HsmdConfig::enforcement`]) the peer's commitment is built from the setup
/// too, and no other is asked for.
#[derive(Debug)]
pub struct HsmdHsm(Verified<Client>);

#[derive(Debug)]
pub(super) struct Client {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    root: Root,
    config: HsmdConfig,
    pub(super) secp: Secp256k1<VerifyOnly>,
    /// What hsmd does not look at is looked at here.
    kept: SyncMutex<HashMap<ChannelRef, Kept>>,
}

impl HsmdHsm {
    /// Over a socket that was inherited or made by the caller.  When it ends the signer is gone
    /// for good.
    pub async fn over(socket: StdUnixStream, config: HsmdConfig) -> HsmResult<Self> {
        let stream = socket.set_nonblocking(true).and_then(|()| UnixStream::from_std(socket));
        let stream = stream.map_err(|error| HsmError::Unavailable(error.to_string()))?;
        Self::start(Source::Inherited(Some(stream)), config).await
    }

    /// Over a socketpair to a program that is started here, and again whenever it ends.  Its end is
    /// its standard input; what else it inherits is as `command` says.  For Core Lightning's own,
    /// which expects it as descriptor 3: `sh -c "exec lightning_hsmd 3<&0"`.
    ///
    /// It is killed when this is dropped, and before another one is started: where the connection
    /// ended and the program did not.
    pub async fn spawn(command: std::process::Command, config: HsmdConfig) -> HsmResult<Self> {
        Self::start(Source::Child(Command::from(command)), config).await
    }

    /// Over a Unix socket, behind which our own user or root must be.  Waits for it until the
    /// deadline for one call.
    pub async fn connect(path: &Path, config: HsmdConfig) -> HsmResult<Self> {
        Self::start(Source::Path(path.into()), config).await
    }

    async fn start(source: Source, config: HsmdConfig) -> HsmResult<Self> {
        let root = Root::start(source, config.network, config.deadline).await?;
        let secp = Secp256k1::verification_only();
        let shared = Arc::new(Shared { root, config, secp, kept: SyncMutex::default() });
        Ok(Self(Verified::new(Client { shared })))
    }

    /// The node id that the signer told when it was last connected to; an error while it is not.
    pub fn node_id(&self) -> HsmResult<PublicKey> {
        Ok(self.0.inner().shared.root.state()?.node_id)
    }

    /// Whether the key of this index in the signer's wallet is `key` (`check_pubkey`): asked before
    /// money is sent there.
    pub async fn check_pubkey(&self, index: u32, key: PublicKey) -> HsmResult<bool> {
        match self.0.inner().shared.ask(Message::CheckPubkey { index, key }).await? {
            Message::CheckPubkeyReply(is_same) => Ok(is_same),
            other => Err(protocol(&other)),
        }
    }
}

impl Shared {
    pub(super) fn kept(&self) -> MutexGuard<'_, HashMap<ChannelRef, Kept>> {
        // Nothing is left half-changed by a panic: each change is one assignment.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) const fn enforcement(&self) -> Enforcement {
        self.config.enforcement
    }

    pub(super) fn network(&self) -> Network {
        self.config.network
    }

    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.config.deadline
    }

    pub(super) fn request_deadline(&self) -> Duration {
        self.config.deadline
    }

    pub(super) async fn up(&self) -> HsmResult<Up> {
        self.root.up().await
    }

    pub(super) fn is_down(&self) -> Option<HsmError> {
        self.root.state().err()
    }

    /// Asks on the node's own connection, again where it ends.
    async fn ask(&self, request: Message) -> HsmResult<Message> {
        let request = request.encode();
        let (deadline, mut was_sent) = (self.deadline(), false);
        let mut times_closed = 0;
        let asking = async {
            let mut backoff = Backoff::new();
            loop {
                let up = self.up().await?;
                // Who stops waiting for the reply will not know whether it was sent.
                let was_sent_before = std::mem::replace(&mut was_sent, true);
                match up.line.ask(request.clone()).await {
                    Ok((reply, _)) => return Ok(reply),
                    Err(LineError::Malformed(malformed)) => return Err(malformed.into()),
                    Err(LineError::NotSent(_)) => was_sent = was_sent_before,
                    Err(LineError::NoReply(reason)) => {
                        times_closed += 1;
                        if times_closed == TIMES_CLOSED {
                            let tag = "connection-closed".into();
                            return Err(HsmError::Refused { tag, detail: reason });
                        }
                    }
                }
                sleep_until(Instant::now() + backoff.next()).await;
            }
        };
        let asked = timeout_at(deadline, asking).await;
        asked.unwrap_or_else(|_| Err(self.too_late(was_sent)))
    }

    /// Why a call did not succeed before its deadline.
    pub(super) fn too_late(&self, was_sent: bool) -> HsmError {
        let down = self.is_down().map(|error| error.to_string());
        let reason = down.unwrap_or_else(|| "its connections end again and again".into());
        if was_sent { HsmError::Indeterminate(reason) } else { HsmError::Unavailable(reason) }
    }
}

#[async_trait]
impl Hsm for HsmdHsm {
    fn info(&self) -> Info {
        self.0.info()
    }

    fn health(&self) -> HsmResult<()> {
        self.0.health()
    }

    async fn channel(&self, reference: ChannelRef) -> HsmResult<Arc<dyn ChannelHsm>> {
        self.0.channel(reference).await
    }

    async fn forget_channel(&self, reference: ChannelRef) -> HsmResult<()> {
        self.0.forget_channel(reference).await
    }
}

#[async_trait]
impl Hsm for Client {
    fn info(&self) -> Info {
        let HsmdConfig { enforcement, bounds, .. } = &self.shared.config;
        // One request is under way at a time, whatever is asked for together.
        let pipelining = Pipelining::OneByOne;
        Info { enforcement: *enforcement, bounds: bounds.clone(), pipelining }
    }

    fn health(&self) -> HsmResult<()> {
        self.shared.is_down().map_or(Ok(()), Err)
    }

    async fn channel(&self, reference: ChannelRef) -> HsmResult<Arc<dyn ChannelHsm>> {
        // To hsmd it names what is no channel.
        if reference.dbid == 0 {
            return Err(invalid("dbid 0 names no channel"));
        }
        match self.shared.ask(Message::NewChannel(reference)).await? {
            Message::NewChannelReply => {}
            other => return Err(protocol(&other)),
        }
        let (shared, link) = (self.shared.clone(), Mutex::new(Link::default()));
        Ok(Arc::new(HsmdChannel { shared, reference, link, answers: SyncMutex::default() }))
    }

    async fn forget_channel(&self, reference: ChannelRef) -> HsmResult<()> {
        match self.shared.ask(Message::ForgetChannel(reference)).await? {
            Message::ForgetChannelReply => {}
            other => return Err(protocol(&other)),
        }
        self.shared.kept().remove(&reference);
        Ok(())
    }
}

impl HsmdChannel {
    pub(super) async fn ask_root(&self, request: Message) -> HsmResult<Message> {
        self.shared.ask(request).await
    }
}
