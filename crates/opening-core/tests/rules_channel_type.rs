//! The channel type of `open_channel`, as the fundee judges it.

mod common;

use common::{Case, bits, forget, good_open};
use lightning_types::features::ChannelTypeFeatures;
use opening_core::{ChannelType, Refusal, Side, Stage};

const SIDE: Side = Side::Remote;

#[track_caller]
fn accepted(change: impl FnOnce(&mut Case)) {
    assert_eq!(good_open().with(change).judge(Stage::ReceiveOpenChannel), Ok(()));
}

#[track_caller]
fn refused(change: impl FnOnce(&mut Case), refusal: Refusal) {
    let verdict = good_open().with(change).judge(Stage::ReceiveOpenChannel);
    assert_eq!(verdict, Err(refusal.clone()));
    assert_eq!(refusal.side_to_move(), SIDE);
}

// req: B2-OPEN-R-02, B2-OPEN-S-13
#[test]
fn channel_type_is_compulsory() {
    accepted(|_| {});
    refused(|p| p.open.channel_type = None, Refusal::ChannelTypeMissing { side: SIDE });
    // Neither TLV at all.
    refused(
        |p| (p.open.channel_type, p.open.script) = (None, None),
        Refusal::ChannelTypeMissing { side: SIDE },
    );
}

fn set_type(p: &mut Case, bytes: &[u8]) {
    let little_endian = bytes.iter().rev().copied().collect();
    p.open.channel_type = Some(ChannelTypeFeatures::from_le_bytes(little_endian));
}

// req: B2-OPEN-R-24, B2-TYPE-B-01, B2-TYPE-B-03
#[test]
fn undefined_types_are_refused() {
    let undefined: [&[u8]; 8] = [
        &[],                       // Nothing.
        &[0x20, 0x00],             // An odd bit.
        &[0x40, 0x00, 0x00],       // Anchors without static_remotekey.
        &[0x10, 0x40, 0x10, 0x00], // An unknown bit beside a defined type.
        &[0x44, 0x10, 0x00],       // A feature that no type has.
        &[0x00, 0x40, 0x10, 0x00], // Not the smallest bitmap.
        &[0x40, 0x10, 0x10],       // upfront_shutdown_script: not a feature of types.
        &[0xff; 300],
    ];
    for bytes in undefined {
        refused(|p| set_type(p, bytes), Refusal::ChannelTypeUndefined { side: SIDE });
    }
}

// req: B2-OPEN-R-24, B2-TYPE-B-02, B2-TYPE-B-03, B2-TYPE-B-04, B2-TYPE-B-05
#[test]
fn every_defined_type_is_accepted_where_negotiated() {
    for channel_type in ChannelType::all() {
        let of_type = |p: &mut Case| {
            p.open.channel_type = Some(channel_type.to_features());
            p.limits.trust_zeroconf = true;
        };
        accepted(of_type);
        for feature in channel_type.features() {
            let without = |p: &mut Case| {
                of_type(p);
                forget(&mut p.features, feature);
            };
            refused(without, Refusal::ChannelTypeNotNegotiated { side: SIDE, feature });
        }
    }
}

// req: B9-FEAT-S-08
#[test]
fn assumed_features_need_not_be_offered() {
    let case = good_open().of_type(ChannelType::STATIC_REMOTEKEY).with(|p| {
        p.features.local = bits(&[]);
        p.features.remote = bits(&[]);
    });
    assert_eq!(case.judge(Stage::ReceiveOpenChannel), Ok(()));
}

// req: B2-OPEN-R-24
#[test]
fn an_alias_is_never_announced() {
    let alias = |announce_channel: bool| {
        move |p: &mut Case| {
            let channel_type = ChannelType { scid_alias: true, ..ChannelType::ANCHORS };
            p.open.channel_type = Some(channel_type.to_features());
            p.open.announce_channel = announce_channel;
        }
    };
    accepted(alias(false));
    refused(alias(true), Refusal::ScidAliasAnnounced { side: SIDE });
}

// req: B2-OPEN-R-25
#[test]
fn zeroconf_takes_trust() {
    let zeroconf = |trust: bool| {
        move |p: &mut Case| {
            // Without scid_alias it is a type of its own.
            let channel_type = ChannelType { zeroconf: true, ..ChannelType::ANCHORS };
            p.open.channel_type = Some(channel_type.to_features());
            p.limits.trust_zeroconf = trust;
        }
    };
    accepted(zeroconf(true));
    refused(zeroconf(false), Refusal::ZeroconfUntrusted);
}
