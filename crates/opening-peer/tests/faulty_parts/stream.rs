//! A connection that goes wrong, byte by byte and call by call, and openings over it.

use std::io;
use std::time::Duration;

use bitcoin::secp256k1::SecretKey;
use futures::FutureExt;
use opening_peer::testing::Direction::{Read, Write};
use opening_peer::testing::clock::Deadline;
use opening_peer::testing::{Faults, FaultyStream, StreamFault, StreamFaults};
use opening_peer::transport::bolt8::{self, EphemeralKey};
use opening_peer::transport::framed;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use crate::common::node_id;
use crate::connect;
use crate::faulty::faulty_node;

const SECOND: Duration = Duration::from_secs(1);

fn faulty(faults: &StreamFaults) -> (FaultyStream<DuplexStream>, DuplexStream) {
    let (near, far) = duplex(64 * 1024);
    (FaultyStream::new(near, faults.clone()), far)
}

fn kind<T: std::fmt::Debug>(result: io::Result<T>) -> io::ErrorKind {
    result.unwrap_err().kind()
}

#[tokio::test]
async fn nothing_goes_wrong_unless_planned() {
    let faults = StreamFaults::none();
    let (mut near, mut far) = faulty(&faults);
    near.write_all(b"over there").await.unwrap();
    far.write_all(b"over here").await.unwrap();
    let mut bytes = [0; 100];
    assert_eq!(far.read(&mut bytes).await.unwrap(), 10);
    assert_eq!(near.read(&mut bytes).await.unwrap(), 9);
    assert_eq!((faults.bytes(Write), faults.calls(Write)), (10, 1));
    assert_eq!((faults.bytes(Read), faults.calls(Read)), (9, 1));
    assert!(faults.struck().now_or_never().is_none());
    far.shutdown().await.unwrap();
    assert_eq!(near.read(&mut bytes).await.unwrap(), 0);
    near.shutdown().await.unwrap();
    assert_eq!(far.read(&mut bytes).await.unwrap(), 0);
}

#[tokio::test]
async fn bytes_pass_in_pieces() {
    let faults = StreamFaults::none().pieces(Read, 2).pieces(Write, 3);
    let (mut near, mut far) = faulty(&faults);
    assert_eq!(near.write(b"seven!!").await.unwrap(), 3);
    near.write_all(b"en!!").await.unwrap();
    far.write_all(b"seven!!").await.unwrap();
    let mut bytes = [0; 100];
    for length in [2, 2, 2, 1] {
        assert_eq!(near.read(&mut bytes).await.unwrap(), length);
    }
    assert_eq!(far.read(&mut bytes).await.unwrap(), 7);
    assert_eq!(&bytes[..7], b"seven!!");
    assert_eq!((faults.calls(Read), faults.calls(Write)), (4, 3));
}

#[tokio::test(start_paused = true)]
async fn bytes_come_late() {
    for direction in [Read, Write] {
        let faults = StreamFaults::none().delay(direction, SECOND);
        let (near, far) = faulty(&faults);
        let (mut from, mut to): (Box<dyn Writes>, Box<dyn Reads>) = match direction {
            Read => (Box::new(far), Box::new(near)),
            Write => (Box::new(near), Box::new(far)),
        };
        let deadline = Deadline::after(SECOND);
        let said = tokio::spawn(async move { from.write_all(b"late").await.map(|()| from) });
        let heard = tokio::spawn(async move {
            let mut bytes = [0; 4];
            to.read_exact(&mut bytes).await.map(|_| bytes)
        });
        deadline.nearly().await;
        assert!(!heard.is_finished(), "{direction:?}");
        deadline.passed().await;
        assert!(heard.is_finished(), "{direction:?}");
        assert_eq!(&heard.await.unwrap().unwrap(), b"late");
        said.await.unwrap().unwrap();
    }
}

trait Reads: tokio::io::AsyncRead + Send + Unpin {}
impl<T: tokio::io::AsyncRead + Send + Unpin> Reads for T {}
trait Writes: tokio::io::AsyncWrite + Send + Unpin {}
impl<T: tokio::io::AsyncWrite + Send + Unpin> Writes for T {}

