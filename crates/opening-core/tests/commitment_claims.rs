//! Every output of a first commitment, spent by whom it belongs to and by nobody else, before
//! Bitcoin's consensus code.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod channel;

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{Message, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::transaction::Version;
use bitcoin::{OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use channel::{Channel, SIDES, msat, sat};
use lightning::ln::chan_utils::{
    get_keyed_anchor_redeemscript, get_revokeable_redeemscript,
    get_to_countersigner_keyed_anchor_redeemscript,
};
use lightning::ln::channel_keys::{DelayedPaymentKey, RevocationKey};
use opening_core::keys::{derive_revocation_secret_key, derive_secret_key};
use opening_core::{ChannelType, Commitment, Side};

const DELAY: u16 = 2016;

/// An output of a commitment, and how to sign for it.
struct Claim<'a> {
    channel: &'a Channel,
    outpoint: OutPoint,
    output: TxOut,
    /// `None`: P2WPKH.
    witness_script: Option<ScriptBuf>,
}

impl<'a> Claim<'a> {
    fn new(
        channel: &'a Channel,
        commitment: &Commitment,
        index: usize,
        witness_script: Option<ScriptBuf>,
    ) -> Self {
        let txid = commitment.transaction.compute_txid();
        let outpoint = OutPoint { txid, vout: index.try_into().unwrap() };
        let output = commitment.transaction.output[index].clone();
        Self { channel, outpoint, output, witness_script }
    }

    /// Spends it after so many blocks, with what `witness` makes of a signature by `key`.
    fn accepted(&self, blocks: u16, key: &SecretKey, branch: &[&[u8]]) -> bool {
        let input = TxIn {
            previous_output: self.outpoint,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::from_height(blocks),
            witness: Witness::new(),
        };
        let mut transaction = Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![input],
            output: vec![TxOut { value: sat(100), script_pubkey: ScriptBuf::new() }],
        };
        let (value, all) = (self.output.value, EcdsaSighashType::All);
        let mut cache = SighashCache::new(&transaction);
        let digest = match &self.witness_script {
            Some(script) => cache.p2wsh_signature_hash(0, script, value, all).unwrap(),
            None => cache.p2wpkh_signature_hash(0, &self.output.script_pubkey, value, all).unwrap(),
        };
        let secp = &self.channel.secp;
        let signature = secp.sign_ecdsa(&Message::from_digest(digest.to_byte_array()), key);
        let mut witness = Witness::new();
        witness.push_ecdsa_signature(&bitcoin::ecdsa::Signature::sighash_all(signature));
        branch.iter().for_each(|item| witness.push(item));
        match &self.witness_script {
            Some(script) => witness.push(script),
            None => witness.push(key.public_key(secp).serialize()),
        }
        transaction.input[0].witness = witness;
        transaction.verify(|_: &OutPoint| Some(self.output.clone())).is_ok()
    }
}

fn channel(channel_type: ChannelType) -> Channel {
    Channel::of(channel_type).with(|p| {
        p.push_msat = msat(400_000_000);
        p.local.config.to_self_delay = DELAY;
        p.remote.config.to_self_delay = DELAY;
    })
}

// req: B3-OUT-B-03, B3-KEY-B-02, B3-KEY-B-04, B3-KEY-B-07, B3-KEY-B-08
#[test]
fn to_local_is_the_owners_after_the_delay_and_the_others_once_revoked() {
    for channel_type in [ChannelType::STATIC_REMOTEKEY, ChannelType::ANCHORS] {
        let channel = channel(channel_type);
        let secp = &channel.secp;
        for owner in SIDES {
            let (own, counter) = (channel.secrets(owner), channel.secrets(owner.other()));
            let per_commitment = &own.first_per_commitment;
            let point = per_commitment.public_key(secp);
            let delayed = derive_secret_key(secp, &own.delayed_payment, &point).unwrap();
            let revocation =
                derive_revocation_secret_key(secp, &counter.revocation, per_commitment).unwrap();

            let commitment = channel.first_commitment(owner);
            let script = get_revokeable_redeemscript(
                &RevocationKey(revocation.public_key(secp)),
                DELAY,
                &DelayedPaymentKey(delayed.public_key(secp)),
            );
            let index = commitment.to_local.unwrap();
            let claim = Claim::new(&channel, &commitment, index, Some(script));
            let (revoked, after_delay) = (&[&[1][..]][..], &[&[][..]][..]);
            assert!(claim.accepted(DELAY, &delayed, after_delay));
            assert!(!claim.accepted(DELAY - 1, &delayed, after_delay), "too early");
            assert!(claim.accepted(0, &revocation, revoked));
            for (key, branch) in [
                (&delayed, revoked),
                (&revocation, after_delay),
                (&own.delayed_payment, after_delay),
                (&counter.revocation, revoked),
            ] {
                assert!(!claim.accepted(DELAY, key, branch));
            }
        }
    }
}

// req: B3-OUT-B-04, B3-OUT-B-05, B3-KEY-B-05
#[test]
fn to_remote_is_the_counterpartys_at_once_or_after_a_block() {
    for channel_type in [ChannelType::STATIC_REMOTEKEY, ChannelType::ANCHORS] {
        let channel = channel(channel_type);
        for owner in SIDES {
            let payment = &channel.secrets(owner.other()).payment;
            let key = payment.public_key(&channel.secp);
            let script = channel_type
                .has_anchors()
                .then(|| get_to_countersigner_keyed_anchor_redeemscript(&key));
            let commitment = channel.first_commitment(owner);
            let claim = Claim::new(&channel, &commitment, commitment.to_remote.unwrap(), script);
            assert!(claim.accepted(1, payment, &[]));
            assert_eq!(claim.accepted(0, payment, &[]), !channel_type.has_anchors());
            assert!(!claim.accepted(1, &channel.secrets(owner).payment, &[]));
        }
    }
}

// req: B3-OUT-B-07
#[test]
fn an_anchor_is_its_sides_at_once() {
    let channel = channel(ChannelType::ANCHORS);
    for owner in SIDES {
        let commitment = channel.first_commitment(owner);
        for side in SIDES {
            let funding = &channel.secrets(side).funding;
            let script = get_keyed_anchor_redeemscript(&funding.public_key(&channel.secp));
            let outputs = &commitment.transaction.output;
            let index = outputs.iter().position(|output| output.script_pubkey == script.to_p2wsh());
            let claim = Claim::new(&channel, &commitment, index.unwrap(), Some(script));
            assert!(claim.accepted(0, funding, &[]));
            assert!(!claim.accepted(15, &channel.secrets(side.other()).funding, &[]));
        }
    }
}

#[test]
fn the_sides_differ_in_every_secret_of_these_tests() {
    let channel = channel(ChannelType::ANCHORS);
    let all = |side: Side| {
        let secrets = channel.secrets(side).clone();
        [secrets.funding, secrets.revocation, secrets.payment, secrets.delayed_payment]
    };
    let [local, remote] = SIDES.map(all);
    assert!(local.iter().all(|secret| !remote.contains(secret)));
}
