//! Frames: four bytes of length, big-endian, then so many bytes.
//!
//! Neither call may be dropped half-way: a connection belongs to one task, which ends with it.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use zeroize::Zeroizing;

/// Bytes.  No message of either wire comes near it; nothing is allocated for a longer one.
pub(super) const MAX_FRAME: usize = 128 * 1024;

/// For the other side to hear that a connection ends.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

/// The next frame, which a signer may have put a secret into; `None` where the other side has
/// closed between two frames.
pub(super) async fn read_frame(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let mut length = [0; 4];
    let mut have = 0;
    while have < length.len() {
        match stream.read(&mut length[have..]).await {
            Ok(0) if have == 0 => return Ok(None),
            Ok(0) => return Err(cut("inside a frame's length")),
            Ok(read) => have += read,
            // TLS tells this from an end that was announced.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(cut("without a word"));
            }
            Err(error) => return Err(error),
        }
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_FRAME {
        let reason = format!("a frame of {length} bytes, at most {MAX_FRAME} are taken");
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    let mut frame = Zeroizing::new(vec![0; length]);
    match stream.read_exact(&mut frame).await {
        Ok(_) => Ok(Some(frame)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(cut("inside a frame")),
        Err(error) => Err(error),
    }
}

/// Writes and flushes one frame.
pub(super) async fn write_frame(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &[u8],
) -> io::Result<()> {
    let mut frame = Vec::with_capacity(4 + message.len());
    let length = u32::try_from(message.len()).expect("a message is below the cap");
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(message);
    stream.write_all(&frame).await?;
    stream.flush().await
}

/// Says that no frame follows, so that the other side can tell this end from a broken line.
pub(super) async fn close(stream: &mut (impl AsyncWrite + Unpin)) {
    // Who is gone already need not hear it.
    drop(timeout(CLOSE_PATIENCE, stream.shutdown()).await);
}

fn cut(place: &str) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, format!("the connection ended {place}"))
}