#[tokio::test(start_paused = true)]
async fn what_is_written_goes_wrong_after_exactly_so_many_bytes() {
    for (fault, error, far_hears_the_end) in [
        (StreamFault::Stall, None, false),
        (StreamFault::Break, Some(io::ErrorKind::ConnectionReset), false),
        (StreamFault::End, Some(io::ErrorKind::BrokenPipe), true),
    ] {
        let faults = StreamFaults::none().after_bytes(Write, 5, fault);
        let (mut near, mut far) = faulty(&faults);
        near.write_all(b"1234").await.unwrap();
        assert!(faults.struck().now_or_never().is_none());
        let writing = near.write_all(b"5678").now_or_never();
        assert_eq!(writing.map(kind), error, "{fault:?}");
        assert!(faults.struck().now_or_never().is_some());
        assert_eq!(faults.bytes(Write), 5, "{fault:?}");
        let mut bytes = [0; 100];
        assert_eq!(far.read(&mut bytes).await.unwrap(), 5, "{fault:?}");
        let end = far.read(&mut bytes).now_or_never().map(Result::unwrap);
        assert_eq!(end, far_hears_the_end.then_some(0), "{fault:?}");
        // Neither flushed nor shut down.
        assert_eq!(near.flush().now_or_never().map(kind), error, "{fault:?}");
        assert_eq!(near.shutdown().now_or_never().map(kind), error, "{fault:?}");
        // The other direction is whole, unless the connection is reset.
        far.write_all(b"back").await.unwrap();
        assert_eq!(near.read(&mut bytes).await.is_err(), fault == StreamFault::Break);
    }
}

#[tokio::test]
async fn what_is_read_goes_wrong_after_exactly_so_many_bytes() {
    for (fault, then) in [
        (StreamFault::Stall, None),
        (StreamFault::Break, Some(Err(io::ErrorKind::ConnectionReset))),
        (StreamFault::End, Some(Ok(0))),
    ] {
        let faults = StreamFaults::none().after_bytes(Read, 5, fault);
        let (mut near, mut far) = faulty(&faults);
        far.write_all(b"12345678").await.unwrap();
        let mut bytes = [0; 100];
        assert_eq!(near.read(&mut bytes).await.unwrap(), 5, "{fault:?}");
        assert!(faults.struck().now_or_never().is_none());
        for _ in 0..2 {
            let next = near.read(&mut bytes).now_or_never();
            assert_eq!(next.map(|next| next.map_err(|error| error.kind())), then, "{fault:?}");
        }
        assert_eq!(faults.bytes(Read), 5);
        let whole = near.write_all(b"back").await.is_ok();
        assert_eq!(whole, fault != StreamFault::Break, "{fault:?}");
    }
}

