//! Four channels at once over one connection: ours and LDK's, each funded by either side.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use bitcoin::Amount;
use lightning::ln::channel_state::ChannelDetails;
use lightning::ln::types::ChannelId;
use opening_core::{ChannelType, FeeratePerKw, Role};
use opening_peer::negotiation::ready::Ready;
use opening_peer::{Ask, Event, Opened};

use super::node::{MixedNode, OURS_FROM};
use crate::chain::RegtestChain;
use crate::demo::claims;
use crate::demo::paint::Painter;
use crate::ldk_node::{Inbound, LdkAsk, LdkNode};
use crate::our_node::AnyError;
use crate::wallet::Wallet;

/// Blocks mined on the funding transactions: LDK asks for six.
const DEPTH: u32 = 6;

/// Satoshis of each channel: by them the node routes, and the reader tells them apart.
const OURS_FUNDED_BY_US: u64 = 2_000_000;
const OURS_FUNDED_BY_PEER: u64 = 1_500_000;
const LDKS_FUNDED_BY_US: u64 = 700_000;
const LDKS_FUNDED_BY_PEER: u64 = 400_000;

/// Both nodes, connected, on one chain.
pub struct Stage {
    /// Mines on request.
    pub chain: RegtestChain,
    /// Funds the channels of both.
    pub wallet: Wallet,
    /// This library and LDK behind one `PeerManager`.
    pub mixed: MixedNode,
    /// LDK alone.
    pub plain: LdkNode,
}

/// What the story ends with.
pub struct Outcome {
    /// Opened by this library, our node's offer first.
    pub ours: [Ready; 2],
    /// Opened by LDK's `ChannelManager` on the same node, its own offer first.
    pub ldks: [ChannelDetails; 2],
}

impl Stage {
    /// Starts both nodes and connects them over TCP.
    pub async fn set() -> Result<Self, AnyError> {
        let chain = RegtestChain::default();
        let wallet = Wallet::mined([3; 32], &chain);
        let plain = LdkNode::start([2; 32], chain.clone(), wallet.clone(), Inbound::Accept).await?;
        let mixed = MixedNode::start([1; 32], chain.clone(), wallet.clone()).await?;
        mixed.ldk.connect(plain.node_id(), plain.address()).await?;
        // Its `init` was the second one: now both have passed on both sides.
        mixed.recorder.find(0, |event| matches!(event, Event::Connected).then_some(())).await?;
        Ok(Self { chain, wallet, mixed, plain })
    }

    /// Opens all four at the same time and puts them to use.
    pub async fn open_all(&self) -> Result<Outcome, AnyError> {
        let (us, peer) = (self.mixed.ldk.node_id(), self.plain.node_id());
        let is_theirs = |opened: &Opened| opened.role() == Role::Fundee;
        let ask = |funding_satoshis| LdkAsk {
            funding_satoshis,
            push_msat: 0,
            anchors: true,
            announce_channel: false,
        };
        self.mixed.ldk.open_channel(peer, ask(LDKS_FUNDED_BY_US))?;
        self.plain.open_channel(us, ask(OURS_FUNDED_BY_PEER))?;
        self.plain.open_channel(us, ask(LDKS_FUNDED_BY_PEER))?;
        let (first, second, ..) = tokio::try_join!(
            self.mixed.open_channel(&peer, our_ask(), &self.wallet),
            self.mixed.recorder.find(0, |event| match event {
                Event::Opened(opened) if is_theirs(opened) => Some(opened.clone()),
                _ => None,
            }),
            self.ldks_channel_broadcast(LDKS_FUNDED_BY_US),
            self.ldks_channel_broadcast(LDKS_FUNDED_BY_PEER),
        )?;
        // The peer broadcasts it when it has our signature.
        self.chain.accepted(second.parameters.funding_outpoint.txid).await?;
        self.put_to_use([&first, &second]).await
    }

    /// Waits until the funding transaction of one of LDK's own channels is in the mempool.
    async fn ldks_channel_broadcast(&self, satoshis: u64) -> Result<(), AnyError> {
        let is_funded = |channel: &ChannelDetails| {
            channel.channel_value_satoshis == satoshis && channel.funding_txo.is_some()
        };
        let channel = self.mixed.ldk.channel(is_funded).await?;
        let outpoint = channel.funding_txo.ok_or("it has just been there")?;
        Ok(self.chain.accepted(outpoint.txid).await?)
    }

    async fn put_to_use(&self, opened: [&Arc<Opened>; 2]) -> Result<Outcome, AnyError> {
        for _ in 0..DEPTH {
            self.chain.mine();
        }
        let ours = [
            self.mixed.recorder.ready(opened[0]).await?,
            self.mixed.recorder.ready(opened[1]).await?,
        ];
        let usable = |satoshis: u64| {
            move |channel: &ChannelDetails| {
                channel.channel_value_satoshis == satoshis && channel.is_usable
            }
        };
        let ldks = [
            self.mixed.ldk.channel(usable(LDKS_FUNDED_BY_US)).await?,
            self.mixed.ldk.channel(usable(LDKS_FUNDED_BY_PEER)).await?,
        ];
        Ok(Outcome { ours, ldks })
    }

