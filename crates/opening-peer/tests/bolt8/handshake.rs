//! Handshakes that go well in unusual ways, and all the ways in which they can go wrong.

use std::time::Duration;

use opening_peer::transport::bolt8::{
    self, ACT_ONE_LENGTH, ACT_THREE_LENGTH, ACT_TWO_LENGTH, Ciphers, HandshakeError, WaitForActOne,
    WaitForActThree, WaitForActTwo, initiate,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    INITIATOR, INITIATOR_EPHEMERAL, LIMIT, RESPONDER, RESPONDER_EPHEMERAL, ephemeral,
    initiator_and_stream, node_id, responder_and_stream, secret, transports, vectors, written,
};

/// Keys that are none: wrong prefixes, and x coordinates without a point (0, 5) or beyond the field.
fn bad_keys() -> Vec<[u8; 33]> {
    let key = |prefix: u8, last: u8| {
        let mut key = [0; 33];
        (key[0], key[32]) = (prefix, last);
        key
    };
    let mut keys = vec![key(2, 0), key(3, 0), key(2, 5), key(3, 5), [0xff; 33]];
    for prefix in [0x00, 0x01, 0x04, 0x05, 0x06, 0x07] {
        let mut good_x = node_id(INITIATOR).serialize();
        good_x[0] = prefix;
        keys.push(good_x);
    }
    let mut beyond_field = [0xff; 33];
    beyond_field[0] = 2;
    keys.push(beyond_field);
    keys
}

fn act_one() -> [u8; ACT_ONE_LENGTH] {
    initiate(&secret(INITIATOR), node_id(RESPONDER), ephemeral(INITIATOR_EPHEMERAL)).0
}

fn to_act_two() -> ([u8; ACT_TWO_LENGTH], WaitForActThree) {
    let ours = secret(RESPONDER);
    WaitForActOne::new(&ours, ephemeral(RESPONDER_EPHEMERAL)).act_one(&act_one()).unwrap()
}

fn to_act_three() -> [u8; ACT_THREE_LENGTH] {
    answer_act_two(&to_act_two().0).unwrap().0
}

fn answer_act_one(
    act: &[u8; ACT_ONE_LENGTH],
) -> Result<([u8; ACT_TWO_LENGTH], WaitForActThree), HandshakeError> {
    let ours = secret(RESPONDER);
    WaitForActOne::new(&ours, ephemeral(RESPONDER_EPHEMERAL)).act_one(act)
}

