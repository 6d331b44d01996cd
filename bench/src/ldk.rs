//! Two of LDK's `ChannelManager`s in one thread: the same openings as those of
//! [`pair`](crate::pair), their messages encoded and decoded in between.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::secp256k1::PublicKey;
use bitcoin::{Amount, Network, Transaction};
use lightning::chain::BestBlock;
use lightning::chain::chaininterface::BroadcasterInterface;
use lightning::events::{Event, EventsProvider};
use lightning::ln::msgs::{
    AcceptChannel, BaseMessageHandler, ChannelMessageHandler, FundingCreated, FundingSigned, Init,
    MessageSendEvent, OpenChannel,
};
use lightning::util::config::UserConfig;
use lightning::util::ser::{LengthReadable, Writeable};
use opening_core::{ChannelType, FundingOutput};
use opening_examples::ldk_node::parts::{self, InMemory, assemble};

use crate::cpu;
use crate::far::peer;
use crate::node::funding;
use crate::pair::{FEERATE, FUNDING, PUSH, Taken};

/// Nothing is broadcast: the opening ends where a transaction would be.
struct NoBroadcaster;

impl BroadcasterInterface for NoBroadcaster {
    fn broadcast_transactions(&self, _transactions: &[&Transaction]) {}
}

type Manager = parts::Manager<Arc<NoBroadcaster>>;

/// Two connected managers.
pub struct LdkPair {
    funder: Arc<Manager>,
    fundee: Arc<Manager>,
    count: u64,
}

impl LdkPair {
    /// Two managers that know each other.
    pub fn connect() -> Self {
        Self::among(1)
    }

    /// The same, where each is connected with this many peers in all.
    pub fn among(peers: u32) -> Self {
        let pair = Self { funder: manager(1), fundee: manager(2), count: 0 };
        introduce(&pair.funder, pair.fundee.get_our_node_id(), &pair.fundee);
        introduce(&pair.fundee, pair.funder.get_our_node_id(), &pair.funder);
        for number in 1..peers {
            introduce(&pair.fundee, peer(number), &pair.funder);
            introduce(&pair.funder, peer(number), &pair.fundee);
        }
        pair
    }

    /// One channel, up to the event that lets the funder broadcast and the fundee's monitor.
    pub fn open(&mut self, channel_type: ChannelType) -> Taken {
        self.count += 1;
        let Self { funder, fundee, count } = self;
        let mut taken = Taken { funder: Duration::ZERO, fundee: Duration::ZERO };
        let (funder_id, fundee_id) = (funder.get_our_node_id(), fundee.get_our_node_id());
        let mut ours = Turn { manager: funder, peer: fundee_id, taken: &mut taken.funder };
        let mut theirs = Turn { manager: fundee, peer: funder_id, taken: &mut taken.fundee };

        let open_channel = ours.take(|manager, peer| offer(manager, peer, channel_type));
        let accept_channel = theirs.take(|manager, peer| {
            manager.handle_open_channel(peer, &decode::<OpenChannel>(&open_channel));
            accept(manager);
            said(manager)
        });
        let funding_created = ours.take(|manager, peer| {
            manager.handle_accept_channel(peer, &decode::<AcceptChannel>(&accept_channel));
            fund(manager, *count);
            said(manager)
        });
        let funding_signed = theirs.take(|manager, peer| {
            manager.handle_funding_created(peer, &decode::<FundingCreated>(&funding_created));
            said(manager)
        });
        ours.take(|manager, peer| {
            manager.handle_funding_signed(peer, &decode::<FundingSigned>(&funding_signed));
            assert!(is_pending(manager), "the funder may broadcast");
        });
        self.forget();
        taken
    }

    /// LDK lets no peer have more than four channels that have not confirmed.
    fn forget(&self) {
        for (manager, other) in [(&self.funder, &self.fundee), (&self.fundee, &self.funder)] {
            for channel in manager.list_channels() {
                manager
                    .force_close_broadcasting_latest_txn(
                        &channel.channel_id,
                        &other.get_our_node_id(),
                        "measured".into(),
                    )
                    .expect("the channel is there");
            }
            drop(manager.get_and_clear_pending_msg_events());
            each_event(manager, drop);
        }
    }
}

