//! What goes wrong at which call, and what comes of it.

use std::time::Duration;

use opening_peer::testing::Fault;
use opening_signer::testing::{Forgery, Misdeed, Restart};
use opening_signer::{Call, HsmError};

use crate::faulty::From;

/// Every call of an opening.
pub(crate) const CALLS: [Call; 6] = [
    Call::Channel,
    Call::Pubkeys,
    Call::PerCommitmentPoint,
    Call::Setup,
    Call::SignCounterpartyCommitment,
    Call::ValidateHolderCommitment,
];

/// What goes wrong.
#[derive(Clone, Debug)]
pub(crate) enum Wrong {
    /// The call is not carried out or not answered.
    Fault(Fault),
    /// These many are deferred.
    Deferred(u32),
    Misdeed(Misdeed),
}

/// How the opening ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    Opened,
    /// With this code, at this call, and with these words for the operator.
    Failed {
        code: &'static str,
        call: Call,
        words: &'static str,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) call: Call,
    pub(crate) nth: u32,
    pub(crate) wrong: Wrong,
    pub(crate) ends: Ends,
}

/// A signer's deadline is 60 seconds.
const IN_TIME: Duration = Duration::from_secs(59);
const TOO_LATE: Duration = Duration::from_secs(61);

pub(crate) fn rows(which: From) -> Vec<Row> {
    let mut rows: Vec<_> = CALLS.into_iter().flat_map(|call| at(call, 1)).collect();
    if which == From::Fundee {
        // It asks for its channel again on funding_created.
        rows.extend(at(Call::Channel, 2));
    }
    rows
}

fn at(call: Call, nth: u32) -> Vec<Row> {
    let refused = HsmError::Refused { tag: "tag-of-the-test".into(), detail: "so".into() };
    let failed = |code, words| Ends::Failed { code, call, words };
    let silent = failed("signer-silent", "did not answer");
    let mut wrongs = vec![
        (Wrong::Fault(Fault::FailBefore), failed("signer-unavailable", "on purpose")),
        (Wrong::Fault(Fault::FailAfter), failed("signer-indeterminate", "on purpose")),
        (Wrong::Fault(Fault::StallBefore), silent),
        (Wrong::Fault(Fault::StallAfter), silent),
        (Wrong::Fault(Fault::Delay(IN_TIME)), Ends::Opened),
        (Wrong::Fault(Fault::Delay(TOO_LATE)), silent),
        (Wrong::Fault(Fault::Hold), Ends::Opened),
        (Wrong::Deferred(3), Ends::Opened),
        (Wrong::Misdeed(Misdeed::Say(refused)), failed("signer-refused", "tag-of-the-test")),
    ];
    wrongs.extend(
        forgeries(call)
            .into_iter()
            .map(|(forgery, ends)| (Wrong::Misdeed(Misdeed::Forge(forgery)), ends)),
    );
    wrongs.extend(
        [Restart::Remembering, Restart::RolledBack]
            .map(|restart| (Wrong::Misdeed(Misdeed::Restart(restart)), restarted(call))),
    );
    wrongs.into_iter().map(|(wrong, ends)| Row { call, nth, wrong, ends }).collect()
}

/// The wrong answers of a call, and the call at which each is found: a key that nobody knows better
/// is held against the signer's own when it is told of the channel.
fn forgeries(call: Call) -> Vec<(Forgery, Ends)> {
    let code = "signer-invalid-request";
    let words = "finds the request invalid";
    let at_setup = Ends::Failed { code, call: Call::Setup, words };
    let words = "its signature does not verify";
    let at_once = Ends::Failed { code: "signer-protocol", call, words };
    match call {
        Call::Pubkeys => vec![(Forgery::OtherChannelsKeys, at_setup)],
        Call::PerCommitmentPoint => vec![(Forgery::OtherPoint, at_setup)],
        Call::SignCounterpartyCommitment => {
            [Forgery::OtherKey, Forgery::HighS, Forgery::WrongSighash]
                .map(|forgery| (forgery, at_once))
                .into()
        }
        _ => Vec::new(),
    }
}

/// A signer that comes back wants the setup again before it signs, whatever it kept; a client that
/// connects anew gives it, and here there is none.
fn restarted(call: Call) -> Ends {
    match call {
        Call::SignCounterpartyCommitment | Call::ValidateHolderCommitment => {
            Ends::Failed { code: "signer-refused", call, words: "setup-missing" }
        }
        _ => Ends::Opened,
    }
}
