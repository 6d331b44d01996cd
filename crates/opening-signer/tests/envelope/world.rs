//! A signer behind the wire, in memory, whose connections a test can cut.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::constants::ChainHash;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{PublicKey, Secp256k1};
use bitcoin::{Amount, OutPoint, Txid};
use opening_core::{
    ChannelConfig, ChannelKeys, ChannelParameters, ChannelType, Commitment, FeeratePerKw,
    MilliSatoshi, Party, Side,
};
use opening_signer::remote::{Connect, EnvelopeOptions, EnvelopeServer, EnvelopedHsm, Stream};
use opening_signer::{
    Call, ChannelHsm, ChannelRef, ChannelSetup, CommitmentRequest, Hsm, HsmError, HsmResult,
    HsmSecret, Info, LocalHsm, Verified,
};
use tokio::io::{DuplexStream, duplex};
use tokio::sync::mpsc;

/// What a call meets at the signer.
pub(crate) type Meet = dyn Fn(Call) -> Fate + Send + Sync;

#[derive(Clone, Copy)]
pub(crate) enum Fate {
    Go,
    /// Takes so long.
    After(Duration),
    Defer,
    /// Takes so long to be deferred.
    DeferAfter(Duration),
    /// Carried out, and then the connection is gone.
    LoseReply,
}

/// A local signer that does as a test says.
pub(crate) struct Scripted {
    inner: LocalHsm,
    meet: Box<Meet>,
    info: Option<Info>,
    at_once: AtomicUsize,
    pub(crate) most_at_once: AtomicUsize,
    /// Every call that was begun.
    pub(crate) calls: Mutex<Vec<(Call, u64)>>,
    cut: Mutex<Option<mpsc::UnboundedSender<()>>>,
}

impl Scripted {
    pub(crate) fn new(meet: impl Fn(Call) -> Fate + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self::of(LocalHsm::blind(&secret(7)), meet))
    }

    pub(crate) fn with_info(info: Info) -> Arc<Self> {
        let mut scripted = Self::of(LocalHsm::blind(&secret(7)), |_| Fate::Go);
        scripted.info = Some(info);
        Arc::new(scripted)
    }

    /// Of another secret than the others.
    pub(crate) fn with_secret(byte: u8) -> Arc<Self> {
        Arc::new(Self::of(LocalHsm::blind(&secret(byte)), |_| Fate::Go))
    }

    fn of(inner: LocalHsm, meet: impl Fn(Call) -> Fate + Send + Sync + 'static) -> Self {
        Self {
            inner,
            meet: Box::new(meet),
            info: None,
            at_once: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
            calls: Mutex::default(),
            cut: Mutex::default(),
        }
    }

    pub(crate) fn count(&self, call: Call) -> usize {
        self.calls.lock().unwrap().iter().filter(|(of, _)| *of == call).count()
    }

    async fn meet<T>(
        &self,
        (call, dbid): (Call, u64),
        act: impl Future<Output = HsmResult<T>>,
    ) -> HsmResult<T> {
        self.calls.lock().unwrap().push((call, dbid));
        let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_once.fetch_max(now, Ordering::SeqCst);
        let fate = (self.meet)(call);
        if let Fate::After(pause) | Fate::DeferAfter(pause) = fate {
            tokio::time::sleep(pause).await;
        }
        self.at_once.fetch_sub(1, Ordering::SeqCst);
        if matches!(fate, Fate::Defer | Fate::DeferAfter(_)) {
            return Err(HsmError::Deferred);
        }
        let done = act.await;
        if matches!(fate, Fate::LoseReply) {
            self.cut.lock().unwrap().as_ref().unwrap().send(()).unwrap();
            std::future::pending::<()>().await;
        }
        done
    }
}

/// So that channels can hold on to it.
pub(crate) struct Shared(pub(crate) Arc<Scripted>);

#[async_trait]
impl Hsm for Shared {
    fn info(&self) -> Info {
        self.0.info.clone().unwrap_or_else(|| self.0.inner.info())
    }

    async fn channel(&self, reference: ChannelRef) -> HsmResult<Arc<dyn ChannelHsm>> {
        let act = self.0.inner.channel(reference);
        let inner = self.0.meet((Call::Channel, reference.dbid), act).await?;
        Ok(Arc::new(Channel { hsm: Arc::clone(&self.0), inner, dbid: reference.dbid }))
    }

