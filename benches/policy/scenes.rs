//! The scenes of the simulator.
//!
//! In: the scale. Out: the goals of each scene, with the measured figures.

mod bursts;
pub(crate) mod feedback;
mod keys;
pub(crate) mod overload;
pub(crate) mod shares;
pub(crate) mod starting;
mod subsets;
pub(crate) mod zones;

use super::goals::Goal;

/// How much is simulated.
#[derive(Clone, Copy)]
pub(crate) struct Scale {
    /// Simulates only enough to check that it works.
    pub(crate) short: bool,
}

type Scene = fn(Scale) -> Vec<Goal>;

pub(crate) const SCENES: [(&str, Scene); 8] = [
    ("shares", shares::run),
    ("starting", starting::run),
    ("feedback", feedback::run),
    ("overload", overload::run),
    ("zones", zones::run),
    ("subsets", subsets::run),
    ("keys", keys::run),
    ("bursts", bursts::run),
];

impl Scale {
    /// Returns the seeds over which a figure is a mean. Parameters were chosen with the first
    /// five of them; the others tell what was fitted to chance.
    fn seeds(self) -> std::ops::Range<u64> {
        if self.short { 1..2 } else { 1..21 }
    }
}

fn mean(all: impl IntoIterator<Item = f64>) -> f64 {
    let (sum, count) =
        all.into_iter().fold((0.0, 0.0), |(sum, count), one| (sum + one, count + 1.0));
    sum / f64::max(count, 1.0)
}

fn most(all: impl IntoIterator<Item = f64>) -> f64 {
    all.into_iter().fold(f64::MIN, f64::max)
}

/// Returns the largest value divided by the mean.
fn max_over_mean(all: &[f64]) -> f64 {
    most(all.iter().copied()) / mean(all.iter().copied())
}

/// Returns the quantile `part` of the values.
fn percentile(all: &[f64], part: f64) -> f64 {
    let mut all = all.to_vec();
    all.sort_unstable_by(f64::total_cmp);
    all[((all.len() - 1) as f64 * part).round() as usize]
}
