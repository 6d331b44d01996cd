//! Messages about a channel that is still being saved.

/// `channel_ready` of a zero-conf channel, `shutdown` and `error`: nothing else may come so soon.
const MOST: usize = 4;

/// Bytes of them all.  Only an `error` can be long, and then it says less than it takes.
const MOST_BYTES: usize = 8 * 1024;

/// What the peer rightly says about a channel before our save is done, in its order.
#[derive(Debug, Default)]
pub(super) struct Early(Vec<Vec<u8>>);

impl Early {
    /// Keeps a message until the channel is saved; `false` if these are more than may come.
    pub(super) fn keep(&mut self, message: &[u8]) -> bool {
        let bytes: usize = self.0.iter().map(Vec::len).sum();
        let fits = self.0.len() < MOST && bytes + message.len() <= MOST_BYTES;
        if fits {
            self.0.push(message.to_vec());
        }
        fits
    }

    pub(super) fn into_messages(self) -> Vec<Vec<u8>> {
        self.0
    }
}
