//! The input of the first commitments: what it spends, what is signed, and by whom.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod channel;

use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{Message, ecdsa::Signature};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::{OutPoint, Transaction, Txid};
use channel::{Channel, SIDES, Secrets, msat, sat};
use opening_core::commitment::MAX_COMMITMENT_NUMBER;
use opening_core::{ChannelType, Commitment, Side};

const TYPES: [ChannelType; 2] = [ChannelType::STATIC_REMOTEKEY, ChannelType::ANCHORS];

fn channel(channel_type: ChannelType) -> Channel {
    Channel::of(channel_type).with(|p| p.push_msat = msat(400_000_000))
}

// req: B3-CTX-B-01, B3-CTX-B-03, B3-CTX-B-04, B3-CTX-B-06
#[test]
fn one_input_spends_the_funding_outpoint() {
    for (vout, little_endian) in
        [(0, [0, 0, 0, 0]), (258, [2, 1, 0, 0]), (65_535, [255, 255, 0, 0])]
    {
        for channel_type in TYPES {
            // As on the wire: not in the reversed order in which a txid is shown.
            let wire: [u8; 32] = core::array::from_fn(|place| place as u8);
            let outpoint = OutPoint { txid: Txid::from_byte_array(wire), vout };
            let channel = channel(channel_type).with(|p| p.funding_outpoint = outpoint);
            for owner in SIDES {
                let transaction = channel.first_commitment(owner).transaction;
                let bytes = serialize(&transaction);
                let expected = [&[2, 0, 0, 0, 1][..], &wire, &little_endian, &[0]].concat();
                assert_eq!(bytes[..expected.len()], expected, "index {vout}");
                assert!(transaction.input[0].witness.is_empty());
            }
        }
    }
}

// req: B3-CTX-B-02, B3-CTX-B-05, B3-CTX-B-08
#[test]
fn lock_time_and_sequence_hide_all_48_bits_of_the_number() {
    let Channel { secp, parameters, .. } = channel(ChannelType::ANCHORS);
    let factor = parameters.obscuring_factor();
    assert_eq!(factor >> 48, 0);
    for owner in SIDES {
        let point = parameters.party(owner).first_per_commitment_point;
        for number in [0, 1, 0xff_ffff, 0x100_0000, 0x1234_5678_9abc, MAX_COMMITMENT_NUMBER] {
            let commitment = parameters.commitment(&secp, owner, number, &point).unwrap();
            let lock_time = commitment.transaction.lock_time.to_consensus_u32();
            let sequence = commitment.transaction.input[0].sequence.0;
            assert_eq!((lock_time >> 24, sequence >> 24), (0x20, 0x80));
            let shown = u64::from(sequence & 0xff_ffff) << 24 | u64::from(lock_time & 0xff_ffff);
            assert_eq!(shown ^ factor, number);
        }
    }
}

// req: B3-CTX-B-07, B3-SEG-B-01, B3-SEG-B-02
#[test]
fn the_witness_has_the_signatures_in_the_order_of_the_keys() {
    let mut orders = [0; 2];
    for seed in 0..10 {
        let (local, remote) = (Secrets::from_seed([seed; 32]), Secrets::from_seed([99; 32]));
        let channel = Channel::between(local, remote, ChannelType::ANCHORS);
        let commitment = channel.first_commitment(Side::Local);
        let keys = SIDES.map(|side| channel.parameters.party(side).keys.funding_pubkey);
        let sign =
            |side| channel.secp.sign_ecdsa(&commitment.sighash(), &channel.secrets(side).funding);
        let [local, remote] = SIDES.map(sign);
        let signed = commitment.signed((&keys[0], local), (&keys[1], remote));
        // Neither does it matter who is named first.
        assert_eq!(commitment.signed((&keys[1], remote), (&keys[0], local)), signed);

        let local_first = keys[0].serialize() < keys[1].serialize();
        orders[usize::from(local_first)] += 1;
        let (first, second) = if local_first { (local, remote) } else { (remote, local) };
        let item = |signature: Signature| [&signature.serialize_der()[..], &[1]].concat();
        let script = commitment.funding_witness_script.to_bytes();
        let expected = [Vec::new(), item(first), item(second), script];
        assert_eq!(signed.input[0].witness.to_vec(), expected);
        assert_eq!(channel.accepted_by_consensus(&commitment), Ok(()));
    }
    assert!(orders.iter().all(|&count| count > 0), "{orders:?}");
}

/// The digest of another hash type.
fn digest(commitment: &Commitment, hash_type: EcdsaSighashType) -> Message {
    let digest = SighashCache::new(&commitment.transaction)
        .p2wsh_signature_hash(
            0,
            &commitment.funding_witness_script,
            commitment.funding_satoshis,
            hash_type,
        )
        .unwrap();
    Message::from_digest(digest.to_byte_array())
}

/// Whether `signature` is taken for the remote side's under the local commitment.
fn taken(channel: &Channel, commitment: &Commitment, signature: &Signature) -> bool {
    let key = &channel.parameters.remote.keys.funding_pubkey;
    commitment.is_signed_by(&channel.secp, signature, key)
}

