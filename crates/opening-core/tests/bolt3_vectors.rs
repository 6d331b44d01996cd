//! BOLT 3's own commitment transactions, byte by byte: Appendices B, C and F.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod channel;

use bitcoin::consensus::encode::{deserialize, serialize_hex};
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey, ecdsa::Signature};
use bitcoin::{Amount, OutPoint, Transaction, TxOut};
use channel::{CONFIG, SIDES, mirrored, msat, sat};
use opening_core::funding::funding_witness_script;
use opening_core::{
    ChannelConfig, ChannelKeys, ChannelParameters, ChannelType, Commitment, CommitmentError,
    FeeratePerKw, FundingOutput, Party, Side, channel_id,
};
use serde_json::Value;

/// The number of every commitment in the appendices.
const NUMBER: u64 = 42;

/// Satoshis in the funding output of Appendix B.
const FUNDING: Amount = Amount::from_sat(10_000_000);

fn vectors() -> Value {
    serde_json::from_str(include_str!("vectors/bolt3-vectors.json")).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(text(value)).unwrap()
}

fn point(value: &Value) -> PublicKey {
    PublicKey::from_slice(&bytes(value)).unwrap()
}

/// The BOLT writes secrets with a trailing 01, as WIF does.
fn secret(value: &Value) -> SecretKey {
    let bytes = bytes(value);
    assert_eq!(bytes[32..], [1]);
    SecretKey::from_slice(&bytes[..32]).unwrap()
}

fn transaction(value: &Value) -> Transaction {
    deserialize(&bytes(value)).unwrap()
}

fn funding_transaction(vectors: &Value) -> Transaction {
    transaction(&vectors["appendix_b_funding_transaction"]["funding_tx"])
}

/// One commitment of the appendices, in one spelling for both.
struct Case {
    name: String,
    channel_type: ChannelType,
    to_local_msat: u64,
    to_remote_msat: u64,
    feerate_per_kw: u64,
    dust_limit_satoshis: u64,
    signed: Transaction,
    remote_signature: Signature,
    computed: Value,
}

fn static_remotekey_cases(vectors: &Value) -> Vec<Case> {
    let appendix = &vectors["appendix_c_commitment_static_remotekey"];
    let case = |vector: &Value| Case {
        name: text(&vector["name"]).into(),
        channel_type: ChannelType::STATIC_REMOTEKEY,
        to_local_msat: number(&vector["to_local_msat"]),
        to_remote_msat: number(&vector["to_remote_msat"]),
        feerate_per_kw: number(&vector["local_feerate_per_kw"]),
        dust_limit_satoshis: number(&appendix["params"]["local_dust_limit_satoshi"]),
        signed: transaction(&vector["output_commit_tx"]),
        remote_signature: Signature::from_der(&bytes(&vector["remote_signature"])).unwrap(),
        computed: vector["computed"].clone(),
    };
    appendix["vectors"].as_array().unwrap().iter().map(case).collect()
}

fn anchors_cases(vectors: &Value) -> Vec<Case> {
    let case = |vector: &Value| Case {
        name: text(&vector["Name"]).into(),
        channel_type: ChannelType::ANCHORS,
        to_local_msat: number(&vector["LocalBalance"]),
        to_remote_msat: number(&vector["RemoteBalance"]),
        feerate_per_kw: number(&vector["FeePerKw"]),
        dust_limit_satoshis: number(&vector["DustLimitSatoshis"]),
        signed: transaction(&vector["ExpectedCommitmentTxHex"]),
        remote_signature: Signature::from_der(&bytes(&vector["RemoteSigHex"])).unwrap(),
        computed: vector["computed"].clone(),
    };
    let vectors = vectors["appendix_f_commitment_anchors"]["vectors"].as_array().unwrap();
    vectors.iter().map(case).collect()
}

