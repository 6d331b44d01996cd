//! Client and server of hsmd's wire against each other, over both kinds of local signer.

use std::os::unix::net::UnixStream;
use std::sync::Arc;

use bitcoin::Network;
use bitcoin::constants::ChainHash;
use opening_core::Side;
use opening_signer::remote::unix::SignerSocket;
use opening_signer::remote::{HsmdConfig, HsmdHsm, HsmdIdentity, serve_hsmd};
use opening_signer::{ChannelRef, Enforcement, Hsm, HsmError, LocalHsm};
use tokio::task::JoinHandle;

use crate::flow::{self, End, SHAPES};
use crate::pair::{BOTH, node_id, reason, signer};

/// A signer behind the wire, and the task that serves it.
pub(crate) async fn behind_the_wire(
    hsm: LocalHsm,
    byte: u8,
) -> (HsmdHsm, JoinHandle<std::io::Result<()>>) {
    let (client, server) = UnixStream::pair().unwrap();
    let identity = HsmdIdentity { node_id: node_id(byte), chain_hash: ChainHash::REGTEST };
    let serving = tokio::spawn(serve_hsmd(Arc::new(hsm), identity, server));
    let hsm = HsmdHsm::over(client, HsmdConfig::new(Network::Regtest)).await.unwrap();
    (hsm, serving)
}

#[tokio::test]
async fn channels_of_every_shape_open_through_the_wire_in_both_roles() {
    for enforcement in BOTH {
        let stores = [Arc::default(), Arc::default()];
        let (near, near_task) = behind_the_wire(signer(7, enforcement, &stores[0]), 7).await;
        let (far, _far_task) = behind_the_wire(signer(8, enforcement, &stores[1]), 8).await;
        let local =
            [signer(7, enforcement, &Arc::default()), signer(8, enforcement, &Arc::default())];
        for (dbid, shape) in (1..).zip(SHAPES) {
            flow::open([&near, &far], dbid, shape).await;
            // Against signers in this process, the other way round each time.
            flow::open([&near, &local[1]], 100 + dbid, shape).await;
            flow::open([&local[0], &far], 200 + dbid, shape).await;
        }
        assert_eq!(near.health(), Ok(()));
        drop(near);
        // Everything that it was told was well-formed to the end.
        near_task.await.unwrap().unwrap();
    }
}

/// A funder and a fundee, named; the funder behind the wire.
async fn named(enforcement: Enforcement) -> (HsmdHsm, [End; 2]) {
    let (near, _task) = behind_the_wire(signer(7, enforcement, &Arc::default()), 7).await;
    let far = signer(8, enforcement, &Arc::default());
    let ends = flow::name([&near, &far], 1, SHAPES[2]).await;
    (near, ends)
}

#[tokio::test]
async fn what_the_signer_refuses_closes_the_connection_and_the_channel_goes_on() {
    let (far, _task) =
        behind_the_wire(signer(8, Enforcement::Validating, &Arc::default()), 8).await;
    let near = signer(7, Enforcement::Validating, &Arc::default());
    let [funder, fundee] = flow::name([&near, &far], 1, SHAPES[2]).await;
    fundee.channel.setup(&fundee.setup).await.unwrap();
    let theirs = fundee.commitment(Side::Remote);
    let request = fundee.request(&theirs);
    let early = fundee.channel.sign_counterparty_commitment(&request).await;
    assert_eq!(reason(early), "connection-closed");

    funder.channel.setup(&funder.setup).await.unwrap();
    let for_fundee = funder.commitment(Side::Remote);
    let signature =
        funder.channel.sign_counterparty_commitment(&funder.request(&for_fundee)).await.unwrap();
    let ours = fundee.commitment(Side::Local);
    let validate = fundee.request(&ours);
    fundee.channel.validate_holder_commitment(&validate, &signature).await.unwrap();
    // The same request, now that it is its turn.
    fundee.channel.sign_counterparty_commitment(&request).await.unwrap();
}

