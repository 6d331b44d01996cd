//! Serves a signer to one node over one connection.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::Secp256k1;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{sleep, timeout};

use super::hello::{NodeHello, SignerHello, same_chain};
use super::link::LinkError;
use super::messages::{Answer, FromNode, FromSigner, Request};
use super::perform::{Context, Known, Turns};
use super::queue::Channel;
use crate::error::{HsmError, HsmResult};
use crate::hsm::Hsm;
use crate::info::Pipelining;
use crate::remote::frame::{close, read_frame, write_frame};
use crate::request::ChannelRef;

/// Requests of one connection that may be unanswered at once.
const MAX_IN_FLIGHT: usize = 4096;
/// Pings are answered on top of that.
const SLACK: usize = 16;
/// Channels that one connection remembers; then the one unused for longest is forgotten.
const MAX_CHANNELS: usize = 16_384;
/// For the node's first message.
const HELLO_PATIENCE: Duration = Duration::from_secs(10);
/// Without any message: a node pings more often than that.
const NODE_PATIENCE: Duration = Duration::from_secs(60);
/// For the node to take an answer.
const WRITE_PATIENCE: Duration = Duration::from_secs(30);
/// For what is under way when the server stops.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// Puts a signer behind the enveloped wire.
///
/// Requests of one channel are carried out in the order in which they come, those of different
/// channels at once.  What one connection can make the server keep is bounded: 4096 requests that
/// are not answered yet, and 16,384 channels, of which the one unused for longest is forgotten.
pub struct EnvelopeServer {
    context: Arc<Context>,
}

impl EnvelopeServer {
    /// Serves `hsm`, which signs for channels of this chain only.
    pub fn new(hsm: Arc<dyn Hsm>, chain_hash: ChainHash) -> Self {
        let secp = Secp256k1::verification_only();
        Self { context: Arc::new(Context { hsm, chain_hash, secp, turns: Turns::default() }) }
    }

