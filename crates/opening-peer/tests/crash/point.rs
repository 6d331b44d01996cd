//! Points at which a node can die.

use std::future::pending;
use std::sync::{Arc, Mutex};

/// Counts what a node touches, from its start on.  At the point it was made for the node is dead:
/// from then on nothing that it touches answers or has an effect.
#[derive(Clone)]
pub struct Crash(Arc<Mutex<Count>>);

struct Count {
    /// The point at which it dies, counted from 1.
    at: Option<usize>,
    /// Pieces of work under way.
    at_work: u32,
    is_dead: bool,
    /// What the points are.
    labels: Vec<String>,
}

impl Crash {
    pub fn at(at: Option<usize>) -> Self {
        let labels = Vec::new();
        Self(Arc::new(Mutex::new(Count { at, at_work: 0, is_dead: false, labels })))
    }

    fn count<T>(&self, act: impl FnOnce(&mut Count) -> T) -> T {
        act(&mut self.0.lock().unwrap())
    }

    /// One more point; `false` where the node dies here, or is dead.
    pub fn passes(&self, when: &str, what: &str) -> bool {
        self.count(|count| {
            if count.is_dead {
                return false;
            }
            count.labels.push(format!("{when} {what}"));
            count.is_dead = count.at == Some(count.labels.len());
            !count.is_dead
        })
    }

    /// A point between two steps.
    pub async fn point(&self, when: &str, what: &str) {
        if !self.passes(when, what) {
            pending().await
        }
    }

    /// A point before `act`, and one after it.
    pub async fn around<T>(&self, what: &str, act: impl Future<Output = T>) -> T {
        self.point("before", what).await;
        let done = act.await;
        self.point("after", what).await;
        done
    }

    /// Work that ends by itself, on another thread maybe.
    pub async fn working<T>(&self, act: impl Future<Output = T>) -> T {
        self.count(|count| count.at_work += 1);
        let done = act.await;
        self.count(|count| count.at_work -= 1);
        done
    }

    pub fn is_dead(&self) -> bool {
        self.count(|count| count.is_dead)
    }

    /// Points passed, the one of the death included.
    pub fn passed(&self) -> usize {
        self.count(|count| count.labels.len())
    }

    pub fn is_at_work(&self) -> bool {
        self.count(|count| count.at_work > 0 && !count.is_dead)
    }

    /// The points passed, in order; the last one is where it died, if it did.
    pub fn labels(&self) -> Vec<String> {
        self.count(|count| count.labels.clone())
    }
}
