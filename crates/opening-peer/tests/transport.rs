//! Transports without encryption, and what every transport promises its owner: cancel safety, bounds, clean ends.

// Clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use bitcoin::secp256k1::{Secp256k1, SecretKey};
use opening_peer::transport::bolt8::EphemeralKey;
use opening_peer::transport::{Transport, framed, in_memory_pair, tcp};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufWriter, DuplexStream};
use tokio::net::TcpListener;

fn framed_and_stream(capacity: usize) -> (Transport, DuplexStream) {
    let (stream, peer) = tokio::io::duplex(capacity);
    (framed(stream), peer)
}

/// What `future` gives, unless it waits.  The clock of these tests is paused: nothing takes real time.
async fn within_a_millisecond<T>(future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(Duration::from_millis(1), future).await.ok()
}

#[tokio::test]
async fn a_frame_is_a_big_endian_length_and_the_message() {
    let (mut transport, mut peer) = framed_and_stream(1024);
    transport.writer.queue(&[0, 17, 7]).unwrap();
    transport.writer.queue(&[]).unwrap();
    transport.writer.flush().await.unwrap();
    let mut bytes = [0; 11];
    peer.read_exact(&mut bytes).await.unwrap();
    assert_eq!(bytes, [0, 0, 0, 3, 0, 17, 7, 0, 0, 0, 0]);
    peer.write_all(&bytes).await.unwrap();
    assert_eq!(transport.reader.read().await.unwrap().unwrap(), [0, 17, 7]);
    assert_eq!(transport.reader.read().await.unwrap().unwrap(), [0_u8; 0]);
}

#[tokio::test]
async fn a_pair_in_memory_carries_messages_both_ways() {
    let (mut one, mut other) = in_memory_pair();
    one.writer.queue(b"to the other").unwrap();
    other.writer.queue(b"to the one").unwrap();
    one.writer.flush().await.unwrap();
    other.writer.flush().await.unwrap();
    assert_eq!(one.reader.read().await.unwrap().unwrap(), b"to the one");
    assert_eq!(other.reader.read().await.unwrap().unwrap(), b"to the other");
    drop(one);
    assert!(other.reader.read().await.unwrap().is_none());
}

// req: B1-MSG-B-05
#[tokio::test(start_paused = true)]
async fn messages_of_65535_bytes_pass_and_longer_ones_are_refused_both_ways() {
    let (mut transport, mut peer) = framed_and_stream(1 << 20);
    let error = transport.writer.queue(&[1; 65536]).unwrap_err();
    assert_eq!(error.code(), "transport-message-too-long");
    assert_eq!(transport.writer.queued(), 0);
    transport.writer.queue(&[1; 65535]).unwrap();
    transport.writer.flush().await.unwrap();
    let mut frame = vec![0; 4 + 65535];
    peer.read_exact(&mut frame).await.unwrap();
    peer.write_all(&frame).await.unwrap();
    assert_eq!(transport.reader.read().await.unwrap().unwrap().len(), 65535);

    // The length alone is enough to know: nothing is waited for, nothing reserved.
    for announced in [65536_u32, u32::MAX] {
        let (mut transport, mut peer) = framed_and_stream(1024);
        peer.write_all(&announced.to_be_bytes()).await.unwrap();
        let error = within_a_millisecond(transport.reader.read()).await.unwrap().unwrap_err();
        assert_eq!(error.code(), "transport-frame-too-long");
        assert!(error.to_string().contains(&announced.to_string()));
        assert_eq!(transport.reader.read().await.unwrap_err().code(), "transport-already-failed");
    }
}

