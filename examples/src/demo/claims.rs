//! What the demo claims about a channel, each claim held against someone else's view of it.

use bitcoin::{OutPoint, TxOut};
use lightning::ln::channel_state::ChannelDetails;
use opening_core::Role;
use opening_peer::Opened;
use opening_peer::negotiation::ready::Ready;

use crate::ldk_node::LdkNode;
use crate::our_node::{AnyError, OurNode};

/// Fails with both values where LDK and we do not agree.
fn agree<T: PartialEq + std::fmt::Debug>(what: &str, ours: T, ldks: T) -> Result<(), AnyError> {
    if ours == ldks {
        Ok(())
    } else {
        Err(format!("{what}: we have {ours:?}, LDK has {ldks:?}").into())
    }
}

/// LDK's own view of a channel in use is ours.
pub async fn ldk_agrees(ldk: &LdkNode, ready: &Ready) -> Result<ChannelDetails, AnyError> {
    let opened = &ready.opened;
    let view =
        ldk.channel(|channel| channel.channel_id == opened.channel_id && channel.is_usable).await?;
    let parameters = &opened.parameters;
    let outpoint = view.funding_txo.map(|outpoint| outpoint.into_bitcoin_outpoint());
    agree("funding outpoint", Some(parameters.funding_outpoint), outpoint)?;
    agree("capacity", parameters.funding_satoshis.to_sat(), view.channel_value_satoshis)?;
    let channel_type = Some(parameters.channel_type.to_features());
    agree("channel type", channel_type, view.channel_type.clone())?;
    agree("funder", opened.role() == Role::Funder, !view.is_outbound)?;
    let our_reserve = parameters.remote.config.channel_reserve_satoshis.to_sat();
    agree("our reserve", our_reserve, view.counterparty.unspendable_punishment_reserve)?;
    let their_reserve = parameters.local.config.channel_reserve_satoshis.to_sat();
    agree("LDK's reserve", Some(their_reserve), view.unspendable_punishment_reserve)?;
    let short_channel_id = ready.short_channel_id.map(|id| id.to_u64());
    agree("short channel id", short_channel_id, view.short_channel_id)?;
    Ok(view)
}

/// With LDK's signature we can leave at any time: Bitcoin Core's consensus code takes our first
/// commitment, signed by both.
pub async fn we_can_leave(node: &OurNode, opened: &Opened) -> Result<(), AnyError> {
    let exit = node.signed_commitment(opened).await?;
    let output = opened.funding_output();
    let funding = opened.parameters.funding_outpoint;
    let output = TxOut { value: output.value, script_pubkey: output.script_pubkey };
    exit.verify(|outpoint: &OutPoint| (*outpoint == funding).then(|| output.clone()))?;
    Ok(())
}
