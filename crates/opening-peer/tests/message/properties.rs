//! Any bytes give a result, and what we write we can read.

use bitcoin::hashes::Hash;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use bitcoin::{ScriptBuf, Txid};
use lightning::types::features::ChannelTypeFeatures;
use proptest::prelude::*;

use super::*;

prop_compose! {
    fn point()(secret in any::<[u8; 32]>().prop_filter_map("not a secret key", |bytes| SecretKey::from_slice(&bytes).ok()))
        -> PublicKey
    {
        secret.public_key(&Secp256k1::new())
    }
}

prop_compose! {
    fn signature()(bytes in any::<[u8; 32]>(), s in any::<[u8; 31]>()) -> Signature {
        let mut compact = [0; 64];
        compact[1..32].copy_from_slice(&bytes[1..]);
        compact[33..].copy_from_slice(&s);
        Signature::from_compact(&compact).expect("r and s are below 2^248")
    }
}

fn channel_type() -> impl Strategy<Value = Option<ChannelTypeFeatures>> {
    proptest::option::of(
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(ChannelTypeFeatures::from_le_bytes),
    )
}

fn script() -> impl Strategy<Value = Option<ScriptBuf>> {
    proptest::option::of(
        proptest::collection::vec(any::<u8>(), 0..300).prop_map(ScriptBuf::from_bytes),
    )
}

prop_compose! {
    fn any_open_channel()(
        id in any::<[u8; 32]>(),
        numbers in any::<[u64; 6]>(),
        feerate in any::<u32>(),
        shorts in any::<(u16, u16, u8)>(),
        points in proptest::collection::vec(point(), 6),
        shutdown_scriptpubkey in script(),
        channel_type in channel_type(),
    ) -> msgs::OpenChannel {
        let mut open = open_channel();
        let fields = &mut open.common_fields;
        fields.temporary_channel_id = ChannelId(id);
        fields.funding_satoshis = numbers[0];
        fields.dust_limit_satoshis = numbers[1];
        fields.max_htlc_value_in_flight_msat = numbers[2];
        fields.htlc_minimum_msat = numbers[3];
        fields.commitment_feerate_sat_per_1000_weight = feerate;
        (fields.to_self_delay, fields.max_accepted_htlcs, fields.channel_flags) = shorts;
        fields.funding_pubkey = points[0];
        fields.revocation_basepoint = points[1];
        fields.payment_basepoint = points[2];
        fields.delayed_payment_basepoint = points[3];
        fields.htlc_basepoint = points[4];
        fields.first_per_commitment_point = points[5];
        fields.shutdown_scriptpubkey = shutdown_scriptpubkey;
        fields.channel_type = channel_type;
        open.push_msat = numbers[4];
        open.channel_reserve_satoshis = numbers[5];
        open
    }
}

/// A good message, damaged.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let messages = one_of_each();
    (
        0..messages.len(),
        proptest::collection::vec((any::<usize>(), any::<u8>()), 0..4),
        any::<usize>(),
        proptest::collection::vec(any::<u8>(), 0..20),
    )
        .prop_map(move |(which, changes, length, more)| {
            let mut message = messages[which].clone();
            for (position, byte) in changes {
                let length = message.len();
                message[position % length] = byte;
            }
            message.truncate(length % (2 * message.len()));
            message.extend(more);
            message
        })
}

/// What must hold of every outcome.
fn check(bytes: &[u8]) {
    match decode(bytes) {
        Ok(Message::Other { type_number }) => assert_eq!(type_number.to_be_bytes(), bytes[..2]),
        Ok(message) => assert_eq!(decode(&encode_again(&message)), Ok(message)),
        Err(undecodable) => {
            let stays = matches!(
                undecodable.kind,
                UndecodableKind::InvalidKey { .. } | UndecodableKind::InvalidSignature
            );
            assert_eq!(stays, matches!(undecodable.consequence(), Consequence::FailChannel(_)));
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_give_a_result(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        check(&bytes);
    }

    #[test]
    fn any_body_of_a_known_type_gives_a_result(
        which in 0..12_usize,
        body in proptest::collection::vec(any::<u8>(), 0..400),
    ) {
        let type_number = [1, 16, 17, 18, 19, 32, 33, 34, 35, 36, 38, 136][which];
        check(&[&[0, type_number], &body[..]].concat());
    }

    #[test]
    fn a_damaged_message_gives_a_result(bytes in damaged()) {
        check(&bytes);
    }

    // req: B1-MSG-B-03
    #[test]
    fn open_channel_is_read_as_it_was_written(open in any_open_channel()) {
        prop_assert_eq!(decode(&encode(&open)), Ok(Message::OpenChannel(Box::new(open))));
    }

    // req: B1-MSG-B-03
    #[test]
    fn accept_channel_is_read_as_it_was_written(open in any_open_channel(), minimum_depth in any::<u32>()) {
        let mut accept = accept_channel();
        let (from, fields) = (open.common_fields, &mut accept.common_fields);
        fields.temporary_channel_id = from.temporary_channel_id;
        fields.dust_limit_satoshis = from.dust_limit_satoshis;
        fields.max_htlc_value_in_flight_msat = from.max_htlc_value_in_flight_msat;
        fields.htlc_minimum_msat = from.htlc_minimum_msat;
        fields.minimum_depth = minimum_depth;
        fields.to_self_delay = from.to_self_delay;
        fields.max_accepted_htlcs = from.max_accepted_htlcs;
        fields.funding_pubkey = from.funding_pubkey;
        fields.htlc_basepoint = from.htlc_basepoint;
        fields.shutdown_scriptpubkey = from.shutdown_scriptpubkey;
        fields.channel_type = from.channel_type;
        accept.channel_reserve_satoshis = open.channel_reserve_satoshis;
        prop_assert_eq!(decode(&encode(&accept)), Ok(Message::AcceptChannel(Box::new(accept))));
    }

    // req: B1-MSG-B-03
    #[test]
    fn the_short_messages_are_read_as_they_were_written(
        id in any::<[u8; 32]>(),
        (txid, vout) in any::<([u8; 32], u16)>(),
        signature in signature(),
        point in point(),
        short_channel_id_alias in any::<Option<u64>>(),
        script in script(),
        (ponglen, byteslen) in (any::<u16>(), 0..65000_u16),
    ) {
        let channel_id = ChannelId(id);
        let funding_txid = Txid::from_byte_array(txid);
        let created =
            msgs::FundingCreated { temporary_channel_id: channel_id, funding_txid, funding_output_index: vout, signature };
        prop_assert_eq!(decode(&encode(&created)), Ok(Message::FundingCreated(created)));
        let signed = msgs::FundingSigned { channel_id, signature };
        prop_assert_eq!(decode(&encode(&signed)), Ok(Message::FundingSigned(signed)));
        let ready = msgs::ChannelReady { channel_id, next_per_commitment_point: point, short_channel_id_alias };
        prop_assert_eq!(decode(&encode(&ready)), Ok(Message::ChannelReady(ready)));
        let shutdown = msgs::Shutdown { channel_id, scriptpubkey: script.unwrap_or_default() };
        prop_assert_eq!(decode(&encode(&shutdown)), Ok(Message::Shutdown(shutdown)));
        let ping = msgs::Ping { ponglen, byteslen };
        prop_assert_eq!(decode(&encode(&ping)), Ok(Message::Ping(ping)));
        let pong = msgs::Pong { byteslen };
        prop_assert_eq!(decode(&encode(&pong)), Ok(Message::Pong(pong)));
    }
}
