//! Estimates the capacity of backends from their load reports, as factors of their weights.
//!
//! In: calls per second and utilisation of each backend, the time. Out: an estimate for
//! each backend, and for a service the factors to publish, if they differ enough from the
//! published ones. Pure. The code uses floating point with `+ - * /` only, so replicas that
//! read the same reports in the same order compute the same values.
//!
//! The estimate is that of gRPC's client-side weighted round robin (A58), computed at the
//! server and smoothed: the capacity is the calls divided by the utilisation. The estimate
//! is not a control loop, so late reports do not make it oscillate. An integrating
//! controller was simulated too. It oscillates, because lists have whole entries only, and
//! it cannot tell how far above saturation a backend is.

use super::factor::Factor;

/// The time constant of the averages, in milliseconds. It may be long, because a jump
/// restarts the averages. With 90 s, noise causes twice as many list changes, and the
/// balance is no better.
const SMOOTH: f64 = 180_000.0;
/// Reports from this long after a backend joined do not count, because they measure
/// start-up work. Milliseconds.
const BLACKOUT: u64 = 10_000;
/// A lower utilisation counts as this one: a division by nearly 0 could give any estimate.
const UTILISATION_MIN: f64 = 0.02;
/// How far a report must be from the estimate to be a jump, as a part of the estimate. Two
/// jumps in a row in the same direction mean that the machine has changed. Then the
/// estimate starts again.
const JUMP: f64 = 0.2;
/// The same, as a multiple of the usual difference (`noise`). The larger of the two limits
/// holds.
const JUMP_NOISE: f64 = 4.0;
/// The weight of the new report when the estimate starts again.
const JUMP_GAIN: f64 = 0.6;
/// A backend whose estimate differs from the median by less than this many times its likely
/// error counts as equal: noise explains that. With less, noise causes more lists; with more,
/// shares follow a machine that has changed later.
const DOUBT: f64 = 2.0;
/// How long an estimate without new reports stays as it is, in milliseconds.
const FRESH: u64 = 180_000;
/// How long its factor then takes to return to 1, in milliseconds.
const DECAY: u64 = 60_000;
/// The range of factors. It bounds the harm that wrong reports can do. It is narrower above
/// 1 than below, because a share that is too small is safe.
const LEAST: f64 = 0.25;
const MOST: f64 = 1.5;
/// Below this mean utilisation, reports measure work other than calls.
const MEAN_UTILISATION_MIN: f64 = 0.05;
/// Factors are published if any share changes by more than this part of itself.
const SHARE_BAND: f64 = 0.04;
/// Factors are also published if more than this part of all calls moves.
const MOVED_BAND: f64 = 0.013;
/// The least time between two publications, in milliseconds. Otherwise noise alone would
/// cause up to four lists a minute.
const CALM: u64 = 75_000;
/// The same for an estimate that has settled: it is twice as old as at the last publication.
const CALM_SETTLED: u64 = 50_000;
/// The band of [`SHARE_BAND`] for an estimate that has settled. The first reports after a
/// start or a jump give a rough estimate, which would else stay published.
const SHARE_BAND_SETTLED: f64 = 0.025;
/// An older estimate has settled long ago. Milliseconds.
const SETTLING: u64 = 200_000;
/// A share that changes by more than this part of itself is published earlier.
const SHARE_BAND_SOON: f64 = 0.15;
/// For that, the change must also be more than this many times the usual difference of the
/// backend's reports.
const SOON_NOISE: f64 = 2.5;

/// A load report of a backend.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Report {
    /// Successful calls per second. Failed calls do not count, so a backend that fails
    /// quickly loses weight.
    pub calls: f64,
    /// Utilisation: 1 is full.
    pub utilisation: f64,
}

/// The estimate of one backend.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimate {
    joined: u64,
    /// When the estimate started, in milliseconds.
    began: u64,
    /// The time of the last report that counted, in milliseconds.
    at: Option<u64>,
    /// The number of reports since the estimate started.
    count: f64,
    calls: f64,
    utilisation: f64,
    /// The mean difference between a report and the estimate, as a part of it.
    noise: f64,
    /// The variance of the estimate, as a part of the variance of one report.
    variance: f64,
    /// The direction in which the last report jumped: 1 up, -1 down, 0 if it did not jump.
    jump: i8,
}

