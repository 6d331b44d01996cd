//! Money order: nothing leaves for a channel that is not saved, and nothing ends one that is.

// Clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

mod common;
mod faulty;

use std::time::Duration;

use common::{ask, signed};
use faulty::{
    From, HSM_CALLS, Party, Raw, Wire, connect, connect_faulty, faulty_node, finish, open,
    open_channel_message, settle, until,
};
use lightning::ln::msgs::ErrorMessage;
use lightning::ln::types::ChannelId;
use opening_peer::message::Message;
use opening_peer::testing::{EVERY, Fault, Faults};
use opening_peer::{Event, Failure, FundingTransaction, Stage};
use opening_signer::Call;

const FUNDING_CREATED: u16 = 34;
const FUNDING_SIGNED: u16 = 35;
const CHANNEL_READY: u16 = 36;

const FAULTS: [Fault; 5] =
    [Fault::FailBefore, Fault::FailAfter, Fault::StallBefore, Fault::StallAfter, Fault::Panic];

/// The stable name of what a store's fault looks like.
fn store_code(call: &str, fault: Fault) -> &'static str {
    match (call, fault) {
        (_, Fault::FailBefore | Fault::FailAfter) => "store-io",
        (_, Fault::StallBefore | Fault::StallAfter) => "store-silent",
        _ => "store-interrupted",
    }
}

fn of<'a>(which: From, funder: &'a Party, fundee: &'a Party) -> (&'a Party, &'a Party) {
    match which {
        From::Funder => (funder, fundee),
        From::Fundee => (fundee, funder),
    }
}

fn assert_nothing_pending(funder: &Party, fundee: &Party) {
    assert_eq!((funder.openings.pending(), fundee.openings.pending()), (0, 0));
}

/// How many channels the signer was told to forget.
fn times_forgotten(party: &Party) -> u32 {
    party.transcript.count(Call::ForgetChannel)
}

/// The peer learns that something is wrong here, and not what.
fn assert_discreet(wire: &Wire, which: From) {
    let errors = wire.errors(which);
    assert!(errors.iter().all(|text| text == "internal error"), "{errors:?}");
}

// incident: CLN #4232
// req: B2-FC-S-03, B2-FS-R-02, B2-EST-B-05
#[tokio::test(start_paused = true)]
async fn a_store_that_fails_anyhow_lets_nothing_leave() {
    for which in [From::Funder, From::Fundee] {
        for fault in FAULTS {
            store_fails(which, "reserve_dbids", fault).await;
        }
        // Read back, the channel is not there: it is known to have failed.
        for fault in [Fault::FailBefore, Fault::Panic] {
            store_fails(which, "save", fault).await;
        }
    }
}

/// A save that was told to have failed, and is there when it is read back, was one.
// req: B2-FC-S-03, B2-FS-R-02, B2-EST-B-05
#[tokio::test(start_paused = true)]
async fn a_save_that_is_found_when_read_back_counts() {
    for which in [From::Funder, From::Fundee] {
        let faults =
            Faults::none().at("save", 1, Fault::FailAfter).at("load", 1, Fault::FailBefore);
        let (funder, fundee, wire) = connect_faulty(which, &faults).await;
        let (opened, permit) = open(&funder).await.unwrap();
        assert_eq!(permit.txid(), opened.parameters.funding_outpoint.txid);
        assert_eq!((faults.calls("save"), faults.calls("load")), (2, 1), "{which:?}");
        assert_eq!(funder.kept().await.len() + fundee.kept().await.len(), 2);
        assert_eq!(wire.errors(which), [""; 0]);
        assert_nothing_pending(&funder, &fundee);
    }
}

