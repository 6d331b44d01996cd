//! An encrypted connection on which a test can stop the bytes, in the middle of a frame or not.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::secp256k1::{PublicKey, SecretKey};
use opening_peer::transport::Transport;
use opening_peer::transport::bolt8::{self, EphemeralKey};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::sync::watch;

use crate::common::node_id;

/// Bytes that the stream at either end takes before its writer has to wait: less than any frame
/// with a message in it.
pub(crate) const CAPACITY: usize = 120;

const LIMIT: Duration = Duration::from_secs(10);

/// One direction.
#[derive(Clone)]
pub(crate) struct Lane {
    /// Bytes that it may carry in all.
    allowed: Arc<watch::Sender<u64>>,
    carried: Arc<watch::Sender<u64>>,
}

impl Lane {
    fn new() -> Self {
        let sender = |bytes| Arc::new(watch::Sender::new(bytes));
        Self { allowed: sender(u64::MAX), carried: sender(0) }
    }

    /// Carries this much more and then nothing.
    pub(crate) fn stop_after(&self, bytes: u64) {
        let carried = *self.carried.borrow();
        self.allowed.send_replace(carried + bytes);
    }

    /// Waits until it has carried all that it may.
    pub(crate) async fn stopped(&self) {
        let allowed = *self.allowed.borrow();
        self.carried.subscribe().wait_for(|carried| *carried == allowed).await.unwrap();
    }

    pub(crate) fn go_on(&self) {
        self.allowed.send_replace(u64::MAX);
    }

    async fn carry(self, mut from: ReadHalf<DuplexStream>, mut to: WriteHalf<DuplexStream>) {
        let mut allowed = self.allowed.subscribe();
        loop {
            let carried = *self.carried.borrow();
            let may = *allowed.wait_for(|allowed| *allowed > carried).await.unwrap() - carried;
            let mut buffer = [0; CAPACITY];
            let most = usize::try_from(may).unwrap_or(CAPACITY).min(CAPACITY);
            let read = tokio::select! {
                biased;
                // Stopped before anything came.
                changed = allowed.changed() => {
                    changed.unwrap();
                    continue;
                }
                read = from.read(&mut buffer[..most]) => read.unwrap_or(0),
            };
            if read == 0 {
                return drop(to.shutdown().await);
            }
            let _ = to.write_all(&buffer[..read]).await;
            self.carried.send_modify(|carried| *carried += read as u64);
        }
    }
}

/// Both lanes, from the near end on and towards it, and both ends of the connection.
pub(crate) async fn road() -> (Lane, Lane, Transport, Transport) {
    let (near, near_side) = duplex(CAPACITY);
    let (far, far_side) = duplex(CAPACITY);
    let (out, back) = (Lane::new(), Lane::new());
    let (near_read, near_write) = split(near_side);
    let (far_read, far_write) = split(far_side);
    tokio::spawn(out.clone().carry(near_read, far_write));
    tokio::spawn(back.clone().carry(far_read, near_write));
    let key = |byte| SecretKey::from_slice(&[byte; 32]).unwrap();
    let ephemeral = |byte| EphemeralKey::fixed(key(byte));
    let far_id: PublicKey = node_id(2);
    let (near_key, far_key) = (key(1), key(2));
    let (one, other) = tokio::join!(
        bolt8::connect(near, &near_key, far_id, ephemeral(11), LIMIT),
        bolt8::accept(far, &far_key, ephemeral(12), LIMIT),
    );
    (out, back, one.unwrap(), other.unwrap().0)
}
