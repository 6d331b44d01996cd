//! What is played, scene by scene.

use std::sync::Arc;
use std::time::Instant;

use bitcoin::Amount;
use lightning::events::ClosureReason;
use opening_core::{ChannelType, FeeratePerKw, MilliSatoshi};
use opening_peer::negotiation::ready::Ready;
use opening_peer::{Ask, FundingTransaction, Opened, Session};

use super::claims;
use super::paint::Painter;
use super::signer::{SignerProcess, Where};
use crate::chain::RegtestChain;
use crate::ldk_node::{Inbound, LdkAsk, LdkNode};
use crate::our_node::{AnyError, OurNode};
use crate::wallet::Wallet;

/// Blocks mined on each funding transaction: LDK asks for six.
const DEPTH: u32 = 6;
/// Below the smallest channel that our node takes on regtest.
const TOO_SMALL: u64 = 9_999;

/// Everyone on the stage.
struct Stage {
    chain: RegtestChain,
    wallet: Wallet,
    ldk: LdkNode,
    ours: Arc<OurNode>,
    session: Session,
    painter: Painter,
}

/// Plays everything; an error names the first claim that does not hold.
pub async fn play(painter: Painter, signer: Where) -> Result<(), AnyError> {
    painter.title("An embedded regtest chain, a bdk wallet, our node, and LDK's ChannelManager");
    let chain = RegtestChain::default();
    let wallet = Wallet::mined([3; 32], &chain);
    let ldk = LdkNode::start([2; 32], chain.clone(), wallet.clone(), Inbound::Accept).await?;
    let mut process = None;
    let ours = match signer {
        Where::Here => OurNode::start([1; 32], chain.clone()).await?,
        Where::InAProcess => {
            let mut started = SignerProcess::start()?;
            let node = started.node(chain.clone()).await?;
            painter.note(&format!("our signer is a process of its own: {}", started.describe()));
            process = Some(started);
            node
        }
    };
    let session = ours.connect(ldk.node_id(), ldk.address()).await?;
    painter.note(&format!("we are      {}", ours.node_id()));
    painter.note(&format!("LDK is      {} at {}", ldk.node_id(), ldk.address()));
    painter.note("connected over TCP and BOLT 8, both init messages exchanged");
    let stage = Stage { chain, wallet, ldk, ours, session, painter };

    let mut channels = vec![
        stage.we_fund("We fund, static_remotekey", ChannelType::STATIC_REMOTEKEY, 0).await?,
        stage
            .we_fund("We fund, anchors, pushing 200,000 sat", ChannelType::ANCHORS, 200_000)
            .await?,
    ];
    // Before LDK's own channels: they show that the connection outlives a refusal.
    stage.refused().await?;
    let plain =
        LdkAsk { funding_satoshis: 800_000, push_msat: 0, anchors: false, announce_channel: false };
    channels.push(stage.ldk_funds("LDK funds, static_remotekey", plain).await?);
    let anchors = LdkAsk { anchors: true, push_msat: 50_000_000, ..plain };
    channels.push(stage.ldk_funds("LDK funds, anchors, pushing 50,000 sat", anchors).await?);

    if let Some(process) = process {
        let process = stage.signer_is_killed(process, &mut channels).await?;
        let title = "We fund once more, the signer is the new process";
        channels.push(stage.we_fund(title, ChannelType::ANCHORS, 0).await?);
        drop(process);
    }

    for (number, ready) in (1..).zip(&channels) {
        stage.painter.channel(number, ready);
    }
    if stage.ours.pending() != 0 {
        return Err("an opening is left pending".into());
    }
    let count = channels.len();
    let elapsed = stage.painter.elapsed();
    stage.painter.done(&format!("{count} channels in use on both sides, 1 refused, {elapsed}"));
    Ok(())
}

impl Stage {
    async fn we_fund(
        &self,
        title: &str,
        channel_type: ChannelType,
        push_satoshis: u64,
    ) -> Result<Ready, AnyError> {
        self.painter.title(title);
        let (begin, first) = (Instant::now(), self.ours.recorder().len());
        let ask = Ask {
            funding_satoshis: Amount::from_sat(1_000_000),
            push_msat: MilliSatoshi::from_msat(push_satoshis * 1000),
            feerate_per_kw: FeeratePerKw::new(1250),
            announce_channel: false,
            channel_type: Some(channel_type),
            upfront_shutdown_script: None,
        };
        let (opened, _) = self.ours.open_channel(&self.session, ask, &self.wallet).await?;
        self.put_to_use(&opened, begin, first).await
    }

