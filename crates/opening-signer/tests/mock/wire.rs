//! Replies that go wrong on their way, and the client that meets them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::constants::ChainHash;
use opening_core::Side;
use opening_signer::remote::{Connect, EnvelopeOptions, EnvelopeServer, EnvelopedHsm, Stream};
use opening_signer::testing::{Faults, MockHsm, WireFault, WireFaults};
use opening_signer::{Enforcement, Hsm, HsmResult};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use crate::local;
use crate::pair::Pair;

const SECRET: [u8; 32] = [0x5e; 32];

const ALL: [WireFault; 7] = [
    WireFault::Cut,
    WireFault::Trailing,
    WireFault::WrongType,
    WireFault::Oversize,
    WireFault::ClosedHalfWay,
    WireFault::Dropped,
    WireFault::Secret(SECRET),
];

fn frame(message: &[u8]) -> Vec<u8> {
    [&u32::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
}

/// What a node reads until the connection is closed, of two replies of which the first is spoilt.
async fn heard(fault: WireFault) -> Vec<u8> {
    let (mut node, near) = duplex(4096);
    let (far, mut signer) = duplex(4096);
    let between = tokio::spawn(WireFaults::none().at(1, fault).between(near, far));
    node.write_all(&frame(b"request")).await.unwrap();
    let mut request = vec![0; 11];
    signer.read_exact(&mut request).await.unwrap();
    assert_eq!(request, frame(b"request"), "requests are passed on as they are");
    signer.write_all(&[frame(&[0, 4, 7, 0]), frame(&[0, 4, 8])].concat()).await.unwrap();
    drop(signer);
    between.await.unwrap().unwrap();
    let mut heard = Vec::new();
    node.read_to_end(&mut heard).await.unwrap();
    heard
}

#[tokio::test]
async fn each_fault_changes_its_reply_and_no_other() {
    let next = frame(&[0, 4, 8]);
    let then_next = |message: &[u8]| [frame(message), next.clone()].concat();
    assert_eq!(heard(WireFault::Cut).await, then_next(&[0, 4, 7]));
    assert_eq!(heard(WireFault::Trailing).await, then_next(&[0, 4, 7, 0, 0]));
    assert_eq!(heard(WireFault::WrongType).await, then_next(&[0xff, 0xff, 7, 0]));
    let secret = [&[0, 4, 7, 1][..], &SECRET].concat();
    assert_eq!(heard(WireFault::Secret(SECRET)).await, then_next(&secret));
    let oversize = [&[0xff; 4][..], &[0, 4, 7, 0], &next].concat();
    assert_eq!(heard(WireFault::Oversize).await, oversize);
    assert_eq!(heard(WireFault::ClosedHalfWay).await, frame(&[0, 4, 7, 0])[..4]);
    assert_eq!(heard(WireFault::Dropped).await, next);
}

#[tokio::test]
async fn a_reply_that_is_too_long_to_be_one_is_not_kept() {
    for (length, passes) in [(128 * 1024, true), (128 * 1024 + 1, false)] {
        let (node, near) = duplex(1 << 20);
        let (far, mut signer) = duplex(1 << 20);
        signer.write_all(&frame(&vec![0; length])).await.unwrap();
        drop(signer);
        let passed = WireFaults::none().between(near, far).await;
        assert_eq!(passed.is_ok(), passes, "{length}");
        drop(node);
    }
}

/// Connections to one signer; the replies of the first one are spoilt.
struct Spoilt {
    signer: Arc<MockHsm>,
    faults: WireFaults,
}

#[async_trait]
impl Connect for Spoilt {
    async fn connect(&mut self) -> io::Result<Box<dyn Stream>> {
        let ((node, near), (far, served)) = (duplex(4096), duplex(4096));
        let server = EnvelopeServer::new(self.signer.clone(), ChainHash::REGTEST);
        tokio::spawn(async move { drop(server.serve(served, std::future::pending()).await) });
        let faults = std::mem::take(&mut self.faults);
        tokio::spawn(async move { drop(faults.between(near, far).await) });
        Ok(Box::new(node))
    }
}

/// Setup, and a signature that verifies, of a channel that we fund.
async fn fund(hsm: &dyn Hsm) -> HsmResult<()> {
    let mut pair = Pair::new(Enforcement::Blind).await;
    pair.funder.channel = hsm.channel(pair.funder.reference).await?;
    pair.funder.channel.pubkeys().await?;
    pair.funder.channel.per_commitment_point(0).await?;
    pair.funder.channel.setup(&pair.funder.setup).await?;
    // The client holds the signature against the transaction.
    pair.funder.sign(&pair.funder.commitment(Side::Remote)).await.map(drop)
}

/// Whatever comes of the call that meets the fault, it comes in time, names no secret, and the next
/// opening is a good one.
#[tokio::test(start_paused = true)]
async fn a_client_outlives_every_fault_at_every_reply() {
    for fault in ALL {
        // The first reply is the greeting.
        for nth in 1..=6 {
            let case = format!("{fault:?} at reply {nth}");
            let signer = Arc::new(MockHsm::new(local(), Faults::none()));
            let faults = WireFaults::none().at(nth, fault.clone());
            let connector = Spoilt { signer, faults };
            let opening = async {
                let options = EnvelopeOptions::new(ChainHash::REGTEST);
                let hsm = EnvelopedHsm::connect(connector, options).await?;
                let first = fund(&hsm).await;
                tokio::time::timeout(Duration::from_secs(600), async {
                    while fund(&hsm).await.is_err() {
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                })
                .await
                .expect("the next one is good");
                first
            };
            let first: Result<HsmResult<()>, _> =
                tokio::time::timeout(Duration::from_secs(1200), opening).await;
            if let Err(error) = first.expect(&case) {
                let code = error.code();
                let codes = ["signer-protocol", "signer-indeterminate", "signer-unavailable"];
                assert!(codes.contains(&code), "{case}: {error}");
                for text in [format!("{error}"), format!("{error:?}")] {
                    assert!(!text.contains(&"5e".repeat(32)), "{case}: {text}");
                    assert!(!text.contains("94, 94, 94, 94"), "{case}: {text}");
                }
            }
        }
    }
}
