//! What a node was told, in order.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bitcoin::secp256k1::PublicKey;
use opening_peer::negotiation::ready::Ready;
use opening_peer::node::Events;
use opening_peer::{Event, Failed, Opened};
use tokio::sync::Notify;
use tokio::time::timeout;

/// Long enough for every deadline under a paused clock.
const PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Default)]
pub struct Log {
    events: Mutex<Vec<Event>>,
    news: Notify,
}

impl Events for Log {
    fn event(&self, _peer: &PublicKey, event: Event) {
        self.events.lock().unwrap().push(event);
        self.news.notify_waiters();
    }
}

impl Log {
    /// What `find` makes of all events so far.
    pub fn all<T>(&self, find: impl Fn(&Event) -> Option<T>) -> Vec<T> {
        self.events.lock().unwrap().iter().filter_map(find).collect()
    }

    /// The first event that answers `find`, which may still have to come.
    pub async fn first<T>(&self, find: impl Fn(&Event) -> Option<T>) -> T {
        let search = async {
            loop {
                let news = self.news.notified();
                if let Some(found) = self.all(&find).into_iter().next() {
                    return found;
                }
                news.await;
            }
        };
        match timeout(PATIENCE, search).await {
            Ok(found) => found,
            Err(_) => panic!("not seen; seen: {:#?}", self.all(|event| Some(event.to_string()))),
        }
    }

    pub async fn failed(&self) -> Failed {
        self.first(failed).await
    }

    /// Every opening that failed, as (stage, code).
    pub fn failures(&self) -> Vec<(&'static str, &'static str)> {
        self.all(|event| failed(event).map(|it| (it.stage.as_str(), it.failure.code())))
    }

    pub async fn opened(&self) -> Arc<Opened> {
        self.first(opened).await
    }

    pub fn opened_so_far(&self) -> usize {
        self.all(opened).len()
    }

    pub async fn ready(&self) -> Ready {
        self.first(ready).await
    }

    pub fn ready_so_far(&self) -> usize {
        self.all(ready).len()
    }

    /// The texts of the peer's `error`s.
    pub fn errors_received(&self) -> Vec<String> {
        self.all(error_received)
    }

    pub async fn error_received(&self) -> String {
        self.first(error_received).await
    }

    pub async fn disconnected(&self) -> String {
        self.first(|event| match event {
            Event::Disconnected { reason } => Some(reason.clone()),
            _ => None,
        })
        .await
    }
}

fn failed(event: &Event) -> Option<Failed> {
    match event {
        Event::Failed(failed) => Some(failed.clone()),
        _ => None,
    }
}

fn opened(event: &Event) -> Option<Arc<Opened>> {
    match event {
        Event::Opened(opened) => Some(opened.clone()),
        _ => None,
    }
}

fn ready(event: &Event) -> Option<Ready> {
    match event {
        Event::Ready(ready) => Some((**ready).clone()),
        _ => None,
    }
}

fn error_received(event: &Event) -> Option<String> {
    match event {
        Event::ErrorReceived { text, .. } => Some(text.clone()),
        _ => None,
    }
}
