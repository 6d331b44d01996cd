//! Any [`Hsm`] behind hsmd's wire.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, PoisonError};

use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::{All, PublicKey, Secp256k1};
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::message::{Init, InitReply, Message};
use super::served::Served;
use super::{VERSIONS, fd};
use crate::error::{HsmError, HsmResult};
use crate::hsm::Hsm;
use crate::remote::frame::{read_frame, write_frame};
use crate::request::ChannelRef;

/// Sockets of channels that one node may have open at once; each costs a descriptor and a task.
const MOST_CONNECTIONS: usize = 4096;

/// Requests of an opening, which are all that is known here.
const CAPABILITIES: [u32; 10] = [5, 9, 10, 18, 19, 28, 30, 31, 34, 35];

/// What `init` is answered with, which an [`Hsm`] has no word for.
#[derive(Clone, Copy, Debug)]
pub struct HsmdIdentity {
    /// The node's.
    pub node_id: PublicKey,
    /// The chain for which the signer signs; a node of another one is turned away.
    pub chain_hash: ChainHash,
}

/// Serves `hsm` to the one node at the other end of `socket`, until it hangs up.
///
/// The wire knows no refusal: the channel's connection is closed, and the reason is in the log of
/// this process.  There is no wallet and no BOLT 12 behind an [`Hsm`]: `init_reply` has zeros for
/// the wallet's key, the node id in the place of BOLT 12's, and `check_pubkey` is answered with no.
///
/// The wire tells neither feerates nor dust limits: the first follow from the peer's commitment, the
/// others are taken to be 354 satoshis.  A channel that leaves out a larger output is refused by
/// `transaction-differs`, and one that leaves the opener nothing as an invalid request.
///
/// Fails where the node breaks the protocol or the socket does.
pub async fn serve_hsmd(
    hsm: Arc<dyn Hsm>,
    identity: HsmdIdentity,
    socket: std::os::unix::net::UnixStream,
) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    let mut stream = UnixStream::from_std(socket)?;
    let server = Arc::new(Server {
        hsm,
        identity,
        secp: Secp256k1::new(),
        channels: std::sync::Mutex::default(),
    });
    let mut clients = JoinSet::new();
    let mut is_greeted = false;
    while let Some(frame) = read_frame(&mut stream).await? {
        while clients.try_join_next().is_some() {}
        let request = Message::decode(&frame).map_err(broken)?;
        let mut passed = None;
        let reply = match request {
            Message::Init(init) => {
                let reply = server.init(init);
                is_greeted = matches!(reply, Message::InitReply(_));
                reply
            }
            _ if !is_greeted => return Err(broken("init comes first")),
            Message::ClientHsmfd { reference, .. } => {
                let (ours, theirs) = fd::pair()?;
                if clients.len() < MOST_CONNECTIONS {
                    clients.spawn(server.clone().serve_channel(reference, ours));
                } else {
                    // The node gets a connection that is closed: the wire's only way to say no.
                    log::warn!("{MOST_CONNECTIONS} channels are connected: none for {reference:?}");
                }
                passed = Some(theirs);
                Message::ClientHsmfdReply
            }
            other => match server.answer(&other).await {
                Ok(reply) => reply,
                Err(error) => {
                    log::warn!("closing the node's connection: {}: {error}", error.code());
                    return Err(io::Error::other(error));
                }
            },
        };
        write_frame(&mut stream, &reply.encode()).await?;
        if let Some(socket) = passed {
            fd::send(&stream, fd::of(&socket)).await?;
        }
    }
    Ok(())
}

struct Server {
    hsm: Arc<dyn Hsm>,
    identity: HsmdIdentity,
    secp: Secp256k1<All>,
    channels: std::sync::Mutex<HashMap<ChannelRef, Arc<Mutex<Served>>>>,
}

impl Server {
    fn init(&self, init: Init) -> Message {
        let HsmdIdentity { node_id, chain_hash } = self.identity;
        let version = (*VERSIONS.end()).min(init.max_version);
        if !VERSIONS.contains(&version) || version < init.min_version {
            let (from, to) = (init.min_version, init.max_version);
            return Message::InitFailure(format!(
                "the node speaks versions {from} to {to}, the signer {} to {}",
                VERSIONS.start(),
                VERSIONS.end()
            ));
        }
        if init.genesis_hash != chain_hash.to_bytes() {
            return Message::InitFailure("the signer is for another chain".into());
        }
        let (capabilities, bolt12_key) = (CAPABILITIES.to_vec(), node_id);
        Message::InitReply(InitReply { version, capabilities, node_id, bolt12_key })
    }