/// Nobody knows whether it is saved: nothing leaves, nothing is given up, however long it takes.
// req: B2-FC-S-03, B2-FS-R-02, B2-EST-B-05
#[tokio::test(start_paused = true)]
async fn a_save_that_is_not_answered_holds_everything() {
    for which in [From::Funder, From::Fundee] {
        let faults = Faults::none().at("save", 1, Fault::Hold);
        let (mut funder, mut fundee) = (faulty_node(1, &Faults::none()), faulty_node(2, &faults));
        if which == From::Funder {
            (funder, fundee) = (faulty_node(1, &faults), faulty_node(2, &Faults::none()));
        }
        // The other side would lose patience first.
        funder.node.deadlines.peer = std::time::Duration::from_secs(100_000);
        let (funder, fundee, wire) = connect(funder, fundee).await;
        let session = funder.session.clone();
        let mut opening =
            tokio::spawn(async move { finish(session.open(ask()).await.unwrap()).await });
        faults.struck().await;
        let (faulty, _) = of(which, &funder, &fundee);
        let overdue = |event: &Event| matches!(event, Event::SaveOverdue { .. }).then_some(());
        faulty.log.first(overdue).await;
        let hours = std::time::Duration::from_secs(10_000);
        assert!(tokio::time::timeout(hours, &mut opening).await.is_err(), "{which:?}");
        assert_eq!(wire.types(From::Fundee).contains(&FUNDING_SIGNED), which == From::Funder);
        assert_eq!((faulty.log.failures(), wire.errors(which)), (vec![], vec![]));
        faults.release();
        let _permit = opening.await.unwrap().unwrap();
        fundee.log.opened().await;
        assert_nothing_pending(&funder, &fundee);
    }
}

async fn store_fails(which: From, call: &'static str, fault: Fault) {
    let case = format!("{which:?} {call} {fault:?}");
    let faults = Faults::none().at(call, 1, fault);
    let (funder, fundee, wire) = connect_faulty(which, &faults).await;
    // An error instead of a permit.
    let failed = open(&funder).await.unwrap_err();
    let (faulty, sound) = of(which, &funder, &fundee);
    let own = faulty.log.failed().await;
    assert_eq!(own.failure.code(), store_code(call, fault), "{case}");
    let stage = match (which, call) {
        (_, "save") => Stage::Save,
        (From::Funder, _) => Stage::Keys,
        (From::Fundee, _) => Stage::Decision,
    };
    assert_eq!(own.stage, stage, "{case}");
    settle().await;
    match which {
        From::Funder => assert_eq!(failed.failure.code(), own.failure.code(), "{case}"),
        From::Fundee => {
            assert!(
                matches!(&*failed.failure, Failure::PeerError(text) if text == "internal error")
            );
            assert!(!wire.types(From::Fundee).contains(&FUNDING_SIGNED), "{case}");
        }
    }
    assert_discreet(&wire, which);
    assert_eq!(faulty.log.opened_so_far(), 0, "{case}");
    assert_eq!(faulty.log.failures().len(), 1, "{case}");
    assert_nothing_pending(&funder, &fundee);
    // From the save on the signer keeps the channel, for it may be kept here.
    assert_eq!(times_forgotten(faulty), 0, "{case}");
    assert_eq!(faulty.kept().await.len(), 0, "{case}");
    if which == From::Funder && call == "save" {
        assert_eq!(sound.kept().await.len(), 1, "the fundee has saved before it signed: {case}");
    }
    // The connection is as good as before, unless the store still does not answer.
    faults.repair();
    let stalls = matches!(fault, Fault::StallBefore | Fault::StallAfter);
    if call == "save" || !stalls {
        let other = FundingTransaction::Outpoint(
            "11".repeat(32)
                .parse::<bitcoin::Txid>()
                .map(|txid| bitcoin::OutPoint { txid, vout: 1 })
                .unwrap(),
        );
        let pending = funder.session.open(ask()).await.unwrap().accepted().await.unwrap();
        let _permit = pending.complete(other).await.unwrap().opened().await.unwrap();
    } else {
        assert_eq!(open(&funder).await.unwrap_err().role, opening_core::Role::Funder);
        assert_eq!(
            faults.calls(call),
            1,
            "a store that does not answer is not asked again: {case}"
        );
    }
    assert_nothing_pending(&funder, &fundee);
}

// req: B2-FC-S-03, B2-FS-R-02, B2-EST-B-05
#[tokio::test(start_paused = true)]
async fn a_signer_that_fails_anyhow_lets_nothing_leave() {
    for which in [From::Funder, From::Fundee] {
        for call in HSM_CALLS {
            for fault in FAULTS {
                signer_fails(which, call, 1, fault).await;
            }
        }
    }
    // A fundee asks for its channel again on funding_created.
    for fault in FAULTS {
        signer_fails(From::Fundee, "channel", 2, fault).await;
    }
}