#[tokio::test]
async fn what_is_out_of_the_signers_bounds_is_refused_at_the_setup() {
    let (_near, [funder, _]) = named(Enforcement::Validating).await;
    let mut setup = funder.setup.clone();
    setup.parameters.remote.config.to_self_delay = 3;
    assert_eq!(reason(funder.channel.setup(&setup).await), "connection-closed");
    setup.parameters.remote.config.to_self_delay = 4;
    funder.channel.setup(&setup).await.unwrap();
}

/// A node that was restarted, over a signer that was not.
#[tokio::test]
async fn a_restarted_node_goes_the_way_out_with_what_it_tells_again() {
    let path = tempfile::tempdir().unwrap();
    let path = path.path().join("private/hsmd");
    let socket = std::sync::Arc::new(SignerSocket::bind(&path).unwrap());
    let hsm: Arc<dyn Hsm> = Arc::new(signer(7, Enforcement::Validating, &Arc::default()));
    let serving = tokio::spawn(async move {
        let identity = HsmdIdentity { node_id: node_id(7), chain_hash: ChainHash::REGTEST };
        loop {
            let stream = socket.accept().await.unwrap().into_std().unwrap();
            let _ = serve_hsmd(hsm.clone(), identity, stream).await;
        }
    });
    let connect = || HsmdHsm::connect(&path, HsmdConfig::new(Network::Regtest));
    let far = signer(8, Enforcement::Validating, &Arc::default());
    let near = connect().await.unwrap();
    let [funder, _] = flow::open([&near, &far], 1, SHAPES[2]).await;
    let setup = funder.setup.clone();
    let ours = funder.commitment(Side::Local);
    drop((funder, near));

    let near = connect().await.unwrap();
    let [funder, fundee] = flow::name([&near, &far], 1, SHAPES[2]).await;
    assert_eq!(funder.setup, setup);
    let request = funder.request(&ours);
    funder.channel.setup(&setup).await.unwrap();
    let early = funder.channel.sign_holder_commitment(&request).await;
    assert_eq!(reason(early), "not-validated");
    let theirs = fundee.commitment(Side::Remote);
    let signature =
        fundee.channel.sign_counterparty_commitment(&fundee.request(&theirs)).await.unwrap();
    funder.channel.validate_holder_commitment(&request, &signature).await.unwrap();
    let signed = funder.channel.sign_holder_commitment(&request).await.unwrap();
    let key = &setup.parameters.local.keys.funding_pubkey;
    assert!(ours.is_signed_by(&bitcoin::secp256k1::Secp256k1::new(), &signed, key));
    serving.abort();
}

#[tokio::test]
async fn a_bad_signature_of_the_peers_is_found_on_this_side() {
    let (_near, [funder, fundee]) = named(Enforcement::Validating).await;
    funder.channel.setup(&funder.setup).await.unwrap();
    let theirs = funder.commitment(Side::Remote);
    let ours = funder.commitment(Side::Local);
    let request = funder.request(&theirs);
    let wrong = funder.channel.sign_counterparty_commitment(&request).await.unwrap();
    let validated = funder.channel.validate_holder_commitment(&funder.request(&ours), &wrong).await;
    assert_eq!(validated, Err(HsmError::BadCounterpartySignature));
    drop(fundee);
}

#[tokio::test]
async fn a_second_setup_is_refused_and_the_first_stands() {
    let (_near, [funder, _]) = named(Enforcement::Blind).await;
    funder.channel.setup(&funder.setup).await.unwrap();
    let mut other = funder.setup.clone();
    other.parameters.push_msat = opening_core::MilliSatoshi::from_msat(1);
    assert_eq!(reason(funder.channel.setup(&other).await), "setup-differs");
    funder.channel.setup(&funder.setup).await.unwrap();
}

