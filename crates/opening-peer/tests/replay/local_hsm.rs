//! The same with our own signer, for the nodes whose `hsm_secret` is known.

use std::sync::Arc;

use bitcoin::secp256k1::{PublicKey, Secp256k1};
use lightning_persister::fs_store::FilesystemStore;
use opening_core::Profile;
use opening_peer::negotiation::LocalKeys;
use opening_signer::{
    ChannelHsm, ChannelRef, CommitmentRequest, Hsm, HsmSecret, LocalHsm, SigningPolicy,
};
use tempfile::TempDir;

use crate::hsmd::{self, ValidateCommitment};
use crate::node::{Asked, AskedOfSigner, Node};
use crate::openingd::{Fundee, Init};
use crate::recording::{CLOSE_TO, PEER, PUSH, Pair, REFUSED_CAPACITY, Recording, STATIC_REMOTEKEY};

/// Bytes of a signature, the last of `funding_created` and `funding_signed`.
const SIGNATURE: usize = 64;

/// What the two nodes' secrets are made of.
const FUNDER: u8 = 7;
const FUNDEE: u8 = 8;

fn node_id(node: u8) -> PublicKey {
    HsmSecret::new([node; 32]).node_key().public_key(&Secp256k1::new())
}

/// One channel of one node.
struct Channel {
    hsm: Arc<dyn ChannelHsm>,
    keys: LocalKeys,
    /// Where the signer keeps its record.
    _directory: TempDir,
}

impl Channel {
    async fn of(node: u8, peer: u8, pair: &Pair) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(FilesystemStore::new(directory.path().to_owned()));
        let signer = LocalHsm::validating(
            &HsmSecret::new([node; 32]),
            SigningPolicy::for_network(bitcoin::Network::Regtest),
            store,
        );
        let reference = ChannelRef { peer: node_id(peer), dbid: pair.dbid.unwrap() };
        let hsm = signer.channel(reference).await.unwrap();
        let keys = LocalKeys {
            reference,
            keys: hsm.pubkeys().await.unwrap(),
            first_per_commitment_point: hsm.per_commitment_point(0).await.unwrap(),
        };
        Self { hsm, keys, _directory: directory }
    }

    fn node(&self, recording: &Recording) -> Node {
        let context = Init::of(recording).context(Profile::Openingd);
        Node { context, keys: self.keys, signature: None }
    }

    async fn validate(&self, recording: &Recording, asked: &AskedOfSigner) {
        let openingds = ValidateCommitment::of(recording);
        let request = request(asked, &asked.asked_to_validate);
        self.hsm.validate_holder_commitment(&request, &openingds.signature).await.unwrap();
        let next = self.hsm.per_commitment_point(1).await.unwrap();
        assert_eq!(next, openingds.next_per_commitment_point);
    }

    /// Our signature, which verifies.
    async fn sign(&self, asked: &AskedOfSigner) -> bitcoin::secp256k1::ecdsa::Signature {
        let request = request(asked, &asked.asked_to_sign);
        let signature = self.hsm.sign_counterparty_commitment(&request).await.unwrap();
        let our_key = &self.keys.keys.funding_pubkey;
        assert!(request.commitment.is_signed_by(&Secp256k1::new(), &signature, our_key));
        signature
    }
}

fn request<'a>(of: &'a AskedOfSigner, asked: &'a Asked) -> CommitmentRequest<'a> {
    CommitmentRequest::first(&of.setup.parameters, &asked.commitment)
}

/// hsmd grinds its signatures in another way than we do, so that only these bytes differ.
#[track_caller]
fn assert_equal_before_signature(ours: &[u8], openingds: &[u8], name: &str) {
    assert_eq!(ours.len(), openingds.len(), "{name}");
    let before = ours.len() - SIGNATURE;
    assert_eq!(hex::encode(&ours[..before]), hex::encode(&openingds[..before]), "{name}");
}

// req: B2-OPEN-S-07, B2-ACC-S-07, B3-SEC-B-04, B3-SEC-B-05
#[tokio::test]
async fn keys_and_first_points_are_hsmds() {
    for pair in [STATIC_REMOTEKEY, PUSH, CLOSE_TO, REFUSED_CAPACITY] {
        for (node, peer, recording) in
            [(FUNDER, FUNDEE, pair.funder), (FUNDEE, FUNDER, pair.fundee)]
        {
            let recording = Recording::parse(recording);
            let keys = Channel::of(node, peer, &pair).await.keys;
            assert_eq!(keys.keys, Init::of(&recording).keys, "{}", pair.name);
            let openingds = hsmd::first_per_commitment_point(&recording);
            assert_eq!(keys.first_per_commitment_point, openingds, "{}", pair.name);
        }
    }
}

// req: B2-OPEN-S-07, B2-FC-S-05
#[tokio::test]
async fn funder_sends_what_openingd_does_with_a_signature_of_its_own() {
    for pair in [STATIC_REMOTEKEY, PUSH, CLOSE_TO] {
        let recording = Recording::parse(pair.funder);
        let channel = Channel::of(FUNDER, FUNDEE, &pair).await;
        let mut node = channel.node(&recording);
        let asked = node.fund(&recording).signer;
        channel.hsm.setup(&asked.setup).await.unwrap();
        let signature = channel.sign(&asked).await;
        channel.validate(&recording, &asked).await;

        node.signature = Some(signature);
        let ours = node.fund(&recording);
        let open_channel = recording.written(PEER, 32);
        assert_eq!(hex::encode(ours.open_channel), hex::encode(open_channel), "{}", pair.name);
        let funding_created = recording.written(PEER, 34);
        assert_equal_before_signature(&ours.funding_created, funding_created, pair.name);
        assert!(ours.funding_created.ends_with(&signature.serialize_compact()), "{}", pair.name);
    }
}

// req: B2-ACC-S-07, B2-FS-S-02
#[tokio::test]
async fn fundee_sends_what_openingd_does_with_a_signature_of_its_own() {
    for pair in [STATIC_REMOTEKEY, PUSH, CLOSE_TO] {
        let recording = Recording::parse(pair.fundee);
        let channel = Channel::of(FUNDEE, FUNDER, &pair).await;
        let mut node = channel.node(&recording);
        let asked = node.be_funded(&recording).signer;
        channel.hsm.setup(&asked.setup).await.unwrap();
        channel.validate(&recording, &asked).await;
        let signature = channel.sign(&asked).await;

        node.signature = Some(signature);
        let ours = node.be_funded(&recording);
        let accept_channel = recording.written(PEER, 33);
        assert_eq!(hex::encode(ours.accept_channel), hex::encode(accept_channel), "{}", pair.name);
        let funding_signed = Fundee::of(&recording).funding_signed;
        assert_equal_before_signature(&ours.funding_signed, &funding_signed, pair.name);
        assert!(ours.funding_signed.ends_with(&signature.serialize_compact()), "{}", pair.name);
    }
}
