//! How Core Lightning's processes spell the fields of their messages.

use bitcoin::consensus::encode::serialize;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::PublicKey;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::{Amount, OutPoint, Psbt, ScriptBuf, Txid};
use lightning::types::features::{ChannelTypeFeatures, InitFeatures};
use opening_core::{ChannelConfig, ChannelKeys, Commitment, FeeratePerKw, MilliSatoshi};

/// What is left of a message.
pub(crate) struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    /// Of a message of this type.
    pub(crate) fn of(bytes: &'a [u8], type_number: u16) -> Self {
        let mut body = Self(bytes);
        assert_eq!(body.u16(), type_number);
        body
    }

    /// There is no field that nobody has read.
    pub(crate) fn end(self) {
        assert!(self.0.is_empty(), "unread: {}", hex::encode(self.0));
    }

    pub(crate) fn bytes(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }

    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        self.bytes(N).try_into().unwrap()
    }

    pub(crate) fn bool(&mut self) -> bool {
        match self.u8() {
            0 => false,
            1 => true,
            other => panic!("{other} is no bool"),
        }
    }

    pub(crate) fn u8(&mut self) -> u8 {
        u8::from_be_bytes(self.array())
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.array())
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.array())
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.array())
    }

    /// A field with a question mark in the layout.
    pub(crate) fn optional<T>(&mut self, read: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.bool().then(|| read(self))
    }

    /// Bytes behind a u16 length.
    pub(crate) fn counted(&mut self) -> &'a [u8] {
        let length = self.u16();
        self.bytes(length.into())
    }

    /// A script behind its u16 length: "none" where that is 0.
    pub(crate) fn script(&mut self) -> Option<ScriptBuf> {
        let bytes = self.counted();
        (!bytes.is_empty()).then(|| ScriptBuf::from_bytes(bytes.to_vec()))
    }

    pub(crate) fn sat(&mut self) -> Amount {
        Amount::from_sat(self.u64())
    }

    pub(crate) fn msat(&mut self) -> MilliSatoshi {
        MilliSatoshi::from_msat(self.u64())
    }

    pub(crate) fn feerate(&mut self) -> FeeratePerKw {
        FeeratePerKw::new(self.u32())
    }

    pub(crate) fn point(&mut self) -> PublicKey {
        PublicKey::from_slice(self.bytes(33)).unwrap()
    }

    /// `basepoints`, and the funding key that stands behind them wherever they are.
    pub(crate) fn keys(&mut self) -> ChannelKeys {
        ChannelKeys {
            revocation_basepoint: self.point(),
            payment_basepoint: self.point(),
            htlc_basepoint: self.point(),
            delayed_payment_basepoint: self.point(),
            funding_pubkey: self.point(),
        }
    }

    pub(crate) fn txid(&mut self) -> Txid {
        Txid::from_byte_array(self.array())
    }

    pub(crate) fn outpoint(&mut self) -> OutPoint {
        OutPoint { txid: self.txid(), vout: self.u32() }
    }

    /// `bitcoin_signature`.
    pub(crate) fn signature(&mut self) -> Signature {
        let signature = Signature::from_compact(self.bytes(64)).unwrap();
        assert_eq!(self.u8(), 1, "SIGHASH_ALL");
        signature
    }

    pub(crate) fn channel_type(&mut self) -> ChannelTypeFeatures {
        ChannelTypeFeatures::from_be_bytes(self.counted().to_vec())
    }

    pub(crate) fn features(&mut self) -> InitFeatures {
        InitFeatures::from_be_bytes(self.counted().to_vec())
    }

    /// `channel_config`, whose last field goes into no message: `max_dust_htlc_exposure_msat`.
    pub(crate) fn config(&mut self) -> (ChannelConfig, MilliSatoshi) {
        let config = ChannelConfig {
            dust_limit_satoshis: self.sat(),
            max_htlc_value_in_flight_msat: self.msat(),
            channel_reserve_satoshis: self.sat(),
            htlc_minimum_msat: self.msat(),
            to_self_delay: self.u16(),
            max_accepted_htlcs: self.u16(),
        };
        (config, self.msat())
    }

    pub(crate) fn transaction(&mut self) -> RecordedTransaction {
        let length = self.u32() as usize;
        let bytes = self.bytes(length).to_vec();
        let length = self.u32() as usize;
        let psbt = Psbt::deserialize(self.bytes(length)).unwrap();
        RecordedTransaction { bytes, psbt }
    }
}

/// `bitcoin_tx`: the bytes of a transaction, and a PSBT of it.
#[derive(Debug)]
pub(crate) struct RecordedTransaction {
    pub(crate) bytes: Vec<u8>,
    pub(crate) psbt: Psbt,
}

impl RecordedTransaction {
    /// That `commitment` is this one, byte for byte, and spends what this one spends.
    #[track_caller]
    pub(crate) fn assert_is(&self, commitment: &Commitment, context: &str) {
        assert_eq!(
            hex::encode(serialize(&commitment.transaction)),
            hex::encode(&self.bytes),
            "{context}"
        );
        assert_eq!(self.psbt.unsigned_tx, commitment.transaction, "{context}");
        let [input] = &self.psbt.inputs[..] else { panic!("{context}: not one input") };
        let script = commitment.funding_witness_script.clone();
        let spent = input.witness_utxo.as_ref().unwrap();
        assert_eq!(spent.value, commitment.funding_satoshis, "{context}");
        assert_eq!(spent.script_pubkey, script.to_p2wsh(), "{context}");
        assert_eq!(input.witness_script, Some(script), "{context}");
    }
}