    /// Serves one connection until the node closes it, breaks the protocol, or `stop` is ready:
    /// then requests under way get five seconds to end, and the others are left to the node.
    ///
    /// The stream must be private already: nothing here encrypts or authenticates.  May be dropped
    /// at any time; what is under way is dropped with it.
    pub async fn serve(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<(), LinkError> {
        let served = self.talk(stream, stop).await;
        match &served {
            Ok(()) => log::info!("a node's connection ended"),
            // Nodes are killed and machines go to sleep: nothing to look into here.
            Err(error @ LinkError::Lost(_)) => log::info!("a node's connection ended: {error}"),
            Err(error) => log::warn!("closed a node's connection ({}): {error}", error.code()),
        }
        served
    }

    async fn talk(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<(), LinkError> {
        let (mut reader, mut writer) = tokio::io::split(Box::pin(stream));
        let served = self.converse(&mut reader, &mut writer, stop).await;
        close(&mut writer).await;
        served
    }

    async fn converse(
        &self,
        reader: &mut (impl AsyncRead + Unpin),
        writer: &mut (impl AsyncWrite + Unpin),
        stop: impl Future<Output = ()> + Send,
    ) -> Result<(), LinkError> {
        timeout(HELLO_PATIENCE, self.greet(reader, writer))
            .await
            .map_err(|_| LinkError::Silent("no hello"))??;
        let (requests, incoming) = mpsc::channel(SLACK);
        let (replies, outgoing) = mpsc::unbounded_channel();
        let unanswered = AtomicUsize::new(0);
        let connection = Connection {
            context: &self.context,
            channels: HashMap::new(),
            running: JoinSet::new(),
            tasks: HashMap::new(),
            replies,
            unanswered: &unanswered,
            count: 0,
        };
        tokio::select! {
            ended = read(reader, requests) => ended,
            ended = async {
                let run = connection.run(incoming, stop);
                tokio::try_join!(run, write(writer, outgoing, &unanswered)).map(|_| ())
            } => ended,
        }
    }

    /// Answers before it judges, so that the node can name what does not fit.
    async fn greet(
        &self,
        reader: &mut (impl AsyncRead + Unpin),
        writer: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), LinkError> {
        let Some(frame) = read_frame(reader).await? else {
            return Err(LinkError::Lost("it was closed before the hello".into()));
        };
        let mut info = self.context.hsm.info();
        // Requests of one channel queue here, whatever the signer behind can do.
        info.pipelining = Pipelining::InOrder;
        let chain_hash = self.context.chain_hash;
        let hello = SignerHello { chain_hash, info, max_in_flight: MAX_IN_FLIGHT as u32 };
        write_frame(writer, &hello.encode()).await?;
        same_chain(chain_hash, NodeHello::decode(&frame)?.chain_hash)
    }
}

async fn read(
    reader: &mut (impl AsyncRead + Unpin),
    requests: mpsc::Sender<FromNode>,
) -> Result<(), LinkError> {
    loop {
        let frame = timeout(NODE_PATIENCE, read_frame(reader))
            .await
            .map_err(|_| LinkError::Silent("it does not even ping"))??;
        let Some(frame) = frame else { return Ok(()) };
        if requests.send(FromNode::decode(&frame)?).await.is_err() {
            // It stops, and says when it has.
            return std::future::pending().await;
        }
    }
}

async fn write(
    writer: &mut (impl AsyncWrite + Unpin),
    mut replies: mpsc::UnboundedReceiver<FromSigner>,
    unanswered: &AtomicUsize,
) -> Result<(), LinkError> {
    while let Some(reply) = replies.recv().await {
        // Before the node can know: its next request may come at once.
        unanswered.fetch_sub(1, Ordering::Relaxed);
        timeout(WRITE_PATIENCE, write_frame(writer, &reply.encode()))
            .await
            .map_err(|_| LinkError::Silent("it does not take its answers"))??;
    }
    Ok(())
}

/// What was carried out for a channel.
type Outcome = (HsmResult<Answer>, Known);

struct Connection<'a> {
    context: &'a Arc<Context>,
    channels: HashMap<ChannelRef, Channel>,
    running: JoinSet<Outcome>,
    tasks: HashMap<Id, ChannelRef>,
    /// Bounded by `unanswered`.
    replies: mpsc::UnboundedSender<FromSigner>,
    /// Requests and pings whose answers are not on their way yet.
    unanswered: &'a AtomicUsize,
    /// Requests so far.
    count: u64,
}

impl Connection<'_> {
    async fn run(
        mut self,
        mut incoming: mpsc::Receiver<FromNode>,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<(), LinkError> {
        tokio::pin!(stop);
        loop {
            tokio::select! {
                Some(done) = self.running.join_next_with_id() => self.done(done),
                message = incoming.recv() => match message {
                    Some(message) => self.take(message)?,
                    None => return Ok(()),
                },
                () = &mut stop => break,
            }
        }
        incoming.close();
        self.channels.values_mut().for_each(Channel::clear);
        let rest = async {
            while let Some(done) = self.running.join_next_with_id().await {
                self.done(done);
            }
        };
        tokio::select! {
            () = rest => {}
            () = sleep(STOP_PATIENCE) => log::warn!("stopped while a request was under way"),
        }
        Ok(())
    }

    fn take(&mut self, message: FromNode) -> Result<(), LinkError> {
        if self.unanswered.fetch_add(1, Ordering::Relaxed) >= MAX_IN_FLIGHT + SLACK {
            return Err(LinkError::TooManyRequests(MAX_IN_FLIGHT));
        }
        match message {
            FromNode::Ping(number) => self.send(FromSigner::Pong(number)),
            FromNode::Request(request) => self.request(request),
        }
        Ok(())
    }

    fn request(&mut self, request: Request) {
        self.count += 1;
        let (id, reference) = (request.id, request.channel);
        if self.channels.len() >= MAX_CHANNELS && !self.channels.contains_key(&reference) {
            self.forget_oldest();
        }
        let channel = self.channels.entry(reference).or_default();
        channel.used = self.count;
        match channel.push(request) {
            Ok(()) => self.start(reference),
            Err(error) => self.send(FromSigner::Reply(id, Err(error))),
        }
    }

    /// There is one: a connection has fewer requests than channels.
    fn forget_oldest(&mut self) {
        let idle = self.channels.iter().filter(|(_, channel)| channel.is_idle());
        if let Some(oldest) = idle.min_by_key(|(_, channel)| channel.used).map(|(of, _)| *of) {
            self.channels.remove(&oldest);
        }
    }

    /// The channel's next request, if none is under way.
    fn start(&mut self, reference: ChannelRef) {
        while let Some(next) = self.channels.get_mut(&reference).and_then(Channel::next) {
            match next {
                Err(ids) => self.reply(ids, Err(HsmError::Aborted)),
                Ok(job) => {
                    let known = self.channels[&reference].known.clone();
                    let context = Arc::clone(self.context);
                    let task = self.running.spawn(async move {
                        let mut known = known;
                        let answer = context.perform(reference, &job.body, &mut known).await;
                        (answer, known)
                    });
                    self.tasks.insert(task.id(), reference);
                }
            }
        }
    }

    fn done(&mut self, done: Result<(Id, Outcome), JoinError>) {
        let (task, answer, known) = match done {
            Ok((task, (answer, known))) => (task, answer, Some(known)),
            Err(error) => {
                log::error!("a signer's call panicked: {error}");
                let reason = "the signer failed while it was asked".into();
                (error.id(), Err(HsmError::Indeterminate(reason)), None)
            }
        };
        let Some(reference) = self.tasks.remove(&task) else { return };
        let Some(channel) = self.channels.get_mut(&reference) else { return };
        if let Some(known) = known {
            channel.known = known;
        }
        let ids = channel.done(answer.is_ok());
        self.reply(ids, answer);
        self.start(reference);
    }

    fn reply(&self, ids: Vec<u64>, answer: HsmResult<Answer>) {
        for id in ids {
            self.send(FromSigner::Reply(id, answer.clone()));
        }
    }

    /// Without a reader the connection ends by itself.
    fn send(&self, message: FromSigner) {
        drop(self.replies.send(message));
    }
}
