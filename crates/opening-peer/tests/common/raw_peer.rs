//! A peer made of whole messages, which sends what a test tells it to.
//!
//! It builds commitments with `opening-core` and signs them with keys of its own, so that it can
//! be a correct funder or fundee; each message may be changed before it is sent.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::hashes::Hash;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{All, PublicKey, Secp256k1, SecretKey};
use bitcoin::{Amount, Network, OutPoint, ScriptBuf, Txid};
use lightning::ln::msgs::{
    AcceptChannel, CommonAcceptChannelFields, CommonOpenChannelFields, ErrorMessage,
    FundingCreated, FundingSigned, Init, OpenChannel, Ping, WarningMessage,
};
use lightning::ln::types::ChannelId;
use lightning::ln::wire;
use lightning::types::features::InitFeatures;
use opening_core::{
    ChannelConfig, ChannelKeys, ChannelParameters, ChannelType, Commitment, FeeratePerKw,
    MilliSatoshi, Party, Role, Side,
};
use opening_peer::message::{Message, decode, encode};
use opening_peer::session::default_features;
use opening_peer::transport::{Reader, Transport, Writer, in_memory_pair};
use opening_peer::{Greeting, Openings, Session};

use super::node_id;

/// Even types that a node which does nothing but open channels may send, whatever was negotiated.
const EVEN_TYPES: [u16; 7] = [16, 18, 32, 34, 36, 38, 136];

const PATIENCE: Duration = Duration::from_secs(20);

pub struct RawPeer {
    reader: Reader,
    writer: Writer,
    secp: Secp256k1<All>,
    secret: u8,
    /// Everything that the node sent, `init` first.
    pub heard: Vec<Vec<u8>>,
}

impl RawPeer {
    /// Connects to a node and exchanges `init`.
    pub async fn connect(openings: &Arc<Openings>, secret: u8) -> (Self, Session) {
        Self::connect_offering(openings, secret, default_features()).await
    }

    pub async fn connect_offering(
        openings: &Arc<Openings>,
        secret: u8,
        features: InitFeatures,
    ) -> (Self, Session) {
        let (near, far) = in_memory_pair();
        let mut peer = Self::over(far, secret);
        let init = Init { features, networks: None, remote_network_address: None };
        let exchange = async {
            peer.send(&init).await;
            assert!(matches!(peer.receive().await, Message::Init(_)));
        };
        let starting = Session::start(openings.clone(), node_id(secret), near, Greeting::default());
        let (session, ()) = tokio::join!(starting, exchange);
        (peer, session.unwrap())
    }

    /// At one end of a connection whose `init`s are someone else's concern.
    pub fn over(transport: Transport, secret: u8) -> Self {
        let (reader, writer) = transport.split();
        Self { reader, writer, secp: Secp256k1::new(), secret, heard: Vec::new() }
    }

