//! One opening with a signer that goes wrong once, and the next one.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::Network;
use lightning_persister::fs_store::FilesystemStore;
use opening_peer::testing::{Fault, Faults, MockHsm};
use opening_peer::{BroadcastPermit, Failed, Failure, Opened};
use opening_signer::testing::{Misdeed, Restart, Transcript};
use opening_signer::{Call, ChannelRef, HsmError, HsmSecret, LocalHsm, SigningPolicy, Verified};
use tempfile::TempDir;

use crate::faulty::{From, Made, Party, Wire, connect, faulty_node, open, settle, until};
use crate::table::{Ends, Row, Wrong};

/// Longer than any clock of the side that goes wrong.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// Code, call and words of a failure.
type Reason = (&'static str, Call, &'static str);

type Opening = Result<(Arc<Opened>, BroadcastPermit), Failed>;

fn validating(secret: u8, directory: PathBuf) -> Arc<LocalHsm> {
    let policy = SigningPolicy::for_network(Network::Regtest);
    let store = Arc::new(FilesystemStore::new(directory));
    Arc::new(LocalHsm::validating(&HsmSecret::new([secret; 32]), policy, store))
}

/// A validating signer that goes wrong as the row says.
fn mock(secret: u8, row: &Row, faults: Faults, home: &Path) -> MockHsm {
    let (kept, empty) = (home.join("kept"), home.join("empty"));
    let is_forged = matches!(row.wrong, Wrong::Misdeed(Misdeed::Forge(_)));
    let mock = MockHsm::new(validating(secret, kept.clone()), faults).restarting(move |restart| {
        match restart {
            _ if is_forged => Arc::new(LocalHsm::blind(&HsmSecret::new([secret; 32]))),
            Restart::Remembering => validating(secret, kept.clone()),
            Restart::RolledBack => validating(secret, empty.clone()),
        }
    });
    match &row.wrong {
        Wrong::Fault(_) => mock,
        Wrong::Deferred(times) => (row.nth..row.nth + times)
            .fold(mock, |mock, nth| mock.does(row.call, nth, Misdeed::Say(HsmError::Deferred))),
        Wrong::Misdeed(misdeed) => mock.does(row.call, row.nth, misdeed.clone()),
    }
}

/// A node whose signer goes wrong; what it answers is verified, as that of any signer elsewhere.
fn wrong_node(secret: u8, row: &Row, faults: &Faults, home: &Path) -> Made {
    let mut made = faulty_node(secret, &Faults::none());
    let mock = mock(secret, row, faults.clone(), home);
    made.transcript = mock.transcript();
    made.node.hsm = Arc::new(Verified::new(mock));
    made
}

fn patient_node(secret: u8) -> Made {
    let mut made = faulty_node(secret, &Faults::none());
    made.node.deadlines.peer = PATIENCE;
    made
}

/// Somebody presses the button, where one has to be.
fn press_the_button(row: &Row, faults: &Faults) {
    if matches!(row.wrong, Wrong::Fault(Fault::Hold)) {
        let faults = faults.clone();
        tokio::spawn(async move {
            faults.struck().await;
            tokio::time::sleep(Duration::from_secs(30)).await;
            faults.release();
        });
    }
}

/// Two nodes with an opening between them, and the one whose signer goes wrong.
struct Scene {
    which: From,
    funder: Party,
    fundee: Party,
    wire: Wire,
    case: String,
    _home: TempDir,
}

impl Scene {
    async fn new(which: From, row: &Row, faults: &Faults) -> Self {
        let home = tempfile::tempdir().unwrap();
        let (funder, fundee, wire) = match which {
            From::Funder => connect(wrong_node(1, row, faults, home.path()), patient_node(2)).await,
            From::Fundee => connect(patient_node(1), wrong_node(2, row, faults, home.path())).await,
        };
        Self { which, funder, fundee, wire, case: format!("{which:?} {row:?}"), _home: home }
    }

    fn wrong(&self) -> &Party {
        match self.which {
            From::Funder => &self.funder,
            From::Fundee => &self.fundee,
        }
    }

