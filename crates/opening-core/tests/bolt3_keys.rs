//! BOLT 3's derivations of keys and secrets: Appendices C, D and E.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod channel;

use bitcoin::secp256k1::{All, PublicKey, Secp256k1, SecretKey};
use channel::{Channel, SIDES};
use opening_core::commitment::MAX_COMMITMENT_NUMBER;
use opening_core::keys::{
    derive_public_key, derive_revocation_public_key, derive_revocation_secret_key,
    derive_secret_key,
};
use opening_core::secrets::{generate_from_seed, secret_index};
use opening_core::{ChannelType, CommitmentError};
use proptest::prelude::*;
use serde_json::Value;

fn vectors() -> Value {
    serde_json::from_str(include_str!("vectors/bolt3-vectors.json")).unwrap()
}

/// Hex as in the text: with 0x before it, or as a secret with 01 behind it.
fn bytes(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap();
    hex::decode(text.strip_prefix("0x").unwrap_or(text)).unwrap()
}

fn point(value: &Value) -> PublicKey {
    PublicKey::from_slice(&bytes(value)).unwrap()
}

fn secret(value: &Value) -> SecretKey {
    SecretKey::from_slice(&bytes(value)[..32]).unwrap()
}

/// Appendix E: the result of the test with this name for what it derives.
fn result<'a>(appendix: &'a Value, name: &str) -> &'a Value {
    let tests = appendix["tests"].as_array().unwrap();
    &tests.iter().find(|test| test["result_name"] == name).unwrap()["result"]
}

// req: B3-KEY-B-01, B3-KEY-B-04, B3-KEY-B-06, B3-KEY-B-07, B3-KEY-B-08
#[test]
fn appendix_e_key_derivation() {
    let (vectors, secp) = (vectors(), Secp256k1::new());
    let appendix = &vectors["appendix_e_key_derivation"];
    let base_secret = secret(&appendix["base_secret"]);
    let base_point = point(&appendix["base_point"]);
    assert_eq!(base_secret.public_key(&secp), base_point);
    let per_commitment_secret = secret(&appendix["per_commitment_secret"]);
    let per_commitment_point = point(&appendix["per_commitment_point"]);
    assert_eq!(per_commitment_secret.public_key(&secp), per_commitment_point);

    assert_eq!(
        derive_public_key(&secp, &base_point, &per_commitment_point),
        Ok(point(result(appendix, "localpubkey")))
    );
    assert_eq!(
        derive_secret_key(&secp, &base_secret, &per_commitment_point),
        Ok(secret(result(appendix, "localprivkey")))
    );
    assert_eq!(
        derive_revocation_public_key(&secp, &base_point, &per_commitment_point),
        Ok(point(result(appendix, "revocationpubkey")))
    );
    assert_eq!(
        derive_revocation_secret_key(&secp, &base_secret, &per_commitment_secret),
        Ok(secret(result(appendix, "revocationprivkey")))
    );
    assert_eq!(appendix["tests"].as_array().unwrap().len(), 4);
}

/// The point in Appendix C, with what derives from it.
struct AppendixC {
    secp: Secp256k1<All>,
    vectors: Value,
}

impl AppendixC {
    fn new() -> Self {
        Self { secp: Secp256k1::new(), vectors: vectors() }
    }

    fn params(&self, name: &str) -> &Value {
        &self.vectors["appendix_c_commitment_static_remotekey"]["params"][name]
    }

    fn internal(&self, name: &str) -> &Value {
        &self.vectors["appendix_c_commitment_static_remotekey"]["internal_secrets"][name]
    }

    fn per_commitment_point(&self) -> PublicKey {
        point(self.internal("local_per_commitment_point"))
    }

    fn derived(&self, basepoint: &Value) -> PublicKey {
        derive_public_key(&self.secp, &point(basepoint), &self.per_commitment_point()).unwrap()
    }

    fn derived_secret(&self, basepoint_secret: &str) -> SecretKey {
        let basepoint_secret = secret(self.internal(basepoint_secret));
        derive_secret_key(&self.secp, &basepoint_secret, &self.per_commitment_point()).unwrap()
    }
}

// req: B3-KEY-B-02, B3-KEY-B-03, B3-KEY-B-06
#[test]
fn appendix_c_derived_public_keys() {
    let c = AppendixC::new();
    let per_commitment_secret = secret(c.internal("x_local_per_commitment_secret"));
    assert_eq!(per_commitment_secret.public_key(&c.secp), c.per_commitment_point());
    let delayed = c.derived(c.internal("local_delayed_payment_basepoint"));
    assert_eq!(delayed, point(c.params("local_delayedpubkey")));
    for (basepoint, key) in [
        ("local_htlc_basepoint", "local_htlcpubkey"),
        ("remote_htlc_basepoint", "remote_htlcpubkey"),
    ] {
        assert_eq!(c.derived(c.params(basepoint)), point(c.params(key)), "{key}");
    }
}

