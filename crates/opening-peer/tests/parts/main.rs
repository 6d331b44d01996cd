//! A connection that the node takes back, uses itself and gives to its session again.

// Clippy's exception for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod ends;
mod meanwhile;
mod road;
mod stages;

use opening_peer::transport::Transport;

/// Lets everything happen that can happen without the clock.
async fn settle() {
    for _ in 0..500 {
        tokio::task::yield_now().await;
    }
}

/// What the node reads itself and is for nobody else.
fn is_custom(bytes: &[u8]) -> bool {
    bytes.starts_with(&common::parts::CUSTOM_TYPES[0].to_be_bytes())
}

/// The node's own message with this number.
fn custom(number: u32) -> Vec<u8> {
    let type_number = common::parts::CUSTOM_TYPES[0].to_be_bytes();
    [&type_number[..], &number.to_be_bytes(), &[0xcc; 100]].concat()
}

/// Writes what is queued and reads on until `count` custom messages have come.  Gives these, and
/// puts back what is not the node's; `meant` sees that first.
async fn use_it(
    transport: &mut Transport,
    count: usize,
    mut meant: impl FnMut(&[u8]),
) -> Vec<Vec<u8>> {
    let Transport { reader, writer } = transport;
    let (mut customs, mut others) = (Vec::new(), Vec::new());
    while customs.len() < count || writer.needs_flush() {
        tokio::select! {
            flushed = writer.flush(), if writer.needs_flush() => flushed.unwrap(),
            read = reader.read(), if customs.len() < count => {
                let bytes = read.unwrap().unwrap();
                if is_custom(&bytes) {
                    customs.push(bytes);
                } else {
                    meant(&bytes);
                    others.push(bytes);
                }
            }
        }
    }
    for bytes in others {
        reader.put_back(bytes);
    }
    customs
}
