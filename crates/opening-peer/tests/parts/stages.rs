//! An opening at each of its stages, while the node has the connection for itself, and then its
//! channel.

use std::sync::Arc;

use opening_core::Role;
use opening_peer::message::{Message, decode};
use opening_peer::{BroadcastPermit, Event, FundingTransaction, Greeting, Opened, Session, Stage};
use tokio::task::JoinHandle;

use crate::common::here::Here;
use crate::common::parts::{Valve, Valves};
use crate::common::{ask, confirmation, funding_transaction, node_id};
use crate::road::{CAPACITY, Lane, road};
use crate::{custom, settle, use_it};

/// More than a key serves.
const MANY: u32 = 510;

/// What BOLT 8 adds to a message.
const FRAMING: usize = 2 + 16 + 16;

/// When what the opening waits for comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// While the node has the connection.
    Ends,
    /// Long after.
    GoesOn,
}

/// Two nodes; the near one is taken apart.
struct Pair {
    near: Here,
    far: Here,
    near_session: Session,
    far_session: Session,
    out: Lane,
    back: Lane,
    /// Where the funder's wallet waits.
    wallet: Arc<Valve>,
}

impl Pair {
    async fn new() -> Self {
        let (near, far) = (Here::new(), Here::new());
        let (out, back, one, other) = road().await;
        let (near_session, far_session) = tokio::join!(
            Session::start(near.openings.clone(), node_id(2), one, Greeting::default()),
            Session::start(far.openings.clone(), node_id(1), other, Greeting::default()),
        );
        let (near_session, far_session) = (near_session.unwrap(), far_session.unwrap());
        Self { near, far, near_session, far_session, out, back, wallet: Arc::default() }
    }

    /// Begins an opening that comes to wait where it is made to.
    fn open(&self, role: Role) -> JoinHandle<(Arc<Opened>, BroadcastPermit)> {
        let session = match role {
            Role::Funder => self.near_session.clone(),
            Role::Fundee => self.far_session.clone(),
        };
        let wallet = self.wallet.clone();
        tokio::spawn(async move {
            let pending = session.open(ask()).await.unwrap().accepted().await.unwrap();
            wallet.pass().await;
            let transaction = funding_transaction(&pending.needed().output, 0);
            let funding = FundingTransaction::Signed(transaction);
            let mut signing = pending.complete(funding).await.unwrap();
            signing.opened().await.unwrap()
        })
    }

    /// Where the opening has to wait to be at this stage.
    fn valve(&self, role: Role, stage: Stage) -> Option<&Valve> {
        let (near, far): (&Valves, &Valves) = (&self.near.valves, &self.far.valves);
        Some(match (role, stage) {
            (Role::Funder, Stage::Keys) => &near.keys,
            (Role::Funder, Stage::AcceptChannel) => &far.decide,
            (_, Stage::Funding | Stage::FundingCreated) => &*self.wallet,
            (Role::Funder, Stage::Signature) => &near.sign,
            (Role::Funder, Stage::FundingSigned) => &far.save,
            (Role::Funder, Stage::Validation) => &near.validate,
            (_, Stage::Save) => &near.save,
            (Role::Fundee, Stage::Decision) => &near.decide,
            (Role::Fundee, Stage::Commitments) => &near.validate,
            _ => return None,
        })
    }

    async fn near_is_at(&self, stage: Stage) {
        loop {
            let status = self.near.openings.status().await;
            if status.under_way.iter().any(|under| under.stage == stage) {
                return settle().await;
            }
            tokio::task::yield_now().await;
        }
    }
}

