//! A program that is started again: not too often, and never beside the one before.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bitcoin::Network;
use opening_signer::remote::{HsmdConfig, HsmdHsm};
use opening_signer::{ChannelRef, Hsm};

use crate::pair::{node_id, reason};
use crate::scripted::{START_UP, Wire, reply};

const DIRECTORY: &str = "OPENING_TEST_HSMD_CHILD_DIRECTORY";
/// In the directory: the program hangs after its greeting, else it ends.
const HANG: &str = "hang";
/// In the directory: a line for each start, with the process's id.
const STARTS: &str = "starts";

/// The program that the tests below start: this test again.  Without the variable it is no such
/// process.
#[test]
fn greets_as_a_child() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let directory = Path::new(&directory);
    let mut starts = std::fs::read_to_string(directory.join(STARTS)).unwrap_or_default();
    starts += &format!("{}\n", std::process::id());
    std::fs::write(directory.join(STARTS), starts).unwrap();
    let mut wire = Wire(UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap()));
    wire.read().unwrap();
    wire.write(&reply(START_UP, 114));
    while directory.join(HANG).exists() {
        std::thread::sleep(Duration::from_millis(20));
    }
    std::process::exit(0);
}

async fn spawn(program: &Path, directory: &Path) -> HsmdHsm {
    let mut command = Command::new(program);
    command.args(["--exact", "children::greets_as_a_child"]).env(DIRECTORY, directory);
    command.stdout(Stdio::null());
    let deadline = Duration::from_millis(2000);
    let config = HsmdConfig { deadline, ..HsmdConfig::new(Network::Regtest) };
    HsmdHsm::spawn(command, config).await.unwrap()
}

fn starts(directory: &Path) -> Vec<u32> {
    let starts = std::fs::read_to_string(directory.join(STARTS)).unwrap();
    starts.lines().map(|line| line.parse().unwrap()).collect()
}

/// Whether there is a process of this id, and it is no remainder.
fn is_alive(id: u32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let state = state.rsplit(')').next().unwrap().trim_start();
    !state.is_empty() && !state.starts_with('Z')
}

#[tokio::test]
async fn a_program_that_ends_when_it_is_greeted_is_started_ever_less_often() {
    let directory = tempfile::tempdir().unwrap();
    let hsm = spawn(&std::env::current_exe().unwrap(), directory.path()).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    drop(hsm);
    // After 0, 100, 300, 700, 1500 and 3100 ms, and what each start takes.
    let starts = starts(directory.path()).len();
    assert!((2..=6).contains(&starts), "{starts} starts");
}

/// The next one cannot be started here, which shows the order.
#[tokio::test]
async fn a_program_that_hangs_is_gone_before_the_next_one_is_started() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("signer");
    std::os::unix::fs::symlink(std::env::current_exe().unwrap(), &program).unwrap();
    std::fs::write(directory.path().join(HANG), "").unwrap();
    let hsm = spawn(&program, directory.path()).await;
    let id = starts(directory.path())[0];
    assert!(is_alive(id));
    std::fs::remove_file(&program).unwrap();
    let named = hsm.channel(ChannelRef { peer: node_id(8), dbid: 1 }).await.map(drop);
    assert_eq!(reason(named), "signer-indeterminate");
    let until = Instant::now() + Duration::from_secs(20);
    let cannot_start = || {
        let health = hsm.health().map_err(|error| error.to_string());
        health.is_err_and(|text| text.contains("cannot start"))
    };
    while !cannot_start() {
        assert!(Instant::now() < until, "never: {:?}", hsm.health());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!is_alive(id));
}
