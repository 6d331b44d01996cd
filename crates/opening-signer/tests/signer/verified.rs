//! A signer that mixes channels up is found out before the peer sees what it gave.

use std::sync::Arc;

use async_trait::async_trait;
use bitcoin::secp256k1::PublicKey;
use bitcoin::secp256k1::ecdsa::Signature;
use opening_core::ChannelKeys;
use opening_signer::{
    ChannelHsm, ChannelRef, ChannelSetup, CommitmentRequest, Enforcement, Hsm, HsmResult, Info,
    LocalHsm, Verified,
};

use crate::pair::{Pair, node_id, reason, signer};

/// Which of its answers are those of channel 1, for whatever channel it is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mixed {
    Keys,
    /// The points of all numbers.
    Points,
    /// The point of commitment 1 is the first point of channel 1.
    NextPoint,
}

struct Confused(LocalHsm, Mixed);

struct ConfusedChannel {
    own: Arc<dyn ChannelHsm>,
    first: Arc<dyn ChannelHsm>,
    mixed: Mixed,
}

#[async_trait]
impl Hsm for Confused {
    fn info(&self) -> Info {
        self.0.info()
    }

    async fn channel(&self, reference: ChannelRef) -> HsmResult<Arc<dyn ChannelHsm>> {
        let own = self.0.channel(reference).await?;
        let first = self.0.channel(named(1)).await?;
        Ok(Arc::new(ConfusedChannel { own, first, mixed: self.1 }))
    }

    async fn forget_channel(&self, reference: ChannelRef) -> HsmResult<()> {
        self.0.forget_channel(reference).await
    }
}

#[async_trait]
impl ChannelHsm for ConfusedChannel {
    async fn pubkeys(&self) -> HsmResult<ChannelKeys> {
        if self.mixed == Mixed::Keys {
            self.first.pubkeys().await
        } else {
            self.own.pubkeys().await
        }
    }

    async fn per_commitment_point(&self, number: u64) -> HsmResult<PublicKey> {
        match (self.mixed, number) {
            (Mixed::Points, _) => self.first.per_commitment_point(number).await,
            (Mixed::NextPoint, 1) => self.first.per_commitment_point(0).await,
            _ => self.own.per_commitment_point(number).await,
        }
    }

    /// It takes any.
    async fn setup(&self, _: &ChannelSetup) -> HsmResult<()> {
        Ok(())
    }

    async fn sign_counterparty_commitment(
        &self,
        request: &CommitmentRequest<'_>,
    ) -> HsmResult<Signature> {
        self.own.sign_counterparty_commitment(request).await
    }

    async fn validate_holder_commitment(
        &self,
        request: &CommitmentRequest<'_>,
        signature: &Signature,
    ) -> HsmResult<()> {
        self.own.validate_holder_commitment(request, signature).await
    }

    async fn sign_holder_commitment(
        &self,
        request: &CommitmentRequest<'_>,
    ) -> HsmResult<Signature> {
        self.own.sign_holder_commitment(request).await
    }
}

fn named(dbid: u64) -> ChannelRef {
    ChannelRef { peer: node_id(8), dbid }
}

fn verified(mixed: Mixed) -> Verified<Confused> {
    Verified::new(Confused(signer(7, Enforcement::Blind, &Arc::default()), mixed))
}

#[tokio::test]
async fn the_first_point_of_another_channel_is_refused_until_that_is_forgotten() {
    let hsm = verified(Mixed::Points);
    let first = hsm.channel(named(1)).await.unwrap();
    let point = first.per_commitment_point(0).await.unwrap();
    let second = hsm.channel(named(2)).await.unwrap();
    assert_eq!(reason(second.per_commitment_point(0).await), "signer-protocol");
    hsm.forget_channel(named(1)).await.unwrap();
    let second = hsm.channel(named(2)).await.unwrap();
    assert_eq!(second.per_commitment_point(0).await, Ok(point));
}

#[tokio::test]
async fn a_later_point_is_not_the_first_of_another_channel() {
    let hsm = verified(Mixed::NextPoint);
    hsm.channel(named(1)).await.unwrap().per_commitment_point(0).await.unwrap();
    let second = hsm.channel(named(2)).await.unwrap();
    second.per_commitment_point(0).await.unwrap();
    assert_eq!(reason(second.per_commitment_point(1).await), "signer-protocol");
}

/// What the setup of channel 1 says, as a node knows it from its store.
async fn saved() -> ChannelSetup {
    Pair::new(Enforcement::Blind).await.funder.setup
}

#[tokio::test]
async fn keys_and_point_of_a_saved_channel_are_known_from_its_setup() {
    for mixed in [Mixed::Keys, Mixed::Points] {
        let hsm = verified(mixed);
        hsm.channel(named(1)).await.unwrap().setup(&saved().await).await.unwrap();
        let second = hsm.channel(named(2)).await.unwrap();
        let keys = second.pubkeys().await.map(drop);
        let point = second.per_commitment_point(0).await.map(drop);
        let (wrong, right) = if mixed == Mixed::Keys { (keys, point) } else { (point, keys) };
        assert_eq!(reason(wrong), "signer-protocol");
        assert_eq!(right, Ok(()));
    }
}

/// The saved channel has to have its way out, whatever was given to another one since.
#[tokio::test]
async fn a_saved_channel_has_its_keys_back_and_the_one_that_was_given_them_is_not_set_up() {
    for mixed in [Mixed::Keys, Mixed::Points] {
        let hsm = verified(mixed);
        let second = hsm.channel(named(2)).await.unwrap();
        let mut setup = saved().await;
        setup.parameters.local.keys = second.pubkeys().await.unwrap();
        setup.parameters.local.first_per_commitment_point =
            second.per_commitment_point(0).await.unwrap();
        let first = hsm.channel(named(1)).await.unwrap();
        for _ in 0..2 {
            first.setup(&saved().await).await.unwrap();
        }
        assert_eq!(reason(second.setup(&setup).await), "signer-protocol");
    }
}

/// A point that the handle was told by the setup is one that it must not contradict.
#[tokio::test]
async fn what_the_setup_of_a_saved_channel_says_is_held_against_what_comes_later() {
    let hsm = verified(Mixed::NextPoint);
    let channel = hsm.channel(named(1)).await.unwrap();
    channel.setup(&saved().await).await.unwrap();
    assert_eq!(reason(channel.per_commitment_point(1).await), "signer-protocol");
    assert_eq!(channel.pubkeys().await, Ok(saved().await.parameters.local.keys));
}
