//! The first commitment transactions of both sides (BOLT 3).
//!
//! A first commitment has no HTLCs: two balances, two anchors at most.  What BOLT 3 calls local
//! and remote *in a transaction* is here its owner and the owner's counterparty, because this
//! node builds both transactions.

use alloc::vec::Vec;

use bitcoin::absolute::LockTime;
use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::opcodes::all::{
    OP_CHECKSIG, OP_CHECKSIGVERIFY, OP_CSV, OP_DROP, OP_ELSE, OP_ENDIF, OP_IF, OP_IFDUP, OP_NOTIF,
    OP_PUSHNUM_1, OP_PUSHNUM_16,
};
use bitcoin::script::Builder;
use bitcoin::secp256k1::{self, Message, PublicKey, Secp256k1, ecdsa::Signature};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Weight, Witness,
    WitnessProgram,
};

use crate::amount::{FeeratePerKw, MilliSatoshi};
use crate::channel_type::{ChannelType, CommitmentFormat};
use crate::config::ChannelConfig;
use crate::funding::funding_witness_script;
use crate::keys::{ChannelKeys, derive_public_key, derive_revocation_public_key};
use crate::side::Side;

/// Satoshis of each anchor output (B3-OUT-B-08).
pub const ANCHOR_VALUE: Amount = Amount::from_sat(330);

/// The largest commitment number (B3-SEC-B-03).
pub const MAX_COMMITMENT_NUMBER: u64 = (1 << 48) - 1;

/// What one side brought to the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Party {
    /// What it announced.
    pub config: ChannelConfig,
    /// Its public keys.
    pub keys: ChannelKeys,
    /// Its per-commitment point of commitment 0.
    pub first_per_commitment_point: PublicKey,
}

/// All that the first commitment transactions are made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ChannelParameters {
    /// Who pays the commitment fee and the anchors.
    pub opener: Side,
    /// The output that the commitments spend.
    pub funding_outpoint: OutPoint,
    /// Satoshis in that output.
    pub funding_satoshis: Amount,
    /// Millisatoshis of it that belong to the other side from the start.
    pub push_msat: MilliSatoshi,
    /// sat per 1000 weight units of the commitment transactions; set by the opener, who pays it.
    pub feerate_per_kw: FeeratePerKw,
    /// The form of the commitments.
    pub channel_type: ChannelType,
    /// Our part.
    pub local: Party,
    /// The peer's part.
    pub remote: Party,
}

/// Why a commitment transaction cannot be built.  The rules refuse every such channel before;
/// the builder holds its own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommitmentError {
    /// More is pushed than there is.
    #[error("push_msat {push_msat} exceeds funding_satoshis {funding_satoshis}")]
    PushExceedsFunding {
        /// What is given to the fundee.
        push_msat: MilliSatoshi,
        /// All there is.
        funding_satoshis: Amount,
    },
    /// The opener cannot pay for the transaction (B2-OPEN-R-21).
    #[error("the opener has {available}, fee and anchors take {needed}")]
    Unaffordable {
        /// The opener's balance.
        available: Amount,
        /// Fee and both anchors.
        needed: Amount,
    },
    /// Both balances fall below the owner's dust limit: nothing would be left to claim.
    #[error("both balances are below the dust limit {dust_limit_satoshis}")]
    NoOutputs {
        /// The owner's dust limit.
        dust_limit_satoshis: Amount,
    },
    /// A number beyond 2^48 − 1 (B3-SEC-B-03).
    #[error("commitment number {0} is beyond 2^48 - 1")]
    NumberTooLarge(u64),
    /// A derived key is the point at infinity.
    #[error("a derived key is not a curve point")]
    Key(#[cfg_attr(feature = "std", source)] secp256k1::Error),
}

/// Weight that the commitment fee is charged for, whichever outputs are really there
/// (B3-FEE-B-01, B3-FEE-B-02).
pub const fn commitment_weight(format: CommitmentFormat) -> Weight {
    match format {
        CommitmentFormat::StaticRemotekey => Weight::from_wu(724),
        CommitmentFormat::Anchors => Weight::from_wu(1124),
    }
}

