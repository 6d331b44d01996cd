//! From the signed channel to both `channel_ready`.
//!
//! ```text
//!  WaitForReady
//!    | <-- channel_ready --> |   each side when the funding is deep enough for it
//!  Ready
//! ```
//!
//! Unlike the states before, this one waits for three things that come in any order (depth, the
//! peer's message, our own) and may be taken back by a reorg: it changes in place.

use std::sync::Arc;

use bitcoin::Transaction;
use bitcoin::secp256k1::PublicKey;
use lightning::ln::msgs::ChannelReady;
use opening_core::ShortChannelId;

use super::opened::Opened;

/// Evidence from the chain that the funding transaction is in a block.
#[derive(Clone, Debug)]
pub struct Confirmation {
    /// The transaction as mined.
    pub transaction: Transaction,
    /// Height of its block.
    pub block_height: u32,
    /// Its place in the block; the coinbase is 0.
    pub transaction_index: u32,
    /// Blocks on top of and with its own: 1 when just mined.
    pub depth: u32,
}

/// Evidence that is not about the channel's funding output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EvidenceError {
    /// Another transaction.
    #[error("the confirmed transaction is not the funding transaction")]
    WrongTransaction,
    /// The transaction has no output at the funding index.
    #[error("the funding transaction has no output {0}")]
    NoSuchOutput(u32),
    /// The output pays another amount or another script (B2-CR-S-01).
    #[error("the funding output does not pay the agreed amount to the agreed script")]
    WrongOutput,
    /// Height, index or output index beyond what a short channel id can say.
    #[error("block height, transaction index or output index is out of range")]
    OutOfRange,
}

impl EvidenceError {
    /// A stable name for programs.
    pub fn code(self) -> &'static str {
        match self {
            Self::WrongTransaction => "wrong-funding-transaction",
            Self::NoSuchOutput(_) => "no-such-funding-output",
            Self::WrongOutput => "wrong-funding-output",
            Self::OutOfRange => "confirmation-out-of-range",
        }
    }
}

/// An opened channel on its way into use.
#[derive(Clone, Debug)]
pub struct WaitForReady {
    opened: Arc<Opened>,
    confirmed: Option<(ShortChannelId, u32)>,
    local: Option<LocalReady>,
    remote: Option<RemoteReady>,
}

/// What our `channel_ready` said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalReady {
    /// Our per-commitment point of commitment 1 (B2-CR-S-03).
    pub second_per_commitment_point: PublicKey,
    /// The alias by which we know the channel, if we gave one.
    pub alias: Option<ShortChannelId>,
}

/// What the peer's `channel_ready` said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteReady {
    /// The peer's per-commitment point of commitment 1.
    pub second_per_commitment_point: PublicKey,
    /// The alias by which the peer knows the channel, if it gave one.
    pub alias: Option<ShortChannelId>,
}

/// A channel in normal operation (B2-CR-B-02): from here on it is the node's.
#[derive(Clone, Debug, PartialEq)]
pub struct Ready {
    /// The channel.
    pub opened: Arc<Opened>,
    /// Where the funding output is; `None` for a zero-conf channel that is not yet confirmed.
    pub short_channel_id: Option<ShortChannelId>,
    /// What we told the peer.
    pub local: LocalReady,
    /// What the peer told us.
    pub remote: RemoteReady,
}

impl WaitForReady {
    /// Nothing is confirmed, sent or received yet.
    pub fn new(opened: Arc<Opened>) -> Self {
        Self { opened, confirmed: None, local: None, remote: None }
    }

    /// The channel.
    pub fn opened(&self) -> &Arc<Opened> {
        &self.opened
    }

    /// Where the funding output is, while its transaction is in a block.
    pub fn short_channel_id(&self) -> Option<ShortChannelId> {
        self.confirmed.map(|(id, _)| id)
    }

    /// Depth of the funding transaction as last shown; 0 while unconfirmed.
    pub fn depth(&self) -> u32 {
        self.confirmed.map_or(0, |(_, depth)| depth)
    }

    /// The funding transaction is in a block.  Evidence about anything else changes nothing.
    pub fn confirmed(&mut self, confirmation: &Confirmation) -> Result<(), EvidenceError> {
        let outpoint = self.opened.parameters.funding_outpoint;
        if confirmation.transaction.compute_txid() != outpoint.txid {
            return Err(EvidenceError::WrongTransaction);
        }
        let output = usize::try_from(outpoint.vout)
            .ok()
            .and_then(|index| confirmation.transaction.output.get(index))
            .ok_or(EvidenceError::NoSuchOutput(outpoint.vout))?;
        if !self.opened.funding_output().is_paid_by(output) {
            return Err(EvidenceError::WrongOutput);
        }
        let Confirmation { block_height, transaction_index, depth, .. } = *confirmation;
        let id = ShortChannelId::new(block_height, transaction_index, outpoint.vout)
            .ok_or(EvidenceError::OutOfRange)?;
        self.confirmed = Some((id, depth));
        Ok(())
    }

    /// A reorganisation took the block away.  A `channel_ready` that was sent stays sent.
    pub fn unconfirmed(&mut self) {
        self.confirmed = None;
    }

    /// Whether our `channel_ready` is due and not yet sent: at the agreed depth, for either role
    /// (B2-CR-S-02, B2-CR-S-12, A-06); at once for a zero-conf channel, whose depth is 0.
    pub fn is_due(&self) -> bool {
        self.local.is_none() && self.depth() >= self.opened.minimum_depth
    }

    /// The signer gave the second point: our `channel_ready` can be sent.
    pub fn send(&mut self, local: LocalReady) -> ChannelReady {
        self.local = Some(local);
        ChannelReady {
            channel_id: self.opened.channel_id,
            next_per_commitment_point: local.second_per_commitment_point,
            short_channel_id_alias: local.alias.map(ShortChannelId::to_u64),
        }
    }

    /// The peer's `channel_ready`.  A repeated one may bring another alias, nothing else
    /// (B2-CR-S-11).
    pub fn channel_ready(&mut self, message: &ChannelReady) {
        let alias = message.short_channel_id_alias.map(ShortChannelId::from_u64);
        match &mut self.remote {
            Some(remote) => remote.alias = alias.or(remote.alias),
            None => {
                let second_per_commitment_point = message.next_per_commitment_point;
                self.remote = Some(RemoteReady { second_per_commitment_point, alias });
            }
        }
    }

    /// The channel in use, once both messages have passed (B2-EST-B-04).
    pub fn ready(&self) -> Option<Ready> {
        Some(Ready {
            opened: self.opened.clone(),
            short_channel_id: self.short_channel_id(),
            local: self.local?,
            remote: self.remote?,
        })
    }
}
