//! The conformance suite over the signers that are here, and over signers with a flaw each, so that
//! no check is one that cannot fail.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod broken;
mod flaws;
mod reckless;
#[allow(dead_code, reason = "shared with the tests of signers in this process")]
#[path = "../signer/store.rs"]
mod store;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bitcoin::Network;
use opening_signer::testing::conformance::{Report, Signatures, Subject, conformance};
use opening_signer::{Enforcement, Hsm, HsmSecret, LocalHsm, SigningPolicy};

use crate::store::MemoryStore;

/// A secret for each number, and a store that outlives the signer.
#[derive(Clone, Default)]
struct Nodes(Arc<Mutex<HashMap<u32, Arc<MemoryStore>>>>);

impl Nodes {
    fn signer(&self, node: u32, enforcement: Enforcement) -> LocalHsm {
        let secret = secret(node);
        let store = self.0.lock().unwrap().entry(node).or_default().clone();
        match enforcement {
            Enforcement::Blind => LocalHsm::blind(&secret),
            Enforcement::Validating => {
                let policy = SigningPolicy::for_network(Network::Regtest);
                LocalHsm::validating(&secret, policy, store)
            }
        }
    }
}

fn secret(node: u32) -> HsmSecret {
    HsmSecret::new([u8::try_from(node).unwrap(); 32])
}

async fn local(enforcement: Enforcement) -> Report {
    let nodes = Nodes::default();
    let subject = Subject::new("LocalHsm", Network::Regtest, move |node| {
        let hsm: Arc<dyn Hsm> = Arc::new(nodes.signer(node, enforcement));
        async { Ok(hsm) }
    });
    let all = 0..100;
    let subject = all.fold(subject, |subject, byte| subject.with_secret([byte; 32]));
    conformance(subject).await
}

#[tokio::test]
async fn the_blind_local_signer_conforms() {
    let report = local(Enforcement::Blind).await;
    assert!(report.is_pass(), "{report}");
    let Signatures { all, low_r } = report.signatures;
    assert!(all > 20 && low_r == all, "{report}");
    assert_eq!(report.to_json()["low_r_signatures"], all);
    assert!(report.to_string().contains(&format!("of {all} good signatures {all} are low-R")));
}

#[tokio::test]
async fn the_validating_local_signer_conforms() {
    let report = local(Enforcement::Validating).await;
    assert!(report.is_pass(), "{report}");
}
