//! The chain that a channel lives on.

mod common;

use bitcoin::constants::ChainHash;
use common::good_open;
use opening_core::Stage;

/// The genesis block's hash in the order of its bytes, not as it is shown.
const MAINNET: &str = "6fe28c0ab6f1b372c1a6a246ae63f74f931e8365e15a089c68d6190000000000";

// req: B0-CH-B-01
#[test]
fn mainnets_chain_hash_is_not_reversed() {
    let as_sent = hex::decode(MAINNET).unwrap();
    assert_eq!(ChainHash::BITCOIN.to_bytes()[..], as_sent);
    let reversed: Vec<_> = as_sent.into_iter().rev().collect();
    let reversed = ChainHash::from(<[u8; 32]>::try_from(reversed).unwrap());
    for stage in [Stage::SendOpenChannel, Stage::ReceiveOpenChannel] {
        let on_mainnet = |offered| {
            let case = good_open().with(|p| {
                p.chain_hash = ChainHash::BITCOIN;
                p.open.chain_hash = offered;
            });
            case.judge(stage).map_err(|refusal| refusal.code())
        };
        assert_eq!(on_mainnet(ChainHash::BITCOIN), Ok(()));
        assert_eq!(on_mainnet(reversed), Err("unknown-chain"));
    }
}
