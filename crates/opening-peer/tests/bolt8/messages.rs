//! Messages after the handshake: frames, keys, and what a damaged stream leads to.

use opening_peer::transport::{Transport, TransportError};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::{LIMIT, initiator_and_stream, responder_and_stream, transports, vectors, written};

/// The bytes of one frame of "hello".
const HELLO_FRAME: usize = 2 + 16 + 5 + 16;

/// Sends `message` from one to the other.
async fn deliver(message: &[u8], from: &mut Transport, to: &mut Transport) {
    from.writer.queue(message).unwrap();
    let (flushed, received) = tokio::join!(from.writer.flush(), to.reader.read());
    flushed.unwrap();
    assert!(received.unwrap().unwrap() == message);
}

/// The `count` first frames of the vectors' initiator, made by ours.
async fn hello_frames(count: usize) -> Vec<Vec<u8>> {
    let (mut initiator, mut peer) = initiator_and_stream().await;
    let mut frames = Vec::new();
    for _ in 0..count {
        initiator.writer.queue(b"hello").unwrap();
        initiator.writer.flush().await.unwrap();
        let mut frame = vec![0; HELLO_FRAME];
        peer.read_exact(&mut frame).await.unwrap();
        frames.push(frame);
    }
    frames
}

/// What a responder makes of `bytes` followed by the end of the stream: messages, then the end or an error.
async fn read_all(bytes: &[u8]) -> (Vec<Vec<u8>>, Option<TransportError>) {
    let (mut responder, mut peer) = responder_and_stream().await;
    peer.write_all(bytes).await.unwrap();
    peer.shutdown().await.unwrap();
    let mut messages = Vec::new();
    loop {
        match responder.reader.read().await {
            Ok(Some(message)) => messages.push(message),
            Ok(None) => return (messages, None),
            Err(error) => return (messages, Some(error)),
        }
    }
}

// req: B8-TR-B-02, B8-TR-B-05, B8-TR-B-09, B8-TR-S-02, B8-TR-S-03, B8-HS-B-15
#[tokio::test]
async fn the_message_vector_is_reproduced_across_both_rotations() {
    let vectors = vectors::all();
    let vector = &vectors["message_encryption"];
    let frames = hello_frames(1002).await;
    let outputs = vector["outputs"].as_object().unwrap();
    assert_eq!(outputs.len(), 6);
    for (number, output) in outputs {
        assert_eq!(
            frames[number.parse::<usize>().unwrap()],
            vectors::bytes(output),
            "output {number}"
        );
    }
    let (messages, error) = read_all(&frames.concat()).await;
    assert!(error.is_none());
    assert_eq!(messages, vec![b"hello".to_vec(); 1002]);
}

// req: B8-TR-R-02, B8-TR-R-04
#[tokio::test]
async fn frames_out_of_order_or_twice_are_refused() {
    let frames = hello_frames(2).await;
    let (messages, error) = read_all(&frames.concat()).await;
    assert_eq!((messages.len(), error.is_none()), (2, true));

    let (messages, error) = read_all(&frames[1]).await;
    assert!(messages.is_empty());
    assert!(matches!(error, Some(TransportError::BadLengthMac)));

    let (messages, error) = read_all(&[&frames[0][..], &frames[0]].concat()).await;
    assert_eq!(messages.len(), 1);
    assert!(matches!(error, Some(TransportError::BadLengthMac)));
}

// req: B8-TR-B-03, B8-TR-R-06
#[tokio::test]
async fn messages_of_every_kind_of_length_pass() {
    let (mut initiator, mut responder) = transports(1 << 16).await;
    for length in [0, 1, 2, 255, 256, 65535, 0, 1, 2, 3] {
        let message: Vec<u8> = (0..length).map(|index: u32| index as u8).collect();
        deliver(&message, &mut initiator, &mut responder).await;
        deliver(&message, &mut responder, &mut initiator).await;
    }
}

// req: B8-TR-B-03
#[tokio::test]
async fn the_largest_frame_has_65569_bytes() {
    let (mut initiator, _peer) = initiator_and_stream().await;
    initiator.writer.queue(&[1; 65535]).unwrap();
    assert_eq!(initiator.writer.queued(), 65569);
}

