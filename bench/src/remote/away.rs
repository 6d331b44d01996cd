//! A signer that is further away than the next process: a relay between it and its node that keeps
//! back what the signer says.
//!
//! The whole round trip is on the way back, bytes keep their order, and any number of them is under
//! way at a time.  Sockets that pass over it (hsmd's wire has one for each channel) are as far away.
//! Threads of its own, because tokio's clock knows no part of a millisecond.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Bytes that are read at once.
const AT_ONCE: usize = 4096;
/// There are three threads for each socket, and hardly anything on their stacks.
const STACK: usize = 128 * 1024;

/// What the signer said, and when it is heard.
struct Said {
    heard: Instant,
    bytes: Vec<u8>,
    socket: Option<OwnedFd>,
}

/// The node's end of a connection with the signer.
pub(super) fn away(signer: UnixStream, round_trip: Duration) -> io::Result<UnixStream> {
    if round_trip.is_zero() {
        return Ok(signer);
    }
    let (near, far) = UnixStream::pair()?;
    let (mut from_node, mut to_signer) = (far.try_clone()?, signer.try_clone()?);
    spawn(move || {
        // An error is an end as well.
        let _ = io::copy(&mut Short(&mut from_node), &mut to_signer);
        let _ = to_signer.shutdown(Shutdown::Both);
    })?;
    let (says, said) = channel();
    spawn(move || {
        while let Ok(Some((bytes, socket))) = read(&signer) {
            let heard = Instant::now() + round_trip;
            if says.send(Said { heard, bytes, socket }).is_err() {
                return;
            }
        }
    })?;
    spawn(move || {
        let _ = deliver(&far, &said, round_trip);
        let _ = far.shutdown(Shutdown::Both);
    })?;
    Ok(near)
}

/// `io::copy` would move the bytes within the kernel, and wait for more of them than there are.
struct Short<'a>(&'a mut UnixStream);

impl Read for Short<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().stack_size(STACK).spawn(work).map(drop)
}

fn deliver(node: &UnixStream, said: &Receiver<Said>, round_trip: Duration) -> io::Result<()> {
    for Said { heard, bytes, socket } in said {
        thread::sleep(heard.saturating_duration_since(Instant::now()));
        match socket {
            None => (&mut &*node).write_all(&bytes)?,
            Some(socket) => pass(node, &bytes, &away(UnixStream::from(socket), round_trip)?)?,
        }
    }
    Ok(())
}

/// What comes next, with the socket that comes with it; `None` at the end.
fn read(from: &UnixStream) -> io::Result<Option<(Vec<u8>, Option<OwnedFd>)>> {
    let mut bytes = vec![0; AT_ONCE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let buffers = &mut [IoSliceMut::new(&mut bytes)];
    let received = recvmsg(from, buffers, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?.bytes;
    let sockets = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(sockets) => Some(sockets),
        _ => None,
    });
    let socket = sockets.flatten().next();
    bytes.truncate(received);
    Ok((received > 0).then_some((bytes, socket)))
}

fn pass(over: &UnixStream, bytes: &[u8], socket: &UnixStream) -> io::Result<()> {
    let sockets = [socket.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&sockets)), "there is space for one");
    // Read with what came before it, it came with the last byte; whoever reads those before it
    // alone would lose it.
    let (last, before) = bytes.split_last().expect("a socket comes with a byte");
    (&mut &*over).write_all(before)?;
    let last = [*last];
    sendmsg(over, &[IoSlice::new(&last)], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}
