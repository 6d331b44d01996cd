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

use bitcoin::secp256k1::PublicKey;
use bitcoin::{ScriptBuf, Transaction};
use lightning::ln::msgs::ChannelReady;
use opening_core::{Feature, MilliSatoshi, Role, ShortChannelId};

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
    /// Blocks on top of and with its own: 1 when just mined.  0 is not in a block, the same as
    /// [`unconfirmed`](crate::Openings::unconfirmed).
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

/// Blocks before the output of a coinbase transaction can be spent.
const COINBASE_MATURITY: u32 = 100;

/// Blocks on top of and with the funding transaction's at which both sides may announce the
/// channel (B7-ANN-B-01).
const ANNOUNCEMENT_DEPTH: u32 = 6;

/// What has become of an opened channel, as far as a restart must know it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Height from which the blocks count that the funding transaction takes to confirm
    /// (B2-CR-S-13); `None` until the node has told one.
    pub waiting_since: Option<u32>,
    /// The right funding transaction has been in a block, whether or not it still is.
    pub was_confirmed: bool,
    /// What our `channel_ready` says, once there is one.
    pub local: Option<LocalReady>,
    /// Aliases that earlier `channel_ready`s of ours gave: they stay good (B2-CR-S-09).
    pub earlier_aliases: Vec<ShortChannelId>,
    /// The script of our `shutdown`, once it was sent (B2-SHUT-S-03).
    pub local_shutdown: Option<ScriptBuf>,
    /// Why the channel failed, in words that the peer may read; it hears them again whenever it
    /// connects (B2-RE-B-07).
    pub failed: Option<ChannelFailure>,
    /// Of a channel in a batch: all channels of the transaction are saved, so that it may have
    /// been broadcast.
    pub is_batch_saved: bool,
}

impl Progress {
    /// Whether the peer is to hear of any of it.
    pub(crate) fn says_something(&self) -> bool {
        self.local.is_some() || self.local_shutdown.is_some()
    }
}

/// Why an opened channel failed, and what is left to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelFailure {
    /// In words that the peer may read.
    pub reason: String,
    /// What the node has to do.
    pub exit: Exit,
}

/// What a node has to do about a channel that has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Broadcast our commitment, which
    /// [`signed_commitment`](crate::Openings::signed_commitment) gives (B5-FAIL-B-05).
    Broadcast,
    /// Claim what is ours of the transaction that spends the funding output.
    Watch,
    /// Broadcast nothing: our commitment is outdated.  The peer was asked to close (B2-RE-R-13).
    AwaitPeer,
    /// Nothing: no output of our commitment is ours (B5-FAIL-B-01, B5-FAIL-B-02).
    /// [Release](crate::Openings::release) it at once: until then it counts among what its peer
    /// has not funded.
    Nothing,
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

impl Ready {
    /// By what others are told to pay to us through this channel, in invoices and in a private
    /// `channel_update`: the peer's latest alias, or where it gave none, the real one, which a
    /// channel of type `scid_alias` never shows (B2-CR-R-01, B2-CR-R-02, B7-UPD-B-02).
    pub fn route_hint(&self) -> Option<ShortChannelId> {
        let may_be_real = !self.opened.hides_its_place();
        self.remote.alias.or(self.short_channel_id.filter(|_| may_be_real))
    }
}

impl Opened {
    /// Whether the channel is known by aliases only.
    fn hides_its_place(&self) -> bool {
        self.parameters.channel_type.features().any(|feature| feature == Feature::ScidAlias)
    }
}

/// The funding transaction in a block: its depth is not 0.
#[derive(Clone, Copy, Debug)]
struct Confirmed {
    short_channel_id: ShortChannelId,
    depth: u32,
    is_coinbase: bool,
}

/// An opened channel on its way into use.
#[derive(Clone, Debug)]
pub struct WaitForReady {
    opened: Arc<Opened>,
    progress: Progress,
    confirmed: Option<Confirmed>,
    remote: Option<RemoteReady>,
    /// The peer has sent `shutdown`, in this process.
    remote_shuts_down: bool,
}

impl WaitForReady {
    /// Nothing is confirmed, sent or received yet.
    pub fn new(opened: Arc<Opened>) -> Self {
        Self::restore(opened, Progress::default())
    }

    /// After a restart: the chain is shown anew, the peer repeats itself.
    pub fn restore(opened: Arc<Opened>, progress: Progress) -> Self {
        Self { opened, progress, confirmed: None, remote: None, remote_shuts_down: false }
    }

    /// The channel.
    pub fn opened(&self) -> &Arc<Opened> {
        &self.opened
    }

    /// What a restart must know.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Where the funding output is, while its transaction is in a block.
    pub fn short_channel_id(&self) -> Option<ShortChannelId> {
        self.confirmed.map(|confirmed| confirmed.short_channel_id)
    }

    /// Depth of the funding transaction as last shown; 0 while unconfirmed.
    pub fn depth(&self) -> u32 {
        self.confirmed.map_or(0, |confirmed| confirmed.depth)
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
        let short_channel_id = ShortChannelId::new(block_height, transaction_index, outpoint.vout)
            .ok_or(EvidenceError::OutOfRange)?;
        let is_coinbase = confirmation.transaction.is_coinbase();
        self.confirmed = (depth > 0).then_some(Confirmed { short_channel_id, depth, is_coinbase });
        self.progress.was_confirmed |= depth > 0;
        Ok(())
    }

