//! The connection for the whole node, kept up for as long as anyone needs it.

use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::Network;
use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::PublicKey;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

use super::fd;
use super::line::{Line, LineError};
use super::message::{Init, InitReply, Message};
use super::{VERSIONS, protocol};
use crate::error::{HsmError, HsmResult};
use crate::remote::backoff::Backoff;
use crate::remote::reasons::Reasons;
use crate::remote::unix;

/// After so long without an answer to the greeting the log says what is waited for.
const SLOW_GREETING: Duration = Duration::from_secs(5);

/// Where the connection comes from.
pub(super) enum Source {
    /// It is there, and there is no other.
    Inherited(Option<UnixStream>),
    /// A program whose standard input is the other end; another one is started when it ends.
    Child(Command),
    /// A socket of the file system.
    Path(PathBuf),
}

/// A connection that hsmd has greeted.
#[derive(Clone, Debug)]
pub(super) struct Up {
    pub(super) line: Arc<Line>,
    /// Tells one connection from the next.
    pub(super) generation: u64,
    /// Of the wire.
    pub(super) version: u32,
    pub(super) node_id: PublicKey,
}

/// How the connection stands; without one, why.
type State = Result<Up, HsmError>;

/// Keeps the connection.
#[derive(Debug)]
pub(super) struct Root {
    state: watch::Receiver<State>,
    keeper: AbortHandle,
}

impl Drop for Root {
    fn drop(&mut self) {
        // The child, if there is one, is killed with it.
        self.keeper.abort();
    }
}

impl Root {
    /// Connects, or says why that is not possible.
    pub(super) async fn start(
        source: Source,
        network: Network,
        deadline: Duration,
    ) -> HsmResult<Self> {
        let mut keeper =
            Keeper { source, network, deadline, generation: 0, node_id: None, child: None };
        let first = keeper.first(Instant::now() + deadline).await?;
        let (telling, state) = watch::channel(Ok(first));
        let keeper = tokio::spawn(keeper.keep(telling)).abort_handle();
        Ok(Self { state, keeper })
    }

    /// Whether it is up, and why not.
    pub(super) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Waits until it is up.
    pub(super) async fn up(&self) -> HsmResult<Up> {
        let mut state = self.state.clone();
        match state.wait_for(Result::is_ok).await {
            Ok(up) => up.clone(),
            Err(_) => self.state(),
        }
    }
}

struct Keeper {
    source: Source,
    network: Network,
    deadline: Duration,
    generation: u64,
    /// Of the signer that was met first: channels were begun with its keys.
    node_id: Option<PublicKey>,
    child: Option<Child>,
}

impl Keeper {
    async fn keep(mut self, telling: watch::Sender<State>) {
        let (mut backoff, mut begun) = (Backoff::new(), Instant::now());
        loop {
            let up = telling.borrow().clone();
            if let Ok(Up { line, .. }) = up {
                let reason = line.reason().await;
                // One that ends as soon as it is greeted is not started again and again at once.
                backoff.ended_after(begun.elapsed());
                let down = HsmError::Unavailable(self.with_exit(reason).await);
                log::warn!("hsmd's connection ended: {down}");
                drop(telling.send_replace(Err(down)));
            }
            if matches!(self.source, Source::Inherited(_)) {
                // There is no other; whoever waits goes by the deadline of its call.
                return std::future::pending().await;
            }
            let mut reasons = Reasons::default();
            loop {
                sleep(backoff.next()).await;
                match self.connect().await {
                    Ok(up) => {
                        begun = Instant::now();
                        log::info!("connected to hsmd again");
                        drop(telling.send_replace(Ok(up)));
                        break;
                    }
                    Err(error) => {
                        log_failure(&mut reasons, &error);
                        drop(telling.send_replace(Err(error)));
                    }
                }
            }
        }
    }

    /// Waits for a signer that is started together with its node.
    async fn first(&mut self, until: Instant) -> HsmResult<Up> {
        let mut backoff = Backoff::new();
        let mut reasons = Reasons::default();
        loop {
            let pause = backoff.next();
            match self.connect().await {
                Err(error @ HsmError::Unavailable(_))
                    if matches!(self.source, Source::Path(_)) && Instant::now() + pause < until =>
                {
                    log_failure(&mut reasons, &error);
                    sleep(pause).await;
                }
                connected => return connected,
            }
        }
    }

