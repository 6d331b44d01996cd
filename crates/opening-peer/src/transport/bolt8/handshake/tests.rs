use serde_json::Value;

use super::*;

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../../../tests/vectors/bolt8-vectors.json")).unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

fn array<const LENGTH: usize>(value: &Value) -> [u8; LENGTH] {
    bytes(value).try_into().unwrap()
}

fn secret_key(value: &Value) -> SecretKey {
    SecretKey::from_slice(&bytes(value)).unwrap()
}

fn ephemeral(vector: &Value) -> EphemeralKey {
    EphemeralKey::fixed(secret_key(&vector["keys"]["e_priv"]))
}

fn responder_node_id() -> PublicKey {
    PublicKey::from_slice(&bytes(&vectors()["initiator"][0]["keys"]["rs_pub"])).unwrap()
}

/// Goes through an act with the parts that the states are made of, and compares each value listed.
fn walk(symmetric: &mut Symmetric, act: &Value, key: &[u8], shared_secret: Secret) -> Secret {
    symmetric.mix_hash(key);
    assert_eq!(symmetric.h, array(&act["h_after_key"]));
    assert_eq!(shared_secret, Secret::new(array(&act["ss"])));
    assert_eq!(symmetric.ck, Secret::new(array(&act["hkdf_salt"])));
    assert_eq!(shared_secret, Secret::new(array(&act["hkdf_ikm"])));
    let temp_k = symmetric.mix_key(&shared_secret);
    assert_eq!(symmetric.ck, Secret::new(array(&act["ck"])));
    let tag = encrypt(&temp_k, 0, &symmetric.h, &mut []);
    symmetric.mix_hash(&tag);
    assert_eq!(symmetric.h, array(&act["h_after_c"]));
    temp_k
}

// req: B8-HS-B-05, B8-HS-B-07
#[test]
fn both_sides_start_from_the_name_the_prologue_and_the_responders_key() {
    let expected = &vectors()["computed_initial_state"];
    let ck = sha256::Hash::hash(b"Noise_XK_secp256k1_ChaChaPoly_SHA256").to_byte_array();
    assert_eq!(ck, array(&expected["h_after_protocol_name_and_ck"]));
    let mut named = Symmetric { h: ck, ck: Secret::new(ck) };
    named.mix_hash(b"lightning");
    assert_eq!(named.h, array(&expected["h_after_prologue"]));

    let secret = SecretKey::from_slice(&[0x21; 32]).unwrap();
    let responder = WaitForActOne::new(&secret, EphemeralKey::random());
    assert_eq!(responder.symmetric.h, array(&expected["h_after_responder_static_key"]));
    assert_eq!(responder.symmetric.ck, Secret::new(ck));

    let initiator = Symmetric::new(&responder_node_id());
    assert_eq!(initiator.h, responder.symmetric.h);
    assert_eq!(initiator.ck, responder.symmetric.ck);
}

// req: B8-HS-B-07, B8-HS-B-10, B8-HS-B-11, B8-HS-S-01, B8-HS-S-03
#[test]
fn the_values_inside_acts_one_and_two_are_those_of_the_vectors() {
    let vectors = vectors();
    for role in ["initiator", "responder"] {
        let vector = &vectors[role][0];
        let (act_one, act_two) = (&vector["act_one"], &vector["act_two"]);
        let own = ephemeral(vector);
        let theirs = |act: &Value| PublicKey::from_slice(&bytes(&act["re"])).unwrap();
        let static_secret = secret_key(&vector["keys"]["ls_priv"]);
        let mut symmetric = Symmetric::new(&responder_node_id());
        let (temp_k1, temp_k2) = if role == "initiator" {
            let es = ecdh(&own.secret, &responder_node_id());
            let temp_k1 = walk(&mut symmetric, act_one, &own.public.serialize(), es);
            let ee = ecdh(&own.secret, &theirs(act_two));
            (temp_k1, walk(&mut symmetric, act_two, &theirs(act_two).serialize(), ee))
        } else {
            let re = theirs(act_one);
            let temp_k1 = walk(&mut symmetric, act_one, &re.serialize(), ecdh(&static_secret, &re));
            (
                temp_k1,
                walk(&mut symmetric, act_two, &own.public.serialize(), ecdh(&own.secret, &re)),
            )
        };
        assert_eq!(temp_k1, Secret::new(array(&act_one["temp_k1"])));
        assert_eq!(temp_k2, Secret::new(array(&act_two["temp_k2"])));
    }
}

