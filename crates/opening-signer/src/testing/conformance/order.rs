//! What comes before what, and what may come again.

use std::sync::Arc;

use bitcoin::secp256k1::ecdsa::Signature;
use opening_core::{MilliSatoshi, Side};

use super::Needed::{Always, Validating};
use super::play::{Checked, Stage, Wrong};
use super::{Check, Subject};
use crate::error::HsmError;
use crate::request::CommitmentRequest;

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "opens",
        title: "signs and validates for a funder and for a fundee, low-S",
        needed: Always,
        run: |subject, node| Box::pin(opens(subject, node)),
    },
    Check {
        id: "setup-first",
        title: "signs and validates nothing before the setup",
        needed: Validating,
        run: |subject, node| Box::pin(setup_first(subject, node)),
    },
    Check {
        id: "setup-again",
        title: "takes the same setup again",
        needed: Always,
        run: |subject, node| Box::pin(setup_again(subject, node)),
    },
    Check {
        id: "setup-differs",
        title: "takes no other setup of the same channel",
        needed: Validating,
        run: |subject, node| Box::pin(setup_differs(subject, node)),
    },
    Check {
        id: "sign-again",
        title: "signs the same bytes again",
        needed: Always,
        run: |subject, node| Box::pin(sign_again(subject, node)),
    },
    Check {
        id: "bad-signature",
        title: "finds a bad signature of the peer's, and a good one afterwards",
        needed: Always,
        run: |subject, node| Box::pin(bad_signature(subject, node)),
    },
    Check {
        id: "validate-again",
        title: "validates the same signature again, and gives the next point",
        needed: Always,
        run: |subject, node| Box::pin(validate_again(subject, node)),
    },
    Check {
        id: "own-after-validation",
        title: "signs its own commitment, and only after the peer's signature on it was good",
        needed: Validating,
        run: |subject, node| Box::pin(own_after_validation(subject, node)),
    },
    Check {
        id: "fundee-validates-first",
        title: "signs as fundee only after its own commitment was validated",
        needed: Validating,
        run: |subject, node| Box::pin(fundee_first(subject, node)),
    },
    Check {
        id: "dropped-call",
        title: "is not put out of step by calls that are dropped",
        needed: Always,
        run: |subject, node| Box::pin(dropped(subject, node)),
    },
    Check {
        id: "many-at-once",
        title: "keeps channels apart that are opened at once",
        needed: Always,
        run: |subject, node| Box::pin(at_once(subject, node)),
    },
];

async fn opens(subject: Arc<Subject>, node: u32) -> Checked {
    let stage = Stage::new(subject, node).await?;
    for (dbid, opener) in [(1, Side::Local), (2, Side::Remote)] {
        stage.channel(opener, dbid).await?.open().await?;
        let nothing = MilliSatoshi::ZERO;
        let without = stage.channel_with(opener, dbid + 2, |made| made.push_msat = nothing);
        without.await?.open().await?;
    }
    Ok(())
}

async fn setup_first(subject: Arc<Subject>, node: u32) -> Checked {
    let stage = Stage::new(subject, node).await?;
    let play = stage.channel(Side::Local, 1).await?;
    let theirs = play.commitment(Side::Remote)?;
    play.sign_refused("sign before setup", &theirs, play.point_of_peer()).await?;
    let own = play.commitment(Side::Local)?;
    let request = CommitmentRequest::first(&play.setup.parameters, &own);
    let signature = play.signature_of_peer().await?;
    let validated = play.channel.validate_holder_commitment(&request, &signature).await;
    stage.refused("validate before setup", validated)?;
    play.open().await
}

async fn setup_again(subject: Arc<Subject>, node: u32) -> Checked {
    let stage = Stage::new(subject, node).await?;
    let play = stage.channel(Side::Local, 1).await?;
    play.set_up().await?;
    play.open().await?;
    play.set_up().await
}

async fn setup_differs(subject: Arc<Subject>, node: u32) -> Checked {
    let stage = Stage::new(subject, node).await?;
    let play = stage.channel(Side::Local, 1).await?;
    play.set_up().await?;
    let push = MilliSatoshi::from_msat(100_000_000);
    let other = stage.channel_with(Side::Local, 1, |made| made.push_msat = push).await?;
    stage.refused("another setup", other.channel.setup(&other.setup).await)?;
    play.open().await?;
    stage.refused("another setup after signing", other.channel.setup(&other.setup).await)?;
    play.set_up().await
}

