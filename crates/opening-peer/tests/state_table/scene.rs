//! A node and its peer, brought to a state.

use lightning::ln::msgs;
use lightning::ln::types::ChannelId;
use opening_core::{FundingOutput, Role};
use opening_peer::Session;
use opening_peer::message::{Message as Wire, encode};
use opening_peer::negotiation::ready::Confirmation;
use opening_peer::session::{Opening, PendingFunding, PendingSignature, default_features};
use tokio::task::JoinHandle;

use crate::common::here::Here;
use crate::common::parts::CUSTOM_TYPES;
use crate::common::raw_peer::{RawPeer, channel_id, made_up_outpoint, outpoint};
use crate::common::{ask, confirmation, funding_transaction, signed};
use crate::table::Message::*;
use crate::table::{Message, State};

/// The peer's id for its opening, or for none.
const ID: ChannelId = ChannelId([0x1d; 32]);

/// What the node holds of an opening of its own.
pub(crate) enum Handle {
    None,
    Opening(Opening),
    Funding(PendingFunding),
    Completing(JoinHandle<Result<PendingSignature, String>>),
    Signing(PendingSignature),
}

/// A node and its peer, somewhere in an opening.
pub(crate) struct Scene {
    pub(crate) role: Role,
    pub(crate) state: State,
    pub(crate) here: Here,
    pub(crate) session: Session,
    pub(crate) peer: RawPeer,
    pub(crate) handle: Handle,
    open: Option<msgs::OpenChannel>,
    accept: Option<msgs::AcceptChannel>,
    created: Option<msgs::FundingCreated>,
    output: Option<FundingOutput>,
}

/// The state after this one.
fn after(role: Role, state: State) -> State {
    match (role, state) {
        (Role::Funder, State::Nothing) => State::AcceptChannel,
        (_, State::AcceptChannel) => State::Funding,
        (_, State::Funding) => State::Signature,
        (_, State::Signature) => State::FundingSigned,
        (_, State::FundingSigned) => State::Validation,
        (Role::Fundee, State::Nothing) => State::Decision,
        (_, State::Decision) => State::FundingCreated,
        (_, State::FundingCreated) => State::Commitments,
        (_, State::Validation | State::Commitments) => State::Save,
        (_, State::Save) => State::Depth,
        (_, State::Depth | State::Ready) => State::Ready,
    }
}

/// Whether a step stops where it is asked to, or runs through all valves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Valves {
    Stop,
    Run,
}

impl Scene {
    async fn new(role: Role) -> Self {
        let here = Here::new();
        let (peer, session) = RawPeer::connect(&here.openings, 2).await;
        Self {
            role,
            state: State::Nothing,
            here,
            session,
            peer,
            handle: Handle::None,
            open: None,
            accept: None,
            created: None,
            output: None,
        }
    }

    pub(crate) async fn at(role: Role, state: State) -> Self {
        let mut scene = Self::new(role).await;
        while scene.state != state {
            scene.step(Valves::Stop, None).await;
        }
        scene
    }

    /// One state further; `sent` is the peer's message if it went out already.
    pub(crate) async fn step(&mut self, valves: Valves, sent: Option<&[u8]>) {
        let next = after(self.role, self.state);
        match self.role {
            Role::Funder => self.funder_step(next, valves, sent).await,
            Role::Fundee => self.fundee_step(next, valves, sent).await,
        }
        self.state = next;
    }

    async fn say(&mut self, message: Vec<u8>, sent: Option<&[u8]>) {
        match sent {
            Some(sent) => assert_eq!(sent, message),
            None => self.peer.send_bytes(&message).await,
        }
    }

