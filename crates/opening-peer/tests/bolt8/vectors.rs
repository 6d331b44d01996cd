//! The vectors of BOLT 8, Appendix A, over streams: outcome, and every byte written.

use opening_peer::transport::bolt8::{self, HandshakeError};
use serde_json::Value;
use tokio::io::AsyncWriteExt;

use crate::{LIMIT, ephemeral, node_id, secret, written};

/// `tests/vectors/bolt8-vectors.json`; its `source` tells where it is from.
pub(crate) fn all() -> Value {
    serde_json::from_str(include_str!("../vectors/bolt8-vectors.json")).unwrap()
}

pub(crate) fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

/// The one byte that a secret key of the vectors repeats.
fn byte(value: &Value) -> u8 {
    bytes(value)[0]
}

fn outputs(vector: &Value) -> Vec<u8> {
    ["act_one", "act_two", "act_three"]
        .iter()
        .filter_map(|act| vector[act].get("output"))
        .flat_map(bytes)
        .collect()
}

fn inputs(vector: &Value) -> Vec<u8> {
    ["act_one", "act_two", "act_three"]
        .iter()
        .filter_map(|act| vector[act].get("input"))
        .flat_map(bytes)
        .collect()
}

/// Holds an outcome against the vector's label, which for act one lacks the version.
fn assert_outcome<T>(vector: &Value, outcome: Result<T, HandshakeError>) {
    let label = outcome.err().map(|error| error.to_string());
    let expected = vector.get("expected_error").and_then(Value::as_str).map(|label| match label {
        "ACT1_BAD_VERSION" => "ACT1_BAD_VERSION 1".to_owned(),
        label => label.to_owned(),
    });
    assert_eq!(label, expected, "{}", vector["name"]);
}

// req: B8-HS-B-16, B8-HS-R-05, B8-HS-R-06, B8-HS-R-07, B8-HS-R-08, B8-HS-S-01, B8-HS-S-04, B8-HS-S-05
#[tokio::test]
async fn an_initiator_ends_as_each_vector_says_and_writes_nothing_else() {
    let vectors = all();
    let vectors = vectors["initiator"].as_array().unwrap();
    assert_eq!(vectors.len(), 5);
    for vector in vectors {
        let (stream, mut peer) = tokio::io::duplex(1024);
        peer.write_all(&inputs(vector)).await.unwrap();
        peer.shutdown().await.unwrap();
        let keys = &vector["keys"];
        let ours = secret(byte(&keys["ls_priv"]));
        assert_eq!(node_id(crate::RESPONDER).to_string(), keys["rs_pub"].as_str().unwrap());
        let outcome = bolt8::connect(
            stream,
            &ours,
            node_id(crate::RESPONDER),
            ephemeral(byte(&keys["e_priv"])),
            LIMIT,
        )
        .await;
        assert_outcome(vector, outcome);
        assert_eq!(written(&mut peer).await, outputs(vector), "{}", vector["name"]);
    }
}

// req: B8-HS-B-17, B8-HS-R-01, B8-HS-R-02, B8-HS-R-03, B8-HS-R-04, B8-HS-S-02, B8-HS-S-03
#[tokio::test]
async fn a_responder_ends_as_each_vector_says_and_writes_nothing_else() {
    let vectors = all();
    let vectors = vectors["responder"].as_array().unwrap();
    assert_eq!(vectors.len(), 10);
    for vector in vectors {
        run_responder(vector).await;
    }
}

// req: B8-HS-R-09, B8-HS-R-10, B8-HS-R-11, B8-HS-R-12, B8-HS-R-13
#[tokio::test]
async fn a_bad_act_three_yields_no_session_and_no_peer() {
    let vectors = all();
    let bad =
        |vector: &&Value| vector.get("expected_error_in").is_some_and(|act| act == "act_three");
    let mut seen = 0;
    for vector in vectors["responder"].as_array().unwrap().iter().filter(bad) {
        // `accept` gives transport and identity together, or neither.
        run_responder(vector).await;
        seen += 1;
    }
    assert_eq!(seen, 5);
}

async fn run_responder(vector: &Value) {
    let (stream, mut peer) = tokio::io::duplex(1024);
    peer.write_all(&inputs(vector)).await.unwrap();
    peer.shutdown().await.unwrap();
    let keys = &vector["keys"];
    let ours = secret(byte(&keys["ls_priv"]));
    let outcome = bolt8::accept(stream, &ours, ephemeral(byte(&keys["e_priv"])), LIMIT).await;
    if let Ok((_, who)) = &outcome {
        assert_eq!(who.to_string(), vector["act_three"]["rs"].as_str().unwrap());
    }
    assert_outcome(vector, outcome);
    // The failing vectors leave act two out where it was not the point: it is always the same.
    let act_two = &all()["responder"][0]["act_two"]["output"];
    let expected = if vector.get("expected_error_in").is_some_and(|act| act == "act_one") {
        vec![]
    } else {
        bytes(act_two)
    };
    assert_eq!(written(&mut peer).await, expected, "{}", vector["name"]);
}
