//! Nodes that send too much, or nonsense.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bitcoin::constants::ChainHash;
use opening_signer::remote::{EnvelopeServer, LinkError};
use opening_signer::{Call, Hsm};
use tokio::io::{AsyncWriteExt, duplex};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

use crate::raw::{Raw, id_of, node_hello, request};
use crate::world::{Fate, Scripted, Shared, World, reference};

type Served = JoinHandle<Result<(), LinkError>>;

fn serve(signer: Arc<Scripted>) -> (Raw, Served, oneshot::Sender<()>) {
    let (near, far) = duplex(1 << 16);
    let (stop, stopped) = oneshot::channel();
    let server = EnvelopeServer::new(Arc::new(Shared(signer)), ChainHash::REGTEST);
    let stopped = async {
        if stopped.await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let served = tokio::spawn(async move { server.serve(far, stopped).await });
    (Raw(near), served, stop)
}

fn never() -> Arc<Scripted> {
    Scripted::new(|_| Fate::After(Duration::from_secs(1 << 30)))
}

#[tokio::test(start_paused = true)]
async fn more_requests_than_the_hello_allows_close_the_connection() {
    let signer = never();
    let (mut node, served, _stop) = serve(signer.clone());
    node.greet().await;
    for id in 1..=4112 {
        node.send(&request(id, id, 10, &[])).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!served.is_finished());
    node.send(&request(4113, 4113, 10, &[])).await;
    assert_eq!(served.await.unwrap(), Err(LinkError::TooManyRequests(4096)));
    assert_eq!(signer.most_at_once.load(Ordering::SeqCst), 4112);
}

#[tokio::test(start_paused = true)]
async fn our_node_keeps_to_what_the_hello_allows() {
    let signer = Scripted::new(|call| match call {
        Call::Channel => Fate::Go,
        _ => Fate::After(Duration::from_millis(5)),
    });
    let world = World::new(vec![signer.clone()]).await;
    let hsm = Arc::new(world.hsm);
    let mut calls = JoinSet::new();
    for dbid in 1..=6000 {
        let hsm = Arc::clone(&hsm);
        calls.spawn(async move {
            hsm.channel(reference(dbid)).await.unwrap().per_commitment_point(0).await.unwrap()
        });
    }
    assert_eq!(calls.join_all().await.len(), 6000);
    assert!(signer.most_at_once.load(Ordering::SeqCst) <= 4096);
    hsm.health().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_channel_with_too_many_requests_is_told_so_and_the_others_go_on() {
    let (mut node, _served, _stop) = serve(Scripted::new(|call| match call {
        Call::PerCommitmentPoint => Fate::After(Duration::from_millis(5)),
        _ => Fate::Go,
    }));
    node.greet().await;
    // One runs, 64 wait.
    for id in 1..=66 {
        node.send(&request(id, 1, 18, &id.to_be_bytes())).await;
    }
    node.send(&request(67, 2, 30, &[])).await;
    let refused = node.receive().await.unwrap();
    assert_eq!((refused[1], refused[9], refused[10]), (5, 66, 1));
    assert_eq!(node.receive().await.unwrap()[9], 67);
    for id in 1..=65 {
        assert_eq!(
            node.receive().await.unwrap()[1..10],
            [[4].as_slice(), &u64::to_be_bytes(id)].concat()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_takes_no_answers_is_closed_after_a_while() {
    let (mut node, served, _stop) = serve(Scripted::new(|_| Fate::Go));
    node.greet().await;
    for id in 1..=4000 {
        node.send(&request(id, id % 100 + 1, 10, &[])).await;
    }
    let closed = served.await.unwrap().unwrap_err();
    assert_eq!(closed.code(), "link-silent");
}

#[tokio::test(start_paused = true)]
async fn nonsense_closes_the_connection_with_a_code() {
    let good = request(1, 1, 10, &[]);
    let mut after_itself = good.clone();
    after_itself[66] = 1;
    after_itself[67..75].copy_from_slice(&1u64.to_be_bytes());
    let nonsense: [&[u8]; 8] = [
        &[],
        &[0],
        &[0, 9],
        &good[..good.len() - 1],
        &[&good[..], &[0]].concat(),
        &request(0, 1, 10, &[]),
        &request(1, 1, 11, &[]),
        &after_itself,
    ];
    for message in nonsense {
        let (mut node, served, _stop) = serve(Scripted::new(|_| Fate::Go));
        node.greet().await;
        node.send(message).await;
        assert_eq!(served.await.unwrap().unwrap_err().code(), "link-malformed", "{message:?}");
        assert!(node.is_closed().await);
    }
}

#[tokio::test(start_paused = true)]
async fn an_oversize_frame_is_not_even_read() {
    let (mut node, served, _stop) = serve(Scripted::new(|_| Fate::Go));
    node.greet().await;
    node.bytes(&[0, 2, 0, 1]).await;
    assert_eq!(served.await.unwrap().unwrap_err().code(), "link-malformed");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_node_is_closed() {
    let cases: [(Vec<u8>, &str); 5] = [
        (node_hello(2, 9, ChainHash::REGTEST), "link-version"),
        (node_hello(1, 1, ChainHash::BITCOIN), "link-chain"),
        (b"GET / HTTP/1.1".to_vec(), "link-malformed"),
        (request(1, 1, 10, &[]), "link-malformed"),
        (node_hello(1, 1, ChainHash::REGTEST)[..20].to_vec(), "link-malformed"),
    ];
    for (hello, code) in cases {
        let (mut node, served, _stop) = serve(Scripted::new(|_| Fate::Go));
        node.send(&hello).await;
        let closed = served.await.unwrap().unwrap_err();
        assert_eq!(closed.code(), code, "{closed}");
    }
    let (mut node, served, _stop) = serve(Scripted::new(|_| Fate::Go));
    node.bytes(&[0]).await;
    assert_eq!(served.await.unwrap().unwrap_err(), LinkError::Silent("no hello"));
}

#[tokio::test(start_paused = true)]
async fn a_repeated_request_joins_the_one_under_way() {
    let signer = Scripted::new(|_| Fate::After(Duration::from_millis(5)));
    let (mut node, _served, _stop) = serve(signer.clone());
    node.greet().await;
    let first = request(1, 1, 10, &[]);
    let mut again = first.clone();
    again[2..10].copy_from_slice(&2u64.to_be_bytes());
    node.send(&first).await;
    node.send(&again).await;
    let (one, two) = (node.receive().await.unwrap(), node.receive().await.unwrap());
    assert_eq!((one[9], two[9]), (1, 2));
    assert_eq!(one[10..], two[10..]);
    assert_eq!(signer.count(Call::Pubkeys), 1);
    // Later it is carried out again.
    node.send(&first).await;
    assert_eq!(node.receive().await.unwrap(), one);
    assert_eq!(signer.count(Call::Pubkeys), 2);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stops_answers_what_is_under_way_and_begins_nothing() {
    let signer = Scripted::new(|_| Fate::After(Duration::from_millis(5)));
    let (mut node, served, stop) = serve(signer.clone());
    node.greet().await;
    node.send(&request(1, 1, 30, &[])).await;
    node.send(&request(2, 1, 10, &[])).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    stop.send(()).unwrap();
    assert_eq!(node.receive().await.unwrap()[9], 1);
    assert_eq!(node.receive().await, None);
    served.await.unwrap().unwrap();
    assert_eq!(signer.calls.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_signer_that_panics_answers_and_goes_on() {
    let signer = Scripted::new(|call| match call {
        Call::Pubkeys => panic!("scripted"),
        _ => Fate::Go,
    });
    let (mut node, _served, _stop) = serve(signer);
    node.greet().await;
    node.send(&request(1, 1, 10, &[])).await;
    node.send(&request(2, 1, 30, &[])).await;
    let failed = node.receive().await.unwrap();
    assert_eq!((failed[1], failed[9], failed[10]), (5, 1, 2));
    let done = node.receive().await.unwrap();
    assert_eq!((done[1], done[9]), (4, 2));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_closes_in_the_middle_ends_the_connection() {
    let (mut node, served, _stop) = serve(never());
    node.greet().await;
    node.send(&request(1, 1, 10, &[])).await;
    assert_eq!(id_of(&request(1, 1, 10, &[])), 1);
    node.0.write_all(&[0, 0]).await.unwrap();
    drop(node);
    assert_eq!(served.await.unwrap().unwrap_err().code(), "link-lost");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_does_not_even_ping_is_closed() {
    let (mut node, served, _stop) = serve(never());
    node.greet().await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(59)).await;
        node.send(&[0, 6, 0, 0, 0, 0, 0, 0, 0, 1]).await;
        assert_eq!(node.receive().await.unwrap(), [0, 7, 0, 0, 0, 0, 0, 0, 0, 1]);
    }
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(served.await.unwrap().unwrap_err().code(), "link-silent");
}

#[tokio::test(start_paused = true)]
async fn a_channel_has_one_request_under_way_whatever_connection_it_came_by() {
    let signer = Scripted::new(|_| Fate::After(Duration::from_millis(5)));
    let server = EnvelopeServer::new(Arc::new(Shared(signer.clone())), ChainHash::REGTEST);
    let server = Arc::new(server);
    let mut nodes = Vec::new();
    for _ in 0..3 {
        let (near, far) = duplex(4096);
        let server = Arc::clone(&server);
        tokio::spawn(async move { server.serve(far, std::future::pending()).await });
        let mut node = Raw(near);
        node.greet().await;
        node.send(&request(1, 1, 30, &[])).await;
        nodes.push(node);
    }
    for node in &mut nodes {
        assert_eq!(node.receive().await.unwrap()[1], 4);
    }
    assert_eq!(signer.count(Call::Channel), 3);
    assert_eq!(signer.most_at_once.load(Ordering::SeqCst), 1);
}
