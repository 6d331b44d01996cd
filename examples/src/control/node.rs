//! The node: sessions, openings under way, and the chain as far as the driver tells it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bitcoin::secp256k1::{PublicKey, SecretKey};
use bitcoin::{Transaction, Txid, consensus};
use lightning::ln::types::ChannelId;
use opening_core::FeeratePerKw;
use opening_peer::funding::FundingTransaction;
use opening_peer::negotiation::ready::Confirmation;
use opening_peer::node::Events;
use opening_peer::session::{Canceller, CompleteError, Opening, PendingFunding, PendingSignature};
use opening_peer::transport::Transport;
use opening_peer::transport::bolt8::EphemeralKey;
use opening_peer::transport::tcp;
use opening_peer::{Ask, Event, Failed, Greeting, Opened, Openings, Restored, Session, Stage};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::channels::Channels;
use super::command::{Command, Refused};
use super::output::Output;

/// How long TCP and BOLT 8 may take together.
const CONNECT: Duration = Duration::from_secs(10);
/// How long the last words to all peers may take.
const STOP: Duration = Duration::from_secs(2);

/// Tells the driver what happens, and keeps the list of channels.
pub struct Reporter {
    output: Output,
    channels: Mutex<Channels>,
    pending: Mutex<HashMap<ChannelId, Pending>>,
    /// A channel was opened: its transaction may be mined already.
    opened: Notify,
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

