//! The other end of hsmd's wire, played by hand.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::io::{Read, Write};

/// One connection, as hsmd holds it.  It blocks: a thread is for it.
pub(crate) struct Wire(pub(crate) UnixStream);

impl Wire {
    /// The next request; `None` when the client has hung up.
    pub(crate) fn read(&mut self) -> Option<Vec<u8>> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length).ok()?;
        let mut message = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut message).ok()?;
        Some(message)
    }

    pub(crate) fn write(&mut self, message: &[u8]) {
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        // The client may have hung up, which its own answer tells.
        let _ = self.0.write_all(&[&length[..], message].concat());
    }

    /// What may be no frame.
    pub(crate) fn write_raw(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes);
    }

    /// Passes one end of a new connection, and gives the other.
    pub(crate) fn pass(&mut self) -> Wire {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let fds = [theirs.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
        sendmsg(&self.0, &[IoSlice::new(&[0])], &mut ancillary, SendFlags::empty()).unwrap();
        Wire(ours)
    }
}

/// The type of a message.
pub(crate) fn kind(message: &[u8]) -> u16 {
    u16::from_be_bytes([message[0], message[1]])
}

pub(crate) const START_UP: &str = include_str!("../vectors/hsmd-start-up.msgs");
pub(crate) const FORGET: &str = include_str!("../vectors/hsmd-forget.msgs");

/// The recorded reply of this type, the first in `recording`.
pub(crate) fn reply(recording: &str, number: u16) -> Vec<u8> {
    let marker = format!(" > type {number} ");
    let line = recording.lines().find(|line| line.contains(&marker)).unwrap();
    hex::decode(line.rsplit(' ').next().unwrap()).unwrap()
}
