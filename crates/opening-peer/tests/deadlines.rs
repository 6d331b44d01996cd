//! Whoever falls silent, the opening ends in time, with its stage, and the peer is told.

// Clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

mod common;
mod faulty;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use common::{ask, confirmation, funding_transaction};
use faulty::{
    From, HSM_CALLS, Party, Raw, connect, connect_faulty, faulty_node, finish, open,
    open_channel_message, settle, until,
};
use lightning::ln::msgs::{Init, Ping};
use opening_peer::message::encode;
use opening_peer::session::default_features;
use opening_peer::testing::{EVERY, Fault, Faults, MockHsm};
use opening_peer::transport::framed;
use opening_peer::{Deadlines, Event, Greeting, Session, Stage};
use opening_signer::{Call, HsmError, HsmSecret, LocalHsm};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop::poll_proceed;
use tokio::time::Instant;

const ACCEPT_CHANNEL: u16 = 33;
const FUNDING_SIGNED: u16 = 35;

/// Ends with exactly one failure of this stage and code, after so many seconds.
async fn assert_fails(party: &Party, begin: Instant, stage: &str, code: &str, seconds: u64) {
    party.log.failed().await;
    assert_eq!(begin.elapsed().as_secs(), seconds, "{stage} {code}");
    settle().await;
    assert_eq!(party.log.failures(), [(stage, code)]);
    assert_eq!(party.openings.pending(), 0);
}

// incident: CLN #4043
#[tokio::test(start_paused = true)]
async fn no_accept_channel() {
    let (funder, fundee, wire) = connect_faulty(From::Funder, &Faults::none()).await;
    wire.swallow(ACCEPT_CHANNEL);
    let begin = Instant::now();
    let opening = tokio::spawn(finish(funder.session.open(ask()).await.unwrap()));
    assert_fails(&funder, begin, "accept-channel", "peer-silent", 60).await;
    assert_eq!(opening.await.unwrap().unwrap_err().failure.code(), "peer-silent");
    assert_eq!(wire.errors(From::Funder), ["no accept_channel in time"]);
    // Our error ends it there, too, long before its own clock.
    until("the fundee has nothing pending", || fundee.openings.pending() == 0).await;
    assert_eq!(fundee.log.failures().len(), 1);
}

/// A funder whose wallet has all the time it likes, and a fundee.
async fn connect_with_slow_wallet() -> (Party, Party, faulty::Wire) {
    let mut slow = faulty_node(1, &Faults::none());
    slow.node.deadlines.wallet = Duration::from_secs(24 * 3600);
    connect(slow, faulty_node(2, &Faults::none())).await
}

