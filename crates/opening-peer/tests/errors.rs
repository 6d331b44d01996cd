//! `error` and `warning`, sent and received: whom they end, what they say, and what they keep to
//! themselves.

// Clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

mod common;

use std::ops::Range;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bitcoin::secp256k1::PublicKey;
use bitcoin::secp256k1::SecretKey;
use common::here::Here;
use common::raw_peer::{RawPeer, channel_id, made_up_outpoint, outpoint};
use common::{ask, signed};
use lightning::ln::msgs::{ErrorMessage, WarningMessage};
use lightning::ln::types::ChannelId;
use opening_peer::message::encode;
use opening_peer::negotiation::ready::Progress;
use opening_peer::node::{Decision, Events, OfferDetails, Policy, PublicText, Rejection};
use opening_peer::store::{ChannelStore, Entry, MemoryStore, StoreError, Stored};
use opening_peer::{Event, Node, Opened, Stage};
use opening_signer::{
    ChannelHsm, ChannelRef, ChannelSecrets, Hsm, HsmError, HsmResult, Info, LocalHsm,
};

const ID: ChannelId = ChannelId([0x1d; 32]);
const NOBODY: ChannelId = ChannelId([0x77; 32]);

// req: B1-ERR-R-05
#[tokio::test]
async fn an_error_about_nothing_is_ignored() {
    let here = Here::new();
    let (mut peer, _session) = RawPeer::connect(&here.openings, 2).await;
    let open = peer.open_channel(ID);
    peer.send(&open).await;
    let accept = peer.expect_accept_channel(ID).await;
    peer.send_error(NOBODY, "no").await;
    peer.send(&WarningMessage { channel_id: NOBODY, data: "hm".into() }).await;
    peer.expect_silence().await;
    assert!(!here.seen.lines().iter().any(|line| line.starts_with("received error")));
    // The opening is as it was.
    peer.send(&peer.funding_created(&open, &accept, made_up_outpoint(1, 0))).await;
    peer.expect_funding_signed().await;
    here.forgot_theirs(&mut peer, ID).await;
}

// req: B1-ERR-R-03, B1-ERR-R-04
#[tokio::test]
async fn a_warning_is_reported_and_nothing_else() {
    let here = Here::new();
    let (mut peer, _session) = RawPeer::connect(&here.openings, 2).await;
    let open = peer.open_channel(ID);
    peer.send(&open).await;
    let accept = peer.expect_accept_channel(ID).await;
    for channel_id in [ID, ChannelId([0; 32])] {
        peer.send(&WarningMessage { channel_id, data: "careful".into() }).await;
        let is_warning = |event: &Event| {
            matches!(event, Event::WarningReceived { channel_id: id, text }
                if *id == channel_id && text == "careful")
        };
        here.seen.take(is_warning).await;
        // No shutdown, nothing.
        peer.expect_silence().await;
    }
    peer.send(&peer.funding_created(&open, &accept, made_up_outpoint(1, 0))).await;
    peer.expect_funding_signed().await;
    here.forgot_theirs(&mut peer, ID).await;
}

// req: B1-ERR-R-06
#[tokio::test]
async fn a_peers_text_harms_no_terminal() {
    let here = Here::new();
    let (mut peer, _session) = RawPeer::connect(&here.openings, 2).await;
    peer.send(&peer.open_channel(ID)).await;
    peer.expect_accept_channel(ID).await;
    let text = b"\x1b[2J\x00\xff\n\r\x7f ok";
    let message = |type_number: u8| {
        let length = u16::try_from(text.len()).unwrap().to_be_bytes();
        [&[0, type_number][..], &ID.0, &length, text].concat()
    };
    peer.send_bytes(&message(1)).await;
    peer.send_bytes(&message(17)).await;
    let failed = here.failed().await;
    assert!(failed.to_string().contains("the peer ended it: ?[2J????? ok"), "{failed}");
    assert_eq!(here.seen.error_received().await, (ID, "?[2J????? ok".into()));
    for line in here.seen.lines() {
        assert!(line.bytes().all(|byte| (32..=126).contains(&byte)), "{line:?}");
    }
    here.forgot_theirs(&mut peer, ID).await;
}

