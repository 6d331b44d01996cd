//! A funder's connection to its session, and through it to the peer and to the node's handle.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::OutPoint;
use bitcoin::secp256k1::PublicKey;
use lightning::ln::msgs::{AcceptChannel, FundingCreated, FundingSigned, OpenChannel};
use lightning::ln::types::ChannelId;
use opening_core::NegotiatedFeatures;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::gate::Gate;
use super::seat::Seat;
use crate::failure::{Failure, Stage};
use crate::funding::FundingError;
use crate::message::encode;
use crate::negotiation::funder::{Funding, WaitForFunding};
use crate::session::{FundingNeeded, FundingOffer, Key, OurReport, Report};

/// What the session hands on to a funder: messages that belong to its stage.
#[derive(Debug)]
pub(crate) enum Inbound {
    AcceptChannel(Box<AcceptChannel>),
    FundingSigned(FundingSigned),
}

pub(crate) struct Line {
    pub(crate) key: Key,
    pub(crate) peer: PublicKey,
    pub(crate) features: Arc<NegotiatedFeatures>,
    pub(crate) temporary_channel_id: ChannelId,
    pub(crate) reports: mpsc::UnboundedSender<Report>,
    pub(crate) inbox: mpsc::UnboundedReceiver<Inbound>,
    pub(crate) gate: Arc<Gate>,
    /// Tells the node's handle what to fund, once.
    pub(crate) accepted: Option<oneshot::Sender<FundingNeeded>>,
    /// Brings what the node's wallet built.
    pub(crate) funding: mpsc::Receiver<FundingOffer>,
    /// Tells the node's handle that `funding_created` is out.
    pub(crate) funded: Option<oneshot::Sender<Result<(), FundingError>>>,
    /// The opening's place in a batch, if its transaction funds others too.
    pub(crate) seat: Option<Seat>,
}

impl Line {
    pub(crate) fn peer(&self) -> PublicKey {
        self.peer
    }

    pub(crate) fn features(&self) -> &Arc<NegotiatedFeatures> {
        &self.features
    }

    pub(crate) fn temporary_channel_id(&self) -> ChannelId {
        self.temporary_channel_id
    }

    pub(crate) fn open_channel(&self, message: &OpenChannel) -> Result<(), Failure> {
        self.report(OurReport::OpenChannel(encode(message)))
    }

    pub(crate) async fn accept_channel(
        &mut self,
        deadline: Duration,
    ) -> Result<Box<AcceptChannel>, Failure> {
        match self.receive("accept_channel", deadline).await? {
            Inbound::AcceptChannel(message) => Ok(message),
            Inbound::FundingSigned(_) => unreachable!("the session hands on what fits the stage"),
        }
    }

    /// Asks the node for the funding transaction until it brings one that funds the channel.
    pub(crate) async fn funding(
        &mut self,
        state: &WaitForFunding,
        deadline: Duration,
    ) -> Result<(OutPoint, Funding), Failure> {
        self.report(OurReport::Stage(Stage::Funding))?;
        let output = state.funding_output();
        let needed = FundingNeeded {
            output: output.clone(),
            remote_shutdown_script: state.remote_shutdown_script().cloned(),
        };
        if let Some(accepted) = self.accepted.take() {
            // A handle that is gone cancels by itself.
            let _ = accepted.send(needed);
        }
        let building = async {
            loop {
                let offered = tokio::select! {
                    offered = self.funding.recv() => offered,
                    // Nothing is awaited of the peer: the session has ended the opening.
                    _ = self.inbox.recv() => None,
                };
                let Some(offer) = offered else { return Err(Failure::Cancelled) };
                match offer.outpoint(&output) {
                    Ok(outpoint) => return Ok((outpoint, offer)),
                    Err(error) => drop(offer.funded.send(Err(error))),
                }
            }
        };
        let built = timeout(deadline, building).await;
        let (outpoint, offer) = built.map_err(|_| Failure::WalletSilent(deadline))??;
        let FundingOffer { funding, seat, funded } = offer;
        let batch = seat.as_ref().map(|seat| seat.others.clone()).unwrap_or_default();
        (self.seat, self.funded) = (seat, Some(funded));
        self.report(OurReport::Stage(Stage::Signature))?;
        Ok((outpoint, Funding { transaction: funding.into_transaction(), batch }))
    }

    /// From now on the peer may name the channel by its final id.
    pub(crate) fn identified(&self, channel_id: ChannelId) -> Result<(), Failure> {
        self.report(OurReport::Identified(channel_id))
    }

    pub(crate) fn funding_created(&mut self, message: &FundingCreated) -> Result<(), Failure> {
        let funded = self.funded.take();
        self.report(OurReport::FundingCreated { message: encode(message), funded })
    }

    pub(crate) async fn funding_signed(
        &mut self,
        deadline: Duration,
    ) -> Result<FundingSigned, Failure> {
        match self.receive("funding_signed", deadline).await? {
            Inbound::FundingSigned(message) => Ok(message),
            Inbound::AcceptChannel(_) => unreachable!("the session hands on what fits the stage"),
        }
    }

    /// Waits until every peer of the batch has signed; an opening alone goes on at once.
    pub(crate) async fn all_signed(&mut self) -> Result<(), Failure> {
        let Some(seat) = &self.seat else { return Ok(()) };
        tokio::select! {
            all = seat.all_signed() => all,
            // Nothing is awaited of the peer: the session has ended the opening.
            _ = self.inbox.recv() => Err(Failure::Cancelled),
        }
    }

    /// The opening's place in a batch, if it has one.
    pub(crate) fn seat(&self) -> Option<&Seat> {
        self.seat.as_ref()
    }

    pub(crate) fn begin_save(&self) -> Result<(), Failure> {
        self.gate.begin_save()?;
        self.report(OurReport::Stage(Stage::Save))
    }

    async fn receive(
        &mut self,
        message: &'static str,
        after: Duration,
    ) -> Result<Inbound, Failure> {
        let batch_failed = async {
            match &self.seat {
                Some(seat) => seat.failed().await,
                None => std::future::pending().await,
            }
        };
        let received = tokio::select! {
            received = timeout(after, self.inbox.recv()) => received,
            failure = batch_failed => return Err(failure),
        };
        match received {
            Ok(Some(inbound)) => Ok(inbound),
            // The session has ended the opening and told why.
            Ok(None) => Err(Failure::Cancelled),
            Err(_) => Err(Failure::PeerSilent { message, after }),
        }
    }

    fn report(&self, report: OurReport) -> Result<(), Failure> {
        let report = Report::Ours { key: self.key, report };
        self.reports.send(report).map_err(|_| Failure::Disconnected)
    }
}
