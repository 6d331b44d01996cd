//! One suite of negotiations over every signer: what the node and the peer see does not depend on
//! who signs.

// Clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

mod cases;
#[path = "../common/mod.rs"]
mod common;
mod under_test;

/// Each case for each signer, as a test of its own.
macro_rules! suite {
    ([$($signer:ident),*], $cases:tt) => {
        $(suite!(@signer $signer $cases);)*
    };
    (@signer $signer:ident [$($case:ident),*]) => {
        #[allow(non_snake_case, reason = "named as the signers are")]
        mod $signer {
            use crate::cases;
            use crate::under_test::{Kind, UnderTest};

            $(
                #[tokio::test]
                async fn $case() {
                    let case = cases::$case(UnderTest::new(Kind::$signer).await);
                    let patience = std::time::Duration::from_secs(60);
                    tokio::time::timeout(patience, case).await.expect("it hangs");
                }
            )*
        }
    };
}

suite!(
    [LocalBlind, LocalValidating, LdkKeysManager, EnvelopedUnix, EnvelopedTls, HsmdWire, Mock],
    [
        opens_channels_of_every_type_as_funder,
        opens_channels_of_every_type_as_fundee,
        goes_on_after_a_restart_of_node_and_signer,
        goes_the_way_out_after_a_restart,
        survives_a_restart_of_the_signer_in_the_middle,
        finds_a_bad_signature_and_goes_on,
        leaves_nothing_of_an_opening_that_is_cancelled,
        refuses_in_the_peers_words_what_the_signer_does_not_sign_for,
        opens_many_at_once
    ]
);