    async fn opened(&self, opening: Opening) {
        let case = &self.case;
        let (opened, permit) = opening.unwrap_or_else(|failed| panic!("{case}: {failed}"));
        assert_eq!(permit.txid(), opened.parameters.funding_outpoint.txid, "{case}");
        self.fundee.log.opened().await;
        for party in [&self.funder, &self.fundee] {
            assert_eq!((party.kept().await.len(), party.log.failures()), (1, vec![]), "{case}");
        }
        assert_eq!(self.wrong().transcript.count(Call::ForgetChannel), 0, "{case}");
    }

    async fn failed(&self, opening: Opening, ends: Reason) {
        let (case, wrong) = (&self.case, self.wrong());
        let heard = opening.map(drop).expect_err(case);
        let own = wrong.log.failed().await;
        settle().await;
        self.reason_is_ours_alone(&own, &heard, ends);
        assert_eq!(wrong.log.failures().len(), 1, "{case}");
        assert_eq!((wrong.kept().await.len(), wrong.log.opened_so_far()), (0, 0), "{case}");
        let status = wrong.openings.status().await;
        assert!(status.under_way.is_empty(), "{case}: {:?}", status.under_way);
        assert_eq!(status.failures.len(), 1, "{case}");
        // What the signer was asked for it may forget, and nothing else.
        let named: Vec<ChannelRef> = references(&wrong.transcript, Call::Channel);
        assert_eq!(references(&wrong.transcript, Call::ForgetChannel), named, "{case}");
    }

    /// The operator reads which call failed and how, the peer that something did.
    fn reason_is_ours_alone(&self, own: &Failed, heard: &Failed, ends: Reason) {
        let (code, call, words) = ends;
        let (case, text) = (&self.case, own.to_string());
        assert_eq!(own.failure.code(), code, "{case}: {text}");
        for part in [call.as_str(), code, words] {
            assert!(text.contains(part), "{case}: {text}");
        }
        for error in self.wire.errors(self.which) {
            assert_eq!(error, "internal error", "{case}");
        }
        if self.which == From::Fundee {
            let discreet =
                matches!(&*heard.failure, Failure::PeerError(text) if text == "internal error");
            assert!(discreet, "{case}: {heard}");
        }
    }
}

/// The channels that a call was made for, each once, in order.
fn references(transcript: &Transcript, call: Call) -> Vec<ChannelRef> {
    let mut references: Vec<_> =
        transcript.of(call).into_iter().map(|entry| entry.reference).collect();
    references.dedup();
    references
}

/// For no channel was a signature asked for over two transactions.
fn nothing_is_signed_in_two_versions(transcript: &Transcript, case: &str) {
    let mut asked = HashMap::new();
    for entry in transcript.of(Call::SignCounterpartyCommitment) {
        let first = asked.entry(entry.reference).or_insert_with(|| entry.request.clone());
        assert_eq!(*first, entry.request, "{case}");
    }
    assert_eq!(transcript.beyond(), 0, "{case}");
}

pub(crate) async fn play(which: From, row: &Row) {
    let faults = match row.wrong {
        Wrong::Fault(fault) => Faults::none().at(row.call.as_str(), row.nth, fault),
        _ => Faults::none(),
    };
    let scene = Scene::new(which, row, &faults).await;
    let Scene { funder, fundee, case, .. } = &scene;
    press_the_button(row, &faults);
    let opening = open(funder).await;
    match row.ends {
        Ends::Opened => scene.opened(opening).await,
        Ends::Failed { code, call, words } => scene.failed(opening, (code, call, words)).await,
    }
    until(case, || funder.openings.pending() + fundee.openings.pending() == 0).await;
    // It went wrong once: the connection and the signer are as good as before.
    if row.ends != Ends::Opened {
        let _permit = open(funder).await.unwrap_or_else(|failed| panic!("{case}: {failed}"));
    }
    until(case, || funder.openings.pending() + fundee.openings.pending() == 0).await;
    nothing_is_signed_in_two_versions(&scene.wrong().transcript, case);
}