/// One side, and the time that it took.
struct Turn<'a> {
    manager: &'a Manager,
    peer: PublicKey,
    taken: &'a mut Duration,
}

impl Turn<'_> {
    fn take<T>(&mut self, act: impl FnOnce(&Manager, PublicKey) -> T) -> T {
        let (done, time) = cpu::of(|| act(self.manager, self.peer));
        *self.taken += time;
        done
    }
}

fn manager(byte: u8) -> Arc<Manager> {
    let kept = (Arc::new(NoBroadcaster), Arc::new(InMemory));
    let best_block = BestBlock::from_network(Network::Regtest);
    assemble([byte; 32], FEERATE, kept, best_block, 0).manager
}

/// `manager` has exchanged `init` with a peer that has `like`'s features.
fn introduce(manager: &Manager, peer: PublicKey, like: &Manager) {
    let features = like.provided_init_features(manager.get_our_node_id());
    let init = Init { features, networks: None, remote_network_address: None };
    // Of those that connect by themselves LDK takes only some hundreds.
    manager.peer_connected(peer, &init, false).expect("the features are its own");
    drop(manager.get_and_clear_pending_msg_events());
}

fn offer(manager: &Manager, peer: PublicKey, channel_type: ChannelType) -> Vec<u8> {
    let mut config = UserConfig::default();
    config.channel_handshake_config.negotiate_anchors_zero_fee_htlc_tx =
        channel_type == ChannelType::ANCHORS;
    manager
        .create_channel(peer, FUNDING.to_sat(), PUSH.to_msat(), 0, None, Some(config))
        .expect("LDK takes its own default limits");
    said(manager)
}

/// The message that the manager has for its peer.
fn said(manager: &Manager) -> Vec<u8> {
    let events = manager.get_and_clear_pending_msg_events();
    let mut messages = events.iter().filter_map(|event| match event {
        MessageSendEvent::SendOpenChannel { msg, .. } => Some(msg.encode()),
        MessageSendEvent::SendAcceptChannel { msg, .. } => Some(msg.encode()),
        MessageSendEvent::SendFundingCreated { msg, .. } => Some(msg.encode()),
        MessageSendEvent::SendFundingSigned { msg, .. } => Some(msg.encode()),
        _ => None,
    });
    messages.next().expect("each turn ends with a message")
}

fn decode<M: LengthReadable>(mut bytes: &[u8]) -> M {
    M::read_from_fixed_length_buffer(&mut bytes).expect("LDK reads what it writes")
}

fn each_event(manager: &Manager, mut on: impl FnMut(Event)) {
    let events = std::cell::RefCell::new(Vec::new());
    let handler = |event| {
        events.borrow_mut().push(event);
        Ok(())
    };
    manager.process_pending_events(&handler);
    events.into_inner().into_iter().for_each(&mut on);
}

fn accept(manager: &Manager) {
    each_event(manager, |event| {
        if let Event::OpenChannelRequest { temporary_channel_id, counterparty_node_id, .. } = event
        {
            manager
                .accept_inbound_channel(&temporary_channel_id, &counterparty_node_id, 0, None)
                .expect("LDK takes what LDK offers");
        }
    });
}

fn fund(manager: &Manager, number: u64) {
    each_event(manager, |event| {
        if let Event::FundingGenerationReady {
            temporary_channel_id,
            counterparty_node_id,
            channel_value_satoshis,
            output_script,
            ..
        } = event
        {
            let value = Amount::from_sat(channel_value_satoshis);
            let output = FundingOutput { value, script_pubkey: output_script };
            manager
                .funding_transaction_generated(
                    temporary_channel_id,
                    counterparty_node_id,
                    funding(&output, number),
                )
                .expect("it pays the output");
        }
    });
}

fn is_pending(manager: &Manager) -> bool {
    let mut is_pending = false;
    each_event(manager, |event| is_pending |= matches!(event, Event::ChannelPending { .. }));
    is_pending
}
