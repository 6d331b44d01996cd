//! One channel behind hsmd's wire, over a connection of its own that the node's passes.

use std::sync::{Arc, Mutex as SyncMutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::PublicKey;
use bitcoin::secp256k1::ecdsa::Signature;
use opening_core::{ChannelKeys, Side};
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout_at};

use super::client::Shared;
use super::kept::Kept;
use super::line::{Line, LineError};
use super::message::{
    Message, SetupChannel, SignCommitmentTx, SignRemoteCommitmentTx, ValidateCommitmentTx,
};
use super::psbt::BitcoinTx;
use super::root::Up;
use super::{PERMISSIONS, protocol};
use crate::error::{HsmError, HsmResult};
use crate::hsm::ChannelHsm;
use crate::info::Enforcement;
use crate::local::rule;
use crate::memory::{ChannelMemory, invalid};
use crate::remote::backoff::Backoff;
use crate::request::{ChannelRef, ChannelSetup, CommitmentRequest};

/// hsmd says no by closing the connection.  Once may be an accident.
const TIMES_CLOSED: u32 = 2;

/// The version from which on hsmd gives a point without a secret.
const PLAIN_POINTS: u32 = 6;

/// Between the ends of two connections of one process that dies.
const A_MOMENT: Duration = Duration::from_millis(20);

pub(super) struct HsmdChannel {
    pub(super) shared: Arc<Shared>,
    pub(super) reference: ChannelRef,
    pub(super) link: Mutex<Link>,
    /// Keys and first point, which a setup has to be about.
    pub(super) answers: SyncMutex<(Option<ChannelKeys>, Option<PublicKey>)>,
}

/// The channel's connection, and what the signer at its other end was told.
#[derive(Default)]
pub(super) struct Link {
    line: Option<Line>,
    /// Of the node's connection that has passed it.
    generation: u64,
    /// Of the wire, as that connection speaks it.
    version: u32,
    /// Requests that succeeded and that a signer which was restarted has forgotten.
    told: Vec<Vec<u8>>,
}

impl HsmdChannel {
    /// Asks on the channel's own connection, again where that ends.
    async fn ask(&self, request: &Message) -> HsmResult<Message> {
        let bytes = request.encode();
        let deadline = self.shared.deadline();
        let mut was_sent = false;
        let asking = async {
            let mut link = self.link.lock().await;
            let reply = self.ask_over(&mut link, request, &bytes, &mut was_sent).await?;
            let is_state = matches!(
                request,
                Message::SetupChannel(_)
                    | Message::SignRemoteCommitmentTx(_)
                    | Message::ValidateCommitmentTx(_)
            );
            if is_state && !link.told.contains(&bytes) {
                link.told.push(bytes.clone());
            }
            Ok(reply)
        };
        let asked = timeout_at(deadline, asking).await;
        asked.unwrap_or_else(|_| Err(self.shared.too_late(was_sent)))
    }

    async fn ask_over(
        &self,
        link: &mut Link,
        request: &Message,
        bytes: &[u8],
        was_sent: &mut bool,
    ) -> HsmResult<Message> {
        let (mut backoff, mut times_closed) = (Backoff::new(), 0);
        loop {
            let (line, version) = self.line(link).await?;
            gives_no_secret(request, version)?;
            // Who stops waiting for the reply will not know whether it was sent.
            let was_sent_before = std::mem::replace(was_sent, true);
            let asked = line.ask(bytes.to_vec()).await;
            match asked {
                Ok((reply, _)) => return Ok(reply),
                Err(LineError::Malformed(malformed)) => return Err(malformed.into()),
                Err(LineError::NotSent(_)) => {
                    *was_sent = was_sent_before;
                    sleep(backoff.next()).await;
                }
                Err(LineError::NoReply(reason)) => {
                    // One that has died closes the node's connection too, which is known by then.
                    sleep(A_MOMENT).await;
                    times_closed +=
                        u32::from(self.shared.up().await?.generation == link.generation);
                    if times_closed == TIMES_CLOSED {
                        let tag = "connection-closed".into();
                        return Err(HsmError::Refused { tag, detail: reason });
                    }
                }
            }
        }
    }

