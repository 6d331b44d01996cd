//! From the saved channel to both `channel_ready`.

// Clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

mod common;
mod faulty;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use bitcoin::{Amount, ScriptBuf, Transaction};
use common::{ask, confirmation, funding_transaction, node_id, regtest_bounds, signed};
use faulty::{
    From, Made, Open, connect, faulty_node, features_with, node_within, opened_between, settle,
};
use lightning::ln::msgs::{AcceptChannel, ChannelReady};
use opening_core::secrets::generate_from_seed;
use opening_core::{ChannelType, MilliSatoshi, ShortChannelId};
use opening_peer::Ask;
use opening_peer::message::Message;
use opening_peer::negotiation::ready::{Confirmation, EvidenceError};
use opening_peer::node::{Bounds, Entropy};
use opening_peer::openings::ConfirmError;
use opening_peer::testing::{Fault, Faults};
use opening_signer::LocalHsm;

const ACCEPT_CHANNEL: u16 = 33;
const FUNDING_SIGNED: u16 = 35;
const CHANNEL_READY: u16 = 36;

fn plain(secret: u8) -> Made {
    faulty_node(secret, &Faults::none())
}

async fn opened() -> Open {
    opened_between(plain(1), plain(2), ask()).await
}

const BOTH: [From; 2] = [From::Funder, From::Fundee];

// req: B2-CR-S-02, B2-CR-S-12
#[tokio::test]
async fn channel_ready_leaves_at_the_agreed_depth_and_not_before() {
    for which in BOTH {
        let open = opened().await;
        assert_eq!(open.opened.minimum_depth, 3);
        for depth in [0, 1, 2] {
            open.confirm(which, depth).await.unwrap();
            assert_eq!(open.sent(which), 0, "{which:?} {depth}");
        }
        for depth in [3, 4, 3] {
            open.confirm(which, depth).await.unwrap();
            assert_eq!(open.sent(which), 1, "{which:?} {depth}");
        }
        assert_eq!(open.sent(which.other()), 0);
        // Deep at first sight, as after a restart of the node's chain source.
        let open = opened().await;
        open.confirm(which, 1000).await.unwrap();
        assert_eq!(open.sent(which), 1);
    }
}

// req: B2-CR-S-12
#[tokio::test]
async fn without_an_alias_both_wait_for_the_depth_too() {
    for which in BOTH {
        let (mut funder, fundee) = (plain(1), plain(2));
        funder.node.features = features_with(&[9, 13, 15, 23, 45]);
        let open = opened_between(funder, fundee, ask()).await;
        open.confirm(which, 2).await.unwrap();
        assert_eq!(open.sent(which), 0);
        open.confirm(which, 3).await.unwrap();
        assert_eq!(open.channel_readies(which)[0].short_channel_id_alias, None);
    }
}

// req: B2-CR-S-01
#[tokio::test]
async fn evidence_about_anything_else_has_no_effect() {
    for which in BOTH {
        let open = opened().await;
        let right = confirmation(&open.transaction, 6);
        let changed = |change: fn(&mut Confirmation)| {
            let mut evidence = right.clone();
            change(&mut evidence);
            evidence
        };
        for (evidence, error) in [
            (changed(|it| it.transaction.input.clear()), EvidenceError::WrongTransaction),
            (
                changed(|it| it.transaction.output[0].value -= Amount::ONE_SAT),
                EvidenceError::WrongTransaction,
            ),
            (changed(|it| it.block_height = 1 << 24), EvidenceError::OutOfRange),
            (changed(|it| it.transaction_index = 1 << 24), EvidenceError::OutOfRange),
        ] {
            let result = open.evidence(which, evidence).await;
            assert_eq!(result, Err(ConfirmError::Evidence(error)));
        }
        let unknown = lightning::ln::types::ChannelId([9; 32]);
        let result = open.party(which).openings.confirmed(unknown, right).await;
        assert_eq!(result, Err(ConfirmError::UnknownChannel));
        assert_eq!(open.sent(which), 0);
    }
}

