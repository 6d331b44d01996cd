//! What the driver may ask for, checked field by field.

use std::str::FromStr;

use bitcoin::secp256k1::PublicKey;
use bitcoin::{Amount, ScriptBuf, Transaction, consensus};
use lightning::ln::types::ChannelId;
use opening_core::{ChannelType, FeeratePerKw, MilliSatoshi};
use opening_peer::Ask;
use serde_json::{Map, Value};

/// A command line that makes sense.
#[derive(Debug)]
pub enum Command {
    /// Connect to a peer.
    Connect {
        /// Its node id.
        peer: PublicKey,
        /// Host and port.
        addr: String,
    },
    /// Send `open_channel`.
    FundChannel {
        /// To whom.
        peer: PublicKey,
        /// What to ask for.
        ask: Ask,
    },
    /// The wallet built the funding transaction.
    FundingTx {
        /// Which opening.
        temporary_channel_id: ChannelId,
        /// Signed.
        transaction: Transaction,
    },
    /// End an opening.
    Cancel {
        /// Which opening.
        temporary_channel_id: ChannelId,
    },
    /// A block was mined.
    ConnectBlock {
        /// Its height.
        height: u32,
        /// Without the coinbase.
        transactions: Vec<Transaction>,
    },
    /// The block at the tip was taken back.
    DisconnectBlock {
        /// Its height.
        height: u32,
    },
    /// A block at or below the tip, from before this run.
    PastBlock {
        /// Its height.
        height: u32,
        /// Without the coinbase.
        transactions: Vec<Transaction>,
    },
    /// Every block that matters has been shown since the start.
    Synced,
    /// List every opening and channel.
    Channels,
    /// How everything stands, with the last failure of each peer.
    Status,
    /// Put a peer on the allow-list.
    Allow {
        /// Its node id.
        peer: PublicKey,
    },
    /// Take a peer off the allow-list.
    Disallow {
        /// Its node id.
        peer: PublicKey,
    },
    /// Begin to close an opened channel.
    Shutdown {
        /// Which.
        channel_id: ChannelId,
        /// Where to; may be left out where the opening has fixed it.
        script: Option<ScriptBuf>,
    },
    /// Give up a channel whose funding transaction was double-spent.
    Abandon {
        /// Which.
        channel_id: ChannelId,
    },
    /// Forget a channel that is in use or has failed.
    Release {
        /// Which.
        channel_id: ChannelId,
    },
    /// Give our commitment of a channel that has failed, to be broadcast.
    SignedCommitment {
        /// Which.
        channel_id: ChannelId,
    },
    /// End the process.
    Stop,
}

/// Why something asked for was not done; becomes `error` and `code` of the answer.
#[derive(Debug)]
pub struct Refused {
    /// A stable name for programs.
    pub code: String,
    /// For people.
    pub error: String,
}

impl Refused {
    /// With this code and text.
    pub fn new(code: &str, error: impl ToString) -> Self {
        Self { code: code.into(), error: error.to_string() }
    }
}

/// Reads a line: the `id`, which is answered with whatever it is, and the command.
pub fn parse(line: &str) -> (Value, Result<Command, Refused>) {
    match serde_json::from_str(line) {
        Ok(Value::Object(fields)) => {
            let id = fields.get("id").cloned().unwrap_or(Value::Null);
            (id, Fields(&fields).command())
        }
        Ok(_) => (Value::Null, Err(Refused::new("bad-command", "a command is a JSON object"))),
        Err(error) => (Value::Null, Err(Refused::new("bad-json", error))),
    }
}

struct Fields<'a>(&'a Map<String, Value>);

