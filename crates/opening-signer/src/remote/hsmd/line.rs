//! One connection to hsmd, on which one request is under way at a time.
//!
//! There are no request ids: a reply belongs to the request before it.  So a task owns the
//! connection, and reads the reply also where whoever asked is gone; and a connection whose reply
//! is late, cut or unreadable is given up, because nothing would tell the next reply from it.

use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::fd;
use super::message::Message;
use crate::remote::codec::Malformed;
use crate::remote::frame::{read_frame, write_frame};

/// Requests that may wait for the one under way.
const QUEUE: usize = 16;

/// Why there is no reply.
#[derive(Clone, Debug)]
pub(super) enum LineError {
    /// The connection was gone before.
    NotSent(String),
    /// It was sent, and then the connection ended.
    NoReply(String),
    /// What came is no message; the connection is given up.
    Malformed(Malformed),
}

/// A reply, and the socket that came with it.
type Answer = Result<(Message, Option<UnixStream>), LineError>;

struct Job {
    request: Vec<u8>,
    answer: oneshot::Sender<Answer>,
}

/// The way to the task that owns the connection; when it is dropped the connection is closed.
#[derive(Debug)]
pub(super) struct Line {
    jobs: mpsc::Sender<Job>,
    closed: watch::Receiver<Option<String>>,
}

impl Line {
    /// `deadline` is for each request, from when it is sent.
    pub(super) fn new(stream: UnixStream, deadline: Duration) -> Self {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let (closing, closed) = watch::channel(None);
        tokio::spawn(async move {
            let reason = serve(stream, deadline, queue).await;
            closing.send_replace(Some(reason));
        });
        Self { jobs, closed }
    }

    /// Sends a request; dropped, it leaves the connection as good as it was.
    pub(super) async fn ask(&self, request: Vec<u8>) -> Answer {
        let (answer, answered) = oneshot::channel();
        if self.jobs.send(Job { request, answer }).await.is_err() {
            return Err(LineError::NotSent(self.reason().await));
        }
        match answered.await {
            Ok(answer) => answer,
            Err(_) => Err(LineError::NotSent(self.reason().await)),
        }
    }

    /// Waits until the connection has ended, and says why.
    pub(super) async fn reason(&self) -> String {
        let mut closed = self.closed.clone();
        match closed.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "the connection's task has ended".into(),
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.borrow().is_some()
    }
}

/// Ends with the connection, and says why it did.
async fn serve(
    mut stream: UnixStream,
    deadline: Duration,
    mut queue: mpsc::Receiver<Job>,
) -> String {
    loop {
        let job = tokio::select! {
            job = queue.recv() => job,
            reason = ended(&stream) => return reason,
        };
        let Some(Job { request, answer }) = job else { return "nobody needs it any more".into() };
        if answer.is_closed() {
            continue;
        }
        let exchanged = timeout(deadline, exchange(&mut stream, &request)).await;
        let exchanged = exchanged.unwrap_or_else(|_| {
            Err(LineError::NoReply(format!("there is no reply after {deadline:?}")))
        });
        let reason = exchanged.as_ref().err().map(ToString::to_string);
        let _ = answer.send(exchanged);
        if let Some(reason) = reason {
            return reason;
        }
    }
}

async fn exchange(stream: &mut UnixStream, request: &[u8]) -> Answer {
    let failed = |error: std::io::Error| LineError::NoReply(error.to_string());
    write_frame(stream, request).await.map_err(failed)?;
    let reply = read_frame(stream).await.map_err(failed)?;
    let reply = reply.ok_or_else(|| LineError::NoReply("it closed the connection".into()))?;
    let reply = Message::decode(&reply).map_err(LineError::Malformed)?;
    let socket = match reply {
        Message::ClientHsmfdReply => {
            let received = fd::receive(stream).await.and_then(fd::adopt);
            Some(received.map_err(failed)?)
        }
        _ => None,
    };
    Ok((reply, socket))
}

/// Nothing comes between a reply and the next request but the end.
async fn ended(stream: &UnixStream) -> String {
    loop {
        if let Err(error) = stream.readable().await {
            return error.to_string();
        }
        match stream.try_read(&mut [0]) {
            Ok(0) => return "it closed the connection".into(),
            Ok(_) => return "it spoke without being asked".into(),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return error.to_string(),
        }
    }
}

impl std::fmt::Display for LineError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotSent(reason) | Self::NoReply(reason) => f.write_str(reason),
            Self::Malformed(malformed) => write!(f, "{malformed}"),
        }
    }
}
