//! Connections that break, and signers that come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use opening_signer::{Bounds, Call, Enforcement, Hsm, HsmError, Info, Pipelining};
use tokio::io::duplex;
use tokio::time::{sleep, timeout};

use crate::raw::{Raw, good_hello, id_of, reply};
use crate::world::{Fate, Opening, Scripted, World, connect, ends, open, reference};

/// Loses the reply to the first call of this kind.
fn loses_one(lost: Call) -> Arc<Scripted> {
    let times = AtomicUsize::new(0);
    Scripted::new(move |call| match call {
        _ if call == lost && times.fetch_add(1, Ordering::SeqCst) == 0 => Fate::LoseReply,
        _ => Fate::Go,
    })
}

/// A request that is never answered would hold its place among those in flight for ever.
#[tokio::test(start_paused = true)]
async fn a_signer_that_only_answers_pings_is_given_up() {
    let never = Duration::from_secs(1 << 30);
    let stuck = Scripted::new(move |_| Fate::After(never));
    let good = Scripted::new(|_| Fate::Go);
    let world = World::new(vec![stuck.clone(), good.clone()]).await;
    assert!(timeout(Duration::from_secs(5), world.hsm.channel(reference(1))).await.is_err());
    // Up to twice the deadline of 55 seconds it may be slow.
    sleep(Duration::from_secs(100)).await;
    world.hsm.health().unwrap();
    sleep(Duration::from_secs(25)).await;
    world.hsm.channel(reference(2)).await.map(|_| ()).unwrap();
    assert_eq!(*stuck.calls.lock().unwrap(), [(Call::Channel, 1)]);
    assert_eq!(*good.calls.lock().unwrap(), [(Call::Channel, 2)]);
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_is_lost_at_any_call_changes_nothing() {
    let quiet = World::new(vec![Scripted::new(|_| Fate::Go)]).await;
    let expected = open(&quiet.hsm, 1).await.unwrap();
    for lost in Call::ALL {
        let signer = loses_one(lost);
        let world = World::new(vec![signer.clone()]).await;
        assert_eq!(open(&world.hsm, 1).await, Ok(expected), "{lost}");
        if !matches!(lost, Call::ForgetChannel | Call::SignHolderCommitment) {
            assert!(signer.count(lost) >= 2, "{lost}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_signer_that_forgot_everything_is_told_again_what_it_has_to_know() {
    let forgetful = loses_one(Call::SignHolderCommitment);
    let fresh = Scripted::new(|_| Fate::Go);
    let world = World::new(vec![forgetful, fresh.clone()]).await;
    let channel = world.hsm.channel(reference(1)).await.unwrap();
    let opening = Opening::new(&*channel, 1).await;
    opening.fund(&*channel).await.unwrap();
    opening.validate(&*channel).await.unwrap();
    channel.sign_holder_commitment(&opening.request(&opening.ours)).await.unwrap();
    let told: Vec<Call> = fresh.calls.lock().unwrap().iter().map(|(call, _)| *call).collect();
    let expected =
        [Call::Channel, Call::Setup, Call::ValidateHolderCommitment, Call::SignHolderCommitment];
    assert_eq!(told, expected);
}

#[tokio::test(start_paused = true)]
async fn a_deferral_of_what_is_told_again_defers_what_needs_it() {
    let forgetful = loses_one(Call::ValidateHolderCommitment);
    let times = AtomicUsize::new(0);
    let slow = Scripted::new(move |call| match call {
        Call::Setup if times.fetch_add(1, Ordering::SeqCst) == 0 => Fate::Defer,
        _ => Fate::Go,
    });
    let world = World::new(vec![forgetful, slow.clone()]).await;
    let channel = world.hsm.channel(reference(1)).await.unwrap();
    let opening = Opening::new(&*channel, 1).await;
    opening.fund(&*channel).await.unwrap();
    assert_eq!(opening.validate(&*channel).await, Err(HsmError::Deferred));
    // Told again once more.
    opening.validate(&*channel).await.unwrap();
    assert_eq!(slow.count(Call::Setup), 2);
}

#[tokio::test(start_paused = true)]
async fn a_server_killed_during_a_call_leaves_it_indeterminate() {
    let signer = Scripted::new(|call| match call {
        Call::Setup => Fate::LoseReply,
        _ => Fate::Go,
    });
    let world = World::new(vec![signer]).await;
    let channel = world.hsm.channel(reference(1)).await.unwrap();
    let opening = Opening::new(&*channel, 1).await;
    let setup = channel.setup(&opening.setup).await;
    assert!(matches!(setup, Err(HsmError::Indeterminate(_))), "{setup:?}");
}

#[tokio::test(start_paused = true)]
async fn a_dead_signer_is_known_and_what_was_never_sent_is_unavailable() {
    let (sender, connector) = ends();
    let connecting = connect(connector);
    let serving = crate::world::serve_once(&sender, Scripted::new(|_| Fate::Go));
    let (hsm, server) = tokio::join!(connecting, serving);
    hsm.health().unwrap();
    server.abort();
    sleep(Duration::from_millis(50)).await;
    let health = hsm.health().unwrap_err();
    assert!(health.to_string().contains("link-lost"), "{health}");
    let channel = hsm.channel(reference(1)).await.map(|_| ());
    assert!(matches!(channel, Err(HsmError::Unavailable(_))), "{channel:?}");
    // It comes back.
    let _server = crate::world::serve_once(&sender, Scripted::new(|_| Fate::Go)).await;
    open(&hsm, 1).await.unwrap();
    hsm.health().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_signer_that_changed_its_rules_is_refused_with_a_code() {
    let strict = Info {
        enforcement: Enforcement::Validating,
        bounds: Bounds::none(),
        pipelining: Pipelining::InOrder,
    };
    let blinder = Info { enforcement: Enforcement::Blind, ..strict.clone() };
    let mut wider = strict.clone();
    wider.bounds.to_self_delay = 0..=7;
    for (changed, what) in [(blinder, "enforcement"), (wider, "bounds")] {
        let signers = [strict.clone(), changed, strict.clone()].map(Scripted::with_info);
        let world = World::new(signers.into()).await;
        assert_eq!(world.hsm.info(), strict);
        world.cut.send(()).unwrap();
        sleep(Duration::from_millis(150)).await;
        let health = world.hsm.health().unwrap_err().to_string();
        assert!(health.contains("link-info-changed") && health.contains(what), "{health}");
        // Back with the rules that it had.
        open(&world.hsm, 1).await.unwrap();
        assert_eq!(world.hsm.info(), strict);
    }
}

/// The hello names no secret: what was begun with the first one is refused by the second.
#[tokio::test(start_paused = true)]
async fn a_signer_that_comes_back_with_another_secret_fails_what_was_begun() {
    let world = World::new(vec![Scripted::new(|_| Fate::Go), Scripted::with_secret(9)]).await;
    let channel = world.hsm.channel(reference(1)).await.unwrap();
    let opening = Opening::new(&*channel, 1).await;
    channel.setup(&opening.setup).await.unwrap();
    world.cut.send(()).unwrap();
    let signed = channel.sign_counterparty_commitment(&opening.request(&opening.theirs)).await;
    assert!(matches!(signed, Err(HsmError::InvalidRequest(_))), "{signed:?}");
    open(&world.hsm, 2).await.unwrap();
}

/// The reply to a failed request.
fn deferred(id: u64) -> Vec<u8> {
    [&[0, 5][..], &id.to_be_bytes(), &[3, 0, 0, 0, 0]].concat()
}

/// A channel opened by a quiet signer, to have something to ask for.
async fn something() -> Opening {
    let quiet = World::new(vec![Scripted::new(|_| Fate::Go)]).await;
    let channel = quiet.hsm.channel(reference(1)).await.unwrap();
    Opening::new(&*channel, 1).await
}

#[tokio::test(start_paused = true)]
async fn after_a_break_the_same_bytes_come_behind_what_was_told_before() {
    let opening = something().await;
    let (sender, connector) = ends();
    let hello = good_hello();
    let signing = async {
        let (near, far) = duplex(1 << 16);
        sender.send(near).unwrap();
        let mut first = Raw(far);
        first.answer_hello(&hello).await;
        let channel = first.receive().await.unwrap();
        first.send(&reply(id_of(&channel), 130, &[])).await;
        let (setup, sign) = (first.receive().await.unwrap(), first.receive().await.unwrap());
        first.send(&reply(id_of(&setup), 131, &[])).await;
        // The reply to the signature is lost.
        sleep(Duration::from_millis(1)).await;
        drop(first);

        let (near, far) = duplex(1 << 16);
        sender.send(near).unwrap();
        let mut second = Raw(far);
        second.answer_hello(&hello).await;
        for expected in [&channel, &setup, &sign] {
            assert_eq!(second.receive().await.as_ref(), Some(expected));
        }
        second.send(&reply(id_of(&channel), 130, &[])).await;
        second.send(&reply(id_of(&setup), 131, &[])).await;
        second.send(&deferred(id_of(&sign))).await;
        second
    };
    let opened = async {
        let hsm = connect(connector).await;
        let channel = hsm.channel(reference(1)).await.unwrap();
        let fund = opening.fund(&*channel).await;
        (hsm, fund)
    };
    let ((hsm, fund), _second) = tokio::join!(opened, signing);
    assert_eq!(fund, Err(HsmError::Deferred));
    hsm.health().unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_depends_on_a_failure_is_not_sent_again_after_a_break() {
    let opening = something().await;
    let (sender, connector) = ends();
    let hello = good_hello();
    let signing = async {
        let (near, far) = duplex(1 << 16);
        sender.send(near).unwrap();
        let mut first = Raw(far);
        first.answer_hello(&hello).await;
        let channel = first.receive().await.unwrap();
        first.send(&reply(id_of(&channel), 130, &[])).await;
        let setup = first.receive().await.unwrap();
        first.receive().await.unwrap();
        first.send(&deferred(id_of(&setup))).await;
        sleep(Duration::from_millis(1)).await;
        drop(first);

        let (near, far) = duplex(1 << 16);
        sender.send(near).unwrap();
        let mut second = Raw(far);
        second.answer_hello(&hello).await;
        // The next is a ping.
        assert_eq!(second.receive().await.unwrap()[..2], [0, 6]);
    };
    let opened = async {
        let hsm = connect(connector).await;
        let channel = hsm.channel(reference(1)).await.unwrap();
        let request = opening.request(&opening.theirs);
        let both = tokio::join!(
            biased;
            channel.setup(&opening.setup),
            channel.sign_counterparty_commitment(&request),
        );
        (hsm, both)
    };
    let ((_hsm, (setup, sign)), ()) = tokio::join!(opened, signing);
    assert_eq!(setup, Err(HsmError::Deferred));
    assert_eq!(sign, Err(HsmError::Aborted));
}