// req: B3-KEY-B-04
#[test]
fn appendix_c_derived_secret_keys() {
    let c = AppendixC::new();
    for (basepoint_secret, key) in [
        ("local_delayed_payment_basepoint_secret", c.internal("local_delayed_privkey")),
        ("local_payment_basepoint_secret", c.params("local_privkey")),
        ("remote_payment_basepoint_secret", c.internal("remote_privkey")),
    ] {
        assert_eq!(c.derived_secret(basepoint_secret), secret(key), "{basepoint_secret}");
    }
}

// req: B3-KEY-B-07, B3-KEY-B-08
#[test]
fn appendix_c_revocation_key() {
    let c = AppendixC::new();
    let basepoint = point(c.internal("remote_revocation_basepoint"));
    let key = derive_revocation_public_key(&c.secp, &basepoint, &c.per_commitment_point());
    assert_eq!(key, Ok(point(c.params("local_revocation_pubkey"))));
    let basepoint_secret = secret(c.internal("remote_revocation_basepoint_secret"));
    let per_commitment_secret = secret(c.internal("x_local_per_commitment_secret"));
    let key = derive_revocation_secret_key(&c.secp, &basepoint_secret, &per_commitment_secret);
    assert_eq!(
        key.unwrap().public_key(&c.secp),
        point(c.params("local_revocation_pubkey")),
        "the secret opens what the key locks"
    );
}

// req: B3-SEC-B-05
#[test]
fn appendix_d_generation() {
    let vectors = vectors();
    let cases = vectors["appendix_d_per_commitment_secrets"]["generation"].as_array().unwrap();
    assert_eq!(cases.len(), 5);
    for case in cases {
        let seed = bytes(&case["seed"]).try_into().unwrap();
        let generated = generate_from_seed(&seed, case["I"].as_u64().unwrap());
        assert_eq!(generated[..], bytes(&case["output"]), "{}", case["name"]);
        assert_eq!(generate_from_seed(&seed, 0), seed, "the last secret is the seed");
    }
}

// The storage vectors of Appendix D all come from the seed of FFs: here for their indices, which
// count down from the first.
// req: B3-SEC-B-04, B3-SEC-B-05
#[test]
fn appendix_d_first_secrets_count_down() {
    let vectors = vectors();
    let storage = &vectors["appendix_d_per_commitment_secrets"]["storage"];
    assert_eq!(storage[0]["name"], "insert_secret correct sequence");
    let inserts = storage[0]["inserts"].as_array().unwrap();
    assert_eq!(inserts.len(), 8);
    for (number, insert) in (0..).zip(inserts) {
        let index = secret_index(number).unwrap();
        assert_eq!(index, insert["I"].as_u64().unwrap());
        assert_eq!(generate_from_seed(&[0xff; 32], index)[..], bytes(&insert["secret"]));
    }
}

// req: B3-SEC-B-03, B3-SEC-B-04
#[test]
fn there_are_two_to_the_forty_eighth_commitments_and_no_more() {
    const LAST: u64 = 281_474_976_710_655;
    assert_eq!(MAX_COMMITMENT_NUMBER, LAST);
    for (number, index) in
        [(0, Some(LAST)), (1, Some(LAST - 1)), (LAST, Some(0)), (LAST + 1, None), (u64::MAX, None)]
    {
        assert_eq!(secret_index(number), index, "{number}");
    }

    let Channel { secp, parameters, .. } = Channel::of(ChannelType::ANCHORS);
    for owner in SIDES {
        let point = parameters.party(owner).first_per_commitment_point;
        let build = |number| parameters.commitment(&secp, owner, number, &point);
        assert_eq!(build(LAST).map(|commitment| commitment.number), Ok(LAST));
        for number in [LAST + 1, u64::MAX] {
            assert_eq!(build(number), Err(CommitmentError::NumberTooLarge(number)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    // req: B3-SEC-B-05
    #[test]
    fn secrets_are_those_of_ldk(seed: [u8; 32], index in 0..=MAX_COMMITMENT_NUMBER) {
        let theirs = lightning::ln::chan_utils::build_commitment_secret(&seed, index);
        prop_assert_eq!(generate_from_seed(&seed, index), theirs);
    }

    // req: B3-KEY-B-01, B3-KEY-B-04, B3-KEY-B-07, B3-KEY-B-08
    #[test]
    fn every_derived_secret_belongs_to_the_derived_key(
        base in proptest::array::uniform32(1_u8..=0xfe),
        per_commitment in proptest::array::uniform32(1_u8..=0xfe),
    ) {
        let secp = Secp256k1::new();
        let [base, per_commitment] =
            [base, per_commitment].map(|bytes| SecretKey::from_slice(&bytes).unwrap());
        let [base_point, point] = [base, per_commitment].map(|key| key.public_key(&secp));
        prop_assert_eq!(
            derive_secret_key(&secp, &base, &point).map(|key| key.public_key(&secp)),
            derive_public_key(&secp, &base_point, &point)
        );
        prop_assert_eq!(
            derive_revocation_secret_key(&secp, &base, &per_commitment)
                .map(|key| key.public_key(&secp)),
            derive_revocation_public_key(&secp, &base_point, &point)
        );
    }
}
