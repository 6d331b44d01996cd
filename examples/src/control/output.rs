//! One JSON object a line on stdout, in the order in which things happened.

use std::io::Write;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use serde_json::Value;

/// Where lines are queued.  Clones write to the same place.
#[derive(Clone)]
pub struct Output(Sender<Option<Value>>);

/// The thread that writes; [`Writer::finish`] waits until every line is out.
pub struct Writer(JoinHandle<()>);

/// Starts writing to stdout.
// A thread of its own: events come from places that must not block, and stdout may.
pub fn stdout() -> (Output, Writer) {
    let (sender, lines) = channel::<Option<Value>>();
    let thread = std::thread::spawn(move || {
        let mut stdout = std::io::stdout().lock();
        for line in lines.into_iter().map_while(|line| line) {
            // In one piece: a process that is killed leaves no half line behind.
            let line = format!("{line}\n");
            if stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush()).is_err() {
                // Nobody reads any more.
                return;
            }
        }
    });
    (Output(sender), Writer(thread))
}

impl Output {
    /// Queues one line.
    pub fn line(&self, line: Value) {
        // The writer is gone only when nobody reads any more.
        let _ = self.0.send(Some(line));
    }

    /// What is queued after this is not written any more.
    pub fn end(&self) {
        let _ = self.0.send(None);
    }
}

impl Writer {
    /// Waits until all that was queued before [`Output::end`] is written.
    pub fn finish(self) {
        let _ = self.0.join();
    }
}
