//! What only a signer can do wrong.

use bitcoin::secp256k1::Secp256k1;
use opening_core::Side;
use opening_signer::testing::{EVERY, Fault, Faults, Forgery, Misdeed, MockHsm, Outcome, Restart};
use opening_signer::{Call, ChannelRef, Hsm, HsmError, Verified};

use crate::pair::{End, node_id, reason};
use crate::{CALLS, Funded, local, mock};

fn forging(call: Call, forgery: Forgery) -> MockHsm {
    mock(Faults::none()).does(call, EVERY, Misdeed::Forge(forgery))
}

#[tokio::test]
async fn a_call_is_refused_with_its_tag_and_not_carried_out() {
    for call in CALLS {
        let funded = Funded::by(mock(Faults::none()).refuses(call, 1, "tag-of-the-test")).await;
        funded.up_to(call).await;
        assert_eq!(reason(funded.call(call).await), "tag-of-the-test");
        let entry = funded.transcript.of(call).pop().unwrap();
        assert_eq!(entry.outcome, Outcome::Failed("signer-refused"));
        assert!(!entry.is_carried_out, "{call}");
        assert_eq!(funded.call(call).await, Ok(()), "{call}");
    }
}

#[tokio::test]
async fn a_call_is_deferred_so_many_times() {
    for call in CALLS {
        let funded = Funded::by(mock(Faults::none()).defers(call, 2)).await;
        funded.up_to(call).await;
        assert_eq!(funded.call(call).await, Err(HsmError::Deferred), "{call}");
        assert_eq!(funded.call(call).await, Err(HsmError::Deferred), "{call}");
        assert_eq!(funded.call(call).await, Ok(()), "{call}");
    }
}

/// The signature that the node gets for the peer's commitment.
async fn verifies(end: &End) -> bool {
    end.channel.setup(&end.setup).await.unwrap();
    let theirs = end.commitment(Side::Remote);
    let signature = end.sign(&theirs).await.unwrap();
    let key = &end.setup.parameters.local.keys.funding_pubkey;
    theirs.is_signed_by(&Secp256k1::new(), &signature, key)
}

#[tokio::test]
async fn a_forged_signature_does_not_verify() {
    let call = Call::SignCounterpartyCommitment;
    for forgery in [Forgery::OtherKey, Forgery::HighS, Forgery::WrongSighash] {
        let funded = Funded::by(forging(call, forgery)).await;
        assert!(!verifies(funded.funder()).await, "{forgery:?}");
    }
    assert!(verifies(Funded::by(mock(Faults::none())).await.funder()).await);
}

#[tokio::test]
async fn a_high_s_is_all_that_is_wrong_with_its_signature() {
    let funded = Funded::by(forging(Call::SignCounterpartyCommitment, Forgery::HighS)).await;
    let end = funded.funder();
    end.channel.setup(&end.setup).await.unwrap();
    let theirs = end.commitment(Side::Remote);
    let mut signature = end.sign(&theirs).await.unwrap();
    signature.normalize_s();
    let key = &end.setup.parameters.local.keys.funding_pubkey;
    assert!(theirs.is_signed_by(&Secp256k1::new(), &signature, key));
}

#[tokio::test]
async fn a_wrong_sighash_is_signed_by_the_right_key() {
    let call = Call::SignCounterpartyCommitment;
    let funded = Funded::by(forging(call, Forgery::WrongSighash)).await;
    let end = funded.funder();
    end.channel.setup(&end.setup).await.unwrap();
    let signature = end.sign(&end.commitment(Side::Remote)).await.unwrap();
    let mut other = end.setup.parameters.clone();
    other.funding_outpoint.vout ^= 1;
    let other = other.first_commitment(&Secp256k1::new(), Side::Remote).unwrap();
    let key = &end.setup.parameters.local.keys.funding_pubkey;
    assert!(other.is_signed_by(&Secp256k1::new(), &signature, key));
}

#[tokio::test]
async fn a_forged_signature_of_our_own_commitment_does_not_verify() {
    for forgery in [Forgery::OtherKey, Forgery::HighS] {
        let funded = Funded::by(forging(Call::SignHolderCommitment, forgery)).await;
        funded.up_to(Call::SignHolderCommitment).await;
        let ours = funded.funder().commitment(Side::Local);
        let signature = funded.funder().sign_own(&ours).await.unwrap();
        let key = &funded.funder().setup.parameters.local.keys.funding_pubkey;
        assert!(!ours.is_signed_by(&Secp256k1::new(), &signature, key), "{forgery:?}");
    }
}