async fn signer_fails(which: From, call: &'static str, nth: u32, fault: Fault) {
    let case = format!("{which:?} {call} {nth} {fault:?}");
    let faults = Faults::none().at(call, nth, fault);
    let (funder, fundee, wire) = connect_faulty(which, &faults).await;
    assert!(open(&funder).await.is_err(), "{case}");
    let (faulty, _) = of(which, &funder, &fundee);
    let own = faulty.log.failed().await;
    let code = match fault {
        Fault::FailBefore | Fault::FailAfter => "signer-indeterminate",
        Fault::Panic => "internal-panic",
        _ => "signer-silent",
    };
    assert_eq!(own.failure.code(), code, "{case}");
    settle().await;
    assert_discreet(&wire, which);
    let may_say = match (which, call) {
        // Only the last of the funder's calls comes after its signature has left.
        (From::Funder, "validate_holder_commitment") => None,
        (From::Funder, _) => Some(FUNDING_CREATED),
        (From::Fundee, _) => Some(FUNDING_SIGNED),
    };
    if let Some(type_number) = may_say {
        assert!(!wire.types(which).contains(&type_number), "{case}");
    }
    assert_eq!(faulty.kept().await, [], "{case}");
    assert_eq!(faulty.log.opened_so_far(), 0, "{case}");
    assert_eq!(faulty.log.failures().len(), 1, "{case}");
    assert_nothing_pending(&funder, &fundee);
    assert_eq!(times_forgotten(faulty), 1, "{case}");
    // The next opening is not hurt.
    faults.repair();
    let _permit = open(&funder).await.unwrap();
    assert_nothing_pending(&funder, &fundee);
}

/// What may come in while the node is at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interruption {
    Disconnect,
    Error,
    ErrorByFirstId,
    ErrorForAll,
    Cancel,
    DropHandle,
    DropSession,
}

const AT_FUNDER: [Interruption; 7] = [
    Interruption::Disconnect,
    Interruption::Error,
    Interruption::ErrorByFirstId,
    Interruption::ErrorForAll,
    Interruption::Cancel,
    Interruption::DropHandle,
    Interruption::DropSession,
];

const AT_FUNDEE: [Interruption; 5] = [
    Interruption::Disconnect,
    Interruption::Error,
    Interruption::ErrorByFirstId,
    Interruption::ErrorForAll,
    Interruption::DropSession,
];

/// Brings an opening to the call that `faults` hold, interrupts it there, lets the call go on.
/// Returns (opened, failed, kept) of the node that was interrupted, and what the peer heard.
async fn interrupt(
    which: From,
    call: &'static str,
    interruption: Interruption,
) -> (usize, Vec<(&'static str, &'static str)>, usize, Vec<u16>) {
    let faults = Faults::none().at(call, 1, Fault::Hold);
    let (funder, fundee, wire) = connect_faulty(which, &faults).await;
    let opening = funder.session.open(ask()).await.unwrap();
    let (first_id, canceller) = (opening.temporary_channel_id(), opening.canceller());
    let handle = tokio::spawn(finish(opening));
    faults.struck().await;
    settle().await;
    let id = wire.said(From::Funder).iter().find_map(|message| match message {
        Message::FundingCreated(it) => Some(ChannelId(
            opening_core::channel_id(bitcoin::OutPoint {
                txid: it.funding_txid,
                vout: it.funding_output_index.into(),
            })
            .unwrap(),
        )),
        _ => None,
    });
    let error = |channel_id| {
        let data = "enough".into();
        wire.inject(which.other(), &ErrorMessage { channel_id, data });
    };
    let (mut funder_session, mut fundee_session) = (Some(funder.session), Some(fundee.session));
    match interruption {
        Interruption::Disconnect => wire.cut(),
        Interruption::Error => error(id.unwrap_or(first_id)),
        Interruption::ErrorByFirstId => error(first_id),
        Interruption::ErrorForAll => error(ChannelId([0; 32])),
        Interruption::Cancel => drop(canceller.cancel().await),
        Interruption::DropHandle => handle.abort(),
        Interruption::DropSession if which == From::Funder => {
            handle.abort();
            drop(canceller);
            funder_session = None;
        }
        Interruption::DropSession => fundee_session = None,
    }
    settle().await;
    let heard_before = wire.types(which);
    assert!(!heard_before.contains(&FUNDING_SIGNED), "{which:?} {call} {interruption:?}");
    faults.release();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let (party_log, openings, store) = match which {
        From::Funder => (&funder.log, &funder.openings, &funder.store),
        From::Fundee => (&fundee.log, &fundee.openings, &fundee.store),
    };
    assert_eq!(openings.pending(), 0);
    use opening_peer::store::ChannelStore as _;
    let kept = store.load_all().await.unwrap().len();
    drop((funder_session, fundee_session));
    (party_log.opened_so_far(), party_log.failures(), kept, wire.types(which))
}