    pub async fn send<M: wire::Type>(&mut self, message: &M) {
        self.send_bytes(&encode(message)).await;
    }

    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        self.writer.queue(bytes).unwrap();
        self.writer.flush().await.unwrap();
    }

    /// To a node that may not listen any more.
    pub async fn try_send<M: wire::Type>(&mut self, message: &M) {
        if self.writer.queue(&encode(message)).is_ok() {
            let _ = self.writer.flush().await;
        }
    }

    pub async fn send_error(&mut self, channel_id: ChannelId, text: &str) {
        self.send(&ErrorMessage { channel_id, data: text.into() }).await;
    }

    /// The next message; every one that a node sends is held against what it may send at all.
    pub async fn receive(&mut self) -> Message {
        let bytes = self.receive_bytes().await;
        let type_number = u16::from_be_bytes([bytes[0], bytes[1]]);
        assert!(type_number % 2 == 1 || EVEN_TYPES.contains(&type_number), "type {type_number}");
        let message = decode(&bytes).unwrap();
        if let Message::Error(ErrorMessage { data, .. })
        | Message::Warning(WarningMessage { data, .. }) = &message
        {
            // `decode` makes printable: the bytes themselves must be.
            assert_eq!(&bytes[36..], data.as_bytes());
            assert!(!data.contains('?'), "{data}");
        }
        message
    }

    /// The next message as it is.
    pub async fn receive_bytes(&mut self) -> Vec<u8> {
        let read = tokio::time::timeout(PATIENCE, self.reader.read()).await;
        let bytes = read.expect("the node says nothing").unwrap().expect("the node closed");
        self.heard.push(bytes.clone());
        bytes
    }

    /// The text of the `error` for `id` that comes next.
    pub async fn expect_error(&mut self, id: ChannelId) -> String {
        match self.receive().await {
            Message::Error(ErrorMessage { channel_id, data }) if channel_id == id => data,
            other => panic!("no error for {id}: {other:?}"),
        }
    }

    /// The text of the `warning` for `id` that comes next.
    pub async fn expect_warning(&mut self, id: ChannelId) -> String {
        match self.receive().await {
            Message::Warning(WarningMessage { channel_id, data }) if channel_id == id => data,
            other => panic!("no warning for {id}: {other:?}"),
        }
    }

    pub async fn expect_open_channel(&mut self) -> OpenChannel {
        match self.receive().await {
            Message::OpenChannel(message) => *message,
            other => panic!("no open_channel: {other:?}"),
        }
    }

    pub async fn expect_accept_channel(&mut self, id: ChannelId) -> AcceptChannel {
        match self.receive().await {
            Message::AcceptChannel(message) if message.common_fields.temporary_channel_id == id => {
                *message
            }
            other => panic!("no accept_channel for {id}: {other:?}"),
        }
    }

    pub async fn expect_funding_created(&mut self) -> FundingCreated {
        match self.receive().await {
            Message::FundingCreated(message) => message,
            other => panic!("no funding_created: {other:?}"),
        }
    }

    pub async fn expect_funding_signed(&mut self) -> FundingSigned {
        match self.receive().await {
            Message::FundingSigned(message) => message,
            other => panic!("no funding_signed: {other:?}"),
        }
    }

    /// The node has nothing to say: what comes next is the `pong` for a `ping` sent now.
    pub async fn expect_silence(&mut self) {
        self.send(&Ping { ponglen: 7, byteslen: 0 }).await;
        match self.receive().await {
            Message::Pong(_) => {
                assert_eq!(self.heard.last().unwrap()[2..], [0, 7, 0, 0, 0, 0, 0, 0, 0])
            }
            other => panic!("not silent: {other:?}"),
        }
    }

    /// The node has closed the connection without another word.
    pub async fn expect_closed(&mut self) {
        let read = tokio::time::timeout(PATIENCE, self.reader.read()).await;
        match read.expect("the node does not close") {
            Ok(None) | Err(_) => {}
            Ok(Some(bytes)) => panic!("not closed: {:?}", decode(&bytes)),
        }
    }

    /// Ends our direction of the connection, and waits for the node to end the other.
    pub async fn disconnect(mut self) {
        self.writer.close().await.unwrap();
        while let Ok(Some(_)) = self.reader.read().await {}
    }

    pub fn secret_key(&self, number: u8) -> SecretKey {
        let mut bytes = [self.secret; 32];
        bytes[31] = number;
        SecretKey::from_slice(&bytes).unwrap()
    }

    pub fn point(&self, number: u8) -> PublicKey {
        self.secret_key(number).public_key(&self.secp)
    }

    /// A correct `open_channel`, with a push, so that both sides have an output.
    pub fn open_channel(&self, temporary_channel_id: ChannelId) -> OpenChannel {
        OpenChannel {
            common_fields: CommonOpenChannelFields {
                chain_hash: Network::Regtest.chain_hash(),
                temporary_channel_id,
                funding_satoshis: 1_000_000,
                dust_limit_satoshis: 546,
                max_htlc_value_in_flight_msat: 500_000_000,
                htlc_minimum_msat: 1,
                commitment_feerate_sat_per_1000_weight: 1250,
                to_self_delay: 144,
                max_accepted_htlcs: 483,
                funding_pubkey: self.point(1),
                revocation_basepoint: self.point(2),
                payment_basepoint: self.point(3),
                delayed_payment_basepoint: self.point(4),
                htlc_basepoint: self.point(5),
                first_per_commitment_point: self.point(6),
                channel_flags: 0,
                shutdown_scriptpubkey: Some(ScriptBuf::new()),
                channel_type: Some(ChannelType::ANCHORS.to_features()),
            },
            push_msat: 100_000_000,
            channel_reserve_satoshis: 10_000,
        }
    }

    /// A correct answer to `open`.
    pub fn accept_channel(&self, open: &OpenChannel) -> AcceptChannel {
        AcceptChannel {
            common_fields: CommonAcceptChannelFields {
                temporary_channel_id: open.common_fields.temporary_channel_id,
                dust_limit_satoshis: 546,
                max_htlc_value_in_flight_msat: 500_000_000,
                htlc_minimum_msat: 1,
                minimum_depth: 3,
                to_self_delay: 144,
                max_accepted_htlcs: 483,
                funding_pubkey: self.point(1),
                revocation_basepoint: self.point(2),
                payment_basepoint: self.point(3),
                delayed_payment_basepoint: self.point(4),
                htlc_basepoint: self.point(5),
                first_per_commitment_point: self.point(6),
                shutdown_scriptpubkey: Some(ScriptBuf::new()),
                channel_type: open.common_fields.channel_type.clone(),
            },
            channel_reserve_satoshis: 10_000,
        }
    }

    /// A correct `funding_created` for an outpoint that nobody has seen yet.
    pub fn funding_created(
        &self,
        open: &OpenChannel,
        accept: &AcceptChannel,
        outpoint: OutPoint,
    ) -> FundingCreated {
        let parameters = parameters(Role::Funder, open, accept, outpoint);
        FundingCreated {
            temporary_channel_id: open.common_fields.temporary_channel_id,
            funding_txid: outpoint.txid,
            funding_output_index: u16::try_from(outpoint.vout).unwrap(),
            signature: self.sign(&self.commitment(&parameters, Side::Remote)),
        }
    }

    /// A correct answer to `created`.
    pub fn funding_signed(
        &self,
        open: &OpenChannel,
        accept: &AcceptChannel,
        created: &FundingCreated,
    ) -> FundingSigned {
        let outpoint = outpoint(created);
        let parameters = parameters(Role::Fundee, open, accept, outpoint);
        FundingSigned {
            channel_id: channel_id(outpoint),
            signature: self.sign(&self.commitment(&parameters, Side::Remote)),
        }
    }

    /// The node's signature is over this peer's commitment, in its low-S form.
    pub fn assert_signed(&self, parameters: &ChannelParameters, signature: &Signature) {
        let their_key = &parameters.remote.keys.funding_pubkey;
        let commitment = self.commitment(parameters, Side::Local);
        assert!(commitment.is_signed_by(&self.secp, signature, their_key));
        let mut normalized = *signature;
        normalized.normalize_s();
        assert_eq!(normalized, *signature);
    }

    pub fn commitment(&self, parameters: &ChannelParameters, owner: Side) -> Commitment {
        parameters.first_commitment(&self.secp, owner).unwrap()
    }

    pub fn sign(&self, commitment: &Commitment) -> Signature {
        self.secp.sign_ecdsa(&commitment.sighash(), &self.secret_key(1))
    }

    /// Plays the funder from `open_channel` on, up to the node's `funding_signed`.
    pub async fn open(&mut self, open: &OpenChannel, outpoint: OutPoint) -> FundingSigned {
        self.send(open).await;
        let accept = self.expect_accept_channel(open.common_fields.temporary_channel_id).await;
        self.send(&self.funding_created(open, &accept, outpoint)).await;
        let signed = self.expect_funding_signed().await;
        self.assert_signed(&parameters(Role::Funder, open, &accept, outpoint), &signed.signature);
        signed
    }
}

