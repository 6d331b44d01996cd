//! Log lines on stderr, so that stdout stays for what a program has to say.

use log::{LevelFilter, Log, Metadata, Record};

struct Stderr;

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            eprintln!("{:5} {}: {}", record.level(), record.target(), record.args());
        }
    }

    fn flush(&self) {}
}

/// Writes everything up to `level` to stderr.
pub fn to_stderr(level: LevelFilter) {
    // A program that has a logger already keeps it.
    if log::set_logger(&Stderr).is_ok() {
        log::set_max_level(level);
    }
}

/// A level by its name, for a command line.
pub fn level(name: &str) -> Result<LevelFilter, String> {
    name.parse().map_err(|_| "not one of off, error, warn, info, debug, trace".into())
}