    async fn connect(&mut self) -> HsmResult<Up> {
        let stream = self.stream().await.map_err(|error| {
            let reason = match &self.source {
                Source::Child(command) => {
                    format!("cannot start {:?}: {error}", command.as_std().get_program())
                }
                Source::Inherited(_) | Source::Path(_) => error.to_string(),
            };
            HsmError::Unavailable(reason)
        })?;
        let line = Line::new(stream, self.deadline);
        let greeted = greet(&line, self.network).await;
        let InitReply { node_id, version, .. } = match greeted {
            Err(HsmError::Unavailable(reason)) => {
                return Err(HsmError::Unavailable(self.with_exit(reason).await));
            }
            other => other?,
        };
        let first = *self.node_id.get_or_insert(node_id);
        if node_id != first {
            return Err(HsmError::Unavailable(format!(
                "another signer answers: its node id is {node_id}, and was {first} at the start"
            )));
        }
        self.generation += 1;
        Ok(Up { line: Arc::new(line), generation: self.generation, version, node_id })
    }

    async fn stream(&mut self) -> io::Result<UnixStream> {
        match &mut self.source {
            Source::Inherited(stream) => {
                stream.take().ok_or_else(|| io::Error::other("the inherited socket is used up"))
            }
            Source::Path(path) => unix::connect(path).await,
            Source::Child(command) => {
                // Two of them would share a store.
                if let Some(before) = &mut self.child {
                    // An error: it has ended already.
                    let _ = before.start_kill();
                    before.wait().await?;
                    self.child = None;
                }
                let (ours, theirs) = fd::pair()?;
                let child = command.stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)));
                self.child = Some(child.kill_on_drop(true).spawn()?);
                // The command keeps what it was given: the end that is the child's must close with it.
                command.stdin(Stdio::null());
                Ok(ours)
            }
        }
    }

    /// What the child says by its exit, if it has one in a moment.
    async fn with_exit(&mut self, reason: String) -> String {
        let Some(child) = &mut self.child else { return reason };
        match timeout(Duration::from_millis(200), child.wait()).await {
            Ok(Ok(status)) => format!("{reason}; the program ended with {status}"),
            _ => reason,
        }
    }
}

fn log_failure(reasons: &mut Reasons, error: &HsmError) {
    log::log!(reasons.level(&error.to_string()), "no connection to hsmd: {error}");
}

async fn greet(line: &Line, network: Network) -> HsmResult<InitReply> {
    let mut greeted = pin!(init(line, network));
    if let Ok(greeted) = timeout(SLOW_GREETING, &mut greeted).await {
        return greeted;
    }
    log::warn!("hsmd has not answered `init` for {SLOW_GREETING:?}: still waiting");
    greeted.await
}

async fn init(line: &Line, network: Network) -> HsmResult<InitReply> {
    let init = Message::Init(Init {
        bip32_versions: match network {
            Network::Bitcoin => [0x0488_b21e, 0x0488_ade4],
            _ => [0x0435_87cf, 0x0435_8394],
        },
        genesis_hash: ChainHash::using_genesis_block(network).to_bytes(),
        min_version: *VERSIONS.start(),
        max_version: *VERSIONS.end(),
    });
    match line.ask(init.encode()).await {
        Ok((Message::InitReply(reply), _)) if VERSIONS.contains(&reply.version) => Ok(reply),
        Ok((Message::InitReply(reply), _)) => Err(HsmError::Protocol(format!(
            "it speaks version {} of hsmd's wire, we speak {} to {}",
            reply.version,
            VERSIONS.start(),
            VERSIONS.end()
        ))),
        Ok((Message::InitFailure(text), _)) => {
            Err(HsmError::Unavailable(format!("it could not start: {text}")))
        }
        Ok((other, _)) => Err(protocol(&other)),
        Err(LineError::Malformed(malformed)) => Err(malformed.into()),
        Err(error) => Err(HsmError::Unavailable(error.to_string())),
    }
}
