//! BOLT 8 over TCP, which is how Lightning nodes meet.
//!
//! Opening is a conversation of short messages: without `TCP_NODELAY` each of them may wait 40 ms for the last one's
//! acknowledgement.  Both functions set it.

use std::io;
use std::time::Duration;

use bitcoin::secp256k1::{PublicKey, SecretKey};
use tokio::net::{TcpStream, ToSocketAddrs};

use super::Transport;
use super::bolt8::{self, EphemeralKey, HandshakeError};

/// Connects to the node `their_node_id` at `address`; `limit` bounds connecting and handshake together.
pub async fn connect(
    address: impl ToSocketAddrs,
    our_node_secret: &SecretKey,
    their_node_id: PublicKey,
    ephemeral: EphemeralKey,
    limit: Duration,
) -> Result<Transport, HandshakeError> {
    bolt8::within(limit, async {
        let stream = without_delay(TcpStream::connect(address).await?)?;
        bolt8::connect(stream, our_node_secret, their_node_id, ephemeral, limit).await
    })
    .await
}

/// Answers whoever is behind `stream`, and says who that is; `limit` bounds the handshake.
pub async fn accept(
    stream: TcpStream,
    our_node_secret: &SecretKey,
    ephemeral: EphemeralKey,
    limit: Duration,
) -> Result<(Transport, PublicKey), HandshakeError> {
    bolt8::accept(without_delay(stream)?, our_node_secret, ephemeral, limit).await
}

fn without_delay(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn streams_do_not_wait_for_more_to_send() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connected = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        assert!(!connected.nodelay().unwrap());
        assert!(without_delay(connected).unwrap().nodelay().unwrap());
    }
}