// incident: CLN #4043
#[tokio::test(start_paused = true)]
async fn no_funding_created() {
    let (funder, fundee, wire) = connect_with_slow_wallet().await;
    let begin = Instant::now();
    let pending = funder.session.open(ask()).await.unwrap().accepted().await.unwrap();
    assert_fails(&fundee, begin, "funding-created", "peer-silent", 900).await;
    assert_eq!(wire.errors(From::Fundee), ["no funding_created in time"]);
    assert_eq!(funder.log.failures(), [("funding", "peer-error")]);
    assert!(pending.complete(common::signed(&dummy_output())).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn funding_created_just_in_time() {
    let (funder, fundee, _wire) = connect_with_slow_wallet().await;
    let pending = funder.session.open(ask()).await.unwrap().accepted().await.unwrap();
    tokio::time::sleep(Duration::from_secs(899)).await;
    let funding = common::signed(&pending.needed().output);
    let _permit = pending.complete(funding).await.unwrap().opened().await.unwrap();
    assert_eq!((fundee.log.failures(), fundee.kept().await.len()), (vec![], 1));
}

#[tokio::test(start_paused = true)]
async fn two_nodes_with_the_defaults_have_patience_with_a_wallet() {
    let (funder, _fundee, _wire) = connect_faulty(From::Funder, &Faults::none()).await;
    let pending = funder.session.open(ask()).await.unwrap().accepted().await.unwrap();
    tokio::time::sleep(Duration::from_secs(599)).await;
    let funding = common::signed(&pending.needed().output);
    let _permit = pending.complete(funding).await.unwrap().opened().await.unwrap();
}

fn dummy_output() -> opening_core::FundingOutput {
    let key = common::node_id(9);
    opening_core::FundingOutput::new(bitcoin::Amount::from_sat(1), &key, &key)
}

// incident: CLN #4043
// req: B2-FS-R-02
#[tokio::test(start_paused = true)]
async fn no_funding_signed() {
    let (funder, fundee, wire) = connect_faulty(From::Funder, &Faults::none()).await;
    wire.swallow(FUNDING_SIGNED);
    let begin = Instant::now();
    let failed = open(&funder).await.unwrap_err();
    assert_eq!(failed.failure.code(), "peer-silent");
    assert_fails(&funder, begin, "funding-signed", "peer-silent", 60).await;
    assert_eq!(wire.errors(From::Funder), ["no funding_signed in time"]);
    assert_eq!(funder.kept().await, []);
    // The fundee has signed: no clock ends its channel, and the late error does not delete it.
    tokio::time::sleep(Duration::from_secs(365 * 24 * 3600)).await;
    assert_eq!((fundee.log.failures(), fundee.kept().await.len()), (vec![], 1));
}

#[tokio::test(start_paused = true)]
async fn no_clock_runs_once_a_channel_is_saved() {
    let (funder, fundee, wire) = connect_faulty(From::Funder, &Faults::none()).await;
    let (opened, _permit) = open(&funder).await.unwrap();
    tokio::time::sleep(Duration::from_secs(365 * 24 * 3600)).await;
    let transaction = opened.funding_transaction.clone().unwrap();
    for party in [&funder, &fundee] {
        assert_eq!(party.log.failures(), []);
        party.openings.confirmed(opened.channel_id, confirmation(&transaction, 6)).await.unwrap();
    }
    assert_eq!(funder.log.ready().await.opened.channel_id, opened.channel_id);
    assert_eq!(fundee.log.ready().await.opened.channel_id, opened.channel_id);
    assert_eq!(wire.errors(From::Funder), wire.errors(From::Fundee));
}

// incident: CLN #4043
#[tokio::test(start_paused = true)]
async fn a_silent_policy() {
    for (which, call, stage) in [
        (From::Funder, "bounds", "keys"),
        (From::Fundee, "bounds", "decision"),
        (From::Fundee, "decide", "decision"),
    ] {
        let faults = Faults::none().at(call, EVERY, Fault::StallBefore);
        let (funder, fundee, wire) = connect_faulty(which, &faults).await;
        let begin = Instant::now();
        let failed = open(&funder).await.unwrap_err();
        let party = if which == From::Funder { &funder } else { &fundee };
        assert_fails(party, begin, stage, "policy-silent", 15).await;
        match which {
            // The peer never heard of it.
            From::Funder => assert_eq!(wire.types(which), [16]),
            From::Fundee => {
                assert_eq!(failed.failure.code(), "peer-error");
                assert_eq!(wire.errors(which), ["internal error"]);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_panics_or_says_no() {
    for (call, fault, code, text) in [
        ("bounds", Fault::Panic, "internal-panic", "internal error"),
        ("decide", Fault::Panic, "internal-panic", "internal error"),
        ("decide", Fault::FailBefore, "rejected-by-policy", "no"),
    ] {
        let faults = Faults::none().at(call, 1, fault);
        let (funder, fundee, wire) = connect_faulty(From::Fundee, &faults).await;
        let begin = Instant::now();
        assert!(open(&funder).await.is_err());
        assert_fails(&fundee, begin, "decision", code, 0).await;
        assert_eq!(wire.errors(From::Fundee), [text]);
        assert!(fundee.transcript.entries().is_empty(), "the signer was asked");
        let _permit = open(&funder).await.unwrap();
    }
}

// incident: CLN #4043
#[tokio::test(start_paused = true)]
async fn a_silent_wallet() {
    let (funder, fundee, wire) = connect_faulty(From::Fundee, &Faults::none()).await;
    let begin = Instant::now();
    let pending = funder.session.open(ask()).await.unwrap().accepted().await.unwrap();
    assert_fails(&funder, begin, "funding", "wallet-silent", 600).await;
    assert_eq!(wire.errors(From::Funder), ["internal error"]);
    assert_eq!(fundee.log.failures(), [("funding-created", "peer-error")]);
    let funding = common::signed(&pending.needed().output);
    let (error, pending) = pending.complete(funding).await.unwrap_err();
    assert!(pending.is_none());
    assert!(error.to_string().contains("no funding transaction within 600s"), "{error}");
    // The signer was not bothered with an opening that had ended.
    assert_eq!(signed_so_far(&funder), 0);
}

fn signed_so_far(party: &Party) -> u32 {
    party.transcript.count(Call::SignCounterpartyCommitment)
}

// incident: CLN #4043
#[tokio::test(start_paused = true)]
async fn a_silent_signer() {
    for which in [From::Funder, From::Fundee] {
        for call in HSM_CALLS {
            let faults = Faults::none().at(call, 1, Fault::StallBefore);
            let mut patient = faulty_node(2, &Faults::none());
            let mut silent = faulty_node(1, &faults);
            patient.node.deadlines.peer = Duration::from_secs(24 * 3600);
            if which == From::Fundee {
                patient = faulty_node(1, &Faults::none());
                patient.node.deadlines.peer = Duration::from_secs(24 * 3600);
                silent = faulty_node(2, &faults);
            }
            let (funder, fundee, wire) = match which {
                From::Funder => connect(silent, patient).await,
                From::Fundee => connect(patient, silent).await,
            };
            let begin = Instant::now();
            assert!(open(&funder).await.is_err());
            let party = if which == From::Funder { &funder } else { &fundee };
            let stage = match (which, call) {
                (From::Funder, "channel" | "pubkeys" | "per_commitment_point") => "keys",
                (From::Funder, "validate_holder_commitment") => "validation",
                (From::Funder, _) => "signature",
                (_, "channel" | "pubkeys" | "per_commitment_point") => "decision",
                _ => "commitments",
            };
            assert_fails(party, begin, stage, "signer-silent", 60).await;
            let failed = party.log.failed().await;
            assert!(failed.to_string().contains(call), "{failed}");
            if stage != "keys" {
                assert_eq!(wire.errors(which), ["internal error"], "{which:?} {call}");
            }
        }
    }
}

/// An opening whose signer defers one call at these times; what it was asked then.
async fn deferred(
    call: &'static str,
    times: impl IntoIterator<Item = u32>,
) -> (Result<(), &'static str>, Vec<(String, Duration)>) {
    let mut funder = faulty_node(1, &Faults::none());
    let mut fundee = faulty_node(2, &Faults::none());
    let patient = Deadlines { peer: Duration::from_secs(24 * 3600), ..Deadlines::default() };
    (funder.node.deadlines, fundee.node.deadlines) = (patient, patient);
    let defer = |faults: Faults, nth| faults.at(call, nth, Fault::FailBefore);
    let faults = times.into_iter().fold(Faults::none(), defer);
    let local_hsm = Arc::new(LocalHsm::blind(&HsmSecret::new([1; 32])));
    let hsm = MockHsm::new(local_hsm, faults).failing_with(HsmError::Deferred);
    let transcript = hsm.transcript();
    funder.node.hsm = Arc::new(hsm);
    let (funder, _fundee, _wire) = connect(funder, fundee).await;
    let result = open(&funder).await.map(drop).map_err(|failed| failed.failure.code());
    let asked = transcript.entries().into_iter().filter(|entry| entry.call.as_str() == call);
    let asked: Vec<_> = asked.map(|entry| (entry.request, entry.at)).collect();
    let begin = asked[0].1;
    (result, asked.into_iter().map(|(what, when)| (what, when - begin)).collect())
}

#[tokio::test(start_paused = true)]
async fn a_deferring_signer_is_asked_the_same_again_less_and_less_often() {
    let pauses = [100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000];
    for call in HSM_CALLS {
        let (result, asked) = deferred(call, 1..=9).await;
        assert_eq!(result, Ok(()), "{call}");
        assert_eq!(asked.len(), 10, "{call}");
        assert!(asked.iter().all(|(what, _)| *what == asked[0].0), "{call}");
        let mut at = Duration::ZERO;
        for (pause, (_, when)) in [0].iter().chain(&pauses).zip(&asked) {
            at += Duration::from_millis(*pause);
            // The clock counts in milliseconds.
            assert!(when.abs_diff(at) <= Duration::from_millis(2 * 10), "{call}: {when:?} {at:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_signer_that_defers_forever_is_a_silent_one() {
    for call in HSM_CALLS {
        let (result, asked) = deferred(call, [EVERY]).await;
        assert_eq!(result, Err("signer-silent"), "{call}");
        let last = asked.last().unwrap().1;
        assert!(last > Duration::from_secs(54) && last <= Duration::from_secs(60), "{last:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_reads_is_let_go_with_all_that_is_pending() {
    let made = faulty_node(2, &Faults::none());
    let (log, openings) = (made.log, common::openings(made.node));
    let (mut session, mut raw) = Raw::connect(&openings, 7).await;
    let begin = Instant::now();
    for id in 1..=4 {
        raw.send(&open_channel_message([id; 32]).await).await;
    }
    // Pings until nothing more is taken: the answers fill everything between us.
    let flood = tokio::spawn(async move {
        let ping = encode(&Ping { ponglen: 60_000, byteslen: 0 });
        while raw.writer.queue(&ping).is_ok() && raw.writer.flush().await.is_ok() {}
        raw
    });
    session.closed().await;
    assert!(begin.elapsed() <= Duration::from_secs(121), "{:?}", begin.elapsed());
    assert_eq!(openings.pending(), 0);
    assert_eq!(log.failures().len(), 4);
    assert!(log.disconnected().await.contains("has read nothing"));
    flood.abort();
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_slowly_is_not_one_that_never_reads() {
    let made = faulty_node(2, &Faults::none());
    let (log, openings) = (made.log, common::openings(made.node));
    let (session, mut raw) = Raw::connect(&openings, 7).await;
    // An odd type of the node's own, a megabyte in all.
    let message = [&[0xff, 0xff][..], &[0; 60_000]].concat();
    let (sending, sent) = (session.clone(), message.clone());
    tokio::spawn(async move {
        for _ in 0..20 {
            sending.send(sent.clone()).await.unwrap();
        }
    });
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(raw.reader.read().await.unwrap().unwrap(), message);
    }
    let disconnected = |event: &Event| match event {
        Event::Disconnected { reason } => Some(reason.clone()),
        _ => None,
    };
    assert_eq!(log.all(disconnected), [""; 0]);
}

/// A stream on which there is always one more message to read.
struct Talker {
    beginning: Vec<u8>,
    /// An odd type that nobody knows, to be ignored.
    noise: Vec<u8>,
    read: usize,
}

impl AsyncRead for Talker {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // As tokio's own streams do: else nothing but this one would ever run.
        let budget = ready!(poll_proceed(context));
        budget.made_progress();
        let Self { beginning, noise, read } = &mut *self;
        let rest = match read.checked_sub(beginning.len()) {
            None => &beginning[*read..],
            Some(beyond) => &noise[beyond % noise.len()..],
        };
        let length = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..length]);
        *read += length;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Talker {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn frame(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&length, message].concat()
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_stops_talking_cannot_stop_the_clock() {
    let made = faulty_node(2, &Faults::none());
    let (log, openings) = (made.log, common::openings(made.node));
    let init = Init { features: default_features(), networks: None, remote_network_address: None };
    let offer = open_channel_message([1; 32]).await;
    let beginning = [frame(&encode(&init)), frame(&encode(&offer))].concat();
    let talker = Talker { beginning, noise: frame(&[0xff; 1001]), read: 0 };
    let session = Session::start(openings, common::node_id(7), framed(talker), Greeting::default());
    let _session = session.await.unwrap();
    let waiting = |event: &Event| match event {
        Event::Progress { stage: Stage::FundingCreated, .. } => Some(()),
        _ => None,
    };
    log.first(waiting).await;
    tokio::time::advance(Duration::from_secs(901)).await;
    settle().await;
    assert_eq!(log.failures(), [("funding-created", "peer-silent")]);
}

#[tokio::test(start_paused = true)]
async fn deadlines_beyond_every_clock_are_as_good_as_none() {
    let never = Deadlines {
        peer: Duration::MAX,
        funding_created: Duration::MAX,
        policy: Duration::MAX,
        wallet: Duration::MAX,
        signer: Duration::MAX,
        store: Duration::MAX,
    };
    let endless = |secret| {
        let mut made = faulty_node(secret, &Faults::none());
        made.node.deadlines = never;
        made
    };
    let (funder, fundee, _wire) = connect(endless(1), endless(2)).await;
    let pending = funder.session.open(ask()).await.unwrap().accepted().await.unwrap();
    tokio::time::sleep(Duration::from_secs(30 * 24 * 3600)).await;
    assert_eq!(fundee.openings.pending(), 1);
    let transaction = funding_transaction(&pending.needed().output, 0);
    let funding = opening_peer::FundingTransaction::Signed(transaction);
    let _permit = pending.complete(funding).await.unwrap().opened().await.unwrap();
    assert_eq!(fundee.openings.pending(), 0);
}