// req: B8-HS-B-16, B8-HS-S-01, B8-HS-S-05, B8-HS-B-14, B8-HS-B-15
#[test]
fn the_initiators_states_are_those_of_the_vectors() {
    let vectors = vectors();
    let vector = &vectors["initiator"][0];
    let secret = secret_key(&vector["keys"]["ls_priv"]);
    let (act_one, state) = initiate(&secret, responder_node_id(), ephemeral(vector));
    assert_eq!(act_one, array(&vector["act_one"]["output"]));
    assert_eq!(state.symmetric.h, array(&vector["act_one"]["h_after_c"]));
    assert_eq!(state.symmetric.ck, Secret::new(array(&vector["act_one"]["ck"])));

    let re = PublicKey::from_slice(&bytes(&vector["act_two"]["re"])).unwrap();
    assert_eq!(ecdh(&secret, &re), Secret::new(array(&vector["act_three"]["ss"])));
    let mut after_act_two = Symmetric {
        h: array(&vector["act_two"]["h_after_c"]),
        ck: Secret::new(array(&vector["act_two"]["ck"])),
    };
    after_act_two.mix_hash(&bytes(&vector["act_three"]["c"]));
    assert_eq!(after_act_two.h, array(&vector["act_three"]["h_after_c"]));
    let temp_k3 = after_act_two.mix_key(&ecdh(&secret, &re));
    assert_eq!(temp_k3, Secret::new(array(&vector["act_three"]["temp_k3"])));
    assert_eq!(encrypt(&temp_k3, 0, &after_act_two.h, &mut []), array(&vector["act_three"]["t"]));

    let (act_three, ciphers) = state.act_two(&array(&vector["act_two"]["input"])).unwrap();
    assert_eq!(act_three, array(&vector["act_three"]["output"]));
    assert_final(&ciphers, vector);
}

// req: B8-HS-B-17, B8-HS-S-03, B8-HS-B-14, B8-HS-B-15
#[test]
fn the_responders_states_are_those_of_the_vectors() {
    let vectors = vectors();
    let vector = &vectors["responder"][0];
    let secret = secret_key(&vector["keys"]["ls_priv"]);
    let state = WaitForActOne::new(&secret, ephemeral(vector));
    let (act_two, state) = state.act_one(&array(&vector["act_one"]["input"])).unwrap();
    assert_eq!(act_two, array(&vector["act_two"]["output"]));
    assert_eq!(state.symmetric.h, array(&vector["act_two"]["h_after_c"]));
    assert_eq!(state.symmetric.ck, Secret::new(array(&vector["act_two"]["ck"])));
    assert_eq!(state.temp_k2, Secret::new(array(&vector["act_two"]["temp_k2"])));

    let rs = PublicKey::from_slice(&bytes(&vector["act_three"]["rs"])).unwrap();
    assert_eq!(ecdh(&state.ephemeral.secret, &rs), Secret::new(array(&vector["act_three"]["ss"])));
    let (their_node_id, ciphers) = state.act_three(&array(&vector["act_three"]["input"])).unwrap();
    assert_eq!(their_node_id, rs);
    assert_final(&ciphers, vector);
}

/// The ciphers which both success vectors end with, and the directions they are for.
fn assert_final(ciphers: &Ciphers, vector: &Value) {
    let ck = Secret::new(array(&vector["act_three"]["ck"]));
    for (cipher, key) in [(&ciphers.sending, "sk"), (&ciphers.receiving, "rk")] {
        assert_eq!(cipher.parts(), (&Secret::new(array(&vector["final"][key])), &ck, 0));
    }
    assert_eq!(ck, Secret::new(array(&vector["final"]["hkdf_salt"])));
    assert!(bytes(&vector["final"]["hkdf_ikm"]).is_empty());
}

// req: B8-TR-B-08
#[test]
fn nothing_secret_is_printed() {
    let vectors = vectors();
    let secret = secret_key(&vectors["responder"][0]["keys"]["ls_priv"]);
    let state = WaitForActOne::new(&secret, ephemeral(&vectors["responder"][0]));
    let (_, state) = state.act_one(&array(&vectors["responder"][0]["act_one"]["input"])).unwrap();
    assert_eq!(format!("{state:?}"), "WaitForActThree");
    let (_, ciphers) =
        state.act_three(&array(&vectors["responder"][0]["act_three"]["input"])).unwrap();
    assert_eq!(format!("{ciphers:?}"), "Ciphers");
}
