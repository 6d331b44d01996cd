//! What follows each message in each state, as one table.  Every cell is played against a node,
//! and `docs/state-message-table.md` says the same.

// Clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod document;
mod play;
mod scene;
mod table;

use std::time::Duration;

use opening_core::Role;
use scene::Scene;
use table::{FUNDEE, FUNDER, Message, Outcome, State, Table};

async fn cell(role: Role, state: State, message: Message, outcome: Outcome) {
    println!("{} in {state:?}: {message:?} gives {outcome:?}", role.as_str());
    let playing = async {
        let mut scene = Scene::at(role, state).await;
        scene.play(message, outcome).await;
        scene.here.valves.open_all();
        scene.here.nothing_pending().await;
        scene.nothing_else_happened(message, outcome);
        let id = scene.temporary_id();
        scene.here.forgot_theirs(&mut scene.peer, id).await;
        scene.here.can_open(&scene.session, &mut scene.peer).await;
    };
    tokio::time::timeout(Duration::from_secs(60), playing).await.expect("hangs");
}

async fn column<const COLUMNS: usize>(role: Role, (states, rows): Table<COLUMNS>) {
    for (index, state) in states.into_iter().enumerate() {
        for (message, outcomes) in rows {
            cell(role, state, message, outcomes[index]).await;
        }
    }
}

// incident: LDK panics
// req: B2-EST-B-02, B2-EST-B-05, B1-MSG-R-01, B1-MSG-R-02, B1-MSG-R-03, B1-MSG-R-04, B1-MSG-S-01
// req: B1-ERR-S-02, B1-ERR-S-05, B1-ERR-S-06, B1-ERR-R-01, B1-ERR-R-02, B1-ERR-R-03, B1-PING-R-01
#[tokio::test]
async fn every_message_has_its_result_in_every_state_of_a_funder() {
    column(Role::Funder, FUNDER).await;
}

// incident: LDK panics
// incident: CLN 23.02 (hook and open race)
// req: B2-EST-B-02, B2-EST-B-05, B1-MSG-R-01, B1-MSG-R-02, B1-MSG-R-03, B1-MSG-R-04, B1-MSG-S-01
// req: B1-ERR-S-03, B1-ERR-S-05, B1-ERR-S-06, B1-ERR-R-01, B1-ERR-R-02, B1-ERR-R-03, B1-PING-R-01
#[tokio::test]
async fn every_message_has_its_result_in_every_state_of_a_fundee() {
    column(Role::Fundee, FUNDEE).await;
}