#[tokio::test]
async fn a_point_beyond_the_last_is_refused_before_it_is_asked_for() {
    let (_near, [funder, _]) = named(Enforcement::Blind).await;
    funder.channel.per_commitment_point((1 << 48) - 1).await.unwrap();
    let beyond = funder.channel.per_commitment_point(1 << 48).await;
    assert_eq!(reason(beyond), "signer-invalid-request");
}

#[tokio::test]
async fn an_output_beyond_what_the_wire_can_say_is_refused() {
    let (_near, [funder, _]) = named(Enforcement::Blind).await;
    let mut setup = funder.setup.clone();
    setup.parameters.funding_outpoint.vout = 1 << 16;
    assert_eq!(reason(funder.channel.setup(&setup).await), "signer-invalid-request");
    setup.parameters.funding_outpoint.vout = (1 << 16) - 1;
    funder.channel.setup(&setup).await.unwrap();
}

#[tokio::test]
async fn dropped_calls_leave_every_connection_in_step() {
    let (near, [funder, _]) = named(Enforcement::Validating).await;
    funder.channel.setup(&funder.setup).await.unwrap();
    let theirs = funder.commitment(Side::Remote);
    let request = funder.request(&theirs);
    let first = funder.channel.per_commitment_point(0).await.unwrap();
    for polls in 0..8 {
        let calls: [std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>>; 3] = [
            Box::pin(async { drop(funder.channel.per_commitment_point(5).await) }),
            Box::pin(async { drop(funder.channel.sign_counterparty_commitment(&request).await) }),
            Box::pin(async { drop(near.channel(ChannelRef { peer: node_id(8), dbid: 2 }).await) }),
        ];
        for mut call in calls {
            for _ in 0..polls {
                if futures::poll!(&mut call).is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(funder.channel.per_commitment_point(0).await, Ok(first));
        let signature = funder.channel.sign_counterparty_commitment(&request).await.unwrap();
        let key = &funder.setup.parameters.local.keys.funding_pubkey;
        assert!(theirs.is_signed_by(&bitcoin::secp256k1::Secp256k1::new(), &signature, key));
    }
}

#[tokio::test]
async fn many_channels_at_once_do_not_mix() {
    let (near, _task) =
        behind_the_wire(signer(7, Enforcement::Validating, &Arc::default()), 7).await;
    let (far, _task) =
        behind_the_wire(signer(8, Enforcement::Validating, &Arc::default()), 8).await;
    let opens = (1..=40).map(|dbid| flow::open([&near, &far], dbid, SHAPES[2]));
    let ends = futures::future::join_all(opens).await;
    let mut keys: Vec<_> =
        ends.iter().flatten().map(|end| end.setup.parameters.local.keys.funding_pubkey).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 80);
}

#[tokio::test]
async fn a_signer_of_another_chain_or_version_is_turned_away_by_name() {
    let (client, server) = UnixStream::pair().unwrap();
    let identity = HsmdIdentity { node_id: node_id(7), chain_hash: ChainHash::BITCOIN };
    let hsm = Arc::new(signer(7, Enforcement::Blind, &Arc::default()));
    tokio::spawn(serve_hsmd(hsm, identity, server));
    let error = HsmdHsm::over(client, HsmdConfig::new(Network::Regtest)).await.unwrap_err();
    assert_eq!(error.code(), "signer-unavailable");
    assert!(error.to_string().contains("another chain"), "{error}");
}

#[tokio::test]
async fn a_signer_that_hangs_up_is_known_to_be_down_at_once() {
    let (near, task) = behind_the_wire(signer(7, Enforcement::Blind, &Arc::default()), 7).await;
    assert_eq!(near.health(), Ok(()));
    task.abort();
    for _ in 0..1000 {
        if near.health().is_err() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    assert_eq!(reason(near.health()), "signer-unavailable");
    assert_eq!(reason(near.node_id()), "signer-unavailable");
}
