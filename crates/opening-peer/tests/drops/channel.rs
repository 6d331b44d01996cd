//! What a node asks about channels that are opened.

use std::sync::Mutex;

use bitcoin::hashes::Hash;
use bitcoin::{ScriptBuf, Transaction, WPubkeyHash};
use lightning::ln::types::ChannelId;
use opening_peer::message::Message;
use opening_peer::node::PublicText;
use opening_peer::store::ChannelStore;
use opening_peer::{BroadcastPermit, Event, FundingTransaction};
use tokio::time::{sleep, timeout};

use self::Asked::*;
use crate::common::{ask, confirmation, funding_transaction};
use crate::faulty::{From, Party};
use crate::world::{ENOUGH, World, at_every_tick, within};

/// What a node asks about a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Confirmed,
    Forget,
    Unbroadcast,
    DoubleSpent,
    Spent,
    Fail,
    SignedCommitment,
    NewAlias,
    Release,
    ShutDownChannel,
    Status,
    ShutDown,
}

/// A channel, about which its funder asks, or about `Forget` its fundee.
struct Channel {
    id: ChannelId,
    transaction: Transaction,
    permit: Mutex<Option<BroadcastPermit>>,
    world: World,
}

impl Channel {
    /// One whose permit is at hand.
    async fn permitted() -> Self {
        let world = World::new().await;
        let pending = world.funder.session.open(ask()).await.unwrap().accepted().await.unwrap();
        let transaction = funding_transaction(&pending.needed().output, 0);
        let funding = FundingTransaction::Signed(transaction.clone());
        let mut signing = pending.complete(funding).await.unwrap();
        let (opened, permit) = signing.opened().await.unwrap();
        let permit = Mutex::new(Some(permit));
        Self { id: opened.channel_id, transaction, permit, world }
    }

    /// As far as it has to be to be asked so.
    async fn ripe_for(asked: Asked) -> Self {
        let channel = Self::permitted().await;
        let openings = &channel.world.funder.openings;
        match asked {
            SignedCommitment => {
                openings.fail(&channel.id, &PublicText::new("enough")).await.unwrap();
            }
            Forget => channel.world.fundee.openings.block_connected(100).await,
            NewAlias | Release => channel.confirm().await,
            _ => {}
        }
        sleep(ENOUGH).await;
        channel
    }

    async fn confirm(&self) {
        for party in [&self.world.funder, &self.world.fundee] {
            party.openings.confirmed(self.id, confirmation(&self.transaction, 3)).await.unwrap();
        }
        for party in [&self.world.funder, &self.world.fundee] {
            party.log.ready().await;
        }
    }

    async fn ask(&self, asked: Asked) {
        let (funder, id) = (&self.world.funder, self.id);
        let openings = &funder.openings;
        match asked {
            Confirmed => {
                let evidence = confirmation(&self.transaction, 3);
                openings.confirmed(id, evidence).await.unwrap();
            }
            Forget => self.world.fundee.openings.block_connected(2116).await,
            Unbroadcast => {
                let permit = self.permit.lock().unwrap().take();
                if let Some(permit) = permit {
                    openings.abandon_unbroadcast(permit).await.unwrap();
                }
            }
            DoubleSpent => {
                let conflict = Transaction { output: Vec::new(), ..self.transaction.clone() };
                let _ = openings.abandon_double_spent(&id, &confirmation(&conflict, 6)).await;
            }
            Spent => {
                let commitment = self.remote_commitment();
                if let Some(commitment) = commitment {
                    openings.spent(&id, &commitment).await.unwrap();
                }
            }
            Fail => openings.fail(&id, &PublicText::new("enough")).await.unwrap(),
            SignedCommitment => drop(openings.signed_commitment(&id).await.unwrap()),
            NewAlias => {
                let alias = openings.new_alias(id).await.unwrap();
                assert_eq!(openings.channel_known_as(alias), Some(id));
            }
            Release => drop(openings.release(&id).await),
            ShutDownChannel => drop(funder.session.shut_down(id, Some(script())).await.unwrap()),
            Status => drop(openings.status().await),
            ShutDown => openings.shut_down().await,
        }
    }

    fn remote_commitment(&self) -> Option<Transaction> {
        let opened = self.world.fundee.log.all(|event| match event {
            Event::Opened(opened) => Some(opened.clone()),
            _ => None,
        });
        opened.first().map(|it| it.local_commitment.transaction.clone())
    }

    async fn is_kept(&self, party: &Party) -> bool {
        party.kept().await.iter().any(|it| it.channel_id == self.id)
    }

    async fn has_failed(&self, party: &Party) -> bool {
        let stored = party.store.load(&self.id).await.unwrap();
        stored.is_some_and(|it| it.progress.failed.is_some())
    }

    /// What was asked, twice, has happened.
    async fn has_happened(&self, asked: Asked) {
        let World { funder, fundee, wire } = &self.world;
        match asked {
            Confirmed => self.confirm().await,
            Forget => assert!(!self.is_kept(fundee).await),
            Unbroadcast | DoubleSpent | Release => assert!(!self.is_kept(funder).await),
            Spent | Fail | SignedCommitment => assert!(self.has_failed(funder).await),
            NewAlias => {
                let said = wire.said(From::Funder).into_iter().rev();
                let alias = said.into_iter().find_map(|message| match message {
                    Message::ChannelReady(ready) => ready.short_channel_id_alias,
                    _ => None,
                });
                let stored = funder.store.load(&self.id).await.unwrap().unwrap();
                let kept = stored.progress.local.unwrap().alias.map(|it| it.to_u64());
                assert_eq!(alias, kept, "the peer knows the last one");
            }
            ShutDownChannel => assert!(wire.types(From::Funder).contains(&38)),
            ShutDown => assert!(funder.session.is_closed()),
            Status => {}
        }
    }
}

fn script() -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&WPubkeyHash::from_raw_hash(Hash::from_byte_array([3; 20])))
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_about_a_channel() {
    let asks = [
        (Confirmed, 2),
        (Forget, 2),
        (Unbroadcast, 2),
        (DoubleSpent, 2),
        (Spent, 2),
        (Fail, 2),
        (SignedCommitment, 2),
        (NewAlias, 2),
        (Release, 2),
        (ShutDownChannel, 1),
        (Status, 1),
        (ShutDown, 1),
    ];
    for (asked, least) in asks {
        at_every_tick(least, async |ticks| {
            let channel = Channel::ripe_for(asked).await;
            let is_done = within(ticks, channel.ask(asked)).await.is_some();
            sleep(ENOUGH).await;
            timeout(ENOUGH, channel.ask(asked)).await.expect("it can be asked again");
            sleep(ENOUGH).await;
            channel.has_happened(asked).await;
            channel.world.leaves_nothing().await;
            is_done
        })
        .await;
    }
}