    /// A reorganisation took the block away.  A `channel_ready` that was sent stays sent.
    pub fn unconfirmed(&mut self) {
        self.confirmed = None;
    }

    /// The chain is at this height.  Tells for how many blocks the funding transaction has been
    /// awaited, until it has confirmed once.
    pub fn waited(&mut self, height: u32) -> Option<u32> {
        if self.progress.was_confirmed {
            return None;
        }
        let since = *self.progress.waiting_since.get_or_insert(height);
        Some(height.saturating_sub(since))
    }

    /// Whether our `channel_ready` is due and not yet made.
    pub fn is_due(&self) -> bool {
        self.is_deep_enough() && self.progress.local.is_none() && self.progress.failed.is_none()
    }

    /// Whether the funding transaction is where `channel_ready` may go out: at the agreed depth,
    /// for either role (B2-CR-S-02, B2-CR-S-12, A-06); at once for a zero-conf channel, whose depth
    /// is 0.  An output of a coinbase has to be spendable, too.
    pub fn is_deep_enough(&self) -> bool {
        let maturity = match self.confirmed {
            Some(Confirmed { is_coinbase: true, .. }) => COINBASE_MATURITY,
            _ => 0,
        };
        self.depth() >= self.opened.minimum_depth.max(maturity)
    }

    /// The signer gave the second point: our `channel_ready` can be made.  Made again, it may
    /// bring another alias; those given before stay good (B2-CR-S-11).
    pub fn promise(&mut self, local: LocalReady) {
        let earlier = self.progress.local.replace(local);
        let alias = earlier.and_then(|earlier| earlier.alias);
        self.progress.earlier_aliases.extend(alias.filter(|alias| local.alias != Some(*alias)));
    }

    /// Our `channel_ready`, the same each time, once it is made.
    pub fn message(&self) -> Option<ChannelReady> {
        let local = self.progress.local.filter(|_| self.progress.failed.is_none())?;
        Some(ChannelReady {
            channel_id: self.opened.channel_id,
            next_per_commitment_point: local.second_per_commitment_point,
            short_channel_id_alias: local.alias.map(ShortChannelId::to_u64),
        })
    }

    /// The peer's `channel_ready`.  A repeated one may bring another alias, nothing else
    /// (B2-CR-S-11, B2-RE-R-05).
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

    /// Our `shutdown` goes out, with this script.
    pub fn shut_down(&mut self, script: ScriptBuf) {
        self.progress.local_shutdown.get_or_insert(script);
    }

    /// The peer's `shutdown`.
    pub fn remote_shuts_down(&mut self) {
        self.remote_shuts_down = true;
    }

    /// Whether a side has sent `shutdown`: the channel is the node's to close.
    pub fn is_closing(&self) -> bool {
        self.progress.local_shutdown.is_some() || self.remote_shuts_down
    }

    /// The channel has failed.  The first reason counts, except that our state is old: this is so
    /// whatever came before, and another exit would lose the whole channel (B2-RE-R-12).  `false`
    /// if the reason does not count.
    pub fn fail(&mut self, failure: ChannelFailure) -> bool {
        let counts = match self.progress.failed.as_ref().map(|earlier| earlier.exit) {
            None => true,
            Some(earlier) => failure.exit == Exit::AwaitPeer && earlier != Exit::AwaitPeer,
        };
        if counts {
            self.progress.failed = Some(failure);
        }
        counts
    }

    /// Every channel of the same transaction is saved.
    pub fn batch_saved(&mut self) {
        self.progress.is_batch_saved = true;
    }

    /// The channel in use, once both messages have passed (B2-EST-B-04).
    pub fn ready(&self) -> Option<Ready> {
        Some(Ready {
            opened: self.opened.clone(),
            short_channel_id: self.short_channel_id(),
            local: self.progress.local.filter(|_| self.progress.failed.is_none())?,
            remote: self.remote?,
        })
    }

    /// Whether both sides may announce the channel by now: it is public, in use, deep enough, and
    /// nobody shuts it down (B7-ANN-B-01, B7-ANN-B-02).
    pub fn may_be_announced(&self) -> bool {
        self.opened.announce_channel
            && !self.is_closing()
            && self.depth() >= ANNOUNCEMENT_DEPTH
            && self.ready().is_some()
    }

    /// Whether a payment that comes in under this short channel id is for this channel: by every
    /// alias that we gave (B2-CR-S-09), and by its place in the chain unless its type hides that
    /// (B2-CR-S-10).
    pub fn is_known_as(&self, short_channel_id: ShortChannelId) -> bool {
        let alias = self.progress.local.and_then(|local| local.alias);
        let real = self.short_channel_id().filter(|_| !self.opened.hides_its_place());
        [alias, real].contains(&Some(short_channel_id))
            || self.progress.earlier_aliases.contains(&short_channel_id)
    }

    /// Whether the fundee may forget the channel if its funding never confirms: nothing in it is
    /// ours, and nobody has begun to use it (B2-CR-S-13).
    pub fn may_be_forgotten(&self) -> bool {
        let opened = &self.opened;
        opened.role() == Role::Fundee
            && opened.parameters.push_msat == MilliSatoshi::ZERO
            && self.progress.local.is_none()
            && !self.progress.was_confirmed
    }
}