    async fn ldk_funds(&self, title: &str, ask: LdkAsk) -> Result<Ready, AnyError> {
        self.painter.title(title);
        let (begin, first) = (Instant::now(), self.ours.recorder().len());
        self.ldk.open_channel(self.ours.node_id(), ask)?;
        let opened = self.ours.recorder().opened(first).await?;
        // LDK broadcasts its transaction when it has our signature.
        self.chain.accepted(opened.parameters.funding_outpoint.txid).await?;
        self.put_to_use(&opened, begin, first).await
    }

    /// Mines, waits for both `channel_ready`, and checks what both sides think they have.
    async fn put_to_use(
        &self,
        opened: &Opened,
        begin: Instant,
        first: usize,
    ) -> Result<Ready, AnyError> {
        for _ in 0..DEPTH {
            self.chain.mine();
        }
        self.wallet.sync(&self.chain);
        let ready = self.ours.recorder().ready(opened).await?;
        claims::ldk_agrees(&self.ldk, &ready).await?;
        claims::we_can_leave(&self.ours, opened).await?;
        self.painter.timeline(begin, &self.ours.recorder().since(first));
        self.painter.holds("LDK has the same channel in use: outpoint, capacity, type, reserves");
        self.painter.holds("Bitcoin's consensus code accepts our commitment with both signatures");
        Ok(ready)
    }

    /// The signer is killed when LDK has accepted, and started again before the transaction is there.
    async fn signer_is_killed(
        &self,
        mut process: SignerProcess,
        channels: &mut Vec<Ready>,
    ) -> Result<SignerProcess, AnyError> {
        self.painter.title("We fund, and our signer is killed in the middle");
        let (begin, first) = (Instant::now(), self.ours.recorder().len());
        let ask = Ask::new(Amount::from_sat(1_000_000), FeeratePerKw::new(1250));
        let pending = self.session.open(ask.clone()).await?.accepted().await?;
        process.kill().await?;
        self.painter.note("LDK has accepted; the signer's process is killed with SIGKILL");
        let failed = match self.session.open(ask).await {
            Ok(_) => return Err("a channel was begun without a signer".into()),
            Err(failed) => failed,
        };
        if failed.failure.code() != "signer-unavailable" {
            return Err(format!("another opening failed otherwise: {failed}").into());
        }
        self.painter
            .note(&format!("another opening is refused at once: {}", failed.failure.code()));
        process.restart()?;
        self.painter.note("the signer is started again, and the first opening goes on");
        let feerate = bitcoin::FeeRate::from_sat_per_kwu(1250);
        let psbt =
            self.wallet.build_unsigned(std::slice::from_ref(&pending.needed().output), feerate)?;
        let transaction = self.wallet.sign(psbt)?;
        let funding = FundingTransaction::Signed(transaction.clone());
        let mut signing = pending.complete(funding).await.map_err(|(error, _)| error)?;
        let (opened, permit) = signing.opened().await?;
        if permit.txid() != transaction.compute_txid() {
            return Err("the permit is for another transaction".into());
        }
        self.chain.broadcast(&transaction)?;
        channels.push(self.put_to_use(&opened, begin, first).await?);
        self.painter.holds("the opening under way when the signer was killed has become a channel");
        Ok(process)
    }

    /// LDK offers less than we take, and is told why not.
    async fn refused(&self) -> Result<(), AnyError> {
        self.painter.title(&format!("LDK offers {TOO_SMALL} sat, and is refused"));
        let (begin, first) = (Instant::now(), self.ours.recorder().len());
        let ask = LdkAsk {
            funding_satoshis: TOO_SMALL,
            push_msat: 0,
            anchors: false,
            announce_channel: false,
        };
        let id = self.ldk.open_channel(self.ours.node_id(), ask)?;
        let failed = self.ours.recorder().failed(first).await?;
        let told = match self.ldk.closure_reason(id).await {
            Some(ClosureReason::CounterpartyForceClosed { peer_msg }) => peer_msg.to_string(),
            other => return Err(format!("LDK was not told why: {other:?}").into()),
        };
        let said = failed.failure.reply().unwrap_or_default();
        if failed.failure.code() != "funding-satoshis-too-small" || !told.contains(&said) {
            return Err(format!("we refused with {failed}, LDK heard {told}").into());
        }
        self.painter.timeline(begin, &self.ours.recorder().since(first));
        self.painter.note(&format!("the program matches the code  {}", failed.failure.code()));
        self.painter.note(&format!("LDK was told                  {told}"));
        if self.ours.pending() != 0 {
            return Err("the refused opening is left pending".into());
        }
        self.painter.holds("nothing is left pending; what follows uses the same connection");
        Ok(())
    }
}
