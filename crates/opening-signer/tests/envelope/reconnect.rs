//! Connections that break, and signers that come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use opening_signer::{Bounds, Call, Enforcement, Hsm, HsmError, Info, Pipelining};
use tokio::time::sleep;

use crate::world::{Fate, Opening, Scripted, World, open, reference};

/// Loses the reply to the first call of this kind.
fn loses_one(lost: Call) -> Arc<Scripted> {
    let times = AtomicUsize::new(0);
    Scripted::new(move |call| match call {
        _ if call == lost && times.fetch_add(1, Ordering::SeqCst) == 0 => Fate::LoseReply,
        _ => Fate::Go,
    })
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
    let forgetful = loses_one(Call::SignCounterpartyCommitment);
    let times = AtomicUsize::new(0);
    let slow = Scripted::new(move |call| match call {
        Call::Setup if times.fetch_add(1, Ordering::SeqCst) == 0 => Fate::Defer,
        _ => Fate::Go,
    });
    let world = World::new(vec![forgetful, slow]).await;
    let channel = world.hsm.channel(reference(1)).await.unwrap();
    let opening = Opening::new(&*channel, 1).await;
    // What was told again is deferred, and so is what needs it; then all of it is repeated.
    assert_eq!(opening.fund(&*channel).await, Err(HsmError::Deferred));
    opening.fund(&*channel).await.unwrap();
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
    let (sender, connector) = crate::world::ends();
    let connecting = crate::world::connect(connector);
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
