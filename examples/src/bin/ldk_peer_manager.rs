//! Opens channels with this library and with LDK's `ChannelManager` over one connection of one
//! `PeerManager`, and checks every claim it prints.  `docs/ldk-peer-manager.md` tells how.

use std::process::ExitCode;

use clap::Parser;
use opening_examples::demo::paint::Painter;
use opening_examples::ldk_peer_manager::story;
use opening_examples::logging;

/// Opens channels with this library and with LDK's ChannelManager over one connection.
#[derive(Parser)]
#[command(name = "ldk_peer_manager", version)]
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
        played = story::play(Painter::default()) => match played {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("\nldk_peer_manager failed: {error}");
                ExitCode::FAILURE
            }
        },
        _ = tokio::signal::ctrl_c() => {
            eprintln!("\ninterrupted");
            ExitCode::from(130)
        }
    }
}
