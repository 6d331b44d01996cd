//! The wire between two nodes, with someone on it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use lightning::ln::wire::Type;
use opening_peer::message::{Message, decode, encode};
use opening_peer::transport::{Reader, Transport, Writer, in_memory_pair};
use tokio::sync::mpsc;

/// Who sent a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum From {
    Funder,
    Fundee,
}

impl From {
    pub fn other(self) -> Self {
        match self {
            Self::Funder => Self::Fundee,
            Self::Fundee => Self::Funder,
        }
    }
}

enum Order {
    /// As if this side had sent it.
    Inject(From, Vec<u8>),
    /// Nothing this side sends is read any more.
    Deafen(From),
    Cut,
}

/// Messages and who said them, in order.
type Said = Vec<(From, Vec<u8>)>;

/// Carries what both sides say, remembers it, and does what a test orders.
#[derive(Clone)]
pub struct Wire {
    said: Arc<Mutex<Said>>,
    swallowed: Arc<Mutex<HashSet<u16>>>,
    orders: mpsc::UnboundedSender<Order>,
}

impl Wire {
    /// The wire, the funder's end and the fundee's.
    pub fn new() -> (Self, Transport, Transport) {
        let (funder_end, funder_side) = in_memory_pair();
        let (fundee_end, fundee_side) = in_memory_pair();
        let (orders, ordered) = mpsc::unbounded_channel();
        let wire = Self { said: Arc::default(), swallowed: Arc::default(), orders };
        tokio::spawn(carry(wire.clone(), ordered, funder_side, fundee_side));
        (wire, funder_end, fundee_end)
    }

    /// What one side said, without what was injected in its name.
    pub fn said(&self, from: From) -> Vec<Message> {
        let said = self.said.lock().unwrap();
        let by = said.iter().filter(|(by, _)| *by == from);
        by.map(|(_, bytes)| decode(bytes).unwrap()).collect()
    }

    /// The types of the messages that one side said.
    pub fn types(&self, from: From) -> Vec<u16> {
        let said = self.said.lock().unwrap();
        let by = said.iter().filter(|(by, _)| *by == from);
        by.map(|(_, bytes)| u16::from_be_bytes([bytes[0], bytes[1]])).collect()
    }

    /// The texts of one side's errors.
    pub fn errors(&self, from: From) -> Vec<String> {
        let errors = self.said(from).into_iter().filter_map(|message| match message {
            Message::Error(error) => Some(error.data),
            _ => None,
        });
        errors.collect()
    }

    /// Messages of this type are heard and not carried.
    pub fn swallow(&self, type_number: u16) {
        self.swallowed.lock().unwrap().insert(type_number);
    }

    pub fn carry_again(&self, type_number: u16) {
        self.swallowed.lock().unwrap().remove(&type_number);
    }

    pub fn inject<M: Type>(&self, from: From, message: &M) {
        let _ = self.orders.send(Order::Inject(from, encode(message)));
    }

    pub fn deafen(&self, from: From) {
        let _ = self.orders.send(Order::Deafen(from));
    }

    pub fn cut(&self) {
        let _ = self.orders.send(Order::Cut);
    }

    fn hears(&self, from: From, bytes: &[u8]) -> bool {
        self.said.lock().unwrap().push((from, bytes.to_vec()));
        let type_number = u16::from_be_bytes([bytes[0], bytes[1]]);
        !self.swallowed.lock().unwrap().contains(&type_number)
    }
}

async fn carry(
    wire: Wire,
    mut ordered: mpsc::UnboundedReceiver<Order>,
    funder: Transport,
    fundee: Transport,
) {
    let (mut funder_reader, mut funder_writer) = funder.split();
    let (mut fundee_reader, mut fundee_writer) = fundee.split();
    let mut deaf = HashSet::new();
    loop {
        let (from, bytes) = tokio::select! {
            order = ordered.recv() => match order {
                Some(Order::Inject(from, bytes)) => (from, bytes),
                Some(Order::Deafen(from)) => {
                    deaf.insert(from);
                    continue;
                }
                Some(Order::Cut) | None => return,
            },
            heard = hear(&wire, From::Funder, &mut funder_reader),
                if !deaf.contains(&From::Funder) => match heard {
                Some(Some(bytes)) => (From::Funder, bytes),
                Some(None) => continue,
                None => return,
            },
            heard = hear(&wire, From::Fundee, &mut fundee_reader),
                if !deaf.contains(&From::Fundee) => match heard {
                Some(Some(bytes)) => (From::Fundee, bytes),
                Some(None) => continue,
                None => return,
            },
        };
        let to = match from {
            From::Funder => &mut fundee_writer,
            From::Fundee => &mut funder_writer,
        };
        if say(to, &bytes).await.is_none() {
            return;
        }
    }
}

/// `None` at the end of the connection, `Some(None)` for a message that is swallowed.
async fn hear(wire: &Wire, from: From, reader: &mut Reader) -> Option<Option<Vec<u8>>> {
    let bytes = reader.read().await.ok()??;
    Some(wire.hears(from, &bytes).then_some(bytes))
}

async fn say(writer: &mut Writer, bytes: &[u8]) -> Option<()> {
    writer.queue(bytes).ok()?;
    writer.flush().await.ok()
}