/// The channel from the raw peer's side, whose part is `role`.
pub fn parameters(
    role: Role,
    open: &OpenChannel,
    accept: &AcceptChannel,
    funding_outpoint: OutPoint,
) -> ChannelParameters {
    let (opener, accepter) = (opener(open), accepter(accept));
    let (local, remote) = match role {
        Role::Funder => (opener, accepter),
        Role::Fundee => (accepter, opener),
    };
    let common = &open.common_fields;
    ChannelParameters {
        opener: if role == Role::Funder { Side::Local } else { Side::Remote },
        funding_outpoint,
        funding_satoshis: Amount::from_sat(common.funding_satoshis),
        push_msat: MilliSatoshi::from_msat(open.push_msat),
        feerate_per_kw: FeeratePerKw::new(common.commitment_feerate_sat_per_1000_weight),
        channel_type: ChannelType::from_features(common.channel_type.as_ref().unwrap()).unwrap(),
        local,
        remote,
    }
}

fn opener(open: &OpenChannel) -> Party {
    let common = &open.common_fields;
    Party {
        config: ChannelConfig {
            dust_limit_satoshis: Amount::from_sat(common.dust_limit_satoshis),
            max_htlc_value_in_flight_msat: MilliSatoshi::from_msat(
                common.max_htlc_value_in_flight_msat,
            ),
            channel_reserve_satoshis: Amount::from_sat(open.channel_reserve_satoshis),
            htlc_minimum_msat: MilliSatoshi::from_msat(common.htlc_minimum_msat),
            to_self_delay: common.to_self_delay,
            max_accepted_htlcs: common.max_accepted_htlcs,
        },
        keys: ChannelKeys {
            funding_pubkey: common.funding_pubkey,
            revocation_basepoint: common.revocation_basepoint,
            payment_basepoint: common.payment_basepoint,
            delayed_payment_basepoint: common.delayed_payment_basepoint,
            htlc_basepoint: common.htlc_basepoint,
        },
        first_per_commitment_point: common.first_per_commitment_point,
    }
}