// req: B2-FC-S-03, B2-FS-R-02
#[tokio::test(start_paused = true)]
async fn what_comes_during_the_save_does_not_end_the_channel() {
    for (which, interruptions) in [(From::Funder, &AT_FUNDER[..]), (From::Fundee, &AT_FUNDEE[..])] {
        for &interruption in interruptions {
            let (opened, failed, kept, _) = interrupt(which, "save", interruption).await;
            assert_eq!((opened, failed, kept), (1, vec![], 1), "{which:?} {interruption:?}");
        }
    }
}

// req: B1-ERR-R-02, B1-ERR-R-01
#[tokio::test(start_paused = true)]
async fn what_comes_before_the_save_ends_the_channel_whatever_the_signer_then_says() {
    for (which, call, interruptions) in [
        (From::Funder, "sign_counterparty_commitment", &AT_FUNDER[..]),
        (From::Funder, "validate_holder_commitment", &AT_FUNDER[..]),
        (From::Fundee, "validate_holder_commitment", &AT_FUNDEE[..]),
        (From::Fundee, "sign_counterparty_commitment", &AT_FUNDEE[..]),
    ] {
        for &interruption in interruptions {
            let case = format!("{which:?} {call} {interruption:?}");
            let (opened, failed, kept, heard) = interrupt(which, call, interruption).await;
            assert_eq!((opened, failed.len(), kept), (0, 1, 0), "{case}: {failed:?}");
            let stage = match (which, call) {
                (From::Funder, "sign_counterparty_commitment") => "signature",
                (From::Funder, _) => "validation",
                (From::Fundee, _) => "commitments",
            };
            let code = match interruption {
                Interruption::Disconnect => "disconnected",
                Interruption::Error | Interruption::ErrorByFirstId | Interruption::ErrorForAll => {
                    "peer-error"
                }
                _ => "cancelled",
            };
            assert_eq!(failed[0], (stage, code), "{case}");
            assert!(!heard.contains(&FUNDING_SIGNED), "{case}");
            if stage == "signature" {
                assert!(!heard.contains(&FUNDING_CREATED), "{case}");
            }
        }
    }
}

const OPEN_CHANNEL: u16 = 32;
const ACCEPT_CHANNEL: u16 = 33;

// req: B2-RE-B-03, B2-RE-B-05
#[tokio::test(start_paused = true)]
async fn a_connection_that_ends_before_the_save_leaves_nothing_on_either_side() {
    for (swallowed, at_funder, at_fundee) in [
        (OPEN_CHANNEL, "accept-channel", None),
        (ACCEPT_CHANNEL, "accept-channel", Some("funding-created")),
        (FUNDING_CREATED, "funding-signed", Some("funding-created")),
    ] {
        let (funder, fundee, wire) = connect_faulty(From::Funder, &Faults::none()).await;
        wire.swallow(swallowed);
        let opening = tokio::spawn(finish(funder.session.open(ask()).await.unwrap()));
        settle().await;
        wire.cut();
        let failed = opening.await.unwrap().unwrap_err();
        assert_eq!((failed.stage.as_str(), failed.failure.code()), (at_funder, "disconnected"));
        fundee.log.disconnected().await;
        let expected: Vec<_> = at_fundee.map(|stage| (stage, "disconnected")).into_iter().collect();
        assert_eq!(fundee.log.failures(), expected);
        assert_nothing_pending(&funder, &fundee);
        assert_eq!((funder.kept().await, fundee.kept().await), (vec![], vec![]));
    }
}