async fn sign_again(subject: Arc<Subject>, node: u32) -> Checked {
    let stage = Stage::new(subject, node).await?;
    let play = stage.channel(Side::Local, 1).await?;
    play.set_up().await?;
    play.sign().await?;
    // By another handle, as after a lost reply.
    let again = stage.channel(Side::Local, 1).await?;
    again.sign().await?;
    play.open().await
}

async fn bad_signature(subject: Arc<Subject>, node: u32) -> Checked {
    let stage = Stage::new(subject, node).await?;
    let play = stage.channel(Side::Local, 1).await?;
    play.set_up().await?;
    let own = play.commitment(Side::Local)?;
    let request = CommitmentRequest::first(&play.setup.parameters, &own);
    let good = play.signature_of_peer().await?;
    let mut high_s = good.serialize_compact();
    let s = bitcoin::secp256k1::SecretKey::from_slice(&high_s[32..]);
    let s = s.map_err(|error| Wrong::new(error.to_string()))?;
    high_s[32..].copy_from_slice(&s.negate().secret_bytes());
    for (what, bytes) in [("a made-up signature", [1; 64]), ("one with a high S", high_s)] {
        let bad = Signature::from_compact(&bytes).map_err(|error| Wrong::new(error.to_string()))?;
        match play.channel.validate_holder_commitment(&request, &bad).await {
            Err(HsmError::BadCounterpartySignature) => {}
            Err(error) => return Err(Wrong::new(format!("{what}: {error}"))),
            Ok(()) => return Err(Wrong::new(format!("{what} is good to it"))),
        }
    }
    play.open().await
}

async fn validate_again(subject: Arc<Subject>, node: u32) -> Checked {
    let stage = Stage::new(subject, node).await?;
    let play = stage.channel(Side::Remote, 1).await?;
    play.set_up().await?;
    play.validate().await?;
    play.validate().await?;
    play.sign().await?;
    play.validate().await?;
    let next = play.channel.per_commitment_point(1).await;
    stage.good("per_commitment_point(1)", next).map(drop)
}

async fn own_after_validation(subject: Arc<Subject>, node: u32) -> Checked {
    let stage = Stage::new(subject, node).await?;
    let play = stage.channel(Side::Local, 1).await?;
    play.set_up().await?;
    play.sign().await?;
    let own = play.commitment(Side::Local)?;
    let request = CommitmentRequest::first(&play.setup.parameters, &own);
    let early = play.channel.sign_holder_commitment(&request).await;
    stage.refused("its own before validation", early)?;
    play.validate().await?;
    let signed = play.channel.sign_holder_commitment(&request).await;
    play.is_ours(&own, &stage.good("sign_holder_commitment", signed)?)
}

async fn fundee_first(subject: Arc<Subject>, node: u32) -> Checked {
    let stage = Stage::new(subject, node).await?;
    let play = stage.channel(Side::Remote, 1).await?;
    play.set_up().await?;
    let theirs = play.commitment(Side::Remote)?;
    play.sign_refused("the peer's first", &theirs, play.point_of_peer()).await?;
    play.open().await
}

async fn dropped(subject: Arc<Subject>, node: u32) -> Checked {
    let stage = Stage::new(subject, node).await?;
    for (dbid, polls) in (1..).zip([1, 2, 3, 5, 8]) {
        let play = stage.channel(Side::Remote, dbid).await?;
        drop_after(polls, play.channel.per_commitment_point(1)).await;
        drop_after(polls, play.channel.setup(&play.setup)).await;
        play.set_up().await?;
        drop_after(polls, play.validate()).await;
        play.validate().await?;
        drop_after(polls, play.sign()).await;
        play.sign().await?;
        let after = stage.channel(Side::Remote, dbid).await?.setup.parameters.local;
        if after != play.setup.parameters.local {
            return Err(Wrong::new("it answered one call with what another had asked for"));
        }
    }
    Ok(())
}

async fn drop_after<T>(polls: u32, call: impl Future<Output = T>) {
    let mut call = Box::pin(call);
    for _ in 0..polls {
        if futures::poll!(&mut call).is_ready() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

async fn at_once(subject: Arc<Subject>, node: u32) -> Checked {
    let stage = &Stage::new(subject, node).await?;
    let opening = (1..=16).map(|dbid| async move {
        let opener = if dbid % 2 == 0 { Side::Local } else { Side::Remote };
        stage.channel(opener, dbid).await?.open().await
    });
    futures::future::try_join_all(opening).await.map(drop)
}
