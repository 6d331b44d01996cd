//! A signer at the other end of the enveloped wire, as an [`Hsm`].

use core::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::PublicKey;
use bitcoin::secp256k1::ecdsa::Signature;
use opening_core::{ChannelKeys, Side};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::body::{Asked, Setup, invalid};
use super::calls::Memory;
use super::connection::{Connect, Shared, keep_connected};
use super::messages::{Answer, Body, mixed_up};
use crate::error::{HsmError, HsmResult};
use crate::hsm::{ChannelHsm, Hsm};
use crate::info::Info;
use crate::request::{ChannelRef, ChannelSetup, CommitmentRequest};
use crate::verified::Verified;

/// How a node talks to its signer.
#[derive(Clone, Copy, Debug)]
pub struct EnvelopeOptions {
    /// The chain.  A signer for another one is refused.
    pub chain_hash: ChainHash,
    /// For one call, with all connecting and sending again.  Should be shorter than the node's own
    /// deadline, so that the reason is known.  After twice that without an answer to what was sent
    /// the connection is given up.
    pub deadline: Duration,
    /// Between two pings, at most 30 seconds.  After twice that without a sign of life the
    /// connection is given up.
    pub keep_alive: Duration,
}

impl EnvelopeOptions {
    /// 55 seconds for a call, a ping every 10 seconds.
    pub fn new(chain_hash: ChainHash) -> Self {
        let (deadline, keep_alive) = (Duration::from_secs(55), Duration::from_secs(10));
        Self { chain_hash, deadline, keep_alive }
    }
}

/// A signer at the other end of the enveloped wire.
///
/// One task owns the connection.  When it breaks, it is made anew, with pauses of 100 ms doubling to
/// 5 s, and what was not answered is sent again with identical bytes, after what the signer may have
/// forgotten of that channel.  What has no answer within the deadline ends with
/// [`Indeterminate`](HsmError::Indeterminate) if it was ever sent, with
/// [`Unavailable`](HsmError::Unavailable) if not.
///
/// [`health`](Hsm::health) is an error from the moment the connection is known to be gone.
///
/// ```no_run
/// # async fn connect() -> Result<(), Box<dyn std::error::Error>> {
/// use bitcoin::constants::ChainHash;
/// use opening_signer::Hsm;
/// use opening_signer::remote::unix::UnixDialer;
/// use opening_signer::remote::{EnvelopeOptions, EnvelopedHsm};
///
/// let dialer = UnixDialer::new("/run/user/1000/signer/signer.sock");
/// let hsm = EnvelopedHsm::connect(dialer, EnvelopeOptions::new(ChainHash::BITCOIN)).await?;
/// println!("the signer enforces {:?}", hsm.info().enforcement);
/// # Ok(())
/// # }
/// ```
pub struct EnvelopedHsm {
    link: Arc<Link>,
    info: Info,
}

/// Lives as long as anybody can call.
struct Link {
    shared: Arc<Shared>,
    /// Of the connection; none come any more when it is closed.
    changes: watch::Receiver<()>,
    deadline: Duration,
    chain_hash: ChainHash,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.closing.notify_one();
    }
}

impl EnvelopedHsm {
    /// Waits for the first connection, until the deadline for one call.
    ///
    /// [`Unavailable`](HsmError::Unavailable) if there is none by then; at once if there is one and
    /// versions or chains differ, or one side does not accept the other's key or user.  Must be called within a tokio runtime with its clock.
    pub async fn connect(
        connector: impl Connect,
        options: EnvelopeOptions,
    ) -> HsmResult<Verified<Self>> {
        let shared = Arc::new(Shared::new());
        let (changed, mut changes) = watch::channel(());
        tokio::spawn(keep_connected(Arc::clone(&shared), Box::new(connector), options, changed));
        let EnvelopeOptions { deadline, chain_hash, .. } = options;
        let link = Arc::new(Link { shared, changes: changes.clone(), deadline, chain_hash });
        let until = Instant::now() + options.deadline;
        loop {
            // An error: nothing has changed for too long.
            let waited = timeout_at(until, changes.changed()).await;
            let calls = link.shared.calls();
            let lasting = calls.down.as_ref().is_some_and(|reason| reason.is_lasting());
            match calls.info().cloned() {
                Some(info) => {
                    drop(calls);
                    return Ok(Verified::new(Self { link, info }));
                }
                None if lasting || waited.is_err() => return Err(calls.overdue(0)),
                None => {}
            }
        }
    }

