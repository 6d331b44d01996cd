//! The conformance suite of opening-signer over VLS.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bitcoin::Network;
use opening_signer::remote::HsmdHsm;
use opening_signer::testing::conformance::{Outcome, Subject, conformance};
use opening_signer::{Hsm, HsmError};

use crate::server::Vls;
use crate::{config, text};

/// What VLS did not do when this was written, and why that is known.
const KNOWN: [(&str, &str); 4] = [
    ("fundee-validates-first", "it signs for the funder before its own commitment is validated"),
    ("setup-feerates", "commitment 0 is told no feerate on this wire"),
    ("commitment-outputs", "as funder a satoshi more or less is another fee to it"),
    ("commitment-parameters", "as funder another push is its own money given away"),
];

/// One VLS for each check, which the check's "restart" does not touch: its state is in memory, and
/// what is new is the connection.  Gives the number of failures that are not known.
pub(crate) async fn run() -> Result<usize, String> {
    let folder = tempfile::tempdir().map_err(text)?;
    let started: Arc<Mutex<HashMap<u32, PathBuf>>> = Arc::default();
    let root = folder.path().to_path_buf();
    let subject = Subject::new("VLS", Network::Regtest, move |node| {
        let path = root.join(node.to_string());
        let is_new = {
            let mut started = started.lock().unwrap_or_else(PoisonError::into_inner);
            started.insert(node, path.clone()).is_none()
        };
        async move {
            let unavailable = |error: String| HsmError::Unavailable(error);
            if is_new {
                let seed = [u8::try_from(node + 1).unwrap_or(u8::MAX); 32];
                let vls = Vls::new(seed).map_err(unavailable)?;
                vls.listen(&path).map_err(|error| unavailable(error.to_string()))?;
            }
            Ok(Arc::new(HsmdHsm::connect(&path, config()).await?) as Arc<dyn Hsm>)
        }
    });
    let report = conformance(subject).await;
    println!();
    print!("{report}");
    let is_known = |id: &str| KNOWN.iter().any(|(known, _)| *known == id);
    let failed = report.findings.iter().filter(|finding| {
        matches!(finding.outcome, Outcome::Fail { .. }) && !is_known(finding.check.id)
    });
    for (id, why) in KNOWN {
        println!("known   {id}: {why}");
    }
    Ok(failed.count())
}
