//! The first message of each side: versions, chain, and what the signer says about itself.

use bitcoin::Amount;
use bitcoin::constants::ChainHash;
use opening_core::{ChannelTypes, FeeratePerKw, FeerateRange};

use super::link::LinkError;
use crate::info::{Bounds, Enforcement, Info, Pipelining};
use crate::remote::codec::{Malformed, Reader, Write};

/// The version that we speak.
pub(super) const VERSION: u16 = 1;
/// What a connection to something else does not begin with.
const MAGIC: &[u8; 8] = b"opensign";
/// What a node begins with on hsmd's wire (`init`).
const HSMD_INIT: u16 = 11;
const NODE_HELLO: u16 = 1;
const SIGNER_HELLO: u16 = 2;

/// What a node begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NodeHello {
    pub(super) chain_hash: ChainHash,
}

/// What a signer answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SignerHello {
    pub(super) chain_hash: ChainHash,
    pub(super) info: Info,
    /// Requests that may be unanswered at once.
    pub(super) max_in_flight: u32,
}

impl NodeHello {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut message = start(NODE_HELLO);
        message.put(&self.chain_hash.to_bytes());
        message
    }

    pub(super) fn decode(message: &[u8]) -> Result<Self, LinkError> {
        let mut reader = common_version(message, NODE_HELLO)?;
        let chain_hash = ChainHash::from(reader.array("the chain hash")?);
        reader.end()?;
        Ok(Self { chain_hash })
    }
}

impl SignerHello {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut message = start(SIGNER_HELLO);
        message.put(&self.chain_hash.to_bytes());
        put_info(&mut message, &self.info);
        message.put_u32(self.max_in_flight);
        message
    }

    pub(super) fn decode(message: &[u8]) -> Result<Self, LinkError> {
        let mut reader = common_version(message, SIGNER_HELLO)?;
        let chain_hash = ChainHash::from(reader.array("the chain hash")?);
        let info = info(&mut reader)?;
        let max_in_flight = reader.u32("the number of requests at once")?;
        reader.end()?;
        if max_in_flight < MIN_IN_FLIGHT {
            return Err(Malformed::Invalid("the number of requests at once").into());
        }
        Ok(Self { chain_hash, info, max_in_flight })
    }
}

/// Whether a message of unknown origin is a hello of this wire, of whichever side and version.
pub(in crate::remote) fn is_hello(message: &[u8]) -> bool {
    let is_kind = |kind: u16| message.starts_with(&kind.to_be_bytes());
    (is_kind(NODE_HELLO) || is_kind(SIGNER_HELLO)) && message[2..].starts_with(MAGIC)
}

/// One request and all that has to be told again before it.
pub(super) const MIN_IN_FLIGHT: u32 = 8;

pub(super) fn same_chain(ours: ChainHash, theirs: ChainHash) -> Result<(), LinkError> {
    if ours == theirs { Ok(()) } else { Err(LinkError::Chain { ours, theirs }) }
}

fn start(kind: u16) -> Vec<u8> {
    let mut message = Vec::with_capacity(128);
    message.put_u16(kind);
    message.put(MAGIC);
    message.put_u16(VERSION);
    message.put_u16(VERSION);
    message
}

/// Reads no further where the versions differ: nobody knows what follows.
fn common_version(message: &[u8], kind: u16) -> Result<Reader<'_>, LinkError> {
    let mut reader = Reader::new(message);
    match reader.u16("the type")? {
        HSMD_INIT => return Err(Malformed::OtherWire("hsmd's wire, not the enveloped one").into()),
        theirs if theirs == kind && reader.array("the magic")? == *MAGIC => {}
        _ => return Err(Malformed::Invalid("the hello").into()),
    }
    let (theirs_min, theirs_max) =
        (reader.u16("the oldest version")?, reader.u16("the newest version")?);
    if !(theirs_min..=theirs_max).contains(&VERSION) {
        return Err(LinkError::Version { ours: VERSION, theirs_min, theirs_max });
    }
    Ok(reader)
}

fn put_info(message: &mut Vec<u8>, info: &Info) {
    let Info { enforcement, bounds, pipelining } = info;
    message.put_bool(*enforcement == Enforcement::Validating);
    message.put_u64(bounds.max_funding_satoshis.to_sat());
    message.put_u16(*bounds.to_self_delay.start());
    message.put_u16(*bounds.to_self_delay.end());
    message.put_u32(bounds.feerates.min.to_sat_per_kw());
    message.put_u32(bounds.feerates.max.to_sat_per_kw());
    message.put(&[bounds.channel_types.to_bits()]);
    message.put_bool(*pipelining == Pipelining::InOrder);
}

fn info(reader: &mut Reader<'_>) -> Result<Info, Malformed> {
    let enforcement = match reader.bool("the enforcement")? {
        false => Enforcement::Blind,
        true => Enforcement::Validating,
    };
    let max_funding_satoshis = Amount::from_sat(reader.u64("the largest funding")?);
    let to_self_delay = reader.u16("the shortest delay")?..=reader.u16("the longest delay")?;
    let feerates = FeerateRange {
        min: FeeratePerKw::new(reader.u32("the lowest feerate")?),
        max: FeeratePerKw::new(reader.u32("the highest feerate")?),
    };
    let channel_types = ChannelTypes::from_bits(reader.u8("the channel types")?);
    let pipelining = match reader.bool("the pipelining")? {
        false => Pipelining::OneByOne,
        true => Pipelining::InOrder,
    };
    let bounds = Bounds { max_funding_satoshis, to_self_delay, feerates, channel_types };
    Ok(Info { enforcement, bounds, pipelining })
}