    /// Ends the connection for good, and tells the signer that this is meant.  Takes a second at
    /// most.
    ///
    /// For the end of a program: where this is only dropped, nobody waits until the signer is told.
    /// From then on a call ends with its deadline.
    pub async fn close(&self) {
        self.link.shared.closing.notify_one();
        let mut changes = self.link.changes.clone();
        while changes.changed().await.is_ok() {}
    }
}

impl fmt::Debug for EnvelopedHsm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let health = self.health();
        f.debug_struct("EnvelopedHsm").field("health", &health).finish_non_exhaustive()
    }
}

impl Link {
    /// The call is in its place when this is first polled.
    async fn call(
        &self,
        channel: ChannelRef,
        memory: &Arc<Memory>,
        body: Body,
    ) -> HsmResult<Answer> {
        let until = Instant::now() + self.deadline;
        let (id, answer) = self.shared.calls().push(channel, memory, body)?;
        let _caller = Caller { shared: &self.shared, id };
        self.shared.wake.notify_one();
        match timeout_at(until, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(self.shared.calls().overdue(id)),
        }
    }
}

/// Leaves no trace of a call whose caller has gone.
struct Caller<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for Caller<'_> {
    fn drop(&mut self) {
        self.shared.calls().abandon(self.id);
    }
}

#[async_trait]
impl Hsm for EnvelopedHsm {
    fn info(&self) -> Info {
        self.info.clone()
    }

    fn health(&self) -> HsmResult<()> {
        match &self.link.shared.calls().down {
            None => Ok(()),
            Some(down) => Err(HsmError::Unavailable(format!("{}: {down}", down.code()))),
        }
    }

    async fn channel(&self, reference: ChannelRef) -> HsmResult<Arc<dyn ChannelHsm>> {
        let memory = Arc::default();
        match self.link.call(reference, &memory, Body::Channel).await? {
            Answer::Channel => {
                Ok(Arc::new(EnvelopedChannel { link: Arc::clone(&self.link), reference, memory }))
            }
            _ => Err(mixed_up()),
        }
    }

    async fn forget_channel(&self, reference: ChannelRef) -> HsmResult<()> {
        match self.link.call(reference, &Arc::default(), Body::ForgetChannel).await? {
            Answer::ForgetChannel => Ok(()),
            _ => Err(mixed_up()),
        }
    }
}

struct EnvelopedChannel {
    link: Arc<Link>,
    reference: ChannelRef,
    memory: Arc<Memory>,
}

impl EnvelopedChannel {
    async fn call(&self, body: Body) -> HsmResult<Answer> {
        self.link.call(self.reference, &self.memory, body).await
    }
}

#[async_trait]
impl ChannelHsm for EnvelopedChannel {
    async fn pubkeys(&self) -> HsmResult<ChannelKeys> {
        match self.call(Body::Pubkeys).await? {
            Answer::Pubkeys(keys) => Ok(*keys),
            _ => Err(mixed_up()),
        }
    }

    async fn per_commitment_point(&self, number: u64) -> HsmResult<PublicKey> {
        match self.call(Body::PerCommitmentPoint(number)).await? {
            Answer::PerCommitmentPoint(point) => Ok(point),
            _ => Err(mixed_up()),
        }
    }

    async fn setup(&self, setup: &ChannelSetup) -> HsmResult<()> {
        if self.link.chain_hash != setup.chain_hash {
            return Err(invalid("the channel is on another chain than the signer"));
        }
        match self.call(Body::Setup(Box::new(Setup::new(setup)?))).await? {
            Answer::Setup => Ok(()),
            _ => Err(mixed_up()),
        }
    }

    async fn sign_counterparty_commitment(
        &self,
        request: &CommitmentRequest<'_>,
    ) -> HsmResult<Signature> {
        let asked = Box::new(Asked::new(Side::Remote, request)?);
        match self.call(Body::SignCounterpartyCommitment(asked)).await? {
            Answer::SignCounterpartyCommitment(signature) => Ok(signature),
            _ => Err(mixed_up()),
        }
    }

    async fn validate_holder_commitment(
        &self,
        request: &CommitmentRequest<'_>,
        signature: &Signature,
    ) -> HsmResult<()> {
        let asked = Box::new(Asked::new(Side::Local, request)?);
        match self.call(Body::ValidateHolderCommitment(asked, *signature)).await? {
            Answer::ValidateHolderCommitment => Ok(()),
            _ => Err(mixed_up()),
        }
    }

    async fn sign_holder_commitment(
        &self,
        request: &CommitmentRequest<'_>,
    ) -> HsmResult<Signature> {
        let asked = Box::new(Asked::new(Side::Local, request)?);
        match self.call(Body::SignHolderCommitment(asked)).await? {
            Answer::SignHolderCommitment(signature) => Ok(signature),
            _ => Err(mixed_up()),
        }
    }
}