// req: B1-ERR-S-09
#[tokio::test]
async fn an_error_without_text_ends_the_opening_too() {
    let here = Here::new();
    let (mut peer, _session) = RawPeer::connect(&here.openings, 2).await;
    peer.send(&peer.open_channel(ID)).await;
    peer.expect_accept_channel(ID).await;
    peer.send_error(ID, "").await;
    assert_eq!(here.failed().await.failure.code(), "peer-error");
    here.forgot_theirs(&mut peer, ID).await;
}

// req: B1-ERR-R-02
#[tokio::test]
async fn while_funding_created_is_unanswered_either_id_ends_the_opening() {
    for by_channel_id in [false, true] {
        // As fundee: the funder must use the final id from here on (B1-ERR-S-02).
        let here = Here::new();
        let (mut peer, session) = RawPeer::connect(&here.openings, 2).await;
        here.valves.validate.shut();
        let open = peer.open_channel(ID);
        peer.send(&open).await;
        let accept = peer.expect_accept_channel(ID).await;
        peer.send(&peer.funding_created(&open, &accept, made_up_outpoint(1, 0))).await;
        here.valves.validate.reached().await;
        let id = if by_channel_id { channel_id(made_up_outpoint(1, 0)) } else { ID };
        peer.send_error(id, "changed my mind").await;
        peer.expect_silence().await;
        let failed = here.failed().await;
        assert_eq!((failed.failure.code(), failed.stage), ("peer-error", Stage::Commitments));
        assert_eq!(failed.channel_id, Some(channel_id(made_up_outpoint(1, 0))));
        here.valves.open_all();
        here.forgot_theirs(&mut peer, ID).await;
        assert_eq!(here.saved().await, []);

        // As funder: the fundee uses the temporary one (B1-ERR-S-03).
        let opening = session.open(ask()).await.unwrap();
        let open = peer.expect_open_channel().await;
        peer.send(&peer.accept_channel(&open)).await;
        let pending = opening.accepted().await.unwrap();
        let funding = signed(&pending.needed().output);
        let mut signing = pending.complete(funding).await.unwrap();
        let created = peer.expect_funding_created().await;
        let final_id = channel_id(outpoint(&created));
        let id = if by_channel_id { final_id } else { created.temporary_channel_id };
        peer.send_error(id, "changed my mind").await;
        peer.expect_silence().await;
        let failed = signing.opened().await.unwrap_err();
        assert_eq!((failed.failure.code(), failed.stage), ("peer-error", Stage::FundingSigned));
        assert_eq!(failed.channel_id, Some(final_id));
        here.failed().await;
        here.can_open(&session, &mut peer).await;
        assert_eq!(here.saved().await, []);
    }
}

// req: B1-ERR-S-02, B1-ERR-S-03, B2-SHUT-S-01
#[tokio::test]
async fn our_own_errors_use_the_temporary_id_until_the_commitments_are_exchanged() {
    let here = Here::new();
    let (mut peer, session) = RawPeer::connect(&here.openings, 2).await;
    // Funder, before funding_created.
    let opening = session.open(ask()).await.unwrap();
    let open = peer.expect_open_channel().await;
    let id = open.common_fields.temporary_channel_id;
    peer.send(&peer.accept_channel(&open)).await;
    drop(opening.accepted().await.unwrap());
    assert_eq!(peer.expect_error(id).await, "channel opening cancelled");
    here.failed().await;
    // And after it.
    let opening = session.open(ask()).await.unwrap();
    let open = peer.expect_open_channel().await;
    peer.send(&peer.accept_channel(&open)).await;
    let pending = opening.accepted().await.unwrap();
    let funding = signed(&pending.needed().output);
    let signing = pending.complete(funding).await.unwrap();
    let created = peer.expect_funding_created().await;
    drop(signing);
    let id = channel_id(outpoint(&created));
    assert_eq!(peer.expect_error(id).await, "channel opening cancelled");
    here.failed().await;
    here.can_open(&session, &mut peer).await;
}

/// What a signer or a store says that a peer must never read.
const SECRET: &str = "slot 7 of the HSM in rack B";