fn accepter(accept: &AcceptChannel) -> Party {
    let common = &accept.common_fields;
    Party {
        config: ChannelConfig {
            dust_limit_satoshis: Amount::from_sat(common.dust_limit_satoshis),
            max_htlc_value_in_flight_msat: MilliSatoshi::from_msat(
                common.max_htlc_value_in_flight_msat,
            ),
            channel_reserve_satoshis: Amount::from_sat(accept.channel_reserve_satoshis),
            htlc_minimum_msat: MilliSatoshi::from_msat(common.htlc_minimum_msat),
            to_self_delay: common.to_self_delay,
            max_accepted_htlcs: common.max_accepted_htlcs,
        },
        keys: ChannelKeys {
            funding_pubkey: common.funding_pubkey,
            revocation_basepoint: common.revocation_basepoint,
            payment_basepoint: common.payment_basepoint,
            delayed_payment_basepoint: common.delayed_payment_basepoint,
            htlc_basepoint: common.htlc_basepoint,
        },
        first_per_commitment_point: common.first_per_commitment_point,
    }
}

pub fn outpoint(created: &FundingCreated) -> OutPoint {
    OutPoint { txid: created.funding_txid, vout: created.funding_output_index.into() }
}

/// An outpoint of a transaction that exists nowhere.
pub fn made_up_outpoint(number: u8, vout: u32) -> OutPoint {
    OutPoint { txid: Txid::from_byte_array([number; 32]), vout }
}

/// BOLT 2's formula, written once more (B2-CID-B-01).
pub fn channel_id(outpoint: OutPoint) -> ChannelId {
    let mut id = outpoint.txid.to_byte_array();
    let [high, low] = u16::try_from(outpoint.vout).unwrap().to_be_bytes();
    id[30] ^= high;
    id[31] ^= low;
    ChannelId(id)
}