#[tokio::test]
async fn keys_and_points_are_of_another_channel_and_number() {
    let peer = node_id(8);
    let good = local().channel(ChannelRef { peer, dbid: 1 }).await.unwrap();
    let other = local().channel(ChannelRef { peer, dbid: 2 }).await.unwrap();
    let mock = mock(Faults::none())
        .does(Call::Pubkeys, 1, Misdeed::Forge(Forgery::OtherChannelsKeys))
        .does(Call::PerCommitmentPoint, 1, Misdeed::Forge(Forgery::OtherPoint));
    let channel = mock.channel(ChannelRef { peer, dbid: 1 }).await.unwrap();
    assert_eq!(channel.pubkeys().await, other.pubkeys().await);
    assert_eq!(channel.pubkeys().await, good.pubkeys().await);
    assert_eq!(channel.per_commitment_point(0).await, good.per_commitment_point(1).await);
    assert_eq!(channel.per_commitment_point(0).await, good.per_commitment_point(0).await);
}

/// What is not on trust is found.
#[tokio::test]
async fn a_verified_mock_passes_no_forgery_on() {
    for forgery in [Forgery::OtherKey, Forgery::HighS, Forgery::WrongSighash] {
        let call = Call::SignCounterpartyCommitment;
        let mut funded = Funded::by(mock(Faults::none())).await;
        let verified = Verified::new(forging(call, forgery));
        funded.pair.funder.channel = verified.channel(funded.funder().reference).await.unwrap();
        funded.up_to(call).await;
        assert_eq!(funded.call(call).await.unwrap_err().code(), "signer-protocol", "{forgery:?}");
    }
}

#[tokio::test]
async fn a_restart_forgets_what_a_blind_signer_keeps_in_memory() {
    for restart in [Restart::Remembering, Restart::RolledBack] {
        let call = Call::SignCounterpartyCommitment;
        let mock = mock(Faults::none()).does(call, 1, Misdeed::Restart(restart));
        let funded = Funded::by(mock).await;
        funded.up_to(call).await;
        assert!(funded.call(call).await.is_err(), "it knows of no setup");
        funded.call(Call::Setup).await.unwrap();
        assert_eq!(funded.call(call).await, Ok(()));
    }
}

#[tokio::test]
async fn a_restart_is_told_what_was_kept() {
    let (sent, told) = std::sync::mpsc::channel();
    let mock = MockHsm::new(local(), Faults::none())
        .restarting(move |restart| {
            sent.send(restart).unwrap();
            local()
        })
        .does(Call::Pubkeys, 1, Misdeed::Restart(Restart::Remembering))
        .does(Call::Pubkeys, 2, Misdeed::Restart(Restart::RolledBack));
    let funded = Funded::by(mock).await;
    funded.call(Call::Pubkeys).await.unwrap();
    funded.call(Call::Pubkeys).await.unwrap();
    let told: Vec<_> = told.try_iter().collect();
    assert_eq!(told, [Restart::Remembering, Restart::RolledBack]);
}

/// The fault is met first: a call that fails before it is carried out restarts nothing.
#[tokio::test]
async fn a_fault_comes_before_a_misdeed() {
    let faults = Faults::none().at("setup", 1, Fault::FailBefore);
    let mock = mock(faults).refuses(Call::Setup, 1, "never-said");
    let funded = Funded::by(mock).await;
    assert_eq!(funded.call(Call::Setup).await.unwrap_err().code(), "signer-unavailable");
}

#[test]
#[should_panic(expected = "is none of setup")]
fn a_forgery_of_another_call_is_not_planned() {
    let _ = forging(Call::Setup, Forgery::HighS);
}

#[test]
#[should_panic(expected = "needs `restarting`")]
fn a_restart_without_a_way_to_start_is_not_planned() {
    let misdeed = Misdeed::Restart(Restart::Remembering);
    let _ = MockHsm::new(local(), Faults::none()).does(Call::Setup, 1, misdeed);
}