/// A backend as its service publishes it.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    /// Its weight without feedback; not 0.
    pub weight: u32,
    /// The factor that was published last.
    pub published: Factor,
    /// Its estimate, if it ever reported.
    pub estimate: Option<&'a Estimate>,
}

impl Estimate {
    /// Makes the estimate of a backend that joined at `now`, in milliseconds.
    #[must_use]
    pub fn new(now: u64) -> Self {
        Self {
            joined: now,
            began: now,
            at: None,
            count: 0.0,
            calls: 0.0,
            utilisation: 0.0,
            noise: 0.0,
            variance: 0.0,
            jump: 0,
        }
    }

    /// Adds a report. `idle` is the utilisation without calls, or 0 if it is unknown.
    pub fn add(&mut self, report: Report, idle: f64, now: u64) {
        let sane = |value: f64| value.is_finite() && value >= 0.0;
        let cold = now < self.joined.saturating_add(BLACKOUT);
        if cold || !sane(report.calls) || !sane(report.utilisation) {
            return;
        }
        let utilisation = (report.utilisation - idle).max(UTILISATION_MIN);
        let jumps = self.takes_jump(report.calls / utilisation);
        if jumps || self.at.is_none() {
            self.began = now;
        }
        let passed = now.saturating_sub(self.at.unwrap_or(now));
        self.at = Some(now);
        self.count = if jumps { 1.0 } else { self.count + 1.0 };
        let gain = if jumps { JUMP_GAIN } else { gain(passed).max(1.0 / self.count) };
        self.calls += gain * (report.calls - self.calls);
        self.utilisation += gain * (utilisation - self.utilisation);
        self.variance += gain * (gain - (2.0 - gain) * self.variance);
    }

    /// Returns the estimated calls per second at full utilisation; `None` before the first
    /// report that counts.
    #[must_use]
    pub fn capacity(&self) -> Option<f64> {
        self.at.map(|_| self.calls / self.utilisation)
    }

    /// Returns the calls per second, smoothed; 0 before the first report that counts.
    #[must_use]
    pub fn calls(&self) -> f64 {
        self.calls
    }

    /// Returns the time of the last report that counted, in milliseconds.
    #[must_use]
    pub fn reported(&self) -> Option<u64> {
        self.at
    }

    /// Returns whether the estimate is new and has seen twice as much as at the last
    /// publication.
    fn has_settled(&self, last: u64, now: u64) -> bool {
        let age = now.saturating_sub(self.began);
        age <= SETTLING && age >= 2 * last.saturating_sub(self.began)
    }

    /// Compares a report's capacity with the estimate. Returns whether the estimate must
    /// start again.
    fn takes_jump(&mut self, capacity: f64) -> bool {
        let Some(estimate) = self.capacity().filter(|&estimate| estimate > 0.0) else {
            return false;
        };
        let deviation = capacity / estimate - 1.0;
        let usual = JUMP.max(JUMP_NOISE * self.noise);
        let jump = i8::from(deviation > usual) - i8::from(deviation < -usual);
        let again = jump != 0 && jump == self.jump;
        self.jump = if again { 0 } else { jump };
        if jump == 0 {
            let gain = (1.0 / self.count).max(0.1);
            self.noise += gain * (deviation.abs() - self.noise);
        }
        again
    }
}

/// Returns the factors to publish, in the order of the members; `None` if the published
/// factors stay in force. `last` is the time of the last publication, and `period` the usual
/// time between two reports of a backend; both in milliseconds.
///
/// The published factors stay in force while fewer than half of the backends report, or
/// while all are idle: missing data must not change a factor. If no backend has reported for
/// three minutes, all factors return to 1.
#[must_use]
pub fn publish(
    members: &[Member<'_>],
    last: Option<u64>,
    period: u64,
    now: u64,
) -> Option<Vec<Factor>> {
    let early = last.is_some_and(|last| now < last.saturating_add(period));
    if early || is_frozen(members, period, now) {
        return None;
    }
    let factors = factors(members, now);
    let shares = |factor: &dyn Fn(usize) -> Factor| -> Vec<f64> {
        let weight = |(at, member): (usize, &Member<'_>)| {
            f64::from(member.weight) * f64::from(factor(at).as_millionths())
        };
        let weights: Vec<f64> = members.iter().enumerate().map(weight).collect();
        let total: f64 = weights.iter().sum();
        weights.into_iter().map(|weight| weight / total).collect()
    };
    let (before, after) = (shares(&|at| members[at].published), shares(&|at| factors[at]));
    let moves = || before.iter().zip(&after).map(|(before, after)| (after - before).abs());
    let within = |calm: u64| last.is_some_and(|last| now < last.saturating_add(calm));
    let soon = within(CALM);
    let band = |member: &Member<'_>| {
        let settled = |last| member.estimate.is_some_and(|one| one.has_settled(last, now));
        if !within(CALM_SETTLED) && last.is_some_and(settled) {
            return SHARE_BAND_SETTLED;
        }
        let noise = member.estimate.map_or(0.0, |estimate| estimate.noise);
        if soon { SHARE_BAND_SOON.max(SOON_NOISE * noise) } else { SHARE_BAND }
    };
    let mut far = moves().zip(&before).zip(members);
    let far = far.any(|((moves, before), member)| moves > band(member) * before);
    let moved: f64 = moves().sum::<f64>() / 2.0;
    (far || !soon && moved > MOVED_BAND).then_some(factors)
}