/// A fundee is told an outpoint only: the transaction behind it may pay something else.
// incident: CVE-2019-12998
// incident: CVE-2019-12999
// incident: CVE-2019-13000
// req: B2-CR-S-01
#[tokio::test]
async fn an_outpoint_that_does_not_pay_the_channel_is_never_ready() {
    for (change, error) in [
        (
            (|it| it.output[0].value -= Amount::ONE_SAT) as fn(&mut Transaction),
            EvidenceError::WrongOutput,
        ),
        (|it| it.output[0].value += Amount::ONE_SAT, EvidenceError::WrongOutput),
        (|it| it.output[0].script_pubkey = ScriptBuf::new(), EvidenceError::WrongOutput),
        (|it| it.output.clear(), EvidenceError::NoSuchOutput(0)),
        (|it| it.output.swap(0, 1), EvidenceError::WrongOutput),
    ] {
        let (funder, fundee, wire) = connect(plain(1), plain(2)).await;
        let pending = funder.session.open(ask()).await.unwrap().accepted().await.unwrap();
        let mut transaction = funding_transaction(&pending.needed().output, 0);
        transaction.output.push(funding_transaction(&pending.needed().output, 1).output[0].clone());
        change(&mut transaction);
        let outpoint = bitcoin::OutPoint { txid: transaction.compute_txid(), vout: 0 };
        let funding = opening_peer::FundingTransaction::Outpoint(outpoint);
        let mut signing = pending.complete(funding).await.unwrap();
        let (opened, _permit) = signing.opened().await.unwrap();
        fundee.log.opened().await;
        let open = Open { opened, transaction, funder, fundee, wire };
        for which in BOTH {
            let result = open.confirm(which, 6).await;
            assert_eq!(result, Err(ConfirmError::Evidence(error)), "{which:?}");
            assert_eq!(open.sent(which), 0);
        }
    }
}

#[tokio::test]
async fn a_reorganisation_takes_the_depth_back() {
    for which in BOTH {
        let open = opened().await;
        let openings = &open.party(which).openings;
        open.confirm(which, 2).await.unwrap();
        openings.unconfirmed(&open.opened.channel_id).unwrap();
        assert_eq!(open.sent(which), 0);
        // In another block, at another place: that is where the channel is.
        let elsewhere = Confirmation {
            block_height: 105,
            transaction_index: 7,
            ..confirmation(&open.transaction, 1)
        };
        open.evidence(which, elsewhere.clone()).await.unwrap();
        assert_eq!(open.sent(which), 0);
        open.evidence(which, Confirmation { depth: 3, ..elsewhere }).await.unwrap();
        open.confirm(which.other(), 3).await.unwrap();
        assert_eq!(open.sent(which), 1);
        let ready = open.party(which).log.ready().await;
        assert_eq!(ready.short_channel_id.unwrap().to_string(), "105x7x0");
        let unknown = lightning::ln::types::ChannelId([9; 32]);
        assert_eq!(openings.unconfirmed(&unknown), Err(ConfirmError::UnknownChannel));
    }
}