    async fn forget_channel(&self, reference: ChannelRef) -> HsmResult<()> {
        let act = self.0.inner.forget_channel(reference);
        self.0.meet((Call::ForgetChannel, reference.dbid), act).await
    }
}

struct Channel {
    hsm: Arc<Scripted>,
    inner: Arc<dyn ChannelHsm>,
    dbid: u64,
}

#[async_trait]
impl ChannelHsm for Channel {
    async fn pubkeys(&self) -> HsmResult<ChannelKeys> {
        self.hsm.meet((Call::Pubkeys, self.dbid), self.inner.pubkeys()).await
    }

    async fn per_commitment_point(&self, number: u64) -> HsmResult<PublicKey> {
        let act = self.inner.per_commitment_point(number);
        self.hsm.meet((Call::PerCommitmentPoint, self.dbid), act).await
    }

    async fn setup(&self, setup: &ChannelSetup) -> HsmResult<()> {
        self.hsm.meet((Call::Setup, self.dbid), self.inner.setup(setup)).await
    }

    async fn sign_counterparty_commitment(
        &self,
        request: &CommitmentRequest<'_>,
    ) -> HsmResult<Signature> {
        let act = self.inner.sign_counterparty_commitment(request);
        self.hsm.meet((Call::SignCounterpartyCommitment, self.dbid), act).await
    }

    async fn validate_holder_commitment(
        &self,
        request: &CommitmentRequest<'_>,
        signature: &Signature,
    ) -> HsmResult<()> {
        let act = self.inner.validate_holder_commitment(request, signature);
        self.hsm.meet((Call::ValidateHolderCommitment, self.dbid), act).await
    }

    async fn sign_holder_commitment(
        &self,
        request: &CommitmentRequest<'_>,
    ) -> HsmResult<Signature> {
        let act = self.inner.sign_holder_commitment(request);
        self.hsm.meet((Call::SignHolderCommitment, self.dbid), act).await
    }
}

/// Hands out the ends of connections that a test puts in.
pub(crate) struct Ends(mpsc::UnboundedReceiver<DuplexStream>);

#[async_trait]
impl Connect for Ends {
    async fn connect(&mut self) -> io::Result<Box<dyn Stream>> {
        match self.0.recv().await {
            Some(end) => Ok(Box::new(end)),
            None => std::future::pending().await,
        }
    }
}

/// The other ends.
pub(crate) fn ends() -> (mpsc::UnboundedSender<DuplexStream>, Ends) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (sender, Ends(receiver))
}

/// A node's signer, and what serves it.  Connections that break are made again.
pub(crate) struct World {
    pub(crate) hsm: Verified<EnvelopedHsm>,
    pub(crate) cut: mpsc::UnboundedSender<()>,
}

pub(crate) fn options() -> EnvelopeOptions {
    EnvelopeOptions::new(ChainHash::REGTEST)
}

impl World {
    /// Each connection meets the next of `signers`, the last one for ever.
    pub(crate) async fn new(signers: Vec<Arc<Scripted>>) -> Self {
        let (sender, connector) = ends();
        let (cut, mut cuts) = mpsc::unbounded_channel();
        for signer in &signers {
            *signer.cut.lock().unwrap() = Some(cut.clone());
        }
        tokio::spawn(async move {
            for connection in 0.. {
                let signer = Arc::clone(&signers[connection.min(signers.len() - 1)]);
                let server = EnvelopeServer::new(Arc::new(Shared(signer)), ChainHash::REGTEST);
                let (near, far) = duplex(4096);
                sender.send(near).unwrap();
                tokio::select! {
                    served = server.serve(far, std::future::pending()) => drop(served),
                    _ = cuts.recv() => {}
                }
            }
        });
        Self { hsm: EnvelopedHsm::connect(connector, options()).await.unwrap(), cut }
    }
}

pub(crate) fn secret(byte: u8) -> HsmSecret {
    HsmSecret::new([byte; 32])
}

pub(crate) fn reference(dbid: u64) -> ChannelRef {
    let peer = secret(8).node_key().public_key(&Secp256k1::new());
    ChannelRef { peer, dbid }
}

/// A channel that we fund, with the peer's signer at hand.
pub(crate) struct Opening {
    pub(crate) setup: ChannelSetup,
    pub(crate) ours: Commitment,
    pub(crate) theirs: Commitment,
    pub(crate) their_signature: Signature,
}

