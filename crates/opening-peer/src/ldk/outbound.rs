//! What a session says, as the events by which LDK's `PeerManager` is told to send it.

use bitcoin::secp256k1::PublicKey;
use lightning::ln::msgs::{
    AcceptChannel, AnnouncementSignatures, ChannelReady, ChannelReestablish, ChannelUpdate,
    ClosingComplete, ClosingSig, ClosingSigned, CommitmentSigned, CommitmentUpdate, ErrorAction,
    ErrorMessage, FundingCreated, FundingSigned, MessageSendEvent, OpenChannel, RevokeAndACK,
    Shutdown, SpliceAck, SpliceInit, SpliceLocked, Stfu, TxAbort, TxAckRbf, TxAddInput,
    TxAddOutput, TxComplete, TxInitRbf, TxRemoveInput, TxRemoveOutput, TxSignatures, UpdateAddHTLC,
    UpdateFailHTLC, UpdateFailMalformedHTLC, UpdateFee, UpdateFulfillHTLC, WarningMessage,
};
use lightning::ln::types::ChannelId;
use lightning::util::logger::Level;
use lightning::util::ser::LengthReadable;

fn read<T: LengthReadable>(mut body: &[u8]) -> Option<T> {
    T::read_from_fixed_length_buffer(&mut body).ok()
}

/// One message among those that change the next commitment.
fn update(
    node_id: PublicKey,
    channel_id: ChannelId,
    change: impl FnOnce(&mut CommitmentUpdate),
) -> MessageSendEvent {
    let mut updates = CommitmentUpdate {
        update_add_htlcs: Vec::new(),
        update_fulfill_htlcs: Vec::new(),
        update_fail_htlcs: Vec::new(),
        update_fail_malformed_htlcs: Vec::new(),
        update_fee: None,
        commitment_signed: Vec::new(),
    };
    change(&mut updates);
    MessageSendEvent::UpdateHTLCs { node_id, channel_id, updates }
}

/// The event that sends the message in `bytes`, type first; `None` where LDK has none for it.
pub(super) fn event(node_id: PublicKey, bytes: &[u8]) -> Option<MessageSendEvent> {
    let (type_number, body) = bytes.split_first_chunk()?;
    macro_rules! send {
        ($event:ident, $message:ty) => {
            MessageSendEvent::$event { node_id, msg: read::<$message>(body)? }
        };
    }
    macro_rules! push {
        ($field:ident, $message:ty) => {{
            let message = read::<$message>(body)?;
            update(node_id, message.channel_id, |updates| updates.$field.push(message))
        }};
    }
    Some(match u16::from_be_bytes(*type_number) {
        1 => {
            let msg = read::<WarningMessage>(body)?;
            let action = ErrorAction::SendWarningMessage { msg, log_level: Level::Debug };
            MessageSendEvent::HandleError { node_id, action }
        }
        2 => send!(SendStfu, Stfu),
        17 => {
            let msg = read::<ErrorMessage>(body)?;
            MessageSendEvent::HandleError { node_id, action: ErrorAction::SendErrorMessage { msg } }
        }
        32 => send!(SendOpenChannel, OpenChannel),
        33 => send!(SendAcceptChannel, AcceptChannel),
        34 => send!(SendFundingCreated, FundingCreated),
        35 => send!(SendFundingSigned, FundingSigned),
        36 => send!(SendChannelReady, ChannelReady),
        38 => send!(SendShutdown, Shutdown),
        39 => send!(SendClosingSigned, ClosingSigned),
        40 => send!(SendClosingComplete, ClosingComplete),
        41 => send!(SendClosingSig, ClosingSig),
        66 => send!(SendTxAddInput, TxAddInput),
        67 => send!(SendTxAddOutput, TxAddOutput),
        68 => send!(SendTxRemoveInput, TxRemoveInput),
        69 => send!(SendTxRemoveOutput, TxRemoveOutput),
        70 => send!(SendTxComplete, TxComplete),
        71 => send!(SendTxSignatures, TxSignatures),
        72 => send!(SendTxInitRbf, TxInitRbf),
        73 => send!(SendTxAckRbf, TxAckRbf),
        74 => send!(SendTxAbort, TxAbort),
        77 => send!(SendSpliceLocked, SpliceLocked),
        80 => send!(SendSpliceInit, SpliceInit),
        81 => send!(SendSpliceAck, SpliceAck),
        128 => push!(update_add_htlcs, UpdateAddHTLC),
        130 => push!(update_fulfill_htlcs, UpdateFulfillHTLC),
        131 => push!(update_fail_htlcs, UpdateFailHTLC),
        132 => push!(commitment_signed, CommitmentSigned),
        133 => send!(SendRevokeAndACK, RevokeAndACK),
        134 => {
            let message = read::<UpdateFee>(body)?;
            update(node_id, message.channel_id, |updates| updates.update_fee = Some(message))
        }
        135 => push!(update_fail_malformed_htlcs, UpdateFailMalformedHTLC),
        136 => send!(SendChannelReestablish, ChannelReestablish),
        258 => send!(SendChannelUpdate, ChannelUpdate),
        259 => send!(SendAnnouncementSignatures, AnnouncementSignatures),
        _ => return None,
    })
}