    /// The peer, which knows nothing of the two parts of our node, has the same four channels.
    pub async fn peer_agrees(&self, outcome: &Outcome) -> Result<(), AnyError> {
        for ready in &outcome.ours {
            claims::ldk_agrees(&self.plain, ready).await?;
        }
        for channel in &outcome.ldks {
            let id = channel.channel_id;
            let theirs =
                self.plain.channel(|theirs| theirs.channel_id == id && theirs.is_usable).await?;
            if theirs.channel_value_satoshis != channel.channel_value_satoshis {
                return Err(format!("{id}: the peer has another capacity").into());
            }
        }
        match self.plain.channels().len() {
            4 => Ok(()),
            count => Err(format!("the peer has {count} channels").into()),
        }
    }

    /// No message about a channel of one part has reached the other.
    pub fn nothing_crossed(&self, outcome: &Outcome) -> Result<(), AnyError> {
        let ours: BTreeSet<ChannelId> = self.mixed.ids().into_iter().collect();
        let ldks = self.mixed.watched.ids();
        if let Some(id) = ours.intersection(&ldks).next() {
            return Err(format!("{id} was seen by both").into());
        }
        for ready in &outcome.ours {
            let opened = &ready.opened;
            if !ours.contains(&opened.channel_id) || !ours.contains(&opened.temporary_channel_id) {
                return Err(format!("{} was not seen by us", opened.channel_id).into());
            }
        }
        // One id each while it was temporary, and one since.
        let finals = outcome.ldks.iter().filter(|channel| ldks.contains(&channel.channel_id));
        if finals.count() != 2 || ldks.len() != 4 {
            return Err(format!("LDK's part has seen {ldks:?}").into());
        }
        let said = self.mixed.recorder.since(0).into_iter().find(|seen| {
            use Event::{ErrorReceived, ErrorSent, WarningReceived, WarningSent};
            matches!(
                *seen.event,
                ErrorSent { .. }
                    | ErrorReceived { .. }
                    | WarningSent { .. }
                    | WarningReceived { .. }
            )
        });
        said.map_or(Ok(()), |seen| Err(seen.event.to_string().into()))
    }
}

/// What this library asks for.
pub fn our_ask() -> Ask {
    Ask {
        channel_type: Some(ChannelType::ANCHORS),
        ..Ask::new(Amount::from_sat(OURS_FUNDED_BY_US), FeeratePerKw::new(1250))
    }
}

/// Plays everything; an error names the first claim that does not hold.
pub async fn play(painter: Painter) -> Result<(), AnyError> {
    painter.title("This library and LDK's ChannelManager behind one PeerManager");
    let stage = Stage::set().await?;
    let (mixed, plain) = (&stage.mixed, &stage.plain);
    painter.note(&format!("our node      {}", mixed.ldk.node_id()));
    painter.note(&format!("a plain LDK   {} at {}", plain.node_id(), plain.address()));
    painter.note("one TCP connection");
    painter.note(&format!("offers from {OURS_FROM} sat on go to this library, others to LDK"));

    painter.title("Four channels at once; what this library did");
    let (begin, first) = (Instant::now(), mixed.recorder.len());
    let outcome = stage.open_all().await?;
    painter.timeline(begin, &mixed.recorder.since(first));

    painter.title("All four in use");
    for Ready { opened, .. } in &outcome.ours {
        let funder = if opened.role() == Role::Funder { "us  " } else { "peer" };
        let satoshis = opened.parameters.funding_satoshis.to_sat();
        painter.note(&channel("this library", funder, satoshis, &opened.channel_id));
    }
    for channel_of_ldk in &outcome.ldks {
        let funder = if channel_of_ldk.is_outbound { "us  " } else { "peer" };
        let satoshis = channel_of_ldk.channel_value_satoshis;
        painter.note(&channel("LDK", funder, satoshis, &channel_of_ldk.channel_id));
    }
    stage.peer_agrees(&outcome).await?;
    painter.holds("the peer has the same four in use, and no other");
    stage.nothing_crossed(&outcome)?;
    painter.holds("no id of this library's channels reached ChannelManager, and none of its ours");
    painter.done(&format!("4 channels over 1 connection, {}", painter.elapsed()));
    Ok(())
}

fn channel(opener: &str, funder: &str, satoshis: u64, id: &ChannelId) -> String {
    format!("opened by {opener:12}  funded by {funder}  {satoshis:>9} sat  {id}")
}