// req: B8-TR-S-01
#[tokio::test]
async fn a_message_of_65536_bytes_is_refused_and_changes_nothing() {
    let (mut initiator, mut peer) = initiator_and_stream().await;
    let error = initiator.writer.queue(&[1; 65536]).unwrap_err();
    assert_eq!(error.code(), "transport-message-too-long");
    assert_eq!((initiator.writer.queued(), initiator.writer.needs_flush()), (0, false));
    // The next message is the vectors' first: no nonce was used.
    initiator.writer.queue(b"hello").unwrap();
    initiator.writer.flush().await.unwrap();
    drop(initiator);
    assert_eq!(
        written(&mut peer).await,
        vectors::bytes(&vectors::all()["message_encryption"]["outputs"]["0"])
    );
}

// req: B8-TR-R-01, B8-TR-R-03
#[tokio::test]
async fn frames_may_arrive_byte_by_byte_or_together() {
    let (mut initiator, mut responder) = transports(1).await;
    for message in [&b"one"[..], b"", b"three"] {
        deliver(message, &mut initiator, &mut responder).await;
    }
    let frames = hello_frames(3).await.concat();
    for split in [1, 17, 18, 19, 38, 39, 40, 57, 117] {
        let (mut responder, mut peer) = responder_and_stream().await;
        let (first, second) = frames.split_at(split);
        peer.write_all(first).await.unwrap();
        let whole = split / HELLO_FRAME;
        for _ in 0..whole {
            assert_eq!(responder.reader.read().await.unwrap().unwrap(), b"hello");
        }
        peer.write_all(second).await.unwrap();
        for _ in whole..3 {
            assert_eq!(responder.reader.read().await.unwrap().unwrap(), b"hello");
        }
    }
}

// req: B8-TR-R-01, B8-TR-R-03
#[tokio::test]
async fn a_stream_that_ends_inside_a_frame_delivers_no_part_of_it() {
    let frames = hello_frames(2).await.concat();
    for length in 0..=frames.len() {
        let (messages, error) = read_all(&frames[..length]).await;
        assert_eq!(messages, vec![b"hello".to_vec(); length / HELLO_FRAME]);
        if length % HELLO_FRAME == 0 {
            assert!(error.is_none(), "an end between frames is a clean one");
        } else {
            assert_eq!(error.unwrap().code(), "transport-end-inside-frame");
        }
    }
}

// req: B8-TR-R-05
#[tokio::test(start_paused = true)]
async fn one_flipped_bit_anywhere_ends_the_reading_without_a_word() {
    let frames = hello_frames(2).await.concat();
    for position in 0..HELLO_FRAME {
        let mut bytes = frames.clone();
        bytes[position] ^= 1;
        let (mut responder, mut peer) = responder_and_stream().await;
        peer.write_all(&bytes).await.unwrap();
        let error = responder.reader.read().await.unwrap_err();
        let expected =
            if position < 18 { "transport-bad-length-mac" } else { "transport-bad-message-mac" };
        assert_eq!(error.code(), expected);
        // The good second frame is not looked at any more.
        let again = tokio::time::timeout(LIMIT, responder.reader.read()).await.unwrap();
        assert_eq!(again.unwrap_err().code(), "transport-already-failed");
        drop(responder);
        assert!(written(&mut peer).await.is_empty());
    }
}

// req: B8-TR-B-01
#[tokio::test]
async fn plaintext_is_neither_taken_nor_sent() {
    let plain = [&5_u16.to_be_bytes()[..], &[0; 16], b"hello", &[0; 16]].concat();
    let (messages, error) = read_all(&plain).await;
    assert!(messages.is_empty());
    assert_eq!(error.unwrap().code(), "transport-bad-length-mac");

    let (mut initiator, mut peer): (Transport, DuplexStream) = initiator_and_stream().await;
    let messages: Vec<Vec<u8>> =
        (8_usize..40).map(|length| (0..length).map(|index| index as u8).collect()).collect();
    for message in &messages {
        initiator.writer.queue(message).unwrap();
    }
    initiator.writer.flush().await.unwrap();
    drop(initiator);
    let sent = written(&mut peer).await;
    assert!(!sent.windows(8).any(|window| window == &messages[0][..]));
}

// req: B8-TR-B-06
#[tokio::test]
async fn the_directions_rotate_each_on_its_own() {
    let (mut initiator, mut responder) = transports(1 << 16).await;
    for _ in 0..501 {
        deliver(b"busy", &mut initiator, &mut responder).await;
    }
    deliver(b"quiet", &mut responder, &mut initiator).await;
    deliver(b"busy", &mut initiator, &mut responder).await;
    deliver(b"quiet", &mut responder, &mut initiator).await;
    for _ in 0..1100 {
        deliver(b"both", &mut responder, &mut initiator).await;
        deliver(b"both", &mut initiator, &mut responder).await;
    }
}
