//! A small signer process, for a node that runs elsewhere.

use std::process::ExitCode;

use clap::Parser;
use opening_examples::hsmd::Options;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    // Both end it in order: a service manager sends this one.
    let mut terminated = match signal(SignalKind::terminate()) {
        Ok(terminated) => terminated,
        Err(error) => {
            eprintln!("hsmd: cannot wait for SIGTERM: {error} [io]");
            return ExitCode::FAILURE;
        }
    };
    let stop = async {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminated.recv() => {}
        }
    };
    match options.run(stop).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hsmd: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
