//! Shedding: computes the share of calls that clients should drop while a service is
//! overloaded.
//!
//! In: demand and capacity each second, and the utilisation every few seconds. Out: the
//! drop share in whole percent, whenever it must be published. Pure. The state belongs to
//! one replica. Demand and capacity must be about the same clients.
//!
//! The demand decides the share, not the utilisation. An overloaded machine shows full
//! utilisation at any overload, so a rule based on utilisation alone lets it collapse. The
//! utilisation only corrects the estimate of the capacity, slowly (the *trim*).

/// The target utilisation.
const TARGET: f64 = 0.95;
/// No call is shed while the demand is below this part of the capacity. The gap between it
/// and the target prevents shedding from switching on and off all the time.
const BEGINS: f64 = 0.85;
/// The most that the share grows in a second.
const UP: f64 = 0.30;
/// The most that the share falls in a second. It is smaller, because clients whose calls
/// were dropped come back at once.
const DOWN: f64 = 0.10;
/// A smaller change of the share is not published, because each publication is a new list.
const BAND: f64 = 0.02;
/// The largest share. The remaining calls show when the service has recovered.
const MOST: f64 = 0.95;
/// Above this utilisation the service counts as full, and its estimate as too high.
const FULL: f64 = 0.985;
const TRIM_DOWN: f64 = 0.95;
/// How fast the trim follows the utilisation.
const TRIM: f64 = 0.05;
/// The same, once the service has not been full for [`CALM`].
const TRIM_CALM: f64 = 0.2;
/// Milliseconds.
const CALM: u64 = 30_000;
const TRIM_RANGE: (f64, f64) = (0.6, 1.15);

/// The drop share of one service.
#[derive(Debug, Clone, PartialEq)]
pub struct Shedding {
    /// The computed share.
    share: f64,
    /// The share that was published last, in percent.
    published: u32,
    /// The correction by which the estimated capacity is multiplied.
    trim: f64,
    /// The last time at which the service was full, or at which shedding began.
    full_at: u64,
}

impl Default for Shedding {
    fn default() -> Self {
        Self { share: 0.0, published: 0, trim: 1.0, full_at: 0 }
    }
}

impl Shedding {
    /// Computes the share; call it once a second. `demand` is the calls per second that
    /// clients start, by their last reports, dropped calls included. `capacity` is the calls
    /// per second of all backends at full utilisation. Returns the percentage to publish;
    /// `None` if the published one stays in force.
    pub fn tick(&mut self, demand: f64, capacity: f64) -> Option<u32> {
        let known = demand.is_finite() && capacity.is_finite() && capacity > 0.0;
        let wanted = if !known || demand < BEGINS * capacity {
            0.0
        } else {
            (1.0 - TARGET * capacity * self.trim / demand).clamp(0.0, MOST)
        };
        self.share = (self.share + (wanted - self.share).clamp(-DOWN, UP)).clamp(0.0, MOST);
        let published = f64::from(self.published) / 100.0;
        let ends = self.share == 0.0 && self.published > 0;
        let differs = (self.share - published).abs() >= BAND - 1e-9;
        (differs || ends).then(|| {
            // The small amount prevents a rounding error from making 31 % of 0.3.
            self.published = (self.share * 100.0 - 1e-6).ceil() as u32;
            self.published
        })
    }

    /// Corrects the trim; call it every five to ten seconds. `utilisation` is the mean of
    /// the service's backends, and `now` is in milliseconds.
    pub fn utilisation(&mut self, utilisation: f64, now: u64) {
        if self.share == 0.0 {
            self.trim = 1.0;
            self.full_at = now;
            return;
        }
        if !utilisation.is_finite() {
            return;
        }
        let factor = if utilisation > FULL {
            self.full_at = now;
            TRIM_DOWN
        } else {
            let calm = now.saturating_sub(self.full_at) >= CALM;
            1.0 + if calm { TRIM_CALM } else { TRIM } * (TARGET - utilisation)
        };
        self.trim = (self.trim * factor).clamp(TRIM_RANGE.0, TRIM_RANGE.1);
    }

    /// Returns the published drop share in percent.
    #[must_use]
    pub fn percent(&self) -> u32 {
        self.published
    }

    /// Returns whether calls are shed. If so, clients should report every five seconds.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.share > 0.0 || self.published > 0
    }
}

