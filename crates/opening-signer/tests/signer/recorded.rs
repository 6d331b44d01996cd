//! What Core Lightning's hsmd was asked and answered.

use bitcoin::consensus::encode::deserialize;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::PublicKey;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::{Amount, OutPoint, Transaction, Txid};
use opening_core::{
    ChannelKeys, ChannelParameters, ChannelType, FeeratePerKw, MilliSatoshi, Party, Side,
};

pub(crate) const FUNDER: &str = include_str!("../vectors/hsmd-open-funder.msgs");
pub(crate) const FUNDEE: &str = include_str!("../vectors/hsmd-open-fundee.msgs");

/// The body of a recorded message.
struct Body(Vec<u8>);

impl Body {
    /// The first message of this type.
    fn first(recording: &str, kind: u16) -> Self {
        let marker = format!(" type {kind} ");
        let line = recording.lines().find(|line| line.starts_with("fd") && line.contains(&marker));
        let hex = line.unwrap().rsplit(' ').next().unwrap();
        let mut body = Self(hex::decode(hex).unwrap());
        assert_eq!(body.number(2), u64::from(kind));
        body
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        self.0.drain(..length).collect()
    }

    /// A big-endian integer of `length` bytes.
    fn number(&mut self, length: usize) -> u64 {
        self.take(length).iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    fn point(&mut self) -> PublicKey {
        PublicKey::from_slice(&self.take(33)).unwrap()
    }

    /// Four basepoints in hsmd's order, then the funding key.
    fn keys(&mut self) -> ChannelKeys {
        ChannelKeys {
            revocation_basepoint: self.point(),
            payment_basepoint: self.point(),
            htlc_basepoint: self.point(),
            delayed_payment_basepoint: self.point(),
            funding_pubkey: self.point(),
        }
    }

    /// A transaction and the PSBT that repeats it.
    fn transaction(&mut self) -> Transaction {
        let length = self.number(4) as usize;
        let transaction = deserialize(&self.take(length)).unwrap();
        let length = self.number(4) as usize;
        self.take(length);
        transaction
    }

    fn signature(&mut self) -> Signature {
        let signature = Signature::from_compact(&self.take(64)).unwrap();
        assert_eq!(self.number(1), 1, "SIGHASH_ALL");
        signature
    }
}

/// What hsmd was asked and answered.
pub(crate) struct Recording {
    pub(crate) parameters: ChannelParameters,
    pub(crate) counterparty: Transaction,
    pub(crate) counterparty_signature: Signature,
    pub(crate) holder: Transaction,
    pub(crate) holder_signature: Signature,
    pub(crate) next_point: PublicKey,
}

pub(crate) fn read(recording: &str, config: opening_core::ChannelConfig) -> Recording {
    let mut told = Body::first(recording, 31);
    let opener = if told.number(1) == 1 { Side::Local } else { Side::Remote };
    let funding_satoshis = Amount::from_sat(told.number(8));
    let push_msat = MilliSatoshi::from_msat(told.number(8));
    let txid = Txid::from_byte_array(told.take(32).try_into().unwrap());
    let vout = told.number(2) as u32;
    assert_eq!(told.number(2), 6, "our to_self_delay");
    assert_eq!(told.number(2), 0, "no upfront script of ours");
    assert_eq!(told.number(1), 0, "no wallet index of it");
    let remote_keys = told.keys();
    assert_eq!(told.number(2), 6, "their to_self_delay");
    assert_eq!(told.number(2), 0, "no upfront script of theirs");
    assert_eq!(told.number(2), 3, "bytes of the channel type");
    assert_eq!(told.take(3), [0x40, 0x10, 0x00]);
    assert!(told.0.is_empty());

    let mut sign = Body::first(recording, 19);
    let counterparty = sign.transaction();
    assert_eq!(sign.point(), remote_keys.funding_pubkey);
    let remote_point = sign.point();
    let mut validate = Body::first(recording, 35);
    let holder = validate.transaction();
    assert_eq!(validate.number(2 + 8 + 4), 0, "no HTLCs, number, feerate");
    let holder_signature = validate.signature();
    let mut validated = Body::first(recording, 135);
    assert_eq!(validated.number(1), 0, "no secret");

    let party =
        |keys, first_per_commitment_point| Party { config, keys, first_per_commitment_point };
    let parameters = ChannelParameters {
        opener,
        funding_outpoint: OutPoint { txid, vout },
        funding_satoshis,
        push_msat,
        // hsmd is told 0; the recorded nodes agreed on this.
        feerate_per_kw: FeeratePerKw::new(1250),
        channel_type: ChannelType::ANCHORS,
        local: party(Body::first(recording, 110).keys(), Body::first(recording, 118).point()),
        remote: party(remote_keys, remote_point),
    };
    Recording {
        parameters,
        counterparty,
        counterparty_signature: Body::first(recording, 112).signature(),
        holder,
        holder_signature,
        next_point: validated.point(),
    }
}