async fn taken_apart_at(role: Role, stage: Stage, wait: Wait) {
    let case = format!("{role:?} {stage:?} {wait:?}");
    let messages = if wait == Wait::Ends { MANY } else { 10 };
    let pair = Pair::new().await;
    let Pair { near, far, near_session, far_session, out, back, .. } = &pair;
    let valve = pair.valve(role, stage);
    valve.inspect(|valve| valve.shut());
    let opening = pair.open(role);
    pair.near_is_at(stage).await;

    // A frame of which the near end has received half, and one of which it has written half.
    back.stop_after(30);
    far_session.send(custom(0)).await.unwrap();
    back.stopped().await;
    out.stop_after(0);
    near_session.send(custom(0)).await.unwrap();
    settle().await;
    let mut parts = near_session.clone().into_parts().await.unwrap();
    let queued = parts.transport.writer.queued();
    assert_eq!(queued, custom(0).len() + FRAMING - CAPACITY, "{case}");

    // The node's own talk, longer than any key lasts.
    let pending = parts.negotiations.pending().await;
    let is_under_way = !matches!(stage, Stage::Depth);
    assert_eq!(pending.first().map(|under| under.stage), is_under_way.then_some(stage), "{case}");
    if wait == Wait::Ends {
        valve.inspect(|valve| valve.open());
    }
    (1..=messages).for_each(|number| parts.transport.writer.queue(&custom(number)).unwrap());
    let session = far_session.clone();
    let talking = tokio::spawn(async move {
        for number in 1..=messages {
            session.send(custom(number)).await.unwrap();
        }
    });
    back.go_on();
    out.go_on();
    let mut is_accepted = false;
    let heard = use_it(&mut parts.transport, messages as usize + 1, |bytes| {
        is_accepted |= matches!(decode(bytes), Ok(Message::AcceptChannel(_)));
    })
    .await;
    talking.await.unwrap();
    assert_eq!(heard, (0..=messages).map(custom).collect::<Vec<_>>(), "{case}");
    // The node has met what is not its own.
    assert_eq!(is_accepted, (stage, wait) == (Stage::AcceptChannel, Wait::Ends), "{case}");

    let session = Session::resume(parts).unwrap();
    settle().await;
    valve.inspect(|valve| valve.open());
    let (opened, _permit) = opening.await.unwrap();
    let of_both = [near.seen.opened().await, far.seen.opened().await];
    assert!(of_both.iter().all(|it| it.channel_id == opened.channel_id), "{case}");
    assert_eq!(far.rest.take_messages(), (0..=messages).map(custom).collect::<Vec<_>>(), "{case}");
    reach_ready(&pair, &opened).await;
    drop(session);
}

async fn reach_ready(pair: &Pair, opened: &Opened) {
    let transaction = opened.funding_transaction.clone().unwrap();
    for here in [&pair.near, &pair.far] {
        let evidence = confirmation(&transaction, 3);
        here.openings.confirmed(opened.channel_id, evidence).await.unwrap();
    }
    for here in [&pair.near, &pair.far] {
        let is_this = |event: &Event| match event {
            Event::Ready(ready) => (ready.opened.channel_id == opened.channel_id).then_some(()),
            _ => None,
        };
        here.seen.find(is_this).await;
        assert_eq!(here.openings.pending(), 0);
    }
}

// req: B8-TR-B-05, B8-TR-R-01, B8-TR-R-03
#[tokio::test]
async fn a_funder_taken_apart_at_each_stage_opens_its_channel_after_the_resume() {
    let stages = [
        Stage::Keys,
        Stage::AcceptChannel,
        Stage::Funding,
        Stage::Signature,
        Stage::FundingSigned,
        Stage::Validation,
        Stage::Save,
        Stage::Depth,
    ];
    for stage in stages {
        for wait in [Wait::Ends, Wait::GoesOn] {
            taken_apart_at(Role::Funder, stage, wait).await;
        }
    }
}

// req: B8-TR-B-05, B8-TR-R-01, B8-TR-R-03
#[tokio::test]
async fn a_fundee_taken_apart_at_each_stage_opens_its_channel_after_the_resume() {
    let stages =
        [Stage::Decision, Stage::FundingCreated, Stage::Commitments, Stage::Save, Stage::Depth];
    for stage in stages {
        for wait in [Wait::Ends, Wait::GoesOn] {
            taken_apart_at(Role::Fundee, stage, wait).await;
        }
    }
}

/// Wherever the bytes, the messages and the opening happen to be.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn taken_apart_again_and_again_nothing_is_lost() {
    let pair = Pair::new().await;
    let talk = |session: &Session| {
        let session = session.clone();
        tokio::spawn(async move {
            for number in 0..MANY {
                session.send(custom(number)).await.unwrap();
            }
        })
    };
    let talking = [talk(&pair.near_session), talk(&pair.far_session)];
    let opening = [pair.open(Role::Funder), pair.open(Role::Fundee)];
    let mut session = pair.near_session.clone();
    let mut times = 0;
    while !(talking.iter().all(JoinHandle::is_finished)
        && opening.iter().all(JoinHandle::is_finished))
    {
        session = Session::resume(session.into_parts().await.unwrap()).unwrap();
        times += 1;
        tokio::task::yield_now().await;
    }
    assert!(times > 10, "{times}");
    for opening in opening {
        let (opened, _permit) = opening.await.unwrap();
        reach_ready(&pair, &opened).await;
    }
    let said: Vec<_> = (0..MANY).map(custom).collect();
    assert_eq!(pair.near.rest.take_messages(), said);
    assert_eq!(pair.far.rest.take_messages(), said);
}