/// What the opener pays: the fee and, with anchors, both of them (B3-CON-B-01, B3-CON-B-02).
/// Fee and anchors each fit in 33 bits, so that the sum never overflows.
pub fn opener_cost(feerate_per_kw: FeeratePerKw, format: CommitmentFormat) -> Amount {
    let fee = feerate_per_kw
        .fee(commitment_weight(format))
        .expect("a 32-bit feerate times 1124 fits in 64 bits");
    match format {
        CommitmentFormat::StaticRemotekey => fee,
        CommitmentFormat::Anchors => fee + ANCHOR_VALUE * 2,
    }
}

/// Both sides' amounts in whole satoshis, the opener's cost already subtracted, nothing trimmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balances {
    /// The opener's, rounded down after what it pushed.
    pub opener: Amount,
    /// The other side's: what was pushed, rounded down.
    pub accepter: Amount,
}

impl Balances {
    /// Splits the funding (B2-OPEN-B-02) and charges the opener (B3-TRIM-B-01, B3-FEE-B-03).
    pub fn after_cost(
        funding_satoshis: Amount,
        push_msat: MilliSatoshi,
        cost: Amount,
    ) -> Result<Self, CommitmentError> {
        let kept = MilliSatoshi::from_amount(funding_satoshis)
            .and_then(|all| all.checked_sub(push_msat))
            .ok_or(CommitmentError::PushExceedsFunding { push_msat, funding_satoshis })?;
        let available = kept.to_amount_floor();
        let opener = available
            .checked_sub(cost)
            .ok_or(CommitmentError::Unaffordable { available, needed: cost })?;
        Ok(Self { opener, accepter: push_msat.to_amount_floor() })
    }
}

/// One side's unsigned commitment transaction, with what is needed to sign and to watch it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commitment {
    /// Whose transaction: the side that can broadcast it.
    pub owner: Side,
    /// Counts up from 0.
    pub number: u64,
    /// Unsigned.
    pub transaction: Transaction,
    /// Index of the owner's delayed output, unless it was trimmed.
    pub to_local: Option<usize>,
    /// Index of the counterparty's output, unless it was trimmed.
    pub to_remote: Option<usize>,
    /// The witness script of the funding output that it spends.
    pub funding_witness_script: ScriptBuf,
    /// Satoshis of the funding output; signatures commit to them.
    pub funding_satoshis: Amount,
}

impl ChannelParameters {
    /// What the side announced and brought.
    pub const fn party(&self, side: Side) -> &Party {
        match side {
            Side::Local => &self.local,
            Side::Remote => &self.remote,
        }
    }

    /// The first commitment transaction of `owner`.
    pub fn first_commitment<C: secp256k1::Verification>(
        &self,
        secp: &Secp256k1<C>,
        owner: Side,
    ) -> Result<Commitment, CommitmentError> {
        self.commitment(secp, owner, 0, &self.party(owner).first_per_commitment_point)
    }

    /// The commitment transaction `number` of `owner`, at the opening balances.
    pub fn commitment<C: secp256k1::Verification>(
        &self,
        secp: &Secp256k1<C>,
        owner: Side,
        number: u64,
        per_commitment_point: &PublicKey,
    ) -> Result<Commitment, CommitmentError> {
        if number > MAX_COMMITMENT_NUMBER {
            return Err(CommitmentError::NumberTooLarge(number));
        }
        let outputs = self.outputs(secp, owner, per_commitment_point)?;
        let index = |kind| outputs.iter().position(|(of, _)| *of == kind);
        let (to_local, to_remote) = (index(Kind::ToLocal), index(Kind::ToRemote));
        let obscured = self.obscuring_factor() ^ number;
        let upper = (obscured >> 24) as u32;
        let lower = (obscured & 0xff_ffff) as u32;
        let input = TxIn {
            previous_output: self.funding_outpoint,
            script_sig: ScriptBuf::new(),
            sequence: Sequence(0x8000_0000 | upper),
            witness: Witness::new(),
        };
        Ok(Commitment {
            owner,
            number,
            transaction: Transaction {
                version: Version::TWO,
                lock_time: LockTime::from_consensus(0x2000_0000 | lower),
                input: Vec::from([input]),
                output: outputs.into_iter().map(|(_, output)| output).collect(),
            },
            to_local,
            to_remote,
            funding_witness_script: self.funding_witness_script(),
            funding_satoshis: self.funding_satoshis,
        })
    }

