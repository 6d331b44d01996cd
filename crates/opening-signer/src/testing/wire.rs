//! A connection to a signer, whose replies go wrong.

use std::collections::HashMap;
use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, split};
use zeroize::Zeroizing;

/// Bytes.  No reply of either wire comes near it.
const LONGEST: u32 = 128 * 1024;

/// What happens to a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WireFault {
    /// Its last byte is missing; the frame is a whole one.
    Cut,
    /// There is one byte more.
    Trailing,
    /// Its type is one that no message has.
    WrongType,
    /// Its frame says that it is longer than any may be.
    Oversize,
    /// Half of its frame comes, and then the connection is closed.
    ClosedHalfWay,
    /// It never comes; those after it do.
    Dropped,
    /// Its last byte becomes a 1 and these bytes follow: where a reply of hsmd's wire says at its
    /// end that it tells no secret, it now tells this one.
    Secret([u8; 32]),
}

/// What happens to the replies of a signer, by their number from 1.
///
/// It stands between the two ends of a connection, and knows of the wire what both wires have in
/// common: a frame is four bytes of length, big-endian, and as many bytes of message, the first
/// two of which are its type.  What hsmd's wire passes beside the bytes, the connections of
/// channels, does not come through: of that wire it serves for the first connection.
///
/// ```
/// use opening_signer::testing::{WireFault, WireFaults};
///
/// # async fn connect(node: tokio::io::DuplexStream, signer: tokio::io::DuplexStream) {
/// let faults = WireFaults::none().at(3, WireFault::ClosedHalfWay);
/// let between = tokio::spawn(faults.between(node, signer));
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct WireFaults(HashMap<u32, WireFault>);

impl WireFaults {
    /// Everything is passed on.
    pub fn none() -> Self {
        Self::default()
    }

    /// The same, with `fault` at the `nth` reply.
    pub fn at(mut self, nth: u32, fault: WireFault) -> Self {
        self.0.insert(nth, fault);
        self
    }

    /// Passes on what the two ends say, until one of them or a fault closes the connection.
    pub async fn between<N, S>(self, node: N, signer: S) -> io::Result<()>
    where
        N: AsyncRead + AsyncWrite + Send,
        S: AsyncRead + AsyncWrite + Send,
    {
        let (mut requests, mut to_node) = split(node);
        let (mut replies, mut to_signer) = split(signer);
        tokio::select! {
            ended = copy(&mut requests, &mut to_signer) => ended.map(drop),
            ended = self.pass_on(&mut replies, &mut to_node) => ended,
        }
    }

    async fn pass_on(
        &self,
        replies: &mut (impl AsyncRead + Unpin),
        node: &mut (impl AsyncWrite + Unpin),
    ) -> io::Result<()> {
        for nth in 1_u32.. {
            let length: u32 = match replies.read_u32().await {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                length => length?,
            };
            if length > LONGEST {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a reply too long to spoil",
                ));
            }
            let mut message = Zeroizing::new(Vec::new());
            // Grows with what comes, not with what is announced.
            let read = replies.take(length.into()).read_to_end(&mut message).await?;
            if read < length as usize {
                return Ok(());
            }
            let frame = match self.0.get(&nth) {
                None => framed(&message),
                Some(WireFault::Dropped) => continue,
                Some(WireFault::ClosedHalfWay) => {
                    let frame = framed(&message);
                    node.write_all(&frame[..frame.len() / 2]).await?;
                    return node.shutdown().await;
                }
                Some(fault) => spoilt(fault, message),
            };
            node.write_all(&frame).await?;
            node.flush().await?;
        }
        Ok(())
    }
}

fn spoilt(fault: &WireFault, mut message: Zeroizing<Vec<u8>>) -> Zeroizing<Vec<u8>> {
    match fault {
        WireFault::Cut => drop(message.pop()),
        WireFault::Trailing => message.push(0),
        WireFault::WrongType => message.iter_mut().take(2).for_each(|byte| *byte = 0xff),
        WireFault::Secret(secret) => {
            message.pop();
            message.push(1);
            message.extend(secret);
        }
        WireFault::Oversize => {
            let mut frame = framed(&message);
            frame[..4].fill(0xff);
            return frame;
        }
        WireFault::ClosedHalfWay | WireFault::Dropped => {}
    }
    framed(&message)
}

fn framed(message: &[u8]) -> Zeroizing<Vec<u8>> {
    let length = u32::try_from(message.len()).expect("checked in pass_on(): far below 4 GiB");
    Zeroizing::new([&length.to_be_bytes(), message].concat())
}
