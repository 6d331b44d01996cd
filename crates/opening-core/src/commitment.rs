//! The first commitment transactions of both sides (BOLT 3).
//!
//! ```text
//! funding output --> commitment --> to_local     the owner's balance, delayed
//!                                   to_remote    the counterparty's balance
//!                                   anchor × 2   330 sat, one for each balance that is there
//! ```
//!
//! A first commitment has no HTLCs: two balances, two anchors at most.  What BOLT 3 calls local
//! and remote *in a transaction* is here its owner and the owner's counterparty, because this
//! node builds both transactions.

use alloc::vec::Vec;

use bitcoin::absolute::LockTime;
use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::secp256k1::{self, Message, PublicKey, Secp256k1, ecdsa::Signature};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Weight, Witness};

use crate::amount::{FeeratePerKw, MAX_MILLISATOSHIS, MilliSatoshi};
use crate::channel_type::{ChannelType, CommitmentFormat};
use crate::config::ChannelConfig;
use crate::funding::funding_witness_script;
use crate::keys::{ChannelKeys, derive_public_key, derive_revocation_public_key, is_same};
use crate::scripts::{
    anchor_script, to_local_script, to_remote_anchors_script, to_remote_script_pubkey,
};
use crate::side::Side;

/// Satoshis of each anchor output (B3-OUT-B-08).
pub const ANCHOR_VALUE: Amount = Amount::from_sat(330);

/// The largest commitment number (B3-SEC-B-03).
pub const MAX_COMMITMENT_NUMBER: u64 = (1 << 48) - 1;

/// What one side brought to the channel.
#[derive(Clone, Copy, Debug, Eq)]
pub struct Party {
    /// What it announced.
    pub config: ChannelConfig,
    /// Its public keys.
    pub keys: ChannelKeys,
    /// Its per-commitment point of commitment 0.
    pub first_per_commitment_point: PublicKey,
}

impl PartialEq for Party {
    fn eq(&self, other: &Self) -> bool {
        let Self { config, keys, first_per_commitment_point } = self;
        is_same(first_per_commitment_point, &other.first_per_commitment_point)
            && *keys == other.keys
            && *config == other.config
    }
}

/// All that the first commitment transactions are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// More than there will ever be (B1-TYP-B-03): no transaction can hold it.
    #[error("funding_satoshis {funding_satoshis} exceeds 21 million bitcoin")]
    FundingAboveSupply {
        /// What the funding output would hold.
        funding_satoshis: Amount,
    },
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
    /// A key that BOLT 3 derives does not exist; nobody knows parameters that lead here.
    #[error("a derived key does not exist")]
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
        let all = MilliSatoshi::from_amount(funding_satoshis)
            .filter(|all| *all <= MAX_MILLISATOSHIS)
            .ok_or(CommitmentError::FundingAboveSupply { funding_satoshis })?;
        let kept = all
            .checked_sub(push_msat)
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

    /// Blocks by which `side`'s own `to_local` is delayed: what the other side asked for
    /// (B2-OPEN-B-04).
    pub const fn to_self_delay_of(&self, side: Side) -> u16 {
        self.party(side.other()).config.to_self_delay
    }

    /// Satoshis that `side` must always keep in the channel: what the other side asked for
    /// (B2-OPEN-B-03).
    pub const fn channel_reserve_of(&self, side: Side) -> Amount {
        self.party(side.other()).config.channel_reserve_satoshis
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

    /// The witness script of each output of `commitment`, which was made with this
    /// `per_commitment_point`; `None` where the output has none.
    pub fn output_witness_scripts<C: secp256k1::Verification>(
        &self,
        secp: &Secp256k1<C>,
        commitment: &Commitment,
        per_commitment_point: &PublicKey,
    ) -> Result<Vec<Option<ScriptBuf>>, CommitmentError> {
        let owner = commitment.owner;
        let counter = &self.party(owner.other()).keys;
        let mut scripts = Vec::from([
            anchor_script(&self.party(owner).keys.funding_pubkey),
            anchor_script(&counter.funding_pubkey),
            to_remote_anchors_script(&counter.payment_basepoint),
        ]);
        if commitment.to_local.is_some() {
            scripts.push(self.to_local_script(secp, owner, per_commitment_point)?);
        }
        let is_behind =
            |output: &TxOut, script: &ScriptBuf| script.to_p2wsh() == output.script_pubkey;
        let outputs = commitment.transaction.output.iter();
        Ok(outputs.map(|output| scripts.iter().find(|s| is_behind(output, s)).cloned()).collect())
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
        let dust_limit_satoshis = own.config.dust_limit_satoshis;

        // A trimmed balance costs no curve arithmetic: a fundee without a push owns no `to_local`.
        let mut outputs = Vec::with_capacity(4);
        if to_local >= dust_limit_satoshis {
            let script = self.to_local_script(secp, owner, per_commitment_point)?;
            let script_pubkey = script.to_p2wsh();
            outputs.push((Kind::ToLocal, TxOut { value: to_local, script_pubkey }));
            outputs.extend(anchor(format, &own.keys.funding_pubkey));
        }
        if to_remote >= dust_limit_satoshis {
            let script_pubkey = to_remote_script_pubkey(format, &counter.keys.payment_basepoint);
            outputs.push((Kind::ToRemote, TxOut { value: to_remote, script_pubkey }));
            outputs.extend(anchor(format, &counter.keys.funding_pubkey));
        }
        if outputs.is_empty() {
            return Err(CommitmentError::NoOutputs { dust_limit_satoshis });
        }
        outputs.sort_by(|(_, one), (_, other)| {
            (one.value, &one.script_pubkey).cmp(&(other.value, &other.script_pubkey))
        });
        Ok(outputs)
    }

    /// Both keys of `to_local` come from the owner's point; the revocation key's basepoint is the
    /// counterparty's (B3-KEY-B-02, B3-KEY-B-07).
    fn to_local_script<C: secp256k1::Verification>(
        &self,
        secp: &Secp256k1<C>,
        owner: Side,
        per_commitment_point: &PublicKey,
    ) -> Result<ScriptBuf, CommitmentError> {
        let (own, counter) = (&self.party(owner).keys, &self.party(owner.other()).keys);
        let revocation_pubkey =
            derive_revocation_public_key(secp, &counter.revocation_basepoint, per_commitment_point)
                .map_err(CommitmentError::Key)?;
        let delayed_pubkey =
            derive_public_key(secp, &own.delayed_payment_basepoint, per_commitment_point)
                .map_err(CommitmentError::Key)?;
        let to_self_delay = self.to_self_delay_of(owner);
        Ok(to_local_script(&revocation_pubkey, to_self_delay, &delayed_pubkey))
    }
}

/// Which output, so that it is found again after sorting.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    ToLocal,
    ToRemote,
    Anchor,
}

/// Goes with each balance that is there; without HTLCs nothing else brings one (B3-OUT-B-06).
fn anchor(format: CommitmentFormat, funding_pubkey: &PublicKey) -> Option<(Kind, TxOut)> {
    (format == CommitmentFormat::Anchors).then(|| {
        let script_pubkey = anchor_script(funding_pubkey).to_p2wsh();
        (Kind::Anchor, TxOut { value: ANCHOR_VALUE, script_pubkey })
    })
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
