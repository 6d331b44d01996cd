//! A channel that is opened, on its way into use.

use std::sync::Arc;

use bitcoin::Transaction;
use lightning::ln::msgs::ChannelReady;
use opening_peer::message::Message;
use opening_peer::negotiation::ready::Confirmation;
use opening_peer::openings::ConfirmError;
use opening_peer::{Ask, FundingTransaction, Opened};

use super::{From, Made, Party, Wire, connect, settle};
use crate::common::{confirmation, funding_transaction};

/// An opened channel, its funding transaction and both ends.
pub struct Open {
    pub opened: Arc<Opened>,
    pub transaction: Transaction,
    pub funder: Party,
    pub fundee: Party,
    pub wire: Wire,
}

pub async fn opened_between(funder: Made, fundee: Made, ask: Ask) -> Open {
    let (funder, fundee, wire) = connect(funder, fundee).await;
    let pending = funder.session.open(ask).await.unwrap().accepted().await.unwrap();
    let transaction = funding_transaction(&pending.needed().output, 0);
    let funding = FundingTransaction::Signed(transaction.clone());
    let (opened, _permit) = pending.complete(funding).await.unwrap().opened().await.unwrap();
    fundee.log.opened().await;
    Open { opened, transaction, funder, fundee, wire }
}

impl Open {
    pub fn party(&self, which: From) -> &Party {
        match which {
            From::Funder => &self.funder,
            From::Fundee => &self.fundee,
        }
    }

    pub async fn confirm(&self, which: From, depth: u32) -> Result<(), ConfirmError> {
        let evidence = confirmation(&self.transaction, depth);
        self.evidence(which, evidence).await
    }

    pub async fn evidence(&self, which: From, evidence: Confirmation) -> Result<(), ConfirmError> {
        let party = self.party(which);
        let result = party.openings.confirmed(self.opened.channel_id, evidence).await;
        settle().await;
        result
    }

    pub fn channel_readies(&self, which: From) -> Vec<ChannelReady> {
        let said = self.wire.said(which).into_iter();
        said.filter_map(|message| match message {
            Message::ChannelReady(message) => Some(message),
            _ => None,
        })
        .collect()
    }

    pub fn sent(&self, which: From) -> usize {
        self.channel_readies(which).len()
    }
}