    fn channels(&self) -> MutexGuard<'_, Channels> {
        lock(&self.channels)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic ends the process: see `main`.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Events for Reporter {
    fn event(&self, peer: &PublicKey, event: Event) {
        self.channels().on_event(peer, &event);
        let peer = peer.to_string();
        self.output.line(match event {
            Event::Disconnected { .. } => json!({"event": "peer_disconnected", "peer": peer}),
            Event::Failed(failed) => {
                lock(&self.pending).remove(&failed.temporary_channel_id);
                failed_line(&peer, &failed)
            }
            Event::Opened(opened) => {
                self.opened.notify_one();
                let outpoint = opened.parameters.funding_outpoint;
                json!({
                    "event": "opened",
                    "peer": peer,
                    "channel_id": opened.channel_id.to_string(),
                    "funding_txid": outpoint.txid.to_string(),
                    "funding_vout": outpoint.vout,
                    "role": opened.role().as_str(),
                    "commitment_txid":
                        opened.local_commitment.transaction.compute_txid().to_string(),
                })
            }
            Event::Ready(ready) => json!({
                "event": "channel_ready",
                "peer": peer,
                "channel_id": ready.opened.channel_id.to_string(),
            }),
            Event::ErrorSent { channel_id, text } => {
                message_line("error_sent", &peer, &channel_id, &text)
            }
            Event::ErrorReceived { channel_id, text } => {
                message_line("error_received", &peer, &channel_id, &text)
            }
            Event::WarningReceived { channel_id, text } => {
                message_line("warning_received", &peer, &channel_id, &text)
            }
            // `Connected` comes before anyone can use the session: `peer_connected` is said later.
            _ => return,
        });
    }
}

fn broadcast_line(transaction: &Transaction) -> Value {
    json!({"event": "broadcast", "tx": consensus::encode::serialize_hex(transaction)})
}

fn message_line(event: &str, peer: &str, channel_id: &ChannelId, text: &str) -> Value {
    json!({"event": event, "peer": peer, "channel_id": channel_id.to_string(), "text": text})
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

/// The node that the driver's commands are carried out on.
pub struct ControlNode {
    openings: Arc<Openings>,
    reporter: Arc<Reporter>,
    output: Output,
    secret: SecretKey,
    sessions: Mutex<HashMap<PublicKey, Session>>,
    chain: Mutex<Chain>,
}

/// An opening of ours on its way.
struct Pending {
    canceller: Canceller,
    /// Once the peer has accepted, until the driver brings the transaction.
    funding: Option<PendingFunding>,
}

/// What the driver told of the chain.
struct Chain {
    height: u32,
    /// Every transaction in a block: height and index.
    mined: HashMap<Txid, (Transaction, u32, u32)>,
}

impl ControlNode {
    /// A node with this identity at this height.
    pub fn new(
        openings: Arc<Openings>,
        reporter: Arc<Reporter>,
        output: Output,
        secret: SecretKey,
        height: u32,
    ) -> Arc<Self> {
        Arc::new(Self {
            openings,
            reporter,
            output,
            secret,
            sessions: Mutex::default(),
            chain: Mutex::new(Chain { height, mined: HashMap::new() }),
        })
    }

    /// Takes in what the store had.  A damaged entry is named, and the others serve.
    pub fn restore(&self, restored: Vec<Restored>) {
        for restored in restored {
            let (opened, stage) = match restored {
                Restored::MayBroadcast { opened, permit: _permit } => {
                    // The transaction may have been lost with the last process.
                    if let Some(transaction) = &opened.funding_transaction {
                        self.output.line(broadcast_line(transaction));
                    }
                    (opened, Stage::Depth)
                }
                Restored::AwaitDepth(opened) => (opened, Stage::Depth),
                Restored::AwaitChannelReady(opened) => (opened, Stage::ChannelReady),
                Restored::Failed { opened, .. } => (opened, Stage::Failed),
                Restored::Damaged { error, .. } => {
                    log::error!("{error} [{}]", error.code());
                    continue;
                }
                other => {
                    log::warn!("{other:?}");
                    continue;
                }
            };
            self.reporter.channels().restore(opened, stage);
        }
    }

    /// Takes in every peer that connects.
    pub async fn listen(self: Arc<Self>, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(self.clone().answer(stream))),
                Err(error) => {
                    log::warn!("accept: {error}");
                    // Out of file descriptors, most likely: give others time to close some.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn answer(self: Arc<Self>, stream: TcpStream) {
        let address = stream.peer_addr().ok();
        let ephemeral = EphemeralKey::random();
        match tcp::accept(stream, &self.secret, ephemeral, CONNECT).await {
            Ok((transport, peer)) => {
                if let Err(refused) = self.start(peer, transport, address).await {
                    log::warn!("{peer}: {}", refused.error);
                }
            }
            Err(error) => log::warn!("handshake: {error}"),
        }
    }

    async fn start(
        self: &Arc<Self>,
        peer: PublicKey,
        transport: Transport,
        peer_address: Option<std::net::SocketAddr>,
    ) -> Result<(), Refused> {
        let greeting = Greeting { peer_address, first_message: None };
        let session = Session::start(self.openings.clone(), peer, transport, greeting)
            .await
            .map_err(|error| Refused::new(error.code(), error))?;
        lock(&self.sessions).insert(peer, session);
        self.output.line(json!({"event": "peer_connected", "peer": peer.to_string()}));
        Ok(())
    }

    /// Shows a channel its depth when it opens after its transaction was mined.
    pub async fn follow_openings(self: Arc<Self>) {
        loop {
            self.reporter.opened.notified().await;
            self.tell_depths().await;
        }
    }

    /// Ends every connection; returns when the peers have been told what there was to tell.
    pub async fn stop(&self) {
        // A peer that does not read must not keep us.
        let _ = tokio::time::timeout(STOP, self.openings.shut_down()).await;
    }

    fn session(&self, peer: &PublicKey) -> Result<Session, Refused> {
        let mut sessions = lock(&self.sessions);
        // One that has ended is as good as none.
        sessions.retain(|_, session| !session.is_closed());
        let session = sessions.get(peer).cloned();
        session.ok_or_else(|| Refused::new("not-connected", format!("not connected to {peer}")))
    }

    /// Carries out one command; what it names has happened when this returns.
    pub async fn run(self: &Arc<Self>, command: Command) -> Result<Value, Refused> {
        match command {
            Command::Connect { peer, addr } => self.connect(peer, &addr).await,
            Command::FundChannel { peer, ask } => self.fund_channel(peer, ask).await,
            Command::FundingTx { temporary_channel_id, transaction } => {
                self.funding_tx(temporary_channel_id, transaction).await
            }
            Command::Cancel { temporary_channel_id } => self.cancel(temporary_channel_id).await,
            Command::ConnectBlock { height, transactions } => {
                self.connect_block(height, transactions).await
            }
            Command::DisconnectBlock { height } => self.disconnect_block(height).await,
            Command::Channels => Ok(self.reporter.channels().to_json()),
            Command::Stop => Ok(json!({})),
        }
    }

    async fn connect(self: &Arc<Self>, peer: PublicKey, addr: &str) -> Result<Value, Refused> {
        let transport = tcp::connect(addr, &self.secret, peer, EphemeralKey::random(), CONNECT)
            .await
            .map_err(|error| Refused::new("connect-failed", error))?;
        self.start(peer, transport, None).await?;
        Ok(json!({}))
    }

    async fn fund_channel(self: &Arc<Self>, peer: PublicKey, ask: Ask) -> Result<Value, Refused> {
        let feerate = ask.feerate_per_kw;
        let opening = self.session(&peer)?.open(ask).await.map_err(|failed| refused(&failed))?;
        let id = opening.temporary_channel_id();
        let pending = Pending { canceller: opening.canceller(), funding: None };
        lock(&self.reporter.pending).insert(id, pending);
        tokio::spawn(self.clone().await_acceptance(peer, opening, feerate));
        Ok(json!({"temporary_channel_id": id.to_string()}))
    }

    async fn await_acceptance(
        self: Arc<Self>,
        peer: PublicKey,
        opening: Opening,
        feerate: FeeratePerKw,
    ) {
        let id = opening.temporary_channel_id();
        // A failure is told by its event.
        let Ok(funding) = opening.accepted().await else {
            lock(&self.reporter.pending).remove(&id);
            return;
        };
        let output = funding.needed().output.clone();
        // Kept before it is told: the transaction may come at once.
        match lock(&self.reporter.pending).get_mut(&id) {
            Some(pending) => pending.funding = Some(funding),
            None => return,
        }
        self.output.line(json!({
            "event": "funding_needed",
            "peer": peer.to_string(),
            "temporary_channel_id": id.to_string(),
            "funding_satoshis": output.value.to_sat(),
            "script_pubkey": output.script_pubkey.to_hex_string(),
            "feerate_per_kw": feerate.to_sat_per_kw(),
        }));
    }

    async fn funding_tx(
        self: &Arc<Self>,
        id: ChannelId,
        transaction: Transaction,
    ) -> Result<Value, Refused> {
        let funding =
            lock(&self.reporter.pending).get_mut(&id).and_then(|pending| pending.funding.take());
        let funding = funding.ok_or_else(|| {
            Refused::new("no-funding-needed", format!("no opening {id} waits for a transaction"))
        })?;
        match funding.complete(FundingTransaction::Signed(transaction.clone())).await {
            Ok(signing) => {
                tokio::spawn(self.clone().await_permit(id, signing, transaction));
                Ok(json!({}))
            }
            Err((error, still_pending)) => {
                if let (Some(pending), Some(funding)) =
                    (lock(&self.reporter.pending).get_mut(&id), still_pending)
                {
                    pending.funding = Some(funding);
                }
                Err(match error {
                    CompleteError::Funding(error) => Refused::new(error.code(), error),
                    CompleteError::Failed(failed) => refused(&failed),
                    other => Refused::new("funding-failed", other),
                })
            }
        }
    }

    /// The transaction leaves only with the permit.
    async fn await_permit(
        self: Arc<Self>,
        id: ChannelId,
        mut signing: PendingSignature,
        transaction: Transaction,
    ) {
        let opened = signing.opened().await;
        lock(&self.reporter.pending).remove(&id);
        if let Ok((_opened, _permit)) = opened {
            self.output.line(broadcast_line(&transaction));
        }
    }

    async fn cancel(&self, id: ChannelId) -> Result<Value, Refused> {
        let unknown = || Refused::new("unknown-opening", format!("no opening {id} is under way"));
        let canceller =
            lock(&self.reporter.pending).get(&id).map(|pending| pending.canceller.clone());
        if canceller.ok_or_else(unknown)?.cancel().await {
            Ok(json!({}))
        } else {
            Err(Refused::new("too-late", format!("opening {id} has ended, or is being saved")))
        }
    }

    async fn connect_block(
        &self,
        height: u32,
        transactions: Vec<Transaction>,
    ) -> Result<Value, Refused> {
        {
            let mut chain = lock(&self.chain);
            if Some(height) != chain.height.checked_add(1) {
                let text = format!("the tip is at {}", chain.height);
                return Err(Refused::new("wrong-height", text));
            }
            chain.height = height;
            for (transaction, index) in transactions.into_iter().zip(1..) {
                chain.mined.insert(transaction.compute_txid(), (transaction, height, index));
            }
        }
        self.tell_depths().await;
        self.openings.block_connected(height).await;
        Ok(json!({}))
    }

    async fn disconnect_block(&self, height: u32) -> Result<Value, Refused> {
        let taken_back: Vec<Txid> = {
            let mut chain = lock(&self.chain);
            let below = chain.height.checked_sub(1).filter(|_| height == chain.height);
            let Some(below) = below else {
                let text = format!("the tip is at {}", chain.height);
                return Err(Refused::new("wrong-height", text));
            };
            chain.height = below;
            let at_height =
                |(_, (_, mined, _)): &(&Txid, &(Transaction, u32, u32))| *mined == height;
            let taken_back: Vec<_> =
                chain.mined.iter().filter(at_height).map(|(txid, _)| *txid).collect();
            taken_back.iter().for_each(|txid| drop(chain.mined.remove(txid)));
            taken_back
        };
        let opened = self.reporter.channels().opened();
        for opened in opened {
            if taken_back.contains(&opened.parameters.funding_outpoint.txid) {
                // One that has ended waits for nothing.
                let _ = self.openings.unconfirmed(&opened.channel_id);
            }
        }
        self.tell_depths().await;
        Ok(json!({}))
    }

    /// Shows every opened channel how deep its funding transaction is.
    async fn tell_depths(&self) {
        let opened = self.reporter.channels().opened();
        for opened in opened {
            let Some(confirmation) = self.confirmation(&opened) else { continue };
            if let Err(error) = self.openings.confirmed(opened.channel_id, confirmation).await {
                log::warn!("{}: {error}", opened.channel_id);
            }
        }
    }

    fn confirmation(&self, opened: &Opened) -> Option<Confirmation> {
        let chain = lock(&self.chain);
        let txid = opened.parameters.funding_outpoint.txid;
        let (transaction, block_height, transaction_index) = chain.mined.get(&txid)?;
        Some(Confirmation {
            transaction: transaction.clone(),
            block_height: *block_height,
            transaction_index: *transaction_index,
            // At least 1: what is mined is at the tip or below it.
            depth: (chain.height - block_height).saturating_add(1),
        })
    }
}

fn refused(failed: &Failed) -> Refused {
    Refused::new(failed.failure.code(), failed)
}
