//! Points at which a node can die.

use std::future::pending;
use std::sync::{Arc, Mutex};

/// Counts what a node touches, from its start on.  At the point it was made for the node is dead:
/// from then on nothing that it touches answers or has an effect.
#[derive(Clone)]
pub struct Crash(Arc<Mutex<Count>>);

struct Count {
    /// The point at which it dies, counted from 1.
    at: Option<u64>,
    passed: u64,
    /// Touched, and not answered yet.
    under_way: u32,
    is_dead: bool,
    /// Where it died.
    label: String,
}

impl Crash {
    pub fn at(at: Option<u64>) -> Self {
        let label = String::new();
        Self(Arc::new(Mutex::new(Count { at, passed: 0, under_way: 0, is_dead: false, label })))
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
            count.passed += 1;
            if count.at == Some(count.passed) {
                count.is_dead = true;
                count.label = format!("{when} {what}");
            }
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
        self.count(|count| count.under_way += 1);
        let done = act.await;
        self.count(|count| count.under_way -= 1);
        self.point("after", what).await;
        done
    }

    pub fn is_dead(&self) -> bool {
        self.count(|count| count.is_dead)
    }

    /// Points passed, the one of the death included.
    pub fn passed(&self) -> u64 {
        self.count(|count| count.passed)
    }

    /// Whether another thread may be at work for the node.
    pub fn is_at_work(&self) -> bool {
        self.count(|count| count.under_way > 0 && !count.is_dead)
    }

    /// Where the node died.
    pub fn label(&self) -> String {
        self.count(|count| count.label.clone())
    }
}