#[tokio::test]
async fn an_end_inside_a_frame_is_an_error_and_between_frames_is_none() {
    let frames = [0, 0, 0, 2, 7, 7, 0, 0, 0, 1, 7];
    for length in 0..=frames.len() {
        let (mut transport, mut peer) = framed_and_stream(1024);
        peer.write_all(&frames[..length]).await.unwrap();
        drop(peer);
        for _ in 0..[6, 11].iter().filter(|end| length >= **end).count() {
            assert!(transport.reader.read().await.unwrap().is_some());
        }
        match transport.reader.read().await {
            Ok(end) => assert!(end.is_none() && [0, 6, 11].contains(&length)),
            Err(error) => {
                assert!(![0, 6, 11].contains(&length));
                assert_eq!(error.code(), "transport-end-inside-frame");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_dropped_at_any_byte_loses_nothing() {
    let (mut transport, mut peer) = framed_and_stream(1024);
    let frame: Vec<u8> = [&[0, 0, 0, 9][..], b"unhurried"].concat();
    for byte in &frame[..frame.len() - 1] {
        peer.write_all(&[*byte]).await.unwrap();
        assert!(within_a_millisecond(transport.reader.read()).await.is_none());
    }
    peer.write_all(&frame[frame.len() - 1..]).await.unwrap();
    assert_eq!(transport.reader.read().await.unwrap().unwrap(), b"unhurried");
}

#[tokio::test(start_paused = true)]
async fn a_flush_dropped_at_any_byte_goes_on_where_it_was() {
    let frame = |message: &[u8]| [&(message.len() as u32).to_be_bytes()[..], message].concat();
    for position in 0..frame(b"first").len() + frame(b"second").len() {
        let (mut transport, mut peer) = framed_and_stream(1);
        transport.writer.queue(b"first").unwrap();
        transport.writer.queue(b"second").unwrap();
        let mut expected = [frame(b"first"), frame(b"second")].concat();
        let mut received = Vec::new();
        while transport.writer.needs_flush() {
            let flushed = within_a_millisecond(transport.writer.flush()).await;
            assert_eq!(flushed.is_some(), !transport.writer.needs_flush());
            // More may be queued at any time, behind a half-written frame too.
            if received.len() == position {
                transport.writer.queue(b"third").unwrap();
                expected.extend(frame(b"third"));
            }
            received.push(peer.read_u8().await.unwrap());
            assert_eq!(received.len() + transport.writer.queued(), expected.len());
        }
        assert_eq!(received, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_stream_holds_back_still_needs_a_flush() {
    let (stream, mut peer) = tokio::io::duplex(1024);
    let (_, mut writer) = framed(BufWriter::new(stream)).split();
    assert!(!writer.needs_flush());
    writer.queue(b"held").unwrap();
    assert!(writer.needs_flush());
    writer.flush().await.unwrap();
    assert!(!writer.needs_flush());
    let mut frame = [0; 8];
    within_a_millisecond(peer.read_exact(&mut frame)).await.unwrap().unwrap();
    assert_eq!(&frame[4..], b"held");
}

#[tokio::test(start_paused = true)]
async fn close_sends_what_is_queued_and_ends_our_direction_only() {
    let (mut transport, mut peer) = framed_and_stream(1024);
    transport.writer.queue(b"bye").unwrap();
    transport.writer.close().await.unwrap();
    let mut bytes = Vec::new();
    within_a_millisecond(peer.read_to_end(&mut bytes)).await.unwrap().unwrap();
    assert_eq!(bytes, [&[0, 0, 0, 3][..], b"bye"].concat());
    peer.write_all(&[0, 0, 0, 1, 9]).await.unwrap();
    assert_eq!(transport.reader.read().await.unwrap().unwrap(), [9]);
}

#[tokio::test]
async fn a_lost_peer_fails_the_writer_for_good() {
    let (mut transport, peer) = framed_and_stream(1024);
    drop(peer);
    transport.writer.queue(b"anyone?").unwrap();
    assert_eq!(transport.writer.flush().await.unwrap_err().code(), "transport-io");
    assert_eq!(transport.writer.queue(b"anyone?").unwrap_err().code(), "transport-already-failed");
    assert_eq!(transport.writer.flush().await.unwrap_err().code(), "transport-already-failed");
}

#[tokio::test]
async fn nodes_meet_over_tcp() {
    let limit = Duration::from_secs(10);
    let (ours, theirs) =
        (SecretKey::from_slice(&[1; 32]).unwrap(), SecretKey::from_slice(&[2; 32]).unwrap());
    let secp = Secp256k1::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (connected, accepted) = tokio::join!(
        tcp::connect(address, &ours, theirs.public_key(&secp), EphemeralKey::random(), limit),
        async {
            let (stream, _) = listener.accept().await.unwrap();
            tcp::accept(stream, &theirs, EphemeralKey::random(), limit).await
        }
    );
    let (mut connected, (mut accepted, who)) = (connected.unwrap(), accepted.unwrap());
    assert_eq!(who, ours.public_key(&secp));
    connected.writer.queue(&[7; 65535]).unwrap();
    let (flushed, received) = tokio::join!(connected.writer.flush(), accepted.reader.read());
    flushed.unwrap();
    assert_eq!(received.unwrap().unwrap(), [7; 65535]);
    drop(listener);

    let refused =
        tcp::connect(address, &ours, theirs.public_key(&secp), EphemeralKey::random(), limit).await;
    assert_eq!(refused.err().unwrap().code(), "handshake-io");
}