    /// What is asked on the node's own connection.
    async fn answer(&self, request: &Message) -> HsmResult<Message> {
        match request {
            Message::NewChannel(reference) => {
                self.channel(*reference).await?;
                Ok(Message::NewChannelReply)
            }
            Message::GetChannelBasepoints(reference) => {
                let channel = self.channel(*reference).await?;
                let keys = channel.lock().await.channel().pubkeys().await?;
                Ok(Message::GetChannelBasepointsReply(keys))
            }
            Message::SignCommitmentTx(request) => {
                let channel = self.channel(request.reference).await?;
                let channel = channel.lock().await;
                let (transaction, number) = (&request.tx.transaction, request.number);
                let signature = channel.sign_ours(&self.secp, transaction, number).await?;
                Ok(Message::SignCommitmentTxReply(signature))
            }
            Message::CheckPubkey { .. } => Ok(Message::CheckPubkeyReply(false)),
            Message::ForgetChannel(reference) => {
                self.hsm.forget_channel(*reference).await?;
                self.channels().remove(reference);
                Ok(Message::ForgetChannelReply)
            }
            other => Err(unexpected(other)),
        }
    }

    async fn serve_channel(self: Arc<Self>, reference: ChannelRef, stream: UnixStream) {
        if let Err(error) = self.try_serve_channel(reference, stream).await {
            log::warn!("closing the connection of {reference:?}: {}: {error}", error.code());
        }
    }

    async fn try_serve_channel(
        &self,
        reference: ChannelRef,
        mut stream: UnixStream,
    ) -> HsmResult<()> {
        let channel = self.channel(reference).await?;
        let unavailable = |error: io::Error| HsmError::Unavailable(error.to_string());
        while let Some(frame) = read_frame(&mut stream).await.map_err(unavailable)? {
            let request = Message::decode(&frame)
                .map_err(|malformed| HsmError::InvalidRequest(malformed.to_string()))?;
            let reply = self.answer_channel(&mut *channel.lock().await, request).await?;
            write_frame(&mut stream, &reply.encode()).await.map_err(unavailable)?;
        }
        Ok(())
    }

    /// What is asked on a channel's connection.
    async fn answer_channel(&self, channel: &mut Served, request: Message) -> HsmResult<Message> {
        match request {
            Message::GetPerCommitmentPoint(number) => {
                let point = channel.channel().per_commitment_point(number).await?;
                Ok(Message::GetPerCommitmentPointReply(point))
            }
            Message::SetupChannel(setup) => {
                channel.set_up(*setup, &self.hsm.info().bounds)?;
                Ok(Message::SetupChannelReply)
            }
            Message::SignRemoteCommitmentTx(request) => {
                Ok(Message::SignTxReply(channel.sign_remote(&self.secp, &request).await?))
            }
            Message::ValidateCommitmentTx(request) => {
                let next_per_commitment_point = channel.validate(&self.secp, &request).await?;
                Ok(Message::ValidateCommitmentTxReply { next_per_commitment_point })
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn channel(&self, reference: ChannelRef) -> HsmResult<Arc<Mutex<Served>>> {
        if let Some(channel) = self.channels().get(&reference) {
            return Ok(channel.clone());
        }
        let new = Served::new(self.hsm.channel(reference).await?, self.identity.chain_hash);
        Ok(self.channels().entry(reference).or_insert_with(|| Arc::new(Mutex::new(new))).clone())
    }

    fn channels(&self) -> std::sync::MutexGuard<'_, HashMap<ChannelRef, Arc<Mutex<Served>>>> {
        // Nothing is left half-changed by a panic: each change is one insertion or removal.
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unexpected(request: &Message) -> HsmError {
    let number = request.type_number();
    HsmError::InvalidRequest(format!("message {number} is not for this connection"))
}

fn broken(reason: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.to_string())
}
