//! What the node brings: the questions that opening a channel asks of it.

use core::fmt;

use async_trait::async_trait;
use bitcoin::ScriptBuf;
use bitcoin::secp256k1::PublicKey;
use lightning::ln::types::ChannelId;
use opening_core::{ChannelType, FeerateRange, Limits, Offer, Terms};

use crate::event::Event;
use crate::negotiation::Opened;

/// Who may open channels with us, and on which terms.
#[async_trait]
pub trait Policy: Send + Sync + 'static {
    /// The limits for this peer and the feerates acceptable now.  Asked once for each opening,
    /// in both roles.
    async fn bounds(&self, peer: &PublicKey) -> Bounds;

    /// An offer that breaks no rule.  No answer within the deadline is a rejection.  The terms
    /// are judged again before the peer sees them.
    async fn decide(&self, peer: &PublicKey, offer: &OfferDetails<'_>) -> Decision;

    /// The peer has refused, by an `error`, our offer of a channel of this type: the type to offer
    /// next on the same connection, for example [`ChannelType::lesser`]; by default none.
    fn downgrade(&self, _peer: &PublicKey, _refused: ChannelType) -> Option<ChannelType> {
        None
    }
}

/// What a policy says before it sees an offer.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// What we ask for and accept.
    pub limits: Limits,
    /// Feerates acceptable now.  Without an estimate every opening is refused, with a code.
    pub feerates: Option<FeerateRange>,
}

/// An offer, as the policy sees it.
#[derive(Clone, Copy, Debug)]
pub struct OfferDetails<'a> {
    /// The id by which the peer names it.
    pub temporary_channel_id: ChannelId,
    /// The type it asks for.
    pub channel_type: ChannelType,
    /// Everything else.
    pub offer: Offer<'a>,
}

/// What a policy answers.
#[derive(Clone, Debug)]
pub enum Decision {
    /// Open it, on these terms.
    Accept(Terms),
    /// Do not.
    Reject(Rejection),
}

/// A policy's no.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{private}")]
pub struct Rejection {
    /// What the peer is told.
    pub public: PublicText,
    /// Why, for the operator; never leaves this node.
    pub private: String,
}

/// Text that may be shown to a peer: printable ASCII, at most 200 characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicText(String);

impl PublicText {
    const MAX_CHARS: usize = 200;

    /// Replaces what is not printable ASCII and cuts what is too long.
    pub fn new(text: &str) -> Self {
        let printable = |c: char| if matches!(c, ' '..='~') { c } else { '?' };
        Self(text.chars().take(Self::MAX_CHARS).map(printable).collect())
    }
}

impl fmt::Display for PublicText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A policy that accepts whatever keeps within fixed bounds.
#[derive(Clone, Debug)]
pub struct AcceptWithin(pub Bounds);

#[async_trait]
impl Policy for AcceptWithin {
    async fn bounds(&self, _peer: &PublicKey) -> Bounds {
        self.0.clone()
    }

    async fn decide(&self, _peer: &PublicKey, _offer: &OfferDetails<'_>) -> Decision {
        Decision::Accept(Terms::default())
    }
}

/// Where events go.  Called between messages: it must not block.
pub trait Events: Send + Sync + 'static {
    /// Something happened with `peer`.
    fn event(&self, peer: &PublicKey, event: Event);
}

impl<F: Fn(&PublicKey, Event) + Send + Sync + 'static> Events for F {
    fn event(&self, peer: &PublicKey, event: Event) {
        self(peer, event);
    }
}

/// Randomness for ids and aliases; injected, so that a run can be repeated exactly.
pub trait Entropy: Send + Sync + 'static {
    /// 32 unguessable bytes.
    fn bytes(&self) -> [u8; 32];
}

/// The operating system's randomness.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn bytes(&self) -> [u8; 32] {
        bitcoin::secp256k1::rand::random()
    }
}

/// The rest of the node, for all that is not the opening of a channel.  Nothing here may block.
pub trait RestOfNode: Send + Sync + 'static {
    /// Whether the node wants messages of this type: a custom one, or one of the BOLTs that is about
    /// no channel.
    fn knows_type(&self, _type_number: u16) -> bool {
        false
    }

    /// Whether the node has this channel with the peer: its messages are handed over untouched.
    fn owns(&self, _peer: &PublicKey, _channel_id: &ChannelId) -> bool {
        false
    }

    /// Whether the node has a channel of this id elsewhere, with anyone: no opening may use its
    /// outpoint (B2-CID-B-01).
    fn uses(&self, _channel_id: &ChannelId) -> bool {
        false
    }

    /// The script to close a channel to which was opened without one; `None` leaves it to the node
    /// to answer the peer's `shutdown`, which it gets as a message.
    fn closing_script(&self, _opened: &Opened) -> Option<ScriptBuf> {
        None
    }

    /// A message as it came, type first: gossip, a type that the node knows, or one for a channel
    /// that it owns.
    fn message(&self, _peer: &PublicKey, _message: &[u8]) {}
}

/// A node that does nothing else.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpeningOnly;

impl RestOfNode for OpeningOnly {}