fn answer_act_two(
    act: &[u8; ACT_TWO_LENGTH],
) -> Result<([u8; ACT_THREE_LENGTH], Ciphers), HandshakeError> {
    let ours = secret(INITIATOR);
    let (_, state): (_, WaitForActTwo<'_>) =
        initiate(&ours, node_id(RESPONDER), ephemeral(INITIATOR_EPHEMERAL));
    state.act_two(act)
}

/// What a responder says and writes who is sent `bytes`, the stream staying open.
async fn accept_bytes(bytes: &[u8]) -> (Option<HandshakeError>, Vec<u8>) {
    let (stream, mut peer) = tokio::io::duplex(1024);
    peer.write_all(bytes).await.unwrap();
    let outcome =
        bolt8::accept(stream, &secret(RESPONDER), ephemeral(RESPONDER_EPHEMERAL), LIMIT).await;
    (outcome.err(), written(&mut peer).await)
}

/// The same of an initiator.
async fn connect_bytes(bytes: &[u8]) -> (Option<HandshakeError>, Vec<u8>) {
    let (stream, mut peer) = tokio::io::duplex(1024);
    peer.write_all(bytes).await.unwrap();
    let ours = secret(INITIATOR);
    let outcome =
        bolt8::connect(stream, &ours, node_id(RESPONDER), ephemeral(INITIATOR_EPHEMERAL), LIMIT)
            .await;
    (outcome.err(), written(&mut peer).await)
}

// req: B8-HS-B-08
#[test]
fn acts_have_fixed_sizes_and_begin_with_version_zero() {
    let (act_one, act_two, act_three) = (act_one(), to_act_two().0, to_act_three());
    assert_eq!((act_one.len(), act_two.len(), act_three.len()), (50, 50, 66));
    assert_eq!((act_one[0], act_two[0], act_three[0]), (0, 0, 0));
}

// req: B8-HS-B-03, B8-HS-R-02, B8-HS-R-06, B8-HS-R-10
#[tokio::test]
async fn a_version_that_is_not_zero_ends_the_handshake() {
    for version in [1, 255] {
        let mut act = act_one();
        act[0] = version;
        let (error, replied) = accept_bytes(&act).await;
        assert_eq!(error.unwrap().to_string(), format!("ACT1_BAD_VERSION {version}"));
        assert!(replied.is_empty());

        let mut act = to_act_two().0;
        act[0] = version;
        let (error, replied) = connect_bytes(&act).await;
        assert_eq!(error.unwrap().to_string(), format!("ACT2_BAD_VERSION {version}"));
        assert_eq!(replied, act_one());

        let mut act = to_act_three();
        act[0] = version;
        let (error, replied) = accept_bytes(&[&act_one()[..], &act].concat()).await;
        let error = error.unwrap();
        assert_eq!(
            (error.code(), error.to_string()),
            ("handshake-bad-version", format!("ACT3_BAD_VERSION {version}"))
        );
        assert_eq!(replied, to_act_two().0);
    }
}

// req: B8-HS-R-03, B8-HS-R-07
#[tokio::test]
async fn an_ephemeral_key_that_is_no_point_ends_the_handshake() {
    for key in bad_keys() {
        let mut act = act_one();
        act[1..34].copy_from_slice(&key);
        let (error, replied) = accept_bytes(&act).await;
        let error = error.unwrap();
        assert_eq!(
            (error.code(), error.to_string()),
            ("handshake-bad-public-key", "ACT1_BAD_PUBKEY".into())
        );
        assert!(replied.is_empty());

        let mut act = to_act_two().0;
        act[1..34].copy_from_slice(&key);
        let (error, replied) = connect_bytes(&act).await;
        assert_eq!(error.unwrap().to_string(), "ACT2_BAD_PUBKEY");
        assert_eq!(replied, act_one());
    }
}

// req: B8-HS-B-13
#[test]
fn each_flipped_bit_of_each_act_ends_the_handshake() {
    for bit in 0..8 * ACT_ONE_LENGTH {
        let mut act = act_one();
        act[bit / 8] ^= 1 << (bit % 8);
        answer_act_one(&act).unwrap_err();
        let mut act = to_act_two().0;
        act[bit / 8] ^= 1 << (bit % 8);
        answer_act_two(&act).unwrap_err();
    }
    let good = to_act_three();
    for bit in 0..8 * ACT_THREE_LENGTH {
        let mut act = good;
        act[bit / 8] ^= 1 << (bit % 8);
        to_act_two().1.act_three(&act).unwrap_err();
    }
    to_act_two().1.act_three(&good).unwrap();
}

// req: B8-HS-B-13, B8-HS-R-04, B8-HS-R-08, B8-HS-R-11, B8-HS-R-13, B8-HS-S-02, B8-HS-S-04
#[tokio::test]
async fn after_a_flipped_byte_nothing_is_written_and_the_stream_is_closed() {
    for position in 0..ACT_ONE_LENGTH {
        let mut act = act_one();
        act[position] ^= 0xff;
        let (error, replied) = accept_bytes(&act).await;
        assert!(error.unwrap().to_string().starts_with("ACT1_BAD_"));
        assert!(replied.is_empty());

        let mut act = to_act_two().0;
        act[position] ^= 0xff;
        let (error, replied) = connect_bytes(&act).await;
        assert!(error.unwrap().to_string().starts_with("ACT2_BAD_"));
        assert_eq!(replied, act_one());
    }
    for position in 0..ACT_THREE_LENGTH {
        let mut act = to_act_three();
        act[position] ^= 0xff;
        let (error, replied) = accept_bytes(&[&act_one()[..], &act].concat()).await;
        let expected = match position {
            0 => "ACT3_BAD_VERSION 255",
            1..50 => "ACT3_BAD_CIPHERTEXT",
            _ => "ACT3_BAD_TAG",
        };
        assert_eq!(error.unwrap().to_string(), expected);
        assert_eq!(replied, to_act_two().0);
    }
}

// req: B8-HS-R-01, B8-HS-R-05, B8-HS-R-09
#[tokio::test]
async fn acts_may_arrive_byte_by_byte() {
    let (mut initiator, mut responder) = transports(1).await;
    initiator.writer.queue(b"after all").unwrap();
    let (flushed, received) = tokio::join!(initiator.writer.flush(), responder.reader.read());
    flushed.unwrap();
    assert_eq!(received.unwrap().unwrap(), b"after all");
}

// req: B8-HS-R-01, B8-HS-R-05, B8-HS-R-09
#[tokio::test]
async fn a_stream_that_ends_inside_an_act_is_a_failure() {
    async fn cut(bytes: &[u8], initiator: bool) -> String {
        let (stream, mut peer) = tokio::io::duplex(1024);
        peer.write_all(bytes).await.unwrap();
        peer.shutdown().await.unwrap();
        let error = if initiator {
            let ours = secret(INITIATOR);
            bolt8::connect(stream, &ours, node_id(RESPONDER), ephemeral(INITIATOR_EPHEMERAL), LIMIT)
                .await
                .err()
        } else {
            bolt8::accept(stream, &secret(RESPONDER), ephemeral(RESPONDER_EPHEMERAL), LIMIT)
                .await
                .err()
        };
        error.unwrap().to_string()
    }
    for length in 0..50 {
        assert_eq!(cut(&act_one()[..length], false).await, "ACT1_READ_FAILED");
        assert_eq!(cut(&to_act_two().0[..length], true).await, "ACT2_READ_FAILED");
    }
    let acts = [&act_one()[..], &to_act_three()].concat();
    for length in 50..116 {
        assert_eq!(cut(&acts[..length], false).await, "ACT3_READ_FAILED");
    }
}

// req: B8-HS-R-09
#[tokio::test]
async fn what_follows_act_three_at_once_is_the_first_message() {
    let vectors = vectors::all();
    let (stream, mut peer) = tokio::io::duplex(1024);
    let acts = [&act_one()[..], &to_act_three()].concat();
    let first_message = vectors::bytes(&vectors["message_encryption"]["outputs"]["0"]);
    peer.write_all(&[acts, first_message].concat()).await.unwrap();
    let (mut transport, _) =
        bolt8::accept(stream, &secret(RESPONDER), ephemeral(RESPONDER_EPHEMERAL), LIMIT)
            .await
            .unwrap();
    assert_eq!(transport.reader.read().await.unwrap().unwrap(), b"hello");
}

// req: B8-HS-B-01, B8-HS-S-04
#[tokio::test(start_paused = true)]
async fn no_message_leaves_before_the_handshake_is_complete() {
    let (stream, mut peer) = tokio::io::duplex(1024);
    let connecting = tokio::spawn(async move {
        let ours = secret(INITIATOR);
        let mut transport = bolt8::connect(
            stream,
            &ours,
            node_id(RESPONDER),
            ephemeral(INITIATOR_EPHEMERAL),
            LIMIT,
        )
        .await
        .unwrap();
        transport.writer.queue(b"hello").unwrap();
        transport.writer.flush().await.unwrap();
        transport
    });
    let mut act = [0; 50];
    peer.read_exact(&mut act).await.unwrap();
    assert_eq!(act, act_one());
    let nothing = tokio::time::timeout(LIMIT / 2, peer.read_u8()).await;
    assert!(nothing.is_err(), "act two is held back, and the initiator writes {nothing:?}");
    peer.write_all(&to_act_two().0).await.unwrap();
    let mut rest = [0; 66 + 39];
    peer.read_exact(&mut rest).await.unwrap();
    assert_eq!(rest[..66], to_act_three());
    let vectors = vectors::all();
    assert_eq!(rest[66..], vectors::bytes(&vectors["message_encryption"]["outputs"]["0"]));
    drop(connecting.await.unwrap());

    let (stream, mut peer) = tokio::io::duplex(1024);
    let accepting = tokio::spawn(async move {
        let ours = secret(RESPONDER);
        let (mut transport, _) =
            bolt8::accept(stream, &ours, ephemeral(RESPONDER_EPHEMERAL), LIMIT).await.unwrap();
        transport.writer.queue(b"hello").unwrap();
        transport.writer.flush().await.unwrap();
        transport
    });
    peer.write_all(&act_one()).await.unwrap();
    peer.read_exact(&mut act).await.unwrap();
    let nothing = tokio::time::timeout(LIMIT / 2, peer.read_u8()).await;
    assert!(nothing.is_err(), "act three is held back, and the responder writes {nothing:?}");
    peer.write_all(&to_act_three()).await.unwrap();
    let mut frame = [0; 39];
    peer.read_exact(&mut frame).await.unwrap();
    assert!(!frame.windows(5).any(|window| window == b"hello"));
    drop(accepting.await.unwrap());
}

// req: B8-HS-B-02
#[tokio::test]
async fn the_responders_key_is_known_beforehand_and_never_sent() {
    let another = node_id(0x42);
    let (act, _) = initiate(&secret(INITIATOR), another, ephemeral(INITIATOR_EPHEMERAL));
    let (error, replied) = accept_bytes(&act).await;
    let error = error.unwrap();
    assert_eq!((error.code(), error.to_string()), ("handshake-bad-tag", "ACT1_BAD_TAG".into()));
    assert!(replied.is_empty());

    let on_the_wire = [&act_one()[..], &to_act_two().0, &to_act_three()].concat();
    let x = &node_id(RESPONDER).serialize()[1..];
    assert!(!on_the_wire.windows(x.len()).any(|window| window == x));
}

// req: B8-HS-B-09
#[tokio::test]
async fn each_session_has_an_ephemeral_key_of_its_own() {
    let mut keys = Vec::new();
    for _ in 0..3 {
        let ours = secret(INITIATOR);
        let (act, _) = initiate(&ours, node_id(RESPONDER), bolt8::EphemeralKey::random());
        keys.push(act[1..34].to_vec());
        let theirs = secret(RESPONDER);
        let (act, _) =
            WaitForActOne::new(&theirs, bolt8::EphemeralKey::random()).act_one(&act).unwrap();
        keys.push(act[1..34].to_vec());
    }
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_left_at_the_limit() {
    for (sent, initiator) in [(vec![], true), (vec![], false), (act_one().to_vec(), false)] {
        let (stream, mut peer) = tokio::io::duplex(1024);
        peer.write_all(&sent).await.unwrap();
        let limit = Duration::from_secs(7);
        let begin = tokio::time::Instant::now();
        let error = if initiator {
            let ours = secret(INITIATOR);
            bolt8::connect(stream, &ours, node_id(RESPONDER), ephemeral(INITIATOR_EPHEMERAL), limit)
                .await
                .err()
        } else {
            bolt8::accept(stream, &secret(RESPONDER), ephemeral(RESPONDER_EPHEMERAL), limit)
                .await
                .err()
        };
        assert_eq!(error.unwrap().code(), "handshake-timed-out");
        assert_eq!(begin.elapsed().as_secs(), 7);
        written(&mut peer).await;
    }
}

#[tokio::test]
async fn both_ends_of_the_vectors_talk() {
    let (mut initiator, mut peer) = initiator_and_stream().await;
    initiator.writer.queue(b"hello").unwrap();
    initiator.writer.flush().await.unwrap();
    let mut frame = [0; 39];
    peer.read_exact(&mut frame).await.unwrap();
    let (mut responder, mut peer) = responder_and_stream().await;
    peer.write_all(&frame).await.unwrap();
    assert_eq!(responder.reader.read().await.unwrap().unwrap(), b"hello");
}
