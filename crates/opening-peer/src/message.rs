//! The messages that channel establishment reads and writes: LDK's types, and what their bytes mean.
//!
//! [`encode`] and [`decode`] map between a message and its bytes, type number included.  What cannot be decoded comes
//! with what is to be done about it, in [`Undecodable`].

mod init;
mod layout;
mod text;
mod undecodable;

use lightning::ln::msgs::{self, DecodeError};
use lightning::ln::wire;
use lightning::util::ser::LengthReadable;

pub use self::layout::channel_id_of;
pub use self::text::{MAX_PRINTABLE_LENGTH, printable};
pub use self::undecodable::{Consequence, Undecodable, UndecodableKind};
use crate::transport::MAX_MESSAGE_LENGTH;

/// A message from the peer, as far as channel establishment understands it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Type 16.  `features` is both bitmaps of the message, one ORed into the other (B1-INIT-R-02).
    Init(msgs::Init),
    /// Type 17.  `data` has been made [`printable`].
    Error(msgs::ErrorMessage),
    /// Type 1.  `data` has been made [`printable`].
    Warning(msgs::WarningMessage),
    /// Type 18.
    Ping(msgs::Ping),
    /// Type 19.
    Pong(msgs::Pong),
    /// Type 32.
    OpenChannel(Box<msgs::OpenChannel>),
    /// Type 33.
    AcceptChannel(Box<msgs::AcceptChannel>),
    /// Type 34.
    FundingCreated(msgs::FundingCreated),
    /// Type 35.
    FundingSigned(msgs::FundingSigned),
    /// Type 36.
    ChannelReady(msgs::ChannelReady),
    /// Type 38.
    Shutdown(msgs::Shutdown),
    /// Type 136.
    ChannelReestablish(msgs::ChannelReestablish),
    /// Any other type: for the node, if it knows it, else to be ignored where odd and fatal where even
    /// (B1-MSG-R-01, B1-MSG-R-02).
    Other {
        /// The type.
        type_number: u16,
    },
}

/// The message that `bytes`, its type number first, hold.
pub fn decode(bytes: &[u8]) -> Result<Message, Undecodable> {
    let Some((type_number, body)) = bytes.split_first_chunk() else {
        return Err(Undecodable::without_type());
    };
    let type_number = u16::from_be_bytes(*type_number);
    if bytes.len() > MAX_MESSAGE_LENGTH {
        return Err(Undecodable::too_long(type_number));
    }
    decode_body(type_number, body).map_err(|_| Undecodable::judge(type_number, bytes))
}

fn decode_body(type_number: u16, body: &[u8]) -> Result<Message, DecodeError> {
    Ok(match type_number {
        layout::WARNING => {
            let (channel_id, data) = text::read(body)?;
            Message::Warning(msgs::WarningMessage { channel_id, data })
        }
        layout::INIT => Message::Init(init::read(body)?),
        layout::ERROR => {
            let (channel_id, data) = text::read(body)?;
            Message::Error(msgs::ErrorMessage { channel_id, data })
        }
        layout::PING => Message::Ping(read(body)?),
        layout::PONG => Message::Pong(read(body)?),
        layout::OPEN_CHANNEL => Message::OpenChannel(Box::new(read(body)?)),
        layout::ACCEPT_CHANNEL => Message::AcceptChannel(Box::new(read(body)?)),
        layout::FUNDING_CREATED => Message::FundingCreated(read(body)?),
        layout::FUNDING_SIGNED => Message::FundingSigned(read(body)?),
        layout::CHANNEL_READY => Message::ChannelReady(read(body)?),
        layout::SHUTDOWN => Message::Shutdown(read(body)?),
        layout::CHANNEL_REESTABLISH => Message::ChannelReestablish(read(body)?),
        type_number => Message::Other { type_number },
    })
}

fn read<T: LengthReadable>(mut body: &[u8]) -> Result<T, DecodeError> {
    T::read_from_fixed_length_buffer(&mut body)
}

/// The bytes of `message`, its type number first.
///
/// A message of more than [`MAX_MESSAGE_LENGTH`] bytes, which only an overlong `data` can make, is refused by
/// [`Writer::queue`](crate::transport::Writer::queue).
pub fn encode<M: wire::Type>(message: &M) -> Vec<u8> {
    let mut bytes = message.type_id().to_be_bytes().to_vec();
    message.write(&mut bytes).expect("a vector takes all that is written");
    bytes
}