impl Opening {
    pub(crate) async fn new(channel: &dyn ChannelHsm, dbid: u64) -> Self {
        let peer = LocalHsm::blind(&secret(8)).channel(reference(dbid)).await.unwrap();
        let parameters = ChannelParameters {
            opener: Side::Local,
            funding_outpoint: OutPoint { txid: Txid::from_byte_array([9; 32]), vout: 1 },
            funding_satoshis: Amount::from_sat(1_000_000),
            push_msat: MilliSatoshi::from_msat(200_000_000),
            feerate_per_kw: FeeratePerKw::new(1250),
            channel_type: ChannelType::ANCHORS,
            local: party(channel).await,
            remote: party(&*peer).await,
        };
        let secp = Secp256k1::new();
        let ours = parameters.first_commitment(&secp, Side::Local).unwrap();
        let theirs = parameters.first_commitment(&secp, Side::Remote).unwrap();
        let mirrored = ChannelParameters {
            opener: Side::Remote,
            local: parameters.remote,
            remote: parameters.local,
            ..parameters.clone()
        };
        peer.setup(&of(mirrored.clone())).await.unwrap();
        let seen = Commitment { owner: Side::Remote, ..ours.clone() };
        let request = CommitmentRequest::first(&mirrored, &seen);
        let their_signature = peer.sign_counterparty_commitment(&request).await.unwrap();
        Self { setup: of(parameters), ours, theirs, their_signature }
    }

    pub(crate) fn request<'a>(&'a self, commitment: &'a Commitment) -> CommitmentRequest<'a> {
        CommitmentRequest::first(&self.setup.parameters, commitment)
    }

    /// As a driver makes them.
    pub(crate) async fn fund(&self, channel: &dyn ChannelHsm) -> HsmResult<Signature> {
        let request = self.request(&self.theirs);
        tokio::try_join!(
            biased;
            channel.setup(&self.setup),
            channel.sign_counterparty_commitment(&request),
        )
        .map(|done| done.1)
    }

    pub(crate) async fn validate(&self, channel: &dyn ChannelHsm) -> HsmResult<()> {
        channel.validate_holder_commitment(&self.request(&self.ours), &self.their_signature).await
    }
}

/// The whole of it, at one channel.
pub(crate) async fn open(hsm: &dyn Hsm, dbid: u64) -> HsmResult<Signature> {
    let channel = hsm.channel(reference(dbid)).await?;
    let opening = Opening::new(&*channel, dbid).await;
    let signature = opening.fund(&*channel).await?;
    opening.validate(&*channel).await?;
    channel.per_commitment_point(1).await?;
    Ok(signature)
}

fn of(parameters: ChannelParameters) -> ChannelSetup {
    ChannelSetup {
        parameters,
        chain_hash: ChainHash::REGTEST,
        local_shutdown_script: None,
        remote_shutdown_script: None,
    }
}

async fn party(channel: &dyn ChannelHsm) -> Party {
    let (keys, point) = tokio::join!(channel.pubkeys(), channel.per_commitment_point(0));
    Party {
        config: ChannelConfig {
            dust_limit_satoshis: Amount::from_sat(546),
            max_htlc_value_in_flight_msat: MilliSatoshi::from_msat(u64::MAX),
            channel_reserve_satoshis: Amount::from_sat(10_000),
            htlc_minimum_msat: MilliSatoshi::ZERO,
            to_self_delay: 6,
            max_accepted_htlcs: 483,
        },
        keys: keys.unwrap(),
        first_per_commitment_point: point.unwrap(),
    }
}

pub(crate) async fn connect(connector: Ends) -> Verified<EnvelopedHsm> {
    EnvelopedHsm::connect(connector, options()).await.unwrap()
}

/// One connection, served until it ends or is aborted.
pub(crate) async fn serve_once(
    ends: &mpsc::UnboundedSender<DuplexStream>,
    signer: Arc<Scripted>,
) -> tokio::task::JoinHandle<()> {
    let (near, far) = duplex(4096);
    ends.send(near).unwrap();
    let server = EnvelopeServer::new(Arc::new(Shared(signer)), ChainHash::REGTEST);
    tokio::spawn(async move { drop(server.serve(far, std::future::pending()).await) })
}