// req: B3-SIG-B-01, B2-FC-R-01, B2-FS-R-01
#[test]
fn only_sighash_all_is_taken() {
    use EcdsaSighashType::*;

    for channel_type in TYPES {
        let channel = channel(channel_type);
        let commitment = channel.first_commitment(Side::Local);
        let by_remote = |message| channel.secp.sign_ecdsa(&message, &channel.remote.funding);
        assert!(taken(&channel, &commitment, &by_remote(digest(&commitment, All))));
        for hash_type in
            [None, Single, AllPlusAnyoneCanPay, NonePlusAnyoneCanPay, SinglePlusAnyoneCanPay]
        {
            let signature = by_remote(digest(&commitment, hash_type));
            assert!(!taken(&channel, &commitment, &signature), "{hash_type}");
        }
    }
}

// req: B2-FC-R-01, B2-FS-R-01
#[test]
fn no_other_key_transaction_or_amount_is_taken() {
    for channel_type in TYPES {
        let channel = channel(channel_type);
        let commitment = channel.first_commitment(Side::Local);
        let sign = |message, key| channel.secp.sign_ecdsa(&message, key);
        for key in [&channel.local.funding, &channel.remote.payment] {
            assert!(!taken(&channel, &commitment, &sign(commitment.sighash(), key)));
        }
        let theirs = channel.first_commitment(Side::Remote);
        let more = Commitment { funding_satoshis: sat(1_000_001), ..commitment.clone() };
        for other in [theirs, more] {
            let signature = sign(other.sighash(), &channel.remote.funding);
            assert!(taken(&channel, &other, &signature));
            assert!(!taken(&channel, &commitment, &signature));
        }
    }
}

// req: B2-FC-R-01, B2-FS-R-01
#[test]
fn a_proof_is_for_one_commitment_one_signature_and_one_key() {
    let channel = channel(ChannelType::ANCHORS);
    let key = &channel.parameters.remote.keys.funding_pubkey;
    let commitment = channel.first_commitment(Side::Local);
    let good = channel.secp.sign_ecdsa(&commitment.sighash(), &channel.remote.funding);
    let proof = commitment.good_signature(&channel.secp, &good, key).unwrap();
    assert_eq!(proof.signature(), &good);
    assert!(proof.is_for(&commitment, &good, key));

    let other = channel.secp.sign_ecdsa(&commitment.sighash(), &channel.local.funding);
    assert!(!proof.is_for(&commitment, &other, key));
    assert_eq!(commitment.good_signature(&channel.secp, &other, key), None);
    let other_key = &channel.parameters.local.keys.funding_pubkey;
    assert!(!proof.is_for(&commitment, &good, other_key));
    // Changed after the proof was made.
    let more = Commitment { funding_satoshis: sat(1_000_001), ..commitment.clone() };
    assert!(!proof.is_for(&more, &good, key));
    let mut elsewhere = commitment.clone();
    elsewhere.transaction.output[0].value = sat(1);
    assert!(!proof.is_for(&elsewhere, &good, key));
}

/// The curve's order, big-endian.
const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe,
    0xba, 0xae, 0xdc, 0xe6, 0xaf, 0x48, 0xa0, 0x3b, 0xbf, 0xd2, 0x5e, 0x8c, 0xd0, 0x36, 0x41, 0x41,
];

/// The other of the two signatures that plain ECDSA takes: S negated.
fn with_high_s(signature: &Signature) -> Signature {
    let mut compact = signature.serialize_compact();
    let mut borrow = false;
    for (byte, order) in compact[32..].iter_mut().zip(ORDER).rev() {
        let (difference, first) = order.overflowing_sub(*byte);
        let (difference, second) = difference.overflowing_sub(u8::from(borrow));
        (*byte, borrow) = (difference, first || second);
    }
    Signature::from_compact(&compact).unwrap()
}

// req: B2-FC-R-01, B2-FS-R-01
#[test]
fn a_high_s_is_not_taken() {
    let channel = channel(ChannelType::ANCHORS);
    for owner in SIDES {
        let commitment = channel.first_commitment(owner);
        let low = channel.secp.sign_ecdsa(&commitment.sighash(), &channel.remote.funding);
        let mut high = with_high_s(&low);
        assert_ne!(high, low);
        assert!(taken(&channel, &commitment, &low));
        assert!(!taken(&channel, &commitment, &high));
        // Only its form was wrong.
        high.normalize_s();
        assert_eq!(high, low);
    }
}

// req: B3-SIG-B-01
#[test]
fn consensus_needs_both_signatures_over_this_transaction() {
    let channel = channel(ChannelType::STATIC_REMOTEKEY);
    let commitment = channel.first_commitment(Side::Remote);
    assert_eq!(channel.accepted_by_consensus(&commitment), Ok(()));
    let verdict = |transaction: &Transaction| {
        transaction.verify(|_: &OutPoint| Some(channel.funding_output())).is_ok()
    };
    let signed = channel.signed(&commitment);
    assert!(verdict(&signed));
    assert!(!verdict(&commitment.transaction));
    for change in [
        (|tx| tx.output[0].value += sat(1)) as fn(&mut Transaction),
        |tx| tx.lock_time = bitcoin::absolute::LockTime::ZERO,
        |tx| tx.input[0].sequence.0 ^= 1,
        |tx| tx.output.truncate(1),
    ] {
        let mut changed = signed.clone();
        change(&mut changed);
        assert!(!verdict(&changed));
    }
}
