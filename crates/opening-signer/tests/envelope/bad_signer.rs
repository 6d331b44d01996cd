//! What comes from the signer and is not an answer.

use std::time::Duration;

use bitcoin::constants::ChainHash;
use opening_signer::remote::{EnvelopeOptions, EnvelopedHsm};
use opening_signer::{ChannelHsm, Hsm, HsmError, Verified};
use tokio::io::duplex;

use crate::raw::{Raw, good_hello, id_of, info, reply, signer_hello};
use crate::world::{Ends, Opening, Scripted, World, connect, ends, options, reference};

/// A node, and its signer's end by hand.
async fn by_hand() -> (Verified<EnvelopedHsm>, Raw) {
    let (sender, connector) = ends();
    let (near, far) = duplex(1 << 16);
    sender.send(near).unwrap();
    // Nobody answers a second connection.
    std::mem::forget(sender);
    let mut signer = Raw(far);
    let hello = good_hello();
    let (hsm, ()) = tokio::join!(connect(connector), signer.answer_hello(&hello));
    (hsm, signer)
}

async fn answered_with(bytes: impl FnOnce(u64) -> Vec<u8>) -> HsmError {
    let (hsm, mut signer) = by_hand().await;
    let answering = async {
        let id = id_of(&signer.receive().await.unwrap());
        signer.bytes(&bytes(id)).await;
        assert!(signer.is_closed().await);
    };
    let (answer, ()) = tokio::join!(hsm.channel(reference(1)), answering);
    let health = hsm.health().unwrap_err();
    assert!(health.to_string().contains("link-malformed"), "{health}");
    answer.map(|_| ()).unwrap_err()
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap();
    [&length.to_be_bytes()[..], message].concat()
}

#[tokio::test(start_paused = true)]
async fn what_is_no_answer_is_a_protocol_error() {
    let cases: [fn(u64) -> Vec<u8>; 10] = [
        |_| framed(&[]),
        |_| framed(&[0, 99]),
        |id| framed(&reply(id, 110, &[2; 165])),
        |id| framed(&reply(id, 130, &[0])),
        |id| framed(&reply(id, 30, &[])),
        |id| framed(&reply(id, 131, &[])),
        |id| framed(&reply(id, 199, &[])),
        |id| framed(&reply(id + 1, 130, &[])),
        |id| framed(&reply(id, 130, &[])[..11]),
        |_| vec![0, 2, 0, 1],
    ];
    for (index, bytes) in cases.into_iter().enumerate() {
        let error = answered_with(bytes).await;
        assert!(matches!(error, HsmError::Protocol(_)), "{index}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_answer_to_one_request_is_a_protocol_error() {
    let (hsm, mut signer) = by_hand().await;
    let answering = async {
        let id = id_of(&signer.receive().await.unwrap());
        signer.send(&reply(id, 130, &[])).await;
        signer.send(&reply(id, 130, &[])).await;
        assert!(signer.is_closed().await);
    };
    let (answer, ()) = tokio::join!(hsm.channel(reference(1)), answering);
    answer.map(|_| ()).unwrap();
    hsm.health().unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_signature_that_does_not_verify_is_a_protocol_error() {
    let quiet = World::new(vec![Scripted::new(|_| crate::world::Fate::Go)]).await;
    let elsewhere = quiet.hsm.channel(reference(1)).await.unwrap();
    let opening = Opening::new(&*elsewhere, 1).await;
    let (hsm, mut signer) = by_hand().await;
    let answering = async {
        for number in [130, 119] {
            let id = id_of(&signer.receive().await.unwrap());
            let body = if number == 130 {
                vec![]
            } else {
                opening.their_signature.serialize_compact().to_vec()
            };
            signer.send(&reply(id, number, &body)).await;
        }
    };
    let asking = async {
        let channel = hsm.channel(reference(1)).await.unwrap();
        channel.sign_counterparty_commitment(&opening.request(&opening.theirs)).await
    };
    let (answer, ()) = tokio::join!(asking, answering);
    assert!(matches!(answer, Err(HsmError::Protocol(_))), "{answer:?}");
    // That is about the signer's answer, not about the wire.
    hsm.health().unwrap();
}

async fn refused(hello: Vec<u8>) -> HsmError {
    let (sender, connector) = ends();
    let (near, far) = duplex(4096);
    sender.send(near).unwrap();
    let mut signer = Raw(far);
    let (connected, ()) =
        tokio::join!(EnvelopedHsm::connect(connector, options()), signer.answer_hello(&hello));
    connected.map(|_| ()).unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn versions_and_chains_that_differ_are_named_at_once() {
    let begun = tokio::time::Instant::now();
    let error = refused(signer_hello(2, 3, ChainHash::REGTEST, 100)).await;
    let text = error.to_string();
    assert!(text.contains("link-version") && text.contains("2 to 3"), "{text}");
    let error = refused(signer_hello(1, 1, ChainHash::BITCOIN, 100)).await;
    let text = error.to_string();
    assert!(text.contains("link-chain"), "{text}");
    assert!(text.contains(&ChainHash::BITCOIN.to_string()), "{text}");
    assert!(text.contains(&ChainHash::REGTEST.to_string()), "{text}");
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_hello_that_is_none_is_tried_again_until_the_deadline() {
    let mut trailing = good_hello();
    trailing.push(0);
    let cases =
        [trailing, good_hello()[..50].to_vec(), signer_hello(1, 1, ChainHash::REGTEST, 7), vec![]];
    for hello in cases {
        let error = refused(hello).await;
        assert!(matches!(error, HsmError::Unavailable(_)), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_link_is_noticed_though_nobody_calls() {
    let (hsm, mut signer) = by_hand().await;
    assert_eq!(hsm.info(), info());
    let ping = signer.receive().await.unwrap();
    assert_eq!(ping, [0, 6, 0, 0, 0, 0, 0, 0, 0, 1]);
    signer.send(&[0, 7, 0, 0, 0, 0, 0, 0, 0, 1]).await;
    hsm.health().unwrap();
    tokio::time::sleep(Duration::from_secs(31)).await;
    let health = hsm.health().unwrap_err();
    assert!(health.to_string().contains("link-silent"), "{health}");
}

/// Whether the calls of this connector end within the deadline that was given.
async fn within(connector: Ends, deadline: Duration) -> HsmError {
    let options = EnvelopeOptions { deadline, ..options() };
    EnvelopedHsm::connect(connector, options).await.map(|_| ()).unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn without_a_signer_connecting_ends_at_the_deadline() {
    let (_sender, connector) = ends();
    let begun = tokio::time::Instant::now();
    let error = within(connector, Duration::from_secs(20)).await;
    assert!(matches!(error, HsmError::Unavailable(_)), "{error}");
    assert_eq!(begun.elapsed().as_secs(), 20);
}

#[tokio::test(start_paused = true)]
async fn a_signer_that_never_answers_leaves_the_call_indeterminate() {
    let (hsm, mut signer) = by_hand().await;
    let pongs = async {
        loop {
            let mut message = signer.receive().await.unwrap();
            if message[1] == 6 {
                message[1] = 7;
                signer.send(&message).await;
            }
        }
    };
    let channel = tokio::select! {
        answer = hsm.channel(reference(1)) => answer.map(|_: std::sync::Arc<dyn ChannelHsm>| ()),
        () = pongs => unreachable!(),
    };
    assert!(matches!(channel, Err(HsmError::Indeterminate(_))), "{channel:?}");
    hsm.health().unwrap();
}