/// The channel of the appendices; what their commitments do not use is filled with another key.
fn parameters(vectors: &Value, case: &Case) -> ChannelParameters {
    let params = &vectors["appendix_c_commitment_static_remotekey"]["params"];
    let internal = &vectors["appendix_c_commitment_static_remotekey"]["internal_secrets"];
    let unused = point(&params["remote_htlcpubkey"]);
    let local = ChannelKeys {
        funding_pubkey: point(&params["local_funding_pubkey"]),
        revocation_basepoint: unused,
        payment_basepoint: point(&params["local_payment_basepoint"]),
        delayed_payment_basepoint: point(&internal["local_delayed_payment_basepoint"]),
        htlc_basepoint: point(&params["local_htlc_basepoint"]),
    };
    let remote = ChannelKeys {
        funding_pubkey: point(&params["remote_funding_pubkey"]),
        revocation_basepoint: point(&internal["remote_revocation_basepoint"]),
        payment_basepoint: point(&params["remote_payment_basepoint"]),
        delayed_payment_basepoint: unused,
        htlc_basepoint: point(&params["remote_htlc_basepoint"]),
    };
    let dust_limit_satoshis = sat(case.dust_limit_satoshis);
    let local_config = ChannelConfig { dust_limit_satoshis, to_self_delay: 1, ..CONFIG };
    let local_delay = u16::try_from(number(&params["local_delay"])).unwrap();
    let remote_config = ChannelConfig { to_self_delay: local_delay, ..CONFIG };
    ChannelParameters {
        opener: Side::Local,
        funding_outpoint: OutPoint {
            txid: text(&params["funding_tx_id"]).parse().unwrap(),
            vout: number(&params["funding_output_index"]).try_into().unwrap(),
        },
        // All but the first of each appendix have trimmed HTLCs, whose value goes to the fee.  A
        // first commitment has none: the balances are split as if the channel held only them.
        funding_satoshis: sat((case.to_local_msat + case.to_remote_msat) / 1000),
        push_msat: msat(case.to_remote_msat),
        feerate_per_kw: FeeratePerKw::new(case.feerate_per_kw.try_into().unwrap()),
        channel_type: case.channel_type,
        local: Party { config: local_config, keys: local, first_per_commitment_point: unused },
        remote: Party { config: remote_config, keys: remote, first_per_commitment_point: unused },
    }
}

fn build(vectors: &Value, case: &Case) -> Result<Commitment, CommitmentError> {
    let secp = Secp256k1::new();
    let internal = &vectors["appendix_c_commitment_static_remotekey"]["internal_secrets"];
    let point = point(&internal["local_per_commitment_point"]);
    let parameters = parameters(vectors, case);
    let commitment = parameters.commitment(&secp, Side::Local, NUMBER, &point);
    let theirs = mirrored(&parameters).commitment(&secp, Side::Remote, NUMBER, &point);
    // The other node builds the same transaction.
    assert_eq!(
        commitment.as_ref().map(|ours| &ours.transaction),
        theirs.as_ref().map(|theirs| &theirs.transaction),
    );
    // The signatures commit to all of the funding output, the trimmed HTLCs included.
    commitment.map(|commitment| Commitment { funding_satoshis: FUNDING, ..commitment })
}

/// Transaction, digest, both signatures, witness, and Bitcoin's verdict.
fn equals_the_vector(vectors: &Value, case: &Case, commitment: &Commitment) {
    let Case { name, computed, .. } = case;
    assert_eq!(serialize_hex(&commitment.transaction), text(&computed["unsigned_tx"]), "{name}");
    let txid = commitment.transaction.compute_txid();
    assert_eq!(txid.to_string(), text(&computed["txid"]), "{name}");
    let sighash = commitment.sighash();
    assert_eq!(hex::encode(sighash.as_ref()), text(&computed["sighash_all"]), "{name}");

    let secp = Secp256k1::new();
    let appendix = &vectors["appendix_c_commitment_static_remotekey"];
    let local = secret(&appendix["params"]["local_funding_privkey"]);
    let remote = secret(&appendix["internal_secrets"]["remote_funding_privkey"]);
    // Plain RFC 6979, without grinding for a low R: many signatures of the appendices have a high one.
    let signatures = [local, remote].map(|key| secp.sign_ecdsa(&sighash, &key));
    let compact = signatures.map(|signature| hex::encode(signature.serialize_compact()));
    assert_eq!(compact[0], text(&computed["local_signature_compact"]), "{name}");
    assert_eq!(compact[1], text(&computed["remote_signature_compact"]), "{name}");
    assert_eq!(signatures[1], case.remote_signature, "{name}");

    let keys = [local, remote].map(|key| key.public_key(&secp));
    for (signature, key) in signatures.iter().zip(&keys) {
        assert!(commitment.is_signed_by(&secp, signature, key), "{name}");
    }
    let signed = commitment.signed((&keys[0], signatures[0]), (&keys[1], signatures[1]));
    assert_eq!(signed, case.signed, "{name}");
    let funding = funding_transaction(vectors);
    let spent = |outpoint: &OutPoint| {
        assert_eq!(outpoint.txid, funding.compute_txid());
        funding.output.get(outpoint.vout as usize).cloned()
    };
    signed.verify(spent).unwrap();
}

