//! Figures with their unit, and what many rounds of one say.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, Div, Mul};
use std::time::Duration;

/// A time.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Microseconds(pub f64);

impl Microseconds {
    /// The same as a number.
    pub fn of(time: Duration) -> Self {
        Self(time.as_secs_f64() * 1e6)
    }
}

impl Add for Microseconds {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl Div<f64> for Microseconds {
    type Output = Self;

    fn div(self, by: f64) -> Self {
        Self(self.0 / by)
    }
}

impl Mul<f64> for Microseconds {
    type Output = Self;

    fn mul(self, by: f64) -> Self {
        Self(self.0 * by)
    }
}

impl Sum for Microseconds {
    fn sum<I: Iterator<Item = Self>>(times: I) -> Self {
        Self(times.map(|time| time.0).sum())
    }
}

impl fmt::Display for Microseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0}", self.0)
    }
}

/// The same measured again and again.
#[derive(Clone, Debug, Default)]
pub struct Rounds(Vec<f64>);

impl Rounds {
    /// Adds a round.
    pub fn push(&mut self, time: Microseconds) {
        self.0.push(time.0);
    }

    /// How much longer these took than others of the same rounds: the median of each round's ratio,
    /// so that a round in which the machine was slow says as much as any.
    pub fn to(&self, others: &Self) -> f64 {
        let ratios = self.0.iter().zip(&others.0).map(|(these, others)| these / others);
        Self(ratios.collect()).median().0
    }

    /// This many of a hundred were as fast or faster.
    pub fn quantile(&self, of_hundred: usize) -> Microseconds {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let at = sorted.len().saturating_sub(1) * of_hundred / 100;
        Microseconds(sorted.get(at).copied().unwrap_or(f64::NAN))
    }

    /// A tenth of the rounds was faster, half, and nine tenths.
    pub fn tenth_half_ninth(&self) -> [Microseconds; 3] {
        [10, 50, 90].map(|of_hundred| self.quantile(of_hundred))
    }

    /// Half of the rounds was faster.
    pub fn median(&self) -> Microseconds {
        self.quantile(50)
    }
}
