//! VLS behind the wire of Core Lightning's hsmd: one node's connection on a Unix socket, and over
//! it one for each channel.
//!
//! VLS's handlers block and some panic on bad input, so that each connection has a thread of its
//! own.  An error and a panic both end the connection, as hsmd says no, and are kept in the log.

use std::any::Any;
use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use lightning_signer::bitcoin::Network;
use lightning_signer::node::NodeServices;
use lightning_signer::persist::DummyPersister;
use lightning_signer::policy::simple_validator::{
    SimpleValidatorFactory, make_default_simple_policy,
};
use lightning_signer::signer::ClockStartingTimeFactory;
use lightning_signer::util::clock::StandardClock;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use vls_protocol::msgs::{self, ClientHsmFdReply, Message, SerBolt};
use vls_protocol_signer::handler::{Handler, HandlerBuilder, InitHandler, RootHandler};

/// Bytes.  The largest frame that either side sends.
const MAX_FRAME: u32 = 128 * 1024;

/// A signer of VLS, and what it refused so far.
#[derive(Clone)]
pub(crate) struct Vls {
    init: InitHandler,
    refusals: Arc<Mutex<Vec<String>>>,
}

impl Vls {
    /// With VLS's own default policy for regtest; its state lives in memory.
    pub(crate) fn new(secret: [u8; 32]) -> Result<Self, String> {
        let policy = make_default_simple_policy(Network::Regtest);
        let services = NodeServices {
            validator_factory: Arc::new(SimpleValidatorFactory::new_with_policy(policy)),
            starting_time_factory: ClockStartingTimeFactory::new(),
            persister: Arc::new(DummyPersister),
            clock: Arc::new(StandardClock()),
            trusted_oracle_pubkeys: Vec::new(),
        };
        let init = HandlerBuilder::new(Network::Regtest, 0, services, secret).build();
        let init = init.map_err(|error| format!("VLS did not start: {error}"))?;
        Ok(Self { init, refusals: Arc::default() })
    }

    /// Serves at `path` for as long as the process lives.
    pub(crate) fn listen(&self, path: &Path) -> io::Result<()> {
        let (listener, vls) = (UnixListener::bind(path)?, self.clone());
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let vls = vls.clone();
                thread::spawn(move || vls.ended("node", vls.serve_node(stream)));
            }
        });
        Ok(())
    }

    /// What VLS said to what it refused since this was asked last.
    pub(crate) fn take_refusals(&self) -> Vec<String> {
        std::mem::take(&mut *self.refusals.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn ended(&self, connection: &str, result: Result<(), String>) {
        if let Err(reason) = result {
            let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
            refusals.push(format!("{connection}: {reason}"));
        }
    }

    fn serve_node(&self, mut stream: UnixStream) -> Result<(), String> {
        let mut init = self.init.clone();
        loop {
            let Some(frame) = read(&mut stream).map_err(text)? else { return Ok(()) };
            let message = msgs::from_vec(frame).map_err(text)?;
            let (is_done, reply) = guarded(|| init.handle(message))?;
            if let Some(reply) = reply {
                write(&mut stream, &reply.as_vec()).map_err(text)?;
            }
            if is_done {
                break;
            }
        }
        let root: RootHandler = init.into();
        while let Some(frame) = read(&mut stream).map_err(text)? {
            match msgs::from_vec(frame).map_err(text)? {
                Message::ClientHsmFd(request) => {
                    let channel = root.for_new_client(request.dbid, request.peer_id, request.dbid);
                    let (mut ours, theirs) = UnixStream::pair().map_err(text)?;
                    write(&mut stream, &ClientHsmFdReply {}.as_vec()).map_err(text)?;
                    pass(&stream, &theirs).map_err(text)?;
                    let vls = self.clone();
                    thread::spawn(move || vls.ended("channel", serve(&channel, &mut ours)));
                }
                other => answer(&root, other, &mut stream)?,
            }
        }
        Ok(())
    }
}

fn serve(handler: &impl Handler, stream: &mut UnixStream) -> Result<(), String> {
    while let Some(frame) = read(stream).map_err(text)? {
        answer(handler, msgs::from_vec(frame).map_err(text)?, stream)?;
    }
    Ok(())
}

fn answer(handler: &impl Handler, message: Message, stream: &mut UnixStream) -> Result<(), String> {
    let reply = guarded(|| handler.handle(message))?;
    write(stream, &reply.as_vec()).map_err(text)
}

/// A panic is an error as any other.
fn guarded<T, E: ToString>(call: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(text),
        Err(panic) => Err(format!("VLS panicked: {}", panic_text(&*panic))),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text")
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

/// The next frame's message; nothing when the other end has closed.
fn read(stream: &mut UnixStream) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match stream.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let length = u32::from_be_bytes(length);
    if length > MAX_FRAME {
        return Err(io::Error::other(format!("a frame of {length} bytes")));
    }
    let mut frame = vec![0; length as usize];
    stream.read_exact(&mut frame)?;
    Ok(Some(frame))
}

fn write(stream: &mut UnixStream, message: &[u8]) -> io::Result<()> {
    let length = u32::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), message].concat())
}

/// Passes a socket with one byte that means nothing.
fn pass(over: &UnixStream, socket: &UnixStream) -> io::Result<()> {
    let fds = [socket.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)), "there is space for one");
    sendmsg(over, &[IoSlice::new(&[0])], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}