/// Returns how many drop entries a list with `entries` other entries needs, so that clients
/// drop `percent` of their calls.
#[must_use]
pub fn drops(entries: usize, percent: u32) -> usize {
    let percent = percent.min(99) as usize;
    let rest = 100 - percent;
    let drops = (entries * percent + rest / 2) / rest;
    if percent == 0 { 0 } else { drops.max(1) }
}

/// Returns whether entry `at` of a list of `total` entries is one of its drop entries,
/// which are spread evenly. `phase` is a fraction of 2^64 and must differ for each stream
/// and list. Clients start each list's drop entries at its first entry. With equal phases,
/// a client that gets lists more often than it calls would drop all calls, or none.
#[must_use]
pub fn is_drop(at: usize, total: usize, drops: usize, phase: u64) -> bool {
    if total == 0 {
        return false;
    }
    let shift = (u128::from(phase) * total as u128) >> u64::BITS;
    let before = |at: u128| (at + shift) * drops as u128 / total as u128;
    before(at as u128 + 1) > before(at as u128)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_share_follows_the_demand_in_bounded_steps() {
        let mut shedding = Shedding::default();
        assert_eq!(shedding.tick(84.0, 100.0), None);
        // 2 × the capacity: 1 - 0.95 / 2.
        let up: Vec<_> = (0..4).map(|_| shedding.tick(200.0, 100.0)).collect();
        assert_eq!(up, [Some(30), Some(53), None, None]);
        assert!(shedding.is_active());
        let down: Vec<_> = (0..7).map(|_| shedding.tick(50.0, 100.0)).collect();
        assert_eq!(down, [Some(43), Some(33), Some(23), Some(13), Some(3), Some(0), None]);
        assert!(!shedding.is_active());
        assert_eq!(shedding.tick(f64::NAN, 100.0), None);
        assert_eq!(shedding.tick(100.0, 0.0), None);
    }

    #[test]
    fn the_trim_makes_up_for_a_wrong_capacity() {
        let mut shedding = Shedding::default();
        let (demand, estimated, real) = (200.0, 110.0, 100.0);
        for second in 0..120 {
            shedding.tick(demand, estimated);
            let load = demand * (1.0 - f64::from(shedding.percent()) / 100.0) / real;
            if second % 5 == 0 {
                shedding.utilisation(load.min(1.0), second * 1_000);
            }
        }
        let load = demand * (1.0 - f64::from(shedding.percent()) / 100.0) / real;
        assert!((0.9..0.985).contains(&load), "{load}");
        for second in 120..140 {
            shedding.tick(50.0, estimated);
            shedding.utilisation(0.5, second * 1_000);
        }
        assert_eq!(shedding, Shedding { full_at: 139_000, ..Shedding::default() });
    }

    proptest! {
        #[test]
        fn drop_entries_are_spread(entries in 1..2_000_usize, percent in 0..=95_u32, phase in any::<u64>()) {
            let drops = drops(entries, percent);
            let total = entries + drops;
            let share = drops as f64 / total as f64;
            prop_assert!((share - f64::from(percent) / 100.0).abs() * total as f64 <= 1.0);
            let mut seen = 0;
            for at in 0..total {
                seen += usize::from(is_drop(at, total, drops, phase));
                let due = (at + 1) as f64 * share;
                prop_assert!((seen as f64 - due).abs() <= 1.0 + 1e-9);
            }
            prop_assert_eq!(seen, drops);
        }

        #[test]
        fn a_twentieth_always_gets_through_and_bands_hold(
            ticks in proptest::collection::vec((0.0..1e4_f64, 0.0..1.2_f64), 1..200),
        ) {
            let mut shedding = Shedding::default();
            let mut last = 0_i64;
            for (at, (demand, utilisation)) in ticks.into_iter().enumerate() {
                if let Some(percent) = shedding.tick(demand, 100.0) {
                    prop_assert!(percent <= 95);
                    let step = i64::from(percent) - last;
                    prop_assert!((-12..=33).contains(&step) && step != 0, "{}", step);
                    last = i64::from(percent);
                }
                prop_assert_eq!(i64::from(shedding.percent()), last);
                shedding.utilisation(utilisation, at as u64 * 1_000);
                prop_assert!((TRIM_RANGE.0..=TRIM_RANGE.1).contains(&shedding.trim));
            }
        }
    }
}