// req: B2-CR-S-02, B2-CR-S-12
#[tokio::test(start_paused = true)]
async fn a_reorganisation_while_the_signer_is_asked_holds_channel_ready_back() {
    for which in BOTH {
        // The first point of a channel is asked for when it begins.
        let faults = Faults::none().at("per_commitment_point", 2, Fault::Hold);
        let (mut funder, mut fundee) = (plain(1), plain(2));
        match which {
            From::Funder => funder = faulty_node(1, &faults),
            From::Fundee => fundee = faulty_node(2, &faults),
        }
        let open = opened_between(funder, fundee, ask()).await;
        let (openings, id) = (open.party(which).openings.clone(), open.opened.channel_id);
        let evidence = confirmation(&open.transaction, 3);
        let confirming = tokio::spawn(async move { openings.confirmed(id, evidence).await });
        faults.struck().await;
        open.party(which).openings.unconfirmed(&id).unwrap();
        faults.release();
        assert_eq!(confirming.await.unwrap(), Ok(()));
        settle().await;
        assert_eq!(open.sent(which), 0, "{which:?}");
        open.confirm(which, 3).await.unwrap();
        assert_eq!(open.sent(which), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_signer_that_fails_at_the_end_is_asked_again_with_the_next_evidence() {
    for fault in [Fault::FailBefore, Fault::StallBefore, Fault::Panic] {
        let faults = Faults::none().at("per_commitment_point", 2, fault);
        let open = opened_between(faulty_node(1, &faults), plain(2), ask()).await;
        assert_eq!(open.confirm(From::Funder, 3).await, Err(ConfirmError::NotReady), "{fault:?}");
        assert_eq!((open.sent(From::Funder), open.funder.log.failures()), (0, vec![]));
        assert_eq!(open.wire.errors(From::Funder), [""; 0]);
        open.confirm(From::Funder, 4).await.unwrap();
        assert_eq!(open.sent(From::Funder), 1);
    }
}

// req: B2-EST-B-04, B2-CR-B-02, B2-CR-B-03, B2-OPEN-R-26
#[tokio::test]
async fn a_channel_is_in_use_once_both_messages_have_passed_in_either_order() {
    for first in BOTH {
        let push = Ask { push_msat: MilliSatoshi::from_msat(300_000_000), ..ask() };
        let open = opened_between(plain(1), plain(2), push).await;
        open.confirm(first, 3).await.unwrap();
        for party in [&open.funder, &open.fundee] {
            // What was pushed is in the commitments already, but no one may use the channel.
            assert_eq!(party.log.ready_so_far(), 0, "{first:?}");
            assert_eq!(party.log.failures(), []);
        }
        // The peer's message came before our own depth: it is remembered, ours not hurried.
        assert_eq!(open.sent(first.other()), 0);
        open.confirm(first.other(), 3).await.unwrap();
        let (ours, theirs) = (open.funder.log.ready().await, open.fundee.log.ready().await);
        for (one, other) in [(&ours, &theirs), (&theirs, &ours)] {
            assert_eq!(one.remote.alias, other.local.alias);
            let point = other.local.second_per_commitment_point;
            assert_eq!(one.remote.second_per_commitment_point, point);
        }
        assert_eq!(theirs.opened.parameters.push_msat, MilliSatoshi::from_msat(300_000_000));
        assert_eq!((open.funder.log.ready_so_far(), open.fundee.log.ready_so_far()), (1, 1));
    }
}

// incident: LDK panics (second channel_ready)
// req: B2-CR-R-01
#[tokio::test]
async fn a_repeated_channel_ready_brings_a_new_alias_and_nothing_else() {
    let open = opened().await;
    open.wire.swallow(CHANNEL_READY);
    let channel_ready = |point: u8, alias: Option<u64>| ChannelReady {
        channel_id: open.opened.channel_id,
        next_per_commitment_point: node_id(point),
        short_channel_id_alias: alias,
    };
    for message in [
        channel_ready(11, Some(5)),
        channel_ready(11, Some(5)),
        channel_ready(12, Some(6)),
        channel_ready(12, None),
    ] {
        open.wire.inject(From::Fundee, &message);
        settle().await;
    }
    open.confirm(From::Funder, 3).await.unwrap();
    let ready = open.funder.log.ready().await;
    assert_eq!(ready.remote.alias, Some(ShortChannelId::from_u64(6)));
    assert_eq!(ready.remote.second_per_commitment_point, node_id(11));
    open.wire.inject(From::Fundee, &channel_ready(13, Some(7)));
    settle().await;
    assert_eq!(open.funder.log.ready_so_far(), 1);
    assert_eq!((open.funder.log.failures(), open.wire.errors(From::Funder)), (vec![], vec![]));
}

// req: B2-CR-B-04
#[tokio::test(start_paused = true)]
async fn a_peer_whose_channel_ready_never_comes_is_awaited() {
    let open = opened().await;
    open.confirm(From::Funder, 3).await.unwrap();
    tokio::time::sleep(Duration::from_secs(365 * 24 * 3600)).await;
    assert_eq!(open.wire.errors(From::Funder), [""; 0]);
    open.confirm(From::Fundee, 3).await.unwrap();
    assert_eq!(open.funder.log.ready().await.opened.channel_id, open.opened.channel_id);
}

const ZEROCONF: ChannelType = ChannelType { zeroconf: true, ..ChannelType::ANCHORS };

fn trusting() -> Bounds {
    let mut bounds = regtest_bounds();
    bounds.limits.trust_zeroconf = true;
    bounds
}

// req: B2-CR-S-02, B2-ACC-S-01
#[tokio::test(start_paused = true)]
async fn a_zeroconf_channel_is_ready_at_once_though_the_funder_is_still_saving() {
    let faults = Faults::none().at("save", 1, Fault::Hold);
    let funder = node_within(1, &faults, trusting());
    let (funder, fundee, wire) = connect(funder, node_within(2, &Faults::none(), trusting())).await;
    let ask = Ask { channel_type: Some(ZEROCONF), ..ask() };
    let pending = funder.session.open(ask).await.unwrap().accepted().await.unwrap();
    let funding = signed(&pending.needed().output);
    let mut signing = pending.complete(funding).await.unwrap();
    faults.struck().await;
    settle().await;
    assert_eq!(fundee.log.opened().await.minimum_depth, 0);
    let accepted = wire.said(From::Fundee).into_iter().find_map(|message| match message {
        Message::AcceptChannel(message) => Some(message.common_fields.minimum_depth),
        _ => None,
    });
    assert_eq!(accepted, Some(0));
    // Right behind funding_signed, and kept while the funder saves.
    let types = wire.types(From::Fundee);
    assert_eq!(types[types.len() - 2..], [FUNDING_SIGNED, CHANNEL_READY]);
    assert_eq!((funder.log.opened_so_far(), funder.log.ready_so_far()), (0, 0));
    assert!(!wire.types(From::Funder).contains(&CHANNEL_READY));
    faults.release();
    let (opened, _permit) = signing.opened().await.unwrap();
    let (ours, theirs) = (funder.log.ready().await, fundee.log.ready().await);
    assert_eq!((ours.short_channel_id, theirs.short_channel_id), (None, None));
    assert_eq!(ours.opened, opened);
    assert_eq!(ours.remote.second_per_commitment_point, theirs.local.second_per_commitment_point);
    assert_eq!(ours.remote.alias, theirs.local.alias);
    assert!(ours.remote.alias.is_some());
    assert_eq!(wire.errors(From::Funder), [""; 0]);
}

// req: B2-OPEN-R-25
#[tokio::test]
async fn a_zeroconf_channel_is_for_trusted_peers_only() {
    let (funder, fundee, wire) =
        connect(node_within(1, &Faults::none(), trusting()), plain(2)).await;
    let ask = Ask { channel_type: Some(ZEROCONF), ..ask() };
    let opening = funder.session.open(ask).await.unwrap();
    assert!(opening.accepted().await.is_err());
    assert_eq!(fundee.log.failures(), [("decision", "zeroconf-untrusted")]);
    assert!(!wire.types(From::Fundee).contains(&ACCEPT_CHANNEL));
}

/// a depth of 0 does not make a channel a zero-conf one.
// req: B2-CR-S-12
#[tokio::test]
async fn a_depth_of_zero_without_zeroconf_counts_as_one() {
    let (funder, fundee, wire) = connect(plain(1), plain(2)).await;
    wire.swallow(ACCEPT_CHANNEL);
    let opening = funder.session.open(ask()).await.unwrap();
    settle().await;
    let accepted = wire.said(From::Fundee).into_iter().find_map(|message| match message {
        Message::AcceptChannel(message) => Some(message),
        _ => None,
    });
    let mut message: AcceptChannel = *accepted.unwrap();
    message.common_fields.minimum_depth = 0;
    wire.inject(From::Fundee, &message);
    let pending = opening.accepted().await.unwrap();
    let transaction = funding_transaction(&pending.needed().output, 0);
    let funding = signed(&pending.needed().output);
    let (opened, _permit) = pending.complete(funding).await.unwrap().opened().await.unwrap();
    let open = Open { opened, transaction, funder, fundee, wire };
    settle().await;
    assert_eq!((open.opened.minimum_depth, open.sent(From::Funder)), (1, 0));
    open.confirm(From::Funder, 1).await.unwrap();
    assert_eq!(open.sent(From::Funder), 1);
}

// req: B2-CR-S-04, B2-CR-S-05
#[tokio::test]
async fn an_alias_is_set_exactly_if_scid_alias_is_negotiated() {
    let everything = || features_with(&[9, 13, 15, 23, 45, 47]);
    let without = || features_with(&[9, 13, 15, 23, 45]);
    for (ours, theirs, expected) in [
        (everything(), everything(), true),
        (everything(), without(), false),
        (without(), everything(), false),
        (without(), without(), false),
    ] {
        let (mut funder, mut fundee) = (plain(1), plain(2));
        (funder.node.features, fundee.node.features) = (ours, theirs);
        let open = opened_between(funder, fundee, ask()).await;
        for which in BOTH {
            open.confirm(which, 3).await.unwrap();
            let message = &open.channel_readies(which)[0];
            assert_eq!(message.short_channel_id_alias.is_some(), expected, "{which:?}");
            let bytes = opening_peer::message::encode(message);
            // The record: type 1, eight bytes.
            let record = message
                .short_channel_id_alias
                .map(|alias| [&[1, 8][..], &alias.to_be_bytes()].concat());
            assert_eq!(bytes[2 + 65..], record.unwrap_or_default());
        }
        let ready = open.funder.log.ready().await;
        assert_eq!(ready.local.alias.is_some(), expected);
    }
}

/// Gives what a test wants, then counts.
struct Script(Mutex<VecDeque<u64>>);

impl Entropy for Script {
    fn bytes(&self) -> [u8; 32] {
        let mut script = self.0.lock().unwrap();
        let first = script.pop_front().expect("the test expected less to be asked");
        let mut bytes = [0x77; 32];
        bytes[..8].copy_from_slice(&first.to_be_bytes());
        bytes
    }
}

// req: B2-CR-S-06, B2-CR-S-07, B2-CR-S-08
#[tokio::test]
async fn aliases_come_from_entropy_and_are_unlike_each_other_and_every_real_id() {
    let first_real = ShortChannelId::new(102, 1, 0).unwrap();
    let second_real = ShortChannelId::new(103, 1, 0).unwrap();
    let script = [0xaaaa, 0xaaaa, first_real.to_u64(), second_real.to_u64(), 0xbbbb];
    let mut fundee = plain(2);
    fundee.node.entropy = Arc::new(Script(Mutex::new(script.into())));
    let open = opened_between(plain(1), fundee, ask()).await;
    open.confirm(From::Fundee, 3).await.unwrap();
    assert_eq!(open.channel_readies(From::Fundee)[0].short_channel_id_alias, Some(0xaaaa));
    // A second channel with the same peer; an announced one.
    let second = Ask { announce_channel: true, ..ask() };
    let pending = open.funder.session.open(second).await.unwrap().accepted().await.unwrap();
    let transaction = funding_transaction(&pending.needed().output, 0);
    let funding = signed(&pending.needed().output);
    let (opened, _permit) = pending.complete(funding).await.unwrap().opened().await.unwrap();
    let evidence = Confirmation { block_height: 103, ..confirmation(&transaction, 3) };
    settle().await;
    open.fundee.openings.confirmed(opened.channel_id, evidence).await.unwrap();
    settle().await;
    let second = &open.channel_readies(From::Fundee)[1];
    assert_eq!(second.channel_id, opened.channel_id);
    assert_eq!(second.short_channel_id_alias, Some(0xbbbb));
}

// req: B2-CR-S-08
#[tokio::test]
async fn entropy_that_repeats_itself_gives_no_second_alias_and_no_hang() {
    struct Same;
    impl Entropy for Same {
        fn bytes(&self) -> [u8; 32] {
            [0x55; 32]
        }
    }
    let mut fundee = plain(2);
    fundee.node.entropy = Arc::new(Same);
    let open = opened_between(plain(1), fundee, ask()).await;
    open.confirm(From::Fundee, 3).await.unwrap();
    let pending = open.funder.session.open(ask()).await.unwrap().accepted().await.unwrap();
    let transaction = funding_transaction(&pending.needed().output, 0);
    let funding = signed(&pending.needed().output);
    let (opened, _permit) = pending.complete(funding).await.unwrap().opened().await.unwrap();
    settle().await;
    let evidence = confirmation(&transaction, 3);
    let result = open.fundee.openings.confirmed(opened.channel_id, evidence).await;
    assert_eq!(result, Err(ConfirmError::NotReady));
    assert_eq!(open.sent(From::Fundee), 1);
}

const SEED: [u8; 32] = [0x42; 32];

fn secret(byte: u8) -> SecretKey {
    SecretKey::from_slice(&[byte; 32]).unwrap()
}

fn point(index: u64) -> PublicKey {
    let secret = SecretKey::from_slice(&generate_from_seed(&SEED, index)).unwrap();
    secret.public_key(&Secp256k1::new())
}

// req: B2-CR-S-03, B3-SEC-B-04
#[tokio::test]
async fn the_two_points_announced_are_those_of_the_first_two_secrets() {
    for which in BOTH {
        let (mut funder, mut fundee) = (plain(1), plain(2));
        let made = if which == From::Funder { &mut funder } else { &mut fundee };
        let known = LocalHsm::with_channel_secrets(opening_signer::ChannelSecrets {
            funding: secret(21),
            revocation: secret(22),
            payment: secret(23),
            delayed_payment: secret(24),
            htlc: secret(25),
            shachain_seed: SEED,
        });
        made.node.hsm = Arc::new(known);
        let open = opened_between(funder, fundee, ask()).await;
        open.confirm(which, 3).await.unwrap();
        let first = open.wire.said(which).into_iter().find_map(|message| match message {
            Message::OpenChannel(it) => Some(it.common_fields.first_per_commitment_point),
            Message::AcceptChannel(it) => Some(it.common_fields.first_per_commitment_point),
            _ => None,
        });
        assert_eq!(first, Some(point(281_474_976_710_655)));
        let second = open.channel_readies(which)[0].next_per_commitment_point;
        assert_eq!(second, point(281_474_976_710_654));
        assert_ne!(first, Some(second));
    }
}

#[tokio::test]
async fn evidence_after_the_connection_ended_counts() {
    let open = opened().await;
    open.wire.cut();
    open.funder.log.disconnected().await;
    assert_eq!(open.confirm(From::Funder, 3).await, Ok(()));
    assert_eq!(open.sent(From::Funder), 0);
}
