//! The peer proves that our state is old: whatever else happens, the proof is not lost, and
//! nothing leaves before it is judged.

// Clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::secp256k1::SecretKey;
use common::lasting::{Funded, Lasting};
use common::raw_peer::RawPeer;
use lightning::ln::msgs::{ChannelReady, ChannelReestablish};
use opening_core::secrets::generate_from_seed;
use opening_peer::negotiation::ready::{ChannelFailure, Exit, Progress};
use opening_peer::node::PublicText;
use opening_peer::openings::{ConfirmError, SignError};
use opening_peer::testing::{EVERY, Fault, Faults, MockHsm};
use opening_peer::{Event, Session};
use opening_signer::{ChannelHsm, ChannelRef, ChannelSecrets, Hsm, HsmResult, Info, LocalHsm};

const SEED: [u8; 32] = [0x42; 32];

const POINT: &str = "per_commitment_point";

/// What asks nothing of a call that is late.
const LONG: Duration = Duration::from_secs(120);

fn secrets(seed: [u8; 32]) -> ChannelSecrets {
    let secret = |byte| SecretKey::from_slice(&[byte; 32]).unwrap();
    ChannelSecrets {
        funding: secret(21),
        revocation: secret(22),
        payment: secret(23),
        delayed_payment: secret(24),
        htlc: secret(25),
        shachain_seed: seed,
    }
}

/// A node that was restored from an old copy, its channel, and the peer that knows better.
struct Behind {
    node: Lasting,
    faults: Faults,
    channel: Funded,
    peer: RawPeer,
    session: Session,
    said: ChannelReady,
}

impl Behind {
    async fn new() -> Self {
        let faults = Faults::none();
        let of_signer = faults.clone();
        let node = Lasting::with(move |node| {
            let signer = LocalHsm::with_channel_secrets(secrets(SEED));
            node.hsm = Arc::new(MockHsm::new(Arc::new(signer), of_signer.clone()));
        })
        .await;
        let (mut peer, session) = node.connect().await;
        let channel = node.they_fund(&mut peer, |_| {}).await;
        node.confirm(&channel, 3).await.unwrap();
        let said = peer.expect_channel_ready(channel.id).await;
        let mut behind = Self { node, faults, channel, peer, session, said };
        behind.reconnect().await;
        behind.peer.expect_reestablish(behind.channel.id).await;
        behind
    }

    async fn reconnect(&mut self) {
        let (peer, session) = self.node.connect().await;
        let old = std::mem::replace(&mut self.peer, peer);
        drop((old, std::mem::replace(&mut self.session, session)));
    }

    /// From now on the signer does so when it is asked for a point.
    fn signer(&self, fault: Fault) {
        let _ = self.faults.clone().at(POINT, EVERY, fault);
    }

    fn claim_of(&self, commitment: u64, secret: [u8; 32]) -> ChannelReestablish {
        ChannelReestablish {
            next_remote_commitment_number: commitment + 1,
            your_last_per_commitment_secret: secret,
            ..self.peer.channel_reestablish(self.channel.id)
        }
    }

    /// The peer proves that we revoked commitment 0.
    async fn prove(&mut self) {
        let secret = generate_from_seed(&SEED, (1 << 48) - 1);
        self.peer.send(&self.claim_of(0, secret)).await;
    }

    /// It claims that we did, and does not prove it.
    async fn lie(&mut self, commitment: u64) {
        self.peer.send(&self.claim_of(commitment, [0x11; 32])).await;
    }

    async fn fails_it(&mut self) {
        self.peer.send_error(self.channel.id, "you are behind").await;
        self.node.until_kept(&self.channel, |progress| progress.failed.is_some()).await;
    }

    async fn repeat(&mut self) {
        self.peer.send(&self.peer.channel_reestablish(self.channel.id)).await;
    }

    /// Why our commitment is not given out; `""` if it is.
    async fn refusal(&self) -> &'static str {
        let signed = self.node.openings.signed_commitment(&self.channel.id).await;
        signed.err().map_or("", |error| error.code())
    }

    async fn until_exit(&self, exit: Exit) {
        let is_it = |failed: &ChannelFailure| failed.exit == exit;
        let wanted = |progress: &Progress| progress.failed.as_ref().is_some_and(is_it);
        self.node.until_kept(&self.channel, wanted).await;
    }

    /// What the node was told last about what to do.
    async fn assert_outdated(&self) {
        self.until_exit(Exit::AwaitPeer).await;
        assert_eq!(self.refusal().await, "commitment-outdated");
        assert_eq!(self.node.ends().last(), Some(&"reestablish-our-state-is-old"));
    }
}

