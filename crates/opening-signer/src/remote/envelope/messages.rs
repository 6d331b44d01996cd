//! Requests and answers, and what frames them.

use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::secp256k1::PublicKey;
use bitcoin::secp256k1::ecdsa::Signature;
use opening_core::ChannelKeys;

use super::body::{self, Asked, Setup};
use super::failure;
use crate::call::Call;
use crate::error::{HsmError, HsmResult};
use crate::remote::codec::{Malformed, Reader, Write};
use crate::request::ChannelRef;

const REQUEST: u16 = 3;
const DONE: u16 = 4;
const FAILED: u16 = 5;
const PING: u16 = 6;
const PONG: u16 = 7;

/// What a node asks a signer to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// Counts up from 1, never used for another request by this node's process.
    pub(super) id: u64,
    pub(super) channel: ChannelRef,
    /// The same for the same call with the same body, on any connection.
    pub(super) key: [u8; 16],
    /// Carried out only if that request of the same channel did not fail; 0: always.
    pub(super) after: u64,
    pub(super) body: Body,
}

/// A call and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    Channel,
    ForgetChannel,
    Pubkeys,
    PerCommitmentPoint(u64),
    Setup(Box<Setup>),
    SignCounterpartyCommitment(Box<Asked>),
    ValidateHolderCommitment(Box<Asked>, Signature),
    SignHolderCommitment(Box<Asked>),
}

/// What a call gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Channel,
    ForgetChannel,
    Pubkeys(Box<ChannelKeys>),
    PerCommitmentPoint(PublicKey),
    Setup,
    SignCounterpartyCommitment(Signature),
    ValidateHolderCommitment,
    SignHolderCommitment(Signature),
}

/// After the hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FromNode {
    Request(Request),
    Ping(u64),
}

/// After the hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FromSigner {
    Reply(u64, HsmResult<Answer>),
    Pong(u64),
}

/// hsmd's number of the request; its reply's is 100 more.
pub(super) const fn number(call: Call) -> u16 {
    match call {
        Call::SignHolderCommitment => 5,
        Call::Pubkeys => 10,
        Call::PerCommitmentPoint => 18,
        Call::SignCounterpartyCommitment => 19,
        Call::Channel => 30,
        Call::Setup => 31,
        Call::ForgetChannel => 34,
        Call::ValidateHolderCommitment => 35,
    }
}

fn call(wanted: u16) -> Result<Call, Malformed> {
    let found = Call::ALL.into_iter().find(|call| number(*call) == wanted);
    found.ok_or(Malformed::Invalid("the call's number"))
}

impl Body {
    pub(super) fn call(&self) -> Call {
        match self {
            Self::Channel => Call::Channel,
            Self::ForgetChannel => Call::ForgetChannel,
            Self::Pubkeys => Call::Pubkeys,
            Self::PerCommitmentPoint(_) => Call::PerCommitmentPoint,
            Self::Setup(_) => Call::Setup,
            Self::SignCounterpartyCommitment(_) => Call::SignCounterpartyCommitment,
            Self::ValidateHolderCommitment(..) => Call::ValidateHolderCommitment,
            Self::SignHolderCommitment(_) => Call::SignHolderCommitment,
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(1024);
        match self {
            Self::Channel | Self::ForgetChannel | Self::Pubkeys => {}
            Self::PerCommitmentPoint(number) => bytes.put_u64(*number),
            Self::Setup(setup) => setup.put(&mut bytes),
            Self::SignCounterpartyCommitment(asked) | Self::SignHolderCommitment(asked) => {
                asked.put(&mut bytes);
            }
            Self::ValidateHolderCommitment(asked, signature) => {
                asked.put(&mut bytes);
                bytes.put(&signature.serialize_compact());
            }
        }
        bytes
    }

    fn read(call: Call, reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match call {
            Call::Channel => Self::Channel,
            Call::ForgetChannel => Self::ForgetChannel,
            Call::Pubkeys => Self::Pubkeys,
            Call::PerCommitmentPoint => Self::PerCommitmentPoint(reader.u64("the number")?),
            Call::Setup => Self::Setup(Box::new(Setup::read(reader)?)),
            Call::SignCounterpartyCommitment => {
                Self::SignCounterpartyCommitment(Box::new(Asked::read(reader)?))
            }
            Call::ValidateHolderCommitment => Self::ValidateHolderCommitment(
                Box::new(Asked::read(reader)?),
                body::signature(reader)?,
            ),
            Call::SignHolderCommitment => {
                Self::SignHolderCommitment(Box::new(Asked::read(reader)?))
            }
        })
    }
}

impl Request {
    /// With the key that follows from channel and body.
    pub(super) fn new(id: u64, channel: ChannelRef, after: u64, body: Body) -> Self {
        let mut engine = sha256::Hash::engine();
        engine.input(&channel.peer.serialize());
        engine.input(&channel.dbid.to_be_bytes());
        engine.input(&number(body.call()).to_be_bytes());
        engine.input(&body.encode());
        let [key, _] = *sha256::Hash::from_engine(engine).as_byte_array().as_chunks().0 else {
            unreachable!("32 bytes are twice 16");
        };
        Self { id, channel, key, after, body }
    }
}

