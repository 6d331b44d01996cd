//! The node: sessions, openings under way, and the chain as far as the driver tells it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bitcoin::Transaction;
use bitcoin::secp256k1::{PublicKey, SecretKey};
use lightning::ln::types::ChannelId;
use opening_core::FeeratePerKw;
use opening_peer::funding::FundingTransaction;
use opening_peer::session::{CompleteError, Opening, PendingSignature};
use opening_peer::transport::Transport;
use opening_peer::transport::bolt8::EphemeralKey;
use opening_peer::transport::tcp;
use opening_peer::{Ask, Failed, Greeting, Opened, Openings, Restored, Session, Stage};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use super::chain::Chain;
use super::command::{Command, Refused};
use super::output::Output;
use super::report::{Pending, Reporter, broadcast_line, damaged_line, lock, restored_line};
use super::signer::RemoteSigner;

/// How long TCP and BOLT 8 may take together.
const CONNECT: Duration = Duration::from_secs(10);
/// How long the last words to all peers may take.
const STOP: Duration = Duration::from_secs(2);

/// The node that the driver's commands are carried out on.
pub struct ControlNode {
    pub(super) openings: Arc<Openings>,
    pub(super) reporter: Arc<Reporter>,
    output: Output,
    secret: SecretKey,
    sessions: Mutex<HashMap<PublicKey, Session>>,
    pub(super) chain: Mutex<Chain>,
    signer: Option<RemoteSigner>,
}

impl ControlNode {
    /// A node with this identity at this height, and its signer if that is elsewhere.
    pub fn new(
        openings: Arc<Openings>,
        reporter: Arc<Reporter>,
        output: Output,
        secret: SecretKey,
        height: u32,
        signer: Option<RemoteSigner>,
    ) -> Arc<Self> {
        Arc::new(Self {
            openings,
            reporter,
            output,
            secret,
            sessions: Mutex::default(),
            chain: Mutex::new(Chain::at(height)),
            signer,
        })
    }

    /// Takes in what the store had.  A damaged entry is named, and the others serve.
    pub async fn restore(&self, restored: Vec<Restored>) {
        let under_way = self.openings.status().await.under_way;
        let stages: HashMap<_, _> =
            under_way.into_iter().map(|under| (under.channel_id, under.stage)).collect();
        let take_in = |opened: Arc<Opened>| {
            let stage = stages.get(&Some(opened.channel_id)).copied().unwrap_or(Stage::Depth);
            self.output.line(restored_line(&opened, stage));
            self.reporter.channels().restore(opened, stage);
        };
        for restored in restored {
            match restored {
                Restored::MayBroadcast { opened, permit: _permit } => {
                    take_in(opened.clone());
                    // The transaction may have been lost with the last process.
                    if let Some(transaction) = &opened.funding_transaction {
                        self.output.line(broadcast_line(transaction));
                    }
                }
                Restored::AwaitDepth(opened) => {
                    take_in(opened);
                    lock(&self.chain).fall_behind();
                }
                Restored::AwaitChannelReady(opened) | Restored::Failed { opened, .. } => {
                    take_in(opened);
                }
                Restored::Damaged { key, error } => {
                    log::error!("{error} [{}]", error.code());
                    self.output.line(damaged_line(&key, &error));
                }
                other => log::warn!("{other:?}"),
            }
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
        // The openings have no more to ask.
        if let Some(signer) = &self.signer {
            signer.close().await;
        }
    }

    pub(super) fn session(&self, peer: &PublicKey) -> Result<Session, Refused> {
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
            Command::PastBlock { height, transactions } => {
                self.past_block(height, transactions).await
            }
            Command::Synced => {
                lock(&self.chain).synced();
                Ok(json!({}))
            }
            Command::Channels => Ok(self.reporter.channels().to_json()),
            Command::Stop => Ok(json!({})),
            other => self.operate(other).await,
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
        self.reporter.pending().insert(id, pending);
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
            self.reporter.pending().remove(&id);
            return;
        };
        let output = funding.needed().output.clone();
        // Kept before it is told: the transaction may come at once.
        match self.reporter.pending().get_mut(&id) {
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
            self.reporter.pending().get_mut(&id).and_then(|pending| pending.funding.take());
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
                    (self.reporter.pending().get_mut(&id), still_pending)
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
        self.reporter.pending().remove(&id);
        if let Ok((_opened, _permit)) = opened {
            self.output.line(broadcast_line(&transaction));
        }
    }

    async fn cancel(&self, id: ChannelId) -> Result<Value, Refused> {
        let unknown = || Refused::new("unknown-opening", format!("no opening {id} is under way"));
        let canceller = self.reporter.pending().get(&id).map(|pending| pending.canceller.clone());
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
        lock(&self.chain).connect(height, transactions)?;
        self.tell_depths().await;
        // After the depths: what has confirmed is not counted any more.
        if lock(&self.chain).is_synced() {
            self.openings.block_connected(height).await;
        }
        Ok(json!({}))
    }

    async fn past_block(
        &self,
        height: u32,
        transactions: Vec<Transaction>,
    ) -> Result<Value, Refused> {
        lock(&self.chain).past(height, transactions)?;
        self.tell_depths().await;
        Ok(json!({}))
    }

    async fn disconnect_block(&self, height: u32) -> Result<Value, Refused> {
        let taken_back = lock(&self.chain).disconnect(height)?;
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
            let confirmation = lock(&self.chain).confirmation(&opened);
            let Some(confirmation) = confirmation else { continue };
            if let Err(error) = self.openings.confirmed(opened.channel_id, confirmation).await {
                log::warn!("{}: {error}", opened.channel_id);
            }
        }
    }
}

fn refused(failed: &Failed) -> Refused {
    Refused::new(failed.failure.code(), failed)
}