/// Returns the factor of each member: its capacity per unit of weight, divided by the
/// median of all members. A difference from the median counts as far as the noise of reports
/// does not explain it.
#[must_use]
pub fn factors(members: &[Member<'_>], now: u64) -> Vec<Factor> {
    let ratios: Vec<Option<f64>> = members
        .iter()
        .map(|member| Some(member.estimate?.capacity()? / f64::from(member.weight)))
        .collect();
    let median = median(ratios.iter().flatten().copied().collect());
    let estimates = members.iter().filter_map(|member| member.estimate);
    let noise = self::median(estimates.map(|estimate| estimate.noise).collect()).unwrap_or(0.0);
    let factor = |(member, ratio): (&Member<'_>, Option<f64>)| {
        let (Some(estimate), Some(ratio), Some(median)) = (member.estimate, ratio, median) else {
            return Factor::ONE;
        };
        // The noise of one backend is not known well at first.
        let error = DOUBT * estimate.noise.max(noise);
        let certain = certain(ratio / median - 1.0, error * error * estimate.variance);
        let factor = (1.0 + certain).clamp(LEAST, MOST);
        let at = estimate.at.unwrap_or(now);
        let stale = now.saturating_sub(at).saturating_sub(FRESH).min(DECAY);
        let factor = factor + (1.0 - factor) * (stale as f64 / DECAY as f64);
        Factor::millionths((factor * 1e6) as u32)
    };
    members.iter().zip(ratios).map(factor).collect()
}

/// Returns what is left of a difference if noise explains its square up to `explained`: nothing
/// of a small one, and nearly all of a large one. (The garrote of Breiman 1995.)
fn certain(difference: f64, explained: f64) -> f64 {
    let square = difference * difference;
    if square > explained { difference - explained / difference } else { 0.0 }
}

fn is_frozen(members: &[Member<'_>], period: u64, now: u64) -> bool {
    let estimates = || members.iter().filter_map(|member| member.estimate);
    let recent = |at: u64| now.saturating_sub(at) < 3 * period;
    let reported = estimates().filter(|estimate| estimate.at.is_some_and(recent)).count();
    let known = || estimates().filter(|estimate| estimate.at.is_some());
    let utilisation: f64 = known().map(|estimate| estimate.utilisation).sum();
    let fresh = |at: u64| now.saturating_sub(at) <= FRESH;
    if !known().any(|estimate| estimate.at.is_some_and(fresh)) {
        return known().next().is_none();
    }
    2 * reported < members.len() || utilisation < MEAN_UTILISATION_MIN * known().count() as f64
}

/// Returns the weight in the average of a report that comes `passed` milliseconds after the
/// previous one: 1 − e^(−passed/180 s). It is a Padé approximant, because exponential
/// functions differ between machines.
fn gain(passed: u64) -> f64 {
    let x = passed as f64 / SMOOTH;
    (x / (1.0 + x / 2.0 + x * x / 12.0)).min(1.0)
}

/// Returns the median of the values that are finite and above 0. For an even number of
/// values it is the mean of the middle two.
fn median(mut all: Vec<f64>) -> Option<f64> {
    all.retain(|value| value.is_finite() && *value > 0.0);
    all.sort_unstable_by(f64::total_cmp);
    let middle = all.len() / 2;
    let high = all.get(middle)?;
    Some(if all.len() % 2 == 1 { *high } else { (all[middle - 1] + high) / 2.0 })
}

#[cfg(test)]
mod tests;
