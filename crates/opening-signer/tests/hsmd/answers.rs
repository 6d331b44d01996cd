//! An hsmd that answers once in a way that it should not: nothing panics, nothing hangs, no secret
//! gets out, and what comes after it works.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bitcoin::Network;
use bitcoin::secp256k1::{Secp256k1, SecretKey};
use opening_core::Side;
use opening_signer::remote::{HsmdConfig, HsmdHsm};
use opening_signer::{ChannelRef, CommitmentRequest, Hsm, HsmResult};
use tempfile::TempDir;

use crate::pair::{node_id, party, setup};
use crate::recorded::{FUNDER, read};
use crate::scripted::{START_UP, Wire, kind, reply};

/// Requests of an opening that the fake answers.
const REQUESTS: [u16; 9] = [11, 30, 10, 9, 18, 31, 19, 35, 34];

/// What is wrong with one reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    Type,
    Empty,
    Short,
    Trailing,
    Oversize,
    Partial,
    Closed,
    Silent,
    /// Where a secret can stand, or instead of everything.
    Secret,
    /// The last signature or key is another one, well-formed.
    Other,
    HighS,
}

const WRONGS: [Wrong; 11] = [
    Wrong::Type,
    Wrong::Empty,
    Wrong::Short,
    Wrong::Trailing,
    Wrong::Oversize,
    Wrong::Partial,
    Wrong::Closed,
    Wrong::Silent,
    Wrong::Secret,
    Wrong::Other,
    Wrong::HighS,
];

const SECRET: [u8; 32] = [0x5e; 32];

/// hsmd as it was recorded while it funded a channel, but for one reply.
struct Fake {
    directory: TempDir,
    fault: Arc<Mutex<Option<(u16, Wrong)>>>,
}

impl Fake {
    fn new(fault: Option<(u16, Wrong)>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let fake = Self { directory, fault: Arc::new(Mutex::new(fault)) };
        let listener = UnixListener::bind(fake.path()).unwrap();
        std::fs::set_permissions(fake.path(), std::fs::Permissions::from_mode(0o600)).unwrap();
        let fault = fake.fault.clone();
        // The threads end with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (wire, fault) = (Wire(stream.unwrap()), fault.clone());
                std::thread::spawn(move || serve(wire, &fault));
            }
        });
        fake
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("hsmd")
    }

    async fn connect(&self) -> HsmResult<HsmdHsm> {
        let deadline = Duration::from_millis(800);
        let config = HsmdConfig { deadline, ..HsmdConfig::new(Network::Regtest) };
        HsmdHsm::connect(&self.path(), config).await
    }
}

fn serve(mut wire: Wire, fault: &Arc<Mutex<Option<(u16, Wrong)>>>) {
    while let Some(request) = wire.read() {
        let number = kind(&request);
        let good = match number {
            11 => reply(START_UP, 114),
            18 if request.ends_with(&[1]) => {
                // The recording has that of commitment 0 first.
                let next = reply(FUNDER, 135);
                [&118_u16.to_be_bytes()[..], &next[3..], &[0]].concat()
            }
            18 => reply(FUNDER, 118),
            19 => reply(FUNDER, 112),
            34 => vec![0, 134],
            other => reply(FUNDER, other + 100),
        };
        let is_due = fault.lock().unwrap().is_some_and(|(at, _)| at == number);
        let wrong = if is_due { fault.lock().unwrap().take() } else { None };
        match wrong {
            None => wire.write(&good),
            Some((_, wrong)) => match answer(wrong, number, &good) {
                Answer::Message(message) => wire.write(&message),
                Answer::Bytes(bytes) => {
                    wire.write_raw(&bytes);
                    return;
                }
                Answer::Never => {
                    // Until the client gives up.
                    while wire.read().is_some() {}
                    return;
                }
            },
        }
        if number == 9 && wrong.is_none() {
            let (channel, fault) = (wire.pass(), fault.clone());
            std::thread::spawn(move || serve(channel, &fault));
        }
    }
}

enum Answer {
    Message(Vec<u8>),
    Bytes(Vec<u8>),
    Never,
}

