//! A policy that goes wrong.

use async_trait::async_trait;
use bitcoin::secp256k1::PublicKey;
use opening_core::ChannelType;

use super::Faults;
use crate::node::{Bounds, Decision, OfferDetails, Policy, PublicText, Rejection};

/// Another policy, whose calls go wrong by the names of their methods.  A policy cannot fail: one
/// that does here has no fee estimate, or rejects.
#[derive(Debug)]
pub struct FaultyPolicy<P> {
    inner: P,
    faults: Faults,
}

impl<P> FaultyPolicy<P> {
    /// `inner`, with these faults.
    pub fn new(inner: P, faults: Faults) -> Self {
        Self { inner, faults }
    }
}

#[async_trait]
impl<P: Policy> Policy for FaultyPolicy<P> {
    async fn bounds(&self, peer: &PublicKey) -> Bounds {
        let act = async { Ok(self.inner.bounds(peer).await) };
        match self.faults.around("bounds", act, || ()).await {
            Ok(bounds) => bounds,
            Err(()) => Bounds { feerates: None, ..self.inner.bounds(peer).await },
        }
    }

    async fn decide(&self, peer: &PublicKey, offer: &OfferDetails<'_>) -> Decision {
        let act = async { Ok(self.inner.decide(peer, offer).await) };
        let rejection =
            || Rejection { public: PublicText::new("no"), private: "on purpose".into() };
        let decided = self.faults.around("decide", act, rejection).await;
        decided.unwrap_or_else(Decision::Reject)
    }

    fn downgrade(&self, peer: &PublicKey, refused: ChannelType) -> Option<ChannelType> {
        self.inner.downgrade(peer, refused)
    }
}