/// Both main outputs where they are claimed to be, and what is left to the miner.
fn accounts_for_all(case: &Case, commitment: &Commitment) {
    let Case { name, computed, .. } = case;
    let outputs = &commitment.transaction.output;
    let total: Amount = outputs.iter().map(|output| output.value).sum();
    let fee = FUNDING - total;
    assert_eq!(fee.to_sat(), number(&computed["actual_fee_sat"]), "{name}");
    let feerate = FeeratePerKw::new(case.feerate_per_kw.try_into().unwrap());
    let format = case.channel_type.commitment_format;
    let base_fee = feerate.fee(opening_core::commitment::commitment_weight(format)).unwrap();
    assert_eq!(base_fee.to_sat(), number(&computed["base_fee_sat"]), "{name}");
    if let Some(index) = commitment.to_remote {
        assert_eq!(outputs[index].value.to_sat(), case.to_remote_msat / 1000, "{name}");
    }
}

// req: B3-FUND-B-01, B3-FUND-B-02, B2-CID-B-01
#[test]
fn appendix_b_funding_output() {
    let vectors = vectors();
    let appendix = &vectors["appendix_b_funding_transaction"];
    let local = point(&appendix["local_funding_pubkey"]);
    let remote = point(&appendix["remote_funding_pubkey"]);
    for (one, other) in [(&local, &remote), (&remote, &local)] {
        let script = funding_witness_script(one, other);
        assert_eq!(script.to_hex_string(), text(&appendix["funding_witness_script"]));
        let funding = FundingOutput::new(FUNDING, one, other);
        let common = &vectors["computed_common"];
        assert_eq!(funding.script_pubkey.to_hex_string(), text(&common["funding_script_pubkey"]));

        let transaction = funding_transaction(&vectors);
        assert_eq!(transaction.compute_txid().to_string(), text(&appendix["txid"]));
        let paid: Vec<_> =
            transaction.output.iter().map(|output: &TxOut| funding.is_paid_by(output)).collect();
        assert_eq!(paid, [true, false]);
        let id = channel_id(OutPoint { txid: transaction.compute_txid(), vout: 0 }).unwrap();
        assert_eq!(hex::encode(id), text(&common["channel_id_funding_output_index_0"]));
        assert_eq!(
            hex::encode(transaction.compute_txid().to_byte_array()),
            text(&common["funding_txid_wire_bytes"])
        );
    }
}

// req: B3-CTX-B-02, B3-CTX-B-05, B3-CTX-B-08
#[test]
fn appendix_c_obscured_commitment_number() {
    let vectors = vectors();
    let params = &vectors["appendix_c_commitment_static_remotekey"]["params"];
    let case = &static_remotekey_cases(&vectors)[0];
    let parameters = parameters(&vectors, case);
    for parameters in [&parameters, &mirrored(&parameters)] {
        let factor = parameters.obscuring_factor();
        assert_eq!(format!("{factor:#x}"), text(&params["obscuring_factor"]));
    }
    // Whose key comes first matters.
    let reversed = ChannelParameters { opener: Side::Remote, ..parameters.clone() };
    assert_ne!(reversed.obscuring_factor(), parameters.obscuring_factor());

    let common = &vectors["computed_common"];
    let transaction = build(&vectors, case).unwrap().transaction;
    let lock_time = transaction.lock_time.to_consensus_u32();
    assert_eq!(format!("{lock_time:x}"), text(&common["locktime_42"]));
    assert_eq!(format!("{:x}", transaction.input[0].sequence.0), text(&common["sequence_42"]));

    let secp = Secp256k1::new();
    for side in SIDES {
        let first = parameters.first_commitment(&secp, side).unwrap().transaction;
        assert_eq!(first.lock_time.to_consensus_u32(), 0x2052_1914);
        assert_eq!(first.input[0].sequence.0, 0x802b_b038);
    }
}

