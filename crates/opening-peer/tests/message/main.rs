//! The message codec: bytes of real peers, every truncation, every broken extension, and nothing that panics.

// Clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

mod encoding;
mod golden;
mod init;
mod malformed;
mod properties;
mod text;
mod tlv;

use lightning::ln::msgs;
use lightning::ln::types::ChannelId;
use lightning::ln::wire;
use opening_peer::message::{Consequence, Message, Undecodable, UndecodableKind, decode, encode};

/// Bytes of an `open_channel` without its extension.
const OPEN_CHANNEL_PAYLOAD: usize = 321;
const ACCEPT_CHANNEL_PAYLOAD: usize = 272;
const CHANNEL_READY_PAYLOAD: usize = 67;

fn bytes(hex: &str) -> Vec<u8> {
    hex::decode(hex).unwrap()
}

fn open_channel() -> msgs::OpenChannel {
    match decode(&bytes(golden::OPEN_CHANNEL)) {
        Ok(Message::OpenChannel(open)) => *open,
        other => panic!("{other:?}"),
    }
}

fn accept_channel() -> msgs::AcceptChannel {
    match decode(&bytes(golden::ACCEPT_CHANNEL)) {
        Ok(Message::AcceptChannel(accept)) => *accept,
        other => panic!("{other:?}"),
    }
}

fn channel_ready(short_channel_id_alias: Option<u64>) -> msgs::ChannelReady {
    msgs::ChannelReady {
        channel_id: ChannelId([0xc1; 32]),
        next_per_commitment_point: open_channel().common_fields.htlc_basepoint,
        short_channel_id_alias,
    }
}

fn channel_reestablish() -> msgs::ChannelReestablish {
    msgs::ChannelReestablish {
        channel_id: ChannelId([0xc1; 32]),
        next_local_commitment_number: 1,
        next_remote_commitment_number: 0,
        your_last_per_commitment_secret: [0; 32],
        my_current_per_commitment_point: open_channel().common_fields.htlc_basepoint,
        next_funding: None,
        my_current_funding_locked: None,
    }
}

/// The message whose bytes are `payload` with `extension` behind them.
fn extended(payload: &[u8], extension: &[u8]) -> Result<Message, Undecodable> {
    decode(&[payload, extension].concat())
}

fn open_with(extension: &str) -> Result<msgs::OpenChannel, Undecodable> {
    match extended(&bytes(golden::OPEN_CHANNEL)[..OPEN_CHANNEL_PAYLOAD], &bytes(extension))? {
        Message::OpenChannel(open) => Ok(*open),
        other => panic!("{other:?}"),
    }
}

/// That a message is refused for its extension, which closes the connection.
#[track_caller]
fn assert_invalid_extension<T: std::fmt::Debug>(outcome: Result<T, Undecodable>) {
    let undecodable = outcome.unwrap_err();
    assert_eq!(undecodable.kind, UndecodableKind::InvalidExtension);
    assert_eq!(undecodable.code(), "message-invalid-extension");
    assert_eq!(undecodable.consequence(), Consequence::Close(undecodable.channel_id));
}

/// One message of each type that this crate writes or understands.
fn one_of_each() -> Vec<Vec<u8>> {
    fn text(data: &str) -> (ChannelId, String) {
        (ChannelId([7; 32]), data.to_owned())
    }
    fn one<M: wire::Type>(message: &M) -> Vec<u8> {
        encode(message)
    }
    let (channel_id, data) = text("no");
    let warning = msgs::WarningMessage { channel_id, data };
    let (channel_id, data) = text("never");
    let error = msgs::ErrorMessage { channel_id, data };
    let scriptpubkey = bitcoin::ScriptBuf::from_bytes(vec![0x51, 0x02, 0xaa, 0xbb]);
    let shutdown = msgs::Shutdown { channel_id, scriptpubkey };
    vec![
        bytes("00100002082000030a0820"),
        one(&error),
        one(&warning),
        one(&msgs::Ping { ponglen: 4, byteslen: 3 }),
        one(&msgs::Pong { byteslen: 4 }),
        bytes(golden::OPEN_CHANNEL),
        bytes(golden::CLOSE_TO_OPEN_CHANNEL),
        bytes(golden::ACCEPT_CHANNEL),
        bytes(golden::FUNDING_CREATED),
        bytes(golden::FUNDING_SIGNED),
        one(&channel_ready(None)),
        one(&channel_ready(Some(7))),
        one(&shutdown),
        one(&channel_reestablish()),
    ]
}

/// Encodes what was decoded.
fn encode_again(message: &Message) -> Vec<u8> {
    match message {
        Message::Init(message) => encode(message),
        Message::Error(message) => encode(message),
        Message::Warning(message) => encode(message),
        Message::Ping(message) => encode(message),
        Message::Pong(message) => encode(message),
        Message::OpenChannel(message) => encode(&**message),
        Message::AcceptChannel(message) => encode(&**message),
        Message::FundingCreated(message) => encode(message),
        Message::FundingSigned(message) => encode(message),
        Message::ChannelReady(message) => encode(message),
        Message::Shutdown(message) => encode(message),
        Message::ChannelReestablish(message) => encode(message),
        Message::Other { .. } => panic!("{message:?}"),
    }
}
