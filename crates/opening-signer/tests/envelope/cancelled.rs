//! Calls whose callers go away.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use opening_signer::{Call, Hsm, HsmError};
use tokio::io::duplex;
use tokio::time::{sleep, timeout};

use crate::raw::{Raw, good_hello, id_of, reply};
use crate::world::{Fate, Opening, Scripted, World, connect, ends, reference};

const TRIP: Duration = Duration::from_millis(5);

#[tokio::test(start_paused = true)]
async fn a_call_dropped_at_any_moment_leaves_the_next_ones_good() {
    let world = World::new(vec![Scripted::new(|_| Fate::After(TRIP))]).await;
    let channel = world.hsm.channel(reference(1)).await.unwrap();
    let opening = Opening::new(&*channel, 1).await;
    let expected = opening.fund(&*channel).await.unwrap();
    for moment in 0..25 {
        // Setup and signature together, dropped at each moment of their two trips.
        drop(timeout(Duration::from_millis(moment), opening.fund(&*channel)).await);
        assert_eq!(opening.fund(&*channel).await, Ok(expected), "{moment} ms");
    }
    opening.validate(&*channel).await.unwrap();
    world.hsm.health().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_before_it_was_sent_is_never_sent() {
    let signer = Scripted::new(|_| Fate::Go);
    let world = World::new(vec![signer.clone()]).await;
    let channel = world.hsm.channel(reference(1)).await.unwrap();
    {
        let mut call = pin!(channel.pubkeys());
        assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    channel.per_commitment_point(0).await.unwrap();
    assert_eq!(signer.count(Call::Pubkeys), 0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_a_caller_that_has_gone_is_passed_over() {
    let (sender, connector) = ends();
    let (near, far) = duplex(4096);
    sender.send(near).unwrap();
    let mut signer = Raw(far);
    let hello = good_hello();
    let (hsm, ()) = tokio::join!(connect(connector), signer.answer_hello(&hello));
    assert!(timeout(Duration::from_millis(5), hsm.channel(reference(1))).await.is_err());
    let gone = id_of(&signer.receive().await.unwrap());
    let answering = async {
        let id = id_of(&signer.receive().await.unwrap());
        signer.send(&reply(gone, 130, &[])).await;
        signer.send(&reply(id, 130, &[])).await;
    };
    let (answer, ()) = tokio::join!(hsm.channel(reference(2)), answering);
    answer.map(|_| ()).unwrap();
    hsm.health().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_while_the_signer_is_away_is_not_made_when_it_comes_back() {
    let (sender, connector) = ends();
    let connecting = connect(connector);
    let first = crate::world::serve_once(&sender, Scripted::new(|_| Fate::Go));
    let (hsm, first) = tokio::join!(connecting, first);
    first.abort();
    sleep(Duration::from_millis(10)).await;
    assert!(timeout(Duration::from_millis(5), hsm.channel(reference(1))).await.is_err());
    let back = Scripted::new(|_| Fate::Go);
    let _second = crate::world::serve_once(&sender, back.clone()).await;
    hsm.channel(reference(2)).await.map(|_| ()).unwrap();
    assert_eq!(*back.calls.lock().unwrap(), [(Call::Channel, 2)]);
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_after_it_was_sent_is_not_sent_again_after_a_break() {
    let (sender, connector) = ends();
    let connecting = connect(connector);
    let slow = Scripted::new(|_| Fate::After(Duration::from_secs(1)));
    let first = crate::world::serve_once(&sender, slow.clone());
    let (hsm, first) = tokio::join!(connecting, first);
    assert!(timeout(Duration::from_millis(5), hsm.channel(reference(1))).await.is_err());
    assert_eq!(*slow.calls.lock().unwrap(), [(Call::Channel, 1)]);
    first.abort();
    sleep(Duration::from_millis(10)).await;
    let back = Scripted::new(|_| Fate::Go);
    let _second = crate::world::serve_once(&sender, back.clone()).await;
    hsm.channel(reference(2)).await.map(|_| ()).unwrap();
    assert_eq!(*back.calls.lock().unwrap(), [(Call::Channel, 2)]);
}

/// The next connection would not know that it depends on anything, and a blind signer would sign as
/// fundee what nobody validated.
#[tokio::test(start_paused = true)]
async fn what_depends_on_a_call_that_was_dropped_is_not_sent_after_a_break() {
    let (sender, connector) = ends();
    let connecting = connect(connector);
    let slow = Scripted::new(|call| match call {
        Call::Setup => Fate::After(Duration::from_secs(1)),
        _ => Fate::Go,
    });
    let first = crate::world::serve_once(&sender, slow.clone());
    let (hsm, first) = tokio::join!(connecting, first);
    let channel = hsm.channel(reference(1)).await.unwrap();
    let opening = Opening::new(&*channel, 1).await;
    let request = opening.request(&opening.theirs);
    let mut signing = {
        let mut setup = pin!(channel.setup(&opening.setup));
        let mut signing = Box::pin(channel.sign_counterparty_commitment(&request));
        let polled = timeout(TRIP, futures::future::join(&mut setup, &mut signing)).await;
        assert!(polled.is_err() && slow.count(Call::Setup) == 1);
        signing
        // Whoever set up goes, and whoever signs stays.
    };
    first.abort();
    sleep(Duration::from_millis(10)).await;
    let back = Scripted::new(|_| Fate::Go);
    let _second = crate::world::serve_once(&sender, back.clone()).await;
    assert_eq!((&mut signing).await.unwrap_err().code(), "signer-indeterminate");
    hsm.channel(reference(2)).await.map(|_| ()).unwrap();
    assert_eq!(*back.calls.lock().unwrap(), [(Call::Channel, 2)]);
    // By itself it may be asked for again.
    opening.fund(&*channel).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_call_does_not_depend_on_one_whose_caller_has_gone() {
    let times = AtomicUsize::new(0);
    // The first setup is deferred, after its caller has gone; the next is good.
    let signer = Scripted::new(move |call| match call {
        Call::Setup if times.fetch_add(1, Ordering::SeqCst) == 0 => Fate::DeferAfter(TRIP),
        _ => Fate::After(TRIP),
    });
    let world = World::new(vec![signer.clone()]).await;
    let channel = world.hsm.channel(reference(1)).await.unwrap();
    let opening = Opening::new(&*channel, 1).await;
    assert!(timeout(TRIP / 2, opening.fund(&*channel)).await.is_err());
    assert_eq!(signer.count(Call::Setup), 1);
    // Joins the deferred one, and is told so; the driver asks again.
    assert_eq!(opening.fund(&*channel).await, Err(HsmError::Deferred));
    opening.fund(&*channel).await.unwrap();
}
