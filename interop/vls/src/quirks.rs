//! What VLS does where signers differ, asked for by the calls themselves.

use std::sync::Arc;

use bitcoin::constants::ChainHash;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{PublicKey, Secp256k1};
use bitcoin::{Amount, OutPoint, Txid};
use opening_core::{
    ChannelConfig, ChannelParameters, ChannelType, FeeratePerKw, MilliSatoshi, Party, Side,
};
use opening_signer::{ChannelHsm, ChannelRef, ChannelSetup, CommitmentRequest, Hsm, HsmResult};

/// What was asked, and the answer: a code, or nothing where it was carried out.
pub(crate) type Answer = (&'static str, Option<&'static str>);

/// What came back from VLS 1.0.0-rc.1, through our client, when this was written.
pub(crate) const EXPECTED: [Answer; 7] = [
    ("a delay of 3 blocks", Some("signer-refused")),
    ("setup", None),
    ("the same setup again", None),
    ("another setup of the channel", Some("signer-refused")),
    ("a counterparty signature that is none", Some("signer-bad-counterparty-signature")),
    ("the counterparty's signature", None),
    ("the counterparty's signature again", None),
];

/// Asks VLS, which funds, about one channel with `peer`.
pub(crate) async fn ask(
    vls: &dyn Hsm,
    peer: &dyn Hsm,
    ids: [PublicKey; 2],
) -> HsmResult<Vec<Answer>> {
    let [ours, theirs] = ids;
    // Far from those that openings count from 1.
    let dbid = 1000;
    let channel = vls.channel(ChannelRef { peer: theirs, dbid }).await?;
    let other = peer.channel(ChannelRef { peer: ours, dbid }).await?;
    let parameters = ChannelParameters {
        opener: Side::Local,
        funding_outpoint: OutPoint { txid: Txid::from_byte_array([99; 32]), vout: 0 },
        funding_satoshis: Amount::from_sat(1_000_000),
        push_msat: MilliSatoshi::ZERO,
        feerate_per_kw: FeeratePerKw::new(1250),
        channel_type: ChannelType::ANCHORS,
        local: party(&channel).await?,
        remote: party(&other).await?,
    };
    let mirrored = ChannelParameters {
        opener: Side::Remote,
        local: parameters.remote,
        remote: parameters.local,
        ..parameters.clone()
    };
    let secp = Secp256k1::new();
    let commitment = |of: &ChannelParameters, owner| {
        of.first_commitment(&secp, owner).expect("a million satoshis pay for both outputs")
    };
    let theirs = commitment(&mirrored, Side::Remote);
    other.setup(&setup(mirrored.clone())).await?;
    let request = CommitmentRequest::first(&mirrored, &theirs);
    let good = other.sign_counterparty_commitment(&request).await?;
    let own = commitment(&parameters, Side::Local);
    let request = CommitmentRequest::first(&parameters, &own);

    let mut short = parameters.clone();
    short.remote.config.to_self_delay = 3;
    let mut pushed = parameters.clone();
    pushed.push_msat = MilliSatoshi::from_msat(1_000_000);
    let mut bytes = good.serialize_compact();
    bytes[31] ^= 1;
    let bad = bitcoin::secp256k1::ecdsa::Signature::from_compact(&bytes).unwrap_or(good);
    Ok(vec![
        (EXPECTED[0].0, code(channel.setup(&setup(short)).await)),
        (EXPECTED[1].0, code(channel.setup(&setup(parameters.clone())).await)),
        (EXPECTED[2].0, code(channel.setup(&setup(parameters.clone())).await)),
        (EXPECTED[3].0, code(channel.setup(&setup(pushed)).await)),
        (EXPECTED[4].0, code(channel.validate_holder_commitment(&request, &bad).await)),
        (EXPECTED[5].0, code(channel.validate_holder_commitment(&request, &good).await)),
        (EXPECTED[6].0, code(channel.validate_holder_commitment(&request, &good).await)),
    ])
}

fn code(result: HsmResult<()>) -> Option<&'static str> {
    result.err().map(|error| error.code())
}

fn setup(parameters: ChannelParameters) -> ChannelSetup {
    ChannelSetup {
        parameters,
        chain_hash: ChainHash::REGTEST,
        local_shutdown_script: None,
        remote_shutdown_script: None,
    }
}

async fn party(channel: &Arc<dyn ChannelHsm>) -> HsmResult<Party> {
    Ok(Party {
        config: ChannelConfig {
            dust_limit_satoshis: Amount::from_sat(354),
            max_htlc_value_in_flight_msat: MilliSatoshi::from_msat(u64::MAX),
            channel_reserve_satoshis: Amount::from_sat(10_000),
            htlc_minimum_msat: MilliSatoshi::ZERO,
            to_self_delay: 6,
            max_accepted_htlcs: 483,
        },
        keys: channel.pubkeys().await?,
        first_per_commitment_point: channel.per_commitment_point(0).await?,
    })
}