/// A signer that fails one of its calls.
struct FailingHsm(LocalHsm, &'static str);

struct FailingChannel(Arc<dyn ChannelHsm>, &'static str);

impl FailingChannel {
    fn check(&self, call: &str) -> HsmResult<()> {
        if call == self.1 { Err(HsmError::Unavailable(SECRET.into())) } else { Ok(()) }
    }
}

#[async_trait]
impl Hsm for FailingHsm {
    fn info(&self) -> Info {
        self.0.info()
    }

    async fn channel(&self, reference: ChannelRef) -> HsmResult<Arc<dyn ChannelHsm>> {
        if self.1 == "channel" {
            return Err(HsmError::Protocol(SECRET.into()));
        }
        Ok(Arc::new(FailingChannel(self.0.channel(reference).await?, self.1)))
    }

    async fn forget_channel(&self, reference: ChannelRef) -> HsmResult<()> {
        self.0.forget_channel(reference).await
    }
}

#[async_trait]
impl ChannelHsm for FailingChannel {
    async fn pubkeys(&self) -> HsmResult<opening_core::ChannelKeys> {
        self.check("pubkeys")?;
        self.0.pubkeys().await
    }

    async fn per_commitment_point(&self, number: u64) -> HsmResult<PublicKey> {
        self.check("per_commitment_point")?;
        self.0.per_commitment_point(number).await
    }

    async fn setup(&self, setup: &opening_signer::ChannelSetup) -> HsmResult<()> {
        self.check("setup")?;
        self.0.setup(setup).await
    }

    async fn sign_counterparty_commitment(
        &self,
        request: &opening_signer::CommitmentRequest<'_>,
    ) -> HsmResult<bitcoin::secp256k1::ecdsa::Signature> {
        self.check("sign_counterparty_commitment")?;
        self.0.sign_counterparty_commitment(request).await
    }

    async fn validate_holder_commitment(
        &self,
        request: &opening_signer::CommitmentRequest<'_>,
        signature: &bitcoin::secp256k1::ecdsa::Signature,
    ) -> HsmResult<()> {
        self.check("validate_holder_commitment")?;
        self.0.validate_holder_commitment(request, signature).await
    }

    async fn sign_holder_commitment(
        &self,
        request: &opening_signer::CommitmentRequest<'_>,
    ) -> HsmResult<bitcoin::secp256k1::ecdsa::Signature> {
        self.0.sign_holder_commitment(request).await
    }
}

/// A store that fails one of its calls.
struct FailingStore(MemoryStore, &'static str);

impl FailingStore {
    fn check(&self, call: &str) -> Result<(), StoreError> {
        if call != self.1 {
            return Ok(());
        }
        let source = lightning::io::Error::new(lightning::io::ErrorKind::Other, SECRET);
        Err(StoreError::Io { operation: "writing to /secret/path", source })
    }
}

#[async_trait]
impl ChannelStore for FailingStore {
    async fn save(&self, opened: &Opened) -> Result<(), StoreError> {
        self.check("save")?;
        self.0.save(opened).await
    }

    async fn update(&self, opened: &Opened, progress: &Progress) -> Result<(), StoreError> {
        self.0.update(opened, progress).await
    }

    async fn remove(&self, channel_id: &ChannelId) -> Result<(), StoreError> {
        self.0.remove(channel_id).await
    }

    async fn load(&self, channel_id: &ChannelId) -> Result<Option<Stored>, StoreError> {
        self.0.load(channel_id).await
    }

    async fn load_all(&self) -> Result<Vec<Entry>, StoreError> {
        self.0.load_all().await
    }

    async fn reserve_dbids(&self, count: u64) -> Result<Range<u64>, StoreError> {
        self.check("reserve_dbids")?;
        self.0.reserve_dbids(count).await
    }
}

/// Plays a fundee's and a funder's opening with a node that fails at `call`.
async fn fails_in_silence(call: &'static str, change: impl Fn(&mut Node)) {
    let here = Here::with(change);
    let (mut peer, session) = RawPeer::connect(&here.openings, 2).await;
    let open = peer.open_channel(ID);
    peer.send(&open).await;
    let begins = matches!(call, "channel" | "pubkeys" | "per_commitment_point" | "reserve_dbids");
    if !begins {
        let accept = peer.expect_accept_channel(ID).await;
        peer.send(&peer.funding_created(&open, &accept, made_up_outpoint(1, 0))).await;
    }
    assert_eq!(peer.expect_error(ID).await, "internal error", "{call}");
    let failed = here.failed().await;
    assert!(failed.to_string().contains(SECRET), "{failed}");
    here.nothing_pending().await;

    if begins {
        let failed = session.open(ask()).await.unwrap_err();
        assert!(failed.to_string().contains(SECRET), "{failed}");
        peer.expect_silence().await;
        return;
    }
    let opening = session.open(ask()).await.unwrap();
    let open = peer.expect_open_channel().await;
    let accept = peer.accept_channel(&open);
    peer.send(&accept).await;
    let pending = opening.accepted().await.unwrap();
    let funding = signed(&pending.needed().output);
    let completed = pending.complete(funding).await;
    let id = match completed {
        Ok(mut signing) => {
            let created = peer.expect_funding_created().await;
            peer.send(&peer.funding_signed(&open, &accept, &created)).await;
            let failed = signing.opened().await.unwrap_err();
            assert!(failed.to_string().contains(SECRET), "{failed}");
            channel_id(outpoint(&created))
        }
        Err((error, _)) => {
            assert!(error.to_string().contains(SECRET), "{error}");
            open.common_fields.temporary_channel_id
        }
    };
    assert_eq!(peer.expect_error(id).await, "internal error", "{call}");
    peer.expect_silence().await;
    here.nothing_pending().await;
    assert_eq!(here.saved().await, []);
}

// incident: LND #7034
// req: B1-TYP-B-09, B1-ERR-S-04
#[tokio::test]
async fn the_peer_never_reads_why_our_signer_failed() {
    for call in [
        "channel",
        "pubkeys",
        "per_commitment_point",
        "setup",
        "sign_counterparty_commitment",
        "validate_holder_commitment",
    ] {
        let secret = opening_signer::HsmSecret::new([1; 32]);
        let hsm = Arc::new(FailingHsm(LocalHsm::blind(&secret), call));
        fails_in_silence(call, |node| node.hsm = hsm.clone()).await;
    }
}

// req: B1-TYP-B-09, B1-ERR-S-04
#[tokio::test]
async fn the_peer_never_reads_why_our_disk_failed() {
    for call in ["reserve_dbids", "save"] {
        let store = Arc::new(FailingStore(MemoryStore::default(), call));
        fails_in_silence(call, |node| node.store = store.clone()).await;
    }
}

/// A policy that wants nothing.
struct Rejecting;

#[async_trait]
impl Policy for Rejecting {
    async fn bounds(&self, _peer: &PublicKey) -> opening_peer::node::Bounds {
        common::regtest_bounds()
    }

    async fn decide(&self, _peer: &PublicKey, _offer: &OfferDetails<'_>) -> Decision {
        let public = PublicText::new("no channels on Sundays\x1b[0m\u{e9}");
        Decision::Reject(Rejection { public, private: SECRET.into() })
    }
}

// req: B2-EST-B-05, B1-TYP-B-09
#[tokio::test]
async fn a_policys_private_reason_stays_here() {
    let here = Here::with(|node| node.policy = Arc::new(Rejecting));
    let (mut peer, _session) = RawPeer::connect(&here.openings, 2).await;
    for _ in 0..2 {
        // The text of `?` is the test's own: `expect_error` would take it for a replaced byte.
        peer.send(&peer.open_channel(ID)).await;
        let failed = here.failed().await;
        assert_eq!(failed.failure.code(), "rejected-by-policy");
        assert!(failed.to_string().contains(SECRET));
        let reply = failed.failure.reply().unwrap();
        assert_eq!(reply, "no channels on Sundays?[0m?");
        assert_eq!(
            peer.receive_bytes().await,
            encode(&ErrorMessage { channel_id: ID, data: reply })
        );
    }
    assert_eq!(here.openings.pending(), 0);
}

/// Everything that events say, in every way they can say it.
#[derive(Default)]
struct Diary(Mutex<String>);

impl Events for Diary {
    fn event(&self, _peer: &PublicKey, event: Event) {
        let line = format!("{event} {event:?} {event:#?}\n");
        self.0.lock().unwrap().push_str(&line);
    }
}

// req: B3-SEC-B-02, B1-MSG-S-02, B1-MSG-S-03
#[tokio::test]
async fn no_secret_is_on_the_wire_or_in_an_event() {
    let key = |number: u8| SecretKey::from_slice(&[number; 32]).unwrap();
    let seed = [0x5e; 32];
    let secrets = || ChannelSecrets {
        funding: key(0xa1),
        revocation: key(0xa2),
        payment: key(0xa3),
        delayed_payment: key(0xa4),
        htlc: key(0xa5),
        shachain_seed: seed,
    };
    let diary = Arc::new(Diary::default());
    let here = Here::with(|node| {
        node.hsm = Arc::new(LocalHsm::with_channel_secrets(secrets()));
        node.events = diary.clone();
    });
    let (mut peer, session) = RawPeer::connect(&here.openings, 2).await;
    let created = complete_openings(&mut peer, &session).await;
    confirm_both(&mut peer, &here, created).await;

    let wire = hex::encode(peer.heard.concat());
    let said = diary.0.lock().unwrap().to_lowercase();
    assert!(said.contains("ready"), "{said}");
    let secret_keys = (0xa1..=0xa5).map(|number| key(number).secret_bytes());
    for secret in secret_keys.chain([seed]) {
        let hidden = hex::encode(secret);
        assert!(!wire.contains(&hidden) && !said.contains(&hidden));
        // Nor as a list of numbers.
        let list = format!("{:?}", secret);
        assert!(!said.contains(list.trim_matches(['[', ']'])));
    }
}

type Both = ([bitcoin::OutPoint; 2], bitcoin::Transaction, bitcoin::Transaction);

/// One opening in each direction, up to the save.
async fn complete_openings(peer: &mut RawPeer, session: &opening_peer::Session) -> Both {
    let opening = session.open(ask()).await.unwrap();
    let ours = peer.expect_open_channel().await;
    let accept = peer.accept_channel(&ours);
    peer.send(&accept).await;
    let pending = opening.accepted().await.unwrap();
    let our_funding = common::funding_transaction(&pending.needed().output, 0);
    let funding = signed(&pending.needed().output);
    let mut signing = pending.complete(funding).await.unwrap();
    let created = peer.expect_funding_created().await;
    peer.send(&peer.funding_signed(&ours, &accept, &created)).await;
    let (_opened, _permit) = signing.opened().await.unwrap();

    let theirs = peer.open_channel(ID);
    peer.send(&theirs).await;
    let accepted = peer.expect_accept_channel(ID).await;
    let output = opening_core::FundingOutput::new(
        bitcoin::Amount::from_sat(theirs.common_fields.funding_satoshis),
        &theirs.common_fields.funding_pubkey,
        &accepted.common_fields.funding_pubkey,
    );
    // Both channels have the same keys here: another index makes another transaction.
    let their_funding = common::funding_transaction(&output, 1);
    let their_outpoint = bitcoin::OutPoint { txid: their_funding.compute_txid(), vout: 1 };
    peer.send(&peer.funding_created(&theirs, &accepted, their_outpoint)).await;
    peer.expect_funding_signed().await;
    ([outpoint(&created), their_outpoint], our_funding, their_funding)
}

/// Both channels become deep enough, and both sides say so.
async fn confirm_both(peer: &mut RawPeer, here: &Here, both: Both) {
    let (outpoints, one, other) = both;
    for (outpoint, transaction) in outpoints.into_iter().zip([one, other]) {
        let id = channel_id(outpoint);
        here.openings.confirmed(id, common::confirmation(&transaction, 3)).await.unwrap();
        peer.receive().await;
        peer.send(&lightning::ln::msgs::ChannelReady {
            channel_id: id,
            next_per_commitment_point: peer.point(7),
            short_channel_id_alias: None,
        })
        .await;
        peer.expect_silence().await;
    }
}
