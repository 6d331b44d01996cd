//! What one opening took, and what many did.

use std::time::{Duration, Instant};

use super::writes::{Writes, Written};
use crate::cpu;
use crate::figures::Microseconds;

/// What an opening took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    latency: Duration,
    /// Of the whole process, so of both sides.
    cpu: Duration,
    written: Written,
}

/// Runs while an opening does.
pub(super) struct Meter<'a> {
    since: Instant,
    cpu: Duration,
    writes: &'a Writes,
}

impl<'a> Meter<'a> {
    /// From now on.
    pub(super) fn start(writes: &'a Writes) -> Self {
        writes.take();
        Self { cpu: cpu::of_process(), since: Instant::now(), writes }
    }

    /// Until now.
    pub(super) fn stop(self) -> Sample {
        let Self { since, cpu, writes } = self;
        let latency = since.elapsed();
        Sample { latency, cpu: cpu::of_process() - cpu, written: writes.take() }
    }
}

/// Many openings of one kind.
#[derive(Default)]
pub(super) struct Samples(Vec<Sample>);

impl Extend<Sample> for Samples {
    fn extend<I: IntoIterator<Item = Sample>>(&mut self, samples: I) {
        self.0.extend(samples);
    }
}

impl Samples {
    /// This many of a hundred were as fast or faster.
    pub(super) fn latency(&self, of_hundred: usize) -> Microseconds {
        self.quantile(of_hundred, |sample| sample.latency)
    }

    /// The median of the CPU time, both sides.
    pub(super) fn cpu(&self) -> Microseconds {
        self.quantile(50, |sample| sample.cpu)
    }

    /// The median of all durable writes of an opening together, both sides.
    pub(super) fn written(&self) -> Microseconds {
        self.quantile(50, |sample| sample.written.taken)
    }

    /// How many durable writes most openings have, both sides.
    pub(super) fn writes(&self) -> u32 {
        let mut counts: Vec<_> = self.0.iter().map(|sample| sample.written.count).collect();
        counts.sort_unstable();
        counts.get(counts.len() / 2).copied().unwrap_or_default()
    }

    fn quantile(&self, of_hundred: usize, figure: impl Fn(&Sample) -> Duration) -> Microseconds {
        let mut figures: Vec<_> = self.0.iter().map(figure).collect();
        figures.sort_unstable();
        let at = figures.len().saturating_sub(1) * of_hundred / 100;
        Microseconds::of(figures.get(at).copied().unwrap_or_default())
    }
}
