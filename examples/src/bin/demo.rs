//! Opens channels with a real LDK node, in both directions, and checks every claim it prints.
//!
//! Everything runs in this process: LDK's `ChannelManager` and `PeerManager` on their own TCP
//! socket, our node, a wallet, and a regtest chain that checks scripts with Bitcoin Core's
//! consensus code.

use std::process::ExitCode;

use clap::Parser;
use opening_examples::demo::paint::Painter;
use opening_examples::demo::scenes;
use opening_examples::logging;

/// Opens channels with a real LDK node, in both directions.
#[derive(Parser)]
#[command(name = "demo", version)]
struct Options {
    /// Also log to stderr: off, error, warn, info, debug or trace.
    #[arg(long, default_value = "off", value_parser = logging::level)]
    log: log::LevelFilter,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    logging::to_stderr(options.log);
    tokio::select! {
        played = scenes::play(Painter::default()) => match played {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("\ndemo failed: {error}");
                ExitCode::FAILURE
            }
        },
        _ = tokio::signal::ctrl_c() => {
            eprintln!("\ninterrupted");
            ExitCode::from(130)
        }
    }
}