    async fn funder_step(&mut self, next: State, valves: Valves, sent: Option<&[u8]>) {
        let stop = valves == Valves::Stop;
        let at = self.here.valves.clone();
        match next {
            State::AcceptChannel => {
                self.handle = Handle::Opening(self.session.open(ask()).await.unwrap());
                self.open = Some(self.peer.expect_open_channel().await);
            }
            State::Funding => {
                let accept = self.peer.accept_channel(self.open.as_ref().unwrap());
                self.say(encode(&accept), sent).await;
                let Handle::Opening(opening) = self.take_handle() else { panic!() };
                let pending = opening.accepted().await.unwrap();
                self.output = Some(pending.needed().output.clone());
                self.handle = Handle::Funding(pending);
                self.accept = Some(accept);
            }
            State::Signature => {
                if stop {
                    at.sign.shut();
                }
                let Handle::Funding(pending) = self.take_handle() else { panic!() };
                let funding = signed(self.output.as_ref().unwrap());
                self.handle = Handle::Completing(tokio::spawn(async move {
                    pending.complete(funding).await.map_err(|(error, _)| error.to_string())
                }));
                if stop {
                    at.sign.reached().await;
                }
            }
            State::FundingSigned => {
                at.sign.open();
                let Handle::Completing(completing) = self.take_handle() else { panic!() };
                self.handle = Handle::Signing(completing.await.unwrap().unwrap());
                self.created = Some(self.peer.expect_funding_created().await);
            }
            State::Validation => {
                if stop {
                    at.validate.shut();
                }
                let (open, accept) = (self.open.as_ref().unwrap(), self.accept.as_ref().unwrap());
                let created = self.created.as_ref().unwrap();
                let signed = self.peer.funding_signed(open, accept, created);
                self.say(encode(&signed), sent).await;
                if stop {
                    at.validate.reached().await;
                }
            }
            State::Save => self.reach_save(stop).await,
            State::Depth => {
                at.save.open();
                let Handle::Signing(mut signing) = self.take_handle() else { panic!() };
                let (opened, permit) = signing.opened().await.unwrap();
                assert_eq!(opened.parameters.funding_outpoint.txid, permit.txid());
                self.is_open().await;
            }
            _ => self.reach_ready(sent).await,
        }
    }

    async fn fundee_step(&mut self, next: State, valves: Valves, sent: Option<&[u8]>) {
        let stop = valves == Valves::Stop;
        let at = self.here.valves.clone();
        match next {
            State::Decision => {
                if stop {
                    at.decide.shut();
                }
                let open = self.peer.open_channel(ID);
                self.say(encode(&open), sent).await;
                self.open = Some(open);
                if stop {
                    at.decide.reached().await;
                }
            }
            State::FundingCreated => {
                at.decide.open();
                self.accept = Some(self.peer.expect_accept_channel(ID).await);
            }
            State::Commitments => {
                if stop {
                    at.validate.shut();
                }
                let (open, accept) = (self.open.as_ref().unwrap(), self.accept.as_ref().unwrap());
                let outpoint = self.funding().transaction.compute_txid();
                let outpoint = bitcoin::OutPoint { txid: outpoint, vout: 0 };
                let created = self.peer.funding_created(open, accept, outpoint);
                self.say(encode(&created), sent).await;
                self.created = Some(created);
                if stop {
                    at.validate.reached().await;
                }
            }
            State::Save => self.reach_save(stop).await,
            State::Depth => {
                at.save.open();
                let signed = self.peer.expect_funding_signed().await;
                assert_eq!(signed.channel_id, self.channel_id().unwrap());
                self.is_open().await;
            }
            _ => self.reach_ready(sent).await,
        }
    }

    async fn reach_save(&mut self, stop: bool) {
        let at = &self.here.valves;
        if stop {
            at.save.shut();
        }
        at.validate.open();
        if stop {
            at.save.reached().await;
        }
    }

    pub(crate) async fn reach_ready(&mut self, sent: Option<&[u8]>) {
        let channel_ready = self.channel_ready();
        self.say(encode(&channel_ready), sent).await;
        self.confirm().await;
        self.here.seen.ready().await;
    }

    /// The node's own `channel_ready` goes out.
    pub(crate) async fn confirm(&mut self) {
        let id = self.channel_id().unwrap();
        self.here.openings.confirmed(id, self.funding()).await.unwrap();
        assert!(matches!(self.peer.receive().await, Wire::ChannelReady(_)));
    }

    pub(crate) async fn is_open(&self) {
        let id = self.channel_id().unwrap();
        assert_eq!(self.here.seen.opened().await.channel_id, id);
        assert!(self.here.saved().await.contains(&id));
    }

    /// The funding transaction, deep enough.
    pub(crate) fn funding(&self) -> Confirmation {
        let output = self.output.clone().unwrap_or_else(|| {
            let open = &self.open.as_ref().unwrap().common_fields;
            let accept = &self.accept.as_ref().unwrap().common_fields;
            let amount = bitcoin::Amount::from_sat(open.funding_satoshis);
            FundingOutput::new(amount, &open.funding_pubkey, &accept.funding_pubkey)
        });
        confirmation(&funding_transaction(&output, 0), 3)
    }

    pub(crate) fn take_handle(&mut self) -> Handle {
        std::mem::replace(&mut self.handle, Handle::None)
    }

    pub(crate) fn temporary_id(&self) -> ChannelId {
        self.open.as_ref().map_or(ID, |open| open.common_fields.temporary_channel_id)
    }

    /// The final id, once `funding_created` told it.
    pub(crate) fn channel_id(&self) -> Option<ChannelId> {
        self.created.as_ref().map(|created| channel_id(outpoint(created)))
    }