#[tokio::test]
async fn a_call_goes_wrong_and_not_the_one_before() {
    let faults = StreamFaults::none().at_call(Write, 3, StreamFault::Break);
    let (mut near, mut far) = faulty(&faults);
    for _ in 0..2 {
        near.write_all(b"good").await.unwrap();
        near.flush().await.unwrap();
    }
    assert_eq!(kind(near.write_all(b"bad").await), io::ErrorKind::ConnectionReset);
    let faults = StreamFaults::none().at_call(Read, 2, StreamFault::End);
    let (mut other, _far) = faulty(&faults);
    let mut bytes = [0; 100];
    assert_eq!(far.read(&mut bytes).await.unwrap(), 8);
    let mut far = _far;
    far.write_all(b"first").await.unwrap();
    assert_eq!(other.read(&mut bytes).await.unwrap(), 5);
    far.write_all(b"second").await.unwrap();
    assert_eq!(other.read(&mut bytes).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stall_ends_when_the_test_says_so() {
    let plan = StreamFaults::none();
    let plan = plan.after_bytes(Read, 3, StreamFault::Stall);
    let faults = plan.after_bytes(Write, 3, StreamFault::Stall);
    let (mut near, mut far) = faulty(&faults);
    far.write_all(b"whole").await.unwrap();
    let echo = tokio::spawn(async move {
        let mut bytes = [0; 5];
        near.read_exact(&mut bytes).await.unwrap();
        near.write_all(&bytes).await.unwrap();
        near
    });
    faults.struck().await;
    tokio::time::sleep(1000 * SECOND).await;
    assert_eq!((faults.bytes(Read), faults.bytes(Write)), (3, 0));
    faults.release();
    let mut bytes = [0; 5];
    far.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"whole");
    drop(echo.await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_test_strikes_at_any_moment() {
    for (fault, error) in [
        (StreamFault::Break, io::ErrorKind::ConnectionReset),
        (StreamFault::End, io::ErrorKind::UnexpectedEof),
    ] {
        let faults = StreamFaults::none();
        let (mut near, _far) = faulty(&faults);
        // Waits for bytes that do not come.
        let reading = tokio::spawn(async move { near.read_exact(&mut [0; 5]).await });
        tokio::time::sleep(SECOND).await;
        faults.strike(fault);
        assert_eq!(kind(reading.await.unwrap()), error);
    }
    let faults = StreamFaults::none();
    let (mut near, mut far) = faulty(&faults);
    faults.release();
    faults.strike(StreamFault::Stall);
    far.write_all(b"x").await.unwrap();
    assert!(near.read(&mut [0; 5]).now_or_never().is_none());
    faults.release();
    assert_eq!(near.read(&mut [0; 5]).await.unwrap(), 1);
}

fn one_by_one() -> StreamFaults {
    StreamFaults::none().pieces(Read, 1).pieces(Write, 1)
}

#[tokio::test]
async fn a_channel_opens_byte_by_byte() {
    let faults = one_by_one();
    let (near, far) = faulty(&faults);
    let made = (faulty_node(1, &Faults::none()), faulty_node(2, &Faults::none()));
    let (funder, fundee) = connect(made.0, made.1, (framed(near), framed(far))).await;
    let (opened, _permit) = funder.open().await.unwrap();
    assert_eq!(fundee.log.opened().await.channel_id, opened.channel_id);
    assert_eq!(faults.calls(Read), faults.bytes(Read));
    assert_eq!(faults.calls(Write), faults.bytes(Write));
    assert!(faults.bytes(Write) > 500);
}

#[tokio::test]
async fn a_channel_opens_byte_by_byte_under_bolt_8() {
    let (one, other) = (one_by_one(), one_by_one());
    let (near, far) = duplex(64 * 1024);
    let (near, far) = (FaultyStream::new(near, one), FaultyStream::new(far, other.clone()));
    let secret = |byte| SecretKey::from_slice(&[byte; 32]).unwrap();
    let (ours, theirs) = (secret(1), secret(2));
    let (initiator, responder) = tokio::join!(
        bolt8::connect(near, &ours, node_id(2), EphemeralKey::random(), SECOND * 20),
        bolt8::accept(far, &theirs, EphemeralKey::random(), SECOND * 20),
    );
    let ends = (initiator.unwrap(), responder.unwrap().0);
    let made = (faulty_node(1, &Faults::none()), faulty_node(2, &Faults::none()));
    let (funder, fundee) = connect(made.0, made.1, ends).await;
    let (opened, _permit) = funder.open().await.unwrap();
    assert_eq!(fundee.log.opened().await.channel_id, opened.channel_id);
    assert_eq!(other.calls(Read), other.bytes(Read));
}

#[tokio::test(start_paused = true)]
async fn a_channel_opens_over_a_slow_connection() {
    // Each message well within the peer's deadline of a minute.
    let faults = StreamFaults::none().delay(Read, 20 * SECOND).delay(Write, 20 * SECOND);
    let (near, far) = faulty(&faults);
    let made = (faulty_node(1, &Faults::none()), faulty_node(2, &Faults::none()));
    let (funder, fundee) = connect(made.0, made.1, (framed(near), framed(far))).await;
    let (opened, _permit) = funder.open().await.unwrap();
    assert_eq!(fundee.log.opened().await.channel_id, opened.channel_id);
}
