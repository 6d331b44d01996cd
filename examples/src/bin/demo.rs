//! Opens channels with a real LDK node, in both directions, and checks every claim it prints.
//!
//! Everything runs in this process: LDK's `ChannelManager` and `PeerManager` on their own TCP
//! socket, our node, a wallet, and a regtest chain that checks scripts with Bitcoin Core's
//! consensus code.

use std::process::ExitCode;

use clap::Parser;
use opening_examples::demo::paint::Painter;
use opening_examples::demo::scenes;
use opening_examples::demo::signer::Where;
use opening_examples::logging;

/// Opens channels with a real LDK node, in both directions.
#[derive(Parser)]
#[command(name = "demo", version)]
struct Options {
    /// Also log to stderr: off, error, warn, info, debug or trace.
    #[arg(long, default_value = "off", value_parser = logging::level)]
    log: log::LevelFilter,
    /// Have our node's signer in a process of its own, the program hsmd beside this one, which is
    /// killed and started again while a channel is opened.
    #[arg(long)]
    remote_signer: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    logging::to_stderr(options.log);
    let signer = match options.remote_signer {
        true => Where::InAProcess,
        false => Where::Here,
    };
    tokio::select! {
        played = scenes::play(Painter::default(), signer) => match played {
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
