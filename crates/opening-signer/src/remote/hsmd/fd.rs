//! A socket that is passed over another one.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// What carries it has to be a byte at least, which means nothing.
const CARRIER: [u8; 1] = [0];

/// Passes a socket to the other end.
pub(super) async fn send(over: &UnixStream, fd: BorrowedFd<'_>) -> io::Result<()> {
    over.async_io(Interest::WRITABLE, || {
        let fds = [fd];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)), "there is space for one");
        let sent = sendmsg(over, &[IoSlice::new(&CARRIER)], &mut ancillary, SendFlags::NOSIGNAL)?;
        if sent == CARRIER.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    })
    .await
}

/// The socket that the other end passes next.
pub(super) async fn receive(over: &UnixStream) -> io::Result<OwnedFd> {
    over.async_io(Interest::READABLE, || {
        let mut carrier = CARRIER;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let buffers = &mut [IoSliceMut::new(&mut carrier)];
        let received = recvmsg(over, buffers, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        if received.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let fds = ancillary.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        });
        // More than one would not fit into the space, and is closed by the kernel.
        fds.flatten().next().ok_or_else(|| io::Error::other("no socket came with the byte"))
    })
    .await
}

/// A socket of this process as tokio's.
pub(super) fn adopt(fd: OwnedFd) -> io::Result<UnixStream> {
    let socket = std::os::unix::net::UnixStream::from(fd);
    socket.set_nonblocking(true)?;
    UnixStream::from_std(socket)
}

/// Both ends of a new connection: ours, and the one to pass.
pub(super) fn pair() -> io::Result<(UnixStream, std::os::unix::net::UnixStream)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((UnixStream::from_std(ours)?, theirs))
}

/// What `send` takes of the end to pass.
pub(super) fn of(socket: &std::os::unix::net::UnixStream) -> BorrowedFd<'_> {
    socket.as_fd()
}