fn answer(wrong: Wrong, number: u16, good: &[u8]) -> Answer {
    let framed = |message: &[u8]| {
        [&u32::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()
    };
    let point = SecretKey::from_slice(&[0x33; 32]).unwrap().public_key(&Secp256k1::new());
    let point = point.serialize();
    match wrong {
        Wrong::Type => Answer::Message([&[0, 131 - u8::from(number == 31)], &good[2..]].concat()),
        Wrong::Empty => Answer::Message(Vec::new()),
        Wrong::Short => Answer::Message(good[..good.len() - 1].to_vec()),
        Wrong::Trailing => Answer::Message([good, &[0]].concat()),
        Wrong::Oversize => Answer::Bytes([0xff; 64].to_vec()),
        Wrong::Partial => Answer::Bytes(framed(good)[..5].to_vec()),
        Wrong::Closed => Answer::Bytes(Vec::new()),
        Wrong::Silent => Answer::Never,
        Wrong::Secret => Answer::Message(match number {
            18 => [&good[..35], &[1], &SECRET].concat(),
            35 => [&good[..2], &[1], &SECRET, &good[3..]].concat(),
            _ => [&good[..2], &SECRET].concat(),
        }),
        Wrong::Other => Answer::Message(match number {
            10 => [&good[..good.len() - 33], &point].concat(),
            18 => [&good[..2], &point, &[0]].concat(),
            19 => [&good[..2], &[1; 65]].concat(),
            _ => good.to_vec(),
        }),
        Wrong::HighS => Answer::Message(match number {
            19 => {
                let s = SecretKey::from_slice(&good[34..66]).unwrap().negate();
                [&good[..34], &s.secret_bytes(), &[1]].concat()
            }
            _ => good.to_vec(),
        }),
    }
}

/// A whole opening as it was recorded, and what it ends with.
async fn open(hsm: &HsmdHsm) -> HsmResult<()> {
    let secp = Secp256k1::new();
    let reference = ChannelRef { peer: node_id(8), dbid: 1 };
    let channel = hsm.channel(reference).await?;
    channel.pubkeys().await?;
    channel.per_commitment_point(0).await?;
    let known = crate::pair::signer(7, opening_signer::Enforcement::Blind, &Arc::default());
    let ours = party(&*known.channel(reference).await?).await;
    let recorded = read(FUNDER, ours.config);
    let parameters = &recorded.parameters;
    channel.setup(&setup(parameters.clone())).await?;
    let theirs = parameters.first_commitment(&secp, Side::Remote).unwrap();
    let own = parameters.first_commitment(&secp, Side::Local).unwrap();
    let sign = CommitmentRequest::first(parameters, &theirs);
    let signature = channel.sign_counterparty_commitment(&sign).await?;
    assert_eq!(signature, recorded.counterparty_signature, "a wrong signature got through");
    let validate = CommitmentRequest::first(parameters, &own);
    channel.validate_holder_commitment(&validate, &recorded.holder_signature).await?;
    assert_eq!(channel.per_commitment_point(1).await?, recorded.next_point);
    hsm.forget_channel(reference).await
}

/// What an error may say.
fn is_coded(result: &HsmResult<()>) -> bool {
    let Err(error) = result else { return true };
    let text = format!("{error} {error:?}");
    assert!(!text.contains(&hex::encode(SECRET)) && !text.contains("94, 94"), "{text}");
    [
        "signer-protocol",
        "signer-indeterminate",
        "signer-unavailable",
        "signer-refused",
        "signer-invalid-request",
    ]
    .contains(&error.code())
}

#[tokio::test]
async fn a_good_one_opens() {
    let fake = Fake::new(None);
    let hsm = fake.connect().await.unwrap();
    open(&hsm).await.unwrap();
    open(&hsm).await.unwrap();
}

#[tokio::test]
async fn one_wrong_answer_to_any_request_is_a_coded_error_or_made_good() {
    let plans = REQUESTS.into_iter().flat_map(|at| WRONGS.map(|wrong| (at, wrong)));
    let playing = plans.map(|(at, wrong)| async move {
        let fake = Fake::new(Some((at, wrong)));
        let (first, hsm) = match fake.connect().await {
            Ok(hsm) => (open(&hsm).await, hsm),
            // It was the greeting.
            Err(error) => (Err(error), fake.connect().await.unwrap()),
        };
        assert!(is_coded(&first), "{at} {wrong:?}: {first:?}");
        assert!(fake.fault.lock().unwrap().is_none(), "{at} {wrong:?} was never due");
        // What was closed or lost is asked for again, what is no answer is none.
        match wrong {
            Wrong::Closed | Wrong::Partial | Wrong::Oversize if at != 11 => {
                assert_eq!(first, Ok(()), "{at} {wrong:?}");
            }
            Wrong::Empty | Wrong::Trailing | Wrong::Secret => {
                assert_eq!(first.unwrap_err().code(), "signer-protocol", "{at} {wrong:?}");
            }
            Wrong::Type => {
                assert_eq!(first.unwrap_err().code(), "signer-protocol", "{at} {wrong:?}");
            }
            Wrong::HighS if at == 19 => {
                assert_eq!(first.unwrap_err().code(), "signer-protocol", "{at} {wrong:?}");
            }
            Wrong::Other if at == 19 => {
                assert_eq!(first.unwrap_err().code(), "signer-protocol", "{at} {wrong:?}");
            }
            _ => {}
        }
        // The node's next channel opens.  A key that it gave wrongly is not forgotten: it names a
        // channel.
        if !(wrong == Wrong::Other && at == 10) {
            let again = async {
                while hsm.health().is_err() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                open(&hsm).await
            };
            assert_eq!(again.await, Ok(()), "{at} {wrong:?}, afterwards");
        }
    });
    futures::future::join_all(playing).await;
}
