//! The encrypted and authenticated transport of BOLT 8, over any byte stream.
//!
//! [`connect`] and [`accept`] run the handshake over a stream; [`initiate`] and [`WaitForActOne`] are the same
//! without I/O.  A failure closes the connection, and the peer is told nothing.

pub(super) mod cipher;
mod error;
mod handshake;

use std::io;
use std::time::Duration;

use bitcoin::secp256k1::{PublicKey, SecretKey};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

pub use self::error::{Act, HandshakeError};
pub use self::handshake::{
    ACT_ONE_LENGTH, ACT_THREE_LENGTH, ACT_TWO_LENGTH, Ciphers, EphemeralKey, WaitForActOne,
    WaitForActThree, WaitForActTwo, initiate,
};
use super::Transport;
use super::framing::{FrameDecoder, FrameEncoder};

/// Connects over `stream` to the node `their_node_id`; `limit` bounds the whole handshake.
pub async fn connect<S>(
    stream: S,
    our_node_secret: &SecretKey,
    their_node_id: PublicKey,
    ephemeral: EphemeralKey,
    limit: Duration,
) -> Result<Transport, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    within(limit, async move {
        let mut stream = stream;
        let (act_one, wait_for_act_two) = initiate(our_node_secret, their_node_id, ephemeral);
        write_act(&mut stream, &act_one).await?;
        let (act_three, ciphers) =
            wait_for_act_two.act_two(&read_act(&mut stream, Act::Two).await?)?;
        write_act(&mut stream, &act_three).await?;
        Ok(ciphers.over(stream))
    })
    .await
}

/// Answers whoever connected over `stream`, and says who that is; `limit` bounds the whole handshake.
pub async fn accept<S>(
    stream: S,
    our_node_secret: &SecretKey,
    ephemeral: EphemeralKey,
    limit: Duration,
) -> Result<(Transport, PublicKey), HandshakeError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    within(limit, async move {
        let mut stream = stream;
        let wait_for_act_one = WaitForActOne::new(our_node_secret, ephemeral);
        let (act_two, wait_for_act_three) =
            wait_for_act_one.act_one(&read_act(&mut stream, Act::One).await?)?;
        write_act(&mut stream, &act_two).await?;
        let (their_node_id, ciphers) =
            wait_for_act_three.act_three(&read_act(&mut stream, Act::Three).await?)?;
        Ok((ciphers.over(stream), their_node_id))
    })
    .await
}

impl Ciphers {
    /// The transport that goes on with these ciphers where the handshake over `stream` ended.
    pub fn over<S>(self, stream: S) -> Transport
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        Transport::new(
            stream,
            FrameEncoder::Bolt8(self.sending),
            FrameDecoder::Bolt8(self.receiving),
        )
    }
}

pub(super) async fn within<T>(
    limit: Duration,
    handshake: impl Future<Output = Result<T, HandshakeError>>,
) -> Result<T, HandshakeError> {
    tokio::time::timeout(limit, handshake).await.unwrap_or(Err(HandshakeError::TimedOut))
}

/// Reads the bytes of one act and not one more: what follows belongs to the first message (B8-HS-R-09).
async fn read_act<const LENGTH: usize>(
    stream: &mut (impl AsyncRead + Unpin),
    act: Act,
) -> Result<[u8; LENGTH], HandshakeError> {
    let mut bytes = [0; LENGTH];
    match stream.read_exact(&mut bytes).await {
        Ok(_) => Ok(bytes),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(HandshakeError::ReadFailed(act))
        }
        Err(error) => Err(error.into()),
    }
}

async fn write_act(stream: &mut (impl AsyncWrite + Unpin), act: &[u8]) -> io::Result<()> {
    stream.write_all(act).await?;
    stream.flush().await
}