    /// The channel's connection, a new one where the last has ended, and its version of the wire.
    async fn line<'a>(&self, link: &'a mut Link) -> HsmResult<(&'a Line, u32)> {
        if link.line.as_ref().is_some_and(Line::is_closed) {
            link.line = None;
        }
        if link.line.is_none() {
            let (line, up) = self.open(link).await?;
            (link.generation, link.version) = (up.generation, up.version);
            link.line = Some(line);
        }
        Ok((link.line.as_ref().expect("it was just looked at"), link.version))
    }

    /// Has a connection passed, and tells a signer that may have been restarted what it was told
    /// before.
    async fn open(&self, link: &Link) -> HsmResult<(Line, Up)> {
        let mut backoff = Backoff::new();
        // A signer that remembers may not want to hear some of it twice.
        let mut skip = 0;
        loop {
            let up = self.shared.up().await?;
            let is_restarted = link.generation != 0 && link.generation != up.generation;
            let told = if is_restarted { &link.told[skip..] } else { &[] };
            match self.try_open(&up.line, is_restarted, told).await {
                Ok(line) => return Ok((line, up)),
                Err(Failed::ToRepeat(count)) if self.shared.is_down().is_none() => {
                    skip += count + 1;
                    log::warn!("{:?}: the signer does not hear a request twice", self.reference);
                }
                Err(Failed::ToRepeat(_) | Failed::Gone) => sleep(backoff.next()).await,
                Err(Failed::Wrong(error)) => return Err(error),
            }
        }
    }

    async fn try_open(
        &self,
        root: &Line,
        is_restarted: bool,
        told: &[Vec<u8>],
    ) -> Result<Line, Failed> {
        if is_restarted {
            match root.ask(Message::NewChannel(self.reference).encode()).await? {
                (Message::NewChannelReply, _) => {}
                (other, _) => return Err(Failed::Wrong(protocol(&other))),
            }
        }
        let ask = Message::ClientHsmfd { reference: self.reference, permissions: PERMISSIONS };
        let line = match root.ask(ask.encode()).await? {
            (Message::ClientHsmfdReply, Some(socket)) => {
                Line::new(socket, self.shared.request_deadline())
            }
            (other, _) => return Err(Failed::Wrong(protocol(&other))),
        };
        for (count, request) in told.iter().enumerate() {
            match line.ask(request.clone()).await {
                Ok(_) => {}
                Err(LineError::Malformed(malformed)) => {
                    return Err(Failed::Wrong(malformed.into()));
                }
                Err(_) => return Err(Failed::ToRepeat(count)),
            }
        }
        Ok(line)
    }

    fn answers(&self) -> MutexGuard<'_, (Option<ChannelKeys>, Option<PublicKey>)> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept<T>(&self, act: impl FnOnce(&mut Kept) -> HsmResult<T>) -> HsmResult<T> {
        let mut channels = self.shared.kept();
        act(channels.get_mut(&self.reference).ok_or_else(rule::setup_missing)?)
    }

    fn memory<T>(&self, act: impl FnOnce(&mut ChannelMemory) -> HsmResult<T>) -> HsmResult<T> {
        self.kept(|kept| act(&mut kept.memory))
    }

    /// The peer's commitment is the one that the parameters give.
    fn is_built(&self, request: &CommitmentRequest<'_>) -> HsmResult<()> {
        let built = request.parameters.first_commitment(&self.shared.secp, Side::Remote);
        let built = built.map_err(rule::unbuildable)?.transaction;
        let asked = &request.commitment.transaction;
        if built == *asked {
            Ok(())
        } else {
            Err(rule::transaction_differs(asked.compute_txid(), built.compute_txid()))
        }
    }

    fn transaction(&self, request: &CommitmentRequest<'_>) -> HsmResult<BitcoinTx> {
        BitcoinTx::of(&self.shared.secp, request)
    }

    fn sign_remote(&self, request: &CommitmentRequest<'_>) -> HsmResult<Message> {
        Ok(Message::SignRemoteCommitmentTx(Box::new(SignRemoteCommitmentTx {
            tx: self.transaction(request)?,
            remote_funding_key: request.parameters.remote.keys.funding_pubkey,
            remote_per_commitment_point: request.per_commitment_point,
            number: request.commitment.number,
            feerate: FIRST_COMMITMENT,
        })))
    }

    /// Whether the signer counts commitments, and has counted our first one.
    ///
    /// VLS does not validate a commitment twice: a reply that was lost, or a restart of the node,
    /// makes a refusal of what it has done.  It gives points up to the one after next, so that it
    /// then gives the one of commitment 2, which it did not before, and not the one of commitment
    /// 3.  A signer that gives both does not count, and its refusal is one.  One that does not
    /// answer has said neither.
    async fn has_validated(&self) -> HsmResult<bool> {
        Ok(self.gives_point(2).await? && !self.gives_point(3).await?)
    }

    async fn gives_point(&self, number: u64) -> HsmResult<bool> {
        match self.ask(&Message::GetPerCommitmentPoint(number)).await {
            Ok(Message::GetPerCommitmentPointReply(_)) => Ok(true),
            Ok(other) => Err(protocol(&other)),
            Err(HsmError::Refused { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A signer that completes what it knows of a channel from the peer's commitment has to see that
    /// before it signs our own.
    async fn complete(&self, request: &CommitmentRequest<'_>) -> HsmResult<()> {
        let theirs = request
            .parameters
            .first_commitment(&self.shared.secp, Side::Remote)
            .map_err(|error| HsmError::InvalidRequest(error.to_string()))?;
        let theirs = CommitmentRequest::first(request.parameters, &theirs);
        let message = self.sign_remote(&theirs)?;
        match self.ask(&message).await? {
            Message::SignTxReply(_) => Ok(()),
            other => Err(protocol(&other)),
        }
    }
}

/// As Core Lightning does: a signer that wants the feerate has the transaction.
const FIRST_COMMITMENT: u32 = 0;

/// Below version 6 of the wire the reply to the point of a commitment holds the secret of the one
/// before the last.  Here that may be one which is not revoked, and it would have left the signer.
fn gives_no_secret(request: &Message, version: u32) -> HsmResult<()> {
    match request {
        Message::GetPerCommitmentPoint(number @ 2..) if version < PLAIN_POINTS => {
            let detail = format!(
                "at version {version} of hsmd's wire the point of commitment {number} comes with the \
                 secret of commitment {}",
                number - 2
            );
            Err(HsmError::Refused { tag: "point-with-secret".into(), detail })
        }
        _ => Ok(()),
    }
}

/// Why there is no connection for the channel yet.
enum Failed {
    /// Perhaps there is one in a moment.
    Gone,
    /// It ended over this one of the requests to repeat.
    ToRepeat(usize),
    Wrong(HsmError),
}

impl From<LineError> for Failed {
    fn from(error: LineError) -> Self {
        match error {
            LineError::NotSent(_) | LineError::NoReply(_) => Self::Gone,
            LineError::Malformed(malformed) => Self::Wrong(malformed.into()),
        }
    }
}

#[async_trait]
impl ChannelHsm for HsmdChannel {
    async fn pubkeys(&self) -> HsmResult<ChannelKeys> {
        match self.ask_root(Message::GetChannelBasepoints(self.reference)).await? {
            Message::GetChannelBasepointsReply(keys) => {
                self.answers().0 = Some(keys);
                Ok(keys)
            }
            other => Err(protocol(&other)),
        }
    }

    async fn per_commitment_point(&self, number: u64) -> HsmResult<PublicKey> {
        if number > opening_core::commitment::MAX_COMMITMENT_NUMBER {
            let reason = "no commitment number is beyond 2^48 - 1";
            return Err(invalid(reason));
        }
        match self.ask(&Message::GetPerCommitmentPoint(number)).await? {
            Message::GetPerCommitmentPointReply(point) => {
                if number == 0 {
                    self.answers().1 = Some(point);
                }
                Ok(point)
            }
            other => Err(protocol(&other)),
        }
    }

    async fn setup(&self, setup: &ChannelSetup) -> HsmResult<()> {
        let parameters = &setup.parameters;
        if u16::try_from(parameters.funding_outpoint.vout).is_err() {
            return Err(invalid("hsmd's wire has no room for an output index beyond 65535"));
        }
        if setup.chain_hash != ChainHash::using_genesis_block(self.shared.network()) {
            return Err(invalid("the channel is of another chain than the signer"));
        }
        let (keys, point) = *self.answers();
        let keys = match keys {
            Some(keys) => keys,
            None => self.pubkeys().await?,
        };
        let point = match point {
            Some(point) => point,
            None => self.per_commitment_point(0).await?,
        };
        let new = ChannelMemory::set_up(setup, &keys, &point)?;
        if let Some(kept) = self.shared.kept().get(&self.reference) {
            kept.memory.set_up_again(setup)?;
        }
        let message = Message::SetupChannel(Box::new(SetupChannel {
            is_outbound: parameters.opener == Side::Local,
            channel_value: parameters.funding_satoshis,
            push_value: parameters.push_msat,
            funding_outpoint: parameters.funding_outpoint,
            local_to_self_delay: parameters.local.config.to_self_delay,
            local_shutdown_script: setup.local_shutdown_script.clone(),
            remote_keys: parameters.remote.keys,
            remote_to_self_delay: parameters.remote.config.to_self_delay,
            remote_shutdown_script: setup.remote_shutdown_script.clone(),
            channel_type: parameters.channel_type,
        }));
        match self.ask(&message).await? {
            Message::SetupChannelReply => {}
            other => return Err(protocol(&other)),
        }
        let mut channels = self.shared.kept();
        let kept = channels.entry(self.reference).or_insert_with(|| Kept::new(new));
        kept.memory.set_up_again(setup)
    }

    async fn sign_counterparty_commitment(
        &self,
        request: &CommitmentRequest<'_>,
    ) -> HsmResult<Signature> {
        let message = self.sign_remote(request)?;
        let enforcement = self.shared.enforcement();
        if enforcement == Enforcement::Blind {
            self.is_built(request)?;
        }
        // Before it is asked: whoever drops this call will not know whether it signed.
        self.kept(|kept| kept.sign_counterparty(request))?;
        match self.ask(&message).await {
            Ok(Message::SignTxReply(signature)) => Ok(signature),
            Ok(other) => Err(protocol(&other)),
            Err(error @ HsmError::Refused { .. }) => self.kept(|kept| {
                kept.was_refused(enforcement);
                Err(error)
            }),
            Err(error) => Err(error),
        }
    }

    async fn validate_holder_commitment(
        &self,
        request: &CommitmentRequest<'_>,
        signature: &Signature,
    ) -> HsmResult<()> {
        self.memory(|memory| memory.is_ours(request))?;
        let message = Message::ValidateCommitmentTx(Box::new(ValidateCommitmentTx {
            tx: self.transaction(request)?,
            number: request.commitment.number,
            feerate: FIRST_COMMITMENT,
            signature: *signature,
        }));
        match self.ask(&message).await {
            // The point is asked for by itself when it is needed.
            Ok(Message::ValidateCommitmentTxReply { .. }) => {}
            Ok(other) => return Err(protocol(&other)),
            Err(refused @ HsmError::Refused { .. }) => {
                if !self.has_validated().await? {
                    return Err(refused);
                }
            }
            Err(error) => return Err(error),
        }
        self.memory(|memory| memory.validated(request.commitment.sighash()))
    }

    async fn sign_holder_commitment(
        &self,
        request: &CommitmentRequest<'_>,
    ) -> HsmResult<Signature> {
        self.memory(|memory| memory.sign_holder(request))?;
        self.complete(request).await?;
        let message = Message::SignCommitmentTx(Box::new(SignCommitmentTx {
            reference: self.reference,
            tx: self.transaction(request)?,
            remote_funding_key: request.parameters.remote.keys.funding_pubkey,
            number: request.commitment.number,
        }));
        // A client that stands for one channel only may not ask for it.
        match self.ask_root(message).await? {
            Message::SignCommitmentTxReply(signature) => Ok(signature),
            other => Err(protocol(&other)),
        }
    }
}