// req: B2-RE-R-12, B2-RE-R-13, B5-FAIL-B-04
#[tokio::test]
async fn an_error_before_the_signers_answer_does_not_undo_the_proof() {
    let mut behind = Behind::new().await;
    behind.signer(Fault::Hold);
    behind.prove().await;
    behind.fails_it().await;
    assert_eq!(behind.node.ends(), ["peer-error"]);
    behind.faults.release();
    behind.assert_outdated().await;
    assert_eq!(behind.node.ends(), ["peer-error", "reestablish-our-state-is-old"]);
    let text = behind.peer.expect_error(behind.channel.id).await;
    assert!(text.contains("please fail the channel"), "{text}");
    // The node was told both, the worse of them last.
    let exit = |event: &Event| match event {
        Event::Ended(ended) if ended.end.code() == "reestablish-our-state-is-old" => {
            Some(ended.exit)
        }
        _ => None,
    };
    assert_eq!(behind.node.seen.find(exit).await, Exit::AwaitPeer);
}

// req: B2-RE-R-12, B5-FAIL-B-04
#[tokio::test]
async fn whoever_wants_our_commitment_waits_until_the_proof_is_judged() {
    let mut behind = Behind::new().await;
    behind.signer(Fault::Hold);
    behind.prove().await;
    behind.fails_it().await;
    let (openings, id) = (behind.node.openings.clone(), behind.channel.id);
    let signing = tokio::spawn(async move { openings.signed_commitment(&id).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!signing.is_finished());
    behind.faults.release();
    assert!(matches!(signing.await.unwrap(), Err(SignError::Outdated)));
}

// req: B2-RE-R-12, B5-FAIL-B-04
#[tokio::test(start_paused = true)]
async fn a_proof_that_the_signer_could_not_judge_is_judged_before_anything_is_signed() {
    for fault in [Fault::FailBefore, Fault::StallBefore, Fault::Panic] {
        let mut behind = Behind::new().await;
        behind.signer(fault);
        behind.prove().await;
        tokio::time::sleep(LONG).await;
        assert_eq!(behind.node.ends(), [""; 0], "{fault:?}");
        behind.fails_it().await;
        assert_eq!(behind.refusal().await, "claim-unjudged", "{fault:?}");
        assert_eq!(behind.faults.calls("sign_holder_commitment"), 0);
        behind.faults.repair();
        assert_eq!(behind.refusal().await, "commitment-outdated", "{fault:?}");
        behind.assert_outdated().await;
    }
}

// req: B2-RE-R-12, B2-RE-B-09
#[tokio::test(start_paused = true)]
async fn while_a_proof_is_unjudged_the_channel_does_not_go_on() {
    for fault in [Fault::FailBefore, Fault::StallBefore, Fault::Panic] {
        for is_new_connection in [false, true] {
            let mut behind = Behind::new().await;
            behind.signer(fault);
            behind.prove().await;
            tokio::time::sleep(LONG).await;
            if is_new_connection {
                behind.reconnect().await;
                behind.peer.expect_reestablish(behind.channel.id).await;
            }
            behind.repeat().await;
            behind.peer.send(&behind.peer.channel_ready(behind.channel.id)).await;
            tokio::time::sleep(LONG).await;
            behind.peer.expect_silence().await;
            assert_eq!((behind.node.readies(), behind.node.ends()), (0, vec![]), "{fault:?}");
            // The next block asks the signer again.
            behind.faults.repair();
            behind.node.openings.block_connected(200).await;
            behind.peer.expect_error(behind.channel.id).await;
            behind.node.openings.fail(&behind.channel.id, &PublicText::new("no")).await.unwrap();
            behind.assert_outdated().await;
        }
    }
}

// req: B2-RE-R-12, B2-RE-B-09
#[tokio::test(start_paused = true)]
async fn a_live_channel_stands_still_while_a_claim_is_unjudged() {
    let mut behind = Behind::new().await;
    behind.repeat().await;
    assert_eq!(behind.peer.expect_channel_ready(behind.channel.id).await, behind.said);
    behind.signer(Fault::FailBefore);
    behind.prove().await;
    behind.peer.send(&behind.peer.channel_ready(behind.channel.id)).await;
    tokio::time::sleep(LONG).await;
    behind.peer.expect_silence().await;
    assert_eq!(behind.node.readies(), 0);
}

// req: B2-RE-R-12, B5-FAIL-B-04
#[tokio::test]
async fn the_end_of_the_connection_does_not_undo_the_proof() {
    let mut behind = Behind::new().await;
    behind.signer(Fault::Hold);
    behind.prove().await;
    behind.faults.struck().await;
    behind.reconnect().await;
    behind.peer.expect_reestablish(behind.channel.id).await;
    behind.faults.release();
    behind.peer.expect_error(behind.channel.id).await;
    behind.assert_outdated().await;
}

// req: B2-RE-R-12, B2-RE-B-07, B5-FAIL-B-04
#[tokio::test]
async fn a_proof_counts_also_after_the_channel_has_failed() {
    let mut behind = Behind::new().await;
    behind.fails_it().await;
    behind.reconnect().await;
    behind.peer.expect_error(behind.channel.id).await;
    behind.prove().await;
    behind.peer.expect_error(behind.channel.id).await;
    behind.assert_outdated().await;
    // Also over a restart.
    let Behind { mut node, channel, peer, session, .. } = behind;
    drop((peer, session));
    node.restart().await;
    let signed = node.openings.signed_commitment(&channel.id).await;
    assert!(matches!(signed, Err(SignError::Outdated)));
}

/// A proof that comes while the signer is at work on our commitment comes in time.
// req: B2-RE-R-12, B5-FAIL-B-04
#[tokio::test]
async fn a_proof_counts_until_our_commitment_is_handed_out() {
    let mut behind = Behind::new().await;
    behind.fails_it().await;
    let _ = behind.faults.clone().at("sign_holder_commitment", EVERY, Fault::Hold);
    let (openings, id) = (behind.node.openings.clone(), behind.channel.id);
    let signing = tokio::spawn(async move { openings.signed_commitment(&id).await });
    behind.faults.struck().await;
    behind.prove().await;
    behind.peer.expect_error(behind.channel.id).await;
    behind.faults.release();
    assert!(matches!(signing.await.unwrap(), Err(SignError::Outdated)));
}

/// A peer cannot take our exit from us by what it does not prove.
// req: B2-RE-R-08, B5-FAIL-B-05
#[tokio::test]
async fn a_false_claim_is_dropped_and_our_commitment_given_out() {
    for is_failed in [false, true] {
        let mut behind = Behind::new().await;
        if is_failed {
            behind.fails_it().await;
        }
        behind.lie(0).await;
        if is_failed {
            behind.peer.expect_silence().await;
        }
        behind.until_exit(Exit::Broadcast).await;
        assert_eq!(behind.refusal().await, "");
        let expected = if is_failed { "peer-error" } else { "reestablish-nothing-revoked" };
        assert_eq!(behind.node.ends(), [expected]);
    }
}

/// However many it makes: the signer is asked a few times, and then no more.
// req: B5-FAIL-B-05
#[tokio::test]
async fn false_claims_without_end_are_not_judged_without_end() {
    let mut behind = Behind::new().await;
    behind.fails_it().await;
    let before = behind.faults.calls(POINT);
    for commitment in 0..50 {
        behind.lie(commitment).await;
        behind.peer.expect_silence().await;
        assert_eq!(behind.refusal().await, "");
    }
    assert_eq!(behind.faults.calls(POINT) - before, 8);
}

/// The newest claim counts, and the signer is asked about one at a time.
// req: B2-RE-R-12, B5-FAIL-B-04
#[tokio::test]
async fn claims_do_not_pile_up_at_the_signer() {
    let mut behind = Behind::new().await;
    behind.signer(Fault::Hold);
    let before = behind.faults.calls(POINT);
    for commitment in 0..200 {
        behind.lie(commitment).await;
    }
    behind.prove().await;
    behind.peer.expect_silence().await;
    assert_eq!(behind.faults.calls(POINT) - before, 1);
    behind.faults.release();
    behind.assert_outdated().await;
    assert_eq!(behind.faults.calls(POINT) - before, 2);
}

/// The same when the signer fails: no claim is asked about twice at a time, nor without end.
#[tokio::test(start_paused = true)]
async fn a_signer_that_fails_is_not_asked_without_end() {
    let mut behind = Behind::new().await;
    behind.signer(Fault::FailBefore);
    let before = behind.faults.calls(POINT);
    behind.prove().await;
    tokio::time::sleep(100 * LONG).await;
    assert_eq!(behind.faults.calls(POINT) - before, 1);
}

/// A restart forgets what was not judged: the peer says it again when it connects.
#[tokio::test]
async fn after_a_restart_the_peer_says_it_again() {
    let mut behind = Behind::new().await;
    behind.signer(Fault::FailBefore);
    behind.prove().await;
    behind.fails_it().await;
    assert_eq!(behind.refusal().await, "claim-unjudged");
    behind.node.restart().await;
    behind.reconnect().await;
    behind.peer.expect_error(behind.channel.id).await;
    behind.prove().await;
    behind.peer.expect_silence().await;
    assert_eq!(behind.refusal().await, "claim-unjudged");
    behind.faults.repair();
    assert_eq!(behind.refusal().await, "commitment-outdated");
    behind.assert_outdated().await;
}

/// A signer that comes back with another secret.
struct Exchanged {
    before: LocalHsm,
    after: LocalHsm,
    is_exchanged: Arc<AtomicBool>,
}

impl Exchanged {
    fn new(is_exchanged: &Arc<AtomicBool>) -> Self {
        Self {
            before: LocalHsm::with_channel_secrets(secrets(SEED)),
            after: LocalHsm::with_channel_secrets(secrets([0x43; 32])),
            is_exchanged: is_exchanged.clone(),
        }
    }

    fn current(&self) -> &LocalHsm {
        match self.is_exchanged.load(Ordering::SeqCst) {
            true => &self.after,
            false => &self.before,
        }
    }
}

#[async_trait]
impl Hsm for Exchanged {
    fn info(&self) -> Info {
        self.current().info()
    }

    async fn channel(&self, reference: ChannelRef) -> HsmResult<Arc<dyn ChannelHsm>> {
        self.current().channel(reference).await
    }

    async fn forget_channel(&self, reference: ChannelRef) -> HsmResult<()> {
        self.current().forget_channel(reference).await
    }
}

/// Its points are another channel's: none of them is kept or sent, and none judges the peer.
// req: B2-CR-S-03, B2-RE-R-12
#[tokio::test]
async fn a_signer_with_another_secret_gives_no_points() {
    let is_exchanged = Arc::new(AtomicBool::new(false));
    let of_node = is_exchanged.clone();
    let node = Lasting::with(move |node| node.hsm = Arc::new(Exchanged::new(&of_node))).await;
    let (mut peer, session) = node.connect().await;
    let channel = node.they_fund(&mut peer, |_| {}).await;
    is_exchanged.store(true, Ordering::SeqCst);
    assert_eq!(node.confirm(&channel, 3).await, Err(ConfirmError::NotReady));
    assert_eq!(node.kept(&channel).await.unwrap().local, None);
    peer.disconnect().await;
    drop(session);
    let (mut peer, _session) = node.connect().await;
    peer.expect_reestablish(channel.id).await;
    let proof = ChannelReestablish {
        next_remote_commitment_number: 1,
        your_last_per_commitment_secret: generate_from_seed(&SEED, (1 << 48) - 1),
        ..peer.channel_reestablish(channel.id)
    };
    peer.send(&proof).await;
    peer.expect_silence().await;
    node.openings.fail(&channel.id, &PublicText::new("no")).await.unwrap();
    peer.expect_error(channel.id).await;
    let signed = node.openings.signed_commitment(&channel.id).await;
    assert_eq!(signed.unwrap_err().code(), "claim-unjudged");
    is_exchanged.store(false, Ordering::SeqCst);
    let signed = node.openings.signed_commitment(&channel.id).await;
    assert!(matches!(signed, Err(SignError::Outdated)));
}
