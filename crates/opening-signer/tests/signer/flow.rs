//! A whole opening between any two signers, as the drivers ask for it.

use std::sync::Arc;

use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{PublicKey, Secp256k1};
use bitcoin::{Amount, OutPoint, Txid};
use opening_core::{ChannelParameters, ChannelType, Commitment, FeeratePerKw, MilliSatoshi, Side};
use opening_signer::{ChannelHsm, ChannelRef, ChannelSetup, CommitmentRequest, Hsm};

use crate::pair::{node_id, party, setup};

/// What is opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) channel_type: ChannelType,
    pub(crate) push_msat: u64,
}

/// Both types; nothing pushed, a push that is trimmed, one of no whole satoshi.
pub(crate) const SHAPES: [Shape; 6] = [
    Shape { channel_type: ChannelType::ANCHORS, push_msat: 0 },
    Shape { channel_type: ChannelType::ANCHORS, push_msat: 300_000 },
    Shape { channel_type: ChannelType::ANCHORS, push_msat: 200_000_001 },
    Shape { channel_type: ChannelType::STATIC_REMOTEKEY, push_msat: 0 },
    Shape { channel_type: ChannelType::STATIC_REMOTEKEY, push_msat: 300_000 },
    Shape { channel_type: ChannelType::STATIC_REMOTEKEY, push_msat: 200_000_001 },
];

/// One side of it, funder or fundee.
pub(crate) struct End {
    pub(crate) channel: Arc<dyn ChannelHsm>,
    pub(crate) setup: ChannelSetup,
}

impl End {
    pub(crate) fn commitment(&self, owner: Side) -> Commitment {
        self.setup.parameters.first_commitment(&Secp256k1::new(), owner).unwrap()
    }

    pub(crate) fn request<'a>(&'a self, commitment: &'a Commitment) -> CommitmentRequest<'a> {
        CommitmentRequest::first(&self.setup.parameters, commitment)
    }
}

/// Two channels that were named and nothing else.  Node 7 funds and node 8 is funded.
pub(crate) async fn name([funder, fundee]: [&dyn Hsm; 2], dbid: u64, shape: Shape) -> [End; 2] {
    let funder = funder.channel(ChannelRef { peer: node_id(8), dbid }).await.unwrap();
    let fundee = fundee.channel(ChannelRef { peer: node_id(7), dbid }).await.unwrap();
    let txid = Txid::from_byte_array([u8::try_from(dbid % 251).unwrap(); 32]);
    let local = party(&*funder).await;
    let remote = party(&*fundee).await;
    let usual = |mut party: opening_core::Party| {
        party.config.dust_limit_satoshis = Amount::from_sat(354);
        party
    };
    let parameters = ChannelParameters {
        opener: Side::Local,
        funding_outpoint: OutPoint { txid, vout: 1 },
        funding_satoshis: Amount::from_sat(1_000_000),
        push_msat: MilliSatoshi::from_msat(shape.push_msat),
        feerate_per_kw: FeeratePerKw::new(1253),
        channel_type: shape.channel_type,
        local: usual(local),
        remote: usual(remote),
    };
    let mirrored = ChannelParameters {
        opener: Side::Remote,
        local: parameters.remote,
        remote: parameters.local,
        ..parameters.clone()
    };
    [
        End { channel: funder, setup: setup(parameters) },
        End { channel: fundee, setup: setup(mirrored) },
    ]
}

/// Opens one channel, and goes the way out of it on both sides.
pub(crate) async fn open(hsms: [&dyn Hsm; 2], dbid: u64, shape: Shape) -> [End; 2] {
    let secp = Secp256k1::new();
    let [funder, fundee] = name(hsms, dbid, shape).await;
    let commitments = [Side::Local, Side::Remote].map(|owner| funder.commitment(owner));
    let mirrored = [Side::Remote, Side::Local].map(|owner| fundee.commitment(owner));
    assert_eq!(commitments[0].transaction, mirrored[0].transaction);

    funder.channel.setup(&funder.setup).await.unwrap();
    let sign = funder.request(&commitments[1]);
    let for_fundee = funder.channel.sign_counterparty_commitment(&sign).await.unwrap();
    let key = |side: &End| -> PublicKey { side.setup.parameters.local.keys.funding_pubkey };
    assert!(commitments[1].is_signed_by(&secp, &for_fundee, &key(&funder)));

    fundee.channel.setup(&fundee.setup).await.unwrap();
    let validate = fundee.request(&mirrored[1]);
    fundee.channel.validate_holder_commitment(&validate, &for_fundee).await.unwrap();
    let sign = fundee.request(&mirrored[0]);
    let for_funder = fundee.channel.sign_counterparty_commitment(&sign).await.unwrap();
    assert!(mirrored[0].is_signed_by(&secp, &for_funder, &key(&fundee)));

    let validate = funder.request(&commitments[0]);
    funder.channel.validate_holder_commitment(&validate, &for_funder).await.unwrap();

    for (side, own) in [(&funder, &commitments[0]), (&fundee, &mirrored[1])] {
        side.channel.per_commitment_point(1).await.unwrap();
        let signed = side.channel.sign_holder_commitment(&side.request(own)).await.unwrap();
        assert!(own.is_signed_by(&secp, &signed, &key(side)));
    }
    [funder, fundee]
}