    /// The witness script of the funding output.
    pub fn funding_witness_script(&self) -> ScriptBuf {
        funding_witness_script(&self.local.keys.funding_pubkey, &self.remote.keys.funding_pubkey)
    }

    /// Hides how many commitments there were: the lower 48 bits of a hash over both payment
    /// basepoints, the opener's first whoever builds (B3-CTX-B-08).
    pub fn obscuring_factor(&self) -> u64 {
        let mut engine = sha256::Hash::engine();
        for side in [self.opener, self.opener.other()] {
            engine.input(&self.party(side).keys.payment_basepoint.serialize());
        }
        let hash = sha256::Hash::from_engine(engine).to_byte_array();
        hash[26..].iter().fold(0, |factor, &byte| factor << 8 | u64::from(byte))
    }

    /// The outputs, sorted (B3-ORD-B-01, B3-ORD-B-02).
    fn outputs<C: secp256k1::Verification>(
        &self,
        secp: &Secp256k1<C>,
        owner: Side,
        per_commitment_point: &PublicKey,
    ) -> Result<Vec<(Kind, TxOut)>, CommitmentError> {
        let format = self.channel_type.commitment_format;
        let cost = opener_cost(self.feerate_per_kw, format);
        let balances = Balances::after_cost(self.funding_satoshis, self.push_msat, cost)?;
        let (to_local, to_remote) = if owner == self.opener {
            (balances.opener, balances.accepter)
        } else {
            (balances.accepter, balances.opener)
        };
        let (own, counter) = (self.party(owner), self.party(owner.other()));
        let dust_limit = own.config.dust_limit_satoshis;

        let mut outputs = Vec::with_capacity(4);
        if to_local >= dust_limit {
            let revocation_pubkey = derive_revocation_public_key(
                secp,
                &counter.keys.revocation_basepoint,
                per_commitment_point,
            );
            let delayed_pubkey =
                derive_public_key(secp, &own.keys.delayed_payment_basepoint, per_commitment_point);
            let script = to_local_script(
                &revocation_pubkey.map_err(CommitmentError::Key)?,
                // The delay that binds the owner is the one the counterparty asked for.
                counter.config.to_self_delay,
                &delayed_pubkey.map_err(CommitmentError::Key)?,
            );
            outputs
                .push((Kind::ToLocal, TxOut { value: to_local, script_pubkey: script.to_p2wsh() }));
            outputs.extend(anchor(format, &own.keys.funding_pubkey));
        }
        if to_remote >= dust_limit {
            let script_pubkey = to_remote_script_pubkey(format, &counter.keys.payment_basepoint);
            outputs.push((Kind::ToRemote, TxOut { value: to_remote, script_pubkey }));
            outputs.extend(anchor(format, &counter.keys.funding_pubkey));
        }
        if outputs.is_empty() {
            return Err(CommitmentError::NoOutputs { dust_limit_satoshis: dust_limit });
        }
        outputs.sort_by(|(_, one), (_, other)| {
            (one.value, &one.script_pubkey).cmp(&(other.value, &other.script_pubkey))
        });
        Ok(outputs)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    ToLocal,
    ToRemote,
    Anchor,
}

fn anchor(format: CommitmentFormat, funding_pubkey: &PublicKey) -> Option<(Kind, TxOut)> {
    (format == CommitmentFormat::Anchors).then(|| {
        let script_pubkey = anchor_script(funding_pubkey).to_p2wsh();
        (Kind::Anchor, TxOut { value: ANCHOR_VALUE, script_pubkey })
    })
}

/// The witness script of `to_local` (B3-OUT-B-03).
pub fn to_local_script(
    revocation_pubkey: &PublicKey,
    to_self_delay: u16,
    delayed_pubkey: &PublicKey,
) -> ScriptBuf {
    Builder::new()
        .push_opcode(OP_IF)
        .push_slice(revocation_pubkey.serialize())
        .push_opcode(OP_ELSE)
        .push_int(i64::from(to_self_delay))
        .push_opcode(OP_CSV)
        .push_opcode(OP_DROP)
        .push_slice(delayed_pubkey.serialize())
        .push_opcode(OP_ENDIF)
        .push_opcode(OP_CHECKSIG)
        .into_script()
}

/// The witness script of `to_remote` where there are anchors (B3-OUT-B-04).
fn to_remote_anchors_script(payment_pubkey: &PublicKey) -> ScriptBuf {
    Builder::new()
        .push_slice(payment_pubkey.serialize())
        .push_opcode(OP_CHECKSIGVERIFY)
        .push_opcode(OP_PUSHNUM_1)
        .push_opcode(OP_CSV)
        .into_script()
}

/// The script of `to_remote` (B3-OUT-B-04, B3-OUT-B-05).
fn to_remote_script_pubkey(format: CommitmentFormat, payment_pubkey: &PublicKey) -> ScriptBuf {
    match format {
        CommitmentFormat::Anchors => to_remote_anchors_script(payment_pubkey).to_p2wsh(),
        CommitmentFormat::StaticRemotekey => {
            let key = bitcoin::CompressedPublicKey(*payment_pubkey);
            ScriptBuf::new_witness_program(&WitnessProgram::p2wpkh(&key))
        }
    }
}

/// The witness script of an anchor (B3-OUT-B-07).
fn anchor_script(funding_pubkey: &PublicKey) -> ScriptBuf {
    Builder::new()
        .push_slice(funding_pubkey.serialize())
        .push_opcode(OP_CHECKSIG)
        .push_opcode(OP_IFDUP)
        .push_opcode(OP_NOTIF)
        .push_opcode(OP_PUSHNUM_16)
        .push_opcode(OP_CSV)
        .push_opcode(OP_ENDIF)
        .into_script()
}

/// What is needed to punish the owner of a revoked commitment without keeping all of it: the
/// place of its delayed output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PenaltyBase {
    /// The commitment's number.
    pub commitment_number: u64,
    /// The delayed output.
    pub outpoint: OutPoint,
    /// Satoshis in it.
    pub amount: Amount,
}