// req: B3-CTX-B-01, B3-CTX-B-02, B3-CTX-B-03, B3-CTX-B-04, B3-CTX-B-05, B3-CTX-B-06, B3-CTX-B-07
// req: B3-OUT-B-03, B3-OUT-B-05, B3-ORD-B-01, B3-KEY-B-05, B3-SEG-B-01, B3-SEG-B-02, B3-SIG-B-01
// req: B3-TRIM-B-03, B3-TRIM-B-05, B3-FEE-B-01, B3-FEE-B-04, B3-CON-B-01, B3-CON-B-03, B3-CON-B-07
#[test]
fn appendix_c_static_remotekey() {
    let vectors = vectors();
    let cases = static_remotekey_cases(&vectors);
    assert_eq!(cases.len(), 5);
    for (case, to_local) in cases.iter().zip([Some(6_989_140), Some(6_984_442), Some(546), None]) {
        let commitment = build(&vectors, case).unwrap();
        equals_the_vector(&vectors, case, &commitment);
        accounts_for_all(case, &commitment);
        let outputs = &commitment.transaction.output;
        let value = commitment.to_local.map(|index| outputs[index].value.to_sat());
        assert_eq!(value, to_local, "{}", case.name);
        assert!(commitment.to_remote.is_some(), "{}", case.name);
    }
}

// BOLT 3 goes on where the fee has grown over the opener's balance; nobody may open so.
// req: B2-OPEN-R-21
#[test]
fn appendix_c_fee_greater_than_funder_amount_is_not_built() {
    let vectors = vectors();
    let [.., trimmed, unaffordable] = &static_remotekey_cases(&vectors)[..] else {
        panic!("no vectors")
    };
    assert_eq!(unaffordable.name, "commitment tx with fee greater than funder amount");
    let refusal =
        CommitmentError::Unaffordable { available: sat(6_988_000), needed: sat(6_988_001) };
    assert_eq!(build(&vectors, unaffordable), Err(refusal));
    // Its transaction is the one before, which is built.
    assert_eq!(unaffordable.signed, trimmed.signed);
}

// req: B3-OUT-B-04, B3-OUT-B-06, B3-OUT-B-07, B3-OUT-B-08, B3-ORD-B-01, B3-ORD-B-02
// req: B3-FEE-B-01, B3-FEE-B-02, B3-FEE-B-03, B3-FEE-B-04, B3-TRIM-B-01, B3-TRIM-B-05, B3-CON-B-01
// req: B3-CON-B-02, B3-CON-B-04, B3-CON-B-05, B3-CON-B-06, B3-CON-B-07, B3-SIG-B-01, B3-SEG-B-01
#[test]
fn appendix_f_anchors() {
    let vectors = vectors();
    let cases = anchors_cases(&vectors);
    // Satoshis of `to_local`, of `to_remote`, and how many anchors.
    let expected = [
        (Some(6_982_480), Some(3_000_000), 2),
        (Some(9_982_480), None, 1),
        (Some(6_981_840), Some(3_000_000), 2),
        (None, Some(3_000_000), 1),
    ];
    assert_eq!(cases.len(), expected.len());
    for (case, (to_local, to_remote, anchors)) in cases.iter().zip(expected) {
        let name = &case.name;
        let commitment = build(&vectors, case).unwrap();
        equals_the_vector(&vectors, case, &commitment);
        accounts_for_all(case, &commitment);
        let outputs = &commitment.transaction.output;
        let value = |index: Option<usize>| index.map(|index| outputs[index].value.to_sat());
        assert_eq!(value(commitment.to_local), to_local, "{name}");
        assert_eq!(value(commitment.to_remote), to_remote, "{name}");
        let of_330 = outputs.iter().filter(|output| output.value == sat(330)).count();
        assert_eq!(of_330, anchors, "{name}");
    }
}
