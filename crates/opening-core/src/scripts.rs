//! The scripts of a commitment transaction's outputs.
//!
//! ```text
//! to_local    revocation key, or the owner's delayed key after to_self_delay blocks
//! to_remote   the counterparty's payment key; with anchors after 1 block
//! anchor      one side's funding key, or anyone after 16 blocks
//! ```

use bitcoin::opcodes::all::{
    OP_CHECKSIG, OP_CHECKSIGVERIFY, OP_CSV, OP_DROP, OP_ELSE, OP_ENDIF, OP_IF, OP_IFDUP, OP_NOTIF,
    OP_PUSHNUM_1, OP_PUSHNUM_16,
};
use bitcoin::script::Builder;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{CompressedPublicKey, ScriptBuf};

use crate::channel_type::CommitmentFormat;

/// The witness script of `to_local` (B3-OUT-B-03); the delay in blocks.
pub(crate) fn to_local_script(
    revocation_pubkey: &PublicKey,
    to_self_delay: u16,
    delayed_pubkey: &PublicKey,
) -> ScriptBuf {
    Builder::new()
        .push_opcode(OP_IF)
        .push_slice(revocation_pubkey.serialize())
        .push_opcode(OP_ELSE)
        .push_int(i64::from(to_self_delay))
        .push_opcode(OP_CSV)
        .push_opcode(OP_DROP)
        .push_slice(delayed_pubkey.serialize())
        .push_opcode(OP_ENDIF)
        .push_opcode(OP_CHECKSIG)
        .into_script()
}

/// What `to_remote` pays to (B3-OUT-B-04, B3-OUT-B-05).
pub(crate) fn to_remote_script_pubkey(
    format: CommitmentFormat,
    payment_pubkey: &PublicKey,
) -> ScriptBuf {
    match format {
        CommitmentFormat::StaticRemotekey => {
            ScriptBuf::new_p2wpkh(&CompressedPublicKey(*payment_pubkey).wpubkey_hash())
        }
        CommitmentFormat::Anchors => to_remote_anchors_script(payment_pubkey).to_p2wsh(),
    }
}

/// The witness script of `to_remote` where there are anchors (B3-OUT-B-04).
// The delay of one block keeps an unconfirmed commitment from being pinned through this output.
pub(crate) fn to_remote_anchors_script(payment_pubkey: &PublicKey) -> ScriptBuf {
    Builder::new()
        .push_slice(payment_pubkey.serialize())
        .push_opcode(OP_CHECKSIGVERIFY)
        .push_opcode(OP_PUSHNUM_1)
        .push_opcode(OP_CSV)
        .into_script()
}

/// The witness script of one side's anchor (B3-OUT-B-07).
pub(crate) fn anchor_script(funding_pubkey: &PublicKey) -> ScriptBuf {
    Builder::new()
        .push_slice(funding_pubkey.serialize())
        .push_opcode(OP_CHECKSIG)
        .push_opcode(OP_IFDUP)
        .push_opcode(OP_NOTIF)
        .push_opcode(OP_PUSHNUM_16)
        .push_opcode(OP_CSV)
        .push_opcode(OP_ENDIF)
        .into_script()
}

#[cfg(test)]
mod tests {
    use super::*;

    // From BOLT 3, Appendix C.
    const REVOCATION: &str = "0212a140cd0c6539d07cd08dfe09984dec3251ea808b892efeac3ede9402bf2b19";
    const DELAYED: &str = "03fd5960528dc152014952efdb702a88f71e3c1653b2314431701ec77e57fde83c";
    const PAYMENT: &str = "032c0b7cf95324a07d05398b240174dc0c2be444d96b159aa6c7f7b1e668680991";
    const FUNDING: &str = "023da092f6980e58d2c037173180e9a465476026ee50f96695963e8efe436f54eb";

    fn key(hex: &str) -> PublicKey {
        hex.parse().unwrap()
    }

    // req: B3-OUT-B-03
    #[test]
    fn to_local_pushes_every_delay_in_its_shortest_form() {
        for (delay, push) in [
            (1, "51"),
            (16, "60"),
            (17, "0111"),
            (127, "017f"),
            (128, "028000"),
            (144, "029000"),
            (32_767, "02ff7f"),
            (32_768, "03008000"),
            (65_535, "03ffff00"),
        ] {
            let script = to_local_script(&key(REVOCATION), delay, &key(DELAYED));
            let expected = format!("6321{REVOCATION}67{push}b27521{DELAYED}68ac");
            assert_eq!(script.to_hex_string(), expected, "{delay} blocks");
        }
    }

    // req: B3-OUT-B-04, B3-OUT-B-05
    #[test]
    fn to_remote_has_a_script_only_beside_anchors() {
        let payment = key(PAYMENT);
        let script = to_remote_anchors_script(&payment);
        assert_eq!(script.to_hex_string(), format!("21{PAYMENT}ad51b2"));
        for (format, expected) in [
            (CommitmentFormat::StaticRemotekey, "0014cc1b07838e387deacd0e5232e1e8b49f4c29e484"),
            (
                CommitmentFormat::Anchors,
                "0020f3394e1e619b0eca1f91be2fb5ab4dfc59ba5b84ebe014ad1d43a564d012994a",
            ),
        ] {
            assert_eq!(to_remote_script_pubkey(format, &payment).to_hex_string(), expected);
        }
    }

    // req: B3-OUT-B-07
    #[test]
    fn anchor_is_its_sides_for_sixteen_blocks() {
        let script = anchor_script(&key(FUNDING));
        assert_eq!(script.to_hex_string(), format!("21{FUNDING}ac736460b268"));
        assert_eq!(
            script.to_p2wsh().to_hex_string(),
            "00202b1b5854183c12d3316565972c4668929d314d81c5dcdbb21cb45fe8a9a8114f"
        );
    }
}