impl FromNode {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut message = Vec::with_capacity(1536);
        match self {
            Self::Ping(number) => {
                message.put_u16(PING);
                message.put_u64(*number);
            }
            Self::Request(request) => {
                message.put_u16(REQUEST);
                message.put_u64(request.id);
                message.put_public_key(&request.channel.peer);
                message.put_u64(request.channel.dbid);
                message.put(&request.key);
                message.put_u64(request.after);
                message.put_u16(number(request.body.call()));
                message.put(&request.body.encode());
            }
        }
        message
    }

    pub(super) fn decode(message: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(message);
        let decoded = match reader.u16("the type")? {
            PING => Self::Ping(reader.u64("the ping")?),
            REQUEST => {
                let id = reader.u64("the request id")?;
                if id == 0 {
                    return Err(Malformed::Invalid("the request id"));
                }
                let peer = reader.public_key("the peer")?;
                let channel = ChannelRef { peer, dbid: reader.u64("the dbid")? };
                let key = reader.array("the idempotency key")?;
                let after = reader.u64("the request before")?;
                if after >= id {
                    return Err(Malformed::Invalid("the request before"));
                }
                let call = call(reader.u16("the call's number")?)?;
                let body = Body::read(call, &mut reader)?;
                Self::Request(Request { id, channel, key, after, body })
            }
            _ => return Err(Malformed::Invalid("the type")),
        };
        reader.end()?;
        Ok(decoded)
    }
}

impl Answer {
    pub(super) fn call(&self) -> Call {
        match self {
            Self::Channel => Call::Channel,
            Self::ForgetChannel => Call::ForgetChannel,
            Self::Pubkeys(_) => Call::Pubkeys,
            Self::PerCommitmentPoint(_) => Call::PerCommitmentPoint,
            Self::Setup => Call::Setup,
            Self::SignCounterpartyCommitment(_) => Call::SignCounterpartyCommitment,
            Self::ValidateHolderCommitment => Call::ValidateHolderCommitment,
            Self::SignHolderCommitment(_) => Call::SignHolderCommitment,
        }
    }

    fn read(call: Call, reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match call {
            Call::Channel => Self::Channel,
            Call::ForgetChannel => Self::ForgetChannel,
            Call::Setup => Self::Setup,
            Call::ValidateHolderCommitment => Self::ValidateHolderCommitment,
            Call::Pubkeys => Self::Pubkeys(Box::new(body::keys(reader)?)),
            Call::PerCommitmentPoint => Self::PerCommitmentPoint(reader.public_key("the point")?),
            Call::SignCounterpartyCommitment => {
                Self::SignCounterpartyCommitment(body::signature(reader)?)
            }
            Call::SignHolderCommitment => Self::SignHolderCommitment(body::signature(reader)?),
        })
    }

    fn put(&self, message: &mut Vec<u8>) {
        message.put_u16(number(self.call()) + 100);
        match self {
            Self::Channel | Self::ForgetChannel => {}
            Self::Setup | Self::ValidateHolderCommitment => {}
            Self::Pubkeys(keys) => body::put_keys(message, keys),
            Self::PerCommitmentPoint(point) => message.put_public_key(point),
            Self::SignCounterpartyCommitment(signature) | Self::SignHolderCommitment(signature) => {
                message.put(&signature.serialize_compact());
            }
        }
    }
}

impl FromSigner {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut message = Vec::with_capacity(192);
        match self {
            Self::Pong(number) => {
                message.put_u16(PONG);
                message.put_u64(*number);
            }
            Self::Reply(id, Ok(answer)) => {
                message.put_u16(DONE);
                message.put_u64(*id);
                answer.put(&mut message);
            }
            Self::Reply(id, Err(error)) => {
                message.put_u16(FAILED);
                message.put_u64(*id);
                failure::put(&mut message, error);
            }
        }
        message
    }

    pub(super) fn decode(message: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(message);
        let decoded = match reader.u16("the type")? {
            PONG => Self::Pong(reader.u64("the pong")?),
            DONE => {
                let id = reader.u64("the request id")?;
                let number = reader.u16("the reply's number")?.checked_sub(100);
                let call = call(number.ok_or(Malformed::Invalid("the reply's number"))?)?;
                Self::Reply(id, Ok(Answer::read(call, &mut reader)?))
            }
            FAILED => {
                let id = reader.u64("the request id")?;
                Self::Reply(id, Err(failure::read(&mut reader)?))
            }
            _ => return Err(Malformed::Invalid("the type")),
        };
        reader.end()?;
        Ok(decoded)
    }
}

/// The answer is to another call.
pub(super) fn mixed_up() -> HsmError {
    HsmError::Protocol("it answered another call".into())
}
