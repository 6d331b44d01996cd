//! A signer that counts commitments, as VLS does: it validates each once, and gives points up to the
//! one after next.

use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::Network;
use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::PublicKey;
use bitcoin::secp256k1::ecdsa::Signature;
use opening_core::{ChannelKeys, Side};
use opening_signer::remote::{HsmdConfig, HsmdHsm, HsmdIdentity, serve_hsmd};
use opening_signer::{
    ChannelHsm, ChannelRef, ChannelSetup, CommitmentRequest, Enforcement, Hsm, HsmError, HsmResult,
    Info, LocalHsm,
};

use crate::flow::{self, SHAPES};
use crate::pair::{node_id, reason, signer};

/// What it does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Each commitment is validated once.
    Counts,
    /// None is; points are given within the window of one that counts.
    Refuses,
    /// None is; every point is given.
    RefusesWithoutWindow,
    /// None is; the point of commitment 2 is given, and at the one of commitment 3 it hangs.
    RefusesAndHangs,
}

struct Counting {
    inner: LocalHsm,
    kind: Kind,
    validated: Arc<Mutex<Vec<ChannelRef>>>,
}

struct CountingChannel {
    inner: Arc<dyn ChannelHsm>,
    kind: Kind,
    reference: ChannelRef,
    validated: Arc<Mutex<Vec<ChannelRef>>>,
}

fn refused<T>(why: &str) -> HsmResult<T> {
    Err(HsmError::Refused { tag: "policy".into(), detail: why.into() })
}

#[async_trait]
impl Hsm for Counting {
    fn info(&self) -> Info {
        self.inner.info()
    }

    async fn channel(&self, reference: ChannelRef) -> HsmResult<Arc<dyn ChannelHsm>> {
        let inner = self.inner.channel(reference).await?;
        let (kind, validated) = (self.kind, self.validated.clone());
        Ok(Arc::new(CountingChannel { inner, kind, reference, validated }))
    }

    async fn forget_channel(&self, reference: ChannelRef) -> HsmResult<()> {
        self.inner.forget_channel(reference).await
    }
}

#[async_trait]
impl ChannelHsm for CountingChannel {
    async fn pubkeys(&self) -> HsmResult<ChannelKeys> {
        self.inner.pubkeys().await
    }

    async fn per_commitment_point(&self, number: u64) -> HsmResult<PublicKey> {
        if self.kind == Kind::RefusesAndHangs {
            if number == 3 {
                std::future::pending::<()>().await;
            }
            return self.inner.per_commitment_point(number).await;
        }
        let next = u64::from(self.validated.lock().unwrap().contains(&self.reference));
        if number > next + 1 && self.kind != Kind::RefusesWithoutWindow {
            return refused("the point is beyond the window");
        }
        self.inner.per_commitment_point(number).await
    }

    async fn setup(&self, setup: &ChannelSetup) -> HsmResult<()> {
        self.inner.setup(setup).await
    }

    async fn sign_counterparty_commitment(
        &self,
        request: &CommitmentRequest<'_>,
    ) -> HsmResult<Signature> {
        self.inner.sign_counterparty_commitment(request).await
    }

    async fn validate_holder_commitment(
        &self,
        request: &CommitmentRequest<'_>,
        signature: &Signature,
    ) -> HsmResult<()> {
        let is_new = !self.validated.lock().unwrap().contains(&self.reference);
        if self.kind != Kind::Counts || !is_new {
            return refused("it is not the next one");
        }
        self.inner.validate_holder_commitment(request, signature).await?;
        self.validated.lock().unwrap().push(self.reference);
        Ok(())
    }

    async fn sign_holder_commitment(
        &self,
        request: &CommitmentRequest<'_>,
    ) -> HsmResult<Signature> {
        self.inner.sign_holder_commitment(request).await
    }
}

async fn connect(hsm: &Arc<dyn Hsm>) -> HsmdHsm {
    let (client, server) = UnixStream::pair().unwrap();
    let identity = HsmdIdentity { node_id: node_id(7), chain_hash: ChainHash::REGTEST };
    tokio::spawn(serve_hsmd(hsm.clone(), identity, server));
    let deadline = Duration::from_secs(3);
    let config = HsmdConfig { deadline, ..HsmdConfig::new(Network::Regtest) };
    HsmdHsm::over(client, config).await.unwrap()
}

fn counting(kind: Kind) -> Arc<dyn Hsm> {
    let inner = signer(7, Enforcement::Blind, &Arc::default());
    Arc::new(Counting { inner, kind, validated: Arc::default() })
}

#[tokio::test]
async fn what_was_validated_is_known_after_a_restart_of_the_node() {
    let hsm = counting(Kind::Counts);
    let far = signer(8, Enforcement::Blind, &Arc::default());
    for _ in 0..2 {
        // The second time it is the same channel, to a node that has forgotten everything.
        let near = connect(&hsm).await;
        flow::open([&near, &far], 1, SHAPES[2]).await;
    }
}

/// One that does not count gives every point: its refusal is one.  One that falls silent while it is
/// asked for points has not said that it validated.
#[tokio::test]
async fn a_refusal_of_a_signer_that_has_not_validated_stands() {
    for (kind, code) in [
        (Kind::Refuses, "connection-closed"),
        (Kind::RefusesWithoutWindow, "connection-closed"),
        (Kind::RefusesAndHangs, "signer-indeterminate"),
    ] {
        let hsm = counting(kind);
        let far = signer(8, Enforcement::Blind, &Arc::default());
        let near = connect(&hsm).await;
        let [funder, fundee] = flow::name([&near, &far], 1, SHAPES[2]).await;
        funder.channel.setup(&funder.setup).await.unwrap();
        fundee.channel.setup(&fundee.setup).await.unwrap();
        let theirs = funder.commitment(Side::Remote);
        funder.channel.sign_counterparty_commitment(&funder.request(&theirs)).await.unwrap();
        let for_us = fundee.commitment(Side::Remote);
        let signature =
            fundee.channel.sign_counterparty_commitment(&fundee.request(&for_us)).await.unwrap();
        let ours = funder.commitment(Side::Local);
        let request = funder.request(&ours);
        let validated = funder.channel.validate_holder_commitment(&request, &signature).await;
        assert_eq!(reason(validated), code);
        assert_eq!(reason(funder.channel.sign_holder_commitment(&request).await), "not-validated");
    }
}