// req: B2-RE-B-05
#[tokio::test(start_paused = true)]
async fn after_a_reconnect_the_same_temporary_id_is_new() {
    let made = faulty_node(2, &Faults::none());
    let openings = common::openings(made.node);
    let offer = open_channel_message([1; 32]).await;
    for _ in 0..3 {
        let (session, mut raw) = Raw::connect(&openings, 7).await;
        raw.send(&offer).await;
        assert!(matches!(raw.receive().await, Some(Message::AcceptChannel(_))));
        drop((session, raw));
        until("it is gone", || openings.pending() == 0).await;
    }
}

// incident: CLN #4416
// incident: CLN #4232
// req: B2-EST-B-03, B2-FS-R-03
#[tokio::test(start_paused = true)]
async fn the_permit_comes_once_right_after_the_save_and_names_the_channel() {
    let faults = Faults::none().at("save", 1, Fault::Hold);
    let (funder, fundee, wire) = connect_faulty(From::Funder, &faults).await;
    let pending = funder.session.open(ask()).await.unwrap().accepted().await.unwrap();
    let funding = signed(&pending.needed().output);
    let FundingTransaction::Signed(transaction) = &funding else { unreachable!() };
    let txid = transaction.compute_txid();
    let mut signing = pending.complete(funding).await.unwrap();
    let mut opened = Box::pin(signing.opened());
    faults.struck().await;
    settle().await;
    assert!(wire.types(From::Fundee).contains(&FUNDING_SIGNED));
    assert!(futures::poll!(&mut opened).is_pending(), "a permit before the save");
    faults.release();
    let (opened, permit) = opened.await.unwrap();
    assert_eq!(permit.txid(), opened.parameters.funding_outpoint.txid);
    assert_eq!(opened.parameters.funding_outpoint.txid, txid);
    assert_eq!(opened.funding_transaction.as_ref().unwrap().compute_txid(), txid);
    let created = wire.said(From::Funder).into_iter().find_map(|message| match message {
        Message::FundingCreated(it) => Some(it.funding_txid),
        _ => None,
    });
    assert_eq!(created, Some(txid));
    assert_eq!((funder.kept().await.len(), fundee.kept().await.len()), (1, 1));
    assert_eq!(funder.log.opened_so_far(), 1);
}

// req: B2-FS-R-02
#[tokio::test(start_paused = true)]
async fn funding_signed_leaves_only_when_the_fundee_has_saved() {
    let faults = Faults::none().at("save", EVERY, Fault::Hold);
    let (funder, fundee, wire) = connect_faulty(From::Fundee, &faults).await;
    let handle = tokio::spawn(async move { (open(&funder).await, funder) });
    faults.struck().await;
    tokio::time::sleep(Duration::from_secs(29)).await;
    assert!(!wire.types(From::Fundee).contains(&FUNDING_SIGNED));
    faults.release();
    let (opened, _funder) = handle.await.unwrap();
    assert_eq!(fundee.log.opened().await.channel_id, opened.unwrap().0.channel_id);
    assert!(wire.types(From::Fundee).contains(&FUNDING_SIGNED));
    assert!(!wire.types(From::Fundee).contains(&CHANNEL_READY));
}

#[tokio::test(start_paused = true)]
async fn many_openings_wait_one_deadline_for_a_stalled_store_not_one_after_the_other() {
    let faults = Faults::none().at("reserve_dbids", EVERY, Fault::StallBefore);
    let (funder, fundee, _wire) =
        connect(faulty_node(1, &Faults::none()), faulty_node(2, &faults)).await;
    let begin = tokio::time::Instant::now();
    let openings = (0..4).map(|_| open(&funder));
    for failed in futures::future::join_all(openings).await {
        assert!(matches!(&*failed.unwrap_err().failure, Failure::PeerError(_)));
    }
    assert_eq!(begin.elapsed().as_secs(), 30);
    assert_eq!(fundee.log.failures(), [("decision", "store-silent"); 4]);
    assert_eq!(faults.calls("reserve_dbids"), 1);
    assert_nothing_pending(&funder, &fundee);
}