impl Fields<'_> {
    fn command(&self) -> Result<Command, Refused> {
        Ok(match self.text("cmd")? {
            "connect" => {
                Command::Connect { peer: self.parsed("peer")?, addr: self.text("addr")?.into() }
            }
            "fundchannel" => Command::FundChannel { peer: self.parsed("peer")?, ask: self.ask()? },
            "funding_tx" => Command::FundingTx {
                temporary_channel_id: self.id("temporary_channel_id")?,
                transaction: transaction("tx", self.text("tx")?)?,
            },
            "cancel" => Command::Cancel { temporary_channel_id: self.id("temporary_channel_id")? },
            "connect_block" => Command::ConnectBlock {
                height: self.number("height")?,
                transactions: self.transactions()?,
            },
            "disconnect_block" => Command::DisconnectBlock { height: self.number("height")? },
            "past_block" => Command::PastBlock {
                height: self.number("height")?,
                transactions: self.transactions()?,
            },
            "synced" => Command::Synced,
            other => return self.command_of_operator(other),
        })
    }

    fn command_of_operator(&self, name: &str) -> Result<Command, Refused> {
        Ok(match name {
            "channels" => Command::Channels,
            "status" => Command::Status,
            "allow" => Command::Allow { peer: self.parsed("peer")? },
            "disallow" => Command::Disallow { peer: self.parsed("peer")? },
            "shutdown" => {
                Command::Shutdown { channel_id: self.id("channel_id")?, script: self.script()? }
            }
            "abandon" => Command::Abandon { channel_id: self.id("channel_id")? },
            "release" => Command::Release { channel_id: self.id("channel_id")? },
            "signed_commitment" => Command::SignedCommitment { channel_id: self.id("channel_id")? },
            "stop" => Command::Stop,
            other => return Err(Refused::new("unknown-command", format!("no command {other}"))),
        })
    }

    fn ask(&self) -> Result<Ask, Refused> {
        Ok(Ask {
            funding_satoshis: Amount::from_sat(self.number("funding_satoshis")?),
            push_msat: MilliSatoshi::from_msat(self.optional_number("push_msat")?.unwrap_or(0)),
            feerate_per_kw: FeeratePerKw::new(self.number("feerate_per_kw")?),
            announce_channel: self.announce()?,
            channel_type: self.channel_type()?,
            upfront_shutdown_script: None,
        })
    }

    fn announce(&self) -> Result<bool, Refused> {
        match self.0.get("announce").filter(|announce| !announce.is_null()) {
            None => Ok(false),
            Some(announce) => {
                announce.as_bool().ok_or_else(|| bad_argument("announce", "not true or false"))
            }
        }
    }

    fn channel_type(&self) -> Result<Option<ChannelType>, Refused> {
        let Some(bits) = self.0.get("channel_type").filter(|bits| !bits.is_null()) else {
            return Ok(None);
        };
        let bits: Option<Vec<u16>> = bits
            .as_array()
            .and_then(|bits| bits.iter().map(|bit| u16::try_from(bit.as_u64()?).ok()).collect());
        let defined = bits.as_deref().and_then(ChannelType::from_bits);
        let refused =
            || Refused::new("channel-type-undefined", "channel_type is not a defined one");
        defined.map(Some).ok_or_else(refused)
    }

    fn id(&self, name: &str) -> Result<ChannelId, Refused> {
        let mut id = [0; 32];
        hex::decode_to_slice(self.text(name)?, &mut id)
            .map_err(|error| bad_argument(name, error))?;
        Ok(ChannelId(id))
    }

    fn script(&self) -> Result<Option<ScriptBuf>, Refused> {
        if self.0.get("script").is_none_or(Value::is_null) {
            return Ok(None);
        }
        let script = ScriptBuf::from_hex(self.text("script")?);
        script.map(Some).map_err(|error| bad_argument("script", error))
    }

    fn transactions(&self) -> Result<Vec<Transaction>, Refused> {
        let Some(list) = self.0.get("txs").and_then(Value::as_array) else {
            return Err(bad_argument("txs", "not a list"));
        };
        list.iter()
            .map(|raw| {
                let raw = raw.as_str().ok_or_else(|| bad_argument("txs", "not a list of hex"))?;
                transaction("txs", raw)
            })
            .collect()
    }

    fn text(&self, name: &str) -> Result<&str, Refused> {
        self.0
            .get(name)
            .and_then(Value::as_str)
            .ok_or_else(|| bad_argument(name, "missing, or not a string"))
    }

    fn parsed<T: FromStr<Err: ToString>>(&self, name: &str) -> Result<T, Refused> {
        self.text(name)?.parse().map_err(|error: T::Err| bad_argument(name, error))
    }

    fn number<T: TryFrom<u64>>(&self, name: &str) -> Result<T, Refused> {
        self.optional_number(name)?.ok_or_else(|| bad_argument(name, "missing"))
    }

    fn optional_number<T: TryFrom<u64>>(&self, name: &str) -> Result<Option<T>, Refused> {
        let Some(value) = self.0.get(name).filter(|value| !value.is_null()) else {
            return Ok(None);
        };
        value
            .as_u64()
            .and_then(|number| T::try_from(number).ok())
            .map(Some)
            .ok_or_else(|| bad_argument(name, "not a number, or out of range"))
    }
}

fn transaction(name: &str, raw: &str) -> Result<Transaction, Refused> {
    consensus::encode::deserialize_hex(raw).map_err(|error| bad_argument(name, error))
}

fn bad_argument(name: &str, error: impl ToString) -> Refused {
    Refused::new("bad-argument", format!("{name}: {}", error.to_string()))
}