impl Commitment {
    /// Where the owner's delayed output stands; `None` if it was trimmed.
    pub fn penalty_base(&self) -> Option<PenaltyBase> {
        let index = self.to_local?;
        let vout = u32::try_from(index).expect("at most four outputs");
        Some(PenaltyBase {
            commitment_number: self.number,
            outpoint: OutPoint { txid: self.transaction.compute_txid(), vout },
            amount: self.transaction.output[index].value,
        })
    }

    /// What both sides sign: the BIP 143 digest with `SIGHASH_ALL` (B3-SIG-B-01).
    pub fn sighash(&self) -> Message {
        let digest = SighashCache::new(&self.transaction)
            .p2wsh_signature_hash(
                0,
                &self.funding_witness_script,
                self.funding_satoshis,
                EcdsaSighashType::All,
            )
            .expect("a commitment has input 0");
        Message::from_digest(digest.to_byte_array())
    }

    /// Whether `signature` is one by `funding_pubkey` over this transaction, in its low-S form
    /// (B2-FC-R-01, B2-FS-R-01).
    pub fn is_signed_by<C: secp256k1::Verification>(
        &self,
        secp: &Secp256k1<C>,
        signature: &Signature,
        funding_pubkey: &PublicKey,
    ) -> bool {
        // libsecp256k1 takes only low-S signatures for valid.
        secp.verify_ecdsa(&self.sighash(), signature, funding_pubkey).is_ok()
    }

    /// The transaction with both signatures in the order of the keys (B3-CTX-B-07,
    /// B3-SEG-B-01, B3-SEG-B-02).
    pub fn signed(
        &self,
        one: (&PublicKey, Signature),
        other: (&PublicKey, Signature),
    ) -> Transaction {
        let (first, second) = if one.0.serialize() <= other.0.serialize() {
            (one.1, other.1)
        } else {
            (other.1, one.1)
        };
        let mut witness = Witness::new();
        witness.push([]);
        for signature in [first, second] {
            witness.push_ecdsa_signature(&bitcoin::ecdsa::Signature::sighash_all(signature));
        }
        witness.push(self.funding_witness_script.as_bytes());
        let mut transaction = self.transaction.clone();
        transaction.input[0].witness = witness;
        transaction
    }
}
