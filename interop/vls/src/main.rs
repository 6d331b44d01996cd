//! Opens channels with a signer of VLS, through the wire of Core Lightning's hsmd.
//!
//! Each line is a check; the process fails when one of them does.

mod opening;
mod quirks;
mod server;
mod suite;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::secp256k1::{PublicKey, Secp256k1};
use bitcoin::{Amount, Network};
use opening_core::{ChannelType, ChannelTypes, FeeratePerKw, FeerateRange};
use opening_signer::remote::{HsmdConfig, HsmdHsm};
use opening_signer::{Bounds, ChannelRef, Enforcement, Hsm, HsmSecret, LocalHsm};

use crate::opening::{Party, Shape};
use crate::server::Vls;

const VLS_SECRET: [u8; 32] = [7; 32];
const PEER_SECRET: [u8; 32] = [8; 32];
const VECTORS: &str = include_str!("../../../crates/opening-signer/tests/vectors/hsm-vectors.json");

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(0) => ExitCode::SUCCESS,
        Ok(failures) => {
            eprintln!("{failures} check(s) failed");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What was checked, and what VLS itself said meanwhile.
struct Report {
    vls: Vls,
    failures: usize,
}

impl Report {
    fn line(&mut self, name: &str, result: Result<(), String>) {
        match result {
            Ok(()) => println!("ok      {name}"),
            Err(reason) => {
                self.failures += 1;
                println!("FAILED  {name}: {reason}");
            }
        }
        for refusal in self.vls.take_refusals() {
            println!("        VLS: {refusal}");
        }
    }
}

async fn run() -> Result<usize, String> {
    let vls = Vls::new(VLS_SECRET)?;
    let folder = tempfile::tempdir().map_err(text)?;
    let path = folder.path().join("vls");
    vls.listen(&path).map_err(text)?;
    let hsm = HsmdHsm::connect(&path, config()).await.map_err(text)?;
    let id = hsm.node_id().map_err(text)?;
    let hsm: Arc<dyn Hsm> = Arc::new(hsm);
    let mut report = Report { vls, failures: 0 };

    report.line("keys and first points are those of hsm-vectors.json", keys(&*hsm).await);
    let peer = HsmSecret::new(PEER_SECRET);
    let peer_id = peer.node_key().public_key(&Secp256k1::new());
    let ours = Party::new(id, hsm.clone()).await?;
    let theirs = Party::new(peer_id, Arc::new(LocalHsm::blind(&peer))).await?;
    let mut input = 0;
    for channel_type in [ChannelType::STATIC_REMOTEKEY, ChannelType::ANCHORS] {
        for push_msat in [0, 200_000_000] {
            for (role, pair) in [("funder", [&ours, &theirs]), ("fundee", [&theirs, &ours])] {
                input += 1;
                let shape = Shape { channel_type, push_msat };
                let opened = opening::open(pair[0], pair[1], shape, input).await;
                report
                    .line(&format!("VLS as {role}, {channel_type}, push {push_msat} msat"), opened);
            }
        }
    }
    let peer = LocalHsm::blind(&HsmSecret::new(PEER_SECRET));
    let answers = quirks::ask(&*hsm, &peer, [id, peer_id]).await.map_err(text)?;
    for ((name, answer), (_, expected)) in answers.into_iter().zip(quirks::EXPECTED) {
        let said = answer.unwrap_or("carried out");
        let wanted = expected.unwrap_or("carried out");
        let result = if answer == expected {
            Ok(())
        } else {
            Err(format!("it was {wanted} when this was written"))
        };
        report.line(&format!("asked for {name}: {said}"), result);
    }
    for refusal in report.vls.take_refusals() {
        println!("        VLS: {refusal}");
    }
    report.failures += suite::run().await?;
    Ok(report.failures)
}

/// VLS's default policy for regtest.
pub(crate) fn config() -> HsmdConfig {
    HsmdConfig {
        enforcement: Enforcement::Validating,
        bounds: Bounds {
            max_funding_satoshis: Amount::from_sat(1_000_000_001),
            to_self_delay: 4..=2016,
            feerates: FeerateRange { min: FeeratePerKw::new(253), max: FeeratePerKw::new(333_333) },
            channel_types: ChannelTypes::ALL,
        },
        deadline: Duration::from_secs(10),
        ..HsmdConfig::new(Network::Regtest)
    }
}

/// With the vectors' peer, which opens nothing here.
async fn keys(hsm: &dyn Hsm) -> Result<(), String> {
    let vectors: serde_json::Value = serde_json::from_str(VECTORS).map_err(text)?;
    let peer: PublicKey = field(&vectors, "peer_id")?.parse().map_err(text)?;
    for wanted in vectors["channels"].as_array().ok_or("the vectors have no channels")? {
        let dbid = wanted["dbid"].as_u64().ok_or("a vector has no dbid")?;
        let channel = hsm.channel(ChannelRef { peer, dbid }).await.map_err(text)?;
        let keys = channel.pubkeys().await.map_err(text)?;
        let first = channel.per_commitment_point(0).await.map_err(text)?;
        let derived = [
            ("funding_pubkey", keys.funding_pubkey),
            ("revocation_basepoint", keys.revocation_basepoint),
            ("payment_basepoint", keys.payment_basepoint),
            ("htlc_basepoint", keys.htlc_basepoint),
            ("delayed_payment_basepoint", keys.delayed_payment_basepoint),
            ("first_per_commitment_point", first),
        ];
        for (name, key) in derived {
            let wanted = field(wanted, name)?;
            if key.to_string() != wanted {
                return Err(format!("dbid {dbid}, {name}: {key} instead of {wanted}"));
            }
        }
    }
    Ok(())
}

fn field<'a>(of: &'a serde_json::Value, name: &str) -> Result<&'a str, String> {
    of[name].as_str().ok_or_else(|| format!("the vectors have no {name}"))
}

pub(crate) fn text(error: impl ToString) -> String {
    error.to_string()
}