    /// The id under which the peer speaks of the opening now.
    pub(crate) fn id(&self) -> ChannelId {
        self.channel_id().unwrap_or(self.temporary_id())
    }

    /// The id under which this node must speak of it (B1-ERR-S-02, B1-ERR-S-03).
    pub(crate) fn our_id(&self) -> ChannelId {
        match self.role {
            Role::Funder => self.id(),
            Role::Fundee => self.temporary_id(),
        }
    }

    fn channel_ready(&self) -> msgs::ChannelReady {
        msgs::ChannelReady {
            channel_id: self.id(),
            next_per_commitment_point: self.peer.point(7),
            short_channel_id_alias: None,
        }
    }

    /// The bytes of a message about this opening, and the id in it.
    pub(crate) fn message(&self, message: Message) -> (Vec<u8>, ChannelId) {
        let (temporary_id, id) = (self.temporary_id(), self.id());
        let bytes = match message {
            Open => return (encode(&self.peer.open_channel(temporary_id)), temporary_id),
            Accept => {
                let fallback = self.peer.open_channel(temporary_id);
                let open = self.open.as_ref().unwrap_or(&fallback);
                return (encode(&self.peer.accept_channel(open)), temporary_id);
            }
            Created => return (self.created_bytes(), temporary_id),
            Signed => self.signed_bytes(),
            ChannelReady => encode(&self.channel_ready()),
            Shutdown => encode(&msgs::Shutdown { channel_id: id, scriptpubkey: p2wpkh() }),
            Reestablish => encode(&msgs::ChannelReestablish {
                channel_id: id,
                next_local_commitment_number: 1,
                next_remote_commitment_number: 0,
                your_last_per_commitment_secret: [0; 32],
                my_current_per_commitment_point: self.peer.point(8),
                next_funding: None,
                my_current_funding_locked: None,
            }),
            UpdateAddHtlc => [&[0, 128][..], &id.0, &[0; 1418]].concat(),
            Error => encode(&msgs::ErrorMessage { channel_id: id, data: "no".into() }),
            ErrorForAll => {
                encode(&msgs::ErrorMessage { channel_id: ChannelId([0; 32]), data: "no".into() })
            }
            Warning => encode(&msgs::WarningMessage { channel_id: id, data: "hm".into() }),
            Init => encode(&msgs::Init {
                features: default_features(),
                networks: None,
                remote_network_address: None,
            }),
            Ping => encode(&msgs::Ping { ponglen: 3, byteslen: 2 }),
            Pong => encode(&msgs::Pong { byteslen: 5 }),
            UnknownOdd => vec![0x7f, 0xff, 1, 2, 3],
            UnknownEven => vec![0x7f, 0xfe, 1, 2, 3],
            // A channel_update, as far as anyone here looks.
            Gossip => [&[1, 2][..], &[9; 136]].concat(),
            Custom => [&CUSTOM_TYPES[1].to_be_bytes()[..], &[1, 2, 3]].concat(),
            InvalidKey => [&[0, 36][..], &id.0, &[5; 33]].concat(),
            Truncated => [&[0, 38][..], &id.0, &[0, 22, 0]].concat(),
        };
        (bytes, id)
    }

    /// What the peer would send, or would have sent, as `funding_created`.
    fn created_bytes(&self) -> Vec<u8> {
        if let Some(created) = &self.created {
            return encode(created);
        }
        let fallback = self.peer.open_channel(self.temporary_id());
        let open = self.open.as_ref().unwrap_or(&fallback);
        match &self.accept {
            Some(accept) => {
                let txid = self.funding().transaction.compute_txid();
                let outpoint = bitcoin::OutPoint { txid, vout: 0 };
                encode(&self.peer.funding_created(open, accept, outpoint))
            }
            None => {
                let accept = self.peer.accept_channel(open);
                encode(&self.peer.funding_created(open, &accept, made_up_outpoint(8, 0)))
            }
        }
    }

    fn signed_bytes(&self) -> Vec<u8> {
        let fallback = self.peer.open_channel(self.temporary_id());
        let open = self.open.as_ref().unwrap_or(&fallback);
        let accept = self.accept.clone().unwrap_or_else(|| self.peer.accept_channel(open));
        let created = match &self.created {
            Some(created) => created.clone(),
            None => self.peer.funding_created(open, &accept, made_up_outpoint(8, 0)),
        };
        let signed = self.peer.funding_signed(open, &accept, &created);
        encode(&msgs::FundingSigned { channel_id: self.id(), ..signed })
    }
}

fn p2wpkh() -> bitcoin::ScriptBuf {
    bitcoin::ScriptBuf::from([&[0, 20][..], &[1; 20]].concat())
}
