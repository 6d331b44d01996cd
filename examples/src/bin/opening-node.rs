//! A scriptable node: JSON commands on stdin, JSON events on stdout, logs on stderr.
//!
//! Start it, read the `ready` line, connect and fund:
//!
//! ```text
//! {"id":1,"cmd":"connect","peer":"02…","addr":"127.0.0.1:9735"}
//! {"id":2,"cmd":"fundchannel","peer":"02…","funding_satoshis":1000000,"push_msat":0,
//!  "feerate_per_kw":1250,"announce":false,"channel_type":[12,22]}
//! ```

use std::pin::pin;
use std::process::ExitCode;

use clap::Parser;
use opening_examples::control::command::{self, Command, Refused};
use opening_examples::control::options::Options;
use opening_examples::control::output;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

fn main() -> ExitCode {
    let options = Options::parse();
    if options.print_features {
        println!("{}", opening_examples::control::options::features_hex());
        return ExitCode::SUCCESS;
    }
    // A panic in any task ends the process: a driver must not wait for half a node.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::exit(101);
    }));
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("opening-node: {error}");
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(run(options));
    // Not waited for: its thread that reads stdin waits for a line that may never come.
    runtime.shutdown_background();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("opening-node: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

async fn run(options: Options) -> Result<(), opening_examples::control::options::OptionsError> {
    let (output, writer) = output::stdout();
    let node = options.start(output.clone()).await?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    // One for the whole run: Ctrl-C in the middle of a command counts too.
    let mut interrupted = pin!(tokio::signal::ctrl_c());
    loop {
        let line = tokio::select! {
            line = lines.next_line() => line,
            _ = &mut interrupted => break,
        };
        let line = match line {
            Ok(Some(line)) => line,
            // The end of stdin means stop.
            Ok(None) => break,
            // Not text: that line is lost, the next one may be better.
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                let refused = Refused::new("bad-line", error);
                output.line(answer(Value::Null, Err(refused)));
                continue;
            }
            Err(error) => {
                log::error!("stdin: {error}");
                break;
            }
        };
        if line.trim().is_empty() {
            continue;
        }
        let (id, command) = command::parse(&line);
        let stop = matches!(command, Ok(Command::Stop));
        let carry_out = async {
            match command {
                Ok(command) => node.run(command).await,
                Err(refused) => Err(refused),
            }
        };
        // In the order in which they were asked: the next one may rely on this one.
        tokio::select! {
            done = carry_out => output.line(answer(id, done)),
            _ = &mut interrupted => break,
        }
        if stop {
            break;
        }
    }
    node.stop().await;
    // What was said is written before the process ends, whatever else still holds the output.
    output.end();
    writer.finish();
    Ok(())
}

fn answer(id: Value, done: Result<Value, Refused>) -> Value {
    match done {
        Ok(result) => json!({"id": id, "ok": true, "result": result}),
        Err(Refused { code, error }) => {
            json!({"id": id, "ok": false, "error": error, "code": code})
        }
    }
}
