//! How hsmd's wire spells what is not a number.

use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::{Script, ScriptBuf};
use opening_core::ChannelKeys;

use super::psbt::BitcoinTx;
use crate::remote::codec::{Malformed, Reader, Write};
use crate::request::ChannelRef;

/// SIGHASH_ALL: what opening a channel signs with.
const SIGHASH_ALL: u8 = 1;

/// Longest text that is shown to an operator.
const LONGEST_TEXT: usize = 400;

pub(super) trait HsmdReader {
    fn reference(&mut self) -> Result<ChannelRef, Malformed>;
    fn keys(&mut self) -> Result<ChannelKeys, Malformed>;
    fn signature(&mut self, what: &'static str) -> Result<Signature, Malformed>;
    /// "None" is written as no bytes.
    fn script(&mut self, what: &'static str) -> Result<Option<ScriptBuf>, Malformed>;
    fn tx(&mut self) -> Result<BitcoinTx, Malformed>;
    /// A text that ends with a zero byte, made printable.
    fn text(&mut self, what: &'static str) -> Result<String, Malformed>;
    /// An optional secret, which must be absent.
    fn no_secret(&mut self, what: &'static str) -> Result<(), Malformed>;
    /// A count that must be zero.
    fn none(&mut self, what: &'static str) -> Result<(), Malformed>;
    /// Records of which `may_skip` knows the types, up to the end.
    fn skip_tlvs(&mut self, may_skip: impl Fn(u64) -> bool) -> Result<(), Malformed>;
}

impl HsmdReader for Reader<'_> {
    fn reference(&mut self) -> Result<ChannelRef, Malformed> {
        Ok(ChannelRef { peer: self.public_key("peer")?, dbid: self.u64("dbid")? })
    }

    fn keys(&mut self) -> Result<ChannelKeys, Malformed> {
        Ok(ChannelKeys {
            revocation_basepoint: self.public_key("revocation_basepoint")?,
            payment_basepoint: self.public_key("payment_basepoint")?,
            htlc_basepoint: self.public_key("htlc_basepoint")?,
            delayed_payment_basepoint: self.public_key("delayed_payment_basepoint")?,
            funding_pubkey: self.public_key("funding_pubkey")?,
        })
    }

    fn signature(&mut self, what: &'static str) -> Result<Signature, Malformed> {
        let bytes = self.array::<64>(what)?;
        let signature = Signature::from_compact(&bytes).map_err(|_| Malformed::Invalid(what))?;
        match self.u8(what)? {
            SIGHASH_ALL => Ok(signature),
            _ => Err(Malformed::Invalid(what)),
        }
    }

    fn script(&mut self, what: &'static str) -> Result<Option<ScriptBuf>, Malformed> {
        let bytes = self.short_bytes(what)?;
        Ok((!bytes.is_empty()).then(|| ScriptBuf::from_bytes(bytes.to_vec())))
    }

    fn tx(&mut self) -> Result<BitcoinTx, Malformed> {
        let transaction = self.long_bytes("a transaction")?;
        BitcoinTx::read(transaction, self.long_bytes("a PSBT")?)
    }

    fn text(&mut self, what: &'static str) -> Result<String, Malformed> {
        let mut text = String::new();
        loop {
            match self.u8(what)? {
                0 => return Ok(text),
                _ if text.len() == LONGEST_TEXT => {}
                byte @ b' '..=b'~' => text.push(byte.into()),
                _ => text.push('?'),
            }
        }
    }

    fn no_secret(&mut self, what: &'static str) -> Result<(), Malformed> {
        if self.bool(what)? { Err(Malformed::Secret(what)) } else { Ok(()) }
    }

    fn none(&mut self, what: &'static str) -> Result<(), Malformed> {
        if self.u16(what)? == 0 { Ok(()) } else { Err(Malformed::Invalid(what)) }
    }

    fn skip_tlvs(&mut self, may_skip: impl Fn(u64) -> bool) -> Result<(), Malformed> {
        while !self.at_end() {
            let number = big_size(self)?;
            let length = usize::try_from(big_size(self)?);
            self.bytes(length.map_err(|_| Malformed::Short("a TLV record"))?, "a TLV record")?;
            if !may_skip(number) {
                return Err(Malformed::Invalid("a TLV record's type"));
            }
        }
        Ok(())
    }
}

/// BOLT 1's numbers of one to nine bytes.
fn big_size(from: &mut Reader<'_>) -> Result<u64, Malformed> {
    const WHAT: &str = "a TLV record";
    match from.u8(WHAT)? {
        0xfd => Ok(from.u16(WHAT)?.into()),
        0xfe => Ok(from.u32(WHAT)?.into()),
        0xff => from.u64(WHAT),
        small => Ok(small.into()),
    }
}

pub(super) trait HsmdWrite: Write {
    fn put_reference(&mut self, reference: ChannelRef) {
        self.put_public_key(&reference.peer);
        self.put_u64(reference.dbid);
    }

    fn put_keys(&mut self, keys: &ChannelKeys) {
        for key in [
            keys.revocation_basepoint,
            keys.payment_basepoint,
            keys.htlc_basepoint,
            keys.delayed_payment_basepoint,
            keys.funding_pubkey,
        ] {
            self.put_public_key(&key);
        }
    }

    fn put_signature(&mut self, signature: &Signature) {
        self.put(&signature.serialize_compact());
        self.put(&[SIGHASH_ALL]);
    }

    fn put_script(&mut self, script: Option<&Script>) {
        self.put_short_bytes(script.map_or(&[], |script| script.as_bytes()));
    }

    fn put_tx(&mut self, tx: &BitcoinTx) {
        self.put_long_bytes(&tx.transaction_bytes());
        self.put_long_bytes(tx.psbt());
    }

    /// Ends at the first zero byte of `text`, if it has one.
    fn put_text(&mut self, text: &str) {
        let bytes = text.bytes().take_while(|byte| *byte != 0);
        self.put(&bytes.chain([0]).collect::<Vec<_>>());
    }
}

impl HsmdWrite for Vec<u8> {}
