//! Handshakes under way with whoever has dialled, of which nobody is known yet.
//!
//! There is room for a certain number.  Whoever comes when it is full takes the place of another, the
//! oldest of the source that has most: strangers at one address crowd out each other, and one that
//! says nothing gives way to one that does.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use tokio::task::{AbortHandle, JoinSet};

/// Handshakes under way at once.
const MAX_HANDSHAKES: usize = 64;

/// Handshakes that end with a `T`.
pub(super) struct Crowd<T> {
    tasks: JoinSet<io::Result<T>>,
    /// Oldest first.
    places: Vec<(IpAddr, AbortHandle)>,
}

impl<T: Send + 'static> Crowd<T> {
    pub(super) fn new() -> Self {
        Self { tasks: JoinSet::new(), places: Vec::new() }
    }

    /// Begins a handshake with whoever dialled from there.
    pub(super) fn begin(
        &mut self,
        from: SocketAddr,
        handshake: impl Future<Output = io::Result<T>> + Send + 'static,
    ) {
        self.places.retain(|(_, task)| !task.is_finished());
        if self.places.len() >= MAX_HANDSHAKES {
            let (source, task) = self.places.remove(self.last_in_line());
            log::warn!("closed a connection from {source}: {MAX_HANDSHAKES} are not done yet");
            task.abort();
        }
        self.places.push((source(from.ip()), self.tasks.spawn(handshake)));
    }

    /// Which place is given to the next one.
    fn last_in_line(&self) -> usize {
        let mut counts = HashMap::new();
        for (source, _) in &self.places {
            *counts.entry(*source).or_insert(0) += 1;
        }
        let most = counts.values().max().copied().unwrap_or_default();
        let busiest = |(source, _): &(IpAddr, AbortHandle)| counts[source] == most;
        self.places.iter().position(busiest).unwrap_or_default()
    }

    /// The next good one; failures are logged.  Waits for ever while there are none.
    pub(super) async fn next(&mut self) -> T {
        loop {
            match self.tasks.join_next().await {
                None => std::future::pending().await,
                Some(Ok(Ok(done))) => return done,
                Some(Ok(Err(error))) => log::warn!("closed a connection: {error}"),
                // It has given its place to another.
                Some(Err(error)) if error.is_cancelled() => {}
                Some(Err(error)) => log::error!("a handshake panicked: {error}"),
            }
        }
    }
}

/// Whoever has one address of IPv6 has all that differ in the last 64 bits.
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    fn from(address: &str) -> SocketAddr {
        SocketAddr::new(address.parse().unwrap(), 1)
    }

    fn places(crowd: &Crowd<()>) -> usize {
        crowd.places.iter().filter(|(_, task)| !task.is_finished()).count()
    }

    #[tokio::test]
    async fn a_crowd_at_one_address_does_not_take_the_place_of_another() {
        let mut crowd = Crowd::new();
        let (go, going) = tokio::sync::oneshot::channel();
        crowd.begin(from("192.0.2.1"), async { Ok(going.await.unwrap()) });
        for _ in 0..1000 {
            crowd.begin(from("192.0.2.2"), pending());
        }
        assert_eq!(crowd.places.len(), MAX_HANDSHAKES);
        go.send(7).unwrap();
        assert_eq!(crowd.next().await, 7);
    }

    #[tokio::test]
    async fn the_oldest_of_the_busiest_source_goes() {
        let mut crowd = Crowd::new();
        crowd.begin(from("2001:db8::1"), pending());
        for host in 1..MAX_HANDSHAKES {
            crowd.begin(from(&format!("2001:db8:0:1::{host:x}")), pending());
        }
        crowd.begin(from("192.0.2.1"), pending());
        tokio::task::yield_now().await;
        assert!(!crowd.places[0].1.is_finished());
        assert_eq!((crowd.places.len(), places(&crowd)), (MAX_HANDSHAKES, MAX_HANDSHAKES));
        assert_eq!(crowd.last_in_line(), 1);
    }

    #[tokio::test]
    async fn places_of_handshakes_that_are_done_are_free() {
        let mut crowd = Crowd::new();
        for _ in 0..MAX_HANDSHAKES {
            crowd.begin(from("192.0.2.1"), ready(Ok(())));
        }
        for _ in 0..MAX_HANDSHAKES {
            crowd.next().await;
        }
        crowd.begin(from("192.0.2.1"), pending());
        assert_eq!((crowd.places.len(), places(&crowd)), (1, 1));
    }
}
